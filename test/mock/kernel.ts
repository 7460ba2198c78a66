/**
 * The kernel's PCI core in memory, behind NativeBinding: what sysfs answers and how it reacts to writes, errno by errno, as
 * drivers/base/{bus,dd,driver}.c and drivers/pci/pci-driver.c do. The same scenarios run against it, and in the VM against the kernel itself.
 */
import { constants } from 'node:os';
import type { Holder, KernelWriter, NativeBinding, RawDevice, RawGroups, RawScan } from '../../src/addon/native.ts';

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
  /** What this PF's VFs are: ids, addresses from its own by the capability's offset and stride, groups from `group` on (null: none). */
  sriov?: { ids: string; offset: number; stride: number; group: number | null; late?: boolean; makes?: number };
  /** `sriov_drivers_autoprobe` of a PF. */
  autoprobe?: boolean;
  driver?: string | null;
  override?: string | null;
  /** Further attributes: boot_vga, reset_method … */
  attributes?: Record<string, string>;
};

export type ModelDriver = {
  name: string;
  module?: string;
  /** "8086:10ca"; a driver of VFIO's matches by override only. */
  ids: string[];
  vfio?: boolean;
  /** probe() answers this errno; the probe file says nothing of it, as in the kernel. */
  probeErrno?: keyof typeof constants.errno;
  loaded?: boolean;
  /** It has sriov_configure, which answers this errno when it is given one. */
  sriov?: boolean;
  sriovErrno?: keyof typeof constants.errno;
};

type Live = Required<Pick<ModelDevice, 'address' | 'ids'>> &
  ModelDevice & { driver: string | null; override: string | null };

/** What a fault rule does to a write instead of the kernel: an errno, 'silent' (success, nothing happens), or 'hang' (no answer before the deadline). */
export type Fault = (
  path: string,
  value: string,
  nth: number,
) => keyof typeof constants.errno | 'silent' | 'hang' | null;

export class KernelModel implements NativeBinding {
  readonly kind = 'model';
  readonly devices = new Map<string, Live>();
  readonly drivers = new Map<string, ModelDriver>();
  readonly files = new Map<string, string>();
  readonly links = new Map<string, string>();
  /** Every write that reached the kernel, in order: "path=value". */
  readonly writes: string[] = [];
  openBy: Holder[] = [];
  fault: Fault = () => null;
  #locks = new Map<number, string>();
  #nextLock = 100;
  /** VFs that the kernel has promised but that are not there yet; a look at the PF's folder brings the next step of one. */
  readonly #coming: { vf: Live; group: number | null; looks: number }[] = [];

  constructor(devices: ModelDevice[], drivers: ModelDriver[], aliases = '') {
    for (const d of drivers) this.drivers.set(d.name, { loaded: true, ...d });
    for (const d of devices)
      this.devices.set(d.address, { ...d, driver: d.driver ?? null, override: d.override ?? null });
    this.files.set('proc/sys/kernel/osrelease', '6.12.0-model\n');
    this.files.set('proc/cmdline', 'intel_iommu=on\n');
    this.files.set('lib/modules/6.12.0-model/modules.alias', `alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n${aliases}`);
    this.files.set('proc/self/mountinfo', '');
    this.files.set('proc/swaps', 'Filename\tType\tSize\tUsed\tPriority\n');
    this.files.set(
      'proc/net/route',
      'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n',
    );
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
    const text = this.#tree(path).files.get(path);
    if (text === undefined) throw this.#error(this.#tree(path).dirs.has(path) ? 'EISDIR' : 'ENOENT', 'open', path);
    if (text.length > max) throw this.#error('EFBIG', 'read', path);
    return text;
  }

  readLink(_root: string, path: string): string {
    const target = this.#tree(path).links.get(path);
    if (target === undefined) throw this.#error('ENOENT', 'readlink', path);
    return target;
  }

  readDir(_root: string, path: string): string[] {
    this.#arrive(path);
    const names = this.#tree(path).dirs.get(path);
    if (names === undefined) throw this.#error('ENOENT', 'open', path);
    return [...names].sort();
  }

  holders(_root: string, targets: string[]): { holders: Holder[]; unreadable: number } {
    return { holders: this.openBy.filter((h) => targets.includes(h.path)), unreadable: 0 };
  }

