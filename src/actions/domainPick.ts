/** The devices that a domain gets from the pools: what its aliases ask for, without what it takes already. */
import type { DomainFacts } from '../domain/domainFacts.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Held } from '../nova/hostPools.ts';
import type { PciSetup } from '../nova/setup.ts';
import { type Warning, warning } from '../text/warning.ts';
import type { ClaimAnswer, ClaimWish } from './claim.ts';
import type { Taken } from './domainTake.ts';
import { NOT_ASKED } from './inGuest.ts';
import type { Warned } from './options.ts';
import { whoHas } from './whoHas.ts';

/**
 * What each alias got, in the order of the request, and the host's NUMA nodes that the guest is on, as far as they were
 * asked for.
 */
export type Picked = Pick<ClaimAnswer, 'requests'> & { numa_nodes: number[]; taken: Taken[] };

/** A nodeset may name thousands. */
const MAX_SHOWN = 8;

/** The host's nodes that a domain's `<numatune>` names. */
const ownNodes = ({ memoryNodes }: DomainFacts): number[] =>
  [...new Set(memoryNodes.flatMap((m) => m.nodes))].sort((a, b) => a - b);

/**
 * Picks as `claim` does. The guest is where the wish says, else where its `<numatune>` says. What is `held`, by the
 * domain or by this plan, is not offered, nor what these exclude (a PF its VFs, a VF its PF). `host` null: the setup's
 * devices are those of a saved inventory. Raises what claimFrom raises.
 */
export async function pickDevices(
  setup: PciSetup & Warned,
  host: Host | null,
  facts: DomainFacts,
  held: readonly Held[],
  wish: ClaimWish,
  connect: string | null,
  warnings: Warning[],
): Promise<Picked> {
  const { claimFrom } = await import('./claim.ts');
  const asked = wish.place.numaCells;
  const nodes = asked.length > 0 ? asked : ownNodes(facts);
  const placed = {
    ...wish,
    place: { ...wish.place, numaCells: nodes },
    ...(asked.length > 0
      ? {}
      : {
          placeOf: `the NUMA nodes of the domain's <numatune> (${nodes.slice(0, MAX_SHOWN).join(', ')}${nodes.length > MAX_SHOWN ? ', …' : ''})`,
        }),
  };
  const own = host === null ? NOT_ASKED : await whoHas(host, connect);
  const claim = await claimFrom(setup, host, placed, own, held);
  warnings.push(...claim.warnings);
  const given = claim.requests.flatMap((r) => r.devices);
  if (given.length === 0) warnings.push(warning('nothing-offered', 'the request asks for no device'));
  const taken = given.map(({ address, managed }) => {
    const device = setup.inventory.byAddress.get(address);
    if (device === undefined) throw new HostdevError('HOSTDEV_INTERNAL', `${address} is in no inventory`);
    return { device, managed };
  });
  return { requests: claim.requests, numa_nodes: [...nodes], taken };
}
