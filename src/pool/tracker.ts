/**
 * The devices of one host and who has them: what Nova's PciDevTracker and PciDeviceStats are to nova-compute (nova/pci/manager.py, stats.py,
 * objects/pci_device.py of 33.0.0). Pure: no kernel, no files. Where Nova leaks or claims half (nova.md 6.2, BUG A to D), this does not:
 * a request is checked with the PFs and VFs that it takes from each other, and changes either everything or nothing.
 */
import { type DeviceSpec, type HostFacts, NO_FACTS, SpecMatcher } from '../spec/deviceSpec.ts';
import { type JsonObject, sameJson } from '../spec/json.ts';
import { type Note, NovaError, note } from '../spec/novaError.ts';
import type { PciRequest } from '../spec/request.ts';
import type { PoolDevice } from './device.ts';
import { ANYWHERE, type Choice, type FreeOf, filterPools, type GuestPlace, type ProviderUnits } from './filters.ts';
import { type DeviceStatus, type Pool, Pools, type PoolView, poolKeys, type Tracked, type UndoLog } from './pools.ts';

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
    return this.#tracked.map(({ device, tags, status, consumer, burned }) => ({
      device,
      tags,
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
    if (!this.#countsSuffice(requests, options)) return false;
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
    const taken = this.#countsSuffice(requests, options) ? this.#takeAll(requests, options, log) : null;
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
    for (const t of this.#tracked) t.rp = providerOf(t);
    this.#pools.assignProviders();
  }

  /** Providers with what the filters leave of them for one request, in pool order: what Placement can be asked for. */
  providersFor(request: PciRequest, place: GuestPlace = ANYWHERE): Map<string, number> {
    const found = new Map<string, number>();
    for (const { pool } of filterPools(this.#pools.list, request, place, null, freeNow)) {
      if (pool.rp !== null) found.set(pool.rp, (found.get(pool.rp) ?? 0) + pool.free);
    }
    return found;
  }

  /** Nova's own check, by numbers alone; a pool that the requests before have emptied is not there for the next. */
  #countsSuffice(requests: readonly PciRequest[], { place = ANYWHERE, units }: ClaimOptions): boolean {
    const taken = new Map<Pool, number>();
    const freeOf: FreeOf = (p) => p.free - (taken.get(p) ?? 0);
    return requests.every((request, i) => {
      const left = this.#pools.list.filter((p) => !taken.has(p) || freeOf(p) > 0);
      const choices = filterPools(left, request, place, units?.[i] ?? null, freeOf);
      if (choices.length === 0) return false;
      for (const { pool, count } of shares(choices, request, units?.[i] ?? null, freeOf)) {
        taken.set(pool, (taken.get(pool) ?? 0) + count);
      }
      return true;
    });
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
    for (const [i, request] of requests.entries()) {
      const found = filterPools(this.#pools.list, request, place, units?.[i] ?? null, freeNow);
      if (found.length === 0) return null;
      const choices = sparing ? found.toSorted((a, b) => a.rank - b.rank || freeVfs(a) - freeVfs(b)) : found;
      const given = units?.[i] ?? null;
      const isSpread = spread && given === null;
      all.push(
        isSpread ? this.#takeSpread(choices, request.count, log) : this.#takeInOrder(choices, request, given, log),
      );
      if ((all.at(-1)?.length ?? 0) < request.count) return null;
    }
    return all;
  }

  #takeInOrder(choices: Choice[], request: PciRequest, units: ProviderUnits, log: UndoLog): Tracked[] {
    const taken: Tracked[] = [];
    const left = units === null ? null : new Map(units);
    for (const { pool } of choices) {
      let most = left === null ? request.count - taken.length : (left.get(pool.rp ?? '') ?? 0);
      // Looked up each time: taking a PF takes its VFs out of their pools.
      for (let next = lastFree(pool); most > 0 && next !== null; next = lastFree(pool)) {
        taken.push(this.#takeOne(next, log));
        most -= 1;
      }
      if (left !== null && pool.rp !== null) left.set(pool.rp, most);
    }
    return taken;
  }

  #takeSpread(choices: Choice[], count: number, log: UndoLog): Tracked[] {
    const held = new Map<string, number>();
    const card = (d: PoolDevice): string => d.parent_addr ?? d.address;
    for (const t of this.#tracked)
      if (t.consumer !== null) held.set(card(t.device), (held.get(card(t.device)) ?? 0) + 1);
    const heldBeside = ({ pool }: Choice): number => held.get(pool.keys.address as string) ?? 0;
    const taken: Tracked[] = [];
    while (taken.length < count) {
      const open = choices.filter(({ pool }) => lastFree(pool) !== null);
      const next = open.reduce<Choice | null>((best, c) => {
        if (best === null || c.rank < best.rank) return c;
        return c.rank === best.rank && heldBeside(c) < heldBeside(best) ? c : best;
      }, null);
      const tracked = next === null ? null : lastFree(next.pool);
      if (tracked === null) break;
      taken.push(this.#takeOne(tracked, log));
      held.set(card(tracked.device), (held.get(card(tracked.device)) ?? 0) + 1);
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
    this.#tracked.sort(byAddress);
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
    const moves = wasPooled && !sameJson(poolKeys(t.device, t.tags), poolKeys(device, tags));
    if (moves) this.#pools.remove(t);
    Object.assign(t, { device, tags, specIndex });
    if (moves) this.#pools.add(t);
    return isOther;
  }

  #track({ device, tags, specIndex }: { device: PoolDevice; tags: JsonObject; specIndex: number }): void {
    const tracked: Tracked = {
      device,
      tags,
      specIndex,
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

const freeNow: FreeOf = (pool) => pool.free;

/** Devices of no tracker any more, and burned ones, are in their pools but not to be had. */
function lastFree(pool: Pool): Tracked | null {
  for (let i = pool.devices.length - 1; i >= 0; i -= 1) {
    const d = pool.devices[i];
    if (d !== undefined && !d.burned && !d.barred) return d;
  }
  return null;
}

const freeVfs = ({ pool }: Choice): number =>
  pool.isPf ? (pool.devices.at(-1)?.children.filter((c) => c.pool !== null).length ?? 0) : 0;

/** How many devices come from which pool: one pool after the other, or what Placement says of each provider. */
function shares(
  choices: readonly Choice[],
  request: PciRequest,
  units: ProviderUnits,
  freeOf: FreeOf,
): { pool: Pool; count: number }[] {
  const left = units === null ? null : new Map(units);
  let wanted = request.count;
  return choices.map(({ pool }) => {
    const most = left === null ? wanted : (left.get(pool.rp ?? '') ?? 0);
    const count = Math.min(most, freeOf(pool));
    wanted -= count;
    if (left !== null && pool.rp !== null) left.set(pool.rp, most - count);
    return { pool, count };
  });
}

function undo(log: UndoLog): void {
  for (let step = log.pop(); step !== undefined; step = log.pop()) step();
}

const describe = (requests: readonly PciRequest[]): string =>
  requests
    .map((r) => `${r.alias_name ?? 'a port'}:${r.count}`)
    .join(', ')
    .slice(0, 200);
