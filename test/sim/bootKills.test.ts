/**
 * `boot apply` is killed before its change number N (as a power cut of the process would); the next pass, and after a
 * reboot the first one, ends in the wished state. Twenty points spread over all changes; every one with
 * HOSTDEV_STORM=1.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, test } from 'vitest';
import { readJournal } from '../../src/binding/journal.ts';
import { describeSim, inPairs, type SimHost, STORM, until, useSimHosts } from './simhost.ts';
import { A, B, C, PF, snapshot, WORLD } from './world.ts';

const sims = useSimHosts();

const identity = (address: string, ids: string): string => {
  const [vendor, product] = ids.split(':');
  return `address = "${address}"\npath = "pci${address.slice(0, 7)}/${address.slice(8)}"\nvendor_id = "${vendor}"\nproduct_id = "${product}"\n`;
};
const WISHES = [
  `[[pf]]\n${identity(PF, '8086:10c9')}vfs = 2\n[[pf.range]]\nvfs = "1"\ndriver = "host"\n`,
  `[[device]]\n${identity(A, '8086:10d3')}driver = "vfio"\ngroup = "endpoints"\n`,
  `[[device]]\n${identity(C, '1234:11e8')}driver = "vfio"\n`,
].join('');

async function start(): Promise<SimHost> {
  const sim = await sims.start(WORLD);
  const file = sim.path('etc/hostdev/hostdev.toml');
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, WISHES);
  return sim;
}

const wished = (sim: SimHost): void => {
  const now = snapshot(sim);
  expect([now[A], now[B], now[C]].map((s) => s?.split(' ')[0])).toEqual(['vfio-pci', 'vfio-pci', 'vfio-pci']);
  expect(now[PF]).toMatch(/numvfs 2 autoprobe 1.*0000:34:10\.0 vfio-pci.*0000:34:10\.2 igbvf/);
};

describeSim('killed', () => {
  test('the next pass ends in the wished state, whatever the killed one had done', async () => {
    const whole = await start();
    const from = whole.count().changes;
    const ran = whole.run('boot', 'apply', '-j');
    expect(ran.exit, ran.out).toBe(0);
    wished(whole);
    const changes = whole.count().changes - from;
    const writes = whole.count().writes;
    expect(whole.run('boot', 'apply').exit).toBe(0);
    expect(whole.count().writes).toBe(writes);
    await whole.stop();
    const points = STORM
      ? Array.from({ length: changes }, (_, n) => n)
      : Array.from({ length: 20 }, (_, n) => Math.floor((n * changes) / 20));
    await inPairs(
      points.map((nth) => async () => {
        const sim = await start();
        sim.ctl(`fault change * kill count=1 skip=${nth}`);
        const killed = await sim.spawn(['boot', 'apply']).ended;
        sim.ctl('clear');
        expect(killed.signal, `${nth}: ${killed.exit} ${killed.err}`).toBe('SIGKILL');
        await until(() => sim.hung().length === 0, 'nothing hangs');
        const next = sim.run('boot', 'apply', '-j');
        expect(next.exit, `${nth}: ${next.out}`).toBe(0);
        wished(sim);
        expect(readJournal(sim.host()).entries).toEqual([]);
        await sim.stop();
      }),
    );
  });

  test('a reboot: no books, no journal, every device on its host driver again', async () => {
    const sim = await start();
    expect(sim.run('boot', 'apply').exit).toBe(0);
    await sim.stop();
    const again = await start();
    rmSync(again.path('run/hostdev'), { recursive: true, force: true });
    expect(again.run('boot', 'apply').exit).toBe(0);
    wished(again);
  });
});
