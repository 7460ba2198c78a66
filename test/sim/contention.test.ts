/**
 * 32 processes, guests and admins, want overlapping groups: nobody waits for ever, nobody is torn from a device it
 * holds, no device has two users, and in the end everything is as it was. HOSTDEV_SIM_ROUNDS=200 gives each process 200
 * rounds; by default it is about 200 rounds in all.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { buildSync } from 'esbuild';
import { expect, test } from 'vitest';
import { unbindDevices } from '../../src/actions/unbind.ts';
import { nativeExecutable } from '../../src/addon/load.ts';
import { EVER } from '../patience.ts';
import type { HostDescription } from '../scenarios/host.ts';
import { describeSim, type SimHost, useSimHosts } from './simhost.ts';
import { booked, journalled } from './world.ts';

const sims = useSimHosts();

const PROCESSES = 32;
const ROUNDS = Number(process.env.HOSTDEV_SIM_ROUNDS ?? 6);
const GROUPS = 8;

/** Eight groups of one to three NICs. */
const groups = Object.fromEntries(
  Array.from({ length: GROUPS }, (_, g) => [
    String(40 + g),
    Array.from({ length: 1 + (g % 3) }, (_, f) => `0000:${(0x40 + g).toString(16)}:00.${f}`),
  ]),
);

const HOST: HostDescription = {
  drivers: [
    { name: 'e1000e', module: 'e1000e', ids: ['8086:10d3'] },
    { name: 'vfio-pci', module: 'vfio_pci', ids: [], vfio: true },
  ],
  devices: Object.entries(groups).flatMap(([group, list]) =>
    list.map((address) => ({ address, ids: '8086:10d3', group: Number(group), driver: 'e1000e' })),
  ),
};

const state = (sim: SimHost): string => sim.run('list').out;

async function contend(sim: SimHost, script: string, number: number): Promise<Record<string, number>> {
  const child = spawn(process.execPath, [script, sim.root, String(number), String(ROUNDS), JSON.stringify(groups)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, HOSTDEV_NATIVE_DIR: dirname(nativeExecutable()) },
  });
  let out = '';
  let err = '';
  child.stdout.on('data', (d) => {
    out += d;
  });
  child.stderr.on('data', (d) => {
    err += d;
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  if (code !== 0) throw new Error(err || `contender ${number} ended with ${code}`);
  return JSON.parse(out) as Record<string, number>;
}

describeSim('contention', () => {
  test(`${PROCESSES} processes, ${ROUNDS} rounds each`, { timeout: 24 * EVER }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hostdev-contender-'));
    try {
      const script = join(folder, 'contender.mjs');
      buildSync({
        entryPoints: ['test/sim/contender.ts'],
        bundle: true,
        platform: 'node',
        format: 'esm',
        target: 'node20',
        outfile: script,
      });
      const sim = await sims.start(HOST);
      const before = state(sim);
      const tallies = await Promise.all(Array.from({ length: PROCESSES }, (_, n) => contend(sim, script, n)));
      const total = (key: string): number => tallies.reduce((sum, t) => sum + (t[key] ?? 0), 0);
      process.stdout.write(
        `contention: ${PROCESSES} x ${ROUNDS} rounds: ${['held', 'bound', 'unbound', 'refused'].map((k) => `${k} ${total(k)}`).join(', ')}\n`,
      );
      // It has been tried at all, on both sides.
      expect(total('held')).toBeGreaterThan(PROCESSES / 2);
      expect(total('refused')).toBeGreaterThan(0);
      expect(sim.hung()).toEqual([]);
      const host = sim.host();
      expect(journalled(host).addresses).toEqual([]);
      // An admin's bind stays when its unbind was refused.
      const left = booked(host);
      if (left.length > 0)
        await unbindDevices(host, left, false, { allowed: new Set(), deadlineMs: EVER, dryRun: false });
      expect(state(sim)).toBe(before);
      expect(booked(host)).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
