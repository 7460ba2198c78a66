/** `unbind DEV…`: back to where the books say each device was; with --to-host, to whatever host driver claims it. */

import { bindingNow } from '../binding/access.ts';
import { type Binding, type BookChange, isGuest, isHoldOnly, ownerText, readBook } from '../binding/books.ts';
import { hostClaimants, hostDrivers } from '../binding/drivers/driverChoice.ts';
import { giveBackTogether, planBack, vfsBack, type WayBack } from '../binding/giveBack.ts';
import { byName, judge, printedRefusals, type Refusal } from '../binding/guards.ts';
import { keptBy, witness } from '../binding/guests.ts';
import { observe, type Seen } from '../binding/observe.ts';
import type { Work } from '../binding/perform.ts';
import { asTheyAre, changing, foreseeing } from '../binding/session.ts';
import { type DeviceState, describeState, type Move, recordedVfs, type SriovChange } from '../binding/state.ts';
import { stepsOf } from '../binding/steps.ts';
import { readUsages } from '../binding/usage.ts';
import { refillSteps } from '../binding/vfPlan.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { onHostDriver } from '../pci/vendorVfio.ts';
import { type Warning, warning } from '../text/warning.ts';
import { namedDevices } from './bind.ts';
import type { ActionOptions, Warned } from './options.ts';
import { type PrintedPlan, refuseWithPlan } from './plan.ts';
import { lostBindings, lostWithVfs } from './vfLosses.ts';

export type UnbindResult = Warned & { changed: boolean; plan: PrintedPlan };

type Unbinding = {
  device: PciDevice;
  binding: Binding | null;
  now: Seen;
  /** Where it goes: what the books say, or without books no override and whatever host driver claims it then. */
  target: DeviceState;
  /**
   * Its way back by the books; null where they have none, or where somebody has changed the device since and --to-host
   * takes it from there.
   */
  back: WayBack | null;
  /** Why the books' way is not gone. */
  kept: string | null;
  /** The move, by the books or by hand; null where nothing moves. */
  move: Move | null;
};

/**
 * Raises HOSTDEV_NOT_OURS for a device that hostdev did not bind (unless `toHost`), HOSTDEV_IN_USE when a process holds
 * one or a guest has it, and what the transaction raises. A device that is on its host driver already is no change.
 */
export async function unbindDevices(
  host: Host,
  words: readonly string[],
  toHost: boolean,
  options: ActionOptions,
): Promise<UnbindResult> {
  const inventory = scanInventory(host);
  const { devices, resolved } = namedDevices(host, inventory, words);
  const asked = { addresses: devices.map((d) => d.address) };
  const session = options.dryRun ? foreseeing : changing;
  return session(host, inventory, asked, options, async ({ work, recovered, inventory: fresh, backAlready }) => {
    const unbindings: Unbinding[] = [];
    for (const device of asTheyAre(fresh, devices))
      if (toHost || !backAlready.has(device.address)) unbindings.push(await unbindingOf(work, device, toHost, options));
    const { refusals, warnings } = await judgeWays(work, unbindings, options);
    const plan = planOf(work, unbindings, refusals);
    refuseWithPlan(plan, refusals);
    if (!toHost) {
      for (const unbinding of unbindings) refuseForeign(unbinding);
      refuseKept(unbindings);
    }
    for (const { device, move } of unbindings) warnings.push(...(await goingWith(work, fresh, device, move)));
    if (options.dryRun) {
      const free = unbindings.flatMap(({ device, move }, n) =>
        move?.any_host && plan.devices[n]?.driver_to === null ? device : [],
      );
      const unknown = unclaimable(host, free);
      return { changed: false, plan, warnings: [...resolved, ...recovered, ...warnings, ...unknown] };
    }
    await giveBackTogether(
      work,
      unbindings.flatMap((w) => w.back ?? []),
      options.allowed,
      byHand(
        host,
        unbindings.filter((w) => w.back === null),
      ),
    );
    const changed =
      backAlready.size > 0 || unbindings.some((w) => w.move !== null || (w.back === null && w.binding !== null));
    const free = unbindings.filter((w) => w.move?.any_host);
    return {
      changed,
      plan: { ...plan, devices: plan.devices.map((d) => asItIs(host, d)) },
      warnings: [...resolved, ...recovered, ...warnings, ...unclaimed(host, free)],
    };
  });
}

