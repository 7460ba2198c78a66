/**
 * The built CLI as users and programs meet it: JSON, exit codes, names of devices, and hosts on which no write does
 * anything.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { nativeExecutable } from '../../../src/addon/load.ts';
import { domainXml, UUID_A } from '../../mock/hosts.ts';
import { CLI, hostdev, type Ran, runCommand, StaticHost, type Tree } from '../../mock/tree.ts';
import { texts } from '../../mock/warnings.ts';

const GPU = '0000:01:00.0';
const PF = '0000:02:00.0';
const VF = '0000:02:10.0';

const TREE: Tree = {
  devices: [
    { address: '0000:00:01.0', ids: '8086:1901', class: '060400', group: 1, driver: 'pcieport' },
    { address: GPU, ids: '10de:2204', class: '030000', group: 1, driver: 'nouveau', attributes: { boot_vga: '0\n' } },
    { address: '0000:01:00.1', ids: '10de:1aef', class: '040300', group: 1, driver: 'snd_hda_intel' },
    { address: PF, ids: '8086:10c9', subsystem: '8086:a03c', group: 2, numa: 0, driver: 'igb', totalVfs: 7 },
    { address: VF, ids: '8086:10ca', group: 3, numa: 0, driver: 'igbvf', physfn: PF },
    { address: '0000:02:10.2', ids: '8086:10ca', group: 4, numa: 0, physfn: PF },
    { address: '0000:03:00.0', ids: '1b36:0010', class: '010802', group: 6, driver: 'nvme' },
    { address: '0000:04:00.0', ids: '8086:100e', group: 7, driver: 'vfio-pci', vfio: true, override: 'vfio-pci\n' },
    { address: '0000:05:00.0', ids: '8086:1521' },
    { address: '0000:0a:00.0', ids: '8086:1528', group: 8, driver: 'ixgbe' },
  ],
  drivers: { 'vfio-pci': 'vfio_pci' },
  net: { eth0: PF, lo: null },
  block: { nvme0c0n1: '0000:03:00.0', nvme0n1: null },
  drm: { card0: GPU, renderD128: GPU },
};

let host: StaticHost;
beforeAll(() => {
  host = new StaticHost(TREE);
});
afterAll(() => host.remove());

const run = (...args: string[]): Ran => host.run(...args);

/** stdout is one document and nothing else. */
function document(ran: Ran): object {
  expect(ran.out.endsWith('\n')).toBe(true);
  expect(ran.out.trimEnd()).not.toContain('\n');
  expect(ran.json.schema).toBe(1);
  return ran.json;
}

const TEXT = expect.any(String);

