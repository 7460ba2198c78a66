/** From "these devices, please" to a plan that can be shown, and from the plan to a finished transaction. */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Inventory, PciDevice } from '../pci/inventory.ts';
import { observe, type Work } from './access.ts';
import {
  allOrNone,
  type Binding,
  type Claim,
  newBinding,
  ownerText,
  readBinding,
  removeBinding,
  withClaims,
  writeBinding,
} from './books.ts';
import { chooseDriver, type ModuleLists, readModuleLists } from './driverChoice.ts';
import { firm, type Guard, judge, type Layer, type Refusal, refusalHint } from './guards.ts';
import type { JournalMove } from './journal.ts';
import { type DriverModule, loadedDriver } from './modules.ts';
import { type Step, stepsOf } from './move.ts';
import { recordedVfs } from './sriov.ts';
import { runMoves } from './transaction.ts';
import { readUsages } from './usage.ts';
import { withoutVfs } from './vfPlan.ts';

/** A device and the driver asked for; null is the kernel's best VFIO driver. `allowed` are guards lifted for this device only, by `[[allow]]`. */
export type BindRequest = { device: PciDevice; wanted: string | null; allowed?: ReadonlySet<Guard> };

export type PlannedDevice = { device: PciDevice; target: DriverModule; move: JournalMove; binding: Binding | null };

export type BindPlan = {
  /** The devices that will change; one that is on its driver already is not among them. */
  devices: PlannedDevice[];
  /** On their driver already, and in the books without a claim (a return that failed): they get one. */
  adopted: Binding[];
  refusals: Refusal[];
  warnings: string[];
};

/** What a claim that asks for the device has to be told when others have one. */
const claimedBy = (b: Binding, owner: string): Claim | undefined => b.claims.find((c) => c.owner !== owner);

/**
 * Observes the devices and plans their way to the drivers asked for. Guards and foreign claims become refusals, not errors, so that a dry run shows
 * them. Raises HOSTDEV_DEVICE_ABSENT for a device that went away, HOSTDEV_MODULES_ALIAS, HOSTDEV_TIMEOUT when a device does not answer.
 */
