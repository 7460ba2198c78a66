/** `status`: what hostdev bound, for whom, and what has drifted from the books. */
import { type Binding, readBooks } from '../binding/books.ts';
import { type JournalEntry, readJournal } from '../binding/journal.ts';
import { type DeviceState, describeState } from '../binding/move.ts';
import { observing } from '../binding/session.ts';
import { observe } from '../binding/transaction.ts';
import type { Host } from '../host/host.ts';
import { type IommuState, iommuState } from '../host/iommu.ts';
import { isVfioDriver } from '../pci/vfio.ts';

export type BindingStatus = {
  address: string;
  owner: string | null;
  claims: Binding['claims'];
  driver: string | null;
  driver_override: string | null;
  before: DeviceState;
  /** What is not as the books say, null when all is well. */
  drift: string | null;
};

export type Status = {
  iommu: IommuState;
  bindings: BindingStatus[];
  journal: Pick<JournalEntry, 'id' | 'kind' | 'owner' | 'state' | 'left'>[];
};

const READ_MS = 2000;

/** Reads books, journal and devices; changes nothing. Raises HOSTDEV_STORE_CORRUPT. */
export async function readStatus(host: Host): Promise<Status> {
  const books = readBooks(host);
  const journal = readJournal(host).map(({ id, kind, owner, state, left }) => ({ id, kind, owner, state, left }));
  const bindings =
    books.length === 0
      ? []
      : await observing(host, { deadlineMs: READ_MS * 2 }, async (work) => {
          const list: BindingStatus[] = [];
          for (const b of books) {
            const now = await observe(work, b.address);
            list.push({
              address: b.address,
              owner: b.owner,
              claims: b.claims,
              driver: now?.driver ?? null,
              driver_override: now?.override ?? null,
              before: b.before,
              drift: driftOf(host, b, now),
            });
          }
          return list;
        });
  return { iommu: iommuState(host), bindings, journal };
}

function driftOf(host: Host, b: Binding, now: DeviceState | null): string | null {
  if (now === null) return 'the device is gone';
  if (b.claims.length === 0) return `not given back: ${b.note ?? 'its claims are gone'}`;
  // libvirt binds a managed device after prepare: until then, and between hot-unplug and release, it is on its host driver.
  if (b.after === null || isVfioDriver(host, b.address, now.driver)) return null;
  return `hostdev left it on ${describeState(b.after)}, it is on ${describeState(now)}`;
}
