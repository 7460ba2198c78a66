/**
 * `group why DEV`: the reason behind a group, and what keeps the device from a guest. Reads only; config space of a
 * group of several.
 */

import type { Usage } from '../binding/guards.ts';
import { observing } from '../binding/session.ts';
import { readUsages } from '../binding/usage.ts';
import type { Cause } from '../doctor/cause.ts';
import { groupCauses } from '../doctor/groupReasons.ts';
import { Look } from '../doctor/look.ts';
import { type Peer, peers } from '../doctor/peers.ts';
import { type Reset, resetScope } from '../doctor/reset.ts';
import type { Unmeasured } from '../doctor/table.ts';
import { deviceCauses, hostCauses, reserved } from '../doctor/why.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { ReservedRegion } from '../pci/groups.ts';
import { type PciDevice, scanInventory } from '../pci/inventory.ts';
import { resolveDevice } from '../pci/resolve.ts';
import { groupMembers } from '../pci/vfio.ts';
import { about } from '../text/warning.ts';
import type { Warned } from './options.ts';

export type Why = {
  address: Address;
  iommu_group: number | null;
  /** True when no cause blocks: bound to VFIO now, it could be given to a guest. */
  assignable: boolean;
  /** Those that block first. */
  causes: Cause[];
  /** What the device itself is to the host. */
  device: Omit<Peer, 'address' | 'blocks'>;
  peers: Peer[];
  reset: Reset;
  reserved_regions: ReservedRegion[];
  not_measured: Unmeasured[];
};

/** Time for looks that may hang, in ms. */
const LOOK_MS = 3000;
const nothing = (d: PciDevice): Peer => ({
  address: d.address,
  class: d.class,
  driver: d.driver,
  blocks: false,
  netdevs: [],
  disks: [],
  displays: [],
});

/** Raises HOSTDEV_DEVICE_ABSENT and HOSTDEV_DEVICE_AMBIGUOUS. */
export async function explainDevice(host: Host, word: string): Promise<Warned & { why: Why }> {
  const inventory = scanInventory(host);
  const d = resolveDevice(host, inventory, word);
  const look = new Look(host, inventory);
  // A part that cannot be looked at at all is not measured; the others still say what they see.
  const part = <T>(object: string, read: () => T, none: T): T => look.quiet(object, read) ?? none;
  const members = d.iommu_group === null ? [d] : groupMembers(inventory, d.iommu_group);
  const usages = await observing(host, { deadlineMs: LOOK_MS }, (work) => readUsages(work, members)).catch(
    (e: unknown) => {
      look.missed(d.address, (e as Error).message);
      return new Map<Address, Usage>();
    },
  );
  const group = part('the rest of the group', () => peers(look, d, usages), {
    self: nothing(d),
    peers: [],
    causes: [],
  });
  const regions = part('reserved regions', () => reserved(look, d), { regions: [], causes: [] });
  const reset = part('reset', () => resetScope(look, d), { reset: { methods: null, scope: [] }, causes: [] });
  const causes = [
    ...part('IOMMU', () => hostCauses(look, d), []),
    ...part(d.address, () => deviceCauses(look, d, usages.get(d.address) ?? null), []),
    ...regions.causes,
    ...group.causes,
    ...part('config space', () => groupCauses(look, d), []),
    ...reset.causes,
  ].sort((a, b) => Number(b.blocks) - Number(a.blocks));
  const { address: _, blocks: __, ...device } = group.self;
  const why = {
    address: d.address,
    iommu_group: d.iommu_group,
    assignable: !causes.some((c) => c.blocks),
    causes,
    device,
    peers: group.peers,
    reset: reset.reset,
    reserved_regions: regions.regions,
    not_measured: look.unmeasured,
  };
  return { why, warnings: about(inventory.warnings, d.address) };
}
