/** The small host's PF with its VFs, before each test without any; what the tests of VFs ask about it. */
import { afterEach, beforeEach, expect } from 'vitest';
import { bindDevices } from '../../src/actions/bind.ts';
import { createVfs } from '../../src/actions/vf.ts';
import { readBooks } from '../../src/binding/books.ts';
import type { Guard } from '../../src/binding/guards.ts';
import type { HostdevError } from '../../src/errors.ts';
import { EVER } from '../patience.ts';
import { vfsOf } from './attributes.ts';
import { type SimulatedHost, SMALL_HOST, simulatedHost } from './hosts.ts';

export const PF = '0000:21:00.0';
export const AT = `sys/bus/pci/devices/${PF}`;
export const VFS = ['0000:21:10.0', '0000:21:10.2', '0000:21:10.4', '0000:21:10.6'];
export const [VF = ''] = VFS;
export const VARIANT = 'tb_igbvf_vfio_pci';
export const ADMIN = { allowed: new Set<Guard>(), deadlineMs: EVER, dryRun: false };
export const ALLOW = { ...ADMIN, allowed: new Set<Guard>(['vfs']) };
export const RECREATE = { ...ADMIN, recreate: true };
export const DRY = { ...ADMIN, dryRun: true };

export let sim: SimulatedHost;
let isUp = false;
/**
 * The PF with no VFs, four on igbvf, or, as a guest host has it, four of which the first is the admin's on VFIO and
 * autoprobe is off.
 */
export async function start(vfs: 'none' | 'four' | 'mixed'): Promise<void> {
  if (isUp) sim.remove();
  isUp = true;
  sim = simulatedHost(vfs === 'none' ? SMALL_HOST.filter((d) => d.physfn === undefined) : SMALL_HOST);
  if (vfs !== 'mixed') return;
  await bindDevices(sim.host, [VF], null, ADMIN);
  Object.assign(pf(), { autoprobe: false });
  Object.assign(sim.kernel.devices.get(VFS[2] ?? '') ?? {}, { driver: null, override: 'none' });
  sim.kernel.writes.length = 0;
}
beforeEach(() => start('none'));
afterEach(() => {
  isUp = false;
  sim.remove();
});

export const pf = () => sim.kernel.devices.get(PF) ?? expect.fail('the PF is gone');
const states = () => [
  `autoprobe ${pf().autoprobe !== false}`,
  ...[...sim.kernel.devices.values()].map((d) => `${d.address} ${d.driver} ${d.override} ${d.group}`).sort(),
];
const books = () =>
  readBooks(sim.host).books.map((b) => [
    b.address,
    b.holds.map((h) => h.owner),
    b.before,
    b.after,
    b.sriov !== undefined,
  ]);
export const all = () => JSON.stringify([states(), books()], null, 1);
export const failed = (p: Promise<unknown>): Promise<HostdevError> =>
  p.then(
    () => expect.fail('it succeeded'),
    (e) => e,
  );

export const create = (count = 4, use: 'vfio' | 'netdev' = 'vfio', options = ADMIN) =>
  createVfs(sim.host, PF, count, use, options);
export const driversOf = () => vfsOf(sim.kernel, PF).map((d) => d.driver);
