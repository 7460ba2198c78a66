/**
 * The IOMMU groups as `group list` shows them: what is in each, what keeps a guest from it now, what the firmware
 * reserves there.
 */

import { messageOf } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Warning, warning } from '../text/warning.ts';
import { type Address, compareAddresses, isAddress } from './address.ts';
import type { Inventory, PciDevice } from './inventory.ts';
import { failureWarning } from './inventory.ts';
import { lacksVgpuType, untypedText, vendorVfio } from './vendorVfio.ts';
import { type Blocker, groupBlockers } from './vfio.ts';

export type Group = {
  id: number;
  /** `sys/kernel/iommu_groups/N/type`: DMA, DMA-FQ, identity, blocked, unmanaged, unknown; null when not shown. */
  type: string | null;
  /** A guest could have what is in it, as it is now; null where a member of it could not be read. */
  viable: boolean | null;
  devices: Address[];
  blockers: Blocker[];
};

/** All IOMMU groups with what stands in the way of each now. `warnings` gets what could not be read. */
export function readGroups(host: Host, inventory: Inventory, warnings: Warning[]): Group[] {
  const raw = host.native.scanGroups(host.root);
  host.unread.push(...raw.failures);
  warnings.push(...raw.failures.map(failureWarning));
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
    const foreign = groupBlockers(host, id, pci, g.devices);
    const blockers = foreign.length > 0 ? foreign : untyped(host, pci, warnings);
    groups.push({
      id,
      type: groupType(g.type),
      viable: blockers.length > 0 ? false : isWhole(inventory, g.devices) ? true : null,
      devices: pci.map((d) => d.address).sort(compareAddresses),
      blockers,
    });
  }
  return groups;
}

/** Whether the scan has all PCI devices that the group's folder names. */
const isWhole = (inventory: Inventory, names: readonly string[]): boolean =>
  names.every((name) => !isAddress(name) || inventory.byAddress.has(name));

/**
 * A group of which VFIO has all and a guest could have nothing, because each of its functions is a vGPU without a type.
 */
function untyped(host: Host, members: readonly PciDevice[], warnings: Warning[]): Blocker[] {
  const blockers: Blocker[] = [];
  for (const d of members) {
    try {
      const own = vendorVfio(host, d);
      if (own === null || !lacksVgpuType(own)) return [];
      blockers.push({ address: d.address, driver: own.driver, reason: untypedText(own) });
    } catch (e) {
      warnings.push(warning('not-measured', `${d.address}: its vGPU type is not known: ${messageOf(e)}`, d.address));
      return [];
    }
  }
  return blockers;
}

const groupType = (text: string | null): string | null => {
  const t = text?.trim();
  return t !== undefined && /^[\w-]{1,32}$/.test(t) ? t : null;
};

/** One line of `reserved_regions`: "0x00000000fee00000 0x00000000feefffff msi" (drivers/iommu/iommu.c). */
export type ReservedRegion = { start: string; end: string; type: string };

/**
 * The reserved regions of a group; a `direct` one (RMRR) forbids assignment on platforms that need it,
 * `direct-relaxable` does not.
 */
export function reservedRegions(host: Host, id: number): ReservedRegion[] {
  const text = host.read(host.group(id, 'reserved_regions')) ?? '';
  return [...text.matchAll(/^(0x[0-9a-f]{1,16}) (0x[0-9a-f]{1,16}) ([\w-]{1,32})$/gm)].map(([, start, end, type]) => ({
    start: start ?? '',
    end: end ?? '',
    type: type ?? '',
  }));
}
