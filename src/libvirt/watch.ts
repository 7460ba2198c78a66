/**
 * The guests of one libvirt, kept up to date. libvirt forgets who listened when it restarts, and a connection that was
 * lost never heals: the order is open, register, list, compare, so that what happened while nobody listened is found by
 * the comparison. Events only say which guest to look at again; what it is then is read. What a reader has not taken
 * yet is one change a guest, from what he knows to what is so now: bounded by their number, whatever happens.
 */
import type { LibvirtCalls, RawLibvirtEvent } from '../addon/libvirtCalls.ts';
import { now } from '../clock.ts';
import type { DomainDevices } from '../domain/hostDevices.ts';
import { type ErrorCode, HostdevError } from '../errors.ts';
import { Connection } from './connection.ts';
import { findDomain, type ListedDomain, listDomains, readHalves } from './domains.ts';

/** A guest as last read; `live` and `kept` are null where there is none. */
export type WatchedDomain = ListedDomain & {
  live: DomainDevices | null;
  kept: DomainDevices | null;
  /** A clause where its XML came and says nothing that can be read; null: it does. */
  why: string | null;
};

/** Null: there was, or is, no such guest. */
export type DomainChange = { uuid: string; before: WatchedDomain | null; after: WatchedDomain | null };

type WatchOptions = {
  uri: string;
  readOnly: boolean;
  /** For each call. */
  deadlineMs: number;
  /** All guests are read again after this time too: libvirt tells of no change that `attach-device --config` makes. */
  refreshMs: number;
  /** There is something to take, or `why` is another. Called from the event loop; must not raise. */
  wake: () => void;
};

/** Pauses between attempts to reconnect, in ms: the first, and the longest. */
const PAUSE = { first: 250, longest: 8000 } as const;

/** What another connection may mend, and no other guest's answer is to be had before. */
const OF_THE_CONNECTION: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'HOSTDEV_LIBVIRT_UNREACHABLE',
  'HOSTDEV_LIBVIRT_LATE',
]);

export class Watch {
  readonly #calls: LibvirtCalls;
  readonly #options: WatchOptions;
  readonly #domains = new Map<string, WatchedDomain>();
  /** Of what was not taken, what the reader knows. */
  readonly #known = new Map<string, WatchedDomain | null>();
  /** Guests to be read again. */
  readonly #stale = new Set<string>();
  #allAreStale = false;
  #current: number | null = null;
  #why: string | null = 'it was not asked yet';
  #isStopped = false;
  #stir: () => void = () => {};
  readonly #ended: Promise<void>;

  /** Begins at once. `calls` is the watch's own: it has one listener. Holds the process until {@link stop}. */
  constructor(calls: LibvirtCalls, options: WatchOptions) {
    this.#calls = calls;
    this.#options = options;
    calls.listen((events, gap) => this.#hear(events, gap));
    this.#ended = this.#run();
  }

  /** Why what it knows may be old, a clause; null: it is connected, and has read all guests since. */
  get why(): string | null {
    return this.#why;
  }

  /** The guests as last read, by UUID. */
  get domains(): ReadonlyMap<string, WatchedDomain> {
    return this.#domains;
  }

  /** What is otherwise than at the last call; one that was there and back in between is left out. */
  take(): DomainChange[] {
    const changes = [...this.#known].flatMap(([uuid, before]) => {
      const after = this.#domains.get(uuid) ?? null;
      return isSame(before, after) ? [] : [{ uuid, before, after }];
    });
    this.#known.clear();
    return changes;
  }

