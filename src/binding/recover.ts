/**
 * After a crash: whoever has the locks of an entry's devices finishes or undoes what a dead process began, in full. An
 * entry with its mark is finished as the mark says; one without goes back if it was a bind and on if it was a
 * give-back, unless a person chooses. The guards are asked as for any move; what they keep back stays in the journal,
 * named, and nothing of its entry has moved.
 */
import { ownName } from '../addon/process.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { type BadFile, badFile } from '../store/files.ts';
import type { Foreseen } from './access.ts';
import { applyBooks, isGuest, isSameDevice, readBook, removeBinding } from './books.ts';
import { type Decision, type Direction, decide, type Kept, kept, permitted } from './decision.ts';
import { finishRelease } from './giveBack.ts';
import { type JournalEntry, namedBy, readEntry, remainder, removeJournal, writeJournal } from './journal.ts';
import type { Work } from './perform.ts';
import { endQuarantine, readQuarantine, stuckError } from './quarantine.ts';
import { recordEnd } from './record.ts';
import { type End, settle } from './settle.ts';
import { type DeviceState, describeState, type Move } from './state.ts';
import { booksAt, leftOver } from './transaction.ts';

/**
 * A device that was put right, and what a person is told of it; `address` null for an entry that was forgotten whole.
 */
export type Done = { entry: string | null; address: Address | null; text: string };

/** `held`: every device of an entry that stays, by the entry's id: nobody else's to move until it has gone. */
export type Recovery = { done: Done[]; kept: Kept[]; held: Map<Address, string> };

/**
 * Recovers entries whose devices' locks the caller holds; what cannot be understood of one stops no other, and a device
 * that a `bad` file names is not moved. Raises HOSTDEV_STORE.
 */
export async function recover(
  work: Work,
  entries: readonly JournalEntry[],
  bad: readonly BadFile[],
  asked?: Direction,
): Promise<Recovery> {
  const recovery: Recovery = { done: [], kept: [], held: new Map() };
  for (const entry of entries) {
    const names = namedBy(entry);
    const unclear = bad.find((b) => b.addresses.some((a) => names.has(a)));
    const { done, kept } =
      unclear === undefined
        ? await recoverEntry(work, entry, asked).catch((e: unknown) => notUnderstood(entry, badFile(e)))
        : notUnderstood(entry, unclear);
    recovery.done.push(...done);
    recovery.kept.push(...kept);
    const still = kept.length === 0 ? null : readEntry(work.host, entry.id);
    if (still !== null) for (const a of namedBy(still)) recovery.held.set(a, entry.id);
  }
  return recovery;
}

type Recovered = Pick<Recovery, 'done' | 'kept'>;

/** A file that tells of its devices is not ours: the entry waits for a person, as that file does. */
function notUnderstood(entry: JournalEntry, { file, why, addresses }: BadFile): Recovered {
  const names = [...namedBy(entry)];
  const address = names.find((a) => addresses.includes(a)) ?? names[0] ?? entry.id;
  return { done: [], kept: [{ entry: entry.id, address, reason: `${file} ${why}`, by: 'failure' }] };
}