describe('JSON', () => {
  test('list', () => {
    const ran = run('list', '-j');
    expect(Object.keys(document(ran))).toEqual(['schema', 'devices', 'guests_asked']);
    expect(ran.exit).toBe(0);
    expect(ran.json.devices).toHaveLength(TREE.devices.length);
    const common = {
      driver: null,
      numa_node: 0,
      sriov_totalvfs: null,
      sriov_numvfs: null,
      bridge: false,
      stuck: false,
      wish: null,
      guest: null,
    };
    expect(ran.json.devices.find((d) => d.address === '0000:02:10.2')).toEqual({
      ...common,
      address: '0000:02:10.2',
      vendor_id: '8086',
      product_id: '10ca',
      class: '020000',
      subsystem_vendor_id: '0000',
      subsystem_device_id: '0000',
      iommu_group: 4,
      dev_type: 'type-VF',
      parent_addr: PF,
    });
    expect(ran.json.devices.find((d) => d.address === PF)).toMatchObject({
      subsystem_vendor_id: '8086',
      subsystem_device_id: 'a03c',
      dev_type: 'type-PF',
      parent_addr: null,
      sriov_totalvfs: 7,
      sriov_numvfs: 2,
    });
    expect(ran.json.devices.find((d) => d.address === '0000:05:00.0')).toMatchObject({
      iommu_group: null,
      numa_node: null,
    });
  });

  test('show has the keys of list and its own', () => {
    const listed = run('list', '-j').json.devices[0] ?? {};
    const ran = run('show', '04:00.0', '-j');
    expect(Object.keys(document(ran))).toEqual(['schema', 'device', 'guests_asked']);
    const own = ['driver_override', 'variant_driver', 'reset_methods', 'boot_vga', 'managed', 'vgpu_type', 'name'];
    expect(Object.keys(ran.json.device).sort()).toEqual([...Object.keys(listed), ...own].sort());
    expect(ran.json.device).toMatchObject({
      driver_override: 'vfio-pci',
      variant_driver: 'vfio-pci',
      reset_methods: ['flr', 'bus'],
      boot_vga: null,
      name: null,
    });
    expect(run('show', GPU, '-j').json.device).toMatchObject({ driver_override: null, boot_vga: false });
  });

  test('group list and group show', () => {
    const ran = run('-j', 'group', 'list');
    expect(Object.keys(document(ran))).toEqual(['schema', 'groups']);
    expect(ran.json.groups.map((g) => g.id)).toEqual([1, 2, 3, 4, 6, 7, 8]);
    expect(ran.json.groups[0]).toEqual({
      id: 1,
      type: 'DMA-FQ',
      viable: false,
      devices: ['0000:00:01.0', GPU, '0000:01:00.1'],
      blockers: [
        { address: GPU, driver: 'nouveau', reason: TEXT },
        { address: '0000:01:00.1', driver: 'snd_hda_intel', reason: TEXT },
      ],
    });
    expect(ran.json.groups.filter((g) => g.viable).map((g) => g.id)).toEqual([4, 7]);
    const one = run('group', 'show', '7', '-j');
    expect(one.exit).toBe(0);
    expect(document(one)).toEqual({
      schema: 1,
      group: {
        ...ran.json.groups.find((g) => g.id === 7),
        reserved_regions: [{ start: '0x00000000fee00000', end: '0x00000000feefffff', type: 'msi' }],
      },
    });
  });

  test('status', () => {
    const ran = run('status', '-j');
    expect(ran.exit).toBe(0);
    expect(document(ran)).toEqual({
      schema: 1,
      iommu: { on: true, units: [], reason: null },
      bindings: [],
      journal: [],
      stuck: [],
      bad_files: [],
      guests_asked: false,
      unheld: [],
      initramfs_vital: [],
      wishes: { total: 0, not_met: [] },
    });
  });

  test('bind -n: the plan with its inverse', () => {
    const ran = run('bind', '-jn', VF);
    expect(ran.exit).toBe(0);
    expect(Object.keys(document(ran))).toEqual(['schema', 'changed', 'plan', 'held']);
    expect(ran.json.changed).toBe(false);
    expect(Object.keys(ran.json.plan)).toEqual(['devices', 'steps', 'refusals']);
    expect(ran.json.plan.devices).toEqual([
      { address: VF, driver_from: 'igbvf', driver_to: 'vfio-pci', module: 'vfio_pci' },
    ]);
    expect(ran.json.plan.steps.map(({ path, value }) => `${path}=${value}`)).toEqual([
      `sys/bus/pci/devices/${VF}/driver_override=vfio-pci\n`,
      `sys/bus/pci/drivers/igbvf/unbind=${VF}`,
      `sys/bus/pci/drivers_probe=${VF}`,
    ]);
    for (const step of ran.json.plan.steps) {
      expect(Object.keys(step)).toEqual(['path', 'value', 'undo']);
      expect(step.undo.length).toBeGreaterThan(0);
    }
    expect(ran.json.plan.refusals).toEqual([]);
  });

  test('what was already so is no change', () => {
    const ran = run('bind', '-j', '04:00.0');
    expect(ran.exit).toBe(0);
    expect(document(ran)).toMatchObject({ changed: false, plan: { devices: [], steps: [], refusals: [] } });
  });

  test('hook test', () => {
    const xml = Buffer.from(domainXml('guest', UUID_A, [{ address: VF }]));
    const ran = hostdev(['--root', host.root, '-j', 'hook', 'test', '-'], { input: xml });
    expect(ran.exit).toBe(0);
    expect(document(ran)).toMatchObject({
      domain: { name: 'guest', uuid: UUID_A },
      devices: [{ address: VF, managed: false, driver: 'igbvf', will_be: 'vfio-pci' }],
      plan: { refusals: [] },
    });
  });

  test('errors are a document too, a refusal brings its plan', () => {
    const error = { code: TEXT, message: TEXT, hint: TEXT };
    expect(document(run('-j', 'foo'))).toEqual({ schema: 1, error: { ...error, code: 'HOSTDEV_USAGE' } });
    expect(document(run('show', '-j'))).toEqual({ schema: 1, error: { ...error, code: 'HOSTDEV_USAGE' } });
    expect(document(run('list', '--bogus', '--json'))).toEqual({
      schema: 1,
      error: { ...error, code: 'HOSTDEV_USAGE' },
    });
    const refused = run('bind', '00:01.0', '-j');
    expect(document(refused)).toMatchObject({ error: { code: 'HOSTDEV_GUARD' } });
    expect(refused.json.plan.refusals).toEqual([{ guard: 'bridge', address: '0000:00:01.0', reason: TEXT }]);
  });

  test('warnings go to stderr and into the document', () => {
    const empty = new StaticHost();
    const ran = empty.run('group', 'list', '-j');
    empty.remove();
    expect(ran.exit).toBe(0);
    expect(document(ran)).toMatchObject({ groups: [], warnings: [{ address: null, id: 'no-iommu', text: TEXT }] });
    expect(ran.err).toContain(texts(ran.json.warnings)[0]);
  });

  test('hook run prints nothing, with -j neither, not even an error', () => {
    for (const args of [
      ['hook', 'run', 'x', 'started', 'begin', '-'],
      ['hook', 'run', 'x', 'prepare', 'begin', '-'],
      ['hook', 'run'],
    ])
      expect(run('-j', ...args).out).toBe('');
  });
});

