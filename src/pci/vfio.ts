/**
 * Which drivers leave an IOMMU group to user space, and whether a group would be viable: drivers/vfio and iommu_group
 * ownership, Linux 5.19 and later.
 */
import type { Host } from '../host/host.ts';
import { Tables } from '../host/look.ts';
import { type Address, isAddress } from './address.ts';
import type { Inventory, PciDevice } from './inventory.ts';
import { functionsAbove } from './path.ts';

/** Drivers with `driver_managed_dma` that are no VFIO driver: drivers/pci/pci-stub.c, drivers/pci/pcie/portdrv.c. */
const NEUTRAL_DRIVERS = new Set(['pci-stub', 'pcieport']);

/**
 * True when `driver`, bound to `address`, is VFIO's: by name, or because the device has a `vfio-dev/` folder, which
 * every variant driver and vendor vGPU driver makes through vfio_register_group_dev since 6.1 (libvirt tells them the
 * same way). Of a saved inventory (`host` null) only the name is known.
 */
export function isVfioDriver(host: Host | Tables | null, address: Address, driver: string | null): boolean {
  if (driver === null || driver === 'vfio-pci' || host === null) return driver === 'vfio-pci';
  const paths = host instanceof Tables ? host.host : host;
  return host.list(paths.device(address, 'vfio-dev')) !== null;
}

/**
 * One device that keeps a group from being viable; `bus` is there for what is no PCI function: its `address` is its
 * name on that bus.
 */
export type Blocker = {
  address: Address;
  driver: string;
  reason: string;
  bus?: string;
  /** The functions of the group that its driver makes, and that are gone without it; left out where there are none. */
  makes?: Address[];
};

/**
 * Which of a group's `members` block it, and what of it is on no PCI bus. A device blocks when its driver takes part in
 * DMA ownership, which is every driver but VFIO's, pci-stub and pcieport (drivers/iommu/iommu.c
 * iommu_device_use_default_domain). Of a saved inventory (`host` null) only PCI functions are known. `names`: the
 * group's folder, for who has listed it.
 */
export function groupBlockers(
  host: Host | null,
  id: number,
  members: readonly PciDevice[],
  names: readonly string[] = host?.list(host.group(id, 'devices')) ?? [],
): Blocker[] {
  const blockers: Blocker[] = [];
  for (const { address, driver, bridge } of members) {
    if (driver === null || NEUTRAL_DRIVERS.has(driver) || isVfioDriver(host, address, driver)) continue;
    const makes = host === null || bridge || names.length < 2 ? [] : madeBy(host, address, names);
    blockers.push({
      address,
      driver,
      reason: `${bridge ? 'is a bridge, bound to' : 'is on the host driver'} ${driver}${madeText(makes)}`,
      ...(makes.length === 0 ? {} : { makes }),
    });
  }
  return [...blockers, ...(host === null ? [] : names.flatMap((name) => otherBlocker(host, id, name)))];
}

/** Which of a group's members hang below one of them that is no bridge. */
const madeBy = (host: Host, maker: Address, names: readonly string[]): Address[] =>
  names.filter((name) => isAddress(name) && functionsAbove(host, name).includes(maker));

const NAMED = 4;
const madeText = (makes: readonly Address[]): string =>
  makes.length === 0
    ? ''
    : `, which makes ${makes.slice(0, NAMED).join(', ')}${makes.length > NAMED ? ` and ${makes.length - NAMED} more` : ''}: gone without it`;

/** A platform or ACPI device of the group on a driver. */
function otherBlocker(host: Host, id: number, name: string): Blocker[] {
  if (isAddress(name) || !/^[\w:.,@-]{1,64}$/.test(name)) return [];
  const link = host.link(host.group(id, `devices/${name}/driver`)) ?? '';
  const [, bus, driver] = /\/bus\/([\w-]{1,32})\/drivers\/([\w.-]{1,64})$/.exec(link) ?? [];
  if (bus === undefined || driver === undefined || driver.startsWith('vfio-')) return [];
  return [{ address: name, driver, reason: `is a ${bus} device, bound to ${driver}`, bus }];
}

/** The members of a group, in order of address. */
export const groupMembers = (inventory: Inventory, id: number): PciDevice[] =>
  inventory.devices.filter((d) => d.iommu_group === id);
