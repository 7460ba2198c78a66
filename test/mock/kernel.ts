/**
 * The kernel's PCI core in memory, behind NativeBinding: what sysfs answers and how it reacts to writes, errno by
 * errno, as drivers/base/{bus,dd,driver}.c and drivers/pci/pci-driver.c do. The same scenarios run against it, and in
 * the VM against the kernel itself.
 */
import { constants } from 'node:os';
import type { Holder, KernelWriter, NativeBinding, RawDevice, RawGroups, RawScan } from '../../src/addon/native.ts';
import { baseFiles } from '../scenarios/host.ts';
import { arrive, removeVfs, vfOffset, vfStride, vfsAreHeld, vfsOf, writeAttribute } from './attributes.ts';
import { netTree, setUp } from './net.ts';
import { isVgpu, type Vgpus, vgpuFiles } from './vgpu.ts';

export type Errno = keyof typeof constants.errno;

export type ModelDevice = {
  address: string;
  /** "8086:10ca" */
  ids: string;
  class?: string;
  subsystem?: string;
  group?: number | null;
  numa?: number;
  physfn?: string;
  totalVfs?: number;
  driver?: string | null;
  override?: string | null;
  /** Further attributes: boot_vga, reset_method … */
  attributes?: Record<string, string>;
  /** The bridge it is below. */
  parent?: string;
  /** Of a PF: its VFs' ids, and the group of the first, the next one's being one higher. */
  vfIds?: string;
  vfGroup?: number;
  /**
   * Of a PF: its VFs and their groups appear some looks after the write was answered; its driver makes only so many of
   * them.
   */
  vfsLate?: boolean;
  vfsMade?: number;
  /** Of a PF: where its VFs are (128 and 2, as on the 82576). */
  vfOffset?: number;
  vfStride?: number;
  /** The network interface that its host driver makes, down at first. */
  net?: string;
  /** Of a PF on NVIDIA's vGPU driver. */
  vgpus?: Vgpus;
  /** `sriov_drivers_autoprobe` of a PF. */
  autoprobe?: boolean;
  /** What reset_method may be set to, once it was changed. */
  supportedResets?: string;
  /** Further options of the FUSE host's `device` line. */
  options?: string[];
};

export type ModelDriver = {
  name: string;
  module?: string;
  /** "8086:10ca"; a driver of VFIO's matches by override only. */
  ids: string[];
  vfio?: boolean;
  /** probe() answers this errno; the probe file says nothing of it, as in the kernel. */
  probeErrno?: Errno;
  /** So many probes answer EPROBE_DEFER: `bind` says EAGAIN, the probe file nothing. */
  defer?: number;
  /** It has sriov_configure, and takes its VFs away when it goes. */
  sriov?: boolean;
  /** sriov_configure answers this errno. */
  sriovErrno?: Errno;
  /** While the PF's interface is down, its number of VFs cannot be changed: 'silent' says nothing of it. */
  wantsUp?: 'silent' | 'EINVAL';
  /** Its VFs are vGPUs: VFIO has them from it. */
  vgpu?: boolean;
  dynamicIds?: Set<string>;
  loaded?: boolean;
  /** Further options of the FUSE host's `driver` line. */
  options?: string[];
};

export type Live = Required<Pick<ModelDevice, 'address' | 'ids'>> &
  ModelDevice & { driver: string | null; override: string | null; vgpuType?: number; up?: boolean };

/**
 * What a fault rule does to a write instead of the kernel: an errno, 'silent' (success, nothing happens), or 'hang' (no
 * answer before the deadline).
 */
export type Fault = (path: string, value: string, nth: number) => Errno | 'silent' | 'hang' | null;

export class KernelModel implements NativeBinding {
  readonly kind = 'model';
  readonly devices = new Map<string, Live>();
  readonly drivers = new Map<string, ModelDriver>();
  readonly files = new Map<string, string>();
  readonly links = new Map<string, string>();
  /** Every write that reached the kernel, in order: "path=value". */
  readonly writes: string[] = [];
  /** What the system log was sent. */
  readonly logged: string[] = [];
  openBy: Holder[] = [];
  /** Nodes that somebody has for himself alone ("dev/nvme0n1"). */
  claimed: string[] = [];
  /** What netlink answers of an interface, by its index. */
  linkMessages = new Map<number, string>();
  /** What was removed and a rescan finds again. */
  readonly removed: ModelDevice[] = [];
  /**
   * VFs that the kernel has promised but that are not all there yet; a look at the PF's folder brings the next step of
   * one.
   */
  readonly coming: { vf: Live; group: number | null; looks: number }[] = [];
  fault: Fault = () => null;
  /** Writes that hang and the device whose lock each holds, until {@link release}. */
  readonly #hung = new Map<string, { address: string; path: string; value: string }>();
  #locks = new Map<number, { file: string; shared: boolean }>();
  #nextLock = 100;
  readonly #inodes = new WeakMap<Live, number>();
  #nextInode = 1000;

