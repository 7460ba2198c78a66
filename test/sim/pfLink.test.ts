/**
 * A PF whose driver makes VFs only while its link is up, on the simulated kernel: by hand and at the boot; killed
 * anywhere, the next command finds the link and the VFs as they are to be.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, test } from 'vitest';
import { readJournal } from '../../src/binding/journal.ts';
import { BNXT, bnxtHost } from '../mock/net.ts';
import { describeSim, inPairs, type SimHost, STORM, until, useSimHosts } from './simhost.ts';

const sims = useSimHosts();

const state = (sim: SimHost): string[] => [
  readFileSync(sim.path('sys/class/net/eth9/flags'), 'utf8').trim(),
  readFileSync(sim.path(`sys/bus/pci/devices/${BNXT}/sriov_numvfs`), 'utf8').trim(),
];
const DOWN = '0x1002';
const UP = '0x1003';
const CREATE = ['vf', 'create', BNXT, '--count', '2'];

describeSim('a link that must be up', () => {
  test.each(['bnxt_en', 'bnx2x'] as const)('%s: vf create and vf remove, and nothing in a dry run', async (driver) => {
    const sim = await sims.start(bnxtHost(driver));
    const dry = sim.run('-n', ...CREATE);
    expect([dry.exit, dry.out, state(sim)]).toEqual([
      0,
      expect.stringContaining('"0x1003" > /sys/class/net/eth9/flags'),
      [DOWN, '0'],
    ]);
    expect([sim.run(...CREATE).exit, state(sim)]).toEqual([0, [UP, '2']]);
    expect([sim.run('vf', 'remove', BNXT).exit, state(sim)]).toEqual([0, [UP, '0']]);
  });

  test('killed at points spread over all changes: undone with its link, then done', async () => {
    const whole = await sims.start(bnxtHost());
    const from = whole.count().changes;
    expect(whole.run(...CREATE).exit).toBe(0);
    const changes = whole.count().changes - from;
    await whole.stop();
    const most = STORM ? changes : 6;
    await inPairs(
      Array.from({ length: most }, (_, n) => Math.floor((n * changes) / most)).map((nth) => async () => {
        const sim = await sims.start(bnxtHost());
        sim.ctl(`fault change * kill count=1 skip=${nth}`);
        const killed = await sim.spawn(CREATE).ended;
        sim.ctl('clear');
        expect(killed.signal, `${nth}: ${killed.exit} ${killed.err}`).toBe('SIGKILL');
        await until(() => sim.hung().length === 0, 'nothing hangs');
        sim.run('status', '--fix');
        expect(readJournal(sim.host()).entries).toEqual([]);
        expect([[DOWN, '0'].join(), [UP, '2'].join()]).toContain(state(sim).join());
        expect([sim.run(...CREATE).exit, state(sim)]).toEqual([0, [UP, '2']]);
        await sim.stop();
      }),
    );
  });

  test('wished: at the boot', async () => {
    const sim = await sims.start(bnxtHost());
    const file = sim.path('etc/hostdev/hostdev.toml');
    mkdirSync(dirname(file), { recursive: true });
    const wish = `[[pf]]\naddress = "${BNXT}"\npath = "pci0000:51/00.0"\nvendor_id = "14e4"\nproduct_id = "16d7"\nvfs = 4\n`;
    writeFileSync(file, wish);
    expect([sim.run('-n', 'boot', 'apply').exit, state(sim)]).toEqual([0, [DOWN, '0']]);
    expect([sim.run('boot', 'apply').exit, state(sim)]).toEqual([0, [UP, '4']]);
  });
});
