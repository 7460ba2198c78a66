/**
 * libvirtd restarts, is killed and is stopped, again and again, while guests change, calls are out and a watch listens.
 * After each the watch must know what a connection of its own lists, and so must who only took its changes.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LibvirtCalls } from '../../src/addon/libvirtCalls.ts';
import { now, sleep } from '../../src/clock.ts';
import { HostdevError } from '../../src/errors.ts';
import { Connection } from '../../src/libvirt/connection.ts';
import { seeDomains } from '../../src/libvirt/domains.ts';
import { Watch, type WatchedDomain } from '../../src/libvirt/watch.ts';
import { EVER } from '../patience.ts';
import { type LibvirtSandbox, sandboxDevice, sandboxGuest, sandboxUuid, UPHEAVALS, type Upheaval } from './sandbox.ts';

/** For each call, in ms. */
const DEADLINE_MS = 6000;

export type Restarts = {
  rounds: number;
  /** Calls of those who call in a loop; `failed` of them by code. */
  calls: number;
  failed: Record<string, number>;
  /** The most that a call came after its deadline, in ms. */
  latest: number;
  changes: number;
  /** How often the watch was without a connection. */
  lost: number;
  /** What the watch, or who took its changes, did not know when all was quiet. */
  missed: string[];
  /** After the first tenth, and at the end, in MiB. */
  rss: [number, number];
};

/** Four guests that run in turn, and eight that are defined and undefined. `say` hears of each round. */
export async function restarts(
  sandbox: LibvirtSandbox,
  openCalls: () => LibvirtCalls,
  rounds: number,
  say: (line: string) => void,
): Promise<Restarts> {
  const result: Restarts = { rounds, calls: 0, failed: {}, latest: 0, changes: 0, lost: 0, missed: [], rss: [0, 0] };
  for (const name of RUNNING) await sandbox.define(name);
  const follower = new Follower(sandbox.uri, openCalls(), result);
  const truth = openCalls();
  const crowd = new Crowd(sandbox, openCalls(), result);
  try {
    for (let round = 0; round < rounds; round += 1) {
      const upheaval = UPHEAVALS[round % UPHEAVALS.length] as Upheaval;
      const at = now();
      crowd.begin();
      await sleep(Math.random() * 200);
      await sandbox.upheave(upheaval, () => changeBehindIt(sandbox, round));
      await sandbox.answers();
      // Before, while and after the watch is back.
      const guest = RUNNING[round % RUNNING.length];
      await sandbox.virsh(`start --paused ${guest}`).catch(() => sandbox.virsh(`destroy ${guest}`));
      await crowd.end();
      const quiet = now();
      const want = await listed(truth, sandbox.uri);
      while (!follower.knows(want) && now() - quiet < EVER) await sleep(20);
      if (!follower.knows(want)) result.missed.push(`round ${round} (${upheaval}): ${follower.text()}\nis not ${want}`);
      if (round === Math.floor(rounds / 10)) result.rss[0] = rss();
      say(`${round} ${upheaval}: ${Math.round(quiet - at)} ms, known after ${Math.round(now() - quiet)} ms`);
    }
    result.rss[1] = rss();
  } finally {
    await follower.stop();
  }
  return result;
}

/** Has a watch, and beside it what its changes alone tell. */
class Follower {
  readonly #result: Restarts;
  readonly #told = new Map<string, WatchedDomain>();
  readonly #watch: Watch;

