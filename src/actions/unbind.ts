/** `unbind DEV…`: back to where the books say each device was; with --to-host, to whatever host driver claims it. */

import { observe, type Work, write } from '../binding/access.ts';
import { allOrNone, type Binding, ownerText, readBinding, removeBinding } from '../binding/books.ts';
import { giveBackTogether, vfsBack } from '../binding/giveBack.ts';
import { judge, type Refusal } from '../binding/guards.ts';
import type { JournalMove } from '../binding/journal.ts';
import { loadHostModule } from '../binding/modules.ts';
import { type DeviceState, describeState, sameState, stepsOf } from '../binding/move.ts';
import { asTheyAre, changing, observing } from '../binding/session.ts';
import { recordedVfs, type SriovChange } from '../binding/sriov.ts';
import { runMoves } from '../binding/transaction.ts';
import { readUsages } from '../binding/usage.ts';
import { refillSteps } from '../binding/vfPlan.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type PciDevice, scanInventory } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { uniqueDevices } from './bind.ts';
import type { ActionOptions, Warned } from './options.ts';
import { type PrintedPlan, refuseWithPlan } from './plan.ts';

export type UnbindResult = Warned & { changed: boolean; plan: PrintedPlan };

type Way = {
  device: PciDevice;
  binding: Binding | null;
  now: DeviceState & { overrideBytes: string };
  /** Of a PF that has VFs now, or had some when it was bound: what becomes of them. */
  sriov: SriovChange | undefined;
};

/**
 * Raises HOSTDEV_NOT_OURS for a device that hostdev did not bind (unless `toHost`), HOSTDEV_IN_USE when a process holds one or a guest claims it, and what the
 * transaction raises. A device that is on its host driver already is no change.
 */
export async function unbindDevices(
  host: Host,
  words: readonly string[],
  toHost: boolean,
  options: ActionOptions,
): Promise<UnbindResult> {
  const inventory = scanInventory(host);
  const devices = uniqueDevices(host, inventory, words);
  const run = async (work: Work, recovered: string[], now: readonly PciDevice[]): Promise<UnbindResult> => {
    const ways: Way[] = [];
    for (const device of now) ways.push(await wayBack(work, device, toHost));
    const { refusals, warnings: guarded } = await judgeWays(work, ways, options);
    const plan = planOf(work, ways, refusals);
    refuseWithPlan(plan);
    if (options.dryRun) return { changed: false, plan, warnings: [...recovered, ...guarded] };
    const warnings = [...recovered, ...guarded];
    return { changed: await goBack(work, ways, toHost, options, warnings), plan, warnings };
  };
  return options.dryRun
    ? observing(host, options, (work) => run(work, [], devices))
    : changing(
        host,
        inventory,
        devices.map((d) => d.iommu_group),
        options,
        async (work, recovered, fresh) => run(work, recovered, await asTheyAre(work, fresh, devices)),
      );
}

