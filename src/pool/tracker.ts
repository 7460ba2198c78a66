/**
 * The devices of one host and who has them: what Nova's PciDevTracker and PciDeviceStats are to nova-compute (nova/pci/manager.py, stats.py,
 * objects/pci_device.py of 33.0.0). Pure: no kernel, no files. Where Nova leaks or claims half (nova.md 6.2, BUG A to D), this does not:
 * a request is checked with the PFs and VFs that it takes from each other, and changes either everything or nothing.
 */
import { type DeviceSpec, type HostFacts, NO_FACTS, SpecMatcher } from '../spec/deviceSpec.ts';
import type { JsonObject } from '../spec/json.ts';
import { type Note, NovaError, note } from '../spec/novaError.ts';
import type { PciRequest } from '../spec/request.ts';
import type { PoolDevice } from './device.ts';
import { ANYWHERE, type Choices, filterPools, type GuestPlace, type ProviderUnits } from './filters.ts';
import {
  type DeviceStatus,
  type Pool,
  Pools,
  type PoolView,
  poolIdentity,
  type Tracked,
  type UndoLog,
} from './pools.ts';

/** What a claim gave: addresses by request, each in the order of picking. */
export type Claimed = { byRequest: string[][] };

export type ClaimOptions = {
  place?: GuestPlace;
  /** What Placement allocated, one entry a request; absent in legacy mode. */
  units?: readonly ProviderUnits[];
  /** Beyond Nova: take each device from the PF with the fewest devices in use, instead of draining one PF after the other. */
  spread?: boolean;
};

/** What the specs said of one reported device. */
export type DeviceMatch = {
  device: PoolDevice;
  specIndex: number | null;
  tags: JsonObject | null;
  error: NovaError | null;
};

/** A device with its state. `consumer` is who holds it; `unavailable` means that its PF or one of its VFs is held. */
export type DeviceState = {
  device: PoolDevice;
  tags: JsonObject;
  /** The tags of the specs as they are now: those of a held device stay until it is freed. Null when no spec names it any more. */
  namedTags: JsonObject | null;
  status: DeviceStatus;
  consumer: string | null;
  burned: boolean;
};

const byAddress = (a: Tracked, b: Tracked): number =>
  a.device.address < b.device.address ? -1 : a.device.address > b.device.address ? 1 : 0;

export class PciTracker {
  #matcher: SpecMatcher;
  readonly #pools = new Pools();
  /** In order of address, as Nova keeps them. */
  #tracked: Tracked[] = [];
  #byAddress = new Map<string, Tracked>();
  #matches: DeviceMatch[] = [];
  readonly #consumers = new Map<string, Tracked[]>();
  #notes: Note[] = [];

  /** Devices in the order in which the host reports them: it decides which one of equal devices is given out. */
  constructor(specs: readonly DeviceSpec[], devices: readonly PoolDevice[], facts: HostFacts = NO_FACTS) {
    this.#matcher = new SpecMatcher(specs, facts);
    this.#report(devices);
  }

  /** What the specs said of each reported device, in the order of the last report. */
  get matches(): readonly DeviceMatch[] {
    return this.#matches;
  }

  /** What is worth a warning since the last report: devices left out, held devices that changed or went. */
  get notes(): readonly Note[] {
    return this.#notes;
  }

  /** Pools in Nova's order, with their free devices; the last device of a pool is given out first. */
  pools(): PoolView[] {
    return this.#pools.view();
  }

