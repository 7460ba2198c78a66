/**
 * Which devices a claim takes, and in which order (nova/pci/stats.py, consume_requests of 33.0.0). Everything is noted
 * in an undo log, so that a request of which a part cannot be had leaves nothing behind (Nova does, and forgets what
 * PFs and VFs take from each other: BUG A in test/conformance/better.ts).
 */
import type { PciRequest } from '../nova/grammar/request.ts';
import type { PoolDevice } from './device.ts';
import { ANYWHERE, type Choices, filterPools, type GuestPlace, type ProviderUnits } from './filters.ts';
import type { Pool, Pools, Tracked, UndoLog } from './pools.ts';

export type ClaimOptions = {
  place?: GuestPlace;
  /** What Placement allocated, one entry a request; absent in legacy mode. */
  units?: readonly ProviderUnits[];
  /**
   * Beyond Nova: take each device from the PF with the fewest devices in use, instead of draining one PF after the
   * other.
   */
  spread?: boolean;
};

/**
 * The devices of all requests, taken out of their pools; null when they are not all to be had (then the log undoes what
 * was taken). `tracked` are all devices of the host. Where Nova's order fails because PFs and VFs of one card are
 * wanted, it is tried once more with PFs that have the fewest free VFs and with VFs of one card first: what is possible
 * is then found for all but contrived requests.
 */
export function takeAll(
  pools: Pools,
  tracked: readonly Tracked[],
  requests: readonly PciRequest[],
  options: ClaimOptions,
  log: UndoLog,
): Tracked[][] | null {
  const first = tryTake(pools, tracked, requests, options, log, false);
  if (first !== null || requests.length < 2) return first;
  undo(log);
  return tryTake(pools, tracked, requests, options, log, true);
}

function tryTake(
  pools: Pools,
  tracked: readonly Tracked[],
  requests: readonly PciRequest[],
  { place = ANYWHERE, units, spread = false }: ClaimOptions,
  log: UndoLog,
  isSparing: boolean,
): Tracked[][] | null {
  const all: Tracked[][] = [];
  // A pool that the requests before have emptied is not there for the next, though it keeps its place: so Nova's
  // scheduler sees it.
  const emptied = new Set<Pool>();
  for (const [i, request] of requests.entries()) {
    const given = units?.[i] ?? null;
    const there = emptied.size === 0 ? pools.list : pools.list.filter((p) => !emptied.has(p));
    const found = filterPools(there, request, place, given);
    if (found.pools.length === 0) return null;
    const choices = isSparing ? sparing(found, request.count) : found;
    const taken =
      spread && given === null
        ? takeSpread(pools, tracked, choices, request.count, log)
        : takeInOrder(pools, choices.pools, request.count, given, log);
    if (taken.length < request.count) return null;
    if (requests.length > 1) for (const p of choices.pools) if (p.devices.length === 0) emptied.add(p);
    all.push(taken);
  }
  return all;
}

/** What goes first and what goes second each by how much it takes from others. */
function sparing({ pools, near }: Choices, count: number): Choices {
  const cost = (p: Pool): number => {
    if (!p.isPf) return p.free >= count ? 0 : 1;
    return p.devices.at(-1)?.children.filter((c) => c.pool !== null).length ?? 0;
  };
  const sorted = (part: Pool[]): Pool[] => part.toSorted((a, b) => cost(a) - cost(b));
  return { pools: [...sorted(pools.slice(0, near)), ...sorted(pools.slice(near))], near };
}

function takeInOrder(
  pools: Pools,
  choices: readonly Pool[],
  count: number,
  units: ProviderUnits,
  log: UndoLog,
): Tracked[] {
  const taken: Tracked[] = [];
  const left = units === null ? null : new Map(units);
  for (const pool of choices) {
    if (taken.length === count) break;
    let most = left === null ? count - taken.length : (left.get(pool.rp ?? '') ?? 0);
    // Looked up each time: taking a PF takes its VFs out of their pools.
    for (let next = lastFree(pool); most > 0 && next !== null; next = lastFree(pool)) {
      taken.push(takeOne(pools, next, log));
      most -= 1;
    }
    if (left !== null && pool.rp !== null) left.set(pool.rp, most);
  }
  return taken;
}

function takeSpread(
  pools: Pools,
  tracked: readonly Tracked[],
  choices: Choices,
  count: number,
  log: UndoLog,
): Tracked[] {
  const held = new Map<string, number>();
  const card = (d: PoolDevice): string => d.parent_addr ?? d.address;
  const heldBeside = (t: Tracked): number => held.get(card(t.device)) ?? 0;
  // What this claim has taken already has no pool, and no consumer yet.
  for (const t of tracked) if (t.consumer !== null || isTaken(t)) held.set(card(t.device), heldBeside(t) + 1);
  const taken: Tracked[] = [];
  for (const part of [choices.pools.slice(0, choices.near), choices.pools.slice(choices.near)]) {
    while (taken.length < count) {
      let best: Tracked | null = null;
      for (const pool of part) {
        const next = lastFree(pool);
        if (next !== null && (best === null || heldBeside(next) < heldBeside(best))) best = next;
      }
      if (best === null) break;
      taken.push(takeOne(pools, best, log));
      held.set(card(best.device), heldBeside(best) + 1);
    }
  }
  return taken;
}

/** A PF is out of its pool when one of its VFs is taken. */
const isTaken = (t: Tracked): boolean => t.pool === null && t.status === 'available' && t.children.length === 0;

/** Takes one device: what cannot be given out beside it leaves its pools. */
export function takeOne(pools: Pools, tracked: Tracked, log: UndoLog): Tracked {
  pools.take(tracked, log);
  for (const child of tracked.children) pools.remove(child, log);
  if (tracked.parent !== null) pools.remove(tracked.parent, log);
  return tracked;
}

/** Burned devices, and those that no spec names any more, are in their pools but not to be had. */
function lastFree(pool: Pool): Tracked | null {
  for (let i = pool.devices.length - 1; i >= 0; i -= 1) {
    const d = pool.devices[i];
    if (d !== undefined && !d.burned && !d.barred) return d;
  }
  return null;
}

/** Runs the log backwards and empties it. */
export function undo(log: UndoLog): void {
  for (let step = log.pop(); step !== undefined; step = log.pop()) step();
}
