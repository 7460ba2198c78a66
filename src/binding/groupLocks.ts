/**
 * Which locks a change of devices takes, and that nobody else is at work under them: the devices' IOMMU groups, whole
 * for whoever moves them; of a VF also its PF's, shared, because whoever changes a PF's VFs has that one whole; and
 * those of every device that an unfinished transaction joins with these. All known before the first is taken.
 */
import { sleep } from '../clock.ts';
import { orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { Inventory, PciDevice } from '../pci/inventory.ts';
import type { BadFile } from '../store/files.ts';
import { type LockName, takeLocks } from '../store/locks.ts';
import { readBook, readBooks } from './books.ts';
import { inHandError, isInHand, type JournalEntry, joined, readEntry, readJournal } from './journal.ts';
import { refuseStopped, type Work } from './perform.ts';

/** How long to wait for a transaction that no lock keeps us from, before looking again. */
const IN_HAND_MS = 20;

export type Locked = {
  inventory: Inventory;
  /** The unfinished transactions that touch these devices: their writers are dead. */
  entries: JournalEntry[];
  bad: BadFile[];
  unlock: () => void;
};

/**
 * Takes the locks of devices and of whatever unfinished transactions join with them. What these are is looked at again
 * under the locks, and if more are needed by then all are given up and taken anew. `scan` is the host as it is then;
 * `known`: only these entries, as they were read, may concern the devices. Raises HOSTDEV_TIMEOUT, HOSTDEV_INTERRUPTED.
 */
export async function lockDevices(
  work: Work,
  addresses: readonly Address[],
  scan: () => Inventory,
  known?: readonly JournalEntry[],
): Promise<Locked> {
  const { host } = work;
  const ids = known?.map((e) => e.id);
  for (let inventory = work.inventory, before = known ?? readJournal(host).entries; ; ) {
    const wanted = locksOf(host, inventory, joined(inventory, addresses, before).addresses);
    const unlock = await takeLocks(host, wanted, work.deadline, work.signal);
    let inHand: boolean;
    try {
      inventory = scan();
      const { entries, bad } = readSome(host, ids);
      const now = joined(inventory, addresses, entries);
      const held = new Map(wanted.map((l) => [l.name, l.shared]));
      const lacks = locksOf(host, inventory, now.addresses).some(
        (l) => !held.has(l.name) || (held.get(l.name) === true && !l.shared),
      );
      before = entries;
      const writer = now.entries.find(isInHand);
      if (writer !== undefined && work.deadline.left === 0) throw inHandError(host, writer);
      inHand = writer !== undefined;
      if (!lacks && !inHand) return { inventory, entries: now.entries, bad: [...bad, ...badBooks(host, bad)], unlock };
    } catch (e) {
      unlock();
      throw e;
    }
    unlock();
    if (!inHand) continue;
    refuseStopped(work, 'anything was changed');
    await sleep(Math.min(IN_HAND_MS, work.deadline.left));
  }
}

/** Only known entries where there may be thousands: each is read when its turn has come. */
function readSome(host: Host, ids: readonly string[] | undefined): { entries: JournalEntry[]; bad: BadFile[] } {
  if (ids === undefined) return readJournal(host);
  return { entries: ids.flatMap((id) => readEntry(host, id) ?? []), bad: [] };
}

/** Looked for only where something is wrong already, or never: a book that cannot be read raises for its own device. */
export function badBooks(host: Host, bad: readonly BadFile[]): BadFile[] {
  return bad.length === 0 ? [] : readBooks(host).bad;
}

/**
 * The locks of devices, in the order everybody takes them: groups with a PF first, then ascending, devices without a
 * group under one name. A group's lock is for its devices' drivers; a VF's user has its PF's beside it, shared.
 */
export function locksOf(host: Host, inventory: Inventory, addresses: Iterable<Address>): LockName[] {
  const wanted = new Map<number | null, boolean>();
  const want = (group: number | null, shared: boolean): void => {
    wanted.set(group, shared && wanted.get(group) !== false);
  };
  for (const address of addresses) {
    const device = inventory.byAddress.get(address);
    want(device === undefined ? bookedGroup(host, address) : device.iommu_group, false);
    const pf = device?.parent_addr == null ? undefined : inventory.byAddress.get(device.parent_addr);
    if (pf !== undefined) want(pf.iommu_group, true);
  }
  const pfs = pfGroups(inventory);
  const rank = (g: number | null): number => (pfs.has(g) ? 0 : 2 ** 32) + (g ?? 2 ** 31);
  return [...wanted].sort(([a], [b]) => rank(a) - rank(b)).map(([group, shared]) => lockName(group, shared));
}

/** Asked for a thousand times of one scan. */
const PF_GROUPS = new WeakMap<readonly PciDevice[], ReadonlySet<number | null>>();

function pfGroups({ devices }: Inventory): ReadonlySet<number | null> {
  const known = PF_GROUPS.get(devices);
  if (known !== undefined) return known;
  const groups = new Set(devices.filter((d) => d.dev_type === 'type-PF').map((d) => d.iommu_group));
  PF_GROUPS.set(devices, groups);
  return groups;
}

const lockName = (group: number | null, shared: boolean): LockName => ({ name: `group-${group ?? 'none'}`, shared });

const bookedGroup = (host: Host, address: Address): number | null =>
  orNull(() => readBook(host, address))?.group ?? null;

/**
 * True when a living process was at work on the devices, which has ended now. Raises HOSTDEV_TIMEOUT when it has not by
 * the deadline.
 */
export async function awaitWriters(
  { host, deadline }: Work,
  inventory: Inventory,
  addresses: readonly Address[],
): Promise<boolean> {
  for (let waited = false; ; waited = true) {
    const writer = joined(inventory, addresses, readJournal(host).entries).entries.find(isInHand);
    if (writer === undefined) return waited;
    if (deadline.left === 0) throw inHandError(host, writer);
    await sleep(Math.min(IN_HAND_MS, deadline.left));
  }
}
