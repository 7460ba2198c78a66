/**
 * `node dist/warm.js`: makes the bytecode that src/layers.ts loads, by running commands on a small host in a temporary folder, and for a node without a startup snapshot
 * one of ours. Run by the build, and by whatever installs hostdev for a node or in a folder that is not the build's. Without it everything works, and starts slower.
 */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';

const ADDRESS = '0000:01:00.0';
const DOMAIN = `<domain type='kvm'><name>warm</name><uuid>5d6e0a2e-0f5b-4d3c-9d53-000000000001</uuid><devices>
<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source></hostdev></devices></domain>`;

/** Specs, aliases, pools, a claim and what Placement would be told: what `simulate` runs for any host. */
const SCENARIO = JSON.stringify({
  device_spec: [
    { vendor_id: '8086', address: '0000:01:*.*', resource_class: 'NIC', traits: 'a' },
    { product_id: '1520' },
  ],
  alias: [{ name: 'a', vendor_id: '8086', product_id: '1520', device_type: 'type-PCI', numa_policy: 'preferred' }],
  devices: [0, 1, 2].map((n) => ({
    address: `0000:01:00.${n}`,
    vendor_id: '8086',
    product_id: '1520',
    dev_type: 'type-PCI',
    numa_node: n % 2,
    parent_addr: null,
  })),
  request: 'a:2',
});

const DEVICE = `sys/bus/pci/devices/${ADDRESS}`;

/**
 * In place of `hostdev-native write` (native/writer.cc, whose frames these are) below a folder where nothing reacts: a write to `unbind` or `drivers_probe` moves the
 * driver link as the kernel would, so that a bind runs to its good end and all of that is compiled.
 */
function serveWrites(root: string): void {
  const next = (size: number): Buffer | null => {
    const bytes = Buffer.alloc(size);
    for (let at = 0; at < size; ) {
      const n = readSync(0, bytes, at, size - at, null);
      if (n === 0) return null;
      at += n;
    }
    return bytes;
  };
  for (let head = next(4); head !== null; head = next(4)) {
    const request = next(head.readUInt32LE(0));
    if (request === null) return;
    const valueAt = 7 + request.readUInt16LE(5);
    const path = join(root, request.toString('latin1', 7, valueAt));
    const value = request.toString('latin1', valueAt);
    const link = join(root, DEVICE, 'driver');
    let bytes = '';
    if (request[4] === 0x52) bytes = readFileSync(path, 'latin1');
    else if (basename(path) === 'unbind') unlinkSync(link);
    else if (basename(path) === 'drivers_probe') {
      const override = readFileSync(join(root, DEVICE, 'driver_override'), 'latin1').trim();
      symlinkSync(`../../drivers/${override === '' || override === '(null)' ? 'igbvf' : override}`, link);
    } else writeFileSync(path, value.trim() === '' ? '(null)\n' : value);
    const reply = Buffer.alloc(13 + bytes.length);
    reply.writeUInt32LE(9 + bytes.length, 0);
    request.copy(reply, 4, 0, 4);
    reply.write(bytes, 13, 'latin1');
    writeSync(1, reply);
  }
}

/** The real addon beside the stand-in for the executable; null when the addon is not built. */
function makeNative(folder: string, root: string): string | null {
  const built = ['build/Release', `prebuilds/linux-${process.arch}`].map((d) =>
    join(__dirname, '..', d, 'hostdev.node'),
  );
  const addon = built.find((f) => existsSync(f));
  if (addon === undefined) return null;
  mkdirSync(folder);
  symlinkSync(addon, join(folder, 'hostdev.node'));
  const words = [process.execPath, __filename, 'serve', root].map((w) => `'${w.replaceAll("'", "'\\''")}'`);
  writeFileSync(join(folder, 'hostdev-native'), `#!/bin/sh\nexec ${words.join(' ')}\n`, { mode: 0o755 });
  return folder;
}

