/**
 * The hook's `prepare`: every device that the domain takes is on a VFIO driver afterwards, or the guest does not start
 * and everything is as it was. It runs before libvirt looks at the host devices (qemuProcessInit), with the domain's
 * job held: no call to libvirt from here, ever. managed='no': we bind, and `release` gives back. managed='yes': libvirt
 * binds between; here it is only checked, so that the user reads a cause, and what was there before is noted, because
 * libvirt does not restore an override and forgets the host driver.
 */

import { bindingNow } from '../binding/access.ts';
import { type BindRequest, executeBind, held, planBind } from '../binding/bind.ts';
import {
  type Binding,
  type BookChange,
  type Hold,
  isGuest,
  newBinding,
  readBinding,
  readBook,
  readBooks,
} from '../binding/books.ts';
import { releaseHolds } from '../binding/giveBack.ts';
import { liftedFor } from '../binding/guards/allowances.ts';
import { reservedBar } from '../binding/guards/display.ts';
import { vendorVfioUses } from '../binding/guards/vendorVfio.ts';
import { byName, type Guard, guardWarning, judge, type Refusal, refusalError } from '../binding/guards.ts';
import { forgetStarted, keptBy, markPreparing, releaseOver, type Witness, witness } from '../binding/guests.ts';
import type { Lifted } from '../binding/journal.ts';
import { observe } from '../binding/observe.ts';
import { onVfio, onVfioNow, type Work } from '../binding/perform.ts';
import { recordLifted } from '../binding/record.ts';
import { changing, type SessionOptions } from '../binding/session.ts';
import type { Owner } from '../binding/state.ts';
import { readUsages } from '../binding/usage.ts';
import type { DomainDevices } from '../domain/hostDevices.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { Look, Tables } from '../host/look.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { Deadline } from '../store/locks.ts';
import { type Warning, warning } from '../text/warning.ts';
import { domainOwner, type Listed, lookAtDevices, type Objection, raiseFirst, viabilityObjection } from './check.ts';
import type { HookPolicy } from './policy.ts';

export type Prepared = { bound: string[]; managed: string[]; left_alone: string[]; warnings: Warning[] };

/**
 * Prepares a domain. Raises HOSTDEV_NOT_BOUND, HOSTDEV_DEVICE_ABSENT, HOSTDEV_GUARD, HOSTDEV_IN_USE,
 * HOSTDEV_GROUP_NOT_VIABLE, HOSTDEV_IOMMU_OFF and whatever a transaction raises; then nothing of the domain's has
 * changed. Calling it again for the same domain changes nothing. `libvirt` is the daemon that asks (addon/process.ts).
 */
export async function prepareDomain(
  host: Host,
  domain: DomainDevices,
  allowed: ReadonlySet<Guard>,
  options: SessionOptions & { libvirt?: string | null },
  policy: HookPolicy,
): Promise<Prepared> {
  const owner = domainOwner(domain);
  const deadline = new Deadline(options.deadlineMs);
  const done = await markPreparing(host, owner, deadline);
  try {
    const listed = new Set(domain.devices.map((d) => d.address));
    const stale = await releaseStale(host, owner, listed, { ...options, deadlineMs: options.deadlineMs / 3 });
    const left = { ...options, deadlineMs: deadline.left };
    const inventory = scanInventory(host);
    const { devices, objections } = lookAtDevices(host, inventory, domain);
    raiseFirst(objections);
    await awaitReleases(host, devices, owner, left);
    const hold: Hold = { owner, name: domain.name, managed: false, libvirt: options.libvirt ?? null };
    const begin = (): void => forgetStarted(host, owner.slice('domain:'.length));
    const prepared = await prepareDevices(host, inventory, domain, hold, allowed, left, policy, begin);
    return { ...prepared, warnings: [...stale, ...prepared.warnings] };
  } finally {
    done();
  }
}

/**
 * {@link prepareDomain} for the devices of `domain` alone, whatever else its guest has: for one that runs as well.
 * `ready` is called under the locks, before the first change; what it raises is raised.
 */
export async function prepareDevices(
  host: Host,
  inventory: Inventory,
  domain: DomainDevices,
  hold: Hold,
  allowed: ReadonlySet<Guard>,
  options: SessionOptions,
  policy: HookPolicy,
  ready: () => void,
): Promise<Prepared> {
  const { owner } = hold;
  const addresses = domain.devices.map((d) => d.address);
  return changing(host, inventory, { addresses, owner }, options, async ({ work, recovered, inventory: fresh }) => {
    const now = lookAtDevices(host, fresh, domain);
    raiseFirst(now.objections);
    const plan = await planPrepare(work, now.devices, hold, allowed, policy);
    raiseFirst(objectionsTo(host, fresh, domain, plan));
    ready();
    await executeBind(work, plan.bind, hold, plan.books);
    recordLifted(work, owner, domain.name, plan.lifted);
    return {
      bound: plan.bind.devices.map((d) => d.device.address),
      managed: plan.managed,
      left_alone: plan.leftAlone,
      warnings: [...recovered, ...plan.warnings],
    };
  });
}

