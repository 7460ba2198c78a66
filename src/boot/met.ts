/** Whether a device is as a wish wants it, now. Pure reading of what the scan and its links show. */
import type { Host } from '../host/host.ts';
import { type Inventory, isBridge, type PciDevice } from '../pci/inventory.ts';
import { makersOf } from '../pci/path.ts';
import { onHostDriver, vendorVfio, vgpuTypeNow } from '../pci/vendorVfio.ts';
import { groupMembers, isVfioDriver } from '../pci/vfio.ts';
import { numberedVfs } from '../pci/vfLinks.ts';
import type { PfWish, Wish, WishedDriver } from './wishes.ts';

/** Why a wish is not met by its device, in words; null when it is. `own`: devices that have wishes of their own. */
export function whyNotMet(
  host: Host,
  inventory: Inventory,
  wish: Wish,
  device: PciDevice,
  own: ReadonlySet<string>,
): string | null {
  if (wish.kind === 'pf') return vfsNotMet(host, inventory, wish, device, own);
  const members = wish.group ? groupEndpoints(host, inventory, device).filter((d) => !own.has(d.address)) : [];
  for (const d of [device, ...members]) {
    const why = driverNotMet(host, d, wish.driver);
    if (why !== null) return d === device ? why : `${d.address} of its group ${why}`;
  }
  return null;
}

/** The other endpoints of a device's IOMMU group, but for what its own driver makes or is made by. */
export function groupEndpoints(host: Host, inventory: Inventory, device: PciDevice): PciDevice[] {
  if (device.iommu_group === null) return [];
  const makers = makersOf(host, inventory, device.address);
  return groupMembers(inventory, device.iommu_group).filter(
    (d) =>
      d.address !== device.address && !isBridge(d) && d.class?.startsWith('06') !== true && !makers.includes(d.address),
  );
}

const onText = (driver: string | null): string => (driver === null ? 'has no driver' : `is on ${driver}`);

function driverNotMet(host: Host, d: PciDevice, driver: WishedDriver): string | null {
  const now = onText(d.driver);
  const vfio = d.driver !== null && isVfioDriver(host, d.address, d.driver);
  switch (driver) {
    case 'vfio':
      // Its own driver is its VFIO provider.
      return vfio || vendorVfio(host, d) !== null ? null : `${now}, and no VFIO driver`;
    case 'host':
      return onHostDriver(host, d.address, d.driver) ? null : `${now}, and no host driver`;
    case 'none':
      return d.driver === null ? null : now;
    default:
      return d.driver === driver ? null : `${now}, not ${driver}`;
  }
}

/**
 * What each VF of a PF is to be on: of its range, or as all are. A driver that is told by name is no VFIO driver for
 * 'netdev'.
 */
export const vfDriver = (wish: PfWish, n: number): WishedDriver =>
  wish.ranges.find((r) => r.first <= n && n <= r.last)?.driver ?? (wish.for === 'vfio' ? 'vfio' : 'host');

/** The vGPU type that each VF of a PF is to have; null where its wish says none. */
export const vfType = (wish: PfWish, n: number): string | null => {
  const type = wish.ranges.find((r) => r.first <= n && n <= r.last)?.vgpu_type ?? null;
  return type === null ? null : `${type}`;
};

/** Why a VF has not the vGPU type that is wished for it, in words; null when it has, or none is wished. */
export function typeNotMet(host: Host, wish: PfWish, n: number, address: string): string | null {
  const type = vfType(wish, n);
  const now = type === null ? null : vgpuTypeNow(host, address);
  if (type === null || now === type) return null;
  return now === null ? `is no vGPU, and is to have the vGPU type ${type}` : `has the vGPU type ${now}, not ${type}`;
}

function vfsNotMet(
  host: Host,
  inventory: Inventory,
  wish: PfWish,
  pf: PciDevice,
  own: ReadonlySet<string>,
): string | null {
  const vfs = numberedVfs(host, pf.address);
  if (vfs.length !== wish.vfs) return `has ${vfs.length === 0 ? 'no' : vfs.length} VFs`;
  for (const { n, address } of vfs) {
    if (own.has(address)) continue;
    const d = inventory.byAddress.get(address);
    const why =
      d === undefined
        ? 'is not there'
        : (driverNotMet(host, d, vfDriver(wish, n)) ?? typeNotMet(host, wish, n, address));
    if (why !== null) return `has ${vfs.length} VFs, and ${address} ${why}`;
  }
  return null;
}