  constructor(devices: ModelDevice[], drivers: ModelDriver[], aliases = '') {
    for (const d of drivers) this.drivers.set(d.name, { loaded: true, ...d });
    for (const d of devices) this.add(d);
    for (const [path, text] of Object.entries(baseFiles(aliases))) this.files.set(path, text);
  }

  /** A device appears; no driver is looked for. */
  add(d: ModelDevice): void {
    this.devices.set(d.address, { ...d, driver: d.driver ?? null, override: d.override ?? null });
  }

  // Reading.

  scanDevices(): RawScan {
    const devices: RawDevice[] = [...this.devices.values()].map((d) => ({
      address: d.address,
      modalias: modalias(d),
      ids: null,
      numaNode: `${d.numa ?? -1}\n`,
      driver: d.driver,
      iommuGroup: d.group == null ? null : `${d.group}`,
      physfn: d.physfn ?? null,
      totalVfs: d.totalVfs === undefined ? null : (d.attributes?.sriov_totalvfs ?? `${d.totalVfs}\n`),
    }));
    return { devices: devices.sort((a, b) => (a.address < b.address ? -1 : 1)), failures: [] };
  }

  scanGroups(): RawGroups {
    const groups = new Map<number, string[]>();
    for (const d of this.devices.values())
      if (d.group != null) groups.set(d.group, [...(groups.get(d.group) ?? []), d.address]);
    return {
      groups: [...groups]
        .sort(([a], [b]) => a - b)
        .map(([id, devices]) => ({ id: `${id}`, type: 'DMA-FQ\n', reservedRegions: '', devices })),
      failures: [],
    };
  }

  readFile(_root: string, path: string, max: number): string {
    if (this.#isWriteOnly(path)) throw this.#error('EACCES', 'open', path);
    const text = this.#tree().files.get(path);
    if (text === undefined) throw this.#error(this.#tree().dirs.has(path) ? 'EISDIR' : 'ENOENT', 'open', path);
    if (text.length > max) throw this.#error('EFBIG', 'read', path);
    return text;
  }

  readStart(root: string, path: string, bytes: number): string {
    return this.readFile(root, path, 65536).slice(0, bytes);
  }

  #isWriteOnly(path: string): boolean {
    const [, name = '', file = ''] = /([^/]+)\/([^/]+)$/.exec(path) ?? [];
    if (['bind', 'unbind', 'new_id', 'remove_id'].includes(file)) return this.drivers.get(name)?.loaded === true;
    if (file === 'reset') return this.devices.get(name)?.attributes?.reset_method !== undefined;
    return path === 'sys/bus/pci/drivers_probe';
  }

  isFile(path: string): boolean {
    return this.#tree().files.has(path);
  }

  readLink(_root: string, path: string): string {
    const target = this.#tree().links.get(path);
    if (target === undefined) throw this.#error('ENOENT', 'readlink', path);
    return target;
  }

  readDir(_root: string, path: string): string[] {
    arrive(this, path);
    const names = this.#tree().dirs.get(path);
    if (names === undefined) throw this.#error('ENOENT', 'open', path);
    return [...names].sort();
  }

  holders(_root: string, targets: string[]): { holders: Holder[]; unreadable: number } {
    return { holders: this.openBy.filter((h) => targets.includes(h.path)), unreadable: 0 };
  }

  /** A device that was made anew has another one. */
  inode(_root: string, path: string): string {
    const d = this.devices.get(path.split('/').at(-1) ?? '');
    if (d === undefined) throw this.#error('ENOENT', 'open', path);
    const inode = this.#inodes.get(d) ?? this.#nextInode++;
    this.#inodes.set(d, inode);
    return `${inode}`;
  }

