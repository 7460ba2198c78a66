/**
 * What the built CLI does with a host, a state folder and files that are not as they should be: a clear error, never a
 * crash, nothing changed.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { domainXml, UUID_A } from '../../mock/hosts.ts';
import { CLI, hostdev, type Ran, RELEASE, runCommand, StaticHost, type Tree } from '../../mock/tree.ts';
import { saying, texts } from '../../mock/warnings.ts';

const VF = '0000:02:10.0';
const NIC = '0000:03:00.0';

const TREE: Tree = {
  devices: [
    { address: '0000:02:00.0', ids: '8086:10c9', group: 2, driver: 'igb', totalVfs: 7 },
    { address: VF, ids: '8086:10ca', group: 3, numa: 1, driver: 'igbvf', physfn: '0000:02:00.0' },
    { address: NIC, ids: '8086:100e', group: 4, driver: 'e1000' },
  ],
  drivers: { 'vfio-pci': 'vfio_pci' },
};

let host: StaticHost;
beforeEach(() => {
  host = new StaticHost(TREE);
});
afterEach(() => host.remove());

const attribute = (name: string): string => `sys/bus/pci/devices/${VF}/${name}`;

/** No fault of ours, nothing that moves a terminal. */
function sane(ran: Ran): void {
  expect(ran.exit).not.toBe(70);
  for (const text of [ran.out, ran.err]) {
    expect(text).not.toContain('    at ');
    expect(text.replace(/\n/g, '')).not.toMatch(/\p{Cc}|\p{Cf}/u);
  }
}

describe('attributes that the kernel would not write', () => {
  const NOISE: [string, string | Uint8Array][] = [
    ['nothing', ''],
    ['a line end', '\n'],
    ['1 MiB', 'A'.repeat(1024 * 1024)],
    ['bytes', Buffer.from([0, 1, 2, 27, 91, 50, 74, 128, 155, 255, 10])],
    ['a number too large', '99999999999999999999\n'],
    ['a negative number', '-7\n'],
    ['words', 'not a number\n'],
    ['escape sequences', '\x1b]0;owned\x07\x1b[2J\n'],
  ];
  const ATTRIBUTES = [
    'modalias',
    'vendor',
    'class',
    'numa_node',
    'sriov_totalvfs',
    'driver_override',
    'reset_method',
    'boot_vga',
  ];

  test.each(NOISE)('%s', (_, bytes) => {
    for (const name of ATTRIBUTES) host.file(attribute(name), bytes);
    const listed = host.run('list', '-j');
    sane(listed);
    expect(listed.exit).toBe(0);
    const device = listed.json.devices.find((d) => d.address === VF);
    // Without a modalias the single files tell; a vendor that is none is unknown, and the others are as they were.
    expect(device).toMatchObject({ address: VF, vendor_id: null, class: null, numa_node: null, product_id: '10ca' });
    expect(device).toMatchObject({ dev_type: 'type-VF', driver: 'igbvf', iommu_group: 3 });
    for (const args of [['list'], ['group', 'list'], ['status']]) {
      const ran = host.run(...args);
      sane(ran);
      expect(ran.exit).toBe(0);
    }
    const shown = host.run('show', VF);
    sane(shown);
    expect(shown.exit).toBe(0);
  });

  test('links that lead nowhere or elsewhere', () => {
    for (const [link, target, key] of [
      ['driver', '../../../../etc', 'driver'],
      ['driver', '../../../bus/pci/drivers/gone', 'driver'],
      ['driver', 'x/e\x1b[31mvil', 'driver'],
      ['driver', '/', 'driver'],
      ['iommu_group', '../../../kernel/iommu_groups/abc', 'iommu_group'],
      ['iommu_group', '../../../kernel/iommu_groups/99999999999', 'iommu_group'],
      ['physfn', '../nobody', 'parent_addr'],
      ['physfn', '.', 'parent_addr'],
    ] as const) {
      host.link(attribute(link), target);
      const listed = host.run('list', '-j');
      sane(listed);
      expect(listed.exit).toBe(0);
      expect(listed.json.devices).toHaveLength(3);
      const value = listed.json.devices.find((d) => d.address === VF)?.[key];
      if (target.endsWith('etc') || target.endsWith('gone')) expect(value).toBe(target.split('/').at(-1));
      else expect(value).toBeNull();
      for (const args of [
        ['show', VF],
        ['bind', '-n', VF],
      ])
        sane(host.run(...args));
    }
  });

  test('a driver link out of sysfs is not written to', () => {
    host.file('etc/unbind', 'precious');
    host.link(attribute('driver'), '../../../../etc');
    expect(host.run('bind', VF).exit).toBe(1);
    expect(host.bytes('etc/unbind')).toBe('precious');
  });

  test('a loop of links, and a folder where a file should be', () => {
    host.link(attribute('loop'), 'loop');
    host.remove(attribute('modalias'));
    host.link(attribute('modalias'), 'loop');
    host.remove(attribute('numa_node'));
    host.folder(attribute('numa_node'));
    const ran = host.run('list', '-j');
    sane(ran);
    expect(ran.exit).toBe(1);
    expect(texts(ran.json.warnings).join(' ')).toMatch(/modalias: ELOOP.*numa_node: EISDIR/);
    expect(ran.json.devices.find((d) => d.address === VF)).toMatchObject({ vendor_id: '8086', numa_node: null });
  });

  test('entries that are no addresses are named in a warning and never reach the terminal raw', () => {
    const names = ['evil\nname', '\x1b[2J\x1b[1;31m', '0000:zz:00.0', '0000:01:00.8', '0001:00:00.0 ', 'ä\u202e', '-j'];
    for (const n of names) host.link(`sys/bus/pci/devices/${n}`, `../../../devices/pci0000:02/${VF}`);
    host.folder('sys/kernel/iommu_groups/\x1b[2J/devices');
    host.folder('sys/kernel/iommu_groups/not-a-number/devices');
    for (const args of [['list'], ['list', '-j'], ['group', 'list'], ['show', VF]]) {
      const ran = host.run(...args);
      sane(ran);
      expect(ran.exit).toBe(0);
    }
    const ran = host.run('list', '-j');
    expect(ran.json.devices).toHaveLength(3);
    expect(ran.json.warnings).toHaveLength(names.length);
    expect(host.run('group', 'list', '-j').json.groups.map((g) => g.id)).toEqual([2, 3, 4]);
  });
});

