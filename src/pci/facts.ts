/**
 * What Nova's specs ask of a host beside its devices: interfaces, the ids of VFs that are not there yet, serial
 * numbers. A saved inventory knows little of it.
 */
import type { Host } from '../host/host.ts';
import { quote } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import { type Address, isAddress } from './address.ts';
import type { Inventory } from './inventory.ts';
import { representorOf } from './representors.ts';
import { addressOfClass } from './resolve.ts';

export type PciFacts = {
  /** The function behind a network interface; null when there is none. */
  netdev(name: string): Address | null;
  isPf(address: Address): boolean;
  ids(address: Address): { vendor_id: string; product_id: string } | null;
  /** The product id of a PF's VFs, 4 lower-case hex digits. */
  vfProductId(address: Address): string | null;
  /**
   * The serial number in the VPD of a function, or of its PF. Reading it takes the device's lock, and some cards need a
   * second: asked for only where a spec needs it.
   */
  cardSerial(address: Address): string | null;
  /**
   * The interface of each function that has one; of several the first by name, representors aside. None for a saved
   * inventory.
   */
  netdevs(): ReadonlyMap<Address, string>;
  /** Facts that were asked for and could not be known. */
  readonly unknown: ReadonlySet<string>;
};

/** What was asked for and could not be known, as warnings. */
export const unknownFacts = ({ unknown }: PciFacts): Warning[] =>
  [...unknown].map((what) => warning('not-measured', `not known: ${what}`));

/** linux/pci_regs.h: VPD is at most 32 KiB. */
const MAX_VPD = 32 * 1024;

/** `host` null: the inventory is a saved one, of another host maybe, and this host's sysfs says nothing about it. */
export function pciFacts(inventory: Inventory, host: Host | null): PciFacts {
  const unknown = new Set<string>();
  const serials = new Map<Address, string | null>();
  const notKnown = (what: string): null => {
    unknown.add(what);
    return null;
  };
  const read = (address: Address, name: string, max?: number): string | null => {
    try {
      return host?.read(host.device(address, name), max) ?? null;
    } catch (e) {
      return notKnown(`${name} of ${address}: ${(e as Error).message}`);
    }
  };
  const serialOf = (address: Address): string | null => {
    let serial = serials.get(address);
    if (serial === undefined) {
      const vpd = read(address, 'vpd', MAX_VPD);
      serial = vpd === null ? null : vpdSerial(vpd);
      serials.set(address, serial);
    }
    return serial;
  };
  return {
    unknown,
    netdev(name) {
      if (host === null) return notKnown(`the interface ${quote(name)}`);
      // IFNAMSIZ is 16 with its NUL; dots alone would be a path.
      if (!/^[^/\s]{1,15}$/.test(name) || /^\.+$/.test(name)) return null;
      return addressOfClass(host, 'net', name);
    },
    isPf: (address) => (inventory.byAddress.get(address)?.sriov_totalvfs ?? 0) > 0,
    ids(address) {
      const { vendor_id = null, product_id = null } = inventory.byAddress.get(address) ?? {};
      return vendor_id === null || product_id === null ? null : { vendor_id, product_id };
    },
    vfProductId(address) {
      const vf = inventory.devices.find((d) => d.parent_addr === address && d.product_id !== null);
      // Printed with %x: no 0x, no zeros in front (drivers/pci/iov.c sriov_vf_device_show).
      const text = vf?.product_id ?? read(address, 'sriov_vf_device')?.trim();
      if (text === undefined || !/^[0-9a-f]{1,4}$/.test(text))
        return notKnown(`the product id of the VFs of ${address}`);
      return text.padStart(4, '0');
    },
    cardSerial(address) {
      if (host === null) return notKnown('the serial numbers of cards');
      if (!isAddress(address)) return null;
      const parent = inventory.byAddress.get(address)?.parent_addr ?? null;
      return serialOf(address) ?? (parent === null ? null : serialOf(parent));
    },
    netdevs() {
      const found = new Map<Address, string>();
      for (const name of host?.list(host.classLink('net')) ?? []) {
        const address = host === null ? null : addressOfClass(host, 'net', name);
        if (host === null || address === null || found.has(address)) continue;
        if (representorOf(host, name, address) === null) found.set(address, name);
      }
      return found;
    },
  };
}

/**
 * PCI Local Bus Specification 3.0, appendix I: large resources of a tag and two bytes of length; the keyword SN of
 * VPD-R (0x90). Null when there is none.
 */
export function vpdSerial(vpd: string): string | null {
  const byte = (at: number): number => vpd.charCodeAt(at) & 0xff;
  for (let at = 0; at + 3 <= vpd.length; ) {
    const tag = byte(at);
    // A small resource: the length is in the tag; 0x78 is the end.
    if (tag < 0x80) {
      if (tag === 0x78) return null;
      at += 1 + (tag & 7);
      continue;
    }
    const end = at + 3 + byte(at + 1) + 256 * byte(at + 2);
    if (tag === 0x90) {
      for (let field = at + 3; field + 3 <= Math.min(end, vpd.length); ) {
        const length = byte(field + 2);
        const text = vpd.slice(field + 3, field + 3 + length);
        if (vpd.startsWith('SN', field)) return /^[\x20-\x7e]+$/.test(text) && text.trim() !== '' ? text.trim() : null;
        field += 3 + length;
      }
    }
    at = end;
  }
  return null;
}
