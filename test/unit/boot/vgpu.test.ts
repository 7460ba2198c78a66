/**
 * vGPU types of VFs, on a GPU in memory: by `vf set`, by a wish at the boot; one that cannot be had keeps no sibling
 * from its own, and one that a guest has stays.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { applyWishes } from '../../../src/actions/bootApply.ts';
import { finishJournal } from '../../../src/actions/journal.ts';
import { readRecord } from '../../../src/actions/log.ts';
import { setTypeAndKeep } from '../../../src/actions/persist.ts';
import { createVfs } from '../../../src/actions/vf.ts';
import { setVgpuType } from '../../../src/actions/vgpu.ts';
import { checkWishes, listWishes } from '../../../src/actions/wish.ts';
import { readJournal } from '../../../src/binding/journal.ts';
import type { HostdevError } from '../../../src/errors.ts';
import { type SimulatedHost, simulatedHost } from '../../mock/hosts.ts';
import { GPU, GPU_HOST, gpuWish, typed, VGPUS } from '../../mock/vgpu.ts';
import { EVER } from '../../patience.ts';

const [V0 = '', V1 = '', V2 = '', V3 = ''] = VGPUS;

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost(GPU_HOST.devices, GPU_HOST.drivers);
  sim.kernel.files.set('proc/sys/kernel/random/boot_id', '0f0e0d0c-0b0a-4e20-8b29-1e85f123c67e\n');
});
afterEach(() => sim.remove());

const options = { deadlineMs: EVER, dryRun: false, allowed: new Set<never>() };
const dry = { ...options, dryRun: true };
const KEPT = 'etc/hostdev/conf.d/90-kept.toml';
const apply = () => applyWishes(sim.host, { only: null, stage: 'apply' }, options);
const make = () => createVfs(sim.host, GPU, 4, 'vfio', options);
const types = (): number[] => VGPUS.map((a) => sim.kernel.devices.get(a)?.vgpuType ?? 0);
const typeWrites = (): string[] => sim.kernel.writes.filter((w) => w.includes('vgpu_type'));
const failed = (act: Promise<unknown>): Promise<HostdevError> =>
  act.then(
    () => expect.fail('it succeeded'),
    (e) => e,
  );
/** A guest that QEMU runs has the VF's group open. */
const run = (vf: string): void => {
  const path = `/dev/vfio/${sim.kernel.devices.get(vf)?.group}`;
  sim.kernel.openBy.push({ pid: 77, command: 'qemu-system-x86', path });
};
function wish(...ranges: string[]): void {
  const at = join(sim.host.root, 'etc/hostdev/hostdev.toml');
  mkdirSync(dirname(at), { recursive: true });
  writeFileSync(at, gpuWish(ranges.join('')));
}

