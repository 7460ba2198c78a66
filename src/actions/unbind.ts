/** `unbind DEV…`: back to where the books say each device was; with --to-host, to whatever host driver claims it. */

import {
  type Binding,
  type BookChange,
  isGuest,
  isHoldOnly,
  ownerText,
  readBinding,
  readBook,
} from '../binding/books.ts';
import { giveBackTogether, vfsBack } from '../binding/giveBack.ts';
import { byName, judge, type Refusal } from '../binding/guards.ts';
import { keptBy, witness } from '../binding/guests.ts';
import { observe, type Seen } from '../binding/observe.ts';
import type { Work } from '../binding/perform.ts';
import { asTheyAre, changing, observing, unfinished } from '../binding/session.ts';
import {
  type DeviceState,
  describeState,
  type Move,
  recordedVfs,
  type SriovChange,
  sameState,
} from '../binding/state.ts';
import { stepsOf } from '../binding/steps.ts';
import { readUsages } from '../binding/usage.ts';
import { refillSteps } from '../binding/vfPlan.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type PciDevice, scanInventory } from '../pci/inventory.ts';
import { onHostDriver } from '../pci/vendorVfio.ts';
import { uniqueDevices } from './bind.ts';
import type { ActionOptions, Warned } from './options.ts';
import { type PrintedPlan, refuseWithPlan } from './plan.ts';

export type UnbindResult = Warned & { changed: boolean; plan: PrintedPlan };

type Way = {
  device: PciDevice;
  binding: Binding | null;
  now: Seen;
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
  const run = async (
    work: Work,
    recovered: string[],
    now: readonly PciDevice[],
    back: ReadonlySet<string>,
  ): Promise<UnbindResult> => {
    const ways: Way[] = [];
    for (const device of now) if (toHost || !back.has(device.address)) ways.push(await wayBack(work, device, toHost));
    const { refusals, warnings: guarded } = await judgeWays(work, ways, options);
    const plan = planOf(work, ways, refusals);
    refuseWithPlan(plan);
    if (!toHost) for (const way of ways) refuseForeign(way);
    if (options.dryRun) return { changed: false, plan, warnings: [...recovered, ...guarded] };
    const warnings = [...recovered, ...guarded];
    const changed = (await goBack(work, ways, toHost, options, warnings)) || back.size > 0;
    return { changed, plan: { ...plan, devices: plan.devices.map((d) => asItIs(host, d)) }, warnings };
  };
  const asked = { addresses: devices.map((d) => d.address) };
  if (options.dryRun) {
    const before = unfinished(host, asked.addresses);
    return observing(host, options, (work) => run(work, [...before.values()], devices, new Set(before.keys())));
  }
  return changing(host, inventory, asked, options, ({ work, recovered, inventory: fresh, backAlready }) =>
    run(work, recovered, asTheyAre(fresh, devices), backAlready),
  );
}

