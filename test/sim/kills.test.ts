/**
 * The command is killed (SIGKILL, with the helper that writes for it) before and after its change number N, for every N: every write to sysfs and every change of our own
 * state. The next hostdev that comes by finds what there is and puts it right.
 */
import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { describeSim, FULL, inPairs, type SimHost, until, useSimHosts } from './simhost.ts';
import {
  again,
  booksAgainst,
  bookText,
  bringHome,
  journalled,
  KINDS,
  type Kind,
  type Snapshot,
  snapshot,
  V,
  WORLD,
} from './world.ts';

const sims = useSimHosts();

type Facts = {
  changes: string[];
  original: Snapshot;
  before: Snapshot;
  after: Snapshot;
  booksAfter: Record<string, string>;
};

/** How many changes the command asks for, and what is after it, when nobody kills it. */
async function measure(kind: Kind): Promise<Facts> {
  const sim = await sims.start(WORLD);
  const host = sim.host();
  const original = snapshot(sim);
  await kind.setup(host);
  const before = snapshot(sim);
  const from = sim.count().changes;
  const ran = await sim.spawn(kind.command, kind.input).ended;
  expect(ran.exit, ran.err).toBe(0);
  const changes = sim.changes().slice(from);
  const after = snapshot(sim);
  expect(after).not.toEqual(before);
  const booksAfter = bookText(host);
  await sim.stop();
  return { changes, original, before, after, booksAfter };
}

/** Files that a killed process left beside the real ones: they hurt nobody, but they must not grow. */
function litter(sim: SimHost): string[] {
  return ['bindings', 'journal'].flatMap((folder) => {
    try {
      return readdirSync(sim.path(`run/hostdev/${folder}`)).filter((n) => !n.endsWith('.json'));
    } catch {
      return [];
    }
  });
}

async function killOnce(kind: Kind, facts: Facts, nth: number, when: 'before' | 'after'): Promise<void> {
  const sim = await sims.start(WORLD);
  const host = sim.host();
  await kind.setup(host);
  sim.ctl(`fault change * kill count=1 skip=${nth}${when === 'after' ? ' after' : ''}`);
  const ran = await sim.spawn(kind.command, kind.input).ended;
  sim.ctl('clear');
  expect(ran.signal, `${ran.exit} ${ran.err}`).toBe('SIGKILL');
  // The helper's last write may still be on its way.
  await until(() => sim.hung().length === 0, 'nothing hangs');
  // What the kernel shows now is neither here nor there; what the books and the journal say together must be enough to go on in either direction.
  const known = new Set([...journalled(host).addresses]);
  for (const [a, state] of Object.entries(snapshot(sim)))
    if (state !== facts.before[a] && state !== facts.after[a]) expect([...known], `${a} is ${state}`).toContain(a);
  if (nth % 2 === 0) {
    await again(kind, host);
    expect(snapshot(sim)).toEqual(facts.after);
    expect(booksAgainst(sim, host)).toEqual([]);
    expect(bookText(host)).toEqual(facts.booksAfter);
    // A release that finds its books closed has no group to look at: what its forerunner left in the journal, done as it is, goes with the next command there.
    if (kind.name !== 'hook release') expect(journalled(host).addresses).toEqual([]);
  }
  if (kind.booked !== 'never') await bringHome(sim, host, facts.original, kind);
  else {
    await again(kind, host);
    expect(snapshot(sim)[V]).toBe(facts.after[V]);
  }
  expect(litter(sim).length).toBeLessThan(2);
  await sim.stop();
}

/**
 * HOSTDEV_SIM_FULL=1: before and after every change. Between one change of our own files and the next nothing happens in the world; a write to sysfs is the helper's,
 * which may live on. Before a write right after another's end is that end once more: left out where there are many.
 */
function momentsOf(kind: Kind, changes: readonly string[], nth: number): ('before' | 'after')[] {
  const written = (path: string | undefined): boolean => path?.startsWith('sys/') ?? false;
  if (FULL) return ['before', 'after'];
  if (nth < changes.length - 1 && !written(changes[nth])) return ['before'];
  return kind.many && written(changes[nth - 1]) ? ['after'] : ['before', 'after'];
}

describeSim('killed before and after every change', () => {
  for (const kind of KINDS) {
    test(kind.name, { timeout: 120_000 }, async () => {
      const facts = await measure(kind);
      expect(facts.changes.length).toBeGreaterThan(6);
      const last = facts.changes.length - 1;
      const cases = facts.changes.flatMap((path, nth) =>
        momentsOf(kind, facts.changes, nth).map((when) => async () => {
          try {
            await killOnce(kind, facts, nth, when);
          } catch (e) {
            const where = `${kind.name}, killed ${when} change ${nth + 1} of ${last + 1} (${path})`;
            throw new Error(`${where}: ${(e as Error).message}`, { cause: e });
          }
        }),
      );
      await inPairs(cases);
    });
  }
});
