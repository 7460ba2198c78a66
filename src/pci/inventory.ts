/**
 * The PCI devices of a host as the kernel shows them now. Pure reading: nothing here takes a device's lock, so it
 * answers while an unbind hangs.
 */
import type { RawDevice, RawFailure } from '../addon/native.ts';
import { messageOf } from '../errors.ts';
import { DRIVER_NAME, type Host } from '../host/host.ts';
import { quote } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import { type Address, isAddress } from './address.ts';

export type DevType = 'type-PCI' | 'type-PF' | 'type-VF' | 'vdpa';

/**
 * One PCI function; the keys are those of contract 4. Ids are 4 lower-case hex digits (class 6); what is not known is
 * null.
 */
export type PciDevice = {
  address: Address;
  vendor_id: string | null;
  product_id: string | null;
  class: string | null;
  subsystem_vendor_id: string | null;
  subsystem_device_id: string | null;
  driver: string | null;
  iommu_group: number | null;
  /** -1 (the kernel's "no node") is null. */
  numa_node: number | null;
  dev_type: DevType;
  /** Of a VF: its PF. */
  parent_addr: Address | null;
  /** Of a PF: how many VFs it can have and has. */
  sriov_totalvfs: number | null;
  sriov_numvfs: number | null;
  /** True for what is no endpoint: VFIO takes none. */
  bridge: boolean;
  /** True when an attribute of it did not answer before its deadline: something holds the device's lock. */
  stuck: boolean;
};

export type Inventory = {
  devices: PciDevice[];
  byAddress: ReadonlyMap<Address, PciDevice>;
  /** What could not be read or made no sense. */
  warnings: Warning[];
  /**
   * What could not be read: where there is any, devices may be missing from the list, and what is null may only be
   * unknown.
   */
  failures: readonly RawFailure[];
  /** The attributes in which the kernel writes something else: they count as not known. */
  malformed: readonly Malformed[];
};

/** An attribute of a device and what stands in it. */
export type Malformed = { address: Address; attribute: string; value: string };

export const malformedText = ({ address, attribute, value }: Malformed): string =>
  `${address}: ignored ${attribute} ${quote(value)}: not what the kernel writes there`;

/**
 * Why what the inventory says of an address, that it is not there included, is not known: a line; null when it is.
 * EAGAIN, EIO and time-outs never mean absent.
 */
export function unreadOf({ failures }: Inventory, address: Address): string | null {
  const failure = failures.find(({ path }) => {
    const parts = path.split('/');
    return !path.includes(':') || (parts.includes(address) && parts.at(-1) !== 'numa_node');
  });
  return failure === undefined ? null : `${address} is not known: ${failureText(failure)}`;
}

/** Scans the host's PCI devices, in order of address. An absent sys/bus/pci is an empty inventory. */
export function scanInventory(host: Host): Inventory {
  const raw = host.native.scanDevices(host.root);
  const warnings = raw.failures.map(failureWarning);
  const malformed: Malformed[] = [];
  host.unread.push(...raw.failures);
  const vdpa = host.list(host.module('vdpa')) !== null;
  const devices: PciDevice[] = [];
  const byAddress = new Map<Address, PciDevice>();
  // Thousands of VFs share one modalias.
  const idsOf = new Map<string, Ids>();
  for (const r of raw.devices) {
    const { address } = r;
    if (!isAddress(address)) {
      warnings.push(warning('malformed', `${host.devices}: ignored the entry ${quote(address)}: it is no PCI address`));
      continue;
    }
    const device = readDevice(host, r, idsOf, warnings, malformed);
    if (vdpa && device.dev_type === 'type-VF' && hasVdpa(host, address)) device.dev_type = 'vdpa';
    devices.push(device);
    byAddress.set(address, device);
  }
  countVfs(devices, byAddress);
  warnings.push(...malformed.map((m) => warning('malformed', malformedText(m), m.address)));
  return { devices, byAddress, warnings, failures: raw.failures, malformed };
}

export const failureText = (f: RawFailure): string => `Failed to read ${f.path}: ${f.code} (${f.syscall})`;

/** What a scan could not read, with the device whose path it is. */
export const failureWarning = (f: RawFailure): Warning =>
  warning('not-measured', failureText(f), f.path.split('/').findLast(isAddress) ?? null);