async function wayBack(work: Work, device: PciDevice, toHost: boolean): Promise<Way> {
  const binding = readBinding(work.host, device.address);
  const now = await observe(work, device.address);
  if (now === null) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${device.address} went away`);
  if (binding === null && !toHost) throw notOurs(device, now);
  return { device, binding, now, sriov: await vfsBack(work, device, binding) };
}

/** Which host driver claims a device is the kernel's affair: told as it is, not as it was planned. */
const asItIs = (host: Host, d: PrintedPlan['devices'][number]): PrintedPlan['devices'][number] => ({
  ...d,
  driver_to: host.linkName(host.device(d.address, 'driver')),
});

/** On VFIO before us, and in the books only for who used it. */
function refuseForeign({ device, binding, now }: Way): void {
  if (binding !== null && isHoldOnly(binding) && binding.holds.every(isGuest)) throw notOurs(device, now);
}

const notOurs = (device: PciDevice, now: DeviceState): HostdevError =>
  new HostdevError('HOSTDEV_NOT_OURS', `hostdev did not bind ${device.address} (it is on ${describeState(now)})`, {
    hint: `'hostdev unbind --to-host ${device.address}' brings it to its host driver all the same.`,
  });

/** The same guards as on the way there: without books a device may well be on a host driver that it would lose for a moment. */
async function judgeWays(
  work: Work,
  ways: readonly Way[],
  { allowed }: ActionOptions,
): Promise<{ refusals: Refusal[]; warnings: string[] }> {
  const { host } = work;
  // Who has it counts for a device that would stay where it is too: it would be out of the books.
  const moving = ways.filter((w) => w.binding?.holds.some(isGuest) || !sameState(w.now, targetOf(host, w)));
  const usages = await readUsages(
    work,
    moving.map((w) => ({ ...w.device, driver: w.now.driver })),
  );
  const look = await witness(
    host,
    moving.flatMap((w) => w.binding ?? []),
    work.deadline.left,
  );
  const all: { refusals: Refusal[]; warnings: string[] } = { refusals: [], warnings: [] };
  for (const { device, binding, now } of moving) {
    const usage = usages.get(device.address) ?? { uses: [], unmeasured: [] };
    const guest = binding?.holds.find((h) => isGuest(h) && look.presence(binding, h) === 'runs');
    const reason =
      keptBy(look, binding, 'admin')?.reason ??
      (guest === undefined ? null : `it belongs to ${ownerText(guest)}, which runs without it`);
    if (reason !== null)
      usage.uses.unshift({ guard: 'other-owner', reason: `${reason}: it comes back when that guest stops` });
    const judged = { device: { ...device, driver: now.driver }, usage, target: null, denylistOff: true };
    const verdict = judge({ ...judged, real: host.isReal, layer: 'unbind' }, byName(allowed));
    all.refusals.push(...verdict.refusals);
    all.warnings.push(...verdict.warnings);
  }
  return all;
}

/** Where a device goes: what the books say, or without books no override and whatever driver claims it then (foretold as the one it has, if that is the host's). */
const targetOf = (host: Host, { device, binding, now }: Way): DeviceState =>
  isBound(binding) ? binding.before : hostTarget(host, device, now);

/** We moved it: the books know the way back. */
const isBound = (binding: Binding | null): binding is Binding => binding !== null && !isHoldOnly(binding);

const hostTarget = (host: Host, device: PciDevice, now: DeviceState): DeviceState => ({
  driver: onHostDriver(host, device.address, now.driver) ? now.driver : null,
  override: null,
});

/**
 * The move to a host driver; null for a device that is on one already: then it and its VFs stay as they are. Without a driver it can have no VFs; what the books
 * recorded of them does not come back this way.
 */
function toHostMove(host: Host, { device, now, sriov }: Way): Move | null {
  const { address } = device;
  const to = hostTarget(host, device, now);
  if (to.driver !== null && now.override === null) return null;
  return {
    address,
    group: device.iommu_group,
    inode: host.inode(host.device(address)),
    from: { driver: now.driver, override: now.override },
    to,
    override_bytes: now.overrideBytes,
    ...(to.driver === null ? { any_host: true as const } : {}),
    ...(sriov === undefined ? {} : { sriov: { ...sriov, to: { ...sriov.to, numvfs: 0, vfs: [] } } }),
  };
}

function planOf(work: Work, ways: readonly Way[], refusals: Refusal[]): PrintedPlan {
  const { host } = work;
  const moves = ways.map((w) => ({
    address: w.device.address,
    from: { driver: w.now.driver, override: w.now.override },
    to: targetOf(host, w),
    ...(isBound(w.binding) ? (w.sriov === undefined ? {} : { sriov: w.sriov }) : pickWay(toHostMove(host, w))),
  }));
  return {
    devices: moves.map((m) => ({
      address: m.address,
      driver_from: m.from.driver,
      driver_to: m.to.driver,
      module: null,
    })),
    steps: [...stepsOf(host, moves), ...moves.flatMap((m) => refillSteps(host, m))].map(({ path, value, undo }) => ({
      path,
      value,
      undo,
    })),
    refusals,
  };
}

const pickWay = (move: Move | null): Pick<Move, 'any_host' | 'sriov'> => ({
  ...(move?.any_host ? { any_host: true } : {}),
  ...(move?.sriov === undefined ? {} : { sriov: move.sriov }),
});

/** What the books hold goes back together or not at all; with --to-host also what somebody has changed since. True when something changed. */
async function goBack(
  work: Work,
  ways: readonly Way[],
  toHost: boolean,
  options: ActionOptions,
  warnings: string[],
): Promise<boolean> {
  const { host } = work;
  const [free, ours] = [false, true].map((is) => ways.filter((w) => isTheirs(w, toHost) !== is)) as [Way[], Way[]];
  const back = await giveBackTogether(work, ours.flatMap(booked), options.allowed, toHostChange(host, free));
  const kept = back.filter((b) => b.outcome === 'kept');
  const [first] = kept;
  if (first === undefined) {
    warnings.push(...unclaimed(host, free));
    return back.some((b) => b.outcome === 'given-back') || free.some((w) => changes(host, w));
  }
  if (!toHost)
    throw new HostdevError('HOSTDEV_IN_USE', kept.map((k) => `${k.address} stays as it is: ${k.reason}`).join('; '), {
      hint: `'hostdev unbind --to-host ${first.address}' after looking at it.`,
    });
  // What has its way back in the books takes it all the same.
  const drifted = new Set(kept.map((k) => k.address));
  const [others, astray] = [false, true].map((is) => ours.filter((w) => drifted.has(w.device.address) === is)) as [
    Way[],
    Way[],
  ];
  const byHand = [...free, ...astray];
  await giveBackTogether(work, others.flatMap(booked), options.allowed, toHostChange(host, byHand));
  warnings.push(...unclaimed(host, byHand));
  return ways.some((w) => changes(host, w));
}

const booked = ({ device, binding }: Way): { device: PciDevice; binding: Binding }[] =>
  binding === null ? [] : [{ device, binding }];

/** No way back is in the books: never bound by us, or on VFIO before. */
const isTheirs = ({ binding }: Way, toHost: boolean): boolean => binding === null || (toHost && isHoldOnly(binding));

const changes = (host: Host, w: Way): boolean => w.binding !== null || toHostMove(host, w) !== null;

/** Never bound by us, or changed by somebody since: the override goes, the kernel matches anew, with the module that its modalias names. */
function toHostChange(host: Host, ways: readonly Way[]): { devices: Move[]; books: BookChange[] } {
  const moves = ways.map((w) => ({ address: w.device.address, move: toHostMove(host, w) }));
  const out = moves.flatMap(({ address, move }) => [
    address,
    ...recordedVfs(move?.sriov?.from).map((vf) => vf.address),
  ]);
  return {
    devices: moves.flatMap(({ move }) => move ?? []),
    books: out.map((address) => ({ address, before: readBook(host, address), after: null })),
  };
}

function unclaimed(host: Host, ways: readonly Way[]): string[] {
  return ways.flatMap(({ device: { address } }) =>
    host.linkName(host.device(address, 'driver')) === null
      ? [`${address} is free now, but no host driver of this kernel claims it`]
      : [],
  );
}