describe('exit codes', () => {
  test.each<[number, string[], RegExp]>([
    [2, ['foo'], /no command "foo"/],
    [2, ['lsit'], /Did you mean 'list'/],
    [2, ['grup', 'list'], /Did you mean 'group list'/],
    [2, ['group'], /group list, group show/],
    [2, ['list', '--bogus'], /Unknown option '--bogus'/],
    [2, ['list', 'word'], /takes no words/],
    [2, ['show'], /needs DEV/],
    [2, ['show', VF, PF], /takes DEV/],
    [2, ['bind'], /needs DEV/],
    [2, ['bind', '--allow', 'bogus', VF], /no such guard.*\n.*disk, network/],
    [2, ['bind', '--allow', VF], /no such guard/],
    [2, ['bind', '--allow', 'denylist', '00:01.0'], /cannot be lifted/],
    [2, ['bind', '--driver', '../../x', VF], /no driver name/],
    [2, ['list', '-n'], /changes nothing/],
    [2, ['bind', VF, '--connect', 'qemu:///system'], /--connect is not taken/],
    [2, ['hook', 'run', 'a', 'prepare', 'begin', '-', '-n'], /'hook test' shows/],
    [4, ['show', '0000:77:00.0'], /No device goes by "0000:77:00.0"/],
    [4, ['bind', VF, '77:00.0'], /No device goes by "77:00.0"/],
    [4, ['show', '8086:10ca'], /2 devices go by.*0000:02:10.0, 0000:02:10.2/],
    [4, ['group', 'show', '99'], /no IOMMU group 99/],
    [4, ['group', 'show', '05:00.0'], /in no IOMMU group/],
    [4, ['unbind', VF], /hostdev did not bind 0000:02:10.0.*\n.*--to-host/],
    [4, ['hook', 'test', '/nonexistent.xml'], /nonexistent.xml: ENOENT/],
    [4, ['hook', 'test', '/tmp'], /EISDIR/],
    [5, ['bind', '00:01.0'], /bridge/],
    [5, ['bind', PF], /2 VFs/],
    [5, ['bind', '-n', PF], /2 VFs/],
    [3, ['hook', 'test', CLI], /line 1, column/],
    [3, ['hook', 'test', '-'], /stdin: line 1, column 1/],
    [3, ['group', 'show', '1'], /^$/],
    [3, ['hook', 'status'], /^$/],
    [0, ['group', 'show', '7'], /^$/],
    [0, ['--help'], /^$/],
    [0, ['bind', '--help'], /^$/],
    [0, ['group', '--help'], /^$/],
    [0, ['--version'], /^$/],
  ])('%i: %j', (exit, args, stderr) => {
    const ran = run(...args);
    expect({ exit: ran.exit, err: ran.err }).toEqual({ exit, err: expect.stringMatching(stderr) });
    expect(ran.err).not.toContain('    at ');
  });

  test('no words at all: help, 2', () => {
    const ran = hostdev([]);
    expect(ran.exit).toBe(2);
    expect(ran.out).toMatch(/^Usage: hostdev/);
    expect(hostdev(['-j']).json.error.code).toBe('HOSTDEV_USAGE');
  });

  test('the version is that of the package', () => {
    expect(hostdev(['--version']).out).toMatch(/^hostdev \d+\.\d+\.\d+\n$/);
    expect(hostdev(['--version', '-j']).json).toMatchObject({ schema: 1, version: TEXT });
  });

  test('ambiguous: all matches are in the document', () => {
    expect(run('show', '8086:10CA', '-j').json.matches).toEqual(['0000:02:10.0', '0000:02:10.2']);
  });

  test('help names every guard, and who can lift it', () => {
    const { out } = run('bind', '--help');
    expect(out).toMatch(/^ {2}denylist .*not to be lifted/m);
    expect(out).toMatch(/^ {2}disk (?!.*not to be lifted)/m);
  });
});