  /** All tracked devices, in order of address. */
  devices(): DeviceState[] {
    return this.#tracked.map(({ device, tags, namedTags, status, consumer, burned }) => ({
      device,
      tags,
      namedTags,
      status,
      consumer,
      burned,
    }));
  }

  /** The devices that a consumer holds; null when it never claimed or has freed them. */
  held(consumer: string): string[] | null {
    return this.#consumers.get(consumer)?.map((t) => t.device.address) ?? null;
  }

  /** True when {@link claim} would succeed now. */
  isSupported(requests: readonly PciRequest[], options: ClaimOptions = {}): boolean {
    const log: UndoLog = [];
    const taken = this.#takeAll(requests, options, log);
    undo(log);
    return taken !== null;
  }

  /**
   * Takes the devices of all requests for a consumer, or raises PciDeviceRequestFailed (HOSTDEV_NO_CAPACITY) and changes nothing. A PF that is taken makes its
   * VFs unavailable, a VF its PF.
   */
  claim(consumer: string, requests: readonly PciRequest[], options: ClaimOptions = {}): Claimed {
    const log: UndoLog = [];
    const taken = this.#takeAll(requests, options, log);
    if (taken === null) {
      undo(log);
      throw new NovaError('PciDeviceRequestFailed', `The devices for ${describe(requests)} are not all free`);
    }
    const all = taken.flat();
    for (const t of all) {
      t.status = 'allocated';
      t.consumer = consumer;
      if (t.tags.one_time_use === 'true') t.burned = true;
      for (const child of t.children) child.status = 'unavailable';
      if (t.parent !== null) t.parent.status = 'unavailable';
    }
    this.#consumers.set(consumer, [...(this.#consumers.get(consumer) ?? []), ...all]);
    return { byRequest: taken.map((list) => list.map((t) => t.device.address)) };
  }

  /** Gives back all that a consumer holds. Raises NoSuchInstance (HOSTDEV_CONSUMER_ABSENT). */
  free(consumer: string): void {
    const held = this.#consumers.get(consumer);
    if (held === undefined) throw new NovaError('NoSuchInstance', `${JSON.stringify(consumer)} holds no devices`);
    this.#consumers.delete(consumer);
    for (const t of held.toSorted(byAddress)) this.#freeOne(t);
  }

  /** Takes notice of what the host reports now, and of other specs where given. What is held keeps its properties until it is freed. */
  refresh(change: { devices: readonly PoolDevice[]; specs?: readonly DeviceSpec[]; facts?: HostFacts }): void {
    if (change.specs !== undefined) this.#matcher = new SpecMatcher(change.specs, change.facts);
    this.#report(change.devices, change.specs !== undefined);
  }

  /** After a report to Placement: the provider of each device, or null. Pools take it as a key. */
  assignProviders(providerOf: (device: DeviceState) => string | null): void {
    for (const t of this.#tracked) t.rp = providerOf(t) ?? t.rp;
    this.#pools.assignProviders();
  }

  /** Providers whose devices tags split into several pools: Nova gives out none of them through Placement (nova.md 6.2, BUG D). */
  splitProviders(): string[] {
    const seen = new Set<string>();
    const split = new Set<string>();
    for (const { rp } of this.#pools.list) if (rp !== null) (seen.has(rp) ? split : seen).add(rp);
    return [...split];
  }

  /**
   * Takes in Nova's order. Where that fails because a PF was taken whose VFs are wanted too, once more with PFs that have the fewest free VFs first: what is
   * possible is then found for all but contrived requests.
   */
  #takeAll(requests: readonly PciRequest[], options: ClaimOptions, log: UndoLog): Tracked[][] | null {
    const first = this.#tryTake(requests, options, log, false);
    if (first !== null || requests.length < 2) return first;
    undo(log);
    return this.#tryTake(requests, options, log, true);
  }

  #tryTake(
    requests: readonly PciRequest[],
    { place = ANYWHERE, units, spread = false }: ClaimOptions,
    log: UndoLog,
    sparing: boolean,
  ): Tracked[][] | null {
    const all: Tracked[][] = [];
    // A pool that the requests before have emptied is not there for the next, though it keeps its place: so Nova's scheduler sees it.
    const emptied = new Set<Pool>();
    for (const [i, request] of requests.entries()) {
      const given = units?.[i] ?? null;
      const there = emptied.size === 0 ? this.#pools.list : this.#pools.list.filter((p) => !emptied.has(p));
      const choices = filterPools(there, request, place, given);
      if (choices.pools.length === 0) return null;
      if (sparing) choices.pools = inTwo(choices, (a, b) => freeVfs(a) - freeVfs(b));
      const taken =
        spread && given === null
          ? this.#takeSpread(choices, request.count, log)
          : this.#takeInOrder(choices.pools, request.count, given, log);
      if (taken.length < request.count) return null;
      for (const p of choices.pools) if (requests.length > 1 && p.devices.length === 0) emptied.add(p);
      all.push(taken);
    }
    return all;
  }

  #takeInOrder(pools: readonly Pool[], count: number, units: ProviderUnits, log: UndoLog): Tracked[] {
    const taken: Tracked[] = [];
    const left = units === null ? null : new Map(units);
    for (const pool of pools) {
      if (taken.length === count) break;
      let most = left === null ? count - taken.length : (left.get(pool.rp ?? '') ?? 0);
      // Looked up each time: taking a PF takes its VFs out of their pools.
      for (let next = lastFree(pool); most > 0 && next !== null; next = lastFree(pool)) {
        taken.push(this.#takeOne(next, log));
        most -= 1;
      }
      if (left !== null && pool.rp !== null) left.set(pool.rp, most);
    }
    return taken;
  }

  #takeSpread({ pools, near }: Choices, count: number, log: UndoLog): Tracked[] {
    const held = new Map<string, number>();
    const card = (d: PoolDevice): string => d.parent_addr ?? d.address;
    const hold = (d: PoolDevice): void => void held.set(card(d), (held.get(card(d)) ?? 0) + 1);
    for (const t of this.#tracked) if (t.consumer !== null) hold(t.device);
    const taken: Tracked[] = [];
    for (const part of [pools.slice(0, near), pools.slice(near)]) {
      while (taken.length < count) {
        let best: Tracked | null = null;
        for (const pool of part) {
          const next = lastFree(pool);
          if (next === null) continue;
          if (best === null || (held.get(card(next.device)) ?? 0) < (held.get(card(best.device)) ?? 0)) best = next;
        }
        if (best === null) break;
        taken.push(this.#takeOne(best, log));
        hold(best.device);
      }
    }
    return taken;
  }

  /** With the device, what cannot be given out beside it leaves its pools. */
  #takeOne(tracked: Tracked, log: UndoLog): Tracked {
    this.#pools.take(tracked, log);
    for (const child of tracked.children) this.#pools.remove(child, log);
    if (tracked.parent !== null) this.#pools.remove(tracked.parent, log);
    return tracked;
  }

  #freeOne(tracked: Tracked): void {
    tracked.consumer = null;
    tracked.status = 'available';
    const { later } = tracked;
    tracked.later = null;
    for (const child of tracked.children) this.#makeAvailable(child);
    const { parent } = tracked;
    if (parent?.children.every((c) => c.status === 'available')) this.#makeAvailable(parent);
    if (later === 'gone') this.#forget(tracked);
    else {
      const isOther = later !== null && this.#become(tracked, later);
      this.#makeAvailable(tracked);
      if (isOther) this.#link();
    }
  }

  #makeAvailable(tracked: Tracked): void {
    if (tracked.consumer !== null) return;
    tracked.status = 'available';
    if (tracked.pool === null) this.#pools.add(tracked);
  }

  /** `isOtherSpecs`: a free device that the new specs do not name stays in its pool, as in Nova until its restart, but is never given out. */
  #report(devices: readonly PoolDevice[], isOtherSpecs = false): void {
    this.#notes = [];
    this.#matches = devices.map((device) => {
      const { index, tags, error } = this.#matcher.match(device);
      if (error !== null) this.#notes.push(note(`${device.address} is left out: ${error.message}`));
      return { device, specIndex: index, tags, error };
    });
    const reported = new Map<string, { device: PoolDevice; tags: JsonObject; specIndex: number }>();
    for (const { device, tags, specIndex } of this.#matches) {
      if (tags === null || specIndex === null) continue;
      if (reported.has(device.address)) this.#notes.push(note(`${device.address} is reported twice: the first counts`));
      else reported.set(device.address, { device, tags, specIndex });
    }
    const isHere = new Set(devices.map((d) => d.address));
    for (const t of [...this.#tracked])
      this.#update(t, reported.get(t.device.address) ?? null, isOtherSpecs && isHere.has(t.device.address));
    for (const [address, found] of reported) if (!this.#byAddress.has(address)) this.#track(found);
    if (this.#tracked.some((t, i, all) => i > 0 && byAddress(all[i - 1] ?? t, t) > 0)) this.#tracked.sort(byAddress);
    this.#link();
  }

  #update(
    t: Tracked,
    found: { device: PoolDevice; tags: JsonObject; specIndex: number } | null,
    isDisowned: boolean,
  ): void {
    if (t.consumer !== null) {
      if (found === null)
        this.#notes.push(
          note(`${t.device.address} is held by ${t.consumer} and no longer offered: it is kept until it is freed`),
        );
      t.later = found ?? 'gone';
      t.namedTags = found?.tags ?? this.#matcher.match(t.device).tags;
    } else if (found !== null) this.#become(t, found);
    else {
      // The pool keeps what was in it under the old specs; nothing is tracked of it any more.
      if (isDisowned) this.#pools.bar(t);
      this.#forget(t, isDisowned);
    }
  }

  /** Applies what a report says of a device; true when PF and VF links may have changed. A free device changes its pool with its keys. */
  #become(
    t: Tracked,
    { device, tags, specIndex }: { device: PoolDevice; tags: JsonObject; specIndex: number },
  ): boolean {
    const isOther = t.device.dev_type !== device.dev_type || t.device.parent_addr !== device.parent_addr;
    const wasPooled = t.pool !== null;
    const moves = wasPooled && poolIdentity(t.device, t.tags) !== poolIdentity(device, tags);
    if (moves) this.#pools.remove(t);
    Object.assign(t, { device, tags, specIndex, namedTags: tags });
    if (moves) this.#pools.add(t);
    return isOther;
  }

  #track({ device, tags, specIndex }: { device: PoolDevice; tags: JsonObject; specIndex: number }): void {
    const tracked: Tracked = {
      device,
      tags,
      specIndex,
      namedTags: tags,
      status: 'available',
      consumer: null,
      parent: null,
      children: [],
      pool: null,
      rp: null,
      burned: false,
      barred: false,
      later: null,
    };
    this.#tracked.push(tracked);
    this.#byAddress.set(device.address, tracked);
    this.#pools.add(tracked);
  }

  #forget(t: Tracked, staysInPool = false): void {
    if (!staysInPool) this.#pools.remove(t);
    this.#byAddress.delete(t.device.address);
    this.#tracked = this.#tracked.filter((other) => other !== t);
    if (t.parent !== null) t.parent.children = t.parent.children.filter((c) => c !== t);
    for (const child of t.children) child.parent = null;
  }

  /** PFs and their VFs, anew; what appeared beside a held PF or VF is not to be given out. */
  #link(): void {
    for (const t of this.#tracked) [t.parent, t.children] = [null, []];
    for (const t of this.#tracked) {
      if (t.device.dev_type !== 'type-VF' && t.device.dev_type !== 'vdpa') continue;
      const parent = t.device.parent_addr === null ? undefined : this.#byAddress.get(t.device.parent_addr);
      if (parent?.device.dev_type !== 'type-PF') continue;
      t.parent = parent;
      parent.children.push(t);
    }
    for (const t of this.#tracked) {
      const isBlocked = t.parent?.consumer != null || t.children.some((c) => c.consumer !== null);
      if (t.consumer !== null) continue;
      if (!isBlocked && t.status === 'unavailable') this.#makeAvailable(t);
      if (!isBlocked || t.status === 'unavailable') continue;
      t.status = 'unavailable';
      this.#pools.remove(t);
    }
  }
}

/** Devices of no tracker any more, and burned ones, are in their pools but not to be had. */
function lastFree(pool: Pool): Tracked | null {
  for (let i = pool.devices.length - 1; i >= 0; i -= 1) {
    const d = pool.devices[i];
    if (d !== undefined && !d.burned && !d.barred) return d;
  }
  return null;
}

/** How many free VFs a pool's PF would take with it. */
const freeVfs = (pool: Pool): number =>
  pool.isPf ? (pool.devices.at(-1)?.children.filter((c) => c.pool !== null).length ?? 0) : 0;

/** Sorted, what goes first and what goes second each by itself. */
const inTwo = ({ pools, near }: Choices, compare: (a: Pool, b: Pool) => number): Pool[] => [
  ...pools.slice(0, near).toSorted(compare),
  ...pools.slice(near).toSorted(compare),
];

function undo(log: UndoLog): void {
  for (let step = log.pop(); step !== undefined; step = log.pop()) step();
}

const describe = (requests: readonly PciRequest[]): string =>
  requests
    .map((r) => `${r.alias_name ?? 'a port'}:${r.count}`)
    .join(', ')
    .slice(0, 200);
