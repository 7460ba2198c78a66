/**
 * The devices of one host and who has them: what Nova's PciDevTracker and PciDeviceStats are to nova-compute
 * (nova/pci/manager.py, stats.py, objects/pci_device.py of 33.0.0). Pure: no kernel, no files. Where Nova leaks or
 * claims half (BUG A to D in test/conformance/better.ts), this does not: a request is checked with the PFs and VFs that
 * it takes from each other, and changes either everything or nothing.
 */
import { type DeviceSpec, type HostFacts, NO_FACTS, SpecMatcher } from '../nova/grammar/deviceSpec.ts';
import { type Note, NovaError, note } from '../nova/grammar/novaError.ts';
import type { PciRequest } from '../nova/grammar/request.ts';
import type { JsonObject } from '../text/json.ts';
import type { PoolDevice } from './device.ts';
import { type DeviceStatus, Pools, type PoolView, poolIdentity, type Tracked, type UndoLog } from './pools.ts';
import { type ClaimOptions, takeAll, takeOne, undo } from './take.ts';

export type { ClaimOptions };

/** What a claim gave: addresses by request, each in the order of picking. */
export type Claimed = { byRequest: string[][] };

/** What the specs said of one reported device. */
export type DeviceMatch = {
  device: PoolDevice;
  specIndex: number | null;
  tags: JsonObject | null;
  error: NovaError | null;
};

/** A device with its state. `consumer` is who holds it; `unavailable` means that its PF or one of its VFs is held. */
export type TrackedDevice = {
  device: PoolDevice;
  tags: JsonObject;
  /**
   * The tags of the specs as they are now: those of a held device stay until it is freed. Null when no spec names it
   * any more.
   */
  namedTags: JsonObject | null;
  status: DeviceStatus;
  consumer: string | null;
  /** Of an unavailable device: the PF or VF that is held, and by whom. */
  blockedBy: { address: string; consumer: string } | null;
  /** one_time_use, and given out once: not given out again. */
  burned: boolean;
};

/** A device that a spec names. */
type Named = { device: PoolDevice; tags: JsonObject; specIndex: number };
const isNamed = (m: DeviceMatch): m is DeviceMatch & Named => m.tags !== null && m.specIndex !== null;

const byAddress = (a: Tracked, b: Tracked): number =>
  a.device.address < b.device.address ? -1 : a.device.address > b.device.address ? 1 : 0;

export class PciTracker {
  #matcher: SpecMatcher;
  readonly #pools = new Pools();
  /** In order of address, as Nova keeps them. */
  #tracked: Tracked[] = [];
  #byAddress = new Map<string, Tracked>();
  #matches: DeviceMatch[] = [];
  /** In their pools, but of no spec any more. */
  readonly #barred = new Map<string, Tracked>();
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
  devices(): TrackedDevice[] {
    return this.#tracked.map(stateOf);
  }

  /** The devices that a consumer holds; null when it never claimed or has freed them. */
  held(consumer: string): string[] | null {
    return this.#consumers.get(consumer)?.map((t) => t.device.address) ?? null;
  }

