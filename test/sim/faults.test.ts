/**
 * Every write of every kind of transaction fails, once and for good, in each way a write can: afterwards all is as
 * before or the journal says exactly what is not, the books say what the kernel shows, and the next try goes through.
 */
import { expect, test } from 'vitest';
import type { Host } from '../../src/host/host.ts';
import { EVER } from '../patience.ts';
import { describeSim, FULL, inPairs, type SimHost, until, useSimHosts } from './simhost.ts';
import {
  again,
  booksAgainst,
  bookText,
  bringHome,
  deviceOf,
  journalled,
  KINDS,
  type Kind,
  type Snapshot,
  snapshot,
  V,
  WORLD,
} from './world.ts';

const sims = useSimHosts();

const ONCE = ['EBUSY', 'EIO', 'ENODEV', 'ENOENT', 'ENOMEM'].map((e) => `errno=${e} count=1`);
/** `errno=EIO` stays: the undo fails too. `after` does what was asked for and denies it. */
const OTHERS = ['silent count=1', 'errno=EIO after count=1', 'errno=EIO'];

/** What is done to write number `nth`: where there are many, another errno to each. */
const faultsOf = (kind: Kind, nth: number): string[] => [
  ...(FULL || !kind.many ? ONCE : ONCE.slice(nth % ONCE.length, (nth % ONCE.length) + 1)),
  ...OTHERS,
];

type Books = Record<string, string>;

const OURS = 'run/hostdev/bindings/';
const isOurs = (path: string): boolean => path.startsWith(OURS);

/** How many writes the kind takes, and the state after it, without faults. */
async function measure(kind: Kind): Promise<{
  writes: number;
  /** How many changes of the files of our books. */
  own: number;
  original: Snapshot;
  before: Snapshot;
  after: Snapshot;
  booksBefore: Books;
  booksAfter: Books;
}> {
  const sim = await sims.start(WORLD);
  const host = sim.host();
  const original = snapshot(sim);
  await kind.setup(host);
  const before = snapshot(sim);
  const booksBefore = bookText(host);
  const from = sim.count();
  await kind.run(host, EVER);
  const { writes } = sim.count();
  const own = sim.changes().slice(from.changes).filter(isOurs).length;
  const after = snapshot(sim);
  const booksAfter = bookText(host);
  expect(after, 'the transaction changes something').not.toEqual(before);
  expect(journalled(host).addresses).toEqual([]);
  expect(booksAgainst(sim, host)).toEqual([]);
  if (kind.booked !== 'never') await bringHome(sim, host, original, kind);
  await sim.stop();
  return { writes: writes - from.writes, own, original, before, after, booksBefore, booksAfter };
}

/** Which of the kind's devices are not as in `then`. */
const differing = (now: Snapshot, then: Snapshot): string[] =>
  Object.keys(then)
    .filter((a) => now[a] !== then[a])
    .sort();

type Facts = Awaited<ReturnType<typeof measure>>;

function expectExact(sim: SimHost, host: Host, kind: Kind, facts: Facts, failed: boolean): void {
  const now = snapshot(sim);
  const { addresses, entries } = journalled(host);
  for (const e of entries) {
    expect(e.state, 'no transaction runs any more').not.toBe('intent');
    for (const d of e.devices) expect(e.left.join('; '), 'the journal says what is left').toContain(d.address);
  }
  if (!failed && kind.mayStayFree && now[V] === 'none (null)') {
    expect(addresses).toEqual([]);
  } else if (!failed) {
    expect(now).toEqual(facts.after);
    expect(addresses).toEqual([]);
  } else if (kind.atomic) {
    expect(differing(now, facts.before), 'all as before but what the journal names').toEqual(addresses);
  } else {
    const halfway = Object.keys(now).filter((a) => now[a] !== facts.before[a] && now[a] !== facts.after[a]);
    expect(halfway, 'each device is as before or has gone home, but for what the journal names').toEqual(addresses);
  }
  // The books: of a device that the journal names nothing can be said.
  const books = bookText(host);
  for (const a of Object.keys({ ...books, ...facts.booksBefore, ...facts.booksAfter })) {
    const device = deviceOf(a);
    if (addresses.includes(device)) continue;
    const then = now[device] === facts.after[device] ? facts.booksAfter : facts.booksBefore;
    const what = `${a} in the books, now that ${device} is ${now[device]}`;
    // A guest's claim ends with the guest, whether its device could go home or not.
    if (kind.atomic) expect(books[a], what).toEqual(then[a]);
    else expect(a in books, what).toBe(a in then);
  }
}