  tryLock(file: string): number | null {
    if ([...this.#locks.values()].includes(file)) return null;
    this.#nextLock += 1;
    this.#locks.set(this.#nextLock, file);
    return this.#nextLock;
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

  /** Kills the process after so many more writes: nothing that it asks for is answered any more, and the kernel takes its locks away. */
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
      read: (path) => alive(() => this.readFile('', path, 4096)),
      restoreFile: async (path) => {
        throw this.#error('EPERM', 'ftruncate', path);
      },
      close: () => {},
    };
  }

  #write(path: string, value: string): void {
    this.writes.push(`${path}=${value.trim()}`);
    const fault = this.fault(path, value, this.writes.length);
    if (fault === 'silent') return;
    if (fault === 'hang') throw this.#error('ETIMEDOUT', 'write', path);
    if (fault !== null) throw this.#error(fault, 'write', path);
    const parts = path.split('/');
    const file = parts.at(-1);
    const name = parts.at(-2) ?? '';
    if (file === 'driver_override') this.#setOverride(name, path, value);
    else if (file === 'unbind') this.#unbind(name, path, value.trim());
    else if (file === 'bind') this.#bind(name, path, value.trim());
    else if (path === 'sys/bus/pci/drivers_probe') this.#probe(path, value.trim());
    else if (file === 'sriov_numvfs') this.#setNumvfs(name, path, value.trim());
    else if (file === 'sriov_drivers_autoprobe') this.#setAutoprobe(name, path, value.trim());
    else throw this.#error('EACCES', 'open', path);
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
    // As igb, ixgbe and mlx5_core do in remove().
    this.#dropVfs(d, path);
    d.driver = null;
  }