function readDevice(
  host: Host,
  r: RawDevice,
  idsOf: Map<string, Ids>,
  warnings: Warning[],
  malformed: Malformed[],
): PciDevice {
  const { address } = r;
  const bad = (what: string, text: string): null => {
    malformed.push({ address, attribute: what, value: text });
    return null;
  };
  const number = (what: string, text: string | null): number | null => {
    if (text === null) return null;
    const t = text.trim();
    return /^-?\d{1,7}$/.test(t) ? Number(t) : bad(what, text);
  };
  const readId = (name: string): string | null => {
    try {
      return host.read(host.device(address, name));
    } catch (e) {
      warnings.push(warning('not-measured', `Failed to read ${host.device(address, name)}: ${messageOf(e)}`, address));
      return null;
    }
  };
  const ids = modaliasIds(r.modalias, idsOf) ?? fileIds(r, bad, readId);
  const numa = number('numa_node', r.numaNode);
  const physfn = r.physfn === null ? null : isAddress(r.physfn) ? r.physfn : bad('physfn', r.physfn);
  const totalVfs = number('sriov_totalvfs', r.totalVfs);
  const isPf = physfn === null && totalVfs !== null && totalVfs > 0;
  return {
    address,
    ...ids,
    driver: r.driver === null ? null : DRIVER_NAME.test(r.driver) ? r.driver : bad('driver', r.driver),
    iommu_group:
      r.iommuGroup === null
        ? null
        : /^\d{1,7}$/.test(r.iommuGroup)
          ? Number(r.iommuGroup)
          : bad('iommu_group', r.iommuGroup),
    numa_node: numa === null || numa < 0 ? null : numa,
    dev_type: physfn !== null ? 'type-VF' : isPf ? 'type-PF' : 'type-PCI',
    parent_addr: physfn,
    sriov_totalvfs: isPf ? totalVfs : null,
    sriov_numvfs: isPf ? 0 : null,
    bridge: ids.class?.startsWith('06') === true && !isEndpoint(host, address),
    stuck: false,
  };
}

type Ids = Pick<PciDevice, 'vendor_id' | 'product_id' | 'class' | 'subsystem_vendor_id' | 'subsystem_device_id'>;

/** drivers/pci/pci-sysfs.c modalias_show: "pci:v%08Xd%08Xsv%08Xsd%08Xbc%02Xsc%02Xi%02X". */
const MODALIAS =
  /^pci:v0{4}([0-9A-F]{4})d0{4}([0-9A-F]{4})sv0{4}([0-9A-F]{4})sd0{4}([0-9A-F]{4})bc([0-9A-F]{2})sc([0-9A-F]{2})i([0-9A-F]{2})\n?$/;

/** The files that say the same one by one. */
const ID_FILES = ['vendor', 'device', 'class', 'subsystem_vendor', 'subsystem_device'];

function modaliasIds(modalias: string | null, known: Map<string, Ids>): Ids | null {
  if (modalias === null) return null;
  const before = known.get(modalias);
  if (before) return before;
  const m = MODALIAS.exec(modalias);
  if (!m) return null;
  const [, v, d, sv, sd, bc, sc, i] = m.map((t) => t.toLowerCase());
  const ids = {
    vendor_id: v ?? null,
    product_id: d ?? null,
    class: `${bc}${sc}${i}`,
    subsystem_vendor_id: sv ?? null,
    subsystem_device_id: sd ?? null,
  };
  known.set(modalias, ids);
  return ids;
}

function fileIds(
  r: RawDevice,
  bad: (what: string, text: string) => null,
  read: (attribute: string) => string | null,
): Ids {
  // An empty modalias was seen by the scan, which then read the files.
  if (r.modalias) bad('modalias', r.modalias);
  const hex = (what: string, text: string | null | undefined, digits: number): string | null => {
    if (text === null || text === undefined) return null;
    const h = /^0x([0-9a-f]+)\n?$/i.exec(text)?.[1];
    return h !== undefined && h.length === digits ? h.toLowerCase() : bad(what, text);
  };
  const [vendor, device, cls, subVendor, subDevice] = r.ids ?? ID_FILES.map(read);
  return {
    vendor_id: hex('vendor', vendor, 4),
    product_id: hex('device', device, 4),
    class: hex('class', cls, 6),
    subsystem_vendor_id: hex('subsystem_vendor', subVendor, 4),
    subsystem_device_id: hex('subsystem_device', subDevice, 4),
  };
}

/**
 * Counted from the VFs' own links: reading sriov_numvfs takes the PF's lock (drivers/pci/iov.c sriov_numvfs_show) and
 * can hang.
 */
function countVfs(devices: PciDevice[], byAddress: ReadonlyMap<Address, PciDevice>): void {
  for (const vf of devices) {
    const pf = vf.parent_addr === null ? undefined : byAddress.get(vf.parent_addr);
    if (pf?.sriov_numvfs != null) pf.sriov_numvfs += 1;
  }
}

/** A vDPA parent has a `vdpaN` child (drivers/vdpa/vdpa.c); Nova calls such a VF's type "vdpa". */
function hasVdpa(host: Host, address: Address): boolean {
  return (host.list(host.device(address)) ?? []).some((n) => /^vdpa\d+$/.test(n));
}

/** The header type's place in config space, and of the byte the bits that are one (include/uapi/linux/pci_regs.h). */
const [HEADER_TYPE, HEADER_MASK] = [0x0e, 0x7f];

/**
 * Of base class 06 the header type tells: NVSwitch and other bridges by class are endpoints by it, and
 * vfio_pci_core_register_device takes header type 0 and no other. The 64 bytes of the header are the kernel's to
 * answer, whatever sleeps. Where it cannot be read the class has to do.
 */
function isEndpoint(host: Host, address: Address): boolean {
  try {
    const header = host.readStart(host.device(address, 'config'), 64);
    const type = header?.at(HEADER_TYPE);
    return type !== undefined && type !== 0xff && (type & HEADER_MASK) === 0;
  } catch {
    return false;
  }
}

/** True for bridges and other non-endpoints. */
export const isBridge = (d: Pick<PciDevice, 'bridge'>): boolean => d.bridge;