describe('roots', () => {
  test('an empty one: nothing is there, and that is no error', () => {
    const empty = new StaticHost();
    for (const args of [['list'], ['status'], ['group', 'list'], ['wish', 'list'], ['boot', 'status']]) {
      const ran = empty.run(...args);
      sane(ran);
      expect(ran.exit).toBe(0);
    }
    expect(empty.run('list', '-j').json).toEqual({ schema: 1, devices: [], guests_asked: false });
    expect(empty.run('list').out).toBe('No PCI devices\n');
    expect(empty.run('group', 'list').err).toContain('no IOMMU groups');
    expect(empty.run('bind', VF).exit).toBe(4);
    expect(empty.names('.')).toEqual([]);
    empty.remove();
  });

  test.each(['/nonexistent/root', '/etc/passwd'])('%s: said, 4', (root) => {
    for (const args of [['list'], ['bind', VF], ['hook', 'test', '-']]) {
      const ran = hostdev(['--root', root, ...args, '-j']);
      expect(ran.exit).toBe(4);
      expect(ran.json.error).toMatchObject({ code: 'HOSTDEV_FILE_ABSENT' });
      expect(ran.json.error.message).toContain(`--root ${root}: E`);
    }
  });

  test('with spaces, a trailing slash, relative', () => {
    const odd = mkdtempSync(join(tmpdir(), 'host dev ä-'));
    execFileSync('cp', ['-a', `${host.root}/.`, odd]);
    for (const root of [odd, `${odd}/`, `${odd}/sys/..`])
      expect(hostdev(['--root', root, 'list', '-j']).json.devices).toHaveLength(3);
    expect(runCommand(process.execPath, [CLI, '--root', '.', 'list', '-j'], { cwd: odd }).json.devices).toHaveLength(3);
    rmSync(odd, { recursive: true });
  });
});

