/**
 * What tells a PCI function from every other one, over boots (contract 10): the path of slots from its root bus, which
 * stays when bus numbers shift, its ids, and what numbers the card itself shows. A VF is told by its PF and its number
 * (vfLinks.ts). Pure reading.
 */
import { orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Address, isAddress } from './address.ts';
import { deviceSerial } from './configSpace.ts';
import type { PciDevice } from './inventory.ts';

/**
 * Numbers of the card itself; null where none is to be seen now: its driver shows some of them only while it has the
 * device.
 */
export type Marks = {
  /** Device Serial Number, `00-1b-21-ff-ff-3c-4d-5e`. Reading it needs root. */
  serial: string | null;
  /** Of an NVMe controller on the nvme driver. */
  nvme_serial: string | null;
  /** The permanent MAC address of its only network interface. */
  mac: string | null;
};

export const MARKS = ['serial', 'nvme_serial', 'mac'] as const satisfies readonly (keyof Marks)[];

export type Identity = Marks & {
  path: string;
  vendor_id: string;
  product_id: string;
  /** Null where it has none, or none is known. */
  subsystem_vendor_id: string | null;
  subsystem_device_id: string | null;
};

/** `pci0000:20/04.0/00.0`: the root bus, then slot and function of each bridge and of the device itself. */
export const SLOT_PATH = /^pci[0-9a-f]{4,8}:[0-9a-f]{2}(?:\/[01][0-9a-f]\.[0-7]){1,64}$/;

const ROOT_BUS = /^pci[0-9a-f]{4,8}:[0-9a-f]{2}$/;

/**
 * The path of slots of a function, from where its entry in sysfs leads (drivers/base/core.c device_add); null where
 * that is not to be told. A bus that a device's driver makes below it (Intel's VMD: pci10000:e0) is numbered by the
 * order of probing: it has no part in the path, and a device that is no bridge has only one.
 */
export function slotPath(host: Host, address: Address): string | null {
  const parts = (orNull(() => host.link(host.device(address))) ?? '').split('/');
  const root = parts.findIndex((p) => ROOT_BUS.test(p));
  if (root < 0 || parts.at(-1) !== address) return null;
  const slots = parts.slice(root + 1).filter(isAddress);
  const path = [parts[root], ...slots.map((a) => a.slice(a.lastIndexOf(':') + 1))].join('/');
  return SLOT_PATH.test(path) ? path : null;
}

/** The card's own numbers, as far as they are to be seen now. What cannot be read is not seen. */
export function marksOf(host: Host, address: Address): Marks {
  return { serial: serialOf(host, address), nvme_serial: nvmeSerial(host, address), mac: permanentMac(host, address) };
}

/** linux/pci_regs.h: with the extended space. */
const CONFIG_BYTES = 4096;

function serialOf(host: Host, address: Address): string | null {
  const bytes = orNull(() => host.readStart(host.device(address, 'config'), CONFIG_BYTES));
  return bytes === null ? null : deviceSerial(bytes);
}

const namesIn = (host: Host, address: Address, folder: string): string[] =>
  orNull(() => host.list(folder === '' ? host.device(address) : host.device(address, folder))) ?? [];

const textOf = (host: Host, address: Address, file: string): string =>
  orNull(() => host.read(host.device(address, file)))?.trim() ?? '';

/** drivers/nvme/host/sysfs.c: the controller's, and not of a namespace. */
function nvmeSerial(host: Host, address: Address): string | null {
  const [name, ...more] = namesIn(host, address, 'nvme').filter((n) => /^nvme\d+$/.test(n));
  if (name === undefined || more.length > 0) return null;
  const serial = textOf(host, address, `nvme/${name}/serial`);
  return /^[\x21-\x7e](?:[\x20-\x7e]{0,30}[\x21-\x7e])?$/.test(serial) ? serial : null;
}

/**
 * `addr_assign_type` 0 is NET_ADDR_PERM: a bond, or an admin, makes it another (include/uapi/linux/netdevice.h).
 * Representors of VFs are interfaces of the PF too.
 */
function permanentMac(host: Host, address: Address): string | null {
  const folders = ['net', ...namesIn(host, address, '').flatMap((n) => (/^virtio\d+$/.test(n) ? `${n}/net` : []))];
  const own = folders
    .flatMap((f) => namesIn(host, address, f).map((n) => `${f}/${n}`))
    .filter((at) => !/vf\d+$/.test(textOf(host, address, `${at}/phys_port_name`)));
  const [at, ...more] = own;
  if (at === undefined || more.length > 0 || textOf(host, address, `${at}/addr_assign_type`) !== '0') return null;
  const mac = textOf(host, address, `${at}/address`).toLowerCase();
  return /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/.test(mac) && mac !== '00:00:00:00:00:00' ? mac : null;
}

/** The ids that are part of an identity. */
export const ID_KEYS = ['vendor_id', 'product_id', 'subsystem_vendor_id', 'subsystem_device_id'] as const;

/**
 * The identity of a device; null where its path or its ids are not to be told. `others` are the devices of the host: a
 * number that another card of the same ids shows too (a serial number that its maker never set) tells nothing, and is
 * left out.
 */
export function identityOf(host: Host, device: PciDevice, others: readonly PciDevice[]): Identity | null {
  const { address, vendor_id, product_id, subsystem_vendor_id, subsystem_device_id } = device;
  const path = slotPath(host, address);
  if (path === null || vendor_id === null || product_id === null) return null;
  const marks = marksOf(host, address);
  const twins = others.filter(
    (d) =>
      d.address !== address &&
      d.parent_addr === null &&
      ID_KEYS.every((k) => d[k] === device[k]) &&
      sameFunction(d.address, address),
  );
  if (MARKS.some((k) => marks[k] !== null))
    for (const twin of twins) {
      const its = marksOf(host, twin.address);
      for (const k of MARKS) if (its[k] === marks[k]) marks[k] = null;
    }
  return { path, vendor_id, product_id, subsystem_vendor_id, subsystem_device_id, ...marks };
}

/** The functions of one card show the same serial number. */
export const sameFunction = (a: string, b: string): boolean => a.at(-1) === b.at(-1);
