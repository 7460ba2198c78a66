/** `bind DEV…`: the devices onto VFIO drivers for the admin, all of them or none. */
import { type BindRequest, checkModules, executeBind, planBind } from '../binding/bind.ts';
import { type Hold, ownerText } from '../binding/books.ts';
import { asTheyAre, changing, foreseeing } from '../binding/session.ts';
import { iommuError } from '../hook/check.ts';
import type { Host } from '../host/host.ts';
import { iommuState, isNoIommuMode } from '../host/iommu.ts';
import type { Address } from '../pci/address.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { makersOf } from '../pci/path.ts';
import { resolveDevice, resolvedNote } from '../pci/resolve.ts';
import { groupBlockers, groupMembers } from '../pci/vfio.ts';
import { type Warning, warning } from '../text/warning.ts';
import type { ActionOptions, Warned } from './options.ts';
import { type PrintedPlan, printedPlan, refuseWithPlan } from './plan.ts';
import { lostWithVfs } from './vfLosses.ts';

/** `held`: on their driver already, for others, and now for the admin too: they stay when the others let go. */
export type BindResult = Warned & { changed: boolean; plan: PrintedPlan; held: HeldToo[] };

type HeldToo = { address: string; driver: string | null; for: string[] };

/**
 * `driver` null is the kernel's best; `wholeGroups` adds the endpoints of the devices' IOMMU groups. Raises as
 * planBind, refuse and executeBind do; in a dry run the same errors, and nothing changes.
 */
export async function bindDevices(
  host: Host,
  words: readonly string[],
  driver: string | null,
  options: ActionOptions,
  wholeGroups = false,
): Promise<BindResult> {
  const inventory = scanInventory(host);
  const { devices: named, resolved } = namedDevices(host, inventory, words);
  const devices = wholeGroups ? withEndpoints(host, inventory, named) : named;
  const requests = devices.map((device) => ({ device, wanted: driver }));
  const result = await bindRequests(host, inventory, requests, options);
  return { ...result, warnings: [...resolved, ...result.warnings] };
}

/**
 * {@link bindDevices} for devices of a scan, each with a driver and allowances of its own, and for whom `hold` says.
 */
export async function bindRequests(
  host: Host,
  inventory: Inventory,
  asked: readonly BindRequest[],
  options: ActionOptions,
  hold: Hold = ADMIN,
): Promise<BindResult> {
  const devices = asked.map((r) => r.device);
  const session = options.dryRun ? foreseeing : changing;
  const addresses = devices.map((d) => d.address);
  return session(host, inventory, { addresses }, options, async ({ work, recovered, inventory: fresh }) => {
    const now = asTheyAre(fresh, devices);
    refuseLone(host, now);
    const requests = asked.map((r, n) => ({ ...r, device: now[n] ?? r.device }));
    const plan = await planBind(work, requests, hold.owner, options.allowed);
    const printed = printedPlan(work, plan);
    refuseWithPlan(printed, plan.refusals);
    const going: Warning[] = [];
    for (const { device, move } of plan.devices)
      if (move.sriov !== undefined) going.push(...(await lostWithVfs(work, fresh, device, move.sriov.from)).lines);
    const held = plan.adopted
      .filter((b) => b.holds.length > 0 && b.holds.every((h) => h.owner !== hold.owner))
      .map((b) => ({
        address: b.address,
        driver: host.linkName(host.device(b.address, 'driver')),
        for: b.holds.map(ownerText),
      }));
    if (options.dryRun) await checkModules(work, plan);
    const changed = options.dryRun ? false : await executeBind(work, plan, hold);
    return {
      changed,
      // A module that was loaded has told its driver's name.
      plan: changed ? printedPlan(work, plan) : printed,
      held,
      warnings: [...recovered, ...plan.warnings, ...going, ...groupWarnings(host, fresh, devices)],
    };
  });
}

/**
 * The probe of vfio-pci fails without a group, unless it may make one that protects nothing (drivers/vfio/group.c).
 * Raises HOSTDEV_IOMMU_OFF.
 */
export function refuseLone(host: Host, devices: readonly PciDevice[]): void {
  const error = isNoIommuMode(host) ? null : iommuError(host, devices);
  if (error !== null) throw error;
}

/** The right of the boot, which does what the admin wishes. */
export const BOOT: Hold = { owner: 'boot', name: null, managed: false, libvirt: null };

/** The admin's right to a device. */
export const ADMIN: Hold = { owner: 'admin', name: null, managed: false, libvirt: null };

/**
 * The devices that words name, each once; `resolved` says which those are that were not named by their addresses.
 * Raises as {@link resolveDevice}.
 */
export function namedDevices(
  host: Host,
  inventory: Inventory,
  words: readonly string[],
): { devices: PciDevice[]; resolved: Warning[] } {
  const named = words.map((word) => ({ word, device: resolveDevice(host, inventory, word) }));
  return {
    devices: [...new Map(named.map(({ device }) => [device.address, device])).values()],
    resolved: named.flatMap(({ word, device }) => resolvedNote(word, device)),
  };
}

/**
 * With the other devices of their groups, but for those whose drivers make the named ones. What is of class bridge is
 * taken only by name: a host bridge without a driver keeps nobody from the group.
 */
function withEndpoints(host: Host, inventory: Inventory, named: readonly PciDevice[]): PciDevice[] {
  const groups = new Set(named.flatMap((d) => d.iommu_group ?? []));
  const makers = new Set(named.flatMap((d) => makersOf(host, inventory, d.address)));
  const peers = [...groups]
    .flatMap((id) => groupMembers(inventory, id))
    .filter((d) => d.class?.startsWith('06') !== true && !makers.has(d.address));
  return [...new Map([...named, ...peers].map((d) => [d.address, d])).values()];
}

/** Binding is done and right; whether a guest can have it is another matter that the admin wants to hear of now. */
function groupWarnings(host: Host, inventory: Inventory, devices: readonly PciDevice[]): Warning[] {
  const warnings: Warning[] = [];
  const state = iommuState(host);
  if (!state.on) warnings.push(warning('no-iommu', `no guest can have it yet: ${state.reason}`));
  const bound = new Set(devices.map((d) => d.address));
  for (const id of new Set(devices.flatMap((d) => d.iommu_group ?? []))) {
    const stays = (a: Address): boolean => !bound.has(a) && !makersOf(host, inventory, a).some((m) => bound.has(m));
    const peers = groupMembers(inventory, id).filter((d) => stays(d.address));
    for (const b of groupBlockers(host, id, peers)) {
      const text = `IOMMU group ${id} is not viable for a guest yet: ${b.address} ${b.reason}`;
      warnings.push(warning('group-not-viable', text, b.address));
    }
  }
  return warnings;
}