describe('modules.alias', () => {
  const ALIAS = `lib/modules/${RELEASE}/modules.alias`;

  test.each<[string, () => void, RegExp]>([
    ['missing', () => host.remove(ALIAS), /modules\.alias is not there/],
    ['unreadable', () => host.remove(ALIAS) ?? host.folder(ALIAS), /Failed to read .*modules\.alias: EISDIR/],
    ['of an unknown kernel', () => host.remove('proc/sys/kernel/osrelease'), /osrelease cannot be read/],
    ['of a release that is a path', () => host.file('proc/sys/kernel/osrelease', '../../x\n'), /cannot be read/],
  ])('%s: bind says so and what to do, and changes nothing', (_, break_, message) => {
    break_();
    const before = host.hash('sys');
    for (const args of [
      ['bind', VF],
      ['bind', '-n', VF],
    ]) {
      const ran = host.run(...args, '-j');
      expect(ran.exit).toBe(1);
      expect(ran.json.error).toMatchObject({
        code: 'HOSTDEV_MODULES_ALIAS',
        message: expect.stringMatching(message),
        hint: expect.stringMatching(/depmod.*--driver/),
      });
    }
    expect(host.run('bind', '-n', '--driver', 'vfio-pci', VF).exit).toBe(0);
    expect(host.run('show', VF, '-j').json).toMatchObject({
      device: { variant_driver: null },
      warnings: [saying(message)],
    });
    expect(host.hash('sys')).toBe(before);
  });

  test('garbage in it is passed over', () => {
    host.file(ALIAS, Buffer.concat([Buffer.alloc(300_000, 0xff), Buffer.from('\nalias vfio_pci:x y\nalias\n\0\n')]));
    expect(host.run('show', VF, '-j').json.device.variant_driver).toBe('vfio-pci');
  });
});

describe('books and journal that are not ours', () => {
  const entry = { schema: 1, id: 'abc', kind: 'bind', owner: 'admin', state: 'intent', left: [] };
  const state = { driver: 'igbvf', override: null };
  const binding = { schema: 1, address: VF, group: 3, owner: 'admin', claims: [], before: state, after: state };
  const BROKEN: [string, string][] = [
    ['nothing', ''],
    ['garbage', '{"schema":1,'],
    ['another type', '[1,2,3]'],
    ['null', 'null'],
    ['another schema', JSON.stringify({ ...entry, schema: 2, devices: [] })],
    ['a path for a driver', JSON.stringify({ ...binding, note: null, before: { driver: '../../x', override: null } })],
    ['a huge file', `"${'x'.repeat(5 * 1024 * 1024)}"`],
    ['bytes', '\xff\xfe\x00\x1b[2J'],
  ];

  test.each(BROKEN)('a binding of %s', (_, text) => expectKept(`bindings/${VF}.json`, text, true));

  test.each(BROKEN)('a journal entry of %s', (_, text) => expectKept('journal/abc.json', text, text.includes(VF)));

  /** What names the device keeps it from changes; what names none is said by everything and stops nothing. */
  function expectKept(file: string, text: string, named: boolean): void {
    host.file(`run/hostdev/${file}`, text);
    const before = host.hash('sys');
    const content = host.hash(`run/hostdev/${file}`);
    const change = file.startsWith('journal') ? ['unbind', '--to-host', VF] : ['unbind', VF];
    for (const args of named ? [['bind', VF], change] : [change]) {
      const ran = host.run(...args, '-j');
      sane(ran);
      expect({ exit: ran.exit, code: ran.json.error?.code }).toEqual(
        named ? { exit: 1, code: 'HOSTDEV_STORE_CORRUPT' } : { exit: 0, code: undefined },
      );
      expect(ran.out).toContain(host.path(`run/hostdev/${file}`));
    }
    const status = host.run('status', '-j');
    expect(status.exit).toBe(3);
    expect(status.json.bad_files.map((b) => b.file)).toEqual([host.path(`run/hostdev/${file}`)]);
    expect(host.hash('sys')).toBe(before);
    expect(host.hash(`run/hostdev/${file}`)).toBe(content);
  }

  test('other files beside them are left alone', () => {
    for (const name of ['README', '.json.swp', 'x.new.old']) {
      host.file(`run/hostdev/journal/${name}`, 'mine');
      host.file(`run/hostdev/bindings/${name}`, 'mine');
    }
    expect(host.run('status', '-j').json).toMatchObject({ bindings: [], journal: [] });
    expect(host.run('bind', VF).exit).toBe(1);
    expect(host.names('run/hostdev/journal')).toHaveLength(3);
  });
});

