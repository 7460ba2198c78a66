/**
 * The books: one file a device that hostdev put on a VFIO driver, that libvirt will for a guest, or that a guest uses
 * as it was, with what was there before. What was there before is written once, when the device first becomes ours, and
 * outlives drift, mending and drivers that went; a device that was made anew is not the one in the books. Each hold is
 * one user's right to the device being as it is: a device unplugged from guest A and given to guest B has B's hold
 * beside A's, and A's release takes only A's away. Giving back on A's word alone once tore devices from running guests;
 * with holds the last one out does it.
 */
import { now } from '../clock.ts';
import { orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { type BadFile, badFile, listJson, notOurs, readJson, removeJson, writeJson } from '../store/files.ts';
import { isListOf, isObject, isText, isTextOrNull } from '../text/json.ts';
import { isOfThisBoot } from './boot.ts';
import {
  type DeviceState,
  isAddressText,
  isGroup,
  isOwner,
  isSriovState,
  isState,
  type Owner,
  type SriovState,
  sameState,
} from './state.ts';

export type Hold = {
  owner: Owner;
  /** The domain's name when the hold was made, for messages. */
  name: string | null;
  /** True when libvirt binds and re-attaches the device itself (managed='yes'). */
  managed: boolean;
  /**
   * The libvirtd that called prepare, as `pid:start time` (addon/process.ts): while it lives the guest may still be
   * starting.
   */
  libvirt: string | null;
  /** While the device is on its way into a running guest, or out of it. */
  plug?: Plug;
};

/**
 * A device between "bound" and "the guest has it", or between "the guest is asked to let it go" and "given back": it is
 * neither free nor drift. `by` is the process that is at it (addon/process.ts); when that has ended, the next hostdev
 * finishes or undoes it. `at` is `since` in ms of clock.ts. `live` and `kept`: whether the guest that runs is meant,
 * and what it is at its next start.
 */
export type Plug = {
  state: 'attaching' | 'leaving';
  by: string;
  since: string;
  at: number;
  live: boolean;
  kept: boolean;
};

/** A plug of a process from now on. */
export const plugOf = (state: Plug['state'], by: string, meant: Pick<Plug, 'live' | 'kept'>): Plug => ({
  state,
  by,
  since: new Date().toISOString(),
  at: now(),
  ...meant,
});

export type Binding = {
  schema: 2;
  address: Address;
  group: number | null;
  /**
   * The kernel's life that it is of, and the inode of the device's folder in sysfs then; null where neither is to be
   * told.
   */
  boot: string | null;
  inode: string | null;
  holds: Hold[];
  /** What the device was on before us. */
  before: DeviceState;
  /**
   * Bound by the initramfs before any host driver came: `before` is foretold, and any that claims the device will do
   * when it goes back.
   */
  any_host?: true;
  /** What we left it on; null when libvirt binds it. */
  after: DeviceState | null;
  since: string;
  /**
   * When the guests' holds were made, by owner, in ms of clock.ts. Apart from the holds, so that the same holds are the
   * same text.
   */
  prepared: Record<string, number>;
  /** Why the device was not given back when its last hold went. */
  note: string | null;
  /** Of a PF whose VFs went with its driver: what it had, and the books of those VFs, for the way back. */
  sriov?: SriovState;
  vf_bindings?: Binding[];
};

/** Whose a hold is, for messages: "admin", "domain vm1 (6243…)". */
export const ownerText = (h: Pick<Hold, 'owner' | 'name'>): string =>
  h.name === null ? h.owner : `domain ${h.name} (${h.owner.slice('domain:'.length)})`;

export const isGuest = (h: Pick<Hold, 'owner'>): boolean => h.owner.startsWith('domain:');

/** A fresh binding with one hold, of the device that is there now. */
export function newBinding(
  host: Host,
  address: Address,
  group: number | null,
  hold: Hold,
  before: DeviceState,
  after: DeviceState | null,
): Binding {
  const fresh: Binding = {
    schema: 2,
    address,
    group,
    boot: host.boot,
    inode: host.inode(host.device(address)),
    holds: [],
    before,
    after,
    since: new Date().toISOString(),
    prepared: {},
    note: null,
  };
  return withHold(fresh, hold);
}

/** With a hold added, or made anew by its owner: now. */
export function withHold(b: Binding, hold: Hold): Binding {
  const has = b.holds.some((h) => h.owner === hold.owner);
  const holds = has ? b.holds.map((h) => (h.owner === hold.owner ? hold : h)) : [...b.holds, hold];
  const times = isGuest(hold) ? { ...b.prepared, [hold.owner]: now() } : b.prepared;
  return { ...b, holds, prepared: times, note: null };
}

/** Without the holds of some owners; `note` says why it is still in the books when none is left. */
export function withoutHolds(b: Binding, owners: ReadonlySet<string>, note: string | null = null): Binding {
  const holds = b.holds.filter((h) => !owners.has(h.owner));
  const prepared = Object.fromEntries(Object.entries(b.prepared).filter(([owner]) => !owners.has(owner)));
  return { ...b, holds, prepared, note: holds.length > 0 ? null : note };
}

/** Nothing was moved for it: the device was on VFIO before, and only who uses it is in the books. */
export const isHoldOnly = (b: Binding): boolean => b.after !== null && sameState(b.before, b.after);

/**
 * True while the device in the books is the one that is at its address now. A VF that was destroyed, or a device that
 * was removed, is not.
 */
export function isSameDevice(host: Host, b: Binding): boolean {
  if (!isOfThisBoot(host, b.boot)) return false;
  return b.inode === null || b.inode === host.inode(host.device(b.address));
}

/**
 * The binding of the device that is at this address now; null when the books hold none of it. Raises
 * HOSTDEV_STORE_CORRUPT.
 */
export function readBinding(host: Host, address: Address): Binding | null {
  const b = readBook(host, address);
  return b === null || !isSameDevice(host, b) ? null : b;
}

/** The binding in the books under an address, of whatever device. Raises HOSTDEV_STORE_CORRUPT. */
export function readBook(host: Host, address: Address): Binding | null {
  const file = `${host.bindings}/${address}.json`;
  const value = readJson(host, file);
  return value === null ? null : binding(host.absolute(file), value, address);
}

/** All that is in the books, in order of file name, and the files that cannot be understood. */
export function readBooks(host: Host): { books: Binding[]; bad: BadFile[] } {
  const books: Binding[] = [];
  const bad: BadFile[] = [];
  for (const name of listJson(host, host.bindings)) {
    try {
      const b = readBook(host, name);
      if (b !== null) books.push(b);
    } catch (e) {
      const { file, why } = badFile(e);
      bad.push({ file, why, addresses: isAddressText(name) ? [name] : [] });
    }
  }
  return { books, bad };
}

export const writeBinding = (host: Host, b: Binding): void => writeJson(host, `${host.bindings}/${b.address}.json`, b);

export const removeBinding = (host: Host, address: Address): void => removeJson(host, host.bindings, address);

/** What a change makes of the book of one device: null is none. */
export type BookChange = { address: Address; before: Binding | null; after: Binding | null };

/** Brings the books to one end of a change. Files that say so already are not written. Raises HOSTDEV_STORE. */
export function applyBooks(host: Host, changes: readonly BookChange[], end: 'before' | 'after'): void {
  for (const change of changes) {
    const b = change[end];
    if (b === null) removeBinding(host, change.address);
    else if (!isWritten(host, b)) writeBinding(host, b);
  }
}

/** {@link applyBooks} as far as it can be; what could not be written, by device. */
export function tryBooks(host: Host, changes: readonly BookChange[], end: 'before' | 'after'): Map<Address, unknown> {
  const failures = new Map<Address, unknown>();
  for (const change of changes) {
    try {
      applyBooks(host, [change], end);
    } catch (e) {
      failures.set(change.address, e);
    }
  }
  return failures;
}

const isWritten = (host: Host, b: Binding): boolean =>
  JSON.stringify(orNull(() => readBook(host, b.address))) === JSON.stringify(b);

// What comes back from disk.

const isHold = (v: unknown): v is Hold =>
  isObject(v) &&
  isOwner(v.owner) &&
  isTextOrNull(v.name) &&
  typeof v.managed === 'boolean' &&
  isTextOrNull(v.libvirt) &&
  (v.plug === undefined || isPlug(v.plug));

const isPlug = (v: unknown): v is Plug =>
  isObject(v) &&
  (v.state === 'attaching' || v.state === 'leaving') &&
  isText(v.by) &&
  isText(v.since) &&
  typeof v.at === 'number' &&
  typeof v.live === 'boolean' &&
  typeof v.kept === 'boolean';

export function isBinding(v: unknown, address: string): v is Binding {
  return (
    isObject(v) &&
    v.schema === 2 &&
    v.address === address &&
    isAddressText(address) &&
    isGroup(v.group) &&
    isTextOrNull(v.boot) &&
    isTextOrNull(v.inode) &&
    isListOf(v.holds, isHold) &&
    isState(v.before) &&
    (v.any_host === undefined || v.any_host === true) &&
    (v.after === null || isState(v.after)) &&
    isText(v.since) &&
    isObject(v.prepared) &&
    Object.values(v.prepared).every((n) => typeof n === 'number') &&
    isTextOrNull(v.note) &&
    (v.sriov === undefined || isSriovState(v.sriov)) &&
    (v.vf_bindings === undefined || isListOf(v.vf_bindings, isVfBinding))
  );
}

/** One level only: a VF has no VFs. */
const isVfBinding = (v: unknown): v is Binding =>
  isObject(v) && v.vf_bindings === undefined && isBinding(v, String(v.address));

function binding(file: string, value: unknown, address: string): Binding {
  const b = upgraded(value);
  if (isBinding(b, address)) return b;
  throw notOurs(file, value, 2, 'binding');
}

/**
 * Schema 1 had `claims`, and nothing that tells one device from the next at its address. It is rewritten at the next
 * change.
 */
function upgraded(v: unknown): unknown {
  if (!isObject(v) || v.schema !== 1 || !Array.isArray(v.claims)) return v;
  const { claims, owner: _first, vf_bindings, ...rest } = v;
  return {
    ...rest,
    schema: 2,
    boot: null,
    inode: null,
    holds: claims.map((c: unknown) => (isObject(c) ? { ...c, libvirt: null } : c)),
    prepared: {},
    ...(Array.isArray(vf_bindings) ? { vf_bindings: vf_bindings.map(upgraded) } : {}),
  };
}
