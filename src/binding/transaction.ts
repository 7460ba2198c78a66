/**
 * A change of several devices that holds or is undone: journal, write and verify each step, one mark, the books,
 * journal gone. Ownership: between taking the locks of the devices and giving them up, nobody else who plays by the
 * books changes them; the kernel, udev and other tools still may. Undo goes in reverse, starts from what is observed,
 * keeps the first error and reports what it could not put back.
 */
import { ERRORS, EXIT, HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { scanInventory } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { groupNow, vfLinks } from '../pci/vfLinks.ts';
import { Deadline } from '../store/locks.ts';
import { applyBooks, type Binding, type BookChange, newBinding, readBook, tryBooks } from './books.ts';
import {
  announce,
  type Change,
  type JournalEntry,
  namedBy,
  newEntry,
  remainder,
  removeJournal,
  writeJournal,
} from './journal.ts';
import { batchesOf, performBatch, refuseStopped, type Work } from './perform.ts';
import { recordEnd } from './record.ts';
import { settle, settlePf } from './settle.ts';
import { describeEnd, type Move, recordedVfs } from './state.ts';
import { stepsOf } from './steps.ts';

/**
 * Carries out a change as one transaction. On any failure, or an abort, every device goes back to what it was and the
 * first error is raised: HOSTDEV_BIND_FAILED, HOSTDEV_NOT_PERMITTED, HOSTDEV_TIMEOUT, HOSTDEV_GUARD, HOSTDEV_IN_USE,
 * HOSTDEV_INTERRUPTED, HOSTDEV_STORE; or HOSTDEV_UNDO_INCOMPLETE naming the journal file. The caller holds the locks of
 * all devices.
 */
export async function runChange(work: Work, change: Change): Promise<void> {
  const { host } = work;
  const entry = newEntry(host, change);
  announce(host, work.inventory, entry);
  try {
    for (const batch of batchesOf(stepsOf(host, entry.devices))) {
      refuseStopped(work, batch[0]?.path ?? '');
      for (const e of (await performBatch(work, batch)).values()) throw e;
    }
    for (const move of entry.devices)
      if (move.sriov !== undefined) await settlePf(work, { ...move, sriov: move.sriov }, 'to');
    refuseStopped(work, 'the end');
    commit(host, entry);
  } catch (e) {
    await undo(work, entry, e);
  }
  recordEnd(
    work,
    entry,
    entry.devices.map((move) => ({ move, outcome: 'done' as const })),
  );
  try {
    removeJournal(host, entry.id);
  } catch {
    // It says done, and so it is: whoever comes next takes it away.
  }
}

/** The one mark: from here on the change is done, whoever writes the books. */
function commit(host: Host, entry: JournalEntry): void {
  const done: JournalEntry = { ...entry, books: booksAt(host, entry, 'to'), mark: 'done' };
  writeJournal(host, done);
  Object.assign(entry, done);
  applyBooks(host, entry.books, 'after');
}

/**
 * The books' changes of an entry whose devices are at one end of it. Books can name VFs only when these are there:
 * those made for VFIO are `fresh`'s and were on nothing before, those that came back with their PF are in the books
 * again as the devices that they are now.
 */
export function booksAt(host: Host, { books, devices, fresh }: JournalEntry, end: 'from' | 'to'): BookChange[] {
  const pfs = devices.filter((m) => m.sriov !== undefined);
  if (pfs.length === 0) return books;
  const side = end === 'from' ? 'before' : 'after';
  const changes = new Map(books.map((b) => [b.address, b]));
  const vfs = pfs.flatMap((m) => vfLinks(host, m.address).map((address) => ({ address, goal: m.sriov?.[end] })));
  for (const change of books) {
    const book = change[side];
    // Of a VF that did not come back there is nothing to keep.
    if (book !== null && isVfOf(pfs, change.address))
      changes.set(change.address, {
        ...change,
        [side]: vfs.some((v) => v.address === change.address) ? madeAnew(host, book) : null,
      });
  }
  if (fresh !== null && end === 'to') {
    const inventory = scanInventory(host);
    for (const { address, goal } of vfs) {
      const driver = inventory.byAddress.get(address)?.driver ?? null;
      if (goal?.vfs !== 'vfio' || !isVfioDriver(host, address, driver)) continue;
      const none = { driver: null, override: null };
      const after = newBinding(host, address, groupNow(host, address), fresh, none, { driver, override: driver });
      changes.set(address, { address, before: changes.get(address)?.before ?? null, after });
    }
  }
  return [...changes.values()];
}

const isVfOf = (pfs: readonly Move[], address: Address): boolean =>
  pfs.some((m) => [...recordedVfs(m.sriov?.from), ...recordedVfs(m.sriov?.to)].some((vf) => vf.address === address));

/** The same binding of the device that is there now in its place, put there by us. */
const madeAnew = (host: Host, b: Binding): Binding => ({
  ...b,
  group: groupNow(host, b.address),
  inode: host.inode(host.device(b.address)),
});

/**
 * Puts every device of the entry back, last first, and the books; then raises `first`, or what could not be put back.
 */
async function undo(work: Work, entry: JournalEntry, first: unknown): Promise<never> {
  const { host } = work;
  const { signal: _stop, onStep: _told, ...quiet } = work;
  const late: Work = {
    ...quiet,
    deadline: new Deadline(Math.max(work.undoMs, Math.min(work.deadline.left, work.undoMs * 2))),
  };
  const file = host.absolute(`${host.journal}/${entry.id}.json`);
  const why = textOf(first);
  // Whoever finds it done would finish the books: that must not be so any more before a device goes back.
  const wasDone = entry.mark === 'done';
  entry.mark = 'back';
  const unmarked = wasDone ? failureOf(() => writeJournal(host, entry)) : null;
  if (unmarked !== null)
    throw new HostdevError(
      'HOSTDEV_UNDO_INCOMPLETE',
      `${why}; nothing was put back, because the journal cannot be written: ${textOf(unmarked)}`,
      { cause: first, hint: `See ${file}: the next hostdev that can write finishes the books.` },
    );
  const failures = await settle(late, [...entry.devices].reverse(), 'from');
  const waits = namedBy(remainder(entry, new Set(failures.keys())));
  const books = booksAt(host, entry, 'from').filter((b) => !waits.has(b.address));
  for (const [address, e] of tryBooks(host, books, 'before')) failures.set(address, e);
  recordEnd(
    work,
    entry,
    entry.devices.map((move) => {
      const e = failures.get(move.address);
      return e === undefined ? { move, outcome: 'undone', reason: why } : { move, outcome: 'left', reason: textOf(e) };
    }),
  );
  const { left, pending } = leftOver(entry, failures);
  const rest = remainder(entry, new Set(failures.keys()));
  const unwritten = failureOf(() =>
    failures.size === 0
      ? removeJournal(host, entry.id)
      : writeJournal(host, { ...rest, state: pending ? 'pending' : 'undo-incomplete', left }),
  );
  if (unwritten !== null) left.push(`${file}: ${textOf(unwritten)}`);
  if (left.length === 0) throw first;
  if (pending)
    throw new HostdevError('HOSTDEV_TIMEOUT', `${why}; not known to be back: ${left.join('; ')}`, {
      cause: first,
      hint: `'hostdev status --fix' finishes it when the device answers again; until then see ${file}`,
      data: { left },
    });
  throw new HostdevError('HOSTDEV_UNDO_INCOMPLETE', `${why}; and not put back: ${left.join('; ')}`, {
    cause: first,
    hint: `See ${file}, then 'hostdev status'`,
    data: { left },
  });
}

const textOf = (e: unknown): string => (e instanceof Error ? e.message : String(e));

/** What `write` raises; null when it does not. */
function failureOf(write: () => void): unknown {
  try {
    write();
    return null;
  } catch (e) {
    return e;
  }
}

/** What could not be brought to its end, a line a device; `pending`: some of it only because it does not answer. */
export function leftOver(
  { devices }: Pick<JournalEntry, 'devices'>,
  failures: ReadonlyMap<Address, unknown>,
): { left: string[]; pending: boolean } {
  const was = new Map(devices.map((m) => [m.address, `, which was on ${describeEnd(m, 'from')}`]));
  return {
    left: [...failures].map(([address, e]) => `${address}${was.get(address) ?? ''}: ${textOf(e)}`),
    pending: [...failures.values()].some((e) => e instanceof HostdevError && ERRORS[e.code].exit === EXIT.timedOut),
  };
}

/** Whose books a PF's move concerns besides its own: those of the VFs that go with it. */
export const booksOfVfs = (host: Host, move: Pick<Move, 'sriov'>): Binding[] =>
  recordedVfs(move.sriov?.from).flatMap((vf) => readBook(host, vf.address) ?? []);
