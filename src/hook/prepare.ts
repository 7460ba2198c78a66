/**
 * The hook's `prepare`: every device that the domain takes is on a VFIO driver afterwards, or the guest does not start and everything is as it was.
 * It runs before libvirt looks at the host devices (qemuProcessInit), with the domain's job held: no call to libvirt from here, ever.
 * managed='no': we bind, and `release` gives back. managed='yes': libvirt binds between; here it is only checked, so that the user reads a cause, and
 * what was there before is noted, because libvirt does not restore an override and forgets the host driver.
 */

import { observe, type Work } from '../binding/access.ts';
import { liftedFor } from '../binding/allowances.ts';
import { addClaim, type BindRequest, executeBind, planBind, refuse } from '../binding/bind.ts';
import { type Binding, type Claim, newBinding, ownerText, readBinding, withClaims } from '../binding/books.ts';
import { type Allowance, firm, type Guard, judge, type Refusal } from '../binding/guards.ts';
import { asTheyAre, changing, type SessionOptions } from '../binding/session.ts';
import { onVfio } from '../binding/transaction.ts';
import { readUsages, vfioNodes } from '../binding/usage.ts';
import type { DomainDevice, DomainDevices } from '../domain/hostDevices.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { heldBy } from '../pci/holders.ts';
import { type PciDevice, scanInventory } from '../pci/inventory.ts';
import { Deadline, takeLocks } from '../store/locks.ts';
import { checkIommu, checkViability, domainOwner, findDevices } from './check.ts';

export type Prepared = { bound: string[]; managed: string[]; left_alone: string[]; warnings: string[] };

/** What hostdev.toml says for the hook: `[hook] unmanaged` and `[[allow]]`. */
export type HookPolicy = { unmanaged: 'bind' | 'check' | 'ignore'; allowances: readonly Allowance[] };

export const DEFAULT_POLICY: HookPolicy = { unmanaged: 'bind', allowances: [] };

/** The devices of a domain that are the hook's affair: with `unmanaged = "ignore"` only those that libvirt manages. */
export const concerned = (domain: DomainDevices, { unmanaged }: HookPolicy): DomainDevices =>
  unmanaged === 'ignore' ? { ...domain, devices: domain.devices.filter((d) => d.managed) } : domain;

/** `managed` devices as they will be: libvirt chooses the driver; for our judgement any VFIO driver will do. */
type Listed = { listed: DomainDevice; device: PciDevice };

/**
 * Prepares a domain. Raises HOSTDEV_NOT_BOUND, HOSTDEV_DEVICE_ABSENT, HOSTDEV_GUARD, HOSTDEV_IN_USE, HOSTDEV_GROUP_NOT_VIABLE, HOSTDEV_IOMMU_OFF and whatever a
 * transaction raises; then nothing has changed. Calling it again for the same domain changes nothing.
 */
export async function prepareDomain(
  host: Host,
  domain: DomainDevices,
  allowed: ReadonlySet<Guard>,
  options: SessionOptions,
  policy: HookPolicy = DEFAULT_POLICY,
): Promise<Prepared> {
  const inventory = scanInventory(host);
  const devices = findDevices(inventory, domain);
  checkIommu(
    host,
    devices.map((d) => d.device),
  );
  const owner = domainOwner(domain);
  await awaitReleases(host, devices, owner, options);
  const groups = devices.map((d) => d.device.iommu_group);
  return changing(host, inventory, groups, options, async (work, recovered, fresh) => {
    await asTheyAre(
      work,
      fresh,
      devices.map((d) => d.device),
    );
    const claim: Claim = { owner, name: domain.name, managed: false };
    const plan = await planPrepare(work, findDevices(fresh, domain), claim, allowed, policy);
    refuse(plan.refusals);
    checkViability(host, fresh, domain);
    await executeBind(work, plan.bind, claim, plan.bindings);
    return {
      bound: plan.bind.devices.map((d) => d.device.address),
      managed: plan.managed,
      left_alone: plan.leftAlone,
      warnings: [...recovered, ...plan.warnings],
    };
  });
}

type PreparePlan = {
  bind: Awaited<ReturnType<typeof planBind>>;
  /** Books to be written for devices that need no move. */
  bindings: Binding[];
  refusals: Refusal[];
  warnings: string[];
  managed: string[];
  leftAlone: string[];
};

/**
 * What prepare would do, without doing it; `hook test` shows it. The caller holds the locks, or only wants to know. `allowed` lifts guards for every device,
 * `policy` what hostdev.toml says.
 */
