/**
 * `attach` and `detach` between a libvirtd of the test's own and the simulated kernel. That libvirtd has no IOMMU, so
 * it refuses a live attach, and what was done before it is undone; what a guest is kept as it takes. Killed before
 * every change of the host and before and after every call of libvirt: what `status --fix` leaves is whole, in the
 * books, the guest's XML and the kernel.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { isLacking } from '../lacking.ts';
import { buildKiller } from '../libvirtd/killer.ts';
import { LibvirtSandbox, sandboxLacks } from '../libvirtd/sandbox.ts';
import { CLI } from '../mock/tree.ts';
import { EVER } from '../patience.ts';
import { describeSim, type SimHost, STORM, useSimHosts } from './simhost.ts';
import { A, B, bookText, C, snapshot, WORLD } from './world.ts';

const sims = useSimHosts();

type Scenario = {
  /** Words of hostdev before it; {@link LINE}'s own libvirt and root are added. */
  before: string[][];
  line: string[];
  exit: number;
};

/** A guest that runs without devices. */
const GUEST = 'gpu2';

const SCENARIOS: Record<string, Scenario> = {
  "managed='no', live refused": {
    before: [['hook', 'install']],
    line: ['attach', GUEST, C, '--managed', 'no'],
    exit: 1,
  },
  "managed='yes', live refused": { before: [], line: ['attach', GUEST, C, '--managed', 'yes'], exit: 1 },
  '--config': { before: [['hook', 'install']], line: ['attach', GUEST, C, '--managed', 'no', '--config'], exit: 0 },
  'a group, --config': { before: [], line: ['attach', GUEST, A, '--unassigned-peers', '--config'], exit: 0 },
  'detach --config': {
    before: [['attach', GUEST, C, '--managed', 'yes', '--config']],
    line: ['detach', GUEST, C, '--config'],
    exit: 0,
  },
  'detach of a group, --config': {
    before: [['attach', GUEST, A, '--unassigned-peers', '--config']],
    line: ['detach', GUEST, A, B, '--config'],
    exit: 0,
  },
};

/** What counts of it all: the kernel's state, the books, the devices that the guest is kept with. */
type World = { kernel: unknown; books: unknown; kept: string[] };

describe.skipIf(isLacking(sandboxLacks()))('with a libvirtd', () => {
  let sandbox: LibvirtSandbox;
  let killer: string;
  beforeAll(async () => {
    sandbox = await LibvirtSandbox.start();
    killer = buildKiller();
    await sandbox.define(GUEST);
    await sandbox.virsh(`start --paused ${GUEST}`);
  });
  afterAll(() => sandbox?.stop());

  const keptNow = async (): Promise<string[]> =>
    [...(await sandbox.virsh(`dumpxml --inactive ${GUEST}`)).matchAll(/ua-hostdev-([0-9a-f-]+)/g)].map(
      (m) => m[1] ?? '',
    );

  const worldOf = async (sim: SimHost): Promise<World> => ({
    kernel: snapshot(sim),
    books: bookText(sim.host()),
    kept: await keptNow(),
  });

  /** The guest as it was defined. */
  const fresh = async (scenario: Scenario): Promise<SimHost> => {
    await sandbox.define(GUEST);
    const sim = await sims.start(WORLD);
    for (const words of scenario.before) {
      const ran = sim.run(...words, ...(words[0] === 'attach' ? ['--connect', sandbox.uri] : []));
      expect(ran.exit, ran.err).toBe(0);
    }
    return sim;
  };

  /** One command, whose libvirt kills it at a point; how it ended, and how many points it passed. */
  const command = async (sim: SimHost, line: string[], at: number | null) => {
    const count = join(killer, 'count');
    const env = {
      ...process.env,
      LD_LIBRARY_PATH: killer,
      KILL_COUNT: count,
      ...(at === null ? {} : { KILL_AT: `${at}` }),
    };
    rmSync(count, { force: true });
    const child = spawn(process.execPath, [CLI, '--root', sim.root, ...line, '--connect', sandbox.uri], { env });
    let err = '';
    child.stderr.setEncoding('utf8').on('data', (d) => {
      err += d;
    });
    child.stdout.resume();
    const [exit, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
      child.once('close', (code, by) => resolve([code, by]));
    });
    return { exit, signal, err, points: existsSync(count) ? readFileSync(count).length : 0 };
  };

  describeSim('on the simulated kernel', () => {
    test.each(Object.entries(SCENARIOS))(
      '%s: killed at any change and around any call of libvirt',
      async (_name, scenario) => {
        const first = await fresh(scenario);
        const before = await worldOf(first);
        const from = first.count().changes;
        const whole = await command(first, scenario.line, null);
        expect(whole.exit, whole.err).toBe(scenario.exit);
        const after = await worldOf(first);
        if (scenario.exit !== 0) expect(after).toEqual(before);
        const changes = first.count().changes - from;
        await first.stop();
        expect(whole.points).toBeGreaterThan(3);
        const points = [
          ...Array.from({ length: changes }, (_, n) => ['change', n] as const),
          ...Array.from({ length: whole.points }, (_, n) => ['call', n] as const),
        ].filter((_, n, all) => STORM || n % Math.ceil(all.length / 6) === 0);
        for (const [kind, n] of points) {
          const sim = await fresh(scenario);
          if (kind === 'change') sim.ctl(`fault change * kill count=1 skip=${n}`);
          const killed = await command(sim, scenario.line, kind === 'call' ? n : null);
          sim.ctl('clear');
          const as = `killed at ${kind} ${n}: ${killed.err}`;
          expect(killed.signal, as).toBe('SIGKILL');
          const fixed = sim.run('status', '--fix', '--connect', sandbox.uri);
          expect(fixed.exit, `${as}\n${fixed.out}${fixed.err}`).toBe(0);
          expect([before, after], as).toContainEqual(await worldOf(sim));
          expect(sim.run('status').exit, as).toBe(0);
          await sim.stop();
        }
        process.stderr.write(`${_name}: ${points.length} of ${changes + whole.points} kills\n`);
      },
      EVER,
    );
  });
});
