/**
 * Brings devices to where they are to be, from whatever each is on now: the way there, the undo and the recovery are
 * this one thing. The VFs of a PF are child moves of its move: those that must go go first, then the PF changes its
 * driver, then VFs are made with autoprobe off and each put on its driver.
 */
import type { Address } from '../pci/address.ts';
import { type PciDevice, scanInventory } from '../pci/inventory.ts';
import { onHostDriver, vgpuTypeNow } from '../pci/vendorVfio.ts';
import { vfLinks } from '../pci/vfLinks.ts';
import { restoreAttribute } from './access.ts';
import { type ModuleLists, readModuleLists, variantDriver } from './drivers/driverChoice.ts';
import { driverExists, loadedDriver, loadHostModule, namedDriver } from './drivers/modules.ts';
import { awaitVfs } from './numvfs.ts';
import { observe, observeSriov, readLocked } from './observe.ts';
import { batchesOf, performBatch, performStep, refuseStopped, type Work } from './perform.ts';
import { type DeviceState, type Move, type SriovChange, type SriovState, sameState } from './state.ts';
import { autoprobeFor, autoprobeStep, emptySteps, linkStep, numvfsStep, stepsOf, upSteps, type Way } from './steps.ts';

export type End = 'from' | 'to';

type Goal = Pick<Move, 'address' | 'any_host' | 'vgpu'> & { target: DeviceState; type?: string };

/** What one end of a move asks of its device. */
export const goalOf = (m: Move, end: End): Goal => ({
  address: m.address,
  target: m[end],
  ...(end === 'to' && m.any_host ? { any_host: true } : {}),
  ...(m.vgpu === undefined ? {} : { vgpu: m.vgpu, type: m.vgpu[end] }),
});

/**
 * Brings moves to one end, together; what failed, by device: one that fails stops no other. A device that is gone is
 * where it can be.
 */
export async function settle(work: Work, moves: readonly Move[], end: End): Promise<Map<Address, unknown>> {
  const plain = moves.filter((m) => m.sriov === undefined);
  const failures = await settleDevices(
    work,
    plain.map((m) => goalOf(m, end)),
  );
  for (const move of moves) {
    if (move.sriov === undefined) continue;
    await settlePf(work, { ...move, sriov: move.sriov }, end).catch((e: unknown) => failures.set(move.address, e));
  }
  if (end === 'from')
    for (const move of moves) {
      if (failures.has(move.address)) continue;
      await restoreBytes(work, move).catch((e: unknown) => failures.set(move.address, e));
    }
  return failures;
}

/** True when a device that is on `now` needs no step to be where it is to go. */
export function isThere(work: Pick<Work, 'host'>, now: DeviceState, goal: Goal): boolean {
  const { address, target, any_host } = goal;
  if (!any_host) return sameState(now, target) && typeWay(work, goal) === null;
  return now.override === null && onHostDriver(work.host, address, now.driver);
}

/**
 * From the vGPU type that a device has now to the goal's; null where nothing is to be written: it is there, or it is
 * one that somebody else has set since, and his.
 */
function typeWay({ host }: Pick<Work, 'host'>, { address, vgpu, type }: Goal): { from: string; to: string } | null {
  const now = vgpu === undefined ? null : vgpuTypeNow(host, address);
  if (vgpu === undefined || type === undefined || now === null || now === type) return null;
  return [vgpu.from, vgpu.to, '0'].includes(now) ? { from: now, to: type } : null;
}

async function settleDevices(work: Work, goals: readonly Goal[]): Promise<Map<Address, unknown>> {
  const failures = new Map<Address, unknown>();
  const ways: Way[] = [];
  await Promise.all(
    goals.map(async (goal) => {
      const { address, target, any_host } = goal;
      try {
        const now = await observe(work, address);
        if (now === null || isThere(work, now, goal)) return;
        if (now.driver !== target.driver) await ensureDriver(work, address, any_host ? null : target.driver);
        const vgpu = typeWay(work, goal);
        ways.push({
          address,
          from: now,
          to: target,
          ...(any_host ? { any_host } : {}),
          ...(vgpu === null ? {} : { vgpu }),
        });
      } catch (e) {
        failures.set(address, e);
      }
    }),
  );
  let batches = batchesOf(stepsOf(work.host, ways));
  for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
    const failed = await performBatch(work, batch);
    for (const [address, e] of failed) failures.set(address, e);
    batches = batches.map((b) => b.filter((s) => !failures.has(s.address))).filter((b) => b.length > 0);
  }
  return failures;
}

/**
 * The driver's module may have gone: it is loaded again, a host driver's through the device's modalias. `driver` null
 * is whichever the host has for the device.
 */
