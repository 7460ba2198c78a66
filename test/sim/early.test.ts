/**
 * `hostdev-native boot` on the simulated kernel, with tables that src/boot makes of wishes: what the initramfs does,
 * and what the stages after it make of that.
 */

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, test } from 'vitest';
import { applyWishes } from '../../src/actions/bootApply.ts';
import { NOT_ASKED } from '../../src/actions/inGuest.ts';
import { readStatus } from '../../src/actions/status.ts';
import { unbindDevices } from '../../src/actions/unbind.ts';
import { hostWishes } from '../../src/actions/wishes.ts';
import { nativeExecutable } from '../../src/addon/load.ts';
import { observing } from '../../src/binding/session.ts';
import { planEarly } from '../../src/boot/early.ts';
import { tableText } from '../../src/boot/table.ts';
import { EVER } from '../patience.ts';
import type { HostDescription } from '../scenarios/host.ts';
import { describeSim, type SimHost, useSimHosts } from './simhost.ts';
import { A, B, C, D, PF, snapshot, WORLD } from './world.ts';

const sims = useSimHosts();
const BOOT = '0f0e0d0c-0b0a-4e20-8b29-1e85f123c67e';

const identity = (address: string, ids: string): string => {
  const [vendor, product] = ids.split(':');
  return `address = "${address}"\npath = "pci${address.slice(0, 7)}/${address.slice(8)}"\nvendor_id = "${vendor}"\nproduct_id = "${product}"\n`;
};
const wish = (address: string, ids: string, driver: string, more = ''): string =>
  `[[device]]\n${identity(address, ids)}driver = "${driver}"\n${more}`;
const WISHES = [
  wish(A, '8086:10d3', 'vfio', 'group = "endpoints"\n'),
  wish(C, '1234:11e8', 'vfio'),
  wish(D, '8086:10d3', 'none'),
  `[[pf]]\n${identity(PF, '8086:10c9')}vfs = 2\n`,
].join('');

/** As at a boot: no driver has a device yet, but for those that are built in. */
const atBoot = (builtIn: readonly string[] = []): HostDescription => ({
  ...WORLD,
  files: { 'proc/sys/kernel/random/boot_id': `${BOOT}\n`, 'dev/kmsg': '' },
  devices: WORLD.devices.map(({ override: _, ...d }) => (builtIn.includes(d.address) ? d : { ...d, driver: null })),
});

async function start(description: HostDescription, wishes = WISHES): Promise<SimHost> {
  const sim = await sims.start(description);
  put(sim, 'etc/hostdev/hostdev.toml', wishes);
  const host = sim.host();
  const { inventory, seen } = await hostWishes(host);
  const plan = await observing(host, { deadlineMs: EVER }, (work) =>
    planEarly(
      work,
      inventory,
      seen.map((s) => s.match),
    ),
  );
  put(sim, 'var/lib/hostdev/boot.table', tableText(plan.table));
  return sim;
}

function put(sim: SimHost, path: string, text: string): void {
  mkdirSync(dirname(sim.path(path)), { recursive: true });
  writeFileSync(sim.path(path), text);
}

function boot(sim: SimHost): { log: string; early: { devices: { address: string; reason: string | null }[] } } {
  const ran = spawnSync(nativeExecutable(), ['boot', '--root', sim.root], { encoding: 'utf8' });
  expect([ran.status, ran.stdout, ran.stderr]).toEqual([0, '', '']);
  const report = JSON.parse(readFileSync(sim.path('run/hostdev/boot.json'), 'utf8'));
  expect(report).toMatchObject({ schema: 1, boot: BOOT, at: null, off: false, wishes: [] });
  return { log: readFileSync(sim.path('dev/kmsg'), 'utf8'), early: report.early };
}

const drivers = (sim: SimHost, ...addresses: string[]): string[] => addresses.map((a) => snapshot(sim)[a] ?? '');

