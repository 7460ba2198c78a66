/** `show`, `group list`, `group show`: what the kernel says, typed. */

import { guestDriver } from '../binding/drivers/driverChoice.ts';
import { observing } from '../binding/session.ts';
import { HostdevError, isErrno, isGone, messageOf } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { iommuState } from '../host/iommu.ts';
import { type Group, type ReservedRegion, readGroups, reservedRegions } from '../pci/groups.ts';
import { scanInventory } from '../pci/inventory.ts';
import { parseOverride } from '../pci/override.ts';
import { representorText } from '../pci/representors.ts';
import { representorBy, resolveDevice, resolvedNote } from '../pci/resolve.ts';
import { lacksVgpuType, vendorVfio, vgpuTypeAdvice } from '../pci/vendorVfio.ts';
import { quote } from '../text/safe.ts';
import { about, type Warning, warning } from '../text/warning.ts';
import { fullName, type ListedDevice, readNames, wishesOfBoot } from './list.ts';
import type { Warned } from './options.ts';
import { whoHas } from './whoHas.ts';

export type ShownDevice = ListedDevice & {
  driver_override: string | null;
  /** The VFIO driver that a guest has it on. */
  variant_driver: string | null;
  reset_methods: string[];
  boot_vga: boolean | null;
  /**
   * The `managed` that a domain must say: 'no' for a device whose own driver is its VFIO provider; null where either
   * will do.
   */
  managed: 'no' | null;
  /** The vGPU type that is set, "0" for none; null for what is no vGPU. */
  vgpu_type: string | null;
  name: string | null;
};

const READ_MS = 1000;

/**
 * Everything about one device. Attributes that take the device's lock are read through the helper with a deadline: past
 * it `stuck` is true.
 */
export async function showDevice(
  host: Host,
  word: string,
  connect: string | null,
): Promise<Warned & { device: ShownDevice; guests_asked: boolean }> {
  const inventory = scanInventory(host);
  const found = resolveDevice(host, inventory, word);
  const warnings = about(inventory.warnings, found.address);
  const stands = found.parent_addr === null ? null : representorBy(host, word);
  if (stands !== null)
    warnings.push(warning('representor', `${representorText(stands)}: this is the VF`, found.address));
  /** What `read` gives; null, with a warning that `what` is not known, when that raises. */
  const known = <T>(what: string, read: () => T | null): T | null => {
    try {
      return read();
    } catch (e) {
      warnings.push(warning('not-measured', `${what} not known: ${messageOf(e)}`, found.address));
      return null;
    }
  };
  const read = (attribute: string): string | null =>
    known(`${attribute} is`, () => host.read(host.device(found.address, attribute)));
  const own = known('managed and vgpu_type are', () => vendorVfio(host, found));
  if (own !== null && lacksVgpuType(own)) {
    const text = `no vGPU type is set: ${vgpuTypeAdvice(host, found.address, own)}`;
    warnings.push(warning('vgpu-untyped', text, found.address));
  }
  const { asked, guests, warnings: unasked } = await whoHas(host, connect);
  warnings.push(...unasked);
  const device: ShownDevice = {
    ...found,
    wish: (await wishesOfBoot(host)).get(found.address) ?? null,
    guest: guests.get(found.address)?.name ?? null,
    driver_override: null,
    variant_driver: known('variant_driver is', () => guestDriver(host, found)),
    reset_methods: (read('reset_method') ?? '').split(/\s+/).filter((m) => /^[a-z_]{1,32}$/.test(m)),
    boot_vga: bootVga(read('boot_vga')),
    managed: own === null ? null : 'no',
    vgpu_type: own?.vgpu?.id ?? null,
    name: fullName(readNames(host), found),
  };
  await readLocked(host, device, warnings);
  return { device, guests_asked: asked, warnings };
}

async function readLocked(host: Host, device: ShownDevice, warnings: Warning[]): Promise<void> {
  const override = host.device(device.address, 'driver_override');
  try {
    const text = await observing(host, { deadlineMs: READ_MS }, (w) => w.writer.read(override, READ_MS));
    const name = parseOverride(text);
    if (name !== null && !/^[\x20-\x7e]+$/.test(name))
      warnings.push(warning('malformed', `${override}: ignored ${quote(name)}`, device.address));
    else device.driver_override = name;
  } catch (e) {
    if (isErrno(e, 'ETIMEDOUT')) device.stuck = true;
    else if (!isGone(e))
      warnings.push(warning('not-measured', `driver_override is not known: ${messageOf(e)}`, device.address));
  }
}

const bootVga = (text: string | null): boolean | null => (text === '1' ? true : text === '0' ? false : null);

/** All IOMMU groups with their blockers; `iommu` says why there are none. */
export function listGroups(host: Host): Warned & { groups: Group[] } {
  const inventory = scanInventory(host);
  const warnings = [...inventory.warnings];
  const groups = readGroups(host, inventory, warnings);
  if (groups.length === 0) warnings.push(warning('no-iommu', `no IOMMU groups: ${iommuState(host).reason}`));
  return { groups, warnings };
}

export type ShownGroup = Group & { reserved_regions: ReservedRegion[] };

/** One group, by its number or by a device in it. */
export function showGroup(host: Host, word: string): Warned & { group: ShownGroup } {
  const { groups, warnings } = listGroups(host);
  const id = /^\d{1,7}$/.test(word) ? Number(word) : groupOfDevice(host, word, warnings);
  const group = groups.find((g) => g.id === id);
  if (group === undefined) throw new HostdevError('HOSTDEV_GROUP_ABSENT', `There is no IOMMU group ${id} on this host`);
  return { group: { ...group, reserved_regions: reservedRegions(host, id) }, warnings };
}

function groupOfDevice(host: Host, word: string, warnings: Warning[]): number {
  const device = resolveDevice(host, scanInventory(host), word);
  warnings.push(...resolvedNote(word, device));
  if (device.iommu_group !== null) return device.iommu_group;
  const state = iommuState(host);
  throw new HostdevError(
    'HOSTDEV_GROUP_ABSENT',
    `${device.address} is in no IOMMU group`,
    state.on ? {} : { hint: `${state.reason}.` },
  );
}
