/** The addon against ordinary trees, and against its stand-in on plain fs. */
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FsReader } from '../../../src/addon/fsReader.ts';
import { loadNative, nativeExecutable } from '../../../src/addon/load.ts';
import { EVER } from '../../patience.ts';

const addon = loadNative();
const fs = new FsReader();
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'hostdev-addon-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const put = (path: string, text: string | Buffer): void => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
};
const link = (path: string, target: string): void => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  symlinkSync(target, join(root, path));
};
const DEVICES = 'sys/bus/pci/devices';
const REAL = 'sys/devices/pci0000:00';
/** A device as the kernel lays it out: a link on the bus to a folder of attributes. */
const device = (address: string, files: Record<string, string | Buffer>, links: Record<string, string> = {}): void => {
  link(`${DEVICES}/${address}`, `../../../devices/pci0000:00/${address}`);
  mkdirSync(join(root, REAL, address), { recursive: true });
  for (const [n, t] of Object.entries(files)) put(`${REAL}/${address}/${n}`, t);
  for (const [n, t] of Object.entries(links)) link(`${REAL}/${address}/${n}`, t);
};

test('this is the addon', () => expect(addon.kind).toBe('addon'));

test('a PF, its VF, and a device without a modalias', () => {
  device(
    '0000:21:00.0',
    { modalias: 'pci:v1', numa_node: '0\n', sriov_totalvfs: '7\n' },
    { driver: '../../../bus/pci/drivers/igb', iommu_group: '../../../kernel/iommu_groups/3' },
  );
  device(
    '0000:21:10.0',
    { modalias: 'pci:v2', numa_node: '-1\n', sriov_totalvfs: '9\n' },
    { physfn: '../0000:21:00.0' },
  );
  device('10000:01:00.0', { vendor: '0x8086\n', device: '0x1\n' });
  expect(addon.scanDevices(root)).toEqual({
    failures: [],
    devices: [
      {
        address: '0000:21:00.0',
        modalias: 'pci:v1',
        ids: null,
        numaNode: '0\n',
        driver: 'igb',
        iommuGroup: '3',
        physfn: null,
        totalVfs: '7\n',
      },
      {
        address: '0000:21:10.0',
        modalias: 'pci:v2',
        ids: null,
        numaNode: '-1\n',
        driver: null,
        iommuGroup: null,
        physfn: '0000:21:00.0',
        totalVfs: null,
      },
      {
        address: '10000:01:00.0',
        modalias: null,
        ids: ['0x8086\n', '0x1\n', null, null, null],
        numaNode: null,
        driver: null,
        iommuGroup: null,
        physfn: null,
        totalVfs: null,
      },
    ],
  });
});

test('hostile entries: dangling, a loop, a plain folder, huge, binary, a FIFO, an attribute that is a link or a folder', () => {
  link(`${DEVICES}/0000:00:00.0`, '../../../devices/gone');
  link(`${DEVICES}/0000:00:01.0`, '0000:00:01.0');
  mkdirSync(join(root, DEVICES, '0000:00:02.0'));
  device('0000:00:03.0', { modalias: Buffer.alloc(1024 * 1024, 0xfe), numa_node: '' });
  device('0000:00:04.0', {});
  execFileSync('mkfifo', [join(root, REAL, '0000:00:04.0/modalias')]);
  link(`${REAL}/0000:00:04.0/numa_node`, '/etc/hostname');
  mkdirSync(join(root, REAL, '0000:00:04.0/sriov_totalvfs'));
  const { devices, failures } = addon.scanDevices(root);
  expect(devices.map((d) => d.address)).toEqual(['0000:00:02.0', '0000:00:03.0', '0000:00:04.0']);
  expect(devices[1]?.modalias).toBe('\xfe'.repeat(4096));
  expect(devices[2]).toMatchObject({ numaNode: null, totalVfs: null });
  const where = (l: typeof failures) => l.map((f) => `${f.code} ${f.path}`).sort();
  const other = fs.scanDevices(root);
  expect([other.devices, where(other.failures)]).toEqual([devices, where(failures)]);
  expect(failures.map((f) => `${f.code} ${f.path}`)).toEqual([
    `ELOOP ${DEVICES}/0000:00:01.0`,
    `EISDIR ${DEVICES}/0000:00:04.0/sriov_totalvfs`,
    `ELOOP ${DEVICES}/0000:00:04.0/numa_node`,
  ]);
});

