/**
 * The command is killed (SIGKILL, with the helper that writes for it) before and after its change number N, for every
 * N: every write to sysfs and every change of our own state. Whoever comes by next, and whichever way, finds what there
 * is and puts it right in full. `npm run storm` takes every way at every point; here each point has one of them.
 */
import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { readEntry, readJournal } from '../../src/binding/journal.ts';
import { describeSim, FULL, inPairs, type SimHost, STORM, until, useSimHosts } from './simhost.ts';
import { come, expectWhole, type Facts, WAYS, type Way } from './ways.ts';
import { bookText, bringHome, journalled, KINDS, type Kind, snapshot, WORLD } from './world.ts';

const sims = useSimHosts();

/** How many changes the command asks for, and what is after it, when nobody kills it. */
async function measure(kind: Kind): Promise<Facts> {
  const sim = await sims.start(WORLD);
  const host = sim.host();
  const original = snapshot(sim);
  await kind.setup(host);
  const before = snapshot(sim);
  const booksBefore = bookText(host);
  const from = sim.count().changes;
  const ran = await sim.spawn(kind.command, kind.input).ended;
  expect(ran.exit, ran.err).toBe(0);
  const changes = sim.changes().slice(from);
  const after = snapshot(sim);
  expect(after).not.toEqual(before);
  const booksAfter = bookText(host);
  await sim.stop();
  return { changes, original, before, after, booksBefore, booksAfter };
}

/** Files that a killed process left beside the real ones: the next one sweeps them. */
function litter(sim: SimHost): string[] {
  return ['bindings', 'journal'].flatMap((folder) => {
    try {
      return readdirSync(sim.path(`run/hostdev/${folder}`)).filter((n) => !n.endsWith('.json'));
    } catch {
      return [];
    }
  });
}

async function killOnce(kind: Kind, facts: Facts, nth: number, when: 'before' | 'after', way: Way): Promise<void> {
  const sim = await sims.start(WORLD);
  const host = sim.host();
  await kind.setup(host);
  sim.ctl(`fault change * kill count=1 skip=${nth}${when === 'after' ? ' after' : ''}`);
  const ran = await sim.spawn(kind.command, kind.input).ended;
  sim.ctl('clear');
  expect(ran.signal, `${ran.exit} ${ran.err}`).toBe('SIGKILL');
  // The helper's last write may still be on its way.
  await until(() => sim.hung().length === 0, 'nothing hangs');
  // What the kernel shows now is neither here nor there; what the books and the journal say together must be enough to
  // go on in either direction.
  const known = new Set([...journalled(host).addresses]);
  for (const [a, state] of Object.entries(snapshot(sim)))
    if (state !== facts.before[a] && state !== facts.after[a]) expect([...known], `${a} is ${state}`).toContain(a);
  const [entry] = readJournal(host).entries;
  await come(way, kind, host);
  const side = expectWhole(sim, host, facts);
  if (way === 'next command') expect(side).toBe('after');
  else if (entry?.mark != null) expect(side, 'it had its mark').toBe('after');
  else if (entry !== undefined && way.startsWith('journal'))
    expect(side, 'the person chose').toBe(way === 'journal undo' ? 'before' : 'after');
  expect(entry === undefined ? null : readEntry(host, entry.id)).toBeNull();
  if (entry !== undefined || way === 'next command') expect(litter(sim)).toEqual([]);
  if (kind.booked !== 'never') await bringHome(sim, host, facts.original, kind);
  await sim.stop();
}

/**
 * In full before and after every change. Between one change of our own files and the next nothing happens in the world;
 * a write to sysfs is the helper's, which may live on. Before a write right after another's end is that end once more:
 * left out where there are many.
 */
function momentsOf(kind: Kind, changes: readonly string[], nth: number): ('before' | 'after')[] {
  const written = (path: string | undefined): boolean => path?.startsWith('sys/') ?? false;
  if (FULL) return ['before', 'after'];
  if (nth < changes.length - 1 && !written(changes[nth])) return ['before'];
  return kind.many && written(changes[nth - 1]) ? ['after'] : ['before', 'after'];
}

describeSim('killed before and after every change', () => {
  let killed = 0;
  for (const kind of KINDS) {
    test(kind.name, async () => {
      const facts = await measure(kind);
      expect(facts.changes.length).toBeGreaterThan(6);
      const last = facts.changes.length - 1;
      let turn = 0;
      const cases = facts.changes.flatMap((path, nth) =>
        momentsOf(kind, facts.changes, nth).flatMap((when) =>
          (STORM ? WAYS : [WAYS[turn++ % WAYS.length] ?? 'hook']).map((way) => async () => {
            try {
              await killOnce(kind, facts, nth, when, way);
              killed += 1;
            } catch (e) {
              const where = `${kind.name}, killed ${when} change ${nth + 1} of ${last + 1} (${path}), then ${way}`;
              throw new Error(`${where}: ${(e as Error).message}`, { cause: e });
            }
          }),
        ),
      );
      await inPairs(cases);
    });
  }

  test('in all', () => {
    process.stdout.write(`killed and put right: ${killed} times\n`);
    expect(killed).toBeGreaterThan(100);
  });
});