async function ensureDriver(work: Work, address: Address, driver: string | null): Promise<void> {
  const { host } = work;
  if (driver !== null && driverExists(host, driver)) return;
  if (driver !== null && /vfio/.test(driver)) {
    // Where that does not help the probe says so.
    await loadedDriver(host, namedDriver(host, driver), work.deadline).catch(() => {});
    return;
  }
  const modalias = host.read(host.device(address, 'modalias'));
  if (modalias !== null) await loadHostModule(host, modalias, work.deadline);
}

/** Brings a PF and its VFs to one end of a move. */
export async function settlePf(work: Work, move: Move & { sriov: SriovChange }, end: End): Promise<void> {
  const { host } = work;
  const { address, sriov } = move;
  const goal = sriov[end];
  const device = await observe(work, address);
  if (device === null) return;
  let seen = await observeSriov(work, address);
  const own = goalOf(move, end);
  const isHome = isThere(work, device, own);
  const rebinds = !isHome && device.driver !== own.target.driver;
  const change = { ...sriov, from: seen, to: goal };
  for (const step of emptySteps(host, address, change, rebinds)) await performStep(work, step);
  if (!isHome) for (const e of (await settleDevices(work, [own])).values()) throw e;
  seen = await observeSriov(work, address);
  if (goal.numvfs > 0 && seen.numvfs === 0) {
    const probing = autoprobeFor({ ...goal, autoprobe: seen.autoprobe });
    if (probing !== null) await performStep(work, autoprobeStep(host, address, probing));
    for (const step of upSteps(host, address)) await performStep(work, step);
    await performStep(work, numvfsStep(host, address, goal.numvfs, 0));
  } else if (goal.numvfs > 0) {
    // Whoever made them may have died before they were all there.
    await awaitVfs(work, address, goal.numvfs, Array.isArray(goal.vfs) ? goal.vfs : undefined);
  }
  await settleVfs(work, address, goal);
  seen = await observeSriov(work, address);
  if (goal.autoprobe !== null && seen.autoprobe !== goal.autoprobe)
    await performStep(work, autoprobeStep(host, address, goal.autoprobe));
  const down = goal.link === 'down' ? linkStep(host, address, false) : null;
  if (down !== null) await performStep(work, down);
  if (end === 'from') await restoreSriovBytes(work, address, sriov);
}

/**
 * Each VF to what was recorded of it, or to the best VFIO driver; host drivers come by themselves, if their module is
 * there.
 */
async function settleVfs(work: Work, pf: Address, goal: SriovState): Promise<void> {
  const { host } = work;
  const inventory = scanInventory(host);
  const addresses = goal.numvfs === 0 ? [] : vfLinks(host, pf);
  const chosen = new Map<string, DeviceState>();
  let lists: ModuleLists | null = null;
  const goals: Goal[] = [];
  for (const [n, address] of addresses.entries()) {
    const device = inventory.byAddress.get(address);
    if (device === undefined) continue;
    const modalias = host.read(host.device(address, 'modalias')) ?? '';
    let target: DeviceState | undefined;
    if (goal.vfs === 'vfio') {
      lists ??= readModuleLists(host);
      target = chosen.get(modalias) ?? (await vfioState(work, device, lists));
      chosen.set(modalias, target);
    } else if (goal.vfs === 'netdev') {
      if (!chosen.has(modalias)) await loadHostModule(host, modalias, work.deadline);
      chosen.set(modalias, { driver: null, override: null });
    } else target = goal.vfs[n];
    if (target !== undefined) goals.push({ address, target: { driver: target.driver, override: target.override } });
  }
  refuseStopped(work, `the VFs of ${pf} were put on their drivers`);
  for (const e of (await settleDevices({ ...work, inventory }, goals)).values()) throw e;
}

async function vfioState(work: Work, vf: PciDevice, lists: ModuleLists): Promise<DeviceState> {
  const { driver } = await loadedDriver(work.host, variantDriver(work.host, vf, lists), work.deadline);
  return { driver, override: driver };
}

/** Puts the override's bytes back where the tree is no sysfs. */
async function restoreBytes(work: Work, move: Move): Promise<void> {
  const now = await observe(work, move.address);
  if (now === null || now.overrideBytes === move.override_bytes) return;
  await restoreAttribute(work, move.address, work.host.device(move.address, 'driver_override'), move.override_bytes);
}

/** Only a tree that is no sysfs can differ from what was read, and only there is it written. */
async function restoreSriovBytes(work: Work, pf: Address, sriov: SriovChange): Promise<void> {
  for (const [attribute, bytes] of [
    ['sriov_numvfs', sriov.numvfs_bytes],
    ['sriov_drivers_autoprobe', sriov.autoprobe_bytes],
  ] as const) {
    const path = work.host.device(pf, attribute);
    if (bytes !== null && (await readLocked(work, pf, path)) !== bytes) await restoreAttribute(work, pf, path, bytes);
  }
}