describe('a /run that cannot be written', () => {
  /** Runs a line with the run folder on a small tmpfs of its own, prepared by `prepare`; loud where that cannot be. */
  function inNamespace(prepare: string, words: string, input: string | Uint8Array = ''): Ran {
    host.folder('run');
    const run = `'${host.path('run')}'`;
    const script = `mount -t tmpfs -o size=64k none ${run} && cd ${run} && ${prepare} && exec ${process.execPath} ${CLI} --root ${host.root} ${words}`;
    const ran = runCommand('unshare', ['-m', '/bin/bash', '-ec', script], { input });
    if (/unshare failed|mount: .*(permission|denied)/.test(ran.err))
      throw new Error(`NOT TESTED, this needs mount namespaces: ${ran.err}`);
    return ran;
  }
  const READ_ONLY = 'mkdir -p hostdev/lock hostdev/journal && cd / && mount -o remount,ro ' as const;
  const xml = Buffer.from(domainXml('guest', UUID_A, [{ address: VF }]));

  test.each([
    ['bind', `bind -j ${VF}`],
    ['the hook', 'hook run guest prepare begin -'],
  ])('read-only: %s says EROFS, 1, nothing changed', (_, words) => {
    const before = host.hash('sys');
    for (const prepare of [`${READ_ONLY}'${host.path('run')}'`, `cd / && mount -o remount,ro '${host.path('run')}'`]) {
      const ran = inNamespace(prepare, words, xml);
      sane(ran);
      expect(ran.exit).toBe(1);
      expect(ran.err).toMatch(/EROFS/);
      if (words.includes('-j')) expect(ran.json.error).toMatchObject({ code: 'HOSTDEV_STORE' });
      expect(ran.err).toMatch(/read-only/i);
    }
    expect(host.hash('sys')).toBe(before);
  });

  test('read-only: start, which only looks, does not stop the guest', () => {
    const ready = { ...TREE, devices: [{ address: VF, ids: '8086:10ca', group: 3, driver: 'vfio-pci', vfio: true }] };
    host.remove();
    host = new StaticHost(ready);
    const ran = inNamespace(`${READ_ONLY}'${host.path('run')}'`, 'hook run guest start begin -', xml);
    expect({ exit: ran.exit, err: ran.err }).toEqual({ exit: 0, err: '' });
  });

  test('read-only: what only looks works', () => {
    const readOnly = `${READ_ONLY}'${host.path('run')}'`;
    for (const words of ['list', 'status', `show ${VF}`]) expect(inNamespace(readOnly, words).exit).toBe(0);
    const planned = inNamespace(readOnly, `bind -n -j ${VF}`);
    expect({ exit: planned.exit, steps: planned.json.plan.steps.length }).toEqual({ exit: 1, steps: 3 });
    expect(planned.json.warnings.map((w) => w.text).join()).toMatch(/the real run would refuse.*EROFS/);
  });

  test.each([
    ['bind', `bind -j ${VF}`],
    ['the hook', 'hook run guest prepare begin -'],
  ])('full: %s says ENOSPC, 1, the override untouched', (_, words) => {
    const fill =
      'mkdir -p hostdev/lock && touch hostdev/lock/group-3 && { dd if=/dev/zero of=full bs=1k 2>/dev/null || :; }';
    const before = host.hash('sys');
    const ran = inNamespace(fill, words, xml);
    sane(ran);
    expect(ran.exit).toBe(1);
    expect(ran.err).toMatch(/ENOSPC/);
    if (words.includes('-j')) expect(ran.json.error).toMatchObject({ code: 'HOSTDEV_STORE' });
    expect(ran.err).toMatch(/make room/);
    expect(host.hash('sys')).toBe(before);
  });

  test('a file where the folder should be', () => {
    host.file('run/hostdev', '');
    const ran = host.run('bind', VF, '-j');
    expect({ exit: ran.exit, code: ran.json.error.code }).toEqual({ exit: 1, code: 'HOSTDEV_STORE' });
    expect(ran.err).toMatch(/run\/hostdev.*(ENOTDIR|EEXIST)/);
  });
});

