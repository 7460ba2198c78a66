/**
 * Which device of this host a wish means (contract 10). Pure: the host is a {@link View}. Rules:
 * - The path of slots with the ids finds the device, whatever its address is now; the card's own numbers, where both
 *   are known, must agree.
 * - A card that moved is found by its number alone: the same ids, the same function, that number on exactly one device,
 *   and on none that another wish has by its path.
 * - Everything else is refused by name. Nothing is ever taken because it is at the wished address now
 *   (qubes-issues#7792: that could be the disk of the host).
 */
import type { Address } from '../pci/address.ts';
import { ID_KEYS, type Identity, MARKS, type Marks, sameFunction } from '../pci/identity.ts';
import type { PciDevice } from '../pci/inventory.ts';
import type { Wish } from './wishes.ts';

/** A host as far as wishes are looked for on it. */
export type View = {
  devices: readonly PciDevice[];
  /** Null where it is not to be told. */
  pathOf(address: Address): string | null;
  marksOf(address: Address): Marks;
  /** The VF of a PF by its number; null when it has none of that number. */
  vfOf(pf: Address, n: number): Address | null;
  /** Why the inventory is not whole; null when it is. */
  unread: string | null;
};

export type NoMatch =
  /** Nothing is where the device was, and its number is on no device. `by`: its address is another device's now. */
  | { kind: 'absent'; now: Address | null }
  /** Another device is in its slot. */
  | { kind: 'other-device'; at: Address; ids: string }
  /** A device of the same ids is in its slot, and shows another number. */
  | { kind: 'other-card'; at: Address; mark: keyof Marks; seen: string }
  /** Several devices show its number. */
  | { kind: 'several'; at: Address[] }
  /** Another wish means the same device. */
  | { kind: 'taken'; at: Address; by: string }
  | { kind: 'no-vf'; pf: Address; vf: number }
  /** A `[[pf]]` of what can have no VFs. */
  | { kind: 'no-pf'; at: Address }
  /** Devices may be missing from the list. */
  | { kind: 'unread'; why: string };

/** `by`: what found it. */
export type Match =
  | { wish: Wish; device: PciDevice; by: 'path' | 'number' }
  | { wish: Wish; device: null; why: NoMatch };

type Found = { device: PciDevice; by: 'path' | 'number' } | { device: null; why: NoMatch };

/** The device that each wish means, in the order of the wishes. */
export function matchWishes(view: View, wishes: readonly Wish[]): Match[] {
  const byPath = new Map<string, PciDevice>();
  for (const d of view.devices) {
    const path = d.parent_addr === null ? view.pathOf(d.address) : null;
    if (path !== null) byPath.set(path, d);
  }
  const here = wishes.map((w) => inSlot(view, byPath, w));
  const taken = new Set(here.flatMap((f) => (f.device === null ? [] : f.device.address)));
  const found = wishes.map((w, n): Found => {
    const slot = here[n] as Found;
    return slot.device === null ? (moved(view, w, taken) ?? slot) : slot;
  });
  const owners = new Map<string, Wish>();
  return wishes.map((wish, n): Match => {
    const f = found[n] as Found;
    const end = f.device === null ? f : meant(view, wish, f);
    if (end.device === null) return { wish, device: null, why: end.why };
    const subject = `${wish.kind} ${end.device.address}`;
    const other = owners.get(subject);
    if (other !== undefined) {
      const by = `${other.place.file}:${other.place.line}`;
      return { wish, device: null, why: { kind: 'taken', at: end.device.address, by } };
    }
    owners.set(subject, wish);
    return { wish, device: end.device, by: end.by };
  });
}

/** An id that the wish does not say is not compared. */
const hasIds = (identity: Identity, d: PciDevice): boolean =>
  ID_KEYS.every((k) => identity[k] === null || identity[k] === d[k]);

/** What the wish knows and the card shows: equal, another one, or nothing to compare. */
const compared = (identity: Identity, marks: Marks): { same: boolean; other: keyof Marks | null } => {
  const known = MARKS.filter((k) => identity[k] !== null && marks[k] !== null);
  return {
    same: known.some((k) => identity[k] === marks[k]),
    other: known.find((k) => identity[k] !== marks[k]) ?? null,
  };
};

