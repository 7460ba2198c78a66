/**
 * The way back: from the VFIO driver to what the books say was there before. Only what nobody holds and nobody else has
 * changed since is given back; the rest stays as it is, is said, and stays in the books. What was so before us is only
 * forgotten.
 */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { heldBy, holderText } from '../pci/holders.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { Deadline } from '../store/locks.ts';
import {
  applyBooks,
  type Binding,
  type BookChange,
  isHoldOnly,
  isSameDevice,
  readBook,
  tryBooks,
  withoutHolds,
} from './books.ts';
import { asLeft } from './drift.ts';
import { byName, type Guard } from './guards.ts';
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
import { observe } from './observe.ts';
import type { Work } from './perform.ts';
import { recordEnd } from './record.ts';
import { settle } from './settle.ts';
import {
  type DeviceState,
  describeState,
  type Move,
  type Owner,
  recordedVfs,
  type SriovChange,
  sameState,
} from './state.ts';
import { booksAt, leftOver, runChange } from './transaction.ts';
import { vfioNodes } from './usage.ts';
import { withoutVfs } from './vfPlan.ts';

/** One device's outcome: given back (or already there), gone, or kept with the reason. */
export type Returned = {
  address: string;
  outcome: 'given-back' | 'already' | 'gone' | 'kept';
  reason: string | null;
  to: DeviceState;
};

/** What is to be done for one device: a move, or an outcome that needs none. */
export type WayBack = Returned & { binding: Binding; move: Move | null };

const returned = ({ address, outcome, reason, to }: WayBack): Returned => ({ address, outcome, reason, to });

/** A device that is to go back, as it is seen now; undefined when it is gone. */
export type Returning = { device: PciDevice | undefined; binding: Binding };

/**
 * Gives devices back as one transaction by their ways, none of which is `kept`. `lifted` are the guards that an admin
 * allows: with in-use the kernel asks the holder to let go and waits for it, until our deadline; with vfs the idle VFs
 * go that a PF has on VFIO. `also` goes with them. Raises what {@link runChange} raises.
 */
export async function giveBackTogether(
  work: Work,
  ways: readonly WayBack[],
  lifted: ReadonlySet<Guard>,
  also: Pick<Change, 'devices' | 'books'> = { devices: [], books: [] },
): Promise<void> {
  const devices = [...ways.flatMap((w) => w.move ?? []), ...also.devices];
  const books = [...ways.flatMap((w) => booksBack(work.host, w)), ...also.books];
  const permit = { asker: 'unbind' as const, lifts: () => byName(lifted) };
  if (devices.length > 0) await runChange({ ...work, permit }, { kind: 'give-back', owner: 'admin', devices, books });
  else applyBooks(work.host, books, 'after');
}

/** What a release comes to before anything moves. */
export type ReleasePlan = { ways: WayBack[]; books: BookChange[]; failures: { address: Address; error: unknown }[] };

/**
 * Plans the end of `owner`'s holds: a device that nobody else holds goes back, each for itself. What could not even be
 * looked at is in `failures`.
 */
export async function planRelease(work: Work, owner: Owner, list: readonly Returning[]): Promise<ReleasePlan> {
  const { host } = work;
  const plan: ReleasePlan = { ways: [], books: [], failures: [] };
  for (const { device, binding } of list) {
    const { address } = binding;
    const rest = withoutHolds(binding, new Set([owner]), 'its return was begun');
    let way: WayBack | null = null;
    try {
      if (rest.holds.length === 0) way = await planBack(work, device, binding, new Set());
    } catch (error) {
      // It hangs, or cannot be read: in the books without its hold, for the next who tries.
      plan.failures.push({ address, error });
      plan.books.push({ address, before: binding, after: { ...rest, note: (error as Error).message } });
      continue;
    }
    if (way === null) plan.books.push({ address, before: binding, after: rest });
    else {
      plan.ways.push(way);
      if (way.outcome === 'kept') plan.books.push({ address, before: binding, after: { ...rest, note: way.reason } });
      else plan.books.push(...booksBack(host, way));
    }
  }
  return plan;
}