describe('vf set', () => {
  beforeEach(make);

  test('several VFs, each read again; so already is no change; another type goes through none; 0 takes it away', async () => {
    const set = await setVgpuType(sim.host, [V0, V1], '592', options);
    expect([set.changed, types()]).toEqual([true, [592, 592, 0, 0]]);
    expect(set.plan.steps[0]).toEqual({
      path: `sys/bus/pci/devices/${V0}/nvidia/current_vgpu_type`,
      value: '592\n',
      undo: [{ path: `sys/bus/pci/devices/${V0}/nvidia/current_vgpu_type`, value: '0\n' }],
    });
    expect((await setVgpuType(sim.host, [V0], '592', options)).changed).toBe(false);
    await setVgpuType(sim.host, [V0], '593', options);
    expect(typeWrites().slice(-2)).toEqual([expect.stringMatching(/=0$/), expect.stringMatching(/=593$/)]);
    await setVgpuType(sim.host, [V1], '0', options);
    expect(types()).toEqual([593, 0, 0, 0]);
    expect(readJournal(sim.host).entries).toEqual([]);
    expect(readRecord(sim.host, V0).records.at(-1)).toMatchObject({ vgpu_type: { before: '592', after: '593' } });
  });

  test('a dry run prints the writes and does none', async () => {
    const before = sim.kernel.writes.length;
    const set = await setVgpuType(sim.host, [V0], '594', dry);
    expect([set.changed, set.plan.steps.length, sim.kernel.writes.length]).toEqual([false, 1, before]);
  });

  test('what is not creatable is refused with what is; the second that no longer fits undoes the first', async () => {
    const none = await failed(setVgpuType(sim.host, [V0], '700', options));
    expect(none).toMatchObject({ code: 'HOSTDEV_VGPU_TYPE', exit: 3 });
    expect(none.message).toContain('592 (NVIDIA A10-6Q)');
    const third = await failed(setVgpuType(sim.host, [V0, V1, V2], '594', options));
    expect(third.message).toContain(`${V2} cannot have the vGPU type 594 now; it can have none`);
    expect([types(), readJournal(sim.host).entries]).toEqual([[0, 0, 0, 0], []]);
  });

  test('what is no vGPU: a PF; a VF off its driver', async () => {
    expect((await failed(setVgpuType(sim.host, [GPU], '592', options))).code).toBe('HOSTDEV_VGPU_TYPE');
    Object.assign(sim.kernel.devices.get(V0) ?? {}, { driver: null });
    expect((await failed(setVgpuType(sim.host, [V0], '592', options))).message).toContain('it has no driver');
  });

  test('a write that the driver refuses, or takes and forgets', async () => {
    sim.kernel.fault = (path) => (path.endsWith('current_vgpu_type') ? 'EIO' : null);
    expect((await failed(setVgpuType(sim.host, [V0], '592', options))).message).toContain('EIO');
    sim.kernel.fault = (path) => (path.endsWith('current_vgpu_type') ? 'silent' : null);
    const forgot = await failed(setVgpuType(sim.host, [V0], '592', options));
    expect(forgot).toMatchObject({ code: 'HOSTDEV_VGPU_TYPE', message: expect.stringContaining('reads 0 after 592') });
  });

  test('a type that a running guest has is not touched', async () => {
    await setVgpuType(sim.host, [V0], '592', options);
    run(V0);
    for (const type of ['0', '593']) {
      const refused = await failed(setVgpuType(sim.host, [V0, V1], type, options));
      expect([refused.code, refused.exit]).toEqual(['HOSTDEV_IN_USE', 5]);
    }
    expect(types()).toEqual([592, 0, 0, 0]);
  });

  test('killed after the write: the next change puts it back; a type that somebody set since stays his', async () => {
    for (const [since, end] of [
      [592, 0],
      [593, 593],
    ] as const) {
      const crashed = sim.kernel.crashAfter(1);
      void setVgpuType(sim.host, [V0, V1], '592', options);
      await crashed;
      expect(types()).toEqual([592, 0, 0, 0]);
      Object.assign(sim.kernel.devices.get(V0) ?? {}, { vgpuType: since });
      const [entry] = readJournal(sim.host).entries;
      await finishJournal(sim.host, [entry?.id ?? ''], 'undo', options);
      expect([types()[0], readJournal(sim.host).entries]).toEqual([end, []]);
      Object.assign(sim.kernel.devices.get(V0) ?? {}, { vgpuType: 0 });
    }
  });

  test('killed after the write, and a guest has it by now: it stays in the journal', async () => {
    const crashed = sim.kernel.crashAfter(1);
    void setVgpuType(sim.host, [V0, V1], '592', options);
    await crashed;
    run(V0);
    const [entry] = readJournal(sim.host).entries;
    await finishJournal(sim.host, [entry?.id ?? ''], 'undo', options).catch(() => {});
    expect([types()[0], readJournal(sim.host).entries.length]).toEqual([592, 1]);
  });
});