  #bind(driver: string, path: string, address: string): void {
    const r = this.drivers.get(driver);
    if (!r?.loaded) throw this.#error('ENOENT', 'open', path);
    const d = this.devices.get(address);
    if (!d || !matches(r, d)) throw this.#error('ENODEV', 'write', path);
    if (d.driver !== null) throw this.#error('EBUSY', 'write', path);
    if (r.probeErrno) throw this.#error(r.probeErrno, 'write', path);
    d.driver = driver;
  }

  #probe(path: string, address: string): void {
    const d = this.devices.get(address);
    if (!d) throw this.#error('ENODEV', 'write', path);
    if (d.driver !== null) return;
    if (d.physfn !== undefined && d.override === null && this.devices.get(d.physfn)?.autoprobe === false) return;
    // A device without its IOMMU group is not all there yet.
    if (this.#coming.some((c) => c.vf === d)) return;
    const r = [...this.drivers.values()].find((x) => x.loaded && matches(x, d));
    // vfio_pci_core_register_device: EBUSY for a PF with VFs.
    if (r && !r.probeErrno && !(r.vfio && this.vfsOf(address).length > 0)) d.driver = r.name;
  }

  // SR-IOV: drivers/pci/iov.c sriov_numvfs_store and pci_iov_add_virtfn.

  /** The VFs of a PF, those that are still to come too, in order of their number. */
  vfsOf(pf: string): Live[] {
    const all = new Set([...this.devices.values(), ...this.#coming.map((c) => c.vf)]);
    return [...all].filter((d) => d.physfn === pf).sort((a, b) => (a.address < b.address ? -1 : 1));
  }

  #setNumvfs(address: string, path: string, text: string): void {
    const pf = this.devices.get(address);
    if (pf?.totalVfs === undefined) throw this.#error('ENOENT', 'open', path);
    if (!/^\d{1,5}$/.test(text) || Number(text) > 65535) throw this.#error('EINVAL', 'write', path);
    const wanted = Number(text);
    const have = this.vfsOf(address).length;
    if (wanted > pf.totalVfs) throw this.#error('ERANGE', 'write', path);
    if (wanted === have) return;
    const driver = this.drivers.get(pf.driver ?? '');
    if (!driver?.sriov) throw this.#error('ENOENT', 'write', path);
    if (wanted > 0 && have > 0) throw this.#error('EBUSY', 'write', path);
    if (driver.sriovErrno) throw this.#error(driver.sriovErrno, 'write', path);
    if (wanted === 0) this.#dropVfs(pf, path);
    else this.#makeVfs(pf, Math.min(wanted, pf.sriov?.makes ?? wanted));
  }

  #setAutoprobe(address: string, path: string, text: string): void {
    const pf = this.devices.get(address);
    if (pf?.totalVfs === undefined) throw this.#error('ENOENT', 'open', path);
    if (!/^[01yn]$/i.test(text)) throw this.#error('EINVAL', 'write', path);
    pf.autoprobe = /[1y]/i.test(text);
  }

  /** A VF that user space has open is never let go: the write does not come back. */
  #dropVfs(pf: Live, path: string): void {
    const vfs = this.vfsOf(pf.address);
    const held = vfs.some((vf) => this.openBy.some((h) => h.path === `/dev/vfio/${vf.group}`));
    if (held) throw this.#error('ETIMEDOUT', 'write', path);
    for (const vf of vfs) this.devices.delete(vf.address);
    this.#coming.splice(0, this.#coming.length, ...this.#coming.filter((c) => c.vf.physfn !== pf.address));
  }

  #makeVfs(pf: Live, count: number): void {
    const { ids = '8086:10ca', offset = 128, stride = 2, group = null, late = false } = pf.sriov ?? {};
    const [domain = '', bus = '', slot = '', fn = ''] = pf.address.split(/[:.]/);
    const rid = Number.parseInt(bus, 16) * 256 + Number.parseInt(slot, 16) * 8 + Number(fn);
    const hex = (n: number): string => n.toString(16).padStart(2, '0');
    for (let n = 0; n < count; n += 1) {
      const at = rid + offset + stride * n;
      const address = `${domain}:${hex(at >> 8)}:${hex((at >> 3) & 31)}.${at & 7}`;
      const vf: Live = {
        address,
        ids,
        group: null,
        numa: pf.numa ?? -1,
        physfn: pf.address,
        driver: null,
        override: null,
      };
      this.#coming.push({ vf, group: group === null ? null : group + n, looks: 0 });
    }
    while (!late && this.#coming.length > 0) this.#arrive(`sys/bus/pci/devices/${pf.address}`);
  }

  /** One look nearer to the first VF that is to come: its device is there at once, its group and its driver after some more. */
  #arrive(path: string): void {
    const [next] = this.#coming;
    if (next === undefined || path !== `sys/bus/pci/devices/${next.vf.physfn}`) return;
    const { vf, group } = next;
    if (!this.devices.has(vf.address)) this.devices.set(vf.address, vf);
    next.looks += 1;
    if (next.looks > 4) {
      vf.group = group;
      this.#coming.shift();
      if (this.devices.get(vf.physfn ?? '')?.autoprobe !== false) this.#probe('', vf.address);
    }
  }

  // The tree as sysfs shows it, made from the state on demand.

  #tree(path: string): { files: Map<string, string>; links: Map<string, string>; dirs: Map<string, Set<string>> } {
    const files = new Map(this.files);
    const links = new Map(this.links);
    const dirs = new Map<string, Set<string>>();
    const extraDirs: string[] = ['sys/bus/pci/devices', 'sys/bus/pci/drivers'];
    // Below one device there is nothing of the others: most reads are there.
    const one = this.devices.get(/^sys\/bus\/pci\/devices\/([^/]+)/.exec(path)?.[1] ?? '');
    for (const d of one ? [one] : this.devices.values()) {
      const at = `sys/bus/pci/devices/${d.address}`;
      files.set(`${at}/modalias`, modalias(d));
      files.set(`${at}/driver_override`, `${d.override ?? '(null)'}\n`);
      for (const [name, text] of Object.entries(d.attributes ?? {})) files.set(`${at}/${name}`, text);
      if (d.totalVfs !== undefined) {
        const vfs = this.vfsOf(d.address);
        files.set(`${at}/sriov_totalvfs`, `${d.totalVfs}\n`);
        files.set(`${at}/sriov_numvfs`, `${vfs.length}\n`);
        files.set(`${at}/sriov_drivers_autoprobe`, d.autoprobe === false ? '0\n' : '1\n');
        if (d.sriov) {
          files.set(`${at}/sriov_offset`, `${d.sriov.offset}\n`);
          files.set(`${at}/sriov_stride`, `${d.sriov.stride}\n`);
          files.set(`${at}/sriov_vf_device`, `${d.sriov.ids.split(':')[1]}\n`);
        }
        for (const [n, vf] of vfs.entries())
          if (this.devices.has(vf.address)) links.set(`${at}/virtfn${n}`, `../${vf.address}`);
        for (const [name, text] of Object.entries(d.attributes ?? {})) files.set(`${at}/${name}`, text);
      }
      if (d.physfn !== undefined) links.set(`${at}/physfn`, `../${d.physfn}`);
      if (d.driver !== null) links.set(`${at}/driver`, `../../../bus/pci/drivers/${d.driver}`);
      if (d.group != null) {
        links.set(`${at}/iommu_group`, `../../../kernel/iommu_groups/${d.group}`);
        links.set(`sys/kernel/iommu_groups/${d.group}/devices/${d.address}`, `../../../../devices/${d.address}`);
        files.set(`sys/kernel/iommu_groups/${d.group}/type`, 'DMA-FQ\n');
      }
      if (d.driver !== null && this.drivers.get(d.driver)?.vfio) extraDirs.push(`${at}/vfio-dev/vfio0`);
    }
    for (const r of one ? [] : this.drivers.values()) {
      if (!r.loaded) continue;
      extraDirs.push(`sys/bus/pci/drivers/${r.name}`);
      if (r.module) links.set(`sys/module/${r.module}/drivers/pci:${r.name}`, `../../../bus/pci/drivers/${r.name}`);
    }
    for (const each of [...files.keys(), ...links.keys(), ...extraDirs.map((p) => `${p}/.`)]) {
      const parts = each.split('/');
      for (let i = 1; i < parts.length; i += 1) {
        const dir = parts.slice(0, i).join('/');
        const names = dirs.get(dir) ?? new Set<string>();
        if (parts[i] !== '.') names.add(parts[i] ?? '');
        dirs.set(dir, names);
      }
    }
    return { files, links, dirs };
  }

  #error(code: keyof typeof constants.errno, syscall: string, path: string): Error {
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

/** drivers/pci/pci-driver.c pci_match_device: an override excludes every other driver, and includes its own whatever the ids say. */
function matches(r: ModelDriver, d: Live): boolean {
  if (d.override !== null) return d.override === r.name;
  return !r.vfio && r.ids.includes(d.ids);
}
