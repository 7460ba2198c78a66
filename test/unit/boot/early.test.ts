/**
 * `hostdev-native boot` on trees where nothing reacts: what it goes by (table, command line, identity, guards), what it
 * leaves alone and says. That devices move is for test/sim/early.test.ts.
 */
import { spawnSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { nativeExecutable } from '../../../src/addon/load.ts';
import { fnv1a, readTable, type TableDevice, tableText } from '../../../src/boot/table.ts';
import { StaticHost, type Tree } from '../../mock/tree.ts';

const NIC = '0000:23:00.0';
const GPU = '0000:41:00.0';
const AUDIO = '0000:41:00.1';
const DISK = '0000:51:00.0';
const BOOT = '0f0e0d0c-0b0a-4e20-8b29-1e85f123c67e';

const ids = (text: string) => {
  const [vendor_id = '', product_id = ''] = text.split(':');
  return { vendor_id, product_id, subsystem_vendor_id: null, subsystem_device_id: null, serial: null, allow: [] };
};
const VFIO = { driver: 'vfio-pci', module: 'vfio_pci' };
const nic: TableDevice = {
  ...ids('8086:10d3'),
  ...VFIO,
  path: 'pci0000:20/04.0/00.0',
  address: NIC,
  class: '020000',
  group: 7,
};
const gpu: TableDevice = {
  ...ids('10de:1bb0'),
  ...VFIO,
  path: 'pci0000:40/00.0/00.0',
  address: GPU,
  class: '030000',
  group: 8,
};
const audio: TableDevice = {
  ...ids('10de:10f0'),
  ...VFIO,
  path: 'pci0000:40/00.0/00.1',
  address: AUDIO,
  class: '040300',
  group: 8,
};
const TABLE = { root: '', resume: '', vital: ['pci0000:50/01.0/00.0'], displays: [], devices: [nic, gpu, audio] };

const TREE: Tree = {
  devices: [
    { address: '0000:20:04.0', ids: '8086:1901', class: '060400' },
    { address: NIC, ids: '8086:10d3', class: '020000', group: 7, below: ['0000:20:04.0'] },
    { address: '0000:40:00.0', ids: '8086:1901', class: '060400' },
    { address: GPU, ids: '10de:1bb0', class: '030000', group: 8, below: ['0000:40:00.0'] },
    { address: AUDIO, ids: '10de:10f0', class: '040300', group: 8, below: ['0000:40:00.0'] },
    { address: '0000:50:01.0', ids: '8086:1901', class: '060400' },
    { address: DISK, ids: '144d:a808', class: '010802', group: 9, below: ['0000:50:01.0'] },
  ],
  files: {
    'proc/sys/kernel/random/boot_id': `${BOOT}\n`,
    'proc/cmdline': 'quiet\n',
    'dev/kmsg': '',
    'sys/bus/pci/drivers_probe': '',
  },
};

let h: StaticHost;
beforeEach(() => {
  h = new StaticHost(TREE);
  table(tableText(TABLE));
});
afterEach(() => h.remove());

/** A fresh boot: what an earlier one left on the tree is gone. */
function again(): void {
  h.remove('run');
  for (const a of [NIC, GPU, AUDIO]) {
    h.remove(`sys/bus/pci/devices/${a}/driver_override`);
    h.file(`sys/bus/pci/devices/${a}/driver_override`, '(null)\n');
  }
}

const table = (text: string): void => h.file('var/lib/hostdev/boot.table', text);

type Early = {
  table: string | null;
  problem: string | null;
  devices: { address: string | null; done: boolean; reason: string | null }[];
};

function boot(): { early: Early; off: boolean; log: string } {
  const before = h.bytes('dev/kmsg');
  const ran = spawnSync(nativeExecutable(), ['boot', '--root', h.root], { encoding: 'utf8' });
  expect([ran.status, ran.stdout, ran.stderr]).toEqual([0, '', '']);
  const { early, off, ...rest } = JSON.parse(h.bytes('run/hostdev/boot.json'));
  expect(rest).toEqual({ schema: 1, boot: BOOT, at: null, wishes: [] });
  return { early, off, log: h.bytes('dev/kmsg').slice(before.length) };
}
const overrides = (...addresses: string[]): string[] =>
  addresses.map((a) => h.bytes(`sys/bus/pci/devices/${a}/driver_override`).split('\n')[0] ?? '');
/** That nothing was written for any device, and why. */
function untouched(): string {
  const { early, log } = boot();
  expect(early.devices).toEqual([]);
  expect(overrides(NIC, GPU, AUDIO)).toEqual(['(null)', '(null)', '(null)']);
  expect(log).toContain('no device was bound before the real root');
  return early.problem ?? '';
}
/** Why each device was left alone; null for what was tried. On a tree no driver takes anything. */
const reasons = (): (string | null)[] =>
  boot().early.devices.map((d) =>
    /did not take it|no such driver|group failed/.test(d.reason ?? '') ? null : d.reason,
  );

test('what is written can be read, and its hash is FNV-1a', () => {
  expect(fnv1a('')).toBe('cbf29ce484222325');
  expect(fnv1a('a')).toBe('af63dc4c8601ec8c');
  expect(fnv1a('foobar')).toBe('85944171f73967e8');
  const read = readTable(tableText(TABLE));
  expect(read).toMatchObject({ devices: [{ path: nic.path, address: NIC }, { address: GPU }, { address: AUDIO }] });
  expect(reasons()).toEqual([null, null, null]);
  expect(boot().early.table).toBe((read as { hash: string }).hash);
});

describe('a table that is none: nothing is done, and it is said', () => {
  const whole = tableText(TABLE);
  const version = whole.replace('table 1\n', 'table 2\n');
  const word = whole.replace(/\nend .*\n$/, '\nnonsense x\n');
  test.each([
    ['empty', '', 'is empty'],
    ['foreign', '#!/bin/sh\nexit 1\n', "is no table of hostdev's"],
    ['of another version', version, 'was written by another version of hostdev'],
    ['changed', whole.replace('10d3', '10d4'), 'is not as it was written'],
    ['of bytes', '\0\xff'.repeat(999), "is no table of hostdev's"],
    ['with a line of no table', `${word}end ${fnv1a(word)}\n`, 'has a line that is none of a table'],
  ])('%s', (_, text, why) => {
    table(text);
    expect(untouched()).toContain(why);
    if (!why.includes('line')) expect(readTable(text)).toContain(why);
  });
  test('cut short, at every line and in every fortieth byte', () => {
    const cuts = [...whole].flatMap((c, n) =>
      n > 0 && (c === '\n' || n % 40 === 0) && n < whole.length - 1 ? [n] : [],
    );
    for (const n of cuts) {
      expect(readTable(whole.slice(0, n)), `${n}`).toEqual(expect.any(String));
      table(whole.slice(0, n));
      expect(untouched(), `${n}`).not.toBe('');
      again();
    }
  });
  test('not there; a folder; no command line', () => {
    h.remove('var/lib/hostdev/boot.table');
    expect(untouched()).toContain('/var/lib/hostdev/boot.table could not be read');
    again();
    h.folder('var/lib/hostdev/boot.table');
    expect(untouched()).toContain('could not be read');
    again();
    h.remove('proc/cmdline');
    expect(untouched()).toContain('/proc/cmdline could not be read');
  });
});

describe('the kernel command line', () => {
  test('hostdev.off=1 switches it off', () => {
    h.file('proc/cmdline', 'root=/dev/sda1 hostdev.off=1\n');
    expect(untouched()).toBe('hostdev.off=1 is on the kernel command line');
  });
  test.each(['xhostdev.off=1', 'hostdev.off=0', 'hostdev.off=11'])('%s does not', (word) => {
    h.file('proc/cmdline', `${word}\n`);
    expect(reasons()).toEqual([null, null, null]);
  });
  test('another root= or resume= than the table knows', () => {
    table(tableText({ ...TABLE, root: 'UUID=a', resume: '/dev/sda2' }));
    h.file('proc/cmdline', 'root=UUID=b resume=/dev/sda2\n');
    expect(untouched()).toContain('root= is not what it was when the table was written (UUID=a)');
    again();
    h.file('proc/cmdline', 'root=UUID=a\n');
    expect(untouched()).toContain('resume= is not what it was');
    again();
    h.file('proc/cmdline', 'root=UUID=x root=UUID=a resume=/dev/sda2\n');
    expect(reasons()).toEqual([null, null, null]);
  });
  test.each(['ip=dhcp', 'nfsroot=10.0.0.1:/x', 'netroot=iscsi:x', 'BOOTIF=01-52-54-00-12-34-56', 'rd.neednet=1'])(
    '%s: no NIC before the real root, others go',
    (word) => {
      h.file('proc/cmdline', `quiet ${word}\n`);
      expect(reasons()).toEqual([
        `the kernel command line has ${word}: no NIC is taken before the real root`,
        null,
        null,
      ]);
    },
  );
  test('a root over the network; a wish may lift it', () => {
    table(tableText({ ...TABLE, root: '/dev/nfs' }));
    h.file('proc/cmdline', 'root=/dev/nfs\n');
    expect(reasons()).toEqual([expect.stringContaining('root=/dev/nfs: no NIC'), null, null]);
    again();
    table(tableText({ ...TABLE, root: '/dev/nfs', devices: [{ ...nic, allow: ['disk', 'network'] }] }));
    expect(reasons()).toEqual([null]);
  });
});

describe('identity: by path and ids, never by address', () => {
  const moved = (more: Tree['devices']): void => {
    h.remove();
    const rest = TREE.devices.filter((d) => d.address !== NIC && d.address !== '0000:20:04.0');
    h = new StaticHost({ ...TREE, devices: [...rest, ...more] });
    table(tableText(TABLE));
  };
  test('bus numbers have shifted: the same card at another address, its twin at the old one', () => {
    moved([
      { address: '0000:20:04.0', ids: '8086:1901', class: '060400' },
      { address: '0000:20:03.0', ids: '8086:1901', class: '060400' },
      { address: '0000:24:00.0', ids: '8086:10d3', class: '020000', group: 7, below: ['0000:20:04.0'] },
      { address: NIC, ids: '8086:10d3', class: '020000', group: 17, below: ['0000:20:03.0'] },
    ]);
    const { early } = boot();
    expect(early.devices[0]?.address).toBe('0000:24:00.0');
    expect(overrides(NIC)).toEqual(['(null)']);
  });
  test('taken out', () => {
    moved([]);
    expect(reasons()).toEqual(['no device is in its slot', null, null]);
  });
  test.each([
    ['device', '0x10d4', 'another device is in its slot (device is 10d4, not 10d3)'],
    ['vendor', '0x1af4', 'another device is in its slot (vendor is 1af4, not 8086)'],
    ['class', '0x010802', 'another device is in its slot (class is 010802, not 020000)'],
    ['device', '0xffff"\\\x01', 'another device is in its slot'],
    ['modalias', 'pci:v00008086d000010D4sv00000000sd00000000bc02sc00i00', 'device is 10d4, not 10d3'],
    ['modalias', 'pci:v00008086d000010D3sv00000000sd00000000bc01sc08i02', 'class is 010802, not 020000'],
  ])('another %s', (file, text, why) => {
    // The kernel says it twice: where modalias is none, its files count.
    h.remove(`sys/bus/pci/devices/${NIC}/modalias`);
    h.file(`sys/bus/pci/devices/${NIC}/${file}`, `${text}\n`);
    expect(reasons()).toEqual([expect.stringContaining(why), null, null]);
    expect(overrides(NIC)).toEqual(['(null)']);
  });
  test('another serial number refuses; none to be seen does not', () => {
    table(tableText({ ...TABLE, devices: [{ ...nic, serial: '00-1b-21-ff-ff-3c-4d-5e' }] }));
    const config = (text: string): void => {
      const bytes = Buffer.alloc(4096);
      bytes.writeUInt32LE(0x0001_0003, 0x100);
      bytes.writeBigUInt64LE(BigInt(`0x${text.replaceAll('-', '')}`), 0x104);
      h.file(`sys/bus/pci/devices/${NIC}/config`, bytes);
    };
    expect(reasons()).toEqual([null]);
    again();
    config('00-1b-21-ff-ff-3c-4d-5e');
    expect(reasons()).toEqual([null]);
    again();
    config('00-1b-21-ff-ff-3c-4d-5f');
    expect(reasons()).toEqual(['another card is in its slot (serial number 00-1b-21-ff-ff-3c-4d-5f)']);
  });
});

describe('guards', () => {
  test('what the host stood on; with it its whole group', () => {
    table(tableText({ ...TABLE, vital: [audio.path] }));
    expect(reasons()).toEqual([null, `${AUDIO} of its IOMMU group carries the host`, 'the host stands on it']);
    expect(overrides(GPU, AUDIO)).toEqual(['(null)', '(null)']);
  });
  test('it has become the display that the firmware booted: not taken; the one that it was already is', () => {
    h.file(`sys/bus/pci/devices/${GPU}/boot_vga`, '1\n');
    expect(reasons()).toEqual([
      null,
      'it has become the display that the firmware booted',
      'another function of its group was refused',
    ]);
    again();
    table(tableText({ ...TABLE, displays: [gpu.path] }));
    expect(reasons()).toEqual([null, null, null]);
  });
  test('an override of somebody else’s; no IOMMU', () => {
    h.file(`sys/bus/pci/devices/${NIC}/driver_override`, 'pci-stub\n');
    h.remove(`sys/bus/pci/devices/${GPU}/iommu_group`);
    expect(reasons()).toEqual([
      'its driver_override is pci-stub already',
      'it is in no IOMMU group',
      'another function of its group was refused',
    ]);
  });
});

test('the report of a later stage stays', () => {
  h.file('run/hostdev/boot.json', '{"schema":1}');
  spawnSync(nativeExecutable(), ['boot', '--root', h.root]);
  expect(h.bytes('run/hostdev/boot.json')).toBe('{"schema":1}');
});

test('words that it does not know are usage; a root that is not there stops no boot', () => {
  const run = (...words: string[]) => spawnSync(nativeExecutable(), ['boot', ...words], { encoding: 'utf8' });
  expect(run('--what')).toMatchObject({ status: 2, stderr: 'usage: hostdev-native boot [--root DIR]\n' });
  expect(run('--root', h.path('nowhere')).status).toBe(0);
});