  /** Ends; resolves when its connection is given back. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#stir();
    await this.#ended;
  }

  async #run(): Promise<void> {
    let pauseMs: number = PAUSE.first;
    while (!this.#isStopped) {
      try {
        await this.#follow(() => {
          pauseMs = PAUSE.first;
        });
      } catch (e) {
        if (!(e instanceof HostdevError)) throw e;
        this.#say(e.message);
      }
      if (this.#isStopped) break;
      await this.#wait(pauseMs, () => this.#isStopped);
      pauseMs = Math.min(2 * pauseMs, PAUSE.longest);
    }
  }

  /** One connection, from its opening until it is lost, which is raised, or nothing is wanted any more. */
  async #follow(isWell: () => void): Promise<void> {
    const { uri, readOnly, deadlineMs, refreshMs } = this.#options;
    const connection = await Connection.open(this.#calls, uri, { readOnly, events: true, deadlineMs });
    // What was heard before this line is older than the list that is asked for next.
    this.#current = connection.number;
    try {
      // At once.
      let refreshAt = 0;
      while (!this.#isStopped) {
        if (this.#allAreStale || now() >= refreshAt) {
          refreshAt = now() + refreshMs;
          await this.#readAll(connection);
        } else {
          await this.#readStale(connection);
        }
        if (this.#stale.size > 0 || this.#allAreStale) continue;
        this.#say(null);
        isWell();
        await this.#wait(refreshAt - now(), () => this.#stale.size > 0 || this.#allAreStale || this.#isStopped);
      }
    } finally {
      this.#current = null;
      connection.close();
    }
  }

  async #readAll(connection: Connection): Promise<void> {
    // Before it is asked: what is heard from now on is read again.
    this.#allAreStale = false;
    this.#stale.clear();
    const listed = await listDomains(connection, this.#options.deadlineMs);
    const there = new Set(listed.map((d) => d.uuid));
    for (const uuid of this.#domains.keys()) if (!there.has(uuid)) this.#set(uuid, null);
    for (const d of listed) await this.#read(connection, d.uuid, d);
  }

  async #readStale(connection: Connection): Promise<void> {
    for (const uuid of [...this.#stale]) {
      this.#stale.delete(uuid);
      await this.#read(connection, uuid, null);
    }
  }

  /** Reads one guest, with what the list says of it where it was listed. Raises what only another connection mends. */
  async #read(connection: Connection, uuid: string, listed: ListedDomain | null): Promise<void> {
    const left = () => this.#options.deadlineMs;
    try {
      const d = listed ?? (await findDomain(connection, uuid, left()));
      this.#set(uuid, await this.#watched(connection, d, left));
    } catch (e) {
      if (!(e instanceof HostdevError) || e.code !== 'HOSTDEV_GUEST_ABSENT') throw e;
      this.#set(uuid, null);
    }
  }

  async #watched(connection: Connection, d: ListedDomain, left: () => number): Promise<WatchedDomain> {
    try {
      const { live, kept } = await readHalves(connection, d, left);
      return { ...d, live: live?.devices ?? null, kept: kept?.devices ?? null, why: null };
    } catch (e) {
      if (!(e instanceof HostdevError) || OF_THE_CONNECTION.has(e.code) || e.code === 'HOSTDEV_GUEST_ABSENT') throw e;
      return { ...d, live: null, kept: null, why: e.message };
    }
  }

  #hear(events: RawLibvirtEvent[], gap: boolean): void {
    if (gap) this.#allAreStale = true;
    for (const { kind, connection, uuid } of events) {
      if (connection !== this.#current) continue;
      // A list that is asked for now fails, and what it fails with is said.
      if (kind === 'closed') this.#allAreStale = true;
      else this.#stale.add(uuid);
    }
    this.#stir();
  }

  #set(uuid: string, after: WatchedDomain | null): void {
    const before = this.#domains.get(uuid) ?? null;
    if (isSame(before, after)) return;
    if (!this.#known.has(uuid)) this.#known.set(uuid, before);
    if (after === null) this.#domains.delete(uuid);
    else this.#domains.set(uuid, after);
    this.#options.wake();
  }

  #say(why: string | null): void {
    if (this.#why === why) return;
    this.#why = why;
    this.#options.wake();
  }

  /** Waits `ms`, or until `isOver` when something stirs. */
  #wait(ms: number, isOver: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#stir = () => {};
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.#stir = () => {
        if (isOver()) end();
      };
      this.#stir();
    });
  }
}

/** `where` names lines of the XML, which move when anything above them does. */
const isSame = (a: WatchedDomain | null, b: WatchedDomain | null): boolean => textOf(a) === textOf(b);
const textOf = (d: WatchedDomain | null): string => JSON.stringify(d, (key, v) => (key === 'where' ? undefined : v));
