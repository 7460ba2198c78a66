/**
 * What is to become of a journal entry that a dead process left: looked at, and nothing changed yet. The guards are
 * asked as for any move; what they keep back, or what does not belong to the entry any more, stays.
 */
import type { Address } from '../pci/address.ts';
import { groupNow } from '../pci/vfLinks.ts';
import { readBook } from './books.ts';
import { isOfThisBoot } from './boot.ts';
import type { Refusal } from './guards.ts';
import type { JournalEntry, Lifted } from './journal.ts';
import { mayLeave, type Permit, vfRefusals } from './leave.ts';
import { observe } from './observe.ts';
import type { Work } from './perform.ts';
import { readQuarantine } from './quarantine.ts';
import { type End, goalOf, isThere } from './settle.ts';
import type { Move } from './state.ts';
import { emptySteps } from './steps.ts';

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

/** What is to become of an entry; nothing has changed yet. */
export type Decision =
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

export const kept = (entry: JournalEntry, address: Address, reason: string, by: Kept['by']): Kept => ({
  entry: entry.id,
  address,
  reason,
  by,
});

/** Raises HOSTDEV_STORE_CORRUPT for a book that it would replace and that is not ours. */
export async function decide(work: Work, found: JournalEntry, asked?: Direction): Promise<Decision> {
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

export const permitted = (work: Work, { lifted }: JournalEntry): Work => ({ ...work, permit: permitOf(lifted) });

/** The reasons of guards; the device's own address is told beside them. */
const reasonsOf = (address: Address, refusals: readonly Refusal[]): string =>
  refusals.map((r) => (r.address === address ? r.reason : `${r.address}: ${r.reason}`)).join('; ');

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