async function recoverEntry(work: Work, found: JournalEntry, asked?: Direction): Promise<Recovered> {
  const { host } = work;
  const decision = await decide(work, found, asked);
  const tell = tellerOf(found, 'is');
  if (decision.act === 'keep') return keep(work, found, decision.kept);
  if (decision.act === 'forget') {
    removeJournal(host, found.id);
    return { done: [tell.forgotten()], kept: [] };
  }
  if (decision.act === 'books') {
    applyBooks(host, found.books, 'after');
    recordEnd(
      work,
      found,
      found.devices.map((move) => ({ move, outcome: 'done' as const })),
    );
    removeJournal(host, found.id);
    return { done: found.devices.map((m) => tell.there(m, m.to)), kept: [] };
  }
  const { end, moves, stuck, gone, there } = decision;
  for (const m of found.devices) if (!stuck.includes(m)) endQuarantine(host, m.address);
  const entry: JournalEntry = {
    ...found,
    devices: moves,
    mark: end === 'from' ? 'back' : 'forward',
    books: withoutGone(found, gone),
  };
  // Where nothing moves there is no half way either.
  const moving = stuck.length > 0 || moves.some((m) => !there.has(m.address));
  const whole: JournalEntry = { ...entry, devices: [...moves, ...stuck], state: 'intent', writer: ownName() };
  const waiting = new Map(stuck.map((m) => [m.address, stuckNow(work, m.address)] as const));
  if (moving) writeJournal(host, whole);
  const isRelease = entry.kind === 'give-back' && isGuest(entry) && end === 'to';
  const failures = isRelease
    ? await finishRelease(permitted(work, found), whole, waiting)
    : await finish(permitted(work, found), whole, end, { waiting, there });
  for (const m of gone) forgetBook(host, m.address);
  const left = [
    ...[...waiting].map(([address, e]) => kept(found, address, e.message, 'stuck')),
    ...moves.flatMap((m) =>
      failures.has(m.address) ? [kept(found, m.address, (failures.get(m.address) as Error).message, 'failure')] : [],
    ),
  ];
  return {
    done: [
      ...[...gone].map(tell.gone),
      ...moves.filter((m) => !failures.has(m.address)).map((m) => tell.there(m, stateAt(work, m, end), end)),
    ],
    kept: left,
  };
}

/**
 * What {@link recover} would do, without doing it, as far as that is known before the kernel is asked; `foreseen` is
 * told of it. Takes no locks: what another hostdev is at work on looks unfinished.
 */
export async function foresee(
  work: Work,
  foreseen: Foreseen,
  entries: readonly JournalEntry[],
  bad: readonly BadFile[],
  asked?: Direction,
): Promise<Recovery> {
  const recovery: Recovery = { done: [], kept: [], held: new Map() };
  const hold = (addresses: Iterable<Address>, { id }: JournalEntry): void => {
    for (const a of addresses) recovery.held.set(a, id);
  };
  for (const entry of entries) {
    const names = namedBy(entry);
    const unclear = bad.find((b) => b.addresses.some((a) => names.has(a)));
    const decision: Decision =
      unclear === undefined
        ? await decide(work, entry, asked).catch((e: unknown) => ({
            act: 'keep' as const,
            kept: notUnderstood(entry, badFile(e)).kept,
          }))
        : { act: 'keep', kept: notUnderstood(entry, unclear).kept };
    const tell = tellerOf(entry, 'would be');
    switch (decision.act) {
      case 'keep':
        recovery.kept.push(...decision.kept);
        hold(names, entry);
        break;
      case 'forget':
        recovery.done.push(tell.forgotten());
        break;
      case 'books':
        recovery.done.push(...entry.devices.map((m) => tell.there(m, m.to)));
        for (const b of entry.books) foreseen.books.set(b.address, b.after);
        break;
      case 'settle': {
        const { end, moves, stuck, gone } = decision;
        const waiting = new Set(stuck.map((m) => m.address));
        recovery.done.push(...[...gone].map(tell.gone), ...moves.map((m) => tell.there(m, m[end], end)));
        recovery.kept.push(...stuck.map((m) => kept(entry, m.address, stuckNow(work, m.address).message, 'stuck')));
        if (waiting.size > 0) hold(namedBy(remainder(entry, waiting)), entry);
        for (const m of moves) {
          foreseen.states.set(m.address, m[end]);
          if (m.sriov !== undefined) foreseen.sriov.set(m.address, m.sriov[end]);
        }
        for (const b of entry.books)
          if (!recovery.held.has(b.address)) foreseen.books.set(b.address, end === 'from' ? b.before : b.after);
      }
    }
  }
  return recovery;
}

