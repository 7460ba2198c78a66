/**
 * The journal: what a transaction set out to change, written before its first sysfs write and gone after its last. It
 * lives in /run: it describes one kernel's life. Whoever holds the locks of an entry's devices knows that its writer is
 * dead, for a living one would hold them. No step is journalled: a move's inverse starts from what is observed, so a
 * crash between any two writes is put right by the same code, whichever were done. What decides the way is one mark for
 * the whole entry.
 */
import { ownName, processRuns } from '../addon/process.ts';
import { HostdevError, orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { Inventory } from '../pci/inventory.ts';
import { type BadFile, badFile, listJson, notOurs, readJson, removeJson, writeJson } from '../store/files.ts';
import { isListOf, isObject, isText, isTextOrNull } from '../text/json.ts';
import { type Binding, type BookChange, type Hold, isBinding, newBinding, readBook } from './books.ts';
import type { Guard } from './guards.ts';
import { isAddressText, isMove, isOwner, type Move, type Owner, recordedVfs, sameState } from './state.ts';

/**
 * Which way an entry without a mark is finished if nobody says otherwise: a `bind` goes back, a `give-back` goes on.
 */
export type JournalKind = 'bind' | 'give-back';

/**
 * `done`: every device is where it was going, only the books are left to be written. `forward`, `back`: so it was
 * decided, and whoever comes finishes it that way. null: nothing was decided yet.
 */
type Mark = 'done' | 'forward' | 'back' | null;

/** A use of a device that an allowance lifted, for this transaction and its recovery. */
export type Lifted = { address: Address; guard: Guard; reason: string };

export type JournalEntry = {
  schema: 2;
  id: string;
  kind: JournalKind;
  /** For whom. */
  owner: Owner;
  boot: string | null;
  /** Who began it. */
  pid: number;
  /** Who works at it, by name (addon/process.ts); null for an entry of an older hostdev. */
  writer: string | null;
  started: string;
  mark: Mark;
  /** `intent` while it runs; afterwards what went wrong. */
  state: 'intent' | 'undo-incomplete' | 'pending';
  devices: Move[];
  books: BookChange[];
  /** Whose VFs are that are made for VFIO: their books can only be written when they are there. */
  fresh: Hold | null;
  lifted: Lifted[];
  /** What is not as it should be, one line a device. */
  left: string[];
};

/** What a transaction is about: {@link newEntry} adds who and when. */
export type Change = Pick<JournalEntry, 'kind' | 'owner' | 'devices' | 'books'> &
  Partial<Pick<JournalEntry, 'mark' | 'fresh' | 'lifted'>>;

export const newEntry = (host: Host, change: Change): JournalEntry => ({
  schema: 2,
  id: journalId(),
  boot: host.boot,
  pid: process.pid,
  writer: ownName(),
  started: new Date().toISOString(),
  mark: null,
  state: 'intent',
  fresh: null,
  lifted: [],
  left: [],
  ...change,
});

/**
 * Every device that an entry touches: those that move, the VFs that come and go with them, and those that only the
 * books tell of.
 */
export const namedBy = (e: Pick<JournalEntry, 'devices' | 'books'>): Set<Address> =>
  new Set([
    ...e.devices.flatMap((m) => [
      m.address,
      ...recordedVfs(m.sriov?.from).map((vf) => vf.address),
      ...recordedVfs(m.sriov?.to).map((vf) => vf.address),
    ]),
    ...e.books.map((b) => b.address),
  ]);

/**
 * An entry of which only `left` are still to be brought to their end, with their books and those of their VFs. The
 * books of the others are written by then, and somebody else's to change from there on.
 */
export function remainder(entry: JournalEntry, left: ReadonlySet<Address>): JournalEntry {
  const devices = entry.devices.filter((m) => left.has(m.address));
  const named = namedBy({ devices, books: [] });
  return { ...entry, devices, books: entry.books.filter((b) => named.has(b.address) || left.has(b.address)) };
}

/** Writes the entry whole. Raises HOSTDEV_STORE when /run is full or read-only: then nothing has been changed yet. */
export const writeJournal = (host: Host, entry: JournalEntry): void =>
  writeJson(host, `${host.journal}/${entry.id}.json`, entry);

/**
 * True while a living process that is not this one works at an entry. Under the locks of its devices there is no such
 * entry: one says that somebody took the files of the locks away, and that the transaction goes on all the same.
 */
export const isInHand = (e: JournalEntry): boolean =>
  e.state === 'intent' && e.writer !== null && e.writer !== ownName() && processRuns(e.writer);

/** The id of the process that works at an entry; null where none does. */
export const writerOf = (e: JournalEntry): number | null => (isInHand(e) ? Number(e.writer?.split(':', 1)[0]) : null);

export const inHandError = (host: Host, e: JournalEntry): HostdevError =>
  new HostdevError('HOSTDEV_TIMEOUT', `Process ${writerOf(e)} is changing ${[...namedBy(e)].join(', ')}`, {
    hint: `Try again when it has ended, and leave the files in ${host.absolute(host.locks)} alone.`,
  });

/**
 * Writes a new entry, then looks whether another process has done so for the same devices at the same moment: of two
 * that both write before they look, at least one sees the other and withdraws. Raises HOSTDEV_TIMEOUT for that, and as
 * {@link writeJournal}; nothing has been changed then.
 */
export function announce(host: Host, inventory: Inventory, entry: JournalEntry): void {
  writeJournal(host, entry);
  const others = readJournal(host).entries.filter((e) => e.id !== entry.id && isInHand(e));
  const rival = others.length === 0 ? undefined : joined(inventory, namedBy(entry), others).entries[0];
  if (rival === undefined) return;
  removeJournal(host, entry.id);
  throw inHandError(host, rival);
}

/**
 * The devices and entries that hang together with `addresses`: an entry with every device that it names, and a PF's
 * with that of its VFs.
 */
export function joined(
  { byAddress }: Inventory,
  addresses: Iterable<Address>,
  entries: readonly JournalEntry[],
): { addresses: Set<Address>; entries: JournalEntry[] } {
  const all = new Set(addresses);
  const mine = new Set<JournalEntry>();
  for (let before = -1; before !== mine.size; ) {
    before = mine.size;
    for (const entry of entries) {
      if (mine.has(entry)) continue;
      const named = namedBy(entry);
      const touches =
        [...all].some((a) => named.has(a) || named.has(byAddress.get(a)?.parent_addr ?? '')) ||
        [...named].some((n) => all.has(byAddress.get(n)?.parent_addr ?? ''));
      if (!touches) continue;
      mine.add(entry);
      for (const a of named) all.add(a);
    }
  }
  return { addresses: all, entries: entries.filter((e) => mine.has(e)) };
}

export const removeJournal = (host: Host, id: string): void => removeJson(host, host.journal, id);

let sequence = 0;

/** A name that sorts by time and is nobody else's. */
function journalId(): string {
  sequence += 1;
  return `${Date.now().toString(36)}-${process.pid}-${sequence}`;
}

/**
 * All entries, oldest first, and the files that are none: each stops the devices that it names, for it may hold the
 * only way back.
 */
export function readJournal(host: Host): { entries: JournalEntry[]; bad: BadFile[] } {
  const entries: JournalEntry[] = [];
  const bad: BadFile[] = [];
  for (const id of listJson(host, host.journal)) {
    try {
      const entry = readEntry(host, id);
      if (entry !== null) entries.push(entry);
    } catch (e) {
      bad.push(badFile(e));
    }
  }
  return { entries, bad };
}

/** One entry; null when it has gone. Raises HOSTDEV_STORE_CORRUPT. */
export function readEntry(host: Host, id: string): JournalEntry | null {
  const file = `${host.journal}/${id}.json`;
  const value = readJson(host, file);
  if (value === null) return null;
  const entry = upgraded(host, value);
  if (isEntry(entry, id)) return { ...entry, writer: entry.writer ?? null };
  throw notOurs(host.absolute(file), value, 2, 'journal entry');
}

// What comes back from disk.

const isBookChange = (v: unknown): v is BookChange =>
  isObject(v) &&
  isAddressText(v.address) &&
  [v.before, v.after].every((b) => b === null || isBinding(b, v.address as string));

const isLifted = (v: unknown): v is Lifted =>
  isObject(v) && isAddressText(v.address) && isText(v.guard) && isText(v.reason);

function isEntry(v: unknown, id: string): v is JournalEntry {
  return (
    isObject(v) &&
    v.schema === 2 &&
    v.id === id &&
    (v.kind === 'bind' || v.kind === 'give-back') &&
    isOwner(v.owner) &&
    isTextOrNull(v.boot) &&
    (v.writer === undefined || isTextOrNull(v.writer)) &&
    isText(v.started) &&
    (v.mark === null || v.mark === 'done' || v.mark === 'forward' || v.mark === 'back') &&
    (v.state === 'intent' || v.state === 'undo-incomplete' || v.state === 'pending') &&
    isListOf(v.devices, isMove) &&
    isListOf(v.books, isBookChange) &&
    (v.fresh === null || (isObject(v.fresh) && isOwner(v.fresh.owner))) &&
    isListOf(v.lifted, isLifted) &&
    isListOf(v.left, isText)
  );
}

/** Schema 1 had neither boot nor mark nor books: committed was a bind whose books were there. */
function upgraded(host: Host, v: unknown): unknown {
  if (!isObject(v) || v.schema !== 1 || !isOwner(v.owner) || !Array.isArray(v.devices)) return v;
  const devices = v.devices.map((m: unknown) => (isObject(m) ? { ...m, inode: null } : m));
  const moves = devices.filter(isMove);
  const hold: Hold = { owner: v.owner, name: null, managed: false, libvirt: null };
  const books = moves.map(({ address, group, from, to, sriov }): BookChange => {
    const book = quietBook(host, address);
    if (v.kind === 'give-back')
      return { address, before: book ?? newBinding(host, address, group, hold, to, from), after: null };
    const after = book ?? newBinding(host, address, group, hold, from, to);
    return { address, before: null, after: sriov === undefined ? after : { ...after, sriov: sriov.from } };
  });
  const written = moves.every((m) => {
    const after = quietBook(host, m.address)?.after;
    return after != null && sameState(after, m.to);
  });
  const done = v.kind === 'bind' && v.state === 'intent' && moves.length > 0 && written;
  const mark: Mark = done ? 'done' : v.state === 'intent' || v.kind === 'give-back' ? null : 'back';
  return {
    ...v,
    devices,
    schema: 2,
    boot: null,
    mark,
    books,
    fresh: moves.some((m) => m.sriov) ? hold : null,
    lifted: [],
  };
}

const quietBook = (host: Host, address: Address): Binding | null => orNull(() => readBook(host, address));