export type PreparePlan = {
  /** With `unmanaged = "check"`: what is not on VFIO, and is not ours to bind. */
  notBound: PciDevice[];
  bind: Awaited<ReturnType<typeof planBind>>;
  /** The books of devices that need no move: the guest's hold is kept all the same. */
  books: BookChange[];
  refusals: Refusal[];
  warnings: Warning[];
  managed: string[];
  leftAlone: string[];
  /** What was lifted for devices that libvirt moves, or nobody. */
  lifted: Lifted[];
};

/**
 * What speaks against a plan, in the order in which prepare raises it. `domain` are the devices that are the hook's
 * affair.
 */
export function objectionsTo(
  host: Host,
  inventory: Inventory,
  domain: DomainDevices,
  { notBound, refusals }: Pick<PreparePlan, 'notBound' | 'refusals'>,
): Objection[] {
  const refused = refusalError(refusals);
  const guard: Objection | null =
    refused === null ? null : { kind: 'guard', addresses: refusals.map((r) => r.address), error: refused };
  return [unbound(notBound), guard, viabilityObjection(host, inventory, domain)].filter((o) => o !== null);
}

function unbound(devices: readonly PciDevice[]): Objection | null {
  if (devices.length === 0) return null;
  const addresses = devices.map((d) => d.address);
  const on = devices.map((d) => `${d.address} is on ${d.driver ?? 'no driver'}`).join(', ');
  const error = new HostdevError('HOSTDEV_NOT_BOUND', `${on}, and [hook] unmanaged = "check" leaves binding to you`, {
    hint: `Run 'hostdev bind ${addresses.join(' ')}' before the guest starts, or let the hook do it: unmanaged = "bind".`,
  });
  return { kind: 'not-bound', addresses, error };
}

/**
 * What prepare would do, without doing it; the preview shows it. The caller holds the locks, or only wants to know.
 * `allowed` lifts guards for every device, `policy` what hostdev.toml says.
 */
export async function planPrepare(
  work: Work,
  devices: readonly Listed[],
  hold: Hold,
  allowed: ReadonlySet<Guard>,
  policy: HookPolicy,
): Promise<PreparePlan> {
  const { host } = work;
  const { owner } = hold;
  const requests: BindRequest[] = [];
  const unmoved: Unmoved[] = [];
  const plan: Omit<PreparePlan, 'bind'> = {
    notBound: [],
    books: [],
    refusals: [],
    warnings: [],
    managed: [],
    leftAlone: [],
    lifted: [],
  };
  const bindings = new Map(devices.map(({ device: { address } }) => [address, bindingNow(work, address)] as const));
  const look = await witness(
    host,
    [...bindings.values()].flatMap((b) => b ?? []),
    work.deadline.left,
  );
  for (const { listed, device } of devices) {
    const { address } = device;
    const binding = bindings.get(address) ?? null;
    const lifted = new Set([...allowed, ...liftedFor(policy.allowances, address, hold)]);
    const others = heldByOther(look, address, binding, owner);
    plan.refusals.push(...others);
    if (listed.managed) {
      plan.managed.push(address);
      plan.books.push(await unmovedBook(work, look, device, binding, { ...hold, managed: true }));
      unmoved.push({ device, asker: 'managed', lifted });
    } else if (onVfioNow(work, address)) {
      plan.leftAlone.push(address);
      if (others.length === 0) unmoved.push({ device, asker: 'hook', lifted });
      plan.books.push(await unmovedBook(work, look, device, binding, hold));
    } else if (policy.unmanaged === 'check') plan.notBound.push(device);
    else requests.push({ device, wanted: listed.model, allowed: lifted });
  }
  await judgeUnmoved(work, unmoved, plan);
  const bind = await planBind(work, requests, owner, allowed);
  // Of another guest's hold no guard speaks to this asker: what counts is whether that guest has the device, which was
  // asked above.
  const refusals = [...plan.refusals, ...bind.refusals];
  return { ...plan, bind, refusals, warnings: [...plan.warnings, ...bind.warnings] };
}

/** Whatever is allowed: taking a device from a running guest, or from one that is just starting, is nobody's wish. */
function heldByOther(look: Witness, address: string, binding: Binding | null, owner: string): Refusal[] {
  const kept = keptBy(look, binding, owner);
  return kept === null ? [] : [{ guard: 'in-use', address, reason: kept.reason, firm: true, asker: 'hook' }];
}

