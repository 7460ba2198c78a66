/**
 * Pools: devices that are alike, in Nova's order (nova/pci/stats.py of 33.0.0). Two devices are in one pool when all
 * keys agree: ids, NUMA node, type, the tags of their spec, and the address of the PF (or their own). Pools with fewer
 * keys come first, so that plain devices are given out before special ones.
 */

import { canonicalJson } from '../nova/grammar/json.ts';
import { looseBool } from '../nova/grammar/values.ts';
import type { JsonObject, JsonValue } from '../text/json.ts';
import type { PoolDevice } from './device.ts';

/** Nova's device states, as far as a host without the scheduler's half-way ones has them. */
export type DeviceStatus = 'available' | 'allocated' | 'unavailable';

/** A device that a spec matched. Links between PF and VFs are between tracked devices only. */
export type Tracked = {
  device: PoolDevice;
  tags: JsonObject;
  specIndex: number;
  /**
   * The tags of the specs as they are now, which those of a held device may lag behind; null when none names it any
   * more.
   */
  namedTags: JsonObject | null;
  status: DeviceStatus;
  consumer: string | null;
  parent: Tracked | null;
  children: Tracked[];
  pool: Pool | null;
  /** The resource provider that reports it; null until it is reported. */
  rp: string | null;
  /** one_time_use, and given out once: not again before an operator says so. */
  burned: boolean;
  /** No spec names it any more, though its pool still lists it. */
  barred: boolean;
  /** What a refresh reported while it was allocated: applied when it is freed. `gone` means not reported any more. */
  later: { device: PoolDevice; tags: JsonObject; specIndex: number } | 'gone' | null;
};

/** Tags that are for Placement and no part of a pool. */
const NOT_POOLED = new Set(['resource_class', 'traits', 'rp_uuid', 'rp_uuids']);
const SRIOV: readonly string[] = ['type-PF', 'type-VF', 'vdpa'];

/** Keys that every pool has; a tag of the same name goes before the device's own value, but not before its address. */
const BASE = ['product_id', 'vendor_id', 'numa_node', 'dev_type'] as const;

/** The tags of a spec as pools take them: worked out once, for thousands of devices. */
type PooledTags = {
  base: JsonObject;
  plain: { tags: JsonObject; identity: string };
  sriov: { tags: JsonObject; identity: string };
};
const pooledTags = new WeakMap<JsonObject, PooledTags>();

function pooled(tags: JsonObject): PooledTags {
  const known = pooledTags.get(tags);
  if (known !== undefined) return known;
  const isBase = (key: string): boolean => (BASE as readonly string[]).includes(key);
  const entries = Object.entries(tags).filter(([k]) => !NOT_POOLED.has(k));
  const rest = Object.fromEntries(entries.filter(([k]) => !isBase(k) && k !== 'address'));
  // A null is as good as none (_ensure_remote_managed_tag).
  const sriov = { ...rest, remote_managed: rest.remote_managed ?? 'false' };
  const made = {
    base: Object.fromEntries(entries.filter(([k]) => isBase(k))),
    plain: { tags: rest, identity: canonicalJson(rest) },
    sriov: { tags: sriov, identity: canonicalJson(sriov) },
  };
  pooledTags.set(tags, made);
  return made;
}

const isSriov = (device: PoolDevice): boolean => SRIOV.includes(device.dev_type);

/** The keys of the pool that a device belongs to. */
export function poolKeys(device: PoolDevice, tags: JsonObject): JsonObject {
  const { base, plain, sriov } = pooled(tags);
  return {
    product_id: device.product_id,
    vendor_id: device.vendor_id,
    numa_node: device.numa_node,
    dev_type: device.dev_type,
    ...base,
    ...(isSriov(device) ? sriov : plain).tags,
    address: device.parent_addr ?? device.address,
    ...(device.parent_ifname ? { parent_ifname: device.parent_ifname } : {}),
  };
}

/** The same text for the same {@link poolKeys}, at a fraction of their cost. */
export function poolIdentity(device: PoolDevice, tags: JsonObject): string {
  const { base, plain, sriov } = pooled(tags);
  const of = (key: (typeof BASE)[number]): JsonValue => (key in base ? (base[key] ?? null) : device[key]);
  const own = JSON.stringify([
    of('product_id'),
    of('vendor_id'),
    of('numa_node'),
    of('dev_type'),
    device.parent_addr ?? device.address,
    device.parent_ifname || null,
  ]);
  return own + (isSriov(device) ? sriov : plain).identity;
}

export class Pool {
  readonly keys: JsonObject;
  readonly isPf: boolean;
  readonly isVdpa: boolean;
  readonly isRemoteManaged: boolean;
  /** In the order they came; the last is given out first. */
  readonly devices: Tracked[] = [];
  /** Its resource provider; counts as one key more. */
  rp: string | null = null;
  readonly identity: string;
  /** Some devices in it may not be given out. */
  #hasOthers: boolean;
  readonly #keyCount: number;