test('links stay inside the root', () => {
  put('etc/inside', 'yes');
  link('absolute', '/etc/inside');
  link('dots', '../../../../../etc/inside');
  link('out', '/proc/self/status');
  for (const native of [addon, fs]) {
    expect(native.readFile(root, 'absolute', 10)).toBe('yes');
    expect(native.readFile(root, 'dots', 10)).toBe('yes');
    expect(() => native.readFile(root, 'out', 10)).toThrow(expect.objectContaining({ code: 'ENOENT', path: 'out' }));
    expect(native.readLink(root, 'absolute')).toBe('/etc/inside');
  }
});

test('errors have the fields of fs errors, with the path below the root', () => {
  put('big', 'x'.repeat(11));
  put('full', 'x'.repeat(10));
  for (const native of [addon, fs]) {
    expect(native.readFile(root, 'full', 10)).toHaveLength(10);
    expect(() => native.readFile(root, 'big', 10)).toThrow(
      expect.objectContaining({ code: 'EFBIG', errno: -27, syscall: 'read', path: 'big' }),
    );
    expect(() => native.readDir(root, 'gone')).toThrow(
      expect.objectContaining({ code: 'ENOENT', errno: -2, path: 'gone' }),
    );
    expect(() => native.readLink(root, 'big')).toThrow(expect.objectContaining({ code: 'EINVAL', path: 'big' }));
  }
});

