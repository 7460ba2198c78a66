/**
 * What of the wishes the initramfs may fulfil: the table for it, made of the host as it is now. A device that a guard
 * would keep from `bind` at this moment is left out, by name; so is what needs the real root (VFs, what a driver of the
 * host's makes). Nothing is written here.
 */
import { chooseDriver, type ModuleLists, readModuleLists } from '../binding/drivers/driverChoice.ts';
import type { DriverModule } from '../binding/drivers/modules.ts';
import { byName, type Guard, judge } from '../binding/guards.ts';
import { type Reading, readUsages } from '../binding/usage.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { marksOf, slotPath } from '../pci/identity.ts';
import { type Inventory, isBridge, type PciDevice } from '../pci/inventory.ts';
import { onHostDriver, vendorVfio } from '../pci/vendorVfio.ts';
import type { Match } from './match.ts';
import { groupEndpoints } from './met.ts';
import { bootWords } from './report.ts';
import { type BootTable, isTableWord, type TableDevice } from './table.ts';
import type { DeviceWish, Wish } from './wishes.ts';

/** A device that has a wish and is not in the table: it is for the real root, or a guard keeps it. */
export type LeftOut = { wish: Wish; address: Address; guard: Guard | null; reason: string };

export type EarlyPlan = { table: BootTable; left: LeftOut[] };

/** What ends by itself with the session of now says nothing of the next boot. */
const OF_NOW: readonly Guard[] = ['in-use', 'other-owner', 'rdma'];

type Going = { device: PciDevice; wish: DeviceWish; target: DriverModule | null };

/** {@link EarlyPlan} of what the wishes mean on this host. Raises what breaks our own state. */
export async function planEarly(work: Reading, inventory: Inventory, matches: readonly Match[]): Promise<EarlyPlan> {
  const { host } = work;
  const left: LeftOut[] = [];
  const going = new Map<Address, Going>();
  const own = new Set(matches.flatMap((m) => (m.device === null || m.wish.kind === 'pf' ? [] : m.device.address)));
  const makers = new Set(matches.flatMap((m) => (m.wish.kind === 'pf' && m.device !== null ? m.device.address : [])));
  let lists: ModuleLists | undefined;
  const moduleLists = (): ModuleLists => {
    lists ??= readModuleLists(host);
    return lists;
  };
  for (const { wish, device } of matches) {
    if (device === null || wish.kind === 'pf' || wish.driver === 'host') continue;
    const peers = wish.group ? groupEndpoints(host, inventory, device).filter((d) => !own.has(d.address)) : [];
    for (const d of [device, ...peers]) {
      const reason = lateReason(host, d, wish, makers);
      if (reason === null) {
        const wanted = wish.driver === 'vfio' ? null : wish.driver;
        const target = wish.driver === 'none' ? null : chooseDriver(host, d, wanted, moduleLists);
        going.set(d.address, { device: d, wish, target });
      } else left.push({ wish, address: d.address, guard: null, reason });
    }
  }
  left.push(...(await refused(work, going)));
  const devices = [...going.values()].flatMap((g, n) => {
    const line = tableDevice(host, g, n);
    if (line === null)
      left.push({
        wish: g.wish,
        address: g.device.address,
        guard: null,
        reason: 'its path or its ids are not to be told',
      });
    return line ?? [];
  });
  const endpoints = inventory.devices.filter((d) => !isBridge(d) && d.parent_addr === null);
  const paths = (of: readonly PciDevice[]): string[] => of.flatMap((d) => slotPath(host, d.address) ?? []);
  const { root, resume } = bootWords(host);
  // One that cannot be written is none that a boot has: nothing is done there.
  const word = (text: string): string => (text === '' || isTableWord(text) ? text : '?');
  const table: BootTable = {
    root: word(root),
    resume: word(resume),
    vital: paths(await carriers(work, endpoints)),
    displays: paths(endpoints.filter((d) => host.read(host.device(d.address, 'boot_vga'))?.trim() === '1')),
    devices,
  };
  return { table, left };
}

/** Why a device is met in the real root only; null when the initramfs may. */
function lateReason(host: Host, d: PciDevice, wish: DeviceWish, makers: ReadonlySet<Address>): string | null {
  if (d.parent_addr !== null) return 'it is a VF: its PF makes it in the real root';
  if (makers.has(d.address)) return 'its VFs are wished too: they need its driver';
  if (wish.driver === 'vfio' && vendorVfio(host, d)?.ready === true) return 'its own driver is its VFIO provider';
  return null;
}

/** Takes out those that a guard keeps, with the others of their IOMMU groups: a group moves together or not at all. */
async function refused(work: Reading, going: Map<Address, Going>): Promise<LeftOut[]> {
  const { host } = work;
  const usages = await readUsages(
    work,
    [...going.values()].map((g) => g.device),
  );
  const denylistOff = host.read(host.module('vfio_pci', 'parameters/disable_denylist')) === 'Y';
  const left: LeftOut[] = [];
  for (const { device, wish, target } of going.values()) {
    const usage = usages.get(device.address) ?? { uses: [], unmeasured: [] };
    const judged = { device, usage, target, denylistOff, real: host.isReal, asker: 'bind' as const };
    const { refusals } = judge(judged, byName(new Set(wish.allow)));
    const why = refusals.find((r) => !OF_NOW.includes(r.guard));
    if (why !== undefined) left.push({ wish, address: device.address, guard: why.guard, reason: why.reason });
  }
  const groups = new Set(left.flatMap((l) => going.get(l.address)?.device.iommu_group ?? []));
  for (const { address } of left) going.delete(address);
  for (const [address, { device, wish }] of [...going])
    if (device.iommu_group !== null && groups.has(device.iommu_group)) {
      going.delete(address);
      left.push({
        wish,
        address,
        guard: null,
        reason: `another device of its IOMMU group ${device.iommu_group} is kept back`,
      });
    }
  return left;
}

/** The endpoints that the host stands on. */
async function carriers(work: Reading, endpoints: readonly PciDevice[]): Promise<PciDevice[]> {
  const onHost = endpoints.filter((d) => onHostDriver(work.host, d.address, d.driver));
  const usages = await readUsages(work, onHost);
  return onHost.filter((d) => usages.get(d.address)?.uses.some((u) => u.vital === true) === true);
}

/** Functions without an IOMMU group move alone: each is numbered behind all groups. */
const ALONE = 1_000_000;

function tableDevice(host: Host, { device: d, wish, target }: Going, n: number): TableDevice | null {
  const path = slotPath(host, d.address);
  if (path === null || d.vendor_id === null || d.product_id === null || d.class === null) return null;
  const { serial } = marksOf(host, d.address);
  const line: TableDevice = {
    path,
    address: d.address,
    vendor_id: d.vendor_id,
    product_id: d.product_id,
    subsystem_vendor_id: d.subsystem_vendor_id,
    subsystem_device_id: d.subsystem_device_id,
    class: d.class,
    serial,
    group: d.iommu_group ?? ALONE + n,
    driver: target?.driver ?? 'none',
    module: target?.module ?? null,
    allow: wish.allow,
  };
  return isTableWord(line.driver) ? line : null;
}

/**
 * Of the devices of a table at these addresses, those that must be out of it: a guard that the wish does not lift keeps
 * them now.
 */
export const mustGo = (plan: EarlyPlan, addresses: ReadonlySet<Address>): LeftOut[] =>
  plan.left.filter((l) => l.guard !== null && addresses.has(l.address));