  /** All locks are in one folder; the path to that is another at each call. */
  tryLock(path: string, shared: boolean): number | null {
    const file = path.slice(path.lastIndexOf('/') + 1);
    const held = [...this.#locks.values()].filter((l) => l.file === file);
    if (held.some((l) => !shared || !l.shared)) return null;
    this.#nextLock += 1;
    this.#locks.set(this.#nextLock, { file, shared });
    return this.#nextLock;
  }

  systemLog(_socket: string, text: string): boolean {
    this.logged.push(text);
    return true;
  }

  unlock(fd: number): void {
    this.#locks.delete(fd);
  }

  loadModule(name: string): void {
    for (const d of this.drivers.values()) {
      const claims =
        name.startsWith('pci:') &&
        [...this.devices.values()].some((x) => modalias(x) === `${name}\n` && d.ids.includes(x.ids) && !d.vfio);
      if (d.module === name || claims) d.loaded = true;
    }
  }

  // Writing.

  /**
   * Kills the process after so many more writes: nothing that it asks for is answered any more, and the kernel takes
   * its locks away.
   */
  crashAfter(writes: number): Promise<void> {
    return new Promise((crashed) => {
      this.#crash = { left: writes, crashed };
    });
  }

  #crash: { left: number; crashed: () => void } | null = null;

  openWriter(): KernelWriter {
    let dead = false;
    const alive = <T>(answer: () => T): Promise<T> =>
      dead ? new Promise(() => {}) : new Promise((resolve) => resolve(answer()));
    return {
      write: (path, value) => {
        if (this.#crash?.left === 0) {
          dead = true;
          this.#locks.clear();
          this.#crash.crashed();
          this.#crash = null;
        } else if (this.#crash) this.#crash.left -= 1;
        return alive(() => this.#write(path, value));
      },
      read: (path) =>
        alive(() => {
          const address = path.split('/').at(-2) ?? '';
          if (/\/(driver_override|sriov_numvfs)$/.test(path)) this.#refuseLocked(address, 'read', path);
          return this.readFile('', path, 4096);
        }),
      restoreFile: async (path) => {
        throw this.#error('EPERM', 'ftruncate', path);
      },
      claimed: async (path) => this.claimed.includes(path),
      link: async (index) =>
        this.linkMessages.get(index) ?? Promise.reject(this.#error('ENODEV', 'RTM_GETLINK', `${index}`)),
      setUp: ({ name }, up) =>
        alive(() => {
          this.writes.push(`${name}=${up ? 'up' : 'down'}`);
          if (!setUp(this, name, up)) throw this.#error('ENODEV', 'RTM_SETLINK', name);
        }),
      close: () => {},
    };
  }

  #write(path: string, value: string): void {
    this.writes.push(`${path}=${value.trim()}`);
    const fault = this.fault(path, value, this.writes.length);
    if (fault === 'silent') return;
    const parts = path.split('/');
    const own = parts.at(-1) === 'driver_override' || parts.at(-1) === 'sriov_numvfs';
    const address = own ? (parts.at(-2) ?? '') : value.trim();
    this.#refuseLocked(address, 'write', path);
    if (fault === 'hang') {
      const helper = `model:${this.#hung.size + 1}`;
      this.#hung.set(helper, { address, path, value });
      throw Object.assign(this.#error('ETIMEDOUT', 'write', path), { helper });
    }
    if (fault !== null) throw this.#error(fault, 'write', path);
    this.#act(path, value);
  }

  /** Ends every hang: the kernel goes on with what it was at. */
  release(): void {
    const held = [...this.#hung.values()];
    this.#hung.clear();
    for (const { path, value } of held) this.#act(path, value);
  }

  processRuns = (name: string): boolean => this.#hung.has(name);

  /** A hung write has its device's lock: whatever else takes that lock hangs behind it. */
  #refuseLocked(address: string, syscall: string, path: string): void {
    const held = [...this.#hung].find(([, h]) => h.address === address);
    if (held !== undefined) throw Object.assign(this.#error('ETIMEDOUT', syscall, path), { helper: held[0] });
  }

  #act(path: string, value: string): void {
    const parts = path.split('/');
    const file = parts.at(-1);
    const name = parts.at(-2) ?? '';
    if (file === 'driver_override') this.#setOverride(name, path, value);
    else if (file === 'unbind') this.#unbind(name, path, value.trim());
    else if (file === 'bind') this.#bind(name, path, value.trim());
    else if (path === 'sys/bus/pci/drivers_probe') this.#probe(path, value.trim());
    else {
      const answer = writeAttribute(this, path, value);
      const readOnly = this.#tree().files.has(path);
      if (answer === undefined) throw this.#error(readOnly ? 'EACCES' : 'ENOENT', 'open', path);
      if (answer !== null) throw this.#error(answer, 'write', path);
    }
  }

  #setOverride(address: string, path: string, value: string): void {
    const d = this.devices.get(address);
    if (!d) throw this.#error('ENOENT', 'open', path);
    if (value.length >= 4095) throw this.#error('EINVAL', 'write', path);
    const line = value.split('\n', 1)[0] ?? '';
    d.override = line === '' ? null : line;
  }

  #unbind(driver: string, path: string, address: string): void {
    if (!this.drivers.get(driver)?.loaded) throw this.#error('ENOENT', 'open', path);
    const d = this.devices.get(address);
    if (d?.driver !== driver) throw this.#error('ENODEV', 'write', path);
    if (this.drivers.get(driver)?.sriov && vfsAreHeld(this, address)) throw this.#error('ETIMEDOUT', 'write', path);
    d.driver = null;
    delete d.vgpuType;
    delete d.up;
    if (this.drivers.get(driver)?.sriov) removeVfs(this, address);
  }

  #bind(driver: string, path: string, address: string): void {
    const r = this.drivers.get(driver);
    if (!r?.loaded) throw this.#error('ENOENT', 'open', path);
    const d = this.devices.get(address);
    if (!d || !matches(r, d)) throw this.#error('ENODEV', 'write', path);
    if (d.driver !== null) throw this.#error('EBUSY', 'write', path);
    const failure = this.#tryProbe(r, d);
    if (failure !== null) throw this.#error(failure, 'write', path);
  }

  #probe(path: string, address: string): void {
    if (!this.devices.has(address)) throw this.#error('ENODEV', 'write', path);
    this.probe(address);
  }

  /** drivers/base/dd.c __device_attach: every driver that matches, until one takes it. */
  probe(address: string): void {
    for (const r of this.drivers.values()) if (this.attach(r.name, address)) return;
  }

  /** True when the device is on a driver afterwards. */
  attach(driver: string, address: string): boolean {
    const r = this.drivers.get(driver);
    const d = this.devices.get(address);
    if (d === undefined || d.driver !== null) return true;
    if (r?.loaded && matches(r, d)) this.#tryProbe(r, d);
    return d.driver !== null;
  }

  #tryProbe(r: ModelDriver, d: Live): Errno | null {
    // A device without its IOMMU group is not all there yet.
    if (this.coming.some((c) => c.vf === d)) return 'ENODEV';
    const autoprobe = this.devices.get(d.physfn ?? '')?.autoprobe !== false;
    if (!autoprobe && d.override === null) return 'ENODEV';
    if (r.defer) {
      r.defer -= 1;
      return 'EAGAIN';
    }
    if (r.probeErrno) return r.probeErrno;
    // drivers/vfio/pci/vfio_pci_core.c: bridges, PFs with VFs; drivers/vfio/group.c: no IOMMU group.
    if (r.vfio && (d.class?.startsWith('06') || d.group == null)) return 'EINVAL';
    if (r.vfio && vfsOf(this, d.address).length > 0) return 'EBUSY';
    d.driver = r.name;
    return null;
  }