  constructor(uri: string, calls: LibvirtCalls, result: Restarts) {
    this.#result = result;
    let wasConnected = false;
    this.#watch = new Watch(calls, {
      uri,
      readOnly: true,
      deadlineMs: DEADLINE_MS,
      // Only events and reconnects may bring what it knows.
      refreshMs: 2 ** 31 - 1,
      wake: () => {
        const isConnected = this.#watch.why === null;
        if (wasConnected && !isConnected) result.lost += 1;
        wasConnected = isConnected;
      },
    });
  }

  knows(want: string): boolean {
    for (const { uuid, before, after } of this.#watch.take()) {
      this.#result.changes += 1;
      if (textOf(this.#told.get(uuid)) !== textOf(before)) this.#result.missed.push(`a change of ${uuid}`);
      if (after === null) this.#told.delete(uuid);
      else this.#told.set(uuid, after);
    }
    return this.#watch.why === null && textOfAll(this.#watch.domains) === want && textOfAll(this.#told) === want;
  }

  text(): string {
    return `${this.#watch.why}\n${textOfAll(this.#watch.domains)}`;
  }

  stop(): Promise<void> {
    return this.#watch.stop();
  }
}

/** Without host devices: this host can pass none through, so that no guest with one starts. */
const RUNNING = ['gpu1', 'gpu2', 'gpu3', 'gpu4'];
const DEFINED = Array.from({ length: 8 }, (_, i) => `gpu${16 + i}`);

/** While libvirtd is away a guest dies, and another is put beside it or removed. */
async function changeBehindIt(sandbox: LibvirtSandbox, round: number): Promise<void> {
  await sandbox.order(`kill-guest ${RUNNING[round % RUNNING.length]}`);
  const beside = join(sandbox.dir, 'etc/qemu/gpu32.xml');
  if (round % 8 < 4) writeFileSync(beside, sandboxGuest('gpu32', sandboxDevice('0000:21:11.0')));
  else rmSync(beside, { force: true });
}

/** Those who call in a loop, and one who changes guests. */
class Crowd {
  readonly #sandbox: LibvirtSandbox;
  readonly #calls: LibvirtCalls;
  readonly #result: Restarts;
  #isOn = false;
  #all: Promise<void>[] = [];

  constructor(sandbox: LibvirtSandbox, calls: LibvirtCalls, result: Restarts) {
    this.#sandbox = sandbox;
    this.#calls = calls;
    this.#result = result;
  }

  begin(): void {
    this.#isOn = true;
    this.#all = [this.#loop(true, ask), this.#loop(true, ask), this.#loop(false, change)];
  }

  /** Resolves when all their calls are back. */
  async end(): Promise<void> {
    this.#isOn = false;
    await Promise.all(this.#all);
  }

  /** Connects, does `body` again and again, and connects again when it fails, until it is enough. */
  async #loop(readOnly: boolean, body: (call: Call) => Promise<void>): Promise<void> {
    const { uri } = this.#sandbox;
    while (this.#isOn) {
      let connection: Connection | null = null;
      try {
        const opened = await this.#timed(() =>
          Connection.open(this.#calls, uri, { readOnly, deadlineMs: DEADLINE_MS }),
        );
        connection = opened;
        const call: Call = (op, text) => this.#timed(() => opened.call(op, text, 0, DEADLINE_MS));
        while (this.#isOn) await body(call);
      } catch (e) {
        if (!(e instanceof HostdevError)) throw e;
        // Where nobody listens this would go round and round.
        await sleep(20);
      } finally {
        connection?.close();
      }
    }
  }

  /** A call, counted. */
  async #timed<T>(begin: () => Promise<T>): Promise<T> {
    const at = now();
    this.#result.calls += 1;
    try {
      return await begin();
    } catch (e) {
      if (e instanceof HostdevError) this.#result.failed[e.code] = (this.#result.failed[e.code] ?? 0) + 1;
      throw e;
    } finally {
      this.#result.latest = Math.max(this.#result.latest, Math.round(now() - at - DEADLINE_MS));
    }
  }
}

type Call = (op: Parameters<Connection['call']>[0], text: string) => Promise<string[][]>;

const any = <T>(of: readonly T[]): T => of[Math.floor(Math.random() * of.length)] as T;

async function ask(call: Call): Promise<void> {
  await call('domain-xml', sandboxUuid(any(RUNNING)));
  await call('domains', '');
}

async function change(call: Call): Promise<void> {
  await call('define', sandboxGuest(any(DEFINED), sandboxDevice(`0000:21:1${any([1, 2, 3])}.${any([0, 2, 4])}`)));
  try {
    await call('undefine', sandboxUuid(any(DEFINED)));
  } catch (e) {
    if (!(e instanceof HostdevError && e.code === 'HOSTDEV_GUEST_ABSENT')) throw e;
  }
}

/** What a connection of its own lists. */
async function listed(calls: LibvirtCalls, uri: string): Promise<string> {
  const connection = await Connection.open(calls, uri, { readOnly: true, deadlineMs: EVER });
  try {
    const seen = await seeDomains(connection, () => EVER);
    return textOfAll(
      new Map(
        seen.map((d) => [d.uuid, { ...d, live: d.live?.devices ?? null, kept: d.kept?.devices ?? null }] as const),
      ),
    );
  } finally {
    connection.close();
  }
}

const textOf = (d: WatchedDomain | null | undefined): string => {
  if (d === null || d === undefined) return 'none';
  const devices = (of: WatchedDomain['live']): string => of?.devices.map((x) => x.address).join(',') ?? '-';
  return `${d.name} ${d.uuid} ${d.active} ${d.persistent} ${d.id} ${devices(d.live)} ${devices(d.kept)} ${d.why}`;
};

const textOfAll = (all: ReadonlyMap<string, WatchedDomain>): string => [...all.values()].map(textOf).sort().join('\n');

/** MiB. */
const rss = (): number => {
  globalThis.gc?.();
  return Math.round(process.memoryUsage().rss / 2 ** 20);
};