async function unbindingOf(
  work: Work,
  device: PciDevice,
  toHost: boolean,
  { allowed }: ActionOptions,
): Promise<Unbinding> {
  const { host } = work;
  const binding = bindingNow(work, device.address);
  const now = await observe(work, device.address);
  if (now === null) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${device.address} went away`);
  if (binding === null && !toHost) throw notOurs(device, now);
  const byBooks = binding !== null && !(toHost && isHoldOnly(binding));
  const back = byBooks ? await planBack(work, device, binding, allowed) : null;
  const seen = { device, binding, now };
  if (back !== null && back.outcome !== 'kept') return { ...seen, target: back.to, back, kept: null, move: back.move };
  const kept = back?.reason ?? null;
  if (!toHost) return { ...seen, target: binding?.before ?? now, back: null, kept, move: null };
  const target = hostTarget(host, device, now);
  return {
    ...seen,
    target,
    back: null,
    kept,
    move: toHostMove(host, device, now, target, await vfsBack(work, device, binding)),
  };
}

/** Which host driver claims a device is the kernel's affair: told as it is, not as it was planned. */
const asItIs = (host: Host, d: PrintedPlan['devices'][number]): PrintedPlan['devices'][number] => ({
  ...d,
  driver_to: host.linkName(host.device(d.address, 'driver')),
});

/** Somebody has it, or has changed it since: without --to-host it stays, and with it all that was to go together. */
function refuseKept(unbindings: readonly Unbinding[]): void {
  const kept = unbindings.filter((w) => w.kept !== null);
  const [first] = kept;
  if (first === undefined) return;
  throw new HostdevError(
    'HOSTDEV_IN_USE',
    kept.map((w) => `${w.device.address} stays as it is: ${w.kept}`).join('; '),
    { hint: `'hostdev unbind --to-host ${first.device.address}' after looking at it.` },
  );
}

/** On VFIO before us, and in the books only for who used it. */
function refuseForeign({ device, binding, now }: Unbinding): void {
  if (binding !== null && isHoldOnly(binding) && binding.holds.every(isGuest)) throw notOurs(device, now);
}

const notOurs = (device: PciDevice, now: DeviceState): HostdevError =>
  new HostdevError('HOSTDEV_NOT_OURS', `hostdev did not bind ${device.address} (it is on ${describeState(now)})`, {
    hint: `'hostdev unbind --to-host ${device.address}' brings it to its host driver all the same.`,
  });

/**
 * The same guards as on the way there: without books a device may well be on a host driver that it would lose for a
 * moment.
 */
async function judgeWays(
  work: Work,
  unbindings: readonly Unbinding[],
  { allowed }: ActionOptions,
): Promise<{ refusals: Refusal[]; warnings: Warning[] }> {
  const { host } = work;
  // Only what leaves a driver is asked about: an override alone can be taken off a device that is in use. Who has it
  // counts all the same: it would be out of the books.
  const moving = unbindings.filter((w) => w.binding?.holds.some(isGuest) || leaves(w));
  const usages = await readUsages(
    work,
    moving.map((w) => ({ ...w.device, driver: work.host.linkName(work.host.device(w.device.address, 'driver')) })),
  );
  const look = await witness(
    host,
    moving.flatMap((w) => w.binding ?? []),
    work.deadline.left,
  );
  const all: { refusals: Refusal[]; warnings: Warning[] } = { refusals: [], warnings: [] };
  for (const { device, binding, now } of moving) {
    const usage = usages.get(device.address) ?? { uses: [], unmeasured: [] };
    const guest = binding?.holds.find((h) => isGuest(h) && look.presence(binding, h) === 'runs');
    const reason =
      keptBy(look, binding, 'admin')?.reason ??
      (guest === undefined ? null : `it belongs to ${ownerText(guest)}, which runs without it`);
    if (reason !== null) usage.uses.unshift({ guard: 'other-owner', reason });
    const judged = { device: { ...device, driver: now.driver }, usage, target: null, denylistOff: true };
    const judgement = judge({ ...judged, real: host.isReal, asker: 'unbind' }, byName(allowed));
    all.refusals.push(...judgement.refusals);
    all.warnings.push(...judgement.warnings);
    work.lifted?.push(...judgement.lifted);
  }
  return all;
}

const leaves = ({ now, target }: Unbinding): boolean => now.driver !== null && now.driver !== target.driver;

const hostTarget = (host: Host, device: PciDevice, now: DeviceState): DeviceState => ({
  driver: onHostDriver(host, device.address, now.driver) ? now.driver : null,
  override: null,
});

/**
 * The move to a host driver; null for a device that is on one already: then it and its VFs stay as they are. Without a
 * driver it can have no VFs; what the books recorded of them does not come back this way.
 */
function toHostMove(
  host: Host,
  device: PciDevice,
  now: Seen,
  to: DeviceState,
  sriov: SriovChange | undefined,
): Move | null {
  const { address } = device;
  if (to.driver !== null && now.override === null) return null;
  return {
    address,
    group: device.iommu_group,
    inode: host.inode(host.device(address)),
    from: { driver: now.driver, override: now.override },
    to,
    override_bytes: now.overrideBytes,
    ...(to.driver === null ? { any_host: true as const } : {}),
    ...(sriov === undefined || to.driver !== null
      ? {}
      : { sriov: { ...sriov, to: { ...sriov.to, numvfs: 0, vfs: [] } } }),
  };
}

function planOf({ host }: Work, unbindings: readonly Unbinding[], refusals: Refusal[]): PrintedPlan {
  const moves = unbindings.flatMap((w) => w.move ?? []);
  const foretold = hostDrivers(host);
  return {
    devices: unbindings.map(({ device, now, target, move, binding }) => ({
      address: device.address,
      driver_from: now.driver,
      driver_to: move?.any_host
        ? (driverBefore(binding) ?? foretold(host.read(host.device(device.address, 'modalias'))))
        : target.driver,
      module: null,
    })),
    steps: [...stepsOf(host, moves), ...moves.flatMap((m) => refillSteps(host, m))].map(({ path, value, undo }) => ({
      path,
      value,
      undo,
    })),
    refusals: printedRefusals(refusals),
  };
}

/** The host driver that it was on before us, told by its name: `vfio-dev` is of the driver that it is on now. */
const driverBefore = (binding: Binding | null): string | null =>
  /vfio/.test(binding?.before.driver ?? '') ? null : (binding?.before.driver ?? null);

/**
 * Never bound by us, or changed by somebody since: the override goes, the kernel matches anew, with the module that its
 * modalias names; and they are out of the books.
 */
function byHand(host: Host, unbindings: readonly Unbinding[]): { devices: Move[]; books: BookChange[] } {
  const out = unbindings.flatMap(({ device, move }) => [
    device.address,
    ...recordedVfs(move?.sriov?.from).map((vf) => vf.address),
  ]);
  return {
    devices: unbindings.flatMap(({ move }) => move ?? []),
    books: out.map((address) => ({ address, before: readBook(host, address), after: null })),
  };
}

/** What goes with the VFs of a PF that moves: told before they go. */
async function goingWith(work: Work, inventory: Inventory, pf: PciDevice, move: Move | null): Promise<Warning[]> {
  const from = move?.sriov?.from;
  if (from === undefined || from.numvfs === 0) return [];
  const { lost, lines } = await lostWithVfs(work, inventory, pf, from);
  return [...lostBindings(pf.address, lost), ...lines];
}

/** Of a dry run: devices that no host driver would claim, by modules.alias. */
function unclaimable(host: Host, devices: readonly PciDevice[]): Warning[] {
  const claimants = hostClaimants(host);
  return devices.flatMap(({ address }) =>
    claimants(host.read(host.device(address, 'modalias')))?.length === 0
      ? [warning('no-host-driver', `${address} would be free, but no host driver of this kernel claims it`, address)]
      : [],
  );
}

function unclaimed(host: Host, unbindings: readonly Unbinding[]): Warning[] {
  return unbindings.flatMap(({ device: { address } }) =>
    host.linkName(host.device(address, 'driver')) === null
      ? [warning('no-host-driver', `${address} is free now, but no host driver of this kernel claims it`, address)]
      : [],
  );
}
