/**
 * `list`, and the names that it and `show` print. Apart from the rest, because `list` is judged by its start: nothing
 * of binding/ is loaded for it.
 */

import { orNull } from '../errors.ts';
import { fileFacts } from '../host/files.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { type PciDevice, scanInventory } from '../pci/inventory.ts';
import { PciNames } from '../pci/names.ts';
import { type Warning, warning } from '../text/warning.ts';
import type { Warned } from './options.ts';
import { whoHas } from './whoHas.ts';

/** pci.ids is about 1.5 MB. */
const MAX_IDS_BYTES = 16 * 1024 * 1024;

/** Names of vendors, devices and classes; a host without pci.ids has none. */
export function readNames(host: Host): PciNames {
  for (const path of host.pciIds) {
    // Names are a comfort: an unreadable list is no reason to fail.
    const text = orNull(() => host.read(path, MAX_IDS_BYTES));
    if (text !== null) return new PciNames(text);
  }
  return new PciNames('');
}

/**
 * `wish`: what the boot made of the wish about it; null where there was none. `guest`: the running guest that has it,
 * as libvirt says; null where none has, or libvirt was not asked.
 */
export type ListedDevice = PciDevice & { wish: 'met' | 'not-met' | null; guest: string | null };

/** `guests_asked`: whether libvirt said who has what. */
export type Listed = Warned & { devices: ListedDevice[]; guests_asked: boolean };

/** All PCI functions, in order of address, with the guests that have them. */
export async function listDevices(host: Host, connect: string | null): Promise<Listed> {
  const { devices, warnings } = await seenDevices(host);
  const { asked, guests, warnings: unasked } = await whoHas(host, connect);
  for (const d of devices) d.guest = guests.get(d.address)?.name ?? null;
  return { devices, guests_asked: asked, warnings: [...warnings, ...unasked] };
}

/** The same without asking libvirt: for what is pressed and not waited for. */
export async function seenDevices(host: Host): Promise<Warned & { devices: ListedDevice[] }> {
  const { devices, warnings, byAddress } = scanInventory(host);
  const stuck = await stuckNow(host, warnings);
  for (const address of stuck) {
    const device = byAddress.get(address);
    if (device !== undefined) device.stuck = true;
  }
  const wishes = await wishesOfBoot(host);
  // Added to the objects of the scan, which are this list's own: copying thousands of them costs more than the rest.
  const seen = devices.map((d) => Object.assign(d, { wish: wishes.get(d.address) ?? null, guest: null }));
  return { devices: seen, warnings };
}

/** From the boot's own report: the configuration is not read for a list. */
export async function wishesOfBoot(host: Host): Promise<Map<Address, 'met' | 'not-met'>> {
  if (orNull(() => fileFacts(host, host.bootReport)) === null) return new Map();
  const { readReport } = await import('../boot/report.ts');
  const wishes = readReport(host)?.wishes ?? [];
  return new Map(
    wishes.flatMap((w) =>
      w.kind === 'pf' || w.address === null ? [] : [[w.address, w.met ? 'met' : 'not-met'] as const],
    ),
  );
}

/** The devices that hang; where that may not be read, the list is not whole and says so. */
async function stuckNow(host: Host, warnings: Warning[]): Promise<Address[]> {
  try {
    if (fileFacts(host, host.quarantine) === null) return [];
    const { readQuarantines } = await import('../binding/quarantine.ts');
    return readQuarantines(host).stuck.map((q) => q.address);
  } catch (e) {
    const { code, message } = e as Error & { code?: string };
    host.unread.push({ code: code ?? 'EUNKNOWN', errno: 0, syscall: 'open', path: host.quarantine });
    warnings.push(warning('not-measured', `which devices hang is not known: ${message}`));
    return [];
  }
}

/**
 * As lspci words it: "Intel Corporation 82576 Virtual Function", "Intel Corporation Device 0d57"; null when pci.ids
 * knows neither.
 */
export function fullName(names: PciNames, d: PciDevice): string | null {
  if (d.vendor_id === null || d.product_id === null) return null;
  const vendor = names.vendor(d.vendor_id);
  const device = names.device(d.vendor_id, d.product_id);
  return vendor === null && device === null ? null : `${vendor ?? d.vendor_id} ${device ?? `Device ${d.product_id}`}`;
}