export async function planBind(
  work: Work,
  requests: readonly BindRequest[],
  owner: string,
  allowed: ReadonlySet<Guard>,
): Promise<BindPlan> {
  const { host } = work;
  const layer: Layer = owner.startsWith('domain:') ? 'hook' : 'bind';
  const readLists = once(() => readModuleLists(host));
  const denylistOff = host.read(host.module('vfio_pci', 'parameters/disable_denylist')) === 'Y';
  const plan: BindPlan = { devices: [], adopted: [], refusals: [], warnings: [] };
  for (const { device, wanted } of requests) {
    const target = chooseDriver(host, device, wanted, readLists);
    const now = await observe(work, device.address);
    if (now === null) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${device.address} went away`);
    const binding = readBinding(host, device.address);
    if (now.driver === target.driver) {
      if (binding !== null && binding.claims.length === 0) plan.adopted.push(binding);
      continue;
    }
    const from = { driver: now.driver, override: now.override };
    const move: JournalMove = {
      address: device.address,
      group: device.iommu_group,
      from,
      to: { driver: target.driver, override: target.driver },
      override_bytes: now.overrideBytes,
    };
    plan.devices.push({ device: { ...device, driver: now.driver }, target, move, binding });
  }
  const usages = await readUsages(
    work,
    plan.devices.map((d) => d.device),
  );
  const liftedFor = new Map(requests.map((r) => [r.device.address, r.allowed ?? []]));
  for (const planned of plan.devices) {
    const { device, target, binding } = planned;
    const usage = usages.get(device.address) ?? { uses: [], unmeasured: [] };
    const foreign = binding === null ? undefined : claimedBy(binding, owner);
    if (foreign !== undefined)
      usage.uses.unshift({ guard: 'other-owner', reason: `it belongs to ${ownerText(foreign)}` });
    const lifted = new Set([...allowed, ...(liftedFor.get(device.address) ?? [])]);
    const verdict = judge({ device, usage, target, denylistOff, real: host.isReal, layer }, lifted);
    plan.refusals.push(...verdict.refusals, ...goneWithPf(plan, device));
    plan.warnings.push(...verdict.warnings);
    if (lifted.has('vfs') && (device.sriov_numvfs ?? 0) > 0)
      planned.move = { ...planned.move, sriov: await withoutVfs(work, device.address) };
  }
  return plan;
}

/** A VF cannot be had beside its PF: it goes with the PF's driver. */
function goneWithPf(plan: BindPlan, device: PciDevice): Refusal[] {
  const pf = plan.devices.find((d) => d.device.address === device.parent_addr);
  if (pf === undefined) return [];
  const reason = `it is a VF of ${pf.device.address}, which is asked for too and takes it away`;
  return [firm({ guard: 'vfs', address: device.address, reason })];
}

/** modules.alias is a megabyte: read when the first device needs it, and once. */
function once(read: () => ModuleLists): () => ModuleLists {
  let lists: ModuleLists | null = null;
  return () => {
    lists ??= read();
    return lists;
  };
}

/** The steps of a plan, as they would be written. */
export const planSteps = (work: Pick<Work, 'host'>, plan: BindPlan): Step[] =>
  stepsOf(
    work.host,
    plan.devices.map((d) => d.move),
  );

/** Raises HOSTDEV_GUARD (or HOSTDEV_IN_USE) for the refusals of a plan, naming all of them. */
export function refuse(refusals: readonly Refusal[]): void {
  if (refusals.length === 0) return;
  const held = refusals.every((r) => r.guard === 'in-use' || r.guard === 'other-owner');
  const text = refusals.map((r) => `${r.address}: ${r.reason}`).join('; ');
  throw new HostdevError(held ? 'HOSTDEV_IN_USE' : 'HOSTDEV_GUARD', text, {
    hint: refusalHint(refusals),
    data: { refusals },
  });
}

/**
 * Carries out a plan without refusals for a claim: loads the modules, moves the devices, writes the books, in one transaction. `also` are bindings whose
 * devices need no move but are to be written with it. The caller holds the groups' locks. Raises what {@link runMoves} and the module loading raise.
 */
export async function executeBind(
  work: Work,
  plan: BindPlan,
  claim: Claim,
  also: readonly Binding[] = [],
): Promise<void> {
  const moves: JournalMove[] = [];
  for (const d of plan.devices) {
    const { driver } = await loadedDriver(work.host, d.target, work.deadline);
    d.move = { ...d.move, to: { driver, override: driver } };
    moves.push(d.move);
  }
  const commit = (): void => {
    for (const d of plan.devices) {
      writeBinding(work.host, afterBind(work.host, d, claim));
      for (const vf of recordedVfs(d.move.sriov?.from)) removeBinding(work.host, vf.address);
    }
    for (const b of plan.adopted) writeBinding(work.host, { ...withClaims(b, [claim]), note: null });
    for (const b of also) writeBinding(work.host, b);
  };
  if (moves.length === 0) allOrNone(commit);
  else await runMoves(work, 'bind', claim.owner, moves, () => allOrNone(commit));
}

/** What was there before the first of our bindings stays what is given back, unless somebody else has changed the device since. */
function afterBind(host: Host, { device, move, binding }: PlannedDevice, claim: Claim): Binding {
  const still =
    binding !== null && (move.from.driver === binding.after?.driver || move.from.driver === binding.before.driver);
  const gone = goneVfs(host, move);
  if (!still) return { ...newBinding(device.address, device.iommu_group, claim, move.from, move.to), ...gone };
  return { ...gone, ...withClaims(binding, addClaim(binding.claims, claim)), after: move.to, note: null };
}

/** What the books of a PF keep of the VFs that went with its driver. */
export function goneVfs(host: Host, { sriov }: JournalMove): Pick<Binding, 'sriov' | 'vf_bindings'> {
  if (sriov === undefined) return {};
  const vf_bindings = recordedVfs(sriov.from).flatMap((vf) => readBinding(host, vf.address) ?? []);
  return { sriov: sriov.from, vf_bindings };
}

export const addClaim = (claims: readonly Claim[], claim: Claim): Claim[] => [
  ...claims.filter((c) => c.owner !== claim.owner),
  claim,
];

/**
 * The locks of a set of devices, in the order everybody takes them: groups with a PF first, because a change of its VFs takes theirs afterwards; then ascending, devices
 * without a group under one name.
 */
export function groupLocks(groups: readonly (number | null)[], inventory: Inventory): string[] {
  const pfs = new Set(inventory.devices.filter((d) => d.dev_type === 'type-PF').map((d) => d.iommu_group));
  const rank = (g: number | null): number => (pfs.has(g) ? 0 : 2 ** 32) + (g ?? 2 ** 31);
  const numbers = [...new Set(groups)].sort((a, b) => rank(a) - rank(b));
  return numbers.map((g) => `group-${g ?? 'none'}`);
}