describe('options', () => {
  test('before and after the verb, -jn and -nj and apart', () => {
    const wanted = run('bind', VF, '-j', '-n').out;
    expect(wanted).toContain('"plan"');
    expect(run('-jn', 'bind', VF).out).toBe(wanted);
    expect(run('-j', 'bind', '-nj', VF).out).toBe(wanted);
    expect(hostdev(['--json', 'bind', `--root=${host.root}`, '--dry-run', VF]).out).toBe(wanted);
  });

  test('after -- there are words only', () => {
    const ran = run('show', '--', '-j');
    expect(ran.exit).toBe(4);
    expect(ran.out).toBe('');
  });
});

describe('terminals and pipes', () => {
  const SHELL = '/bin/bash';
  const shell = (line: string): Ran => runCommand(SHELL, ['-o', 'pipefail', '-c', line]);
  const cli = (words: string): string => `${process.execPath} ${CLI} --root ${host.root} ${words}`;

  test('no escape codes off a terminal; on one they end with NO_COLOR', () => {
    expect(run('group', 'list').out).not.toContain('\x1b');
    // script(1) gives the command a terminal.
    const onTerminal = (prefix: string): string =>
      execFileSync('script', ['-qec', `${prefix} ${cli('group list')}`, '/dev/null'], { encoding: 'utf8', input: '' });
    expect(onTerminal('')).toContain('\x1b[31m');
    expect(onTerminal('NO_COLOR=1')).not.toContain('\x1b');
    expect(onTerminal('NO_COLOR=')).toContain('\x1b[31m');
  });

  test('| head -1 of a big list is no fault', () => {
    const big = new StaticHost({
      devices: Array.from({ length: 1500 }, (_, i) => ({
        address: `${(i >> 8).toString(16).padStart(4, '0')}:${(i & 255).toString(16).padStart(2, '0')}:00.0`,
        ids: '8086:10ca',
      })),
    });
    for (const words of ['list', 'list -j']) {
      const ran = shell(`${process.execPath} ${CLI} --root ${big.root} ${words} | head -c 20`);
      expect(ran.out).toHaveLength(20);
      expect({ exit: ran.exit, err: ran.err }).toEqual({ exit: 0, err: '' });
    }
    big.remove();
  });

  test('a full stdout is said in one line, exit 1', () => {
    for (const words of ['list', 'list -j', '--help']) {
      const ran = shell(`${cli(words)} > /dev/full`);
      expect({ exit: ran.exit, err: ran.err }).toEqual({
        exit: 1,
        err: 'hostdev: Failed to write to stdout: ENOSPC\n',
      });
    }
  });

  test('closed stdin, stdout and stderr', () => {
    expect(shell(`${cli('hook test -')} <&-`).exit).toBe(3);
    expect(shell(`${cli('list')} >&-`).exit).toBe(0);
    expect(shell(`${cli('show 77:00.0')} 2>&-`).exit).toBe(4);
    expect(shell(`${cli('bind -n')} ${VF} <&- 2>&-`).exit).toBe(0);
  });
});