/**
 * The hook's release, and the end of holds whose guests are gone: `owner`'s holds end, all of them by one mark before
 * anything moves, and each device that nobody else holds goes back, each for itself. What could not is in `failures`
 * and in the books with the reason.
 */
export async function releaseHolds(
  work: Work,
  owner: Owner,
  list: readonly Returning[],
): Promise<{ devices: Returned[]; failures: { address: Address; error: unknown }[] }> {
  const { host } = work;
  const { ways, books, failures } = await planRelease(work, owner, list);
  const devices = ways.flatMap((w) => w.move ?? []);
  const outcome = { devices: ways.map(returned), failures };
  if (devices.length === 0 && books.length <= 1) {
    applyBooks(host, books, 'after');
    return outcome;
  }
  const entry = newEntry(host, { kind: 'give-back', owner, devices, books, mark: 'forward' });
  announce(host, work.inventory, entry);
  for (const [address, error] of await finishRelease(work, entry)) {
    outcome.failures.push({ address, error });
    outcome.devices = outcome.devices.filter((d) => d.address !== address);
  }
  return outcome;
}

/**
 * Carries out a release whose mark is written, to its end or as far as it goes: what does not go is on VFIO again and
 * in the books without its hold, with the reason; what not even that is to be had of stays in the journal, and with it
 * what hangs, `waiting` with the words for it. Returns what failed, by device.
 */
export async function finishRelease(
  work: Work,
  entry: JournalEntry,
  waiting: ReadonlyMap<Address, unknown> = new Map(),
): Promise<Map<Address, unknown>> {
  const { host } = work;
  // The mark says it already: a book that cannot be written now is no reason to leave a device where it is.
  tryBooks(host, booksBegun(entry), 'after');
  const going = entry.devices.filter((m) => !waiting.has(m.address));
  const failures = await settle(work, going, 'to');
  const open = namedBy(remainder(entry, new Set([...failures.keys(), ...waiting.keys()])));
  const returned = booksAt(host, entry, 'to').filter((b) => !open.has(b.address));
  for (const [address, e] of tryBooks(host, returned, 'after')) failures.set(address, e);
  const failed = going.filter((m) => failures.has(m.address));
  const { signal: _stop, ...quiet } = work;
  const undoMs = Math.max(work.undoMs, Math.min(work.deadline.left, work.undoMs * 2));
  const late = { ...quiet, deadline: new Deadline(undoMs) };
  const stuck: Map<Address, unknown> = failed.length === 0 ? new Map() : await settle(late, failed, 'from');
  for (const [address, e] of stuck)
    failures.set(address, undoFailed(host, entry, failures.get(address), { address, error: e }));
  const kept = entry.books.flatMap((b) => {
    const e = failures.get(b.address);
    return e === undefined ? [] : [{ ...b, after: notReturned(b, entry.owner, (e as Error).message) }];
  });
  recordEnd(
    work,
    entry,
    going.map((move) => {
      const e = failures.get(move.address);
      const reason = e === undefined ? null : (e as Error).message;
      return { move, outcome: e === undefined ? 'done' : stuck.has(move.address) ? 'left' : 'undone', reason };
    }),
  );
  const left = new Map([...stuck, ...tryBooks(host, kept, 'after'), ...waiting]);
  if (left.size === 0) {
    removeJournal(host, entry.id);
    return failures;
  }
  const { left: lines, pending } = leftOver(entry, left);
  writeJournal(host, {
    ...remainder(entry, new Set(left.keys())),
    state: pending ? 'pending' : 'undo-incomplete',
    left: lines,
  });
  return failures;
}

/** The books right after a release's mark: nobody of its owner's has anything any more. */
const booksBegun = ({ books, owner }: JournalEntry): BookChange[] =>
  books.flatMap((b) => (b.before === null ? [] : [{ ...b, after: notReturned(b, owner, 'its return was begun') }]));

