/** Which pools can serve a request: Nova's filters in Nova's order (nova/pci/stats.py, PciDeviceStats._filter_pools of 33.0.0). */
import type { NumaPolicy } from '../spec/alias.ts';
import { type JsonValue, sameJson } from '../spec/json.ts';
import type { PciRequest } from '../spec/request.ts';
import { looseBool } from '../spec/values.ts';
import { comparable, type Pool } from './pools.ts';

/** A NUMA node of the host; `socket` null is not known. */
export type HostCell = { id: number; socket: number | null };

/** Where the guest is: the host's NUMA nodes of its cells. None means that nothing is asked about NUMA, whatever the policy. */
export type GuestPlace = { numaCells: readonly number[]; hostCells: readonly HostCell[] };

export const ANYWHERE: GuestPlace = { numaCells: [], hostCells: [] };

/** How many devices each resource provider gave to a request in Placement; null when it was not asked. */
export type ProviderUnits = ReadonlyMap<string, number> | null;

/** How many devices of a pool may be taken; a dry count of the pools differs from the pools themselves. */
export type FreeOf = (pool: Pool) => number;

/** A pool that can serve a request; pools of a lower `rank` go first whatever else is preferred. */
export type Choice = { pool: Pool; rank: number };

/** Keys of a request that pools do not have: they are for Placement. */
const NOT_COMPARED = new Set(['resource_class', 'traits', 'rp_uuids']);

/** The pools that can serve the request, in the order to take from; empty when they have fewer devices than it wants. */
export function filterPools(
  pools: readonly Pool[],
  request: PciRequest,
  place: GuestPlace,
  units: ProviderUnits,
  freeOf: FreeOf,
): Choice[] {
  const total = (list: readonly Pool[]): number => list.reduce((sum, p) => sum + freeOf(p), 0);
  const matching = pools.filter(specTest(request));
  if (total(matching) < request.count) return [];
  const near = byNuma(matching, request, place, total);
  const asks = (key: string, value: string): boolean => request.spec.some((s) => s[key] === value);
  const [wantsPf, wantsVdpa] = [asks('dev_type', 'type-PF'), asks('dev_type', 'vdpa')];
  const wantsRemote = request.spec.some((s) => looseBool(s.remote_managed));
  const live = liveMigratable(request);
  const left = near.filter(
    ({ pool }) =>
      (wantsPf || !pool.isPf) &&
      (wantsVdpa || !pool.isVdpa) &&
      (wantsRemote || !pool.isRemoteManaged) &&
      (live === null || pool.keys.live_migratable === live),
  );
  const given = byProvider(left, units, freeOf);
  return total(given.map((c) => c.pool)) < request.count ? [] : given;
}

/** A pool matches when any of the request's specs does; a key that the pool lacks is null. */
function specTest(request: PciRequest): (pool: Pool) => boolean {
  const specs = request.spec.map((s) =>
    Object.entries(s)
      .filter(([k]) => !NOT_COMPARED.has(k))
      .map(([k, v]): [string, JsonValue] => [k, comparable(v)]),
  );
  return (pool) => specs.some((wanted) => wanted.every(([k, v]) => isMet(v, pool.compared.get(k) ?? null)));
}

function isMet(wanted: JsonValue, has: JsonValue): boolean {
  if (wanted === has) return true;
  if (Array.isArray(wanted) && Array.isArray(has)) return wanted.every((w) => has.some((h) => sameJson(w, h)));
  return typeof wanted === 'object' && sameJson(wanted, has);
}

/**
 * NUMA affinity. Whatever the policy, pools of the guest's nodes alone are used when they suffice; their order is kept. For `preferred` all pools follow, those of
 * the guest's nodes and of no known node first.
 */
function byNuma(
  pools: readonly Pool[],
  request: PciRequest,
  { numaCells, hostCells }: GuestPlace,
  total: (list: readonly Pool[]) => number,
): Choice[] {
  const choices = (list: readonly Pool[]): Choice[] => list.map((pool) => ({ pool, rank: 0 }));
  if (numaCells.length === 0) return choices(pools);
  const isHere = (p: Pool): boolean => numaCells.includes(p.numaNode as number);
  const policy: NumaPolicy = request.numa_policy ?? 'legacy';
  const here = pools.filter(isHere);
  if (policy === 'required' || total(here) >= request.count) return choices(here);
  if (policy === 'socket') {
    const allowed = nodesOfSockets(numaCells, hostCells);
    return choices(pools.filter((p) => allowed.has(p.numaNode as number)));
  }
  const isNear = (p: Pool): boolean => isHere(p) || p.numaNode === null;
  const near = pools.filter(isNear);
  if (policy === 'legacy' || total(near) >= request.count) return choices(near);
  return [...choices(near), ...pools.filter((p) => !isNear(p)).map((pool) => ({ pool, rank: 1 }))];
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
 * What Placement allocated: pools of those providers, as long as each still has what was taken from it. Unlike Nova the pools of one provider count together (Nova
 * refuses all of them when tags split the VFs of a PF), and a provider without enough is a refusal (Nova may give fewer devices than asked).
 */
function byProvider(choices: Choice[], units: ProviderUnits, freeOf: FreeOf): Choice[] {
  if (units === null) return choices;
  const free = new Map<string, number>();
  for (const { pool } of choices) if (pool.rp !== null) free.set(pool.rp, (free.get(pool.rp) ?? 0) + freeOf(pool));
  for (const [rp, wanted] of units) if ((free.get(rp) ?? 0) < wanted) return [];
  return choices.filter(({ pool }) => pool.rp !== null && units.has(pool.rp));
}