function makeHost(root: string): void {
  const write = (file: string, text: string): void => {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), text);
  };
  const files = { vendor: '0x8086', device: '0x1520', class: '0x020000', driver_override: '(null)', numa_node: '-1' };
  for (const [name, text] of Object.entries(files)) write(`${DEVICE}/${name}`, `${text}\n`);
  write('sys/bus/pci/drivers/igbvf/unbind', '');
  write('sys/bus/pci/drivers_probe', '');
  write('sys/bus/pci/drivers/vfio-pci/bind', '');
  write('proc/cmdline', 'intel_iommu=on\n');
  write('proc/sys/kernel/osrelease', '6.12.0\n');
  for (const n of ['alias', 'dep', 'builtin', 'builtin.modinfo', 'softdep'])
    write(`lib/modules/6.12.0/modules.${n}`, n === 'alias' ? 'alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n' : '');
  mkdirSync(join(root, 'sys/kernel/iommu_groups/1/devices'), { recursive: true });
  write('sys/kernel/iommu_groups/1/type', 'DMA-FQ\n');
  symlinkSync(`../../../../bus/pci/devices/${ADDRESS}`, join(root, `sys/kernel/iommu_groups/1/devices/${ADDRESS}`));
  symlinkSync('../../../../kernel/iommu_groups/1', join(root, `${DEVICE}/iommu_group`));
  symlinkSync('../../drivers/igbvf', join(root, `${DEVICE}/driver`));
}

function warm(): void {
  const scratch = mkdtempSync(join(tmpdir(), 'hostdev-warm-'));
  try {
    const root = join(scratch, 'root');
    makeHost(root);
    const native = makeNative(join(scratch, 'native'), root);
    const env = {
      ...process.env,
      HOSTDEV_CODE_CACHE: 'make',
      ...(native === null ? {} : { HOSTDEV_NATIVE_DIR: native }),
    };
    for (const [words, input] of [
      ['list', ''],
      ['list -j', ''],
      [`show ${ADDRESS}`, ''],
      ['group list', ''],
      [`bind --driver vfio-pci ${ADDRESS}`, ''],
      ['status', ''],
      [`unbind ${ADDRESS}`, ''],
      [`bind ${ADDRESS}`, ''],
      [`unbind ${ADDRESS}`, ''],
      ['hook run warm prepare begin -', DOMAIN],
      ['hook run warm release end -', DOMAIN],
      ['simulate - -j', SCENARIO],
    ] as const) {
      const args = [join(__dirname, 'hostdev.js'), ...words.split(' '), '--root', root];
      const options = { input, env, timeout: 60_000 };
      const { error, signal } = spawnSync(process.execPath, args, { ...options, stdio: ['pipe', 'ignore', 'ignore'] });
      if (error || signal) throw error ?? new Error(`hostdev ${words} was ended by ${signal}`);
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

const BLOB = join(__dirname, 'snapshot.blob');
const KEY = join(__dirname, 'snapshot.key');

/** The files of this node that a snapshot depends on: the executable, and the library that it is in where it is in one. */
function nodeFiles(): string[] {
  const maps = readFileSync('/proc/self/maps', 'latin1');
  const libraries = maps.match(/\/\S*\/libnode\.so\S*/g) ?? [];
  return [...new Set([process.execPath, ...libraries])];
}

/** What must be as it is for the snapshot to be taken; native/launch.cc makes the same text. V8 refuses one that was made on a processor with other features. */
function snapshotKey(): string {
  const files = nodeFiles().map((f) => {
    const { size, mtimeNs } = statSync(f, { bigint: true });
    return `${size} ${mtimeNs} ${f}`;
  });
  const [first = ''] = readFileSync('/proc/cpuinfo', 'latin1').split('\n\n', 1);
  const features = first.split('\n').filter((l) => /^(vendor_id|model name|flags|Features|isa)\b/.test(l));
  return [realpathSync(__dirname), ...files, ...features, ''].join('\n');
}

/** A node with a snapshot of its own starts no faster from ours. */
function makeSnapshot(): void {
  for (const f of [KEY, BLOB]) rmSync(f, { force: true });
  const { variables } = process.config as { variables: { node_use_node_snapshot?: boolean } };
  if (variables.node_use_node_snapshot !== false && process.env.HOSTDEV_SNAPSHOT !== 'make') return;
  const env = { ...process.env, NODE_OPTIONS: '' };
  const args = ['--snapshot-blob', BLOB, '--build-snapshot', join(__dirname, 'snapshot.js')];
  const { status } = spawnSync(process.execPath, args, { env, stdio: 'ignore', timeout: 120_000 });
  if (status === 0 && spawnSync(process.execPath, ['--snapshot-blob', BLOB, '--', '--version'], { env }).status === 0)
    writeFileSync(KEY, snapshotKey());
  else rmSync(BLOB, { force: true });
}

const [, , verb, root = ''] = process.argv;
if (verb === 'serve') serveWrites(root);
else {
  warm();
  makeSnapshot();
}
