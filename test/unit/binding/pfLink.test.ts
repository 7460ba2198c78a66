/**
 * A PF whose driver makes and removes VFs only while its link is up (bnxt_en says nothing, bnx2x EINVAL): the link is a
 * step of the transaction, with its inverse, and what the host uses by then is not taken down.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { applyWishes } from '../../../src/actions/bootApply.ts';
import { finishJournal } from '../../../src/actions/journal.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import { createVfs, removeVfs } from '../../../src/actions/vf.ts';
import { loadNative } from '../../../src/addon/load.ts';
import type { Guard } from '../../../src/binding/guards.ts';
import { readJournal } from '../../../src/binding/journal.ts';
import { type SimulatedHost, simulatedHost } from '../../mock/hosts.ts';
import { BNXT, BNXT_VFS, bnxtHost } from '../../mock/net.ts';
import { EVER } from '../../patience.ts';

let sim: SimulatedHost;
function start(driver: 'bnxt_en' | 'bnx2x' = 'bnxt_en'): void {
  const { devices, drivers } = bnxtHost(driver);
  sim = simulatedHost(devices, drivers);
}
beforeEach(() => start());
afterEach(() => sim.remove());

const options = { deadlineMs: EVER, dryRun: false, allowed: new Set<Guard>() };
const dry = { ...options, dryRun: true };
const make = (count = 2, how = options) => createVfs(sim.host, BNXT, count, 'vfio', how);
const pf = () => sim.kernel.devices.get(BNXT);
const vfs = (): number => BNXT_VFS.filter((a) => sim.kernel.devices.has(a)).length;
const links = (): string[] => sim.kernel.writes.filter((w) => w.startsWith('eth9='));

describe.each(['bnxt_en', 'bnx2x'] as const)('%s', (driver) => {
  beforeEach(() => {
    sim.remove();
    start(driver);
  });

  test('vf create brings it up first, says so, and it stays up; a dry run shows the step', async () => {
    const seen = await make(2, dry);
    expect(seen.plan.steps.map((s) => [s.path.split('/').at(-1), s.value.trim()])).toEqual(
      expect.arrayContaining([
        ['flags', '0x1003'],
        ['sriov_numvfs', '2'],
      ]),
    );
    expect(seen.plan.steps.find((s) => s.path.endsWith('flags'))?.undo).toEqual([
      { path: 'sys/class/net/eth9/flags', value: '0x1002\n' },
    ]);
    expect([pf()?.up, vfs()]).toEqual([undefined, 0]);
    const made = await make();
    expect(made.warnings).toMatchObject([{ id: 'link-up', address: BNXT, text: expect.stringContaining(driver) }]);
    expect([pf()?.up, vfs(), links()]).toEqual([true, 2, ['eth9=up']]);
  });

  test('vf remove of one that was set down: up for the write, then as it was', async () => {
    await make();
    Object.assign(pf() ?? {}, { up: false });
    await removeVfs(sim.host, BNXT, options);
    expect([pf()?.up, vfs(), links().slice(-2)]).toEqual([false, 0, ['eth9=up', 'eth9=down']]);
  });
});

test('one that is up is left as it is', async () => {
  Object.assign(pf() ?? {}, { up: true });
  expect((await make()).warnings).toEqual([]);
  await removeVfs(sim.host, BNXT, options);
  expect([pf()?.up, links()]).toEqual([true, []]);
});

test('a driver that does not ask for it: no link is touched', async () => {
  sim.remove();
  const { devices, drivers } = bnxtHost();
  sim = simulatedHost(
    devices.map((d) => ({ ...d, driver: 'ice' })),
    drivers.map((d) => (d.name === 'bnxt_en' ? { ...d, name: 'ice', wantsUp: undefined } : d)) as typeof drivers,
  );
  await make();
  expect([vfs(), links()]).toEqual([2, []]);
});

describe('undone', () => {
  test('VFs that cannot be made: the link is down again', async () => {
    sim.kernel.fault = (path, value) => (path.endsWith('sriov_numvfs') && value === '2' ? 'ENOSPC' : null);
    await expect(make()).rejects.toMatchObject({ code: 'HOSTDEV_VFS' });
    expect([pf()?.up, links(), readJournal(sim.host).entries]).toEqual([false, ['eth9=up', 'eth9=down'], []]);
  });

  test('killed after it: the recovery takes it down, unless the host has an address on it by then', async () => {
    for (const used of [false, true]) {
      // Autoprobe and the link itself are no writes to sriov_numvfs: the kill is before that.
      const crashed = sim.kernel.crashAfter(1);
      void make();
      await crashed;
      expect(pf()?.up).toBe(true);
      if (used)
        sim.kernel.files.set(
          'proc/net/route',
          'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\neth9\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n',
        );
      const [entry] = readJournal(sim.host).entries;
      await finishJournal(sim.host, [entry?.id ?? ''], 'undo', options);
      expect([pf()?.up, readJournal(sim.host).entries]).toEqual([used, []]);
    }
  });
});

test('a PF that comes back from VFIO gets its VFs: its driver came with the link down', async () => {
  await make();
  await bindDevices(sim.host, [BNXT], null, { ...options, allowed: new Set<Guard>(['vfs']) });
  expect(vfs()).toBe(0);
  await unbindDevices(sim.host, [BNXT], false, options);
  expect([pf()?.driver, pf()?.up, vfs()]).toEqual(['bnxt_en', true, 2]);
});

test('at the boot', async () => {
  const file = join(sim.host.root, 'etc/hostdev/hostdev.toml');
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(
    file,
    `[[pf]]\naddress = "${BNXT}"\npath = "pci0000:51/00.0"\nvendor_id = "14e4"\nproduct_id = "16d7"\nvfs = 4\n`,
  );
  const scope = { only: null, stage: 'apply' } as const;
  expect((await applyWishes(sim.host, scope, dry)).wishes).toMatchObject([{ met: true }]);
  expect(vfs()).toBe(0);
  const applied = await applyWishes(sim.host, scope, options);
  expect(applied).toMatchObject({ wishes: [{ met: true, stage: 'apply' }], warnings: [{ id: 'link-up' }] });
  expect([vfs(), pf()?.up]).toEqual([4, true]);
});

test('the addon answers with the errno of an interface that is not there, or that it may not touch', async () => {
  const writer = loadNative().openWriter('/');
  try {
    await expect(writer.setUp({ name: 'none', index: 2 ** 31 - 1 }, true, EVER)).rejects.toMatchObject({
      code: expect.stringMatching(/^(?:ENODEV|EPERM)$/),
      syscall: 'RTM_SETLINK',
    });
  } finally {
    writer.close();
  }
});