/** The lines of an entry's devices, of what is done and of what would be. */
function tellerOf(entry: JournalEntry, is: 'is' | 'would be') {
  const after = `an interrupted ${entry.kind} (${entry.id})`;
  const forgot = is === 'is' ? 'forgot' : 'would forget';
  const done = (address: Address | null, text: string): Done => ({ entry: entry.id, address, text });
  return {
    forgotten: (): Done => done(null, `${forgot} ${entry.id}: it is of an earlier boot`),
    gone: (m: Move): Done => done(m.address, `${m.address} is gone; ${forgot} what ${after} left of it`),
    there: (m: Move, state: DeviceState, end?: End): Done =>
      done(
        m.address,
        `${m.address} ${is} on ${describeState(state)}${end === undefined ? '' : vfText(m, end)} after ${after}`,
      ),
  };
}

const stateAt = ({ host }: Work, m: Move, end: End) =>
  end === 'to' && m.any_host ? { driver: host.linkName(host.device(m.address, 'driver')), override: null } : m[end];

const vfText = (m: Move, end: End): string =>
  `${m.sriov === undefined ? '' : ` with ${m.sriov[end].numvfs} VFs`}${m.vgpu === undefined ? '' : ` with vGPU type ${m.vgpu[end]}`}`;

/** Brings all to one end, then the books; the entry goes, or stays with what failed and with what hangs. */
async function finish(
  work: Work,
  entry: JournalEntry,
  end: End,
  { waiting, there }: { waiting: ReadonlyMap<Address, unknown>; there: ReadonlySet<Address> },
): Promise<Map<Address, unknown>> {
  const { host } = work;
  const moves = entry.devices.filter((m) => !there.has(m.address) && !waiting.has(m.address));
  const failures = await settle(work, end === 'from' ? moves.reverse() : moves, end);
  recordEnd(
    work,
    entry,
    entry.devices
      .filter((m) => !waiting.has(m.address))
      .map((move) => {
        const e = failures.get(move.address);
        if (e !== undefined) return { move, outcome: 'left', reason: (e as Error).message };
        return { move, outcome: end === 'to' ? 'done' : 'undone', reason: end === 'to' ? null : 'it was interrupted' };
      }),
  );
  const notYet = new Map([...failures, ...waiting]);
  const rest = remainder(entry, new Set(notYet.keys()));
  const open = namedBy(rest);
  const books = booksAt(host, entry, end).filter((b) => !open.has(b.address));
  applyBooks(host, books, end === 'from' ? 'before' : 'after');
  if (notYet.size === 0) {
    removeJournal(host, entry.id);
    return failures;
  }
  const { left, pending } = leftOver(entry, notYet);
  writeJournal(host, { ...rest, left, state: pending ? 'pending' : 'undo-incomplete' });
  return failures;
}

/** The book of a device that went; that of the next one at its address is somebody else's. */
function forgetBook(host: Host, address: Address): void {
  const b = readBook(host, address);
  if (b !== null && (host.inode(host.device(address)) === null || !isSameDevice(host, b))) removeBinding(host, address);
}

/** The entry as it was, with the reasons why nothing of it has moved. */
function keep(work: Work, entry: JournalEntry, kept: Kept[]): Recovered {
  const left = kept.map((k) => `${k.address}: ${k.reason}`);
  if (JSON.stringify(left) !== JSON.stringify(entry.left)) writeJournal(work.host, { ...entry, left });
  return { done: [], kept };
}

function stuckNow({ host }: Work, address: Address): HostdevError {
  const held = readQuarantine(host, address);
  return held === null ? new HostdevError('HOSTDEV_TIMEOUT', `${address} did not answer`) : stuckError(held);
}

/** Without the books of devices that are no more. */
function withoutGone(e: JournalEntry, gone: ReadonlySet<Move>): JournalEntry['books'] {
  const addresses = new Set([...gone].map((m) => m.address));
  return e.books.filter((b) => !addresses.has(b.address));
}
