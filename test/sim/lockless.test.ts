/**
 * Somebody deletes the files of the locks all the time: flock(2) keeps nobody out then, and the journal does. Two
 * transactions at once on one device would end in exit 7 and in books that say otherwise than the kernel.
 */
import { readdirSync, rmSync } from 'node:fs';
import { expect, test } from 'vitest';
import { describeSim, until, useSimHosts } from './simhost.ts';
import { A, B, booksAgainst, C, journalled, PF, WORLD } from './world.ts';

const sims = useSimHosts();

const VERBS: string[][] = [
  ['bind', A, B],
  ['unbind', A, B],
  ['bind', B, C],
  ['unbind', C],
  ['vf', 'create', PF, '--count', '2', '--for', 'vfio'],
  ['vf', 'remove', PF],
  ['bind', PF, '--allow=vfs'],
  ['status', '--fix'],
];

describeSim('locks that are taken away', () => {
  test('never two transactions at once: no undo fails, and books are what the kernel is', async () => {
    const sim = await sims.start(WORLD);
    const locks = sim.path('run/hostdev/lock');
    const deleter = setInterval(() => {
      try {
        for (const name of readdirSync(locks)) rmSync(`${locks}/${name}`, { force: true });
      } catch {
        // Not made yet.
      }
    }, 2);
    const codes = new Set<number | null>();
    try {
      for (let round = 0; round < 3; round += 1) {
        const running = Array.from({ length: 4 }, () => VERBS.map((verb) => sim.spawn(verb))).flat();
        for (const r of await Promise.all(running.map((one) => one.ended))) codes.add(r.exit);
      }
    } finally {
      clearInterval(deleter);
    }
    expect([...codes].filter((c) => c === null || [7, 70].includes(c))).toEqual([]);
    sim.run('status', '--fix');
    const host = sim.host();
    expect(journalled(host).addresses).toEqual([]);
    expect(booksAgainst(sim, host)).toEqual([]);
  });

  test('a process that is at work is named as that, and nobody is told to undo it', async () => {
    const sim = await sims.start(WORLD);
    sim.ctl('fault write sys/bus/pci/drivers/e1000e/unbind delay=12000 count=1');
    const binding = sim.spawn(['bind', A]);
    await until(() => sim.journal().some((line) => line.includes('e1000e/unbind')), 'it writes');
    const status = sim.run('status');
    expect([status.exit, status.out]).toEqual([0, expect.stringMatching(/process \d+ is at work: bind for admin/)]);
    expect(status.out).not.toContain('journal undo');
    expect(sim.run('journal', 'list').out).toMatch(/process \d+ is at work/);
    // A dry run waits for it, as the real run does.
    const dry = await sim.spawn(['unbind', '-n', A]).ended;
    expect([dry.exit, dry.out]).toEqual([0, expect.stringContaining(A)]);
    expect((await binding.ended).exit).toBe(0);
  });
});
