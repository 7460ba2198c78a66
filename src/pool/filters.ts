/**
 * Which pools can serve a request: Nova's filters in Nova's order (nova/pci/stats.py, PciDeviceStats._filter_pools of
 * 33.0.0).
 */
import type { NumaPolicy } from '../nova/grammar/alias.ts';
import { sameJson } from '../nova/grammar/json.ts';
import type { PciRequest } from '../nova/grammar/request.ts';
import { looseBool } from '../nova/grammar/values.ts';
import type { JsonValue } from '../text/json.ts';
import type { Pool } from './pools.ts';

/** A NUMA node of the host; `socket` null is not known. */
export type HostCell = { id: number; socket: number | null };

/**
 * Where the guest is: the host's NUMA nodes of its cells. None means that nothing is asked about NUMA, whatever the
 * policy.
 */
export type GuestPlace = { numaCells: readonly number[]; hostCells: readonly HostCell[] };

export const ANYWHERE: GuestPlace = { numaCells: [], hostCells: [] };

/** How many devices each resource provider gave to a request in Placement; null when it was not asked. */
export type ProviderUnits = ReadonlyMap<string, number> | null;

/**
 * Pools that can serve a request, in the order to take from. The first `near` of them go first whatever else is
 * preferred.
 */
export type Choices = { pools: Pool[]; near: number };

const NONE: Choices = { pools: [], near: 0 };

/** Keys of a request that pools do not have: they are for Placement. */
const NOT_COMPARED = new Set(['resource_class', 'traits', 'rp_uuids']);

/** The pools that can serve the request; none when they have fewer devices than it wants. */
export function filterPools(
  pools: readonly Pool[],
  request: PciRequest,
  place: GuestPlace,
  units: ProviderUnits,
): Choices {
  const matching = pools.filter(specTest(request));
  if (!suffices(matching, request.count)) return NONE;
  const choices = byNuma(matching, request, place);
  const asks = (type: string): boolean => request.spec.some((s) => s.dev_type === type);
  const [wantsPf, wantsVdpa] = [asks('type-PF'), asks('vdpa')];
  const wantsRemote = request.spec.some((s) => looseBool(s.remote_managed));
  const live = liveMigratable(request);
  const isAsked = (p: Pool): boolean =>
    (wantsPf || !p.isPf) &&
    (wantsVdpa || !p.isVdpa) &&
    (wantsRemote || !p.isRemoteManaged) &&
    (live === null || p.keys.live_migratable === live);
  const left = byProvider(keep(choices, isAsked), units);
  return suffices(left.pools, request.count) ? left : NONE;
}

const keep = ({ pools, near }: Choices, test: (p: Pool) => boolean): Choices => {
  const isAll = near === pools.length;
  const left = pools.filter(test);
  return { pools: left, near: isAll ? left.length : pools.slice(0, near).filter(test).length };
};

/** Whether the pools have so many devices to give. */
function suffices(pools: readonly Pool[], count: number): boolean {
  let free = 0;
  for (const p of pools) {
    if (free >= count) return true;
    free += p.free;
  }
  return free >= count;
}

/** A pool matches when any of the request's specs does; a key that the pool lacks is null. */
function specTest(request: PciRequest): (pool: Pool) => boolean {
  const specs = request.spec.map((s) =>
    Object.entries(s)
      .filter(([k]) => !NOT_COMPARED.has(k))
      .map(([k, v]): [string, JsonValue] => [k, comparable(v)]),
  );
  const isMet = (wanted: JsonValue, has: JsonValue): boolean => {
    if (wanted === has || wanted === comparable(has)) return true;
    if (Array.isArray(wanted) && Array.isArray(has)) return wanted.every((w) => has.some((h) => sameJson(w, h)));
    return typeof wanted === 'object' && sameJson(wanted, has);
  };
  return ({ keys }) =>
    specs.some((wanted) => wanted.every(([k, v]) => isMet(v, Object.hasOwn(keys, k) ? (keys[k] ?? null) : null)));
}

/** Text without case, and Python's True == 1. */
const comparable = (value: JsonValue): JsonValue =>
  typeof value === 'string' ? value.toLowerCase() : typeof value === 'boolean' ? Number(value) : value;

/**
 * NUMA affinity. Whatever the policy, pools of the guest's nodes alone are used when they suffice; their order is kept.
 * For `preferred` all pools follow, those of the guest's nodes and of no known node first.
 */
function byNuma(pools: Pool[], request: PciRequest, { numaCells, hostCells }: GuestPlace): Choices {
  const only = (list: Pool[]): Choices => ({ pools: list, near: list.length });
  if (numaCells.length === 0) return only(pools);
  const isHere = (p: Pool): boolean => numaCells.includes(p.numaNode as number);
  const policy: NumaPolicy = request.numa_policy ?? 'legacy';
  const here = pools.filter(isHere);
  if (policy === 'required' || suffices(here, request.count)) return only(here);
  if (policy === 'socket') {
    const allowed = nodesOfSockets(numaCells, hostCells);
    return only(pools.filter((p) => allowed.has(p.numaNode as number)));
  }
  const isNear = (p: Pool): boolean => isHere(p) || p.numaNode === null;
  const near = pools.filter(isNear);
  if (policy === 'legacy' || suffices(near, request.count)) return only(near);
  return { pools: [...near, ...pools.filter((p) => !isNear(p))], near: near.length };
}

/** The nodes on the sockets of the guest's nodes; none when the host does not tell the socket of every node. */
function nodesOfSockets(numaCells: readonly number[], hostCells: readonly HostCell[]): ReadonlySet<number> {
  if (hostCells.some((c) => c.socket === null)) return new Set();
  const sockets = new Set(hostCells.filter((c) => numaCells.includes(c.id)).map((c) => c.socket));
  return new Set(hostCells.filter((c) => sockets.has(c.socket)).map((c) => c.id));
}

/** "true" or "false" when all specs ask for it; an untagged pool is neither. */
function liveMigratable(request: PciRequest): string | null {
  for (const wanted of ['true', 'false']) {
    if (request.spec.length > 0 && request.spec.every((s) => s.live_migratable === wanted)) return wanted;
  }
  return null;
}

/**
 * What Placement allocated: pools of those providers, as long as each still has what was taken from it. Unlike Nova the
 * pools of one provider count together (Nova refuses all of them when tags split the VFs of a PF), and a provider
 * without enough is a refusal (Nova may give fewer devices than asked).
 */
function byProvider(choices: Choices, units: ProviderUnits): Choices {
  if (units === null) return choices;
  const free = new Map<string, number>();
  for (const p of choices.pools) if (p.rp !== null) free.set(p.rp, (free.get(p.rp) ?? 0) + p.free);
  for (const [rp, wanted] of units) if ((free.get(rp) ?? 0) < wanted) return NONE;
  return keep(choices, (p) => p.rp !== null && units.has(p.rp));
}
