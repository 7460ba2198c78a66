/**
 * The address of a PCI function: the one place that knows how it is written. An {@link Address} elsewhere is always the
 * canonical text of {@link formatAddress}, so that two addresses are equal exactly when their texts are.
 */

/**
 * Canonical text: lower-case hex `dddd:bb:ss.f`, the domain 4 to 8 digits (VMD and Hyper-V make domains above ffff).
 */
export type Address = string;

/** The parts as numbers: domain 0..ffffffff, bus 0..ff, slot 0..1f, func 0..7. */
export type PciAddress = { domain: number; bus: number; slot: number; func: number };

/** `pci_ffffffff_ff_1f_7` is the longest spelling; anything longer is refused before a pattern looks at it. */
const MAX_LENGTH = 20;

const COLON = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i;
const NODEDEV = /^pci_([0-9a-f]{4,8})_([0-9a-f]{2})_([01][0-9a-f])_([0-7])$/i;

const hex = (n: number, digits: number): string => n.toString(16).padStart(digits, '0');

/**
 * Reads an address as people and libvirt write it: `0000:01:00.0`, `01:00.0` (domain 0) or `pci_0000_01_00_0`, hex
 * digits in either case. Returns null for anything else: spaces, missing zeros, slot above 1f, function above 7.
 */
export function parseAddress(text: string): PciAddress | null {
  if (text.length > MAX_LENGTH) return null;
  const m = COLON.exec(text) ?? NODEDEV.exec(text);
  if (!m) return null;
  const part = (i: number): number => Number.parseInt(m[i] ?? '0', 16);
  return { domain: part(1), bus: part(2), slot: part(3), func: part(4) };
}

/**
 * The canonical text of an address, as sysfs names it: the kernel prints the domain with `%04x`
 * (drivers/pci/probe.c, pci_setup_device), so it grows past four digits only when it has to.
 */
export function formatAddress(p: PciAddress): Address {
  return `${hex(p.domain, 4)}:${hex(p.bus, 2)}:${hex(p.slot, 2)}.${p.func}`;
}

/** {@link parseAddress} and {@link formatAddress} in one: the canonical text, or null when `text` is no address. */
export function canonicalAddress(text: string): Address | null {
  const p = parseAddress(text);
  return p && formatAddress(p);
}

const CANONICAL = /^(?:[0-9a-f]{4}|[1-9a-f][0-9a-f]{4,7}):[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;

/** True for the canonical text of an address, as sysfs writes it; a scan of thousands asks this twice a device. */
export const isAddress = (text: string): boolean => text.length <= MAX_LENGTH && CANONICAL.test(text);

/** libvirt's node device name of a canonical address: `0000:01:00.0` gives `pci_0000_01_00_0`. */
export const nodedevName = (address: Address): string => `pci_${address.replace(/[:.]/g, '_')}`;

/**
 * Sorting function: domain, bus, slot, function by number (as text `10000:…` would come before `2000:…`). Words that
 * are no address come last, in the order of their text, so that a sort never depends on the order it was given.
 */
export function compareAddresses(a: Address, b: Address): number {
  const p = parseAddress(a);
  const q = parseAddress(b);
  if (!p || !q) return p ? -1 : q ? 1 : a < b ? -1 : a > b ? 1 : 0;
  return p.domain - q.domain || p.bus - q.bus || p.slot - q.slot || p.func - q.func;
}