export async function planPrepare(
  work: Work,
  devices: readonly Listed[],
  claim: Claim,
  allowed: ReadonlySet<Guard>,
  policy: HookPolicy = DEFAULT_POLICY,
): Promise<PreparePlan> {
  const { host } = work;
  const { owner } = claim;
  const requests: BindRequest[] = [];
  const unmoved: Unmoved[] = [];
  const plan: Omit<PreparePlan, 'bind'> = { bindings: [], refusals: [], warnings: [], managed: [], leftAlone: [] };
  for (const { listed, device } of devices) {
    const binding = readBinding(host, device.address);
    const lifted = new Set([...allowed, ...liftedFor(policy.allowances, device.address, claim)]);
    const held = await heldByOther(work, device, binding, owner);
    plan.refusals.push(...held);
    if (listed.managed) {
      plan.managed.push(device.address);
      plan.bindings.push(await managedBinding(work, device, binding, { ...claim, managed: true }));
      unmoved.push({ device, layer: 'managed', lifted });
    } else if (onVfio(host, device.address)) {
      plan.leftAlone.push(device.address);
      if (held.length === 0) unmoved.push({ device, layer: 'hook', lifted });
      // In the books by somebody's claim: ours is added, so that the last one out gives it back. Not in the books: it was so before us.
      if (binding !== null && binding.owner !== 'admin' && binding.owner !== 'boot') {
        plan.bindings.push({ ...withClaims(binding, addClaim(binding.claims, claim)), note: null });
      }
    } else if (policy.unmanaged === 'check') {
      throw new HostdevError(
        'HOSTDEV_NOT_BOUND',
        `${device.address} is on ${device.driver ?? 'no driver'}, and [hook] unmanaged = "check" leaves binding to you`,
        {
          hint: `Run 'hostdev bind ${device.address}' before the guest starts, or let the hook do it: unmanaged = "bind".`,
        },
      );
    } else requests.push({ device, wanted: listed.model, allowed: lifted });
  }
  await judgeUnmoved(work, unmoved, plan);
  const bind = await planBind(work, requests, owner, allowed);
  // A foreign claim on a device that nobody holds is a guest that it was unplugged from: ours is added to it, and no guard of this layer is against it.
  const refusals = [...plan.refusals, ...bind.refusals];
  return { ...plan, bind, refusals, warnings: [...plan.warnings, ...bind.warnings] };
}

async function heldByOther(
  { host, deadline }: Work,
  device: PciDevice,
  binding: Binding | null,
  owner: string,
): Promise<Refusal[]> {
  const other = binding?.claims.find((c) => c.owner !== owner && c.owner.startsWith('domain:'));
  if (other === undefined) return [];
  const [holder] = (await heldBy(host, vfioNodes(host, device), deadline.left)).holders;
  if (holder === undefined) return [];
  // Whatever is allowed: taking a device from a running guest is nobody's wish.
  const reason = `it belongs to ${ownerText(other)}; process ${holder.pid} (${holder.command}) holds ${holder.path}`;
  return [firm({ guard: 'in-use', address: device.address, reason })];
}

async function managedBinding(work: Work, device: PciDevice, binding: Binding | null, claim: Claim): Promise<Binding> {
  const now = await observe(work, device.address);
  if (now === null) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${device.address} went away`);
  const state = { driver: now.driver, override: now.override };
  const known = binding !== null && (onVfio(work.host, device.address) || state.driver === binding.before.driver);
  if (!known) return newBinding(device.address, device.iommu_group, claim, state, null);
  return { ...withClaims(binding, addClaim(binding.claims, claim)), note: null };
}

/** A device that is not moved here, and the guards it is to pass: libvirt moves it (managed), or it is on VFIO and may be held by somebody. */
type Unmoved = { device: PciDevice; layer: 'managed' | 'hook'; lifted: ReadonlySet<Guard> };

async function judgeUnmoved(
  work: Work,
  unmoved: readonly Unmoved[],
  plan: Pick<PreparePlan, 'refusals' | 'warnings'>,
): Promise<void> {
  const { host } = work;
  const denylistOff = true; // libvirt's own choice of driver is not known here; the kernel's refusal is libvirt's to report
  const usages = await readUsages(
    work,
    unmoved.map((u) => u.device),
  );
  for (const { device, layer, lifted } of unmoved) {
    const usage = usages.get(device.address) ?? { uses: [], unmeasured: [] };
    const verdict = judge({ device, usage, target: null, denylistOff, real: host.isReal, layer }, lifted);
    plan.refusals.push(...verdict.refusals);
    plan.warnings.push(...verdict.warnings);
  }
}

/**
 * A slow release of an earlier guest goes on after libvirt was answered, under that guest's lock: a device that it still holds is waited for. Its lock is
 * let go at once; what counts is that the release is over.
 */
async function awaitReleases(
  host: Host,
  devices: readonly Listed[],
  owner: string,
  options: SessionOptions,
): Promise<void> {
  const others = new Set<string>();
  for (const { device } of devices) {
    for (const c of readBinding(host, device.address)?.claims ?? [])
      if (c.owner !== owner && c.owner.startsWith('domain:')) others.add(c.owner.slice('domain:'.length));
  }
  for (const uuid of others) {
    const unlock = await takeLocks(host, [`domain-${uuid}`], new Deadline(options.deadlineMs / 2));
    unlock();
  }
}
