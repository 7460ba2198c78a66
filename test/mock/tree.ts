/**
 * A static host: the files and links that a kernel would show, written to a temporary folder, where nothing reacts to a
 * write. It shows what hostdev reads and what it leaves behind when its writes do nothing; and the built CLI run on it
 * as a child process, as a user would.
 */
import { type SpawnSyncOptionsWithStringEncoding, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import type { ShownDevice, ShownGroup } from '../../src/actions/inspect.ts';
import type { PrintedPlan } from '../../src/actions/plan.ts';
import type { Status } from '../../src/actions/status.ts';
import type { Group } from '../../src/pci/groups.ts';
import type { PciDevice } from '../../src/pci/inventory.ts';
import type { Warning } from '../../src/text/warning.ts';
import { EVER } from '../patience.ts';

export type TreeDevice = {
  address: string;
  /** "8086:10ca" */
  ids: string;
  /** 6 hex digits; an Ethernet controller when absent. */
  class?: string;
  /** "1af4:1100" */
  subsystem?: string;
  group?: number;
  numa?: number;
  driver?: string;
  /** The bytes of driver_override; "(null)\n", as an unset one reads, when absent. */
  override?: string;
  totalVfs?: number;
  /** Of a VF: its PF's address. */
  physfn?: string;
  /** The bridges above it, from its root bus on; none when absent. */
  below?: string[];
  /** The device is on a VFIO driver and shows its vfio-dev folder. */
  vfio?: boolean;
  /** Further attributes, or other bytes for the usual ones; null leaves one out. */
  attributes?: Record<string, string | Uint8Array | null>;
};

export type Tree = {
  devices: TreeDevice[];
  /** Drivers that are registered beside those the devices are on, each with its module, null for a built-in one. */
  drivers?: Record<string, string | null>;
  /**
   * Network interfaces, block devices and DRM nodes by name: the device below which each hangs, null for a virtual one.
   */
  net?: Record<string, string | null>;
  block?: Record<string, string | null>;
  drm?: Record<string, string | null>;
  /** Lines of modules.alias; null for a host without the file. */
  aliases?: string[] | null;
  files?: Record<string, string | Uint8Array>;
  links?: Record<string, string>;
};

export const RELEASE = '6.12.0-static';

/** In memory where that can be: tens of thousands of small files wait long for a busy disk. */
const WHERE = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export class StaticHost {
  readonly root = mkdtempSync(join(WHERE, 'hostdev-static-'));
  /** Where the devices with bridges above them are. */
  readonly homes = new Map<string, string>();

  constructor(tree?: Tree) {
    if (tree) writeTree(this, tree);
  }

  /** Absolute path of something below the root. */
  path(name: string): string {
    return join(this.root, name);
  }

  file(name: string, bytes: string | Uint8Array): void {
    mkdirSync(dirname(this.path(name)), { recursive: true });
    writeFileSync(this.path(name), bytes);
  }

  folder(name: string): void {
    mkdirSync(this.path(name), { recursive: true });
  }

  link(name: string, target: string): void {
    mkdirSync(dirname(this.path(name)), { recursive: true });
    rmSync(this.path(name), { force: true });
    symlinkSync(target, this.path(name));
  }

  remove(name = ''): void {
    rmSync(this.path(name), { recursive: true, force: true });
  }

  bytes(name: string): string {
    return readFileSync(this.path(name), 'latin1');
  }

  names(name: string): string[] {
    return existsSync(this.path(name)) ? readdirSync(this.path(name)).sort() : [];
  }

  /** One text for everything below a folder, content, links and modes. */
  hash(name = ''): string {
    const h = createHash('sha256');
    const visit = (path: string): void => {
      const s = lstatSync(path);
      h.update(`${relative(this.root, path)}\0${s.mode}\0`);
      if (s.isSymbolicLink()) h.update(readlinkSync(path));
      else if (s.isDirectory()) for (const n of readdirSync(path).sort()) visit(join(path, n));
      else h.update(readFileSync(path));
    };
    visit(this.path(name));
    return h.digest('hex');
  }

  override(address: string): string {
    return this.bytes(`sys/bus/pci/devices/${address}/driver_override`);
  }

  run(...args: string[]): Ran {
    return hostdev(['--root', this.root, ...args]);
  }
}

/** Where the kernel puts a device: below its bridges, or right below its host bridge. */
const home = (host: StaticHost, address: string): string =>
  host.homes.get(address) ?? `sys/devices/pci${address.slice(0, address.indexOf(':') + 3)}/${address}`;

const linkTo = (host: StaticHost, from: string, to: string): void => host.link(from, relative(dirname(from), to));

function modalias(d: Pick<TreeDevice, 'ids' | 'subsystem' | 'class'>): string {
  const word = (text: string): string => text.toUpperCase().padStart(8, '0');
  const [v = '', p = ''] = d.ids.split(':');
  const [sv = '', sp = ''] = (d.subsystem ?? '0000:0000').split(':');
  const c = (d.class ?? '020000').toUpperCase();
  return `pci:v${word(v)}d${word(p)}sv${word(sv)}sd${word(sp)}bc${c.slice(0, 2)}sc${c.slice(2, 4)}i${c.slice(4)}`;
}

function writeTree(host: StaticHost, tree: Tree): void {
  for (const { address, below } of tree.devices)
    if (below !== undefined) {
      const [first = ''] = below;
      host.homes.set(
        address,
        ['sys/devices', `pci${first.slice(0, first.indexOf(':') + 3)}`, ...below, address].join('/'),
      );
    }
  for (const d of tree.devices) writeDevice(host, d);
  host.folder('sys/bus/pci/devices');
  host.file('sys/bus/pci/drivers_probe', '');
  for (const [driver, module] of Object.entries(tree.drivers ?? {})) writeDriver(host, driver, module);
  for (const kind of ['net', 'block', 'drm'] as const)
    for (const [name, address] of Object.entries(tree[kind] ?? {})) writeClass(host, kind, name, address);
  writeProc(host);
  const aliases = ['alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci', ...(tree.aliases ?? [])];
  if (tree.aliases !== null) host.file(`lib/modules/${RELEASE}/modules.alias`, `${aliases.join('\n')}\n`);
  for (const [name, bytes] of Object.entries(tree.files ?? {})) host.file(name, bytes);
  for (const [name, target] of Object.entries(tree.links ?? {})) host.link(name, target);
}

function writeDevice(host: StaticHost, d: TreeDevice): void {
  const at = home(host, d.address);
  const [vendor, product] = d.ids.split(':');
  const [subVendor, subDevice] = (d.subsystem ?? '0000:0000').split(':');
  const attributes: Record<string, string | Uint8Array | null> = {
    vendor: `0x${vendor}\n`,
    device: `0x${product}\n`,
    class: `0x${d.class ?? '020000'}\n`,
    subsystem_vendor: `0x${subVendor}\n`,
    subsystem_device: `0x${subDevice}\n`,
    modalias: `${modalias(d)}\n`,
    numa_node: `${d.numa ?? -1}\n`,
    driver_override: d.override ?? '(null)\n',
    reset_method: 'flr bus\n',
    ...(d.totalVfs === undefined ? {} : { sriov_totalvfs: `${d.totalVfs}\n`, sriov_numvfs: '0\n' }),
    ...d.attributes,
  };
  for (const [name, bytes] of Object.entries(attributes)) if (bytes !== null) host.file(`${at}/${name}`, bytes);
  linkTo(host, `sys/bus/pci/devices/${d.address}`, at);
  if (d.physfn !== undefined) linkTo(host, `${at}/physfn`, home(host, d.physfn));
  if (d.vfio) host.folder(`${at}/vfio-dev/vfio0`);
  if (d.driver !== undefined) {
    writeDriver(host, d.driver, d.driver.replaceAll('-', '_'));
    linkTo(host, `${at}/driver`, `sys/bus/pci/drivers/${d.driver}`);
    linkTo(host, `sys/bus/pci/drivers/${d.driver}/${d.address}`, at);
  }
  if (d.group !== undefined) {
    const group = `sys/kernel/iommu_groups/${d.group}`;
    host.file(`${group}/type`, 'DMA-FQ\n');
    host.file(`${group}/reserved_regions`, '0x00000000fee00000 0x00000000feefffff msi\n');
    linkTo(host, `${group}/devices/${d.address}`, at);
    linkTo(host, `${at}/iommu_group`, group);
  }
}

function writeDriver(host: StaticHost, driver: string, module: string | null): void {
  const at = `sys/bus/pci/drivers/${driver}`;
  for (const name of ['bind', 'unbind', 'new_id']) host.file(`${at}/${name}`, '');
  if (module === null) return;
  linkTo(host, `${at}/module`, `sys/module/${module}`);
  linkTo(host, `sys/module/${module}/drivers/pci:${driver}`, at);
}

function writeClass(host: StaticHost, kind: 'net' | 'block' | 'drm', name: string, address: string | null): void {
  const at = `${address === null ? 'sys/devices/virtual' : home(host, address)}/${kind}/${name}`;
  host.file(`${at}/uevent`, '');
  linkTo(host, `sys/class/${kind}/${name}`, at);
}

function writeProc(host: StaticHost): void {
  host.file('proc/sys/kernel/osrelease', `${RELEASE}\n`);
  host.file('proc/cmdline', 'root=/dev/sda1 intel_iommu=on\n');
  host.file('proc/self/mountinfo', '21 1 8:1 / / rw - ext4 /dev/sda1 rw\n');
  host.file('proc/swaps', 'Filename\tType\tSize\tUsed\tPriority\n');
  host.file('proc/modules', '');
  host.file('proc/net/route', 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n');
}

/**
 * A host from a dump of a real kernel's trees, one line an entry: `L path -> target`, `D folder`, `F path|mode|JSON
 * text`, `W` a file that cannot be read, `E path errno`, `X path hex` (config space). What could not be dumped is left
 * out; modules.alias never was in it.
 */
export function loadDump(name: string): StaticHost {
  const host = new StaticHost();
  const text = gunzipSync(readFileSync(join(TOP, 'test/data/hosts', `${name}.txt.gz`))).toString('utf8');
  for (const line of text.split('\n')) {
    const [, kind, rest = ''] = /^([LDFWEX]) \/(.*)$/.exec(line) ?? [];
    if (kind === 'D') host.folder(rest);
    else if (kind === 'L') host.link(...(rest.split(' -> ') as [string, string]));
    else if (kind === 'W') {
      host.file(rest, '');
      chmodSync(host.path(rest), 0o200);
    } else if (kind === 'X') {
      const [path = '', hex = ''] = rest.split(' ');
      host.file(path, Buffer.from(hex, 'hex'));
    } else if (kind === 'F') {
      const [path = '', mode = ''] = rest.split('|', 2);
      host.file(path, Buffer.from(JSON.parse(rest.slice(path.length + mode.length + 2)) as string, 'latin1'));
      chmodSync(host.path(path), Number.parseInt(mode, 8));
    }
  }
  return host;
}

// The built CLI.

const TOP = fileURLToPath(new URL('../..', import.meta.url));

/** The built CLI; `node tools/setup.mjs` makes it. */
export const CLI = join(TOP, 'dist/hostdev.js');

export type Ran = { exit: number | null; out: string; err: string; json: Document };

/** Every key that an answer in JSON may have; which of them are there is what the tests find out. */
type Document = {
  schema: number;
  devices: PciDevice[];
  device: ShownDevice;
  groups: Group[];
  group: ShownGroup;
  plan: PrintedPlan;
  changed: boolean;
  warnings: Warning[];
  matches: string[];
  error: { code: string; message: string; hint: string };
} & Status;

/** Runs the CLI to its end. `json` is its stdout when that is one JSON document, else an empty one. */
export function hostdev(args: string[], options: Partial<SpawnSyncOptionsWithStringEncoding> = {}): Ran {
  return runCommand(process.execPath, [CLI, ...args], options);
}

export function runCommand(
  command: string,
  args: string[],
  options: Partial<SpawnSyncOptionsWithStringEncoding> = {},
): Ran {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    input: '',
    timeout: EVER,
    maxBuffer: 64 * 1024 * 1024,
    ...options,
    encoding: 'utf8',
  });
  if (error) throw error;
  return ranOf(status, stdout, stderr);
}

/** What a command that has ended said. */
export const ranOf = (exit: number | null, out: string, err: string): Ran => ({ exit, out, err, json: parsed(out) });

function parsed(text: string): Document {
  try {
    return JSON.parse(text) as Document;
  } catch {
    return {} as Document;
  }
}