const idsText = (d: Pick<PciDevice, (typeof ID_KEYS)[number]>): string => {
  const own = `${d.vendor_id ?? '????'}:${d.product_id ?? '????'}`;
  const sub = d.subsystem_vendor_id === null ? '' : ` (subsystem ${d.subsystem_vendor_id}:${d.subsystem_device_id})`;
  return `${own}${sub}`;
};

function inSlot(view: View, byPath: ReadonlyMap<string, PciDevice>, { identity, address }: Wish): Found {
  const device = byPath.get(identity.path);
  if (device === undefined) {
    if (view.unread !== null) return { device: null, why: { kind: 'unread', why: view.unread } };
    const now = view.devices.find((d) => d.address === address)?.address ?? null;
    return { device: null, why: { kind: 'absent', now } };
  }
  const { address: at } = device;
  if (!hasIds(identity, device)) return { device: null, why: { kind: 'other-device', at, ids: idsText(device) } };
  const marks = view.marksOf(at);
  const { other } = compared(identity, marks);
  if (other !== null) return { device: null, why: { kind: 'other-card', at, mark: other, seen: marks[other] ?? '' } };
  return { device, by: 'path' };
}

/** The card in another slot; null where its number is nowhere. */
function moved(view: View, { identity }: Wish, taken: ReadonlySet<Address>): Found | null {
  if (MARKS.every((k) => identity[k] === null)) return null;
  const cards = view.devices.filter((d) => {
    if (d.parent_addr !== null || taken.has(d.address) || !hasIds(identity, d)) return false;
    if (!sameFunction(d.address, identity.path)) return false;
    const { same, other } = compared(identity, view.marksOf(d.address));
    return same && other === null;
  });
  const [device, ...more] = cards;
  if (device === undefined) return null;
  if (more.length > 0) return { device: null, why: { kind: 'several', at: cards.map((d) => d.address) } };
  return { device, by: 'number' };
}

/** From the device that the identity names to the one that the wish is about: a VF of it, or its VFs. */
function meant(view: View, wish: Wish, found: Extract<Found, { device: PciDevice }>): Found {
  const { device, by } = found;
  if (wish.kind === 'pf')
    return device.dev_type === 'type-PF' ? found : { device: null, why: { kind: 'no-pf', at: device.address } };
  if (wish.vf === null) return found;
  const address = view.vfOf(device.address, wish.vf);
  const vf = view.devices.find((d) => d.address === address);
  return vf === undefined
    ? { device: null, why: { kind: 'no-vf', pf: device.address, vf: wish.vf } }
    : { device: vf, by };
}

const MARK_TEXT: Record<keyof Marks, string> = {
  serial: 'serial number',
  nvme_serial: 'NVMe serial number',
  mac: 'MAC address',
};

/** Why a wish finds no device, in a line, with what was left alone. */
export function noMatchText({ address, identity }: Wish, why: NoMatch): string {
  const slot = `its slot (${identity.path})`;
  switch (why.kind) {
    case 'absent': {
      const other = why.now === null ? '' : `; ${why.now} is another device now, and was left alone`;
      return `no device is in ${slot}${other}`;
    }
    case 'other-device':
      return `another device is in ${slot}: ${why.at} is ${why.ids}, not ${idsText(identity)}; it was left alone`;
    case 'other-card':
      return `another card of the same ids is in ${slot}: the ${MARK_TEXT[why.mark]} of ${why.at} is ${why.seen}, not ${identity[why.mark]}; it was left alone`;
    case 'several':
      return `no device is in ${slot}, and several show its number: ${why.at.join(', ')}; they were left alone`;
    case 'taken':
      return `${why.at} is what ${why.by} wishes too`;
    case 'no-vf':
      return `${why.pf} has no VF ${why.vf} (${address})`;
    case 'no-pf':
      return `${why.at} can have no VFs: it has no SR-IOV, or that is off`;
    case 'unread':
      return `whether it is there is not known: ${why.why}`;
  }
}
