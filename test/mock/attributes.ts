/**
 * What the kernel in memory does on writes other than bind, unbind, probe and driver_override: SR-IOV
 * (drivers/pci/iov.c), reset, remove and rescan (drivers/pci/pci-sysfs.c), dynamic ids (drivers/pci/pci-driver.c), the
 * type of an IOMMU group (drivers/iommu/iommu.c).
 */
import type { Errno, KernelModel, Live } from './kernel.ts';
import { writeVgpuType } from './vgpu.ts';

const DEVICES = 'sys/bus/pci/devices';

/** kstrtou16 and kstrtoul with base 0, one newline allowed; null when it is no number. */
function parseUnsigned(value: string): number | null {
  const text = value.replace(/\n$/, '');
  return /^(?:0x[\da-f]+|\d+)$/i.test(text) ? Number(text) : null;
}

/** null: done. undefined: no such file. */
export function writeAttribute(k: KernelModel, path: string, value: string): Errno | null | undefined {
  const parts = path.split('/');
  const name = parts.at(-1) ?? '';
  const holder = parts.at(-2) ?? '';
  if (path === 'sys/bus/pci/rescan') return onOne(value, () => rescan(k));
  if (path.startsWith('sys/bus/pci/drivers/')) return writeDriverFile(k, holder, name, value);
  if (name === 'type' && holder === 'iommu_group') return writeGroupType(k, parts.at(-3) ?? '', value);
  const vf = path.endsWith('/nvidia/current_vgpu_type') ? k.devices.get(parts.at(-3) ?? '') : undefined;
  if (vf !== undefined) return writeVgpuType(k, vf, value);
  const d = path.startsWith(`${DEVICES}/`) ? k.devices.get(holder) : undefined;
  if (d === undefined) return undefined;
  switch (name) {
    case 'sriov_numvfs':
      return d.totalVfs === undefined ? undefined : writeNumVfs(k, d, value);
    case 'sriov_drivers_autoprobe':
      if (d.totalVfs === undefined) return undefined;
      if (!/^[01yYnN]/.test(value)) return 'EINVAL';
      d.autoprobe = /^[1yY]/.test(value);
      return null;
    case 'reset':
      if (d.attributes?.reset_method === undefined) return undefined;
      if (parseUnsigned(value) !== 1) return 'EINVAL';
      return d.attributes.reset_method === '' ? 'ENOTTY' : null;
    case 'reset_method':
      return writeResetMethod(d, value);
    case 'remove':
      return onOne(value, () => removeDevice(k, holder));
    case 'rescan':
      return onOne(value, () => rescan(k));
    default:
      return undefined;
  }
}

function onOne(value: string, act: () => void): Errno | null {
  const n = parseUnsigned(value);
  if (n === null) return 'EINVAL';
  if (n > 0) act();
  return null;
}

/** The VFs of a PF, those that are still to come too, in order of their number. */
export function vfsOf(k: KernelModel, pf: string): Live[] {
  const all = new Set([...k.devices.values(), ...k.coming.map((c) => c.vf)]);
  return [...all].filter((d) => d.physfn === pf).sort((a, b) => (a.address < b.address ? -1 : 1));
}

/** A VF that user space has open is never let go: what would take it away does not come back. */
export const vfsAreHeld = (k: KernelModel, pf: string): boolean =>
  vfsOf(k, pf).some((vf) => k.openBy.some((h) => h.path === `/dev/vfio/${vf.group}`));

function writeNumVfs(k: KernelModel, d: Live, value: string): Errno | null {
  const n = parseUnsigned(value);
  if (n === null || n > 0xffff) return 'EINVAL';
  if (n > (d.totalVfs ?? 0)) return 'ERANGE';
  const now = vfsOf(k, d.address);
  if (n === now.length) return null;
  const driver = k.drivers.get(d.driver ?? '');
  if (!driver?.sriov) return 'ENOENT';
  if (driver.wantsUp !== undefined && d.up !== true) return driver.wantsUp === 'silent' ? null : driver.wantsUp;
  if (n > 0 && now.length > 0) return 'EBUSY';
  if (driver.sriovErrno !== undefined) return driver.sriovErrno;
  if (n === 0 && vfsAreHeld(k, d.address)) return 'ETIMEDOUT';
  removeVfs(k, d.address);
  for (let i = 0; i < Math.min(n, d.vfsMade ?? n); i += 1) addVf(k, d, i);
  while (!d.vfsLate && k.coming.length > 0) arrive(k, `${DEVICES}/${d.address}`);
  return null;
}

/** The routing ids of VFs follow their PF's, as on the 82576. */
export const vfOffset = (pf: Live): number => pf.vfOffset ?? 128;
export const vfStride = (pf: Live): number => pf.vfStride ?? 2;

