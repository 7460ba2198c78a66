/** The rest of a group: who keeps it from a guest, and what the host would lose with it. */
import type { Usage } from '../binding/guards.ts';
import { type Below, belowOf } from '../binding/losses.ts';
import { type PeerWay, peerWay } from '../binding/peerWay.ts';
import { Look as Seen, Tables } from '../host/look.ts';
import type { Address } from '../pci/address.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { type Blocker, groupBlockers, groupMembers } from '../pci/vfio.ts';
import { because, type Cause } from './cause.ts';
import type { Look } from './look.ts';

/** What a function of the group is to the host, and what the host would lose with it. */
export type Peer = Below & {
  address: Address;
  class: string | null;
  driver: string | null;
  blocks: boolean;
};

/** The rest of the group: who blocks, and what the host would lose. */
export function peers(
  look: Look,
  d: PciDevice,
  usages: ReadonlyMap<Address, Usage>,
): { self: Peer; peers: Peer[]; causes: Cause[] } {
  const { host } = look;
  const others =
    d.iommu_group === null ? [] : groupMembers(look.inventory, d.iommu_group).filter((p) => p.address !== d.address);
  const blockers = d.iommu_group === null ? [] : groupBlockers(host, d.iommu_group, others);
  const seen = new Seen(new Tables(host));
  const describe = (p: PciDevice, blocks: boolean): Peer => ({
    address: p.address,
    class: p.class,
    driver: p.driver,
    blocks,
    ...belowOf(seen, p),
  });
  const list = others.map((p) =>
    describe(
      p,
      blockers.some((b) => b.address === p.address),
    ),
  );
  const wanted = new Set([d.address]);
  const ways = blockers.map((b) => ({ b, way: peerWay(host, look.inventory, b, wanted) }));
  const causes = ways.map(({ b, way }) =>
    because('peer-driver', b.address, `${b.address} ${b.reason}`, changeText(b, way)),
  );
  for (const { b, way } of ways) {
    if (way.kind !== 'take') continue;
    for (const { reason } of usages.get(b.address)?.uses ?? [])
      causes.push(
        because('peer-host-use', b.address, reason, 'let the host do without it, or put the device into another slot'),
      );
  }
  const self = describe(d, false);
  for (const what of seen.unmeasured) look.missed(d.address, what);
  return { self, peers: list, causes };
}

function changeText({ address }: Blocker, way: PeerWay): string {
  if (way.kind !== 'take') return way.text;
  const but = way.loses === '' ? '' : ` (the host loses ${way.loses})`;
  return `give it to the same guest, or take it from the host until the next boot: hostdev bind ${address}${but}`;
}