  constructor(keys: JsonObject, identity: string) {
    this.keys = keys;
    this.identity = identity;
    this.#keyCount = Object.keys(keys).length;
    this.isPf = keys.dev_type === 'type-PF';
    this.isVdpa = keys.dev_type === 'vdpa';
    this.isRemoteManaged = looseBool(keys.remote_managed);
    this.#hasOthers = Object.hasOwn(keys, 'one_time_use');
  }

  bar(tracked: Tracked): void {
    tracked.barred = true;
    this.#hasOthers = true;
  }

  get size(): number {
    return this.#keyCount + (this.rp === null ? 0 : 1);
  }

  get numaNode(): JsonValue {
    return this.keys.numa_node ?? null;
  }

  /** How many of its devices can be given out. */
  get free(): number {
    if (!this.#hasOthers) return this.devices.length;
    let free = 0;
    for (const d of this.devices) if (!d.burned && !d.barred) free += 1;
    return free;
  }
}

/** A pool as it is printed. */
export type PoolView = JsonObject & { count: number; devices: string[] };

/** All pools of a host. Every change can be undone in reverse while a {@link UndoLog} is given. */
export type UndoLog = (() => void)[];

export class Pools {
  #list: Pool[] = [];
  readonly #byIdentity = new Map<string, Pool>();
  /** A provider adds a key to a pool without sorting it anew: that happens with the next new pool. */
  #isSorted = true;

  get list(): readonly Pool[] {
    return this.#list;
  }

  /** Puts a device at the end of its pool; the pool is made when there is none. */
  add(tracked: Tracked, log?: UndoLog): void {
    const identity = poolIdentity(tracked.device, tracked.tags);
    const pool = this.#byIdentity.get(identity) ?? this.#create(tracked, identity, log);
    pool.devices.push(tracked);
    tracked.pool = pool;
    log?.push(() => {
      pool.devices.pop();
      tracked.pool = null;
    });
  }

  /** Takes one device out of its pool; a pool that is empty then is removed, and comes back at the end. */
  remove(tracked: Tracked, log?: UndoLog): void {
    const { pool } = tracked;
    if (pool === null) return;
    const at = pool.devices.lastIndexOf(tracked);
    pool.devices.splice(at, 1);
    tracked.pool = null;
    log?.push(() => {
      pool.devices.splice(at, 0, tracked);
      tracked.pool = pool;
    });
    if (pool.devices.length === 0) this.#drop(pool, log);
  }

  /** Leaves a device in its pool, never to be given out. */
  bar(tracked: Tracked): void {
    tracked.pool?.bar(tracked);
  }

  /** Takes a device for a consumer: a pool that is empty then stays where it is. */
  take(tracked: Tracked, log: UndoLog): void {
    const { pool } = tracked;
    if (pool === null) return;
    const at = pool.devices.lastIndexOf(tracked);
    pool.devices.splice(at, 1);
    tracked.pool = null;
    log.push(() => {
      pool.devices.splice(at, 0, tracked);
      tracked.pool = pool;
    });
  }

  /** Gives every pool the provider of its devices, as each report to Placement does. */
  assignProviders(): void {
    for (const pool of this.#list) {
      const rp = pool.devices.find((d) => d.rp !== null)?.rp ?? null;
      if (rp === null || pool.rp === rp) continue;
      pool.rp = rp;
      this.#isSorted = false;
    }
  }

  view(): PoolView[] {
    return this.#list.map((p) => ({
      ...p.keys,
      count: p.devices.length,
      devices: p.devices.map((d) => d.device.address),
      ...(p.rp === null ? {} : { _has_rp: true }),
    }));
  }

  #create({ device, tags }: Tracked, identity: string, log?: UndoLog): Pool {
    const pool = new Pool(poolKeys(device, tags), identity);
    const [before, wasSorted] = [this.#list, this.#isSorted];
    if (!this.#isSorted) this.#list = this.#list.toSorted((a, b) => a.size - b.size);
    this.#isSorted = true;
    this.#list = this.#insert(pool, log !== undefined || this.#list !== before);
    this.#byIdentity.set(identity, pool);
    log?.push(() => {
      [this.#list, this.#isSorted] = [before, wasSorted];
      this.#byIdentity.delete(identity);
    });
    return pool;
  }

  /** Behind the last pool with as few keys; in place where nobody needs the list of before. */
  #insert(pool: Pool, copy: boolean): Pool[] {
    let low = 0;
    let high = this.#list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#list[middle]?.size ?? 0) <= pool.size) low = middle + 1;
      else high = middle;
    }
    const list = copy ? [...this.#list] : this.#list;
    list.splice(low, 0, pool);
    return list;
  }

  #drop(pool: Pool, log?: UndoLog): void {
    const before = this.#list;
    this.#list = before.filter((p) => p !== pool);
    this.#byIdentity.delete(pool.identity);
    log?.push(() => {
      this.#list = before;
      this.#byIdentity.set(pool.identity, pool);
    });
  }
}
