/** From "these devices, please" to a plan that can be shown, and from the plan to a finished transaction. */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { functionsAbove } from '../pci/path.ts';
import { vendorVfio } from '../pci/vendorVfio.ts';
import { type Warning, warning } from '../text/warning.ts';
import { bindingNow } from './access.ts';
import {
  applyBooks,
  type Binding,
  type BookChange,
  type Hold,
  isGuest,
  newBinding,
  ownerText,
  readBook,
  withHold,
  withoutHolds,
} from './books.ts';
import { chooseDriver, type ModuleLists, readModuleLists } from './drivers/driverChoice.ts';
import { type DriverModule, loadedDriver, refuseUnloadable } from './drivers/modules.ts';
import { vendorVfioUses } from './guards/vendorVfio.ts';
import { type Asker, byName, type Guard, guardWarning, judge, type Refusal } from './guards.ts';
import { deadHolds, type Witness, witness } from './guests.ts';
import type { Lifted } from './journal.ts';
import { observe } from './observe.ts';
import type { Work } from './perform.ts';
import { type DeviceState, type Move, recordedVfs } from './state.ts';
import { type Step, stepsOf } from './steps.ts';
import { booksOfVfs, runChange } from './transaction.ts';
import { readUsages } from './usage.ts';
import { withoutVfs } from './vfPlan.ts';

/**
 * A device and the driver asked for; null is the kernel's best VFIO driver. `allowed` are guards lifted for this device
 * only, by `[[allow]]`.
 */
export type BindRequest = { device: PciDevice; wanted: string | null; allowed?: ReadonlySet<Guard> };

type PlannedDevice = { device: PciDevice; target: DriverModule; move: Move; binding: Binding | null };

export type BindPlan = {
  /** The devices that will change; one that is on its driver already is not among them. */
  devices: PlannedDevice[];
  /** On their driver already, and in the books: they get the hold too. */
  adopted: Binding[];
  refusals: Refusal[];
  warnings: Warning[];
  /** What was lifted for each device: by name now, by reason in the journal. */
  lifted: Lifted[];
  allowed: ReadonlyMap<Address, ReadonlySet<Guard>>;
};

/**
 * Observes the devices and plans their way to the drivers asked for. Guards and others' holds become refusals, not
 * errors, so that a dry run shows them. Raises HOSTDEV_DEVICE_ABSENT for a device that went away,
 * HOSTDEV_MODULES_ALIAS, HOSTDEV_TIMEOUT when a device does not answer.
 */