describe('wished', () => {
  test('VFs are made and get their types; a second pass writes nothing', async () => {
    wish(typed('0-1', 592), typed('3', 593));
    expect((await apply()).wishes).toMatchObject([{ address: GPU, met: true, stage: 'apply' }]);
    expect(types()).toEqual([592, 592, 0, 593]);
    expect(VGPUS.map((a) => sim.kernel.devices.get(a)?.driver)).toEqual(VGPUS.map(() => 'nvidia'));
    const writes = sim.kernel.writes.length;
    expect(await apply()).toMatchObject({ changed: false, wishes: [{ met: true }] });
    expect(sim.kernel.writes.length).toBe(writes);
  });

  test('a type that cannot be had is refused by name, and the others get theirs', async () => {
    wish(typed('0', 594), typed('1', 592), typed('2', 594), typed('3', 1));
    const { wishes } = await apply();
    expect(wishes[0]?.reason).toContain(`${V1} cannot have the vGPU type 592 now`);
    expect(wishes[0]?.reason).toContain(`${V3} cannot have the vGPU type 1 now`);
    expect(types()).toEqual([594, 0, 594, 0]);
  });

  test('one that others set goes, unless a guest runs with it; 0 is none', async () => {
    await make();
    for (const [vf, type] of [
      [V0, 593],
      [V1, 593],
      [V2, 592],
    ] as const)
      Object.assign(sim.kernel.devices.get(vf) ?? {}, { vgpuType: type });
    run(V0);
    wish(typed('0-1', 592), typed('2', 0));
    const { wishes } = await apply();
    expect(wishes).toMatchObject([
      { met: false, reason: expect.stringContaining(`${V0}: its vGPU type 593 is in use`) },
    ]);
    expect(types()).toEqual([593, 592, 0, 0]);
  });

  test('list and check: what is not so, and what would be refused', async () => {
    await make();
    wish(typed('0', 592), typed('1', 700));
    expect((await listWishes(sim.host)).wishes).toMatchObject([
      {
        met: false,
        reason: `has 4 VFs, and ${V0} has the vGPU type 0, not 592`,
        ranges: [{ first: 0, last: 0, driver: null, vgpu_type: 592 }, { vgpu_type: 700 }],
      },
    ]);
    expect((await checkWishes(sim.host, dry)).wishes).toMatchObject([
      { refused: true, reason: expect.stringContaining(`${V1} cannot have the vGPU type 700 now`) },
    ]);
    wish(typed('0', 592));
    expect((await checkWishes(sim.host, dry)).wishes).toMatchObject([{ refused: false }]);
  });
});

describe('kept by vf set --persist', () => {
  const kept = (): string => readFileSync(join(sim.host.root, KEPT), 'utf8');
  beforeEach(make);

  test('a wish for the VFs that there are; then only the range changes, and neighbours that are alike are one', async () => {
    await setTypeAndKeep(sim.host, [V0, V2], '592', options);
    expect(kept()).toContain(`vfs = 4\nfor = "vfio"\n${typed('0', 592)}${typed('2', 592)}`);
    await setTypeAndKeep(sim.host, [V1], '592', options);
    expect(kept().match(/\[\[pf\]\]/g)).toHaveLength(1);
    expect(kept()).toContain(`for = "vfio"\n${typed('0-2', 592)}`);
    await setTypeAndKeep(sim.host, [V1], '0', options);
    expect(kept()).toContain(`for = "vfio"\n${typed('0', 592)}${typed('1', 0)}${typed('2', 592)}`);
    expect((await listWishes(sim.host)).wishes).toMatchObject([{ met: true }]);
  });

  test('what is refused is not kept; nor is what another file wishes otherwise', async () => {
    expect((await failed(setTypeAndKeep(sim.host, [V0], '700', options))).code).toBe('HOSTDEV_VGPU_TYPE');
    wish(typed('0', 593));
    expect((await failed(setTypeAndKeep(sim.host, [V0], '592', options))).code).toBe('HOSTDEV_WISH_ELSEWHERE');
    expect([() => kept(), types()]).toEqual([expect.any(Function), [0, 0, 0, 0]]);
    expect(kept).toThrow('ENOENT');
  });
});