function addVf(k: KernelModel, pf: Live, index: number): void {
  const [domain = '', bus = '', slot = '', func = ''] = pf.address.split(/[:.]/);
  const own = Number.parseInt(bus, 16) * 256 + Number.parseInt(slot, 16) * 8 + Number(func);
  const id = own + vfOffset(pf) + vfStride(pf) * index;
  const hex = (n: number): string => n.toString(16).padStart(2, '0');
  const address = `${domain}:${hex(id >> 8)}:${hex((id >> 3) & 31)}.${id & 7}`;
  const vf: Live = {
    address,
    ids: pf.vfIds ?? pf.ids,
    ...(pf.class === undefined ? {} : { class: pf.class }),
    group: null,
    ...(pf.numa === undefined ? {} : { numa: pf.numa }),
    physfn: pf.address,
    attributes: { reset_method: 'flr\n' },
    driver: null,
    override: null,
  };
  k.coming.push({ vf, group: pf.vfGroup === undefined ? null : pf.vfGroup + index, looks: 0 });
}

/** Looks at the PF's folder until a VF's group and its driver are there; its device is at once. */
const LOOKS = 4;

/** A look at a folder brings the first VF of that PF that is to come one step nearer. */
export function arrive(k: KernelModel, path: string): void {
  const [next] = k.coming;
  if (next === undefined || path !== `${DEVICES}/${next.vf.physfn}`) return;
  const { vf, group } = next;
  if (!k.devices.has(vf.address)) k.devices.set(vf.address, vf);
  next.looks += 1;
  if (next.looks <= LOOKS) return;
  vf.group = group;
  k.coming.shift();
  k.probe(vf.address);
}

export function removeVfs(k: KernelModel, pf: string): void {
  for (const vf of vfsOf(k, pf)) k.devices.delete(vf.address);
  k.coming.splice(0, k.coming.length, ...k.coming.filter((c) => c.vf.physfn !== pf));
}

function removeDevice(k: KernelModel, address: string): void {
  for (const d of [...k.devices.values()]) if (d.parent === address) removeDevice(k, d.address);
  const d = k.devices.get(address);
  if (d === undefined) return;
  removeVfs(k, address);
  k.devices.delete(address);
  if (d.physfn === undefined) k.removed.push(d);
}

/** What is found again is a new device: no override, and whatever driver claims it. */
function rescan(k: KernelModel): void {
  for (const d of k.removed.splice(0).sort((a, b) => (a.address < b.address ? -1 : 1))) {
    k.add({ ...d, driver: null, override: null });
    k.probe(d.address);
  }
}

function writeResetMethod(d: Live, value: string): Errno | null | undefined {
  const now = d.attributes?.reset_method;
  if (now === undefined) return undefined;
  const supported = (d.supportedResets ?? now).trim().split(' ');
  const words = value.trim().split(' ').filter(Boolean);
  const set = (text: string): null => {
    d.supportedResets ??= now;
    d.attributes = { ...d.attributes, reset_method: text };
    return null;
  };
  if (value.trim() === 'default') return set(`${supported.join(' ')}\n`);
  if (words.some((w) => !supported.includes(w))) return 'EINVAL';
  return set(words.length === 0 ? '' : `${words.join(' ')}\n`);
}

function writeGroupType(k: KernelModel, address: string, value: string): Errno | null | undefined {
  const group = k.devices.get(address)?.group;
  if (group == null) return undefined;
  if (!['DMA', 'DMA-FQ', 'identity', 'auto'].includes(value.trim())) return 'EINVAL';
  const held = [...k.devices.values()].some(
    (d) => d.group === group && d.driver !== null && !k.drivers.get(d.driver)?.vfio && d.driver !== 'pcieport',
  );
  return held ? 'EPERM' : null;
}

function writeDriverFile(k: KernelModel, name: string, file: string, value: string): Errno | null | undefined {
  const r = k.drivers.get(name);
  if (r === undefined || !r.loaded || (file !== 'new_id' && file !== 'remove_id')) return undefined;
  const ids = /^\s*([\da-f]+)\s+([\da-f]+)/i.exec(value);
  if (ids === null) return 'EINVAL';
  const id = `${ids[1]?.toLowerCase().padStart(4, '0')}:${ids[2]?.toLowerCase().padStart(4, '0')}`;
  r.dynamicIds ??= new Set();
  if (file === 'remove_id') return r.dynamicIds.delete(id) ? null : 'ENODEV';
  if (r.dynamicIds.has(id) || (!r.vfio && r.ids.includes(id))) return 'EEXIST';
  r.dynamicIds.add(id);
  for (const d of k.devices.values()) if (d.driver === null) k.attach(name, d.address);
  return null;
}