describeSim('the stage in the initramfs', () => {
  test('whole groups, a driver for none, and no VFs; the stage after it adds what is left, and tells both', async () => {
    const sim = await start(atBoot());
    const { log, early } = boot(sim);
    expect(drivers(sim, A, B, C, D)).toEqual([
      'vfio-pci vfio-pci',
      'vfio-pci vfio-pci',
      'vfio-pci vfio-pci',
      'none none',
    ]);
    expect(early.devices.map((d) => [d.address, d.reason])).toEqual([A, B, C, D].map((a) => [a, null]));
    expect(log.split('\n').filter(Boolean)).toEqual([
      ...[A, B, C].map((a) => `<5>hostdev: ${a} is on vfio-pci`),
      `<5>hostdev: ${D} has no driver`,
    ]);
    // Every override stands before the first probe: a module that is loaded meanwhile finds them.
    const writes = sim.journal().map((l) => l.split('=')[0]?.split('/').at(-1));
    expect(writes.lastIndexOf('driver_override')).toBeLessThan(writes.indexOf('drivers_probe'));
  });

  test('the first pass takes it into the books, later ones nothing; unbind gives back to any host driver', async () => {
    const sim = await start(atBoot());
    boot(sim);
    const host = sim.host();
    const options = { deadlineMs: EVER, dryRun: false, allowed: new Set<never>() };
    const apply = () => applyWishes(host, { only: null, stage: 'apply' }, options);
    const applied = await apply();
    expect([applied.changed, applied.warnings]).toEqual([true, []]);
    // No coldplug has given the PF its driver here.
    expect(applied.wishes.flatMap((w) => (w.kind === 'pf' ? [] : [[w.address, w.met, w.stage]]))).toEqual(
      [A, C, D].map((a) => [a, true, 'early']),
    );
    const { bindings } = await readStatus(host, NOT_ASKED);
    expect(bindings.flatMap((b) => ([A, B, C, D].includes(b.address) ? [[b.address, b.owner, b.drift]] : []))).toEqual(
      [A, B, C, D].map((a) => [a, 'boot', null]),
    );
    const back = await unbindDevices(host, [A, B, C, D], false, options);
    expect(back.warnings.map((w) => [w.id, w.address])).toEqual([['no-host-driver', C]]);
    expect(drivers(sim, A, B, C, D)).toEqual(['e1000e (null)', 'e1000e (null)', 'none (null)', 'e1000e (null)']);
    expect((await readStatus(host, NOT_ASKED)).bindings.filter((b) => [A, B, C, D].includes(b.address))).toEqual([]);
    // Somebody else's doing now, which looks like the initramfs's.
    for (const what of ['driver_override', 'drivers_probe'])
      writeFileSync(
        sim.path(what === 'driver_override' ? `sys/bus/pci/devices/${C}/${what}` : `sys/bus/pci/${what}`),
        what === 'driver_override' ? 'vfio-pci' : C,
      );
    expect(drivers(sim, C)).toEqual(['vfio-pci vfio-pci']);
    await apply();
    expect((await readStatus(host, NOT_ASKED)).bindings.filter((b) => b.address === C)).toEqual([]);
  });

  test('killed before its report: the next pass finds the books written, or writes them', async () => {
    const sim = await start(atBoot());
    boot(sim);
    const host = sim.host();
    const options = { deadlineMs: EVER, dryRun: false, allowed: new Set<never>() };
    const report = readFileSync(sim.path('run/hostdev/boot.json'));
    await applyWishes(host, { only: null, stage: 'apply' }, options);
    const books = (await readStatus(host, NOT_ASKED)).bindings;
    writeFileSync(sim.path('run/hostdev/boot.json'), report);
    rmSync(sim.path(`run/hostdev/bindings/${C}.json`));
    await applyWishes(host, { only: null, stage: 'apply' }, options);
    expect((await readStatus(host, NOT_ASKED)).bindings.map((b) => b.address)).toEqual(books.map((b) => b.address));
  });

  test('only what is built in has a driver by then: it is let go', async () => {
    const sim = await start(atBoot([A, B, D]));
    boot(sim);
    expect(drivers(sim, A, B, C, D)).toEqual([
      'vfio-pci vfio-pci',
      'vfio-pci vfio-pci',
      'vfio-pci vfio-pci',
      'none none',
    ]);
  });

  test('a module’s driver has it: left to the real root, with its group', async () => {
    const description = atBoot([B]);
    const sim = await start({
      ...description,
      files: { ...description.files, 'sys/module/e1000e/initstate': 'live\n' },
    });
    const { early } = boot(sim);
    expect(drivers(sim, A, B, C)).toEqual(['none (null)', 'e1000e (null)', 'vfio-pci vfio-pci']);
    expect(early.devices.find((d) => d.address === A)?.reason).toBe('another function of its group was refused');
  });

  test('twice is once', async () => {
    const sim = await start(atBoot());
    boot(sim);
    const { writes } = sim.count();
    boot(sim);
    expect(sim.count().writes).toBe(writes);
  });

  test.each([
    ['the driver takes it not', 'fault write sys/bus/pci/drivers_probe errno=EIO skip=1 count=1'],
    ['an override is refused', `fault write sys/bus/pci/devices/${B}/driver_override errno=EPERM count=1`],
  ])('%s: its whole group is as it was, others are bound', async (_, fault) => {
    const sim = await start(atBoot());
    sim.ctl(fault);
    const { early } = boot(sim);
    expect(drivers(sim, A, B, C)).toEqual(['none (null)', 'none (null)', 'vfio-pci vfio-pci']);
    expect(early.devices.map((d) => d.reason === null)).toEqual([false, false, true, true]);
  });
});
