/**
 * While one device hangs the host goes on: every other command answers, every other device can be had, and when it is
 * over the books are right.
 */
import { closeSync, openSync } from 'node:fs';
import { expect, test } from 'vitest';
import { domainXml, UUID_B } from '../mock/hosts.ts';
import { EVER } from '../patience.ts';
import { describeSim, type Running, type SimHost, until, useSimHosts } from './simhost.ts';
import { A, B, booked, booksAgainst, bringHome, C, D, DOMAIN_XML, journalled, snapshot, WORLD } from './world.ts';

const sims = useSimHosts();

/** Whoever waits behind the hang waits for it to end, and it ends only when the test says so. */
const ANSWER_MS = EVER;

const other = domainXml('other', UUID_B, [{ address: C }]);

/** All that must answer while one device hangs. */
async function othersAnswer(sim: SimHost, stuck: string): Promise<void> {
  // One after another: what is measured is the command, not how many a busy machine starts at once.
  const asked: [string, string[]][] = [
    ['list', ['list', '-j']],
    ['show of it', ['show', stuck, '-j']],
    ['show of another', ['show', C, '-j']],
    ['status', ['status', '-j']],
    ['group list', ['group', 'list', '-j']],
  ];
  for (const [what, args] of asked) {
    const { ms, exit, err, json } = await sim.spawn(args).ended;
    expect(ms, what).toBeLessThan(ANSWER_MS);
    expect([0, 3], `${what}: ${err}`).toContain(exit);
    if (what === 'show of it') expect(json.device.stuck).toBe(true);
    if (what === 'show of another') expect(json.device.stuck).toBe(false);
  }
  for (const [operation, sub] of [
    ['prepare', 'begin'],
    ['start', 'begin'],
    ['release', 'end'],
  ] as const) {
    const { ms, exit, err } = await sim.spawn(['hook', 'run', 'other', operation, sub, '-'], other.toString()).ended;
    expect(exit, `${operation}: ${err}`).toBe(0);
    expect(ms, operation).toBeLessThan(ANSWER_MS);
  }
}

/** A `bind` or `unbind` that meets the hang, given time until its deadline. */
async function givesUp(running: Running): Promise<void> {
  const { exit, ms, err } = await running.ended;
  expect([7, 9], err).toContain(exit);
  expect(ms).toBeLessThan(EVER);
}

async function booksRightAgain(sim: SimHost, original: ReturnType<typeof snapshot>, devices = [D]): Promise<void> {
  const host = sim.host();
  await until(() => sim.hung().length === 0, 'nothing hangs');
  for (const end = performance.now() + EVER; ; ) {
    const { exit, err } = await sim.spawn(['bind', ...devices]).ended;
    if (exit === 0) break;
    if (performance.now() > end) throw new Error(err);
  }
  expect(booksAgainst(sim, host)).toEqual([]);
  expect(booked(host)).toEqual(devices);
  expect(journalled(host).addresses).toEqual([]);
  await bringHome(sim, host, original);
}

describeSim('a write that hangs', () => {
  test('before the driver has let go', async () => {
    const sim = await sims.start(WORLD);
    const original = snapshot(sim);
    sim.ctl('fault write sys/bus/pci/drivers/e1000e/unbind hang count=1');
    const hook = ['hook', 'run', 'guest', 'prepare', 'begin', '-', '--deadline-ms', '12000'];
    const prepare = sim.spawn(hook, DOMAIN_XML);
    await until(() => sim.hung().length === 1, 'the unbind hangs');
    // The first that came; its peer's goes on beside it.
    const stuck =
      sim
        .journal()
        .find((line) => line.includes('unbind='))
        ?.split('=')[1] ?? '';
    expect([A, B]).toContain(stuck);
    await othersAnswer(sim, stuck);
    const { ms, exit, err } = await prepare.ended;
    expect(ms).toBeLessThan(EVER);
    expect([7, 9], err).toContain(exit);
    expect(err).toContain(stuck);
    await othersAnswer(sim, stuck);
    sim.ctl('clear', 'release');
    await booksRightAgain(sim, original, [A, B]);
  });

  test("in the driver's remove: its link is gone already", async () => {
    const sim = await sims.start(WORLD);
    const original = snapshot(sim);
    sim.ctl('driver e1000e remove_hang=1');
    const bind = sim.spawn(['bind', D]);
    await until(() => sim.hung().length === 1, 'the remove hangs');
    await othersAnswer(sim, D);
    sim.ctl('driver e1000e remove_hang=0', 'release');
    const { exit, err } = await bind.ended;
    expect(exit, err).toBe(0);
    await booksRightAgain(sim, original);
  });

  test('on the way back: the device is in the books, and status says so all the same', async () => {
    const sim = await sims.start(WORLD);
    const original = snapshot(sim);
    expect(sim.run('bind', D).exit).toBe(0);
    sim.ctl('fault write sys/bus/pci/drivers/vfio-pci/unbind hang count=1');
    const unbind = sim.spawn(['unbind', D]);
    await until(() => sim.hung().length === 1, 'the unbind hangs');
    await othersAnswer(sim, D);
    await givesUp(unbind);
    await othersAnswer(sim, D);
    // Nobody waits behind it a second time.
    const refused = await sim.spawn(['unbind', D]).ended;
    expect(refused.exit, refused.err).not.toBe(0);
    expect(refused.ms).toBeLessThan(ANSWER_MS);
    expect(refused.err).toContain(D);
    sim.ctl('clear', 'release');
    await booksRightAgain(sim, original);
  });

  test('a device that a guest holds is refused by name; one that is taken at the last moment hangs until it is let go', async () => {
    const sim = await sims.start(WORLD);
    const original = snapshot(sim);
    const host = sim.host();
    expect(sim.run('bind', D).exit).toBe(0);
    const group = sim.path('dev/vfio/22');
    const held = openSync(group, 'r+');
    const refused = sim.run('unbind', D);
    expect(refused.exit).toBe(5);
    expect(refused.err).toContain(`process ${process.pid}`);
    expect(refused.err).toContain('/dev/vfio/22');
    closeSync(held);
    await until(() => sim.run('unbind', D, '-n').exit === 0, 'nobody holds it');
    // Between the look and the write.
    sim.ctl(`fault write sys/bus/pci/drivers/vfio-pci/unbind delay=400 count=1`);
    const unbind = sim.spawn(['unbind', D]);
    await until(
      () => sim.journal().some((l) => l === `sys/bus/pci/drivers/vfio-pci/unbind=${D}`),
      'the unbind has come',
    );
    const again = openSync(group, 'r+');
    await until(() => sim.hung().length === 1, 'the unbind hangs');
    closeSync(again);
    const { exit, err } = await unbind.ended;
    expect(exit, err).toBe(0);
    expect(snapshot(sim)).toEqual(original);
    expect([...booked(host), ...journalled(host).addresses]).toEqual([]);
  });
});
