/**
 * vGPU types wished for the VFs of a GPU, on the simulated kernel: made with the VFs, one that has no room by then told
 * by name, one that a guest has left alone; killed at points spread over all changes, the next pass ends as wished.
 */
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, test } from 'vitest';
import { readJournal } from '../../src/binding/journal.ts';
import { GPU_HOST, gpuWish, typed, VGPUS } from '../mock/vgpu.ts';
import { describeSim, inPairs, type SimHost, STORM, until, useSimHosts } from './simhost.ts';

const sims = useSimHosts();
const [V0 = '', V1 = ''] = VGPUS;

async function start(...ranges: string[]): Promise<SimHost> {
  const sim = await sims.start(GPU_HOST);
  wish(sim, ...ranges);
  return sim;
}

function wish(sim: SimHost, ...ranges: string[]): void {
  const file = sim.path('etc/hostdev/hostdev.toml');
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, gpuWish(ranges.join('')));
}

const at = (vf: string, name: string): string => `sys/bus/pci/devices/${vf}/nvidia/${name}`;
const reason = ({ out }: { out: string }): string => JSON.parse(out).wishes[0].reason;
const types = (sim: SimHost): string[] =>
  VGPUS.map((vf) => readFileSync(sim.path(at(vf, 'current_vgpu_type')), 'utf8').trim());

describeSim('vGPU types', () => {
  test('what can be had changes as siblings are made: one is refused by name, the others get theirs', async () => {
    const sim = await start(typed('0', 594), typed('1', 592), typed('2', 594), typed('3', 594));
    const ran = sim.run('boot', 'apply', '-j');
    expect(ran.exit, ran.out).toBe(3);
    expect(reason(ran)).toMatch(
      new RegExp(`${V1} cannot have the vGPU type 592 now.*${VGPUS[3]} cannot have the vGPU type 594 now.*no room`),
    );
    expect(types(sim)).toEqual(['594', '0', '594', '0']);
    expect(JSON.parse(sim.run('wish', 'check', '-j').out)).toMatchObject({ wishes: [{ refused: true }] });
    wish(sim, typed('0', 594), typed('2', 0));
    expect(sim.run('boot', 'apply').exit).toBe(0);
    expect(types(sim)).toEqual(['594', '0', '0', '0']);
    const writes = sim.count().writes;
    expect(sim.run('boot', 'apply').exit).toBe(0);
    expect(sim.count().writes).toBe(writes);
  });

  test('one that a guest has stays; by hand it is refused with exit 5, and one without room with 3', async () => {
    const sim = await start(typed('0', 592));
    expect(sim.run('boot', 'apply').exit).toBe(0);
    const guest = openSync(sim.path('dev/vfio/21'), 'r+');
    wish(sim, typed('0', 593), typed('1', 593));
    const ran = sim.run('boot', 'apply', '-j');
    expect([ran.exit, reason(ran)]).toEqual([3, expect.stringContaining('its vGPU type 592 is in use')]);
    expect(types(sim)).toEqual(['592', '593', '0', '0']);
    expect(sim.run('vf', 'set', V0, '--vgpu-type', '0').exit).toBe(5);
    expect(sim.run('-n', 'vf', 'set', V1, '--vgpu-type', '0').exit).toBe(0);
    closeSync(guest);
    expect(sim.run('vf', 'set', V0, V1, '--vgpu-type', '0').exit).toBe(0);
    expect(sim.run('vf', 'set', ...VGPUS, '--vgpu-type', '594').exit).toBe(3);
    expect(types(sim)).toEqual(['0', '0', '0', '0']);
  });

  test('killed at points spread over all changes: the next pass ends as wished, with an empty journal', async () => {
    const ranges = [typed('0-1', 592), typed('2', 593)];
    const whole = await start(...ranges);
    const from = whole.count().changes;
    expect(whole.run('boot', 'apply').exit).toBe(0);
    const changes = whole.count().changes - from;
    expect(types(whole)).toEqual(['592', '592', '593', '0']);
    await whole.stop();
    const most = STORM ? changes : 8;
    await inPairs(
      Array.from({ length: most }, (_, n) => Math.floor((n * changes) / most)).map((nth) => async () => {
        const sim = await start(...ranges);
        sim.ctl(`fault change * kill count=1 skip=${nth}`);
        const killed = await sim.spawn(['boot', 'apply']).ended;
        sim.ctl('clear');
        expect(killed.signal, `${nth}: ${killed.exit} ${killed.err}`).toBe('SIGKILL');
        await until(() => sim.hung().length === 0, 'nothing hangs');
        const next = sim.run('boot', 'apply', '-j');
        expect(next.exit, `${nth}: ${next.out}`).toBe(0);
        expect(types(sim)).toEqual(['592', '592', '593', '0']);
        expect(readJournal(sim.host()).entries).toEqual([]);
        await sim.stop();
      }),
    );
  });
});
