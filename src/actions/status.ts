/** `status`: what hostdev bound, for whom, and what has drifted from the books. */

import { observe, type Work } from '../binding/access.ts';
import { type Binding, readBooks } from '../binding/books.ts';
import { driftOf } from '../binding/drift.ts';
import { type JournalEntry, readJournal } from '../binding/journal.ts';
import type { DeviceState } from '../binding/move.ts';
import { type Quarantine, readQuarantines } from '../binding/quarantine.ts';
import { observing } from '../binding/session.ts';
import type { Host } from '../host/host.ts';
import { type IommuState, iommuState } from '../host/iommu.ts';

export type BindingStatus = {
  address: string;
  owner: string | null;
  claims: Binding['claims'];
  driver: string | null;
  driver_override: string | null;
  before: DeviceState;
  /** What is not as the books say, null when all is well. */
  drift: string | null;
  /** What to do about it. */
  advice: string | null;
};

export type Status = {
  iommu: IommuState;
  bindings: BindingStatus[];
  journal: Pick<JournalEntry, 'id' | 'kind' | 'owner' | 'state' | 'left'>[];
  /** Devices that hang in the kernel and are left alone until that has ended. */
  stuck: Quarantine[];
};

const READ_MS = 2000;

/** Reads books, journal and devices; changes nothing. Raises HOSTDEV_STORE_CORRUPT. */
export async function readStatus(host: Host): Promise<Status> {
  const books = readBooks(host);
  const journal = readJournal(host).map(({ id, kind, owner, state, left }) => ({ id, kind, owner, state, left }));
  const bindings =
    books.length === 0
      ? []
      : await observing(host, { deadlineMs: READ_MS }, (work) => Promise.all(books.map((b) => bindingStatus(work, b))));
  return { iommu: iommuState(host), bindings, journal, stuck: readQuarantines(host) };
}

async function bindingStatus(work: Work, b: Binding): Promise<BindingStatus> {
  const { address, owner, claims, before } = b;
  const status = { address, owner, claims, before, driver: null, driver_override: null };
  try {
    const now = await observe(work, address);
    const found = driftOf(work.host, b, now);
    return {
      ...status,
      driver: now?.driver ?? null,
      driver_override: now?.override ?? null,
      drift: found?.drift ?? null,
      advice: found?.advice ?? null,
    };
  } catch (e) {
    const driver = work.host.linkName(work.host.device(address, 'driver'));
    return { ...status, driver, drift: `not known: ${(e as Error).message}`, advice: null };
  }
}