const notReturned = ({ before }: BookChange, owner: Owner, note: string): Binding | null =>
  before === null ? null : withoutHolds(before, new Set([owner]), note);

function undoFailed(
  host: Host,
  { id }: JournalEntry,
  first: unknown,
  then: { address: Address; error: unknown },
): unknown {
  const [why, what] = [first, then.error].map((e) => (e instanceof Error ? e.message : String(e)));
  const hint = `See ${host.absolute(host.journal)}/${id}.json, then 'hostdev status'`;
  const timedOut = then.error instanceof HostdevError && then.error.exit === 9;
  return new HostdevError(
    timedOut ? 'HOSTDEV_TIMEOUT' : 'HOSTDEV_UNDO_INCOMPLETE',
    `${why}; and not put back: ${then.address}: ${what}`,
    { cause: first, hint },
  );
}

/** How a device goes back to what its book says, or why it does not. Raises what observing it raises. */
export async function planBack(
  work: Work,
  device: PciDevice | undefined,
  binding: Binding,
  lifted: ReadonlySet<Guard>,
): Promise<WayBack> {
  const { host } = work;
  const { address, before } = binding;
  const way = (outcome: Returned['outcome'], reason: string | null, move: Move | null = null): WayBack => ({
    address,
    outcome,
    reason,
    to: before,
    binding,
    move,
  });
  const now = device === undefined || !isSameDevice(host, binding) ? null : await observe(work, address);
  if (device === undefined || now === null) return way('gone', 'the device is no longer there');
  if (isHoldOnly(binding)) return way('already', null);
  const sriov = await vfsBack(work, device, binding);
  const vfs = sriov?.from.numvfs ?? 0;
  if (sameState(now, before) && (sriov === undefined || vfs > 0)) return way('already', null);
  const [holder] = (await heldBy(host, vfioNodes(host, device), work.deadline.left)).holders;
  if (holder !== undefined) {
    if (!lifted.has('in-use')) return way('kept', holderText(holder));
    work.lifted?.push({ address, guard: 'in-use', reason: holderText(holder) });
  }
  if (!asLeft(host, binding, now)) {
    const left = describeState(binding.after ?? before);
    return way('kept', `somebody else put it on ${describeState(now)}; hostdev had left it on ${left}`);
  }
  if (vfs > 0) {
    if (!lifted.has('vfs')) return way('kept', `it has ${vfs} VFs now; 'hostdev vf remove ${address}' first`);
    work.lifted?.push({ address, guard: 'vfs', reason: `it has ${vfs} VFs` });
  }
  return way('given-back', null, {
    address,
    group: device.iommu_group,
    inode: host.inode(host.device(address)),
    from: { driver: now.driver, override: now.override },
    ...(binding.any_host ? { to: { driver: null, override: null }, any_host: true } : { to: before }),
    override_bytes: now.overrideBytes,
    ...(sriov === undefined ? {} : { sriov }),
  });
}

/** The way of a PF's VFs back to what the books recorded; undefined for what has none and had none. */
export async function vfsBack(
  work: Work,
  device: PciDevice,
  binding: Binding | null,
): Promise<SriovChange | undefined> {
  if (binding?.sriov === undefined && !device.sriov_numvfs) return undefined;
  const change = await withoutVfs(work, device.address);
  return binding?.sriov === undefined ? change : { ...change, to: binding.sriov };
}

/** The binding goes, and with it those of the VFs that a PF loses; those of the VFs that come back stand again. */
function booksBack(host: Host, { binding, move }: WayBack): BookChange[] {
  const vfs = new Map<Address, BookChange>();
  for (const { address } of recordedVfs(move?.sriov?.from))
    vfs.set(address, { address, before: readBook(host, address), after: null });
  // A PF that is back without us may have VFs that are somebody's by now.
  for (const after of move === null ? [] : (binding.vf_bindings ?? []))
    vfs.set(after.address, { address: after.address, before: readBook(host, after.address), after });
  return [{ address: binding.address, before: binding, after: null }, ...vfs.values()];
}
