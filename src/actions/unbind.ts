/** `unbind DEV…`: back to where the books say each device was; with --to-host, to whatever host driver claims it. */
import { refuse } from '../binding/bind.ts';
import { type Binding, ownerText, readBinding, removeBinding } from '../binding/books.ts';
import { giveBack, type Returned } from '../binding/giveBack.ts';
import type { Refusal } from '../binding/guards.ts';
import type { JournalMove } from '../binding/journal.ts';
import { loadHostModule } from '../binding/modules.ts';
import { type DeviceState, describeState, stepsOf } from '../binding/move.ts';
import { changing, observing } from '../binding/session.ts';
import { recordedVfs, type SriovChange } from '../binding/sriov.ts';
import { observe, runMoves, type Work } from '../binding/transaction.ts';
import { vfioNodes } from '../binding/usage.ts';
import { refillSteps, withoutVfs } from '../binding/vfPlan.ts';
import { vfRefusals } from '../binding/vfUse.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { uniqueDevices } from './bind.ts';
import type { ActionOptions, Warned } from './options.ts';
import type { PrintedPlan } from './plan.ts';

export type UnbindResult = Warned & { changed: boolean; plan: PrintedPlan };

type Way = {
  device: PciDevice;
  binding: Binding | null;
  now: DeviceState & { overrideBytes: string };
  /** Of a PF: what its VFs are now. */
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
  const run = async (work: Work, recovered: string[]): Promise<UnbindResult> => {
    const ways: Way[] = [];
    for (const device of devices) ways.push(await wayBack(work, device, toHost));
    const refusals = ways.flatMap((w) => [
      ...refusalsOf(host, w, options),
      ...vfsInTheWay(host, inventory, w, options),
    ]);
    const plan = planOf(work, ways, refusals);
    refuse(refusals);
    if (options.dryRun) return { changed: false, plan, warnings: recovered };
    const warnings = [...recovered];
    let changed = false;
    for (const way of ways) changed = (await goBack(work, way, options.allowed.has('vfs'), warnings)) || changed;
    return { changed, plan, warnings };
  };
  return options.dryRun
    ? observing(host, options, (work) => run(work, []))
    : changing(
        host,
        inventory,
        devices.map((d) => d.iommu_group),
        options,
        run,
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
  const changes = binding?.sriov !== undefined || Boolean(device.sriov_numvfs);
  return { device, binding, now, sriov: changes ? await withoutVfs(work, device.address) : undefined };
}

/** VFs that a PF has now, on VFIO or on none, would go with its driver. */
function vfsInTheWay(host: Host, inventory: Inventory, way: Way, { allowed }: ActionOptions): Refusal[] {
  const { device, now, sriov } = way;
  const { address } = device;
  if (!sriov || sriov.from.numvfs === 0 || targetOf(host, way).driver === now.driver) return [];
  const refusals = vfRefusals(host, inventory, address, 'admin');
  if (!allowed.has('vfs'))
    refusals.push({
      guard: 'vfs',
      address,
      reason: `it has ${sriov.from.numvfs} VFs, which would go with its driver; 'hostdev vf remove ${address}' takes them away`,
    });
  return refusals;
}

function refusalsOf(host: Host, { device, binding, now }: Way, { allowed }: ActionOptions): Refusal[] {
  const { address } = device;
  const refusals: Refusal[] = [];
  const claim = binding?.claims.find((c) => c.owner.startsWith('domain:'));
  if (claim !== undefined && !allowed.has('other-owner'))
    refusals.push({
      guard: 'other-owner',
      address,
      reason: `it belongs to ${ownerText(claim)}: it comes back when that guest stops`,
    });
  if (isVfioDriver(host, address, now.driver)) {
    for (const h of host.native.holders(host.root, vfioNodes(host, device)).holders) {
      refusals.push({ guard: 'in-use', address, reason: `process ${h.pid} (${h.command}) has ${h.path} open` });
    }
  }
  return refusals;
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
    ...(w.sriov === undefined ? {} : { sriov: { ...w.sriov, to: w.binding?.sriov ?? w.sriov.to } }),
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

/** True when something changed. */
async function goBack(work: Work, way: Way, dropVfs: boolean, warnings: string[]): Promise<boolean> {
  if (way.binding === null) return toHostDriver(work, way, warnings);
  const back: Returned = await giveBack(work, way.device, way.binding, dropVfs);
  if (back.outcome === 'kept') {
    throw new HostdevError('HOSTDEV_IN_USE', `${back.address} stays as it is: ${back.reason}`, {
      hint: `'hostdev unbind --to-host ${back.address}' after looking at it.`,
    });
  }
  return back.outcome === 'given-back';
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
    from: now,
    to: free,
    override_bytes: now.overrideBytes,
    ...(sriov === undefined ? {} : { sriov }),
  };
  await runMoves(work, 'give-back', 'admin', [move], () => {
    for (const a of [address, ...recordedVfs(sriov?.from).map((vf) => vf.address)]) removeBinding(host, a);
  });
  const modalias = host.read(host.device(address, 'modalias'));
  if (modalias !== null) await loadHostModule(host, modalias, work.deadline);
  await work.writer.write(host.driversProbe, address, work.deadline.left);
  const driver = host.linkName(host.device(address, 'driver'));
  if (driver === null) warnings.push(`${address} is free now, but no host driver of this kernel claims it`);
  return true;
}