describe('names of devices', () => {
  test.each([
    ['0000:02:00.0', PF],
    ['02:00.0', PF],
    ['pci_0000_02_00_0', PF],
    ['0000:0A:00.0', '0000:0a:00.0'],
    ['PCI_0000_0A_00_0', '0000:0a:00.0'],
    ['10de:2204', GPU],
    ['10DE:2204', GPU],
    ['eth0', PF],
    ['/dev/nvme0n1', '0000:03:00.0'],
    ['/dev/dri/card0', GPU],
    ['/dev/dri/renderD128', GPU],
  ])('%s is %s', (word, address) => {
    expect(run('show', word, '-j').json.device).toMatchObject({ address });
  });

  test.each([
    ['1:00.0', /Did you mean 0000:01:00\.0\?/],
    ['01:00:1', /Did you mean 0000:01:00\.1\?/],
    ['02:10', /Did you mean 0000:02:10\.0, 0000:02:10\.2\?/],
    ['02:10.9', /Did you mean 0000:02:10\.0, 0000:02:10\.2\?/],
    ['pci_0000_03_00_1', /Did you mean 0000:03:00\.0\?/],
    ['7f:00.0', /Did you mean .*0000:02:00\.0/],
    ['2', /IOMMU group 2 has 0000:02:00\.0: name a device\./],
    ['99', /hostdev list/],
    ['ff:1f.7', /hostdev list/],
    ['lo', /hostdev list/],
    ['/dev/sdz', /hostdev list/],
    ['', /hostdev list/],
    ['..', /hostdev list/],
    ['/dev/../../etc/passwd', /hostdev list/],
    ['\x1b[2Jx', /hostdev list/],
    ['a'.repeat(5000), /hostdev list/],
  ])('%j is none: a way on is said', (word, hint) => {
    const ran = run('show', word);
    expect(ran.exit).toBe(4);
    expect(ran.err).toMatch(hint);
    expect(ran.err).not.toContain('\x1b');
    expect(ran.err.length).toBeLessThan(400);
  });

  test('one device by two names is one device', () => {
    expect(run('bind', '-jn', VF, '02:10.0', 'pci_0000_02_10_0').json.plan.devices).toHaveLength(1);
  });
});

describe('a host on which nothing reacts to writes', () => {
  let still: StaticHost;
  beforeEach(() => {
    still?.remove();
    still = new StaticHost(TREE);
  });
  afterAll(() => still.remove());

  const OVERRIDES = ['(null)\n', 'foo\n', '\n', '', 'foo', 'vfio-pci\n', '(null)'];
  const DEVICES = [VF, '0000:02:10.2', GPU];

  function expectUntouched(override: string, before: string): void {
    for (const d of DEVICES) expect(still.override(d)).toBe(override);
    expect(still.names('run/hostdev/journal')).toEqual([]);
    expect(still.names('run/hostdev/bindings')).toEqual([]);
    expect(still.hash('sys/bus/pci/devices')).toBe(before);
  }

  function setOverrides(bytes: string): string {
    for (const d of DEVICES) still.file(`sys/bus/pci/devices/${d}/driver_override`, bytes);
    return still.hash('sys/bus/pci/devices');
  }

  test.each(OVERRIDES)('bind exits 1 and leaves the override %j byte for byte', (bytes) => {
    const before = setOverrides(bytes);
    for (const device of DEVICES) {
      const ran = still.run('bind', device, '-j');
      expect(ran.exit).toBe(1);
      expect(ran.json.error.code).toBe('HOSTDEV_BIND_FAILED');
      expectUntouched(bytes, before);
    }
    expect(still.run('bind', ...DEVICES).exit).toBe(1);
    expectUntouched(bytes, before);
    expect(still.run('status').exit).toBe(0);
  });

  test.each(OVERRIDES)('the hook refuses and leaves the override %j byte for byte', (bytes) => {
    const before = setOverrides(bytes);
    const input = Buffer.from(domainXml('guest', UUID_A, [{ address: VF }, { address: '0000:02:10.2' }]));
    const hook = (op: string): Ran =>
      hostdev(['--root', still.root, 'hook', 'run', 'guest', op, 'begin', '-'], { input });
    const refused = hook('prepare');
    expect({ exit: refused.exit, out: refused.out }).toEqual({ exit: 1, out: '' });
    expect(refused.err).toMatch(/^hostdev: .+\n$/);
    expectUntouched(bytes, before);
    expect(hook('release').exit).toBe(0);
    expectUntouched(bytes, before);
  });

  test('a dry run prints the plan, exits 0 and changes nothing at all', () => {
    const before = still.hash();
    for (const device of DEVICES) {
      const ran = still.run('bind', '-n', device);
      expect(ran.exit).toBe(0);
      expect(ran.out).toContain(`"vfio-pci" > /sys/bus/pci/devices/${device}/driver_override\n`);
    }
    expect(still.run('unbind', '-n', '--to-host', '04:00.0').exit).toBe(0);
    expect(still.run('hook', 'install', '-n').exit).toBe(0);
    const xml = Buffer.from(domainXml('guest', UUID_A, [{ address: VF }]));
    expect(hostdev(['--root', still.root, 'hook', 'test', '-'], { input: xml }).exit).toBe(0);
    expect(still.hash()).toBe(before);
  });

  test('reading changes nothing at all', () => {
    const before = still.hash();
    for (const args of [['list'], ['show', VF], ['group', 'list'], ['group', 'show', '1'], ['status']])
      still.run(...args);
    expect(still.hash()).toBe(before);
  });

  test('unbind --to-host of a VFIO device that does not let go: 1, nothing changed', () => {
    const before = still.hash('sys/bus/pci/devices');
    expect(still.run('unbind', '--to-host', '04:00.0').exit).toBe(1);
    expect(still.hash('sys/bus/pci/devices')).toBe(before);
    expect(still.names('run/hostdev/journal')).toEqual([]);
  });
});