  /** True when {@link claim} would succeed now. */
  isSupported(requests: readonly PciRequest[], options: ClaimOptions = {}): boolean {
    const log: UndoLog = [];
    const taken = takeAll(this.#pools, this.#tracked, requests, options, log);
    undo(log);
    return taken !== null;
  }

  /**
   * Takes the devices of all requests for a consumer, or raises PciDeviceRequestFailed (HOSTDEV_NO_CAPACITY) and
   * changes nothing. A PF that is taken makes its VFs unavailable, a VF its PF.
   */
  claim(consumer: string, requests: readonly PciRequest[], options: ClaimOptions = {}): Claimed {
    const log: UndoLog = [];
    const taken = takeAll(this.#pools, this.#tracked, requests, options, log);
    if (taken === null) {
      undo(log);
      throw new NovaError('PciDeviceRequestFailed', `The devices for ${describe(requests)} are not all free`);
    }
    this.#give(consumer, taken.flat());
    return { byRequest: taken.map((list) => list.map((t) => t.device.address)) };
  }

  /**
   * Books devices that a consumer holds already, as kept claims say; all of them or none. Raises PciDeviceInvalidStatus
   * (HOSTDEV_DEVICE_STATE) for one that no spec names or that is not free.
   */
  adopt(consumer: string, addresses: readonly string[]): void {
    const log: UndoLog = [];
    const taken = addresses.map((address) => {
      const t = this.#byAddress.get(address);
      if (t !== undefined && t.pool !== null) return takeOne(this.#pools, t, log);
      undo(log);
      const why = t === undefined ? 'no device_spec names it' : `it is ${t.status}`;
      throw new NovaError('PciDeviceInvalidStatus', `${address} cannot be held by ${consumer}: ${why}`);
    });
    this.#give(consumer, taken);
  }

  #give(consumer: string, taken: readonly Tracked[]): void {
    for (const t of taken) {
      t.status = 'allocated';
      t.consumer = consumer;
      if (t.tags.one_time_use === 'true') t.burned = true;
      for (const child of t.children) child.status = 'unavailable';
      if (t.parent !== null) t.parent.status = 'unavailable';
    }
    this.#consumers.set(consumer, [...(this.#consumers.get(consumer) ?? []), ...taken]);
  }

  /** Gives back all that a consumer holds. Raises NoSuchInstance (HOSTDEV_CONSUMER_ABSENT). */
  free(consumer: string): void {
    const held = this.#consumers.get(consumer);
    if (held === undefined) throw new NovaError('NoSuchInstance', `${JSON.stringify(consumer)} holds no devices`);
    this.#consumers.delete(consumer);
    for (const t of held.toSorted(byAddress)) this.#freeOne(t);
  }

  /**
   * Takes notice of what the host reports now, and of other specs where given. What is held keeps its properties until
   * it is freed.
   */
  refresh(change: { devices: readonly PoolDevice[]; specs?: readonly DeviceSpec[]; facts?: HostFacts }): void {
    if (change.specs !== undefined) this.#matcher = new SpecMatcher(change.specs, change.facts);
    this.#report(change.devices, change.specs !== undefined);
  }

  /** After a report to Placement: the provider of each device, or null. Pools take it as a key. */
  assignProviders(providerOf: (device: TrackedDevice) => string | null): void {
    for (const t of this.#tracked) t.rp = providerOf(stateOf(t)) ?? t.rp;
    this.#pools.assignProviders();
  }

  /** Providers whose devices tags split into several pools: Nova gives out none of them through Placement (BUG D). */
  splitProviders(): string[] {
    const seen = new Set<string>();
    const split = new Set<string>();
    for (const { rp } of this.#pools.list) if (rp !== null) (seen.has(rp) ? split : seen).add(rp);
    return [...split];
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

  /**
   * `isOtherSpecs`: a free device that the new specs do not name stays in its pool, as in Nova until its restart, but
   * is never given out.
   */
  #report(devices: readonly PoolDevice[], isOtherSpecs = false): void {
    this.#notes = [];
    const reported = new Map<string, Named>();
    this.#matches = devices.map((device) => {
      const { index, tags, error } = this.#matcher.match(device);
      const match = { device, specIndex: index, tags, error };
      if (error !== null) this.#notes.push(note(`${device.address} is left out: ${error.message}`));
      if (!isNamed(match)) return match;
      if (reported.has(device.address)) this.#notes.push(note(`${device.address} is reported twice: the first counts`));
      else reported.set(device.address, match);
      return match;
    });
    const isHere = new Set(isOtherSpecs ? devices.map((d) => d.address) : []);
    for (const t of [...this.#tracked])
      this.#update(t, reported.get(t.device.address) ?? null, isHere.has(t.device.address));
    for (const [address, found] of reported) if (!this.#byAddress.has(address)) this.#track(found);
    if (this.#tracked.some((t, i, all) => i > 0 && byAddress(all[i - 1] ?? t, t) > 0)) this.#tracked.sort(byAddress);
    this.#link();
  }

  #update(t: Tracked, found: Named | null, isDisowned: boolean): void {
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
      if (isDisowned && t.pool !== null) {
        this.#pools.bar(t);
        this.#barred.set(t.device.address, t);
      }
      this.#forget(t, isDisowned);
    }
  }

  /**
   * Applies what a report says of a device; true when PF and VF links may have changed. A free device changes its pool
   * with its keys.
   */
  #become(t: Tracked, { device, tags, specIndex }: Named): boolean {
    const isOther = t.device.dev_type !== device.dev_type || t.device.parent_addr !== device.parent_addr;
    const wasPooled = t.pool !== null;
    const moves = wasPooled && poolIdentity(t.device, t.tags) !== poolIdentity(device, tags);
    if (moves) this.#pools.remove(t);
    Object.assign(t, { device, tags, specIndex, namedTags: tags });
    if (moves) this.#pools.add(t);
    return isOther;
  }

  #track({ device, tags, specIndex }: Named): void {
    const before = this.#barred.get(device.address);
    if (before !== undefined) this.#pools.remove(before);
    this.#barred.delete(device.address);
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
    for (const t of this.#tracked) {
      t.parent = null;
      if (t.children.length > 0) t.children = [];
    }
    for (const t of this.#tracked) {
      if (t.device.dev_type !== 'type-VF' && t.device.dev_type !== 'vdpa') continue;
      const parent = t.device.parent_addr === null ? undefined : this.#byAddress.get(t.device.parent_addr);
      if (parent?.device.dev_type !== 'type-PF') continue;
      t.parent = parent;
      parent.children.push(t);
    }
    // Before the first claim nothing can be in the way of anything.
    if (this.#consumers.size === 0 && !this.#tracked.some((t) => t.status === 'unavailable')) return;
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

function stateOf(t: Tracked): TrackedDevice {
  const { device, tags, namedTags, status, consumer, burned } = t;
  return { device, tags, namedTags, status, consumer, blockedBy: blockerOf(t), burned };
}

function blockerOf(t: Tracked): TrackedDevice['blockedBy'] {
  if (t.status !== 'unavailable') return null;
  const holder = [t.parent, ...t.children].find((other) => other?.consumer != null);
  return holder?.consumer == null ? null : { address: holder.device.address, consumer: holder.consumer };
}

const describe = (requests: readonly PciRequest[]): string =>
  requests
    .map((r) => `${r.alias_name ?? 'a port'}:${r.count}`)
    .join(', ')
    .slice(0, 200);
