/**
 * By chance: commands are killed, and whoever comes to put it right is killed too; commands of every kind on one living
 * host, with guests, while others rename files as fast as they can. The seed is printed; HOSTDEV_STORM_SEED repeats a
 * run. `npm run storm` makes 2,000 pairs and 1,000 iterations.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readBooks } from '../../src/binding/books.ts';
import { domainXml, UUID_A, UUID_B } from '../mock/hosts.ts';
import { EVER } from '../patience.ts';
import { describeSim, inPairs, type SimHost, STORM, until, useSimHosts } from './simhost.ts';
import { come, expectWhole, type Facts, WAYS, wordsOf } from './ways.ts';
import {
  A,
  B,
  booked,
  booksAgainst,
  bookText,
  C,
  D,
  journalled,
  KINDS,
  type Kind,
  PF,
  snapshot,
  WORLD,
} from './world.ts';

const sims = useSimHosts();
const SEED = Number(process.env.HOSTDEV_STORM_SEED ?? Date.now() % 1_000_000);
const PAIRS = Number(process.env.HOSTDEV_STORM_PAIRS ?? (STORM ? 2000 : 100));
const ITERATIONS = Number(process.env.HOSTDEV_STORM_ITERATIONS ?? (STORM ? 1000 : 40));

/** A small generator, so that a run can be repeated. */
class Chance {
  #state: number;
  constructor(seed: number) {
    this.#state = (seed * 2654435761) % 2147483648 || 1;
  }
  below(n: number): number {
    this.#state = (this.#state * 1103515245 + 12345) % 2147483648;
    return Math.floor((this.#state / 2147483648) * n);
  }
  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }
  some<T>(list: readonly T[], n: number): T[] {
    const rest = [...list];
    return Array.from({ length: n }, () => rest.splice(this.below(rest.length), 1)[0] as T);
  }
}

async function measure(kind: Kind): Promise<Facts> {
  const sim = await sims.start(WORLD);
  const host = sim.host();
  const original = snapshot(sim);
  await kind.setup(host);
  const [before, booksBefore] = [snapshot(sim), bookText(host)];
  const from = sim.count().changes;
  await sim.spawn(kind.command, kind.input).ended;
  const changes = sim.changes().slice(from);
  const [after, booksAfter] = [snapshot(sim), bookText(host)];
  await sim.stop();
  return { changes, original, before, after, booksBefore, booksAfter };
}

describeSim('killed, and killed again while it is put right', () => {
  test(`${PAIRS} pairs, seed ${SEED}`, { timeout: 24 * EVER }, async () => {
    process.stdout.write(`pairs of kills: ${PAIRS}, HOSTDEV_STORM_SEED=${SEED}\n`);
    const facts = new Map<Kind, Facts>();
    for (const kind of KINDS) facts.set(kind, await measure(kind));
    const pairOnce = async (number: number): Promise<void> => {
      const chance = new Chance(SEED * 1000 + number);
      const kind = chance.of(KINDS);
      const known = facts.get(kind) as Facts;
      const [first, way, last] = [chance.below(known.changes.length), chance.of(WAYS), chance.of(WAYS)];
      const second = chance.below(14);
      const sim = await sims.start(WORLD);
      const host = sim.host();
      await kind.setup(host);
      sim.ctl(`fault change * kill count=1 skip=${first}`);
      await sim.spawn(kind.command, kind.input).ended;
      sim.ctl('clear');
      await until(() => sim.hung().length === 0, 'nothing hangs');
      const { args, input } = wordsOf(way, kind);
      sim.ctl(`fault change * kill count=1 skip=${second}${chance.below(2) ? ' after' : ''}`);
      const again = await sim.spawn(args, input).ended;
      sim.ctl('clear');
      await until(() => sim.hung().length === 0, 'nothing hangs');
      try {
        expect([70, 7], again.err).not.toContain(again.exit);
        // A guest that the second way prepared ends again.
        if (way === 'hook') await come('hook', kind, host);
        await come(last === 'next command' ? 'status --fix' : last, kind, host);
        await come('status --fix', kind, host);
        // The same command a second time may have got to its end where the first had been undone, and the other way
        // round.
        expectWhole(sim, host, known);
      } catch (e) {
        const where = `pair ${number} of seed ${SEED}: ${kind.name} killed at ${first}, ${way} at ${second} (${again.signal ?? again.exit}), then ${last}`;
        throw new Error(`${where}: ${(e as Error).message}`, { cause: e });
      }
      await sim.stop();
    };
    await inPairs(Array.from({ length: PAIRS }, (_, n) => () => pairOnce(n)));
  });
});

describeSim('mixed verbs on one host, killed by chance, with two rename loops beside them', () => {
  const folder = mkdtempSync(join(tmpdir(), 'hostdev-renames-'));
  const loops: ChildProcess[] = [];
  beforeAll(() => {
    for (let n = 0; n < 2; n += 1) {
      const [a, b] = [join(folder, `a${n}`), join(folder, `b${n}`)];
      writeFileSync(a, '');
      const loop = `const f=require('fs');for(;;){f.renameSync('${a}','${b}');f.renameSync('${b}','${a}')}`;
      loops.push(spawn(process.execPath, ['-e', loop], { stdio: 'ignore' }));
    }
  });
  afterAll(() => {
    for (const loop of loops) loop.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });

  const guest = (uuid: string, devices: readonly string[]): string =>
    domainXml(
      uuid === UUID_A ? 'ga' : 'gb',
      uuid,
      devices.map((address) => ({ address })),
    ).toString();

  function verb(chance: Chance, sim: SimHost): { args: string[]; input: string } {
    const devices = chance.some([A, B, C, D], 1 + chance.below(3));
    const both = devices.includes(A) !== devices.includes(B) ? [...new Set([...devices, A, B])] : devices;
    const uuid = chance.of([UUID_A, UUID_B]);
    const name = uuid === UUID_A ? 'ga' : 'gb';
    const hook = (operation: string, list: readonly string[]) => ({
      args: ['hook', 'run', name, operation, operation === 'release' ? 'end' : 'begin', '-'],
      input: guest(uuid, list),
    });
    const plain = (...args: string[]) => ({ args, input: '' });
    switch (chance.below(12)) {
      case 0:
        return plain('bind', ...devices);
      case 1:
        return plain('unbind', ...devices);
      case 2:
      case 3:
        return hook('prepare', both);
      case 4:
      case 5:
        return hook('release', both);
      case 6:
        return plain(
          'vf',
          'create',
          PF,
          '--count',
          `${1 + chance.below(3)}`,
          '--for',
          chance.of(['vfio', 'netdev']),
          '--recreate',
        );
      case 7:
        return plain('vf', 'remove', PF);
      case 8:
        return plain('status', '--fix');
      case 9: {
        const vfs = Object.keys(statesOfVfs(sim));
        if (vfs.length === 0) return plain('bind', PF, '--allow=vfs');
        const vf = chance.of(vfs);
        return chance.of([plain('bind', vf), plain('unbind', vf), hook('prepare', [vf]), hook('release', [vf])]);
      }
      case 10:
        return chance.of([plain('bind', PF, '--allow=vfs'), plain('journal', 'undo'), plain('journal', 'resume')]);
      default:
        return plain('unbind', PF, '--allow=vfs');
    }
  }

  const statesOfVfs = (sim: SimHost): Record<string, string> =>
    Object.fromEntries(
      (snapshot(sim)[PF] ?? '')
        .split(', ')
        .slice(2)
        .map((t) => [t.slice(0, t.indexOf(' ')), t]),
    );

  test(`${ITERATIONS} iterations, seed ${SEED}`, { timeout: 24 * EVER }, async () => {
    process.stdout.write(`mixed verbs: ${ITERATIONS}, HOSTDEV_STORM_SEED=${SEED}\n`);
    const chance = new Chance(SEED);
    let sim = await sims.start(WORLD);
    const original = snapshot(sim);
    const history: string[] = [];
    let kills = 0;
    const run = async (what: { args: string[]; input: string }, kill: boolean) => {
      if (kill)
        sim.ctl(`fault change * kill count=1 skip=${chance.below(chance.of([8, 20]))}${chance.of(['', ' after'])}`);
      const ran = await sim.spawn(what.args, what.input).ended;
      sim.ctl('clear');
      if (ran.signal !== null) kills += 1;
      history.push(`${what.args.join(' ')} -> ${ran.signal ?? ran.exit}`);
      expect([70, 7], `${history.slice(-6).join(' | ')}\n${ran.err}`).not.toContain(ran.exit);
      return ran;
    };
    const fix = { args: ['status', '--fix'], input: '' };
    for (let i = 0; i < ITERATIONS; i += 1) {
      const first = await run(verb(chance, sim), chance.below(3) > 0);
      if (first.signal !== null && chance.below(10) < 6) await run(chance.of([fix, verb(chance, sim)]), true);
      await until(() => sim.hung().length === 0, 'nothing hangs');
      const ran = await run(fix, false);
      const host = sim.host();
      const told = `iteration ${i}, seed ${SEED}: ${history.slice(-6).join(' | ')}\n${ran.out}${ran.err}`;
      expect(ran.exit, told).toBe(0);
      expect(journalled(host).entries, told).toEqual([]);
      expect(booksAgainst(sim, host), told).toEqual([]);
      if (i % 12 !== 11 && i !== ITERATIONS - 1) continue;
      for (const uuid of [UUID_A, UUID_B])
        await run({ args: ['hook', 'run', 'g', 'release', 'end', '-'], input: guest(uuid, [A]) }, false);
      if (booked(host).includes(PF)) await run({ args: ['unbind', PF, '--allow=vfs'], input: '' }, false);
      const mine = readBooks(host).books.map((b) => b.address);
      for (const a of mine.filter((x) => [A, B, C, D].includes(x)))
        await run({ args: ['unbind', a], input: '' }, false);
      await run({ args: ['vf', 'remove', PF], input: '' }, false);
      expect(snapshot(sim), told).toEqual(original);
      expect(booked(host), told).toEqual([]);
      await sim.stop();
      sim = await sims.start(WORLD);
    }
    process.stdout.write(`mixed verbs: ${ITERATIONS} iterations, ${kills} kills, 0 anomalies\n`);
  });
});
