/** `status`: what hostdev bound, for whom, who uses it, and what has drifted from the books. */

import type { Access } from '../binding/access.ts';
import { type Binding, type Hold, readBooks } from '../binding/books.ts';
import { driftOf } from '../binding/drift.ts';
import { guestOf, type Witness, withTold, witness } from '../binding/guests.ts';
import { type JournalEntry, readJournal, writerOf } from '../binding/journal.ts';
import { observe } from '../binding/observe.ts';
import { type Quarantine, readQuarantines } from '../binding/quarantine.ts';
import { observing } from '../binding/session.ts';
import type { DeviceState, Owner } from '../binding/state.ts';
import { ownFiles } from '../config/readText.ts';
import { HostdevError, isSysError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type IommuState, iommuState } from '../host/iommu.ts';
import type { Address } from '../pci/address.ts';
import { failureWarning } from '../pci/inventory.ts';
import type { BadFile } from '../store/files.ts';
import type { Warning } from '../text/warning.ts';
import { type BootVital, bootVital } from './bootVital.ts';
import { type DeviceGuests, toldBy } from './inGuest.ts';

/** A process that has the device, and the guest that libvirt says it is. */
type User = { pid: number; command: string; domain: string | null };

export type BindingStatus = {
  address: string;
  /** The first hold's owner; null when every hold is gone but the device could not be given back yet. */
  owner: Owner | null;
  holds: Hold[];
  users: User[];
  driver: string | null;
  driver_override: string | null;
  before: DeviceState;
  /** What is not as the books say, null when all is well. */
  drift: string | null;
  /** What to do about it. */
  advice: string | null;
};

/**
 * What libvirt says that a guest has, and no hook of ours saw. `drift` false: libvirt bound it (managed='yes') and
 * gives it back, so that nothing is missing.
 */
export type Unheld = {
  address: Address;
  guest: { uuid: string; name: string };
  managed: boolean;
  driver: string | null;
  drift: boolean;
};

export type Status = {
  /** Null where it could not be read. */
  iommu: IommuState | null;
  bindings: BindingStatus[];
  /** Null where it may not be read: it is root's. */
  journal: (Pick<JournalEntry, 'id' | 'kind' | 'owner' | 'state' | 'left'> & { in_hand: number | null })[] | null;
  /** Devices that hang in the kernel and are left alone until that has ended. */
  stuck: Quarantine[];
  /** Files of ours that cannot be understood: the devices that they name are left alone. */
  bad_files: BadFile[];
  /** The wishes of the configuration, and those that are not met; null where it cannot be read. */
  wishes: { total: number; not_met: { address: string | null; wished_address: string; reason: string }[] } | null;
  /** Whether libvirt said who has what. */
  guests_asked: boolean;
  /** Devices that running guests have, and no hold of theirs is in the books. */
  unheld: Unheld[];
  /** Devices of the initramfs's table that the host has come to stand on; null where that is not to be told. */
  initramfs_vital: BootVital[] | null;
};

const READ_MS = 2000;

/** Reads books, journal and devices; changes nothing. `own` is what libvirt says of the guests. */
export async function readStatus(host: Host, own: DeviceGuests): Promise<Status> {
  const { books, bad } = readBooks(host);
  const { entries, bad: badEntries } = journalNow(host);
  const journal =
    entries?.map((e) => {
      const { id, kind, owner, state, left } = e;
      return { id, kind, owner, state, left, in_hand: writerOf(e) };
    }) ?? null;
  const quarantines = readQuarantines(host);
  const bindings =
    books.length === 0
      ? []
      : await observing(host, { deadlineMs: READ_MS }, async (work) => {
          const look = withTold(await witness(host, books, work.deadline.left, true), toldBy(own));
          return Promise.all(books.map((b) => bindingStatus(work, look, b)));
        });
  return {
    iommu: iommuNow(host),
    bindings,
    journal,
    stuck: quarantines.stuck,
    bad_files: [...bad, ...badEntries, ...quarantines.bad],
    wishes: await wishesNow(host),
    guests_asked: own.asked,
    unheld: unheldNow(host, own, books),
    initramfs_vital: await bootVital(host),
  };
}

/** Those that this host has; another libvirt's guests may have others. */
export const unheldNow = (host: Host, { guests }: DeviceGuests, books: readonly Binding[]): Unheld[] =>
  [...guests].flatMap(([address, { uuid, name, managed }]) => {
    const isHeld = books.some((b) => b.address === address && b.holds.some((h) => h.owner === `domain:${uuid}`));
    if (isHeld || host.inode(host.device(address)) === null) return [];
    const driver = host.linkName(host.device(address, 'driver'));
    return [{ address, guest: { uuid, name }, managed, driver, drift: !managed }];
  });

/** What {@link readStatus} could not read of the host. */
export const unreadWarnings = (host: Host): Warning[] => host.unread.map(failureWarning);

/** What is wrong with the IOMMU is no reason to say nothing of the books. */
function iommuNow(host: Host): IommuState | null {
  try {
    return iommuState(host);
  } catch (e) {
    if (!isSysError(e)) throw e;
    const { code, errno, syscall = 'open', path = host.iommuGroups } = e;
    host.unread.push({ code, errno, syscall, path });
    return null;
  }
}

/** The configuration, and what reads it, are loaded where there is one. */
async function wishesNow(host: Host): Promise<Status['wishes']> {
  try {
    if (ownFiles(host, host.absolute(host.config)).length === 0) return { total: 0, not_met: [] };
    const { hostWishes } = await import('./wishes.ts');
    const { seen } = await hostWishes(host, true);
    const not_met = seen.flatMap(({ match: { wish, device }, why }) =>
      why === null ? [] : { address: device?.address ?? null, wished_address: wish.address, reason: why },
    );
    return { total: seen.length, not_met };
  } catch (e) {
    if (e instanceof HostdevError) return null;
    throw e;
  }
}

/** Anybody may ask for the rest; without the journal the answer is not whole, and says so. */
function journalNow(host: Host): { entries: JournalEntry[] | null; bad: BadFile[] } {
  try {
    return readJournal(host);
  } catch (e) {
    if (!(e instanceof HostdevError) || e.code !== 'HOSTDEV_NOT_PERMITTED') throw e;
    return { entries: null, bad: [] };
  }
}

async function bindingStatus(work: Access, look: Witness, b: Binding): Promise<BindingStatus> {
  const { host } = work;
  const { address, holds, before } = b;
  const users = [...new Map(look.holders(b).map((h) => [h.pid, h])).values()].map(
    ({ pid, command }): User => ({ pid, command, domain: guestOf(host, pid) }),
  );
  const owner = holds[0]?.owner ?? null;
  const status = { address, owner, holds, users, before, driver: null, driver_override: null };
  try {
    const now = await observe(work, address);
    const found = driftOf(host, look, b, now);
    return {
      ...status,
      driver: now?.driver ?? null,
      driver_override: now?.override ?? null,
      drift: found?.drift ?? null,
      advice: found?.advice ?? null,
    };
  } catch (e) {
    const driver = host.linkName(host.device(address, 'driver'));
    return { ...status, driver, drift: `not known: ${(e as Error).message}`, advice: null };
  }
}
