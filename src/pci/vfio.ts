/** Which drivers leave an IOMMU group to user space, and whether a group would be viable: drivers/vfio and iommu_group ownership, Linux 5.19 and later. */
import type { Host } from '../host/host.ts';
import { type Address, compareAddresses } from './address.ts';
import type { Inventory, PciDevice } from './inventory.ts';

/** Drivers with `driver_managed_dma` that are no VFIO driver: drivers/pci/pci-stub.c, drivers/pci/pcie/portdrv.c. */
const NEUTRAL_DRIVERS = new Set(['pci-stub', 'pcieport']);

/**
 * True when `driver`, bound to `address`, is VFIO's: by name, or because the device has a `vfio-dev/` folder, which every variant driver and vendor vGPU
 * driver makes through vfio_register_group_dev since 6.1 (libvirt tells them the same way). Of a saved inventory (`host` null) only the name is known.
 */
export function isVfioDriver(host: Host | null, address: Address, driver: string | null): boolean {
  if (driver === null) return false;
  return driver === 'vfio-pci' || (host !== null && host.list(host.device(address, 'vfio-dev')) !== null);
}

/** One function that keeps a group from being viable. */
export type Blocker = { address: Address; driver: string; reason: string };

export type Group = {
  id: number;
  /** `sys/kernel/iommu_groups/N/type`: DMA, DMA-FQ, identity, blocked, unmanaged, unknown; null when not shown. */
  type: string | null;
  viable: boolean;
  devices: Address[];
  blockers: Blocker[];
};

/**
 * The blockers of a group when each of its devices is on `driverOf` (null: none). A peer blocks when its driver takes part in DMA ownership, which is
 * every driver but VFIO's, pci-stub and pcieport (drivers/iommu/iommu.c iommu_device_use_default_domain).
 * `isVfio` tells of a device and the driver it would be on whether that is VFIO's.
 */
export function groupBlockers(
  members: readonly PciDevice[],
  driverOf: (d: PciDevice) => string | null,
  isVfio: (d: PciDevice, driver: string) => boolean,
): Blocker[] {
  const blockers: Blocker[] = [];
  for (const d of members) {
    const driver = driverOf(d);
    if (driver === null || NEUTRAL_DRIVERS.has(driver) || isVfio(d, driver)) continue;
    const what = d.class?.startsWith('06') ? 'is a bridge, bound to' : 'is on the host driver';
    blockers.push({ address: d.address, driver, reason: `${what} ${driver}` });
  }
  return blockers;
}

/** The members of a group, in order of address. */
export const groupMembers = (inventory: Inventory, id: number): PciDevice[] =>
  inventory.devices.filter((d) => d.iommu_group === id);

/** All IOMMU groups with what stands in the way of each now. `warnings` gets a line for what could not be read. */
export function readGroups(host: Host, inventory: Inventory, warnings: string[]): Group[] {
  const raw = host.native.scanGroups(host.root);
  host.unread.push(...raw.failures);
  for (const f of raw.failures) warnings.push(`Failed to read ${f.path}: ${f.code} (${f.syscall})`);
  const members = new Map<number, PciDevice[]>();
  for (const d of inventory.devices) {
    if (d.iommu_group === null) continue;
    const list = members.get(d.iommu_group);
    if (list) list.push(d);
    else members.set(d.iommu_group, [d]);
  }
  const groups: Group[] = [];
  for (const g of raw.groups) {
    if (!/^\d{1,7}$/.test(g.id)) continue;
    const id = Number(g.id);
    const pci = members.get(id) ?? [];
    const blockers = groupBlockers(
      pci,
      (d) => d.driver,
      (d, driver) => isVfioDriver(host, d.address, driver),
    );
    groups.push({
      id,
      type: groupType(g.type),
      viable: blockers.length === 0,
      devices: pci.map((d) => d.address).sort(compareAddresses),
      blockers,
    });
  }
  return groups;
}

const groupType = (text: string | null): string | null => {
  const t = text?.trim();
  return t !== undefined && /^[\w-]{1,32}$/.test(t) ? t : null;
};

/** One line of `reserved_regions`: "0x00000000fee00000 0x00000000feefffff msi" (drivers/iommu/iommu.c). */
export type ReservedRegion = { start: string; end: string; type: string };

/** The reserved regions of a group; a `direct` one (RMRR) forbids assignment on platforms that need it, `direct-relaxable` does not. */
export function reservedRegions(host: Host, id: number): ReservedRegion[] {
  const text = host.read(host.group(id, 'reserved_regions')) ?? '';
  return [...text.matchAll(/^(0x[0-9a-f]{1,16}) (0x[0-9a-f]{1,16}) ([\w-]{1,32})$/gm)].map(([, start, end, type]) => ({
    start: start ?? '',
    end: end ?? '',
    type: type ?? '',
  }));
}