/**
 * The book of a device that is not moved by us. In the books already: the hold is added, so that the last one out gives
 * it back. Else what it is on now is what was there before, and of one on VFIO also what it is left on: nothing will be
 * given back.
 */
export async function unmovedBook(
  work: Work,
  look: Witness,
  device: PciDevice,
  binding: Binding | null,
  hold: Hold,
): Promise<BookChange> {
  const { host } = work;
  const { address } = device;
  if (binding !== null) return { address, before: binding, after: held(host, look, binding, hold) };
  const seen = await observe(work, address);
  if (seen === null) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${address} went away`);
  const state = { driver: seen.driver, override: seen.override };
  const after = newBinding(host, address, device.iommu_group, hold, state, hold.managed ? null : state);
  return { address, before: readBook(host, address), after };
}

/**
 * A device that is not moved here, and the guards it is to pass: libvirt moves it (managed), or it is on VFIO and may
 * be held by somebody.
 */
type Unmoved = { device: PciDevice; asker: 'managed' | 'hook'; lifted: ReadonlySet<Guard> };

async function judgeUnmoved(
  work: Work,
  unmoved: readonly Unmoved[],
  plan: Pick<PreparePlan, 'refusals' | 'warnings' | 'lifted'>,
): Promise<void> {
  const { host } = work;
  const denylistOff = true; // libvirt's own choice of driver is not known here; the kernel's refusal is libvirt's to report
  const usages = await readUsages(
    work,
    unmoved.map((u) => u.device),
  );
  const look = new Look(new Tables(host));
  for (const { device, asker, lifted } of unmoved) {
    const usage = usages.get(device.address) ?? { uses: [], unmeasured: [] };
    usage.uses.unshift(...vendorVfioUses(host, device, asker === 'managed'));
    const reserved = onVfio(host, device.address) ? reservedBar(look, device.address) : null;
    if (reserved !== null) plan.warnings.push(guardWarning('display', device.address, reserved));
    const judgement = judge({ device, usage, target: null, denylistOff, real: host.isReal, asker }, byName(lifted));
    plan.refusals.push(...judgement.refusals);
    plan.warnings.push(...judgement.warnings);
    plan.lifted.push(...judgement.lifted);
  }
}

/**
 * libvirt prepares only what does not run: what this guest holds besides what it lists now is of a life whose release
 * never came. It goes back by itself; what cannot is said, and no reason not to start.
 */
async function releaseStale(
  host: Host,
  owner: Owner,
  listed: ReadonlySet<string>,
  options: SessionOptions,
): Promise<Warning[]> {
  const isStale = (b: Binding): boolean => !listed.has(b.address) && b.holds.some((h) => h.owner === owner);
  const addresses = readBooks(host)
    .books.filter(isStale)
    .map((b) => b.address);
  if (addresses.length === 0) return [];
  const asked = { addresses, owner, tolerant: true };
  const told = (address: string, what: string): Warning =>
    warning('stale-hold', `${address}, of an earlier life of this guest: ${what}`, address);
  try {
    return await changing(host, scanInventory(host), asked, options, async ({ work, held: barred }) => {
      const books = addresses.filter((a) => !barred.has(a)).flatMap((a) => readBook(host, a) ?? []);
      const look = await witness(host, books, work.deadline.left);
      const list = books
        .filter((b) => isStale(b) && !b.holds.some((h) => h.owner === owner && look.presence(b, h) === 'holds'))
        .map((binding) => ({ binding, device: work.inventory.byAddress.get(binding.address) }));
      const { devices, failures } = await releaseHolds(work, owner, list);
      return [
        ...devices.flatMap((d) => (d.outcome === 'kept' ? [told(d.address, d.reason ?? d.outcome)] : [])),
        ...failures.map((f) => told(f.address, (f.error as Error).message)),
      ];
    });
  } catch (e) {
    return addresses.map((a) => told(a, (e as Error).message));
  }
}

/**
 * A slow release of an earlier guest goes on after libvirt was answered, under that guest's lock: a device that it
 * still holds is waited for. One that prepares anew is none: two guests that swap their devices would wait for each
 * other.
 */
async function awaitReleases(
  host: Host,
  devices: readonly Listed[],
  owner: string,
  options: SessionOptions,
): Promise<void> {
  const others = new Set<Owner>();
  for (const { device } of devices) {
    for (const h of readBinding(host, device.address)?.holds ?? [])
      if (h.owner !== owner && isGuest(h)) others.add(h.owner);
  }
  for (const other of others) await releaseOver(host, other, new Deadline(options.deadlineMs / 2));
}