describe('without the addon', () => {
  const env = { ...process.env, HOSTDEV_NATIVE_DIR: '/nonexistent' };
  const plain = (...args: string[]): Ran => hostdev(['--root', host.root, ...args], { env });

  test.each([
    ['list', '-j'],
    ['show', VF, '-j'],
    ['show', '/dev/nvme0n1', '-j'],
    ['group', 'list', '-j'],
    ['group', 'show', '1', '-j'],
    ['status', '-j'],
  ])('%s %s %s answers as with it', (...args) => {
    const words = args.filter((a) => a !== undefined);
    const { exit, out } = plain(...words);
    const native = run(...words);
    expect({ exit, out }).toEqual({ exit: native.exit, out: native.out });
  });

  test('what changes something refuses and says what is missing', () => {
    const before = host.hash();
    for (const args of [
      ['bind', VF],
      ['unbind', '--to-host', '04:00.0'],
    ]) {
      const ran = plain(...args, '-j');
      expect({ exit: ran.exit, code: ran.json.error?.code }).toEqual({ exit: 1, code: 'HOSTDEV_NATIVE_MISSING' });
      expect(ran.err).toContain('hostdev.node is missing');
    }
    const planned = plain('bind', '-n', VF, '-j');
    expect({ exit: planned.exit, steps: planned.json.plan?.steps?.length }).toMatchObject({
      exit: 1,
      steps: expect.any(Number),
    });
    expect(planned.err).toContain('hostdev.node is missing');
    expect(host.hash()).toBe(before);
  });

  test.each([
    ['no ELF file', 'junk'],
    ['empty', ''],
    ['of another machine', null],
  ])('one that does not load (%s) is not called missing: what changes, and doctor, say why', (_, text) => {
    const folder = mkdtempSync(join(tmpdir(), 'hostdev-native-'));
    const file = join(folder, 'hostdev.node');
    const real = nativeExecutable().replace(/hostdev-native$/, 'hostdev.node');
    const other = readFileSync(real);
    // e_machine of the ELF header.
    other.writeUInt16LE(other.readUInt16LE(18) === 8 ? 62 : 8, 18);
    writeFileSync(file, text ?? other);
    const broken = (...args: string[]) =>
      hostdev(['--root', host.root, ...args], { env: { ...process.env, HOSTDEV_NATIVE_DIR: folder } });
    const bind = broken('bind', VF, '-j');
    expect(bind).toMatchObject({ exit: 1, json: { error: { code: 'HOSTDEV_NATIVE_MISSING' } } });
    const doctor = broken('doctor', '-j');
    const found = (doctor.json as { findings?: { id: string; cause: string }[] }).findings?.find(
      (f) => f.id === 'native-missing',
    );
    for (const said of [bind.err, broken('bind', '-n', VF).err, found?.cause])
      expect(said).toMatch(new RegExp(`${file} does not load \\(\\S.*\\w.*\\)`));
    rmSync(folder, { recursive: true });
  });
});

test.runIf(process.getuid?.() === 0)(
  'status is for anybody; with --fix the real run needs root, and the dry one says so',
  () => {
    const nobody = { uid: 65534, gid: 65534 };
    expect(hostdev(['status', '-j'], nobody).json).toMatchObject({ bindings: expect.any(Array) });
    const fix = hostdev(['status', '--fix', '-n', '-j'], nobody);
    expect(fix).toMatchObject({ exit: 6, json: { mended: expect.any(Array) } });
    expect(fix.err).toContain('the real run would refuse: Changing a device needs root');
  },
);