  // The tree as sysfs shows it, made from the state on demand.

  #tree(): { files: Map<string, string>; links: Map<string, string>; dirs: Map<string, Set<string>> } {
    const files = new Map(this.files);
    const links = new Map(this.links);
    const dirs = new Map<string, Set<string>>();
    const extraDirs: string[] = ['sys/bus/pci/devices', 'sys/bus/pci/drivers'];
    for (const d of this.devices.values()) {
      const at = `sys/bus/pci/devices/${d.address}`;
      links.set(at, `../../../devices/${this.#home(d)}`);
      files.set(`${at}/modalias`, modalias(d));
      files.set(`${at}/driver_override`, `${d.override ?? '(null)'}\n`);
      for (const [name, text] of Object.entries(d.attributes ?? {})) files.set(`${at}/${name}`, text);
      if (d.totalVfs !== undefined) {
        const vfs = vfsOf(this, d.address);
        files.set(`${at}/sriov_totalvfs`, `${d.totalVfs}\n`);
        files.set(`${at}/sriov_numvfs`, `${vfs.length}\n`);
        files.set(`${at}/sriov_drivers_autoprobe`, d.autoprobe === false ? '0\n' : '1\n');
        if (d.vfIds !== undefined) {
          files.set(`${at}/sriov_offset`, `${vfOffset(d)}\n`);
          files.set(`${at}/sriov_stride`, `${vfStride(d)}\n`);
          files.set(`${at}/sriov_vf_device`, `${d.vfIds.split(':')[1]}\n`);
        }
        for (const [i, vf] of vfs.entries())
          if (this.devices.has(vf.address)) links.set(`${at}/virtfn${i}`, `../${vf.address}`);
        for (const [name, text] of Object.entries(d.attributes ?? {})) files.set(`${at}/${name}`, text);
      }
      for (const [name, text] of vgpuFiles(this, d)) files.set(`${at}/${name}`, text);
      if (d.physfn !== undefined) links.set(`${at}/physfn`, `../${d.physfn}`);
      if (d.driver !== null) links.set(`${at}/driver`, `../../../bus/pci/drivers/${d.driver}`);
      if (d.group != null) {
        links.set(`${at}/iommu_group`, `../../../kernel/iommu_groups/${d.group}`);
        links.set(`sys/kernel/iommu_groups/${d.group}/devices/${d.address}`, `../../../../devices/${d.address}`);
        files.set(`sys/kernel/iommu_groups/${d.group}/type`, 'DMA-FQ\n');
      }
      if (isVgpu(this, d) || (d.driver !== null && this.drivers.get(d.driver)?.vfio))
        extraDirs.push(`${at}/vfio-dev/vfio0`);
    }
    const net = netTree(this);
    for (const [path, text] of net.files) files.set(path, text);
    for (const [path, target] of net.links) links.set(path, target);
    for (const r of this.drivers.values()) {
      if (!r.loaded) continue;
      extraDirs.push(`sys/bus/pci/drivers/${r.name}`);
      if (r.module) links.set(`sys/module/${r.module}/drivers/pci:${r.name}`, `../../../bus/pci/drivers/${r.name}`);
    }
    for (const path of [...files.keys(), ...links.keys(), ...extraDirs.map((p) => `${p}/.`)]) {
      const parts = path.split('/');
      for (let i = 1; i < parts.length; i += 1) {
        const dir = parts.slice(0, i).join('/');
        const names = dirs.get(dir) ?? new Set<string>();
        if (parts[i] !== '.') names.add(parts[i] ?? '');
        dirs.set(dir, names);
      }
    }
    return { files, links, dirs };
  }

  /** Where the kernel puts it: below its bridge, or a root bus of its own. */
  #home(d: Live): string {
    const bridge = this.devices.get(d.parent ?? '');
    const above = bridge === undefined ? `pci${d.address.slice(0, d.address.indexOf(':') + 3)}` : this.#home(bridge);
    return `${above}/${d.address}`;
  }

  #error(code: Errno, syscall: string, path: string): Error {
    return Object.assign(new Error(`${code}: ${syscall} '${path}'`), {
      code,
      errno: -constants.errno[code],
      syscall,
      path,
    });
  }
}

const hex8 = (h: string): string => h.toUpperCase().padStart(8, '0');

function modalias(d: ModelDevice): string {
  const [v = '', p = ''] = d.ids.split(':');
  const [sv = '0000', sp = '0000'] = (d.subsystem ?? '0000:0000').split(':');
  const c = (d.class ?? '020000').toUpperCase();
  return `pci:v${hex8(v)}d${hex8(p)}sv${hex8(sv)}sd${hex8(sp)}bc${c.slice(0, 2)}sc${c.slice(2, 4)}i${c.slice(4)}\n`;
}

/**
 * drivers/pci/pci-driver.c pci_match_device: an override excludes every other driver, and includes its own whatever the
 * ids say.
 */
function matches(r: ModelDriver, d: Live): boolean {
  if (d.override !== null) return d.override === r.name;
  return r.dynamicIds?.has(d.ids) || (!r.vfio && r.ids.includes(d.ids));
}