test('a message reads as node words it; what follows a NUL is not cut off', () => {
  put('a', 'x');
  expect(() => addon.readFile(root, 'gone', 10)).toThrow("ENOENT: no such file or directory, openat2 'gone'");
  expect(() => addon.readFile(root, 'a\0b', 10)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
});

test('the addon and its stand-in see the same (property)', () => {
  const text = fc.option(fc.string({ maxLength: 40, unit: 'binary-ascii' }), { nil: undefined });
  const name = fc.constantFrom('igb', '../x', '/', 'a/b/c', '');
  const shape = fc.record({
    modalias: text,
    numa_node: text,
    vendor: text,
    sriov_totalvfs: text,
    driver: fc.option(name, { nil: undefined }),
    physfn: fc.option(name, { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(shape, { maxLength: 5 }), (shapes) => {
      rmSync(root, { recursive: true });
      mkdirSync(root);
      shapes.forEach(({ driver, physfn, ...files }, i) => {
        const links = Object.fromEntries(Object.entries({ driver, physfn }).filter(([, v]) => v)) as Record<
          string,
          string
        >;
        device(
          `0000:00:0${i}.0`,
          Object.fromEntries(Object.entries(files).filter(([, v]) => v !== undefined)) as Record<string, string>,
          links,
        );
        put(`sys/kernel/iommu_groups/${i}/type`, 'DMA\n');
        link(`sys/kernel/iommu_groups/${i}/devices/0000:00:0${i}.0`, '../x');
      });
      expect(fs.scanDevices(root)).toEqual(addon.scanDevices(root));
      expect(fs.scanGroups(root)).toEqual(addon.scanGroups(root));
    }),
    { numRuns: 60 },
  );
});

test('no tree at all is an empty answer; no root is an error', () => {
  expect(addon.scanDevices(root)).toEqual({ devices: [], failures: [] });
  expect(addon.scanGroups(root)).toEqual({ groups: [], failures: [] });
  expect(() => addon.scanDevices(join(root, 'gone'))).toThrow(expect.objectContaining({ code: 'ENOENT' }));
});

describe('locks', () => {
  test('held by us, by another process, and free when that one dies', async () => {
    const file = join(root, 'lock');
    const fd = addon.tryLock(file, false);
    expect(fd).not.toBeNull();
    expect(addon.tryLock(file, false)).toBeNull();
    addon.unlock(fd ?? -1);
    const other = spawn('flock', [file, 'sh', '-c', 'echo ready; exec sleep 20']);
    await new Promise((r) => other.stdout.once('data', r));
    expect(addon.tryLock(file, false)).toBeNull();
    execFileSync('pkill', ['-KILL', '-P', String(other.pid)]);
    other.kill('SIGKILL');
    await new Promise((r) => other.once('close', r));
    expect(addon.tryLock(file, false)).not.toBeNull();
  });

  test('not through a link, not without its folder', () => {
    link('l', 'target');
    expect(() => addon.tryLock(join(root, 'l'), false)).toThrow(expect.objectContaining({ code: 'ELOOP' }));
    expect(() => addon.tryLock(join(root, 'gone/l'), false)).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  });
});

test('holders: this process, by a file that it has open', () => {
  put('held', '');
  const path = join(root, 'held');
  expect(addon.holders('/', [path]).holders).toEqual([]);
  const fd = openSync(path, 'r');
  try {
    for (const native of [addon, fs])
      expect(native.holders('/', [path, '/nowhere']).holders).toMatchObject([{ pid: process.pid, path }]);
  } finally {
    closeSync(fd);
  }
});

test('holders of a simulated host: numerically, names made harmless, no link leads out', () => {
  const target = '/dev/vfio/12';
  for (const pid of ['9', '10', '11']) link(`proc/${pid}/fd/3`, target);
  put('proc/9/comm', 'qemu\x1b[2J\nx\n');
  link('proc/12', '/proc/self');
  link('proc/13/fd', '/proc/self/fd');
  const empty = mkdtempSync(join(tmpdir(), 'hostdev-addon-'));
  for (const native of [addon, fs]) {
    expect(native.holders(root, [target, '/dev/null'])).toEqual({
      holders: [
        { pid: 9, command: 'qemu?[2J?x', path: target },
        { pid: 10, command: '?', path: target },
        { pid: 11, command: '?', path: target },
      ],
      unreadable: 0,
    });
    expect(native.holders(empty, [target])).toEqual({ holders: [], unreadable: 0 });
  }
  rmSync(empty, { recursive: true });
});

test('a FIFO in a simulated host holds nothing up', () => {
  link('proc/9/fd/3', '/dev/vfio/12');
  mkdirSync(join(root, DEVICES, '0000:00:00.0'), { recursive: true });
  for (const fifo of ['proc/9/comm', 'fifo', `${DEVICES}/0000:00:00.0/modalias`])
    execFileSync('mkfifo', [join(root, fifo)]);
  // In a process of its own: one that is held up here could not even be timed out.
  const script = `const m = { exports: {} };
    process.dlopen(m, process.argv[1]);
    const root = process.argv[2];
    console.log(JSON.stringify([m.exports.holders(root, ['/dev/vfio/12']).holders, m.exports.readFile(root, 'fifo', 9)]));
    m.exports.scanDevices(root);`;
  const file = join(dirname(nativeExecutable()), 'hostdev.node');
  const text = execFileSync(process.execPath, ['-e', script, file, root], { encoding: 'utf8', timeout: EVER });
  expect(JSON.parse(text)).toEqual([[{ pid: 9, command: '', path: '/dev/vfio/12' }], '']);
});

test('an empty HOSTDEV_NATIVE_DIR is no folder, the current one least of all', () => {
  const before = process.cwd();
  symlinkSync(join(dirname(nativeExecutable()), 'hostdev.node'), join(root, 'hostdev.node'));
  process.chdir(root);
  process.env.HOSTDEV_NATIVE_DIR = '';
  try {
    expect(loadNative().kind).toBe('fs');
  } finally {
    delete process.env.HOSTDEV_NATIVE_DIR;
    process.chdir(before);
  }
});

test('a NUL in a root, a lock or a helper names no other file; a wait of no number is none', () => {
  const bare = createRequire(import.meta.url)(resolve('build/Release/hostdev.node'));
  const folder = mkdtempSync(join(tmpdir(), 'hostdev-nul-'));
  try {
    const invalid = expect.objectContaining({ code: 'EINVAL' });
    const raised = (call: () => unknown): unknown => {
      try {
        return call();
      } catch (e) {
        return e;
      }
    };
    expect(raised(() => bare.tryLock(`${folder}/a\0b`, false))).toEqual(invalid);
    expect(readdirSync(folder)).toEqual([]);
    expect(raised(() => bare.readDir(`${folder}\0x`, '.'))).toEqual(invalid);
    const helper = bare.openHelper(nativeExecutable(), `${folder}\0x`);
    expect(raised(() => bare.sendHelper(helper, 'R', 'a', ''))).toEqual(invalid);
    expect(bare.waitHelpers([], Number.NaN)).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
