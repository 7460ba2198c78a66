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
import { groupNow } from '../pci/vfLinks.ts';
import { type BadFile, badFile } from '../store/files.ts';
import type { Foreseen } from './access.ts';
import { applyBooks, isGuest, isSameDevice, readBook, removeBinding } from './books.ts';
import { isOfThisBoot } from './boot.ts';
import { finishRelease } from './giveBack.ts';
import type { Refusal } from './guards.ts';
import {
  type JournalEntry,
  type Lifted,
  namedBy,
  readEntry,
  remainder,
  removeJournal,
  writeJournal,
} from './journal.ts';
import { mayLeave, type Permit, vfRefusals } from './leave.ts';
import { observe } from './observe.ts';
import type { Work } from './perform.ts';
import { endQuarantine, readQuarantine, stuckError } from './quarantine.ts';
import { recordEnd } from './record.ts';
import { type End, goalOf, isThere, settle } from './settle.ts';
import { type DeviceState, describeState, type Move } from './state.ts';
import { emptySteps } from './steps.ts';
import { booksAt, leftOver } from './transaction.ts';

/** Which way an entry is finished: back to where its devices were, or on to where they were going. */
export type Direction = 'undo' | 'resume';

/** A device that could not be put right, and stays in the journal. */
export type Kept = {
  entry: string;
  address: Address;
  reason: string;
  /** Why: a guard, a hang that has not ended, or a failure. */
  by: 'guard' | 'stuck' | 'failure';
};

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

/** What is to become of an entry; nothing has changed yet. */
type Decision =
  | { act: 'forget' }
  | { act: 'keep'; kept: Kept[] }
  /** Its devices are where they were going: only the books are left. */
  | { act: 'books' }
  | {
      act: 'settle';
      end: End;
      /** What moves, what hangs, what is gone, and what is where it is to be already. */
      moves: Move[];
      stuck: Move[];
      gone: ReadonlySet<Move>;
      there: ReadonlySet<Address>;
    };

const kept = (entry: JournalEntry, address: Address, reason: string, by: Kept['by']): Kept => ({
  entry: entry.id,
  address,
  reason,
  by,
});

async function decide(work: Work, found: JournalEntry, asked?: Direction): Promise<Decision> {
  const { host } = work;
  if (!isOfThisBoot(host, found.boot)) return { act: 'forget' };
  // What is in the books under these addresses is replaced: it must be ours to replace.
  for (const { address } of found.books) readBook(host, address);
  const denied = found.devices.flatMap((m) => deniedGroup(work, m) ?? []);
  if (denied.length > 0) return { act: 'keep', kept: denied.map((d) => kept(found, d.address, d.reason, 'failure')) };
  if (found.mark === 'done') return { act: 'books' };
  const end: End =
    found.mark === null
      ? (asked ?? (found.kind === 'bind' ? 'undo' : 'resume')) === 'undo'
        ? 'from'
        : 'to'
      : found.mark === 'back'
        ? 'from'
        : 'to';
  const stuck = found.devices.filter((m) => readQuarantine(host, m.address) !== null);
  const rest = found.devices.filter((m) => !stuck.includes(m));
  const gone = new Set(rest.filter((m) => isGone(work, m)));
  const moves = rest.filter((m) => !gone.has(m));
  const { refused, there } = await lookAhead(permitted(work, found), moves, end);
  if (refused.size > 0)
    return {
      act: 'keep',
      kept: [...refused].map(([address, list]) => kept(found, address, reasonsOf(address, list), 'guard')),
    };
  return { act: 'settle', end, moves, stuck, gone, there };
}

const permitted = (work: Work, { lifted }: JournalEntry): Work => ({ ...work, permit: permitOf(lifted) });

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

/** The reasons of guards; the device's own address is told beside them. */
const reasonsOf = (address: Address, refusals: readonly Refusal[]): string =>
  refusals.map((r) => (r.address === address ? r.reason : `${r.address}: ${r.reason}`)).join('; ');

/** The entry as it was, with the reasons why nothing of it has moved. */
function keep(work: Work, entry: JournalEntry, kept: Kept[]): Recovered {
  const left = kept.map((k) => `${k.address}: ${k.reason}`);
  if (JSON.stringify(left) !== JSON.stringify(entry.left)) writeJournal(work.host, { ...entry, left });
  return { done: [], kept };
}

/**
 * A file that somebody else made, or of a device that was moved by hand: the locks that were taken are those of the
 * kernel's group.
 */
function deniedGroup({ host }: Work, m: Move): { address: Address; reason: string } | null {
  if (isGone({ host }, m)) return null;
  const group = groupNow(host, m.address);
  if (group === m.group) return null;
  const is = group === null ? 'in no IOMMU group' : `in IOMMU group ${group}`;
  return {
    address: m.address,
    reason: `it is ${is}, and the journal says ${m.group ?? 'none'}: look at the file, then remove it`,
  };
}

/** The device itself, or the one that the entry is of: another may be at its address by now. */
function isGone({ host }: Pick<Work, 'host'>, m: Move): boolean {
  const inode = host.inode(host.device(m.address));
  return inode === null || (m.inode !== null && m.inode !== inode);
}

/** What was lifted when the transaction was begun holds for it, by device and reason, and for nothing new. */
const permitOf = (lifted: readonly Lifted[]): Permit => ({
  asker: 'bind',
  lifts: (address) => (use) =>
    lifted.some((l) => l.address === address && l.guard === use.guard && l.reason === use.reason),
});

/**
 * What stands in the way of bringing moves to one end, by device, before any of them is touched; and the devices that
 * are there already.
 */
async function lookAhead(
  work: Work,
  moves: readonly Move[],
  end: End,
): Promise<{ refused: Map<Address, Refusal[]>; there: Set<Address> }> {
  const there = new Set<Address>();
  const leaving: Address[] = [];
  const refused = new Map<Address, Refusal[]>();
  for (const m of moves) {
    let now: Awaited<ReturnType<typeof observe>>;
    try {
      now = await observe(work, m.address);
    } catch {
      continue; // it fails in its turn, and says why
    }
    const goal = goalOf(m, end);
    const { target } = goal;
    if (now === null) continue;
    if (m.sriov === undefined && isThere(work, now, goal)) {
      if (end === 'to' || now.overrideBytes === m.override_bytes) there.add(m.address);
      continue;
    }
    if (now.driver !== null && (now.driver !== target.driver || goal.any_host)) leaving.push(m.address);
    if (m.sriov === undefined) continue;
    const seen = { ...m.sriov, from: { ...m.sriov.from, numvfs: vfCount(work, m) }, to: m.sriov[end] };
    if (emptySteps(work.host, m.address, seen, now.driver !== target.driver).length === 0) continue;
    const [first] = await vfRefusals(work, m.address, null);
    if (first !== undefined) refused.set(m.address, [first]);
  }
  // The VFs that go with a PF are a part of its move, and were asked for above.
  const withVfs = new Set(moves.filter((m) => m.sriov !== undefined).map((m) => m.address));
  const permit: Permit = {
    ...work.permit,
    lifts: (a) => (use) => (use.guard === 'vfs' && withVfs.has(a)) || work.permit.lifts(a)(use),
  };
  if (leaving.length > 0)
    for (const [a, list] of await mayLeave({ ...work, permit }, leaving)) if (!refused.has(a)) refused.set(a, list);
  return { refused, there };
}

function vfCount({ host }: Work, m: Move): number {
  return (host.list(host.device(m.address)) ?? []).filter((n) => /^virtfn\d+$/.test(n)).length;
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