async function wayBack(work: Work, device: PciDevice, toHost: boolean): Promise<Way> {
  const binding = readBinding(work.host, device.address);
  const now = await observe(work, device.address);
  if (now === null) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${device.address} went away`);
  if (binding === null && !toHost) {
    throw new HostdevError(
      'HOSTDEV_NOT_OURS',
      `hostdev did not bind ${device.address} (it is on ${describeState(now)})`,
      {
        hint: `'hostdev unbind --to-host ${device.address}' brings it to its host driver all the same.`,
      },
    );
  }
  return { device, binding, now, sriov: await vfsBack(work, device, binding) };
}

/** The same guards as on the way there: without books a device may well be on a host driver that it would lose for a moment. */
async function judgeWays(
  work: Work,
  ways: readonly Way[],
  { allowed }: ActionOptions,
): Promise<{ refusals: Refusal[]; warnings: string[] }> {
  const { host } = work;
  const moving = ways.filter((w) => !sameState(w.now, targetOf(host, w)));
  const usages = await readUsages(
    work,
    moving.map((w) => ({ ...w.device, driver: w.now.driver })),
  );
  const all: { refusals: Refusal[]; warnings: string[] } = { refusals: [], warnings: [] };
  for (const { device, binding, now } of moving) {
    const usage = usages.get(device.address) ?? { uses: [], unmeasured: [] };
    const claim = binding?.claims.find((c) => c.owner.startsWith('domain:'));
    if (claim !== undefined)
      usage.uses.unshift({
        guard: 'other-owner',
        reason: `it belongs to ${ownerText(claim)}: it comes back when that guest stops`,
      });
    const judged = { device: { ...device, driver: now.driver }, usage, target: null, denylistOff: true };
    const verdict = judge({ ...judged, real: host.isReal, layer: 'unbind' }, allowed);
    all.refusals.push(...verdict.refusals);
    all.warnings.push(...verdict.warnings);
  }
  return all;
}

/** Where a device goes: what the books say, or without books no override and whatever driver claims it then (foretold as the one it has, if that is the host's). */
function targetOf(host: Host, { device, binding, now }: Way): DeviceState {
  if (binding !== null) return binding.before;
  return { driver: isVfioDriver(host, device.address, now.driver) ? null : now.driver, override: null };
}

function planOf(work: Work, ways: readonly Way[], refusals: Refusal[]): PrintedPlan {
  const moves = ways.map((w) => ({
    address: w.device.address,
    group: w.device.iommu_group,
    from: { driver: w.now.driver, override: w.now.override },
    to: targetOf(work.host, w),
    override_bytes: w.now.overrideBytes,
    ...(w.sriov === undefined ? {} : { sriov: w.sriov }),
  }));
  return {
    devices: moves.map((m) => ({
      address: m.address,
      driver_from: m.from.driver,
      driver_to: m.to.driver,
      module: null,
    })),
    steps: [...stepsOf(work.host, moves), ...moves.flatMap((m) => refillSteps(work.host, m))].map(
      ({ path, value, undo }) => ({ path, value, undo }),
    ),
    refusals,
  };
}

/** What the books hold goes back together or not at all; with --to-host also what somebody has changed since. True when something changed. */
async function goBack(
  work: Work,
  ways: readonly Way[],
  toHost: boolean,
  { allowed }: ActionOptions,
  warnings: string[],
): Promise<boolean> {
  const ours = ways.flatMap(({ device, binding }) => (binding === null ? [] : [{ device, binding }]));
  const back = await giveBackTogether(work, ours, allowed);
  const kept = back.filter((b) => b.outcome === 'kept');
  const [first] = kept;
  if (first !== undefined && !toHost)
    throw new HostdevError('HOSTDEV_IN_USE', kept.map((k) => `${k.address} stays as it is: ${k.reason}`).join('; '), {
      hint: `'hostdev unbind --to-host ${first.address}' after looking at it.`,
    });
  let changed = kept.length === 0 && back.some((b) => b.outcome === 'given-back');
  for (const way of ways)
    if (way.binding === null || kept.length > 0) changed = (await toHostDriver(work, way, warnings)) || changed;
  return changed;
}

/** Never bound by us: the override goes, the kernel matches anew, with the module that its modalias names. */
async function toHostDriver(work: Work, { device, now, sriov }: Way, warnings: string[]): Promise<boolean> {
  const { host } = work;
  const { address } = device;
  if (now.override === null && !isVfioDriver(host, address, now.driver) && now.driver !== null) return false;
  const free: DeviceState = { driver: null, override: null };
  const move: JournalMove = {
    address,
    group: device.iommu_group,
    from: { driver: now.driver, override: now.override },
    to: free,
    override_bytes: now.overrideBytes,
    // Without a driver it can have none; what the books recorded of them does not come back this way.
    ...(sriov === undefined ? {} : { sriov: { ...sriov, to: { ...sriov.to, numvfs: 0, vfs: [] } } }),
  };
  // Which driver will claim it is not known before, so the probe is no step of the move but its end. A `bind` in the journal: interrupted, it goes back.
  await runMoves(work, 'bind', 'admin', [move], async () => {
    const modalias = host.read(host.device(address, 'modalias'));
    if (modalias !== null) await loadHostModule(host, modalias, work.deadline);
    await write(work, address, host.driversProbe, address);
    allOrNone(() => {
      for (const a of [address, ...recordedVfs(sriov?.from).map((vf) => vf.address)]) removeBinding(host, a);
    });
  });
  const driver = host.linkName(host.device(address, 'driver'));
  if (driver === null) warnings.push(`${address} is free now, but no host driver of this kernel claims it`);
  return true;
}