export async function planBind(
  work: Work,
  requests: readonly BindRequest[],
  owner: string,
  allowed: ReadonlySet<Guard>,
): Promise<BindPlan> {
  const { host } = work;
  const asker = askerOf(owner);
  const readLists = once(() => readModuleLists(host));
  const denylistOff = host.read(host.module('vfio_pci', 'parameters/disable_denylist')) === 'Y';
  const allowedFor = new Map(
    requests.map((r) => [r.device.address, new Set([...allowed, ...(r.allowed ?? [])])] as const),
  );
  const plan: BindPlan = {
    devices: [],
    adopted: [],
    refusals: [],
    warnings: [],
    lifted: [],
    allowed: allowedFor,
  };
  for (const { device, wanted } of requests) {
    const own = vendorVfio(host, device);
    if (own?.ready && (wanted ?? own.driver) === own.driver) {
      staysWhereItIs(work, device, plan);
      continue;
    }
    const target = chooseDriver(host, device, wanted, readLists);
    const seen = await observe(work, device.address);
    if (seen === null) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${device.address} went away`);
    const binding = bindingNow(work, device.address);
    if (seen.driver === target.driver && !isOverridden(binding, seen)) {
      if (binding !== null) plan.adopted.push(binding);
      continue;
    }
    const move: Move = {
      address: device.address,
      group: device.iommu_group,
      inode: host.inode(host.device(device.address)),
      from: { driver: seen.driver, override: seen.override },
      to: { driver: target.driver, override: target.driver },
      override_bytes: seen.overrideBytes,
    };
    plan.devices.push({ device: { ...device, driver: seen.driver }, target, move, binding });
  }
  // What it is used for is of now, whatever an unfinished change makes of it first.
  const now = new Map(
    plan.devices.map(({ device: d }) => [d.address, { ...d, driver: host.linkName(host.device(d.address, 'driver')) }]),
  );
  const usages = await readUsages(work, [...now.values()]);
  const look = await witness(
    host,
    plan.devices.flatMap((d) => d.binding ?? []),
    work.deadline.left,
  );
  for (const planned of plan.devices) {
    const { device, target, binding } = planned;
    const usage = usages.get(device.address) ?? { uses: [], unmeasured: [] };
    const foreign = othersHold(look, binding, owner);
    usage.uses.unshift(...vendorVfioUses(host, now.get(device.address) ?? device, true));
    if (foreign !== null) usage.uses.unshift({ guard: 'other-owner', reason: foreign });
    const lifted = allowedFor.get(device.address) ?? new Set();
    const judgement = judge({ device, usage, target, denylistOff, real: host.isReal, asker }, byName(lifted));
    const gone = [...goneWithPf(plan, device), ...goneWithMaker(work, plan, device)];
    plan.refusals.push(...judgement.refusals, ...gone.map((reason) => goes(device, reason, asker)));
    plan.warnings.push(...judgement.warnings);
    plan.lifted.push(...judgement.lifted);
    if (lifted.has('vfs') && (device.sriov_numvfs ?? 0) > 0)
      planned.move = { ...planned.move, sriov: await withoutVfs(work, device.address) };
  }
  return plan;
}

/** It is for guests where it is, by its own driver. */
function staysWhereItIs(work: Work, device: PciDevice, plan: BindPlan): void {
  const { host } = work;
  const { address, driver } = device;
  const binding = bindingNow(work, address);
  if (binding !== null) plan.adopted.push(binding);
  plan.warnings.push(
    warning(
      'vendor-vfio',
      `${address} stays on ${driver}, its own driver and VFIO provider: guests take it with managed='no'`,
      address,
    ),
    ...vendorVfioUses(host, device, false).map((u) => guardWarning(u.guard, address, u.reason)),
  );
}

const askerOf = (owner: string): Asker => (owner.startsWith('domain:') ? 'hook' : 'bind');

/** On its driver, but by somebody's hand with another override than we left. */
const isOverridden = (b: Binding | null, seen: DeviceState): boolean =>
  b?.after != null && b.after.driver === seen.driver && seen.override !== null && seen.override !== b.after.override;

/** What a hold that asks for the device has to be told when others have one; a guest that is gone has none. */
function othersHold(look: Witness, b: Binding | null, owner: string): string | null {
  const other = b?.holds.find(
    (h) => !isSame(h.owner, owner) && !(b !== null && isGuest(h) && look.presence(b, h) === 'gone'),
  );
  return other === undefined ? null : `it belongs to ${ownerText(other)}`;
}

/** The boot does what the admin wishes. */
const isSame = (a: string, b: string): boolean => a === b || (askerOf(a) === 'bind' && askerOf(b) === 'bind');

const goes = ({ address }: PciDevice, reason: string, asker: Asker): Refusal => ({
  guard: 'vfs',
  address,
  reason,
  firm: true,
  asker,
});

/** A VF cannot be had beside its PF: it goes with the PF's driver. */
function goneWithPf(plan: BindPlan, device: PciDevice): string[] {
  const pf = plan.devices.find((d) => d.device.address === device.parent_addr);
  if (pf === undefined) return [];
  return [`it is a VF of ${pf.device.address}, which is asked for too and takes it away`];
}

/** What hangs below a function that is no bridge is made by its driver, and goes with it. */
function goneWithMaker({ host }: Work, plan: BindPlan, { address }: PciDevice): string[] {
  const asked = new Map(plan.devices.map(({ device }) => [device.address, device]));
  const maker = asked.size < 2 ? undefined : functionsAbove(host, address).find((a) => asked.get(a)?.bridge === false);
  if (maker === undefined) return [];
  return [`the driver of ${maker} makes it, which is asked for too and takes it away`];
}

/** modules.alias is a megabyte: read when the first device needs it, and once. */
function once(read: () => ModuleLists): () => ModuleLists {
  let lists: ModuleLists | null = null;
  return () => {
    lists ??= read();
    return lists;
  };
}

/**
 * What {@link executeBind} would raise before it has written anything: HOSTDEV_MODULE, HOSTDEV_TIMEOUT. For a dry run.
 */
export async function checkModules(work: Work, plan: BindPlan): Promise<void> {
  for (const { target } of plan.devices) await refuseUnloadable(work.host, target, work.deadline);
}

/** The steps of a plan, as they would be written. */
export const planSteps = (work: Pick<Work, 'host'>, plan: BindPlan): Step[] =>
  stepsOf(
    work.host,
    plan.devices.map((d) => d.move),
  );

/**
 * Carries out a plan without refusals for a hold: loads the modules, moves the devices, writes the books, in one
 * transaction. `also` are the books of devices that need no move but are to be written with it. The caller holds the
 * devices' locks. Raises what {@link runChange} and the module loading raise. True when anything has changed.
 */
export async function executeBind(
  work: Work,
  plan: BindPlan,
  hold: Hold,
  also: readonly BookChange[] = [],
): Promise<boolean> {
  const { host } = work;
  for (const d of plan.devices) {
    const { driver } = await loadedDriver(host, d.target, work.deadline);
    d.move = { ...d.move, to: { driver, override: driver } };
  }
  const look = await witness(host, plan.adopted, work.deadline.left);
  const books = [
    ...plan.devices.flatMap((d) => booksBound(host, d, hold)),
    ...plan.adopted.map((b) => ({ address: b.address, before: b, after: held(host, look, b, hold) })),
    ...also,
  ];
  const devices = plan.devices.map((d) => d.move);
  const permit = {
    asker: askerOf(hold.owner),
    lifts: (address: Address) => byName(plan.allowed.get(address) ?? new Set()),
  };
  const changed =
    devices.length > 0 || books.some((b) => JSON.stringify(b.before?.holds) !== JSON.stringify(b.after?.holds));
  if (devices.length === 0 && books.length <= 1) {
    if (changed) applyBooks(host, books, 'after');
  } else await runChange({ ...work, permit }, { kind: 'bind', owner: hold.owner, devices, books, lifted: plan.lifted });
  return changed;
}

/** A hold more in the books of a device, in place of those whose guests are gone. */
export const held = (host: Host, look: Witness, b: Binding, hold: Hold): Binding =>
  withHold(withoutHolds(b, new Set(deadHolds(host, look, b).map((h) => h.owner))), hold);

/**
 * What was there before the first of our bindings stays what is given back, whatever has become of the device since.
 */
function booksBound(host: Host, { device, move, binding }: PlannedDevice, hold: Hold): BookChange[] {
  const { address } = device;
  const gone = move.sriov === undefined ? {} : { sriov: move.sriov.from, vf_bindings: booksOfVfs(host, move) };
  const after =
    binding === null
      ? { ...newBinding(host, address, device.iommu_group, hold, move.from, move.to), ...gone }
      : { ...gone, ...withHold(binding, hold), after: move.to };
  const vfs = recordedVfs(move.sriov?.from).map((vf) => ({
    address: vf.address,
    before: readBook(host, vf.address),
    after: null,
  }));
  return [{ address, before: readBook(host, address), after }, ...vfs];
}