describe('as somebody else than root', () => {
  const NOBODY = ['--reuid=65534', '--regid=65534', '--clear-groups'];
  const isRoot = process.geteuid?.() === 0;
  const asNobody = (...args: string[]): Ran =>
    isRoot ? runCommand('setpriv', [...NOBODY, process.execPath, CLI, ...args]) : hostdev(args);

  test('on the machine itself: list works, bind is not permitted', (t) => {
    const listed = asNobody('list', '-j');
    expect(listed.exit).toBe(0);
    const [device] = listed.json.devices;
    if (device === undefined) return t.skip('this machine shows no PCI devices');
    for (const args of [
      ['bind', device.address],
      ['unbind', '--to-host', device.address],
    ]) {
      const ran = asNobody('-j', ...args);
      expect({ exit: ran.exit, code: ran.json.error.code }).toEqual({ exit: 6, code: 'HOSTDEV_NOT_PERMITTED' });
      expect(ran.err).toContain('needs root');
    }
  });

  test('below a root of somebody else: reading works, a change is not permitted, 6', () => {
    chmodSync(host.root, 0o755);
    host.folder('run/hostdev/bindings');
    chmodSync(host.path('run/hostdev'), 0o700);
    expect(asNobody('--root', host.root, 'list', '-j').json.devices).toHaveLength(3);
    const before = host.hash('sys');
    for (const args of [['bind', VF], ['unbind', VF], ['status'], ['hook', 'install']])
      expect(asNobody('--root', host.root, ...args).exit).toBe(isRoot ? 6 : expect.any(Number));
    expect(host.hash('sys')).toBe(before);
  });

  test('an override that may not be written: 6, everything as it was', () => {
    if (!isRoot) return;
    chmodSync(host.root, 0o755);
    host.folder('run');
    chownSync(host.path('run'), 65534, 65534);
    const before = host.hash('sys');
    const ran = asNobody('--root', host.root, 'bind', '-j', VF);
    expect({ exit: ran.exit, code: ran.json.error.code }).toEqual({ exit: 6, code: 'HOSTDEV_NOT_PERMITTED' });
    expect(ran.err).toContain('driver_override: EACCES');
    expect(host.hash('sys')).toBe(before);
    expect(host.names('run/hostdev/journal')).toEqual([]);
  });
});

describe('hook test FILE', () => {
  test('unreadable: 6', () => {
    host.file('guest.xml', domainXml('guest', UUID_A, []));
    chmodSync(host.root, 0o755);
    chmodSync(host.path('guest.xml'), 0o000);
    const ran = runCommand('setpriv', [
      '--reuid=65534',
      process.execPath,
      CLI,
      '--root',
      host.root,
      'hook',
      'test',
      host.path('guest.xml'),
    ]);
    expect(ran.exit).toBe(6);
    expect(ran.err).toContain('guest.xml: EACCES');
  });

  test.each([
    ['/dev/zero', 3],
    ['/dev/null', 3],
    ['-', 3],
    ['', 4],
  ])('%j: %i', (file, exit) => {
    const ran = host.run('hook', 'test', file);
    sane(ran);
    expect(ran.exit).toBe(exit);
  });

  test.each([
    '<domain><name>x',
    '<network/>',
    '<!DOCTYPE x [<!ENTITY a "b">]><domain/>',
    `<domain>${'<a>'.repeat(10_000)}`,
    '\xff\xfe<\0d\0',
    "<domain type='kvm'><name>\x1b[2J</name><devices><hostdev mode='subsystem' type='pci'><source/></hostdev></devices></domain>",
  ])('%#: invalid, 3, one line and a way on', (xml) => {
    const ran = hostdev(['--root', host.root, 'hook', 'test', '-'], { input: Buffer.from(xml, 'latin1') });
    sane(ran);
    expect(ran.exit).toBe(3);
    expect(ran.err.trimEnd().split('\n')).toHaveLength(2);
  });
});