describeSim('every write fails', () => {
  for (const kind of KINDS) {
    test(kind.name, async () => {
      const facts = await measure(kind);
      expect(facts.writes).toBeGreaterThan(0);
      for (let nth = 0; nth < facts.writes; nth += 1) {
        for (const fault of faultsOf(kind, nth)) {
          const sim = await sims.start(WORLD);
          const host = sim.host();
          await kind.setup(host);
          const from = sim.count().writes;
          sim.ctl(`fault write sys/* ${fault} skip=${nth}`);
          const failure = await kind.run(host, EVER).then(
            () => null,
            (e: unknown) => e as Error,
          );
          const where = `${kind.name}, write ${nth + 1}, ${fault}: ${failure?.message ?? 'went through'}\n${sim.journal().slice(from).join('\n')}`;
          expect(sim.count().writes - from, where).toBeGreaterThan(nth);
          try {
            expectExact(sim, host, kind, facts, failure !== null);
            sim.ctl('clear');
            // What was not begun, was undone or half done: the next one brings it to its end.
            await again(kind, host);
            expect(snapshot(sim)).toEqual(facts.after);
            expect(journalled(host).addresses).toEqual([]);
            expect(booksAgainst(sim, host)).toEqual([]);
            expect(bookText(host)).toEqual(facts.booksAfter);
            const home = FULL || !kind.many || fault === OTHERS.at(-1);
            if (kind.booked !== 'never' && home) await bringHome(sim, host, facts.original, kind);
          } catch (e) {
            throw new Error(`${where}\n${(e as Error).message}`, { cause: e });
          }
          await sim.stop();
        }
      }
    });
  }
});

describeSim('the store is full', () => {
  for (const kind of KINDS) {
    test(kind.name, async () => {
      const facts = await measure(kind);
      const once = async (nth: number): Promise<void> => {
        const sim = await sims.start(WORLD);
        const host = sim.host();
        await kind.setup(host);
        const from = sim.count().changes;
        sim.ctl(`fault change ${OURS}* errno=ENOSPC count=1 skip=${nth}`);
        const failure = await kind.run(host, EVER).then(
          () => null,
          (e: unknown) => e as Error,
        );
        sim.ctl('clear');
        const changes = sim.changes().slice(from).filter(isOurs);
        const where = `${kind.name}, change ${nth + 1} (${changes[nth]}): ${failure?.message ?? 'went through'}`;
        expect(changes.length, where).toBeGreaterThan(nth);
        try {
          expectExact(sim, host, kind, facts, failure !== null);
          expect(journalled(host).addresses).toEqual([]);
          await again(kind, host);
          expect(snapshot(sim)).toEqual(facts.after);
          expect(bookText(host)).toEqual(facts.booksAfter);
        } catch (e) {
          throw new Error(`${where}\n${(e as Error).message}`, { cause: e });
        }
        await sim.stop();
      };
      await inPairs(Array.from({ length: facts.own }, (_, nth) => () => once(nth)));
    });
  }
});

async function hangOnce(kind: Kind, facts: Facts, nth: number): Promise<void> {
  const sim = await sims.start(WORLD);
  const host = sim.host();
  await kind.setup(host);
  const from = sim.count().writes;
  sim.ctl(`fault write sys/* hang count=1 skip=${nth}`);
  const began = performance.now();
  const failure = await kind.run(host, 1200).then(
    () => null,
    (e: unknown) => e as Error & { code?: string },
  );
  const ms = performance.now() - began;
  const where = `${kind.name}, write ${nth + 1} hung: ${failure?.message ?? 'went through'}\n${sim.journal().slice(from).join('\n')}`;
  try {
    expect(failure, 'it cannot have gone through').not.toBeNull();
    // A deadline of 1.2 s, on a machine that may be busy: without one it never comes back.
    expect(ms, 'it comes back by its deadline').toBeLessThan(EVER);
    const stuck = sim.hung();
    expect(stuck).toHaveLength(1);
    const { entries } = journalled(host);
    expect(entries.length, 'what is not known is in the journal').toBeGreaterThan(0);
    const said = entries.flatMap((e) => e.left).join('; ');
    for (const e of entries) for (const d of e.devices) expect(said).toContain(d.address);
    sim.ctl('clear', 'release');
    await until(() => sim.hung().length === 0, 'the hang ends');
    await settled(kind, host);
    expect(snapshot(sim)).toEqual(facts.after);
    expect(journalled(host).addresses).toEqual([]);
    expect(booksAgainst(sim, host)).toEqual([]);
    expect(bookText(host)).toEqual(facts.booksAfter);
    if (kind.booked !== 'never') await bringHome(sim, host, facts.original, kind);
  } catch (e) {
    throw new Error(`${where}\n${(e as Error).message}`, { cause: e });
  }
  await sim.stop();
}

describeSim('every write hangs', () => {
  for (const kind of KINDS) {
    test(kind.name, async () => {
      const facts = await measure(kind);
      await inPairs(Array.from({ length: facts.writes }, (_, nth) => () => hangOnce(kind, facts, nth)));
    });
  }
});

/**
 * The next commands after a hang has ended: the first may find the device busy for a moment more, never for good. It
 * raises that, or leaves the device in the journal, as a release does, for the one after it.
 */
async function settled(kind: Kind, host: Host): Promise<void> {
  for (const end = performance.now() + EVER; ; ) {
    try {
      await again(kind, host);
      if (journalled(host).addresses.length === 0 || performance.now() > end) return;
    } catch (e) {
      if (performance.now() > end) throw e;
    }
    await new Promise((r) => setTimeout(r, 50));
  }
}
