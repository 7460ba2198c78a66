/**
 * The frame around every change: permission, the devices' locks (groupLocks.ts), the helper that writes, recovery of
 * what dead processes and dead guests left; and all of it given up again.
 */
import { nativeMissing } from '../addon/fsReader.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { type Inventory, type PciDevice, scanInventory, unreadOf } from '../pci/inventory.ts';
import { type BadFile, sweepLitter } from '../store/files.ts';
import { checkFolder } from '../store/folder.ts';
import { Deadline, type Stop } from '../store/locks.ts';
import { refuseUnsafe, setModes } from '../store/ours.ts';
import { type Warning, warning } from '../text/warning.ts';
import { bindingNow, bookNow, type Foreseen, nothingForeseen } from './access.ts';
import type { Binding, Hold } from './books.ts';
import type { Kept } from './decision.ts';
import { planRelease, type ReleasePlan, type Returned, type Returning, releaseHolds } from './giveBack.ts';
import { awaitWriters, badBooks, type Locked, lockDevices } from './groupLocks.ts';
import { deadHolds, endedText, witness } from './guests.ts';
import { type JournalEntry, joined, namedBy, readJournal } from './journal.ts';
import { NO_ALLOWANCE } from './leave.ts';
import type { Work } from './perform.ts';
import { type Done, foresee, type Recovery, recover } from './recover.ts';

export type SessionOptions = {
  /** Time for everything, waits for locks included, in ms. */
  deadlineMs: number;
  signal?: Stop;
  onStep?: NonNullable<Work['onStep']>;
  /** Which command or hook call asks, for the record. */
  verb?: string;
};

/** What a change is of. */
export type Asked = {
  /** The devices that it may move; those that went are asked for too. */
  addresses: readonly Address[];
  /** The guest that asks: its own holds are not swept, whether it is there or not. */
  owner?: string;
  /** What a recovery keeps back of these devices is returned, not raised. */
  tolerant?: boolean;
};

/**
 * A fifth of the time is kept for the undo: a hook that is killed while it undoes leaves more behind than one that
 * gives up early.
 */
const UNDO_SHARE = 0.2;

const NO_DEVICES: Inventory = { devices: [], byAddress: new Map(), warnings: [], failures: [], malformed: [] };

function openWork(host: Host, options: SessionOptions, inventory: Inventory): Work {
  const undoMs = options.deadlineMs * UNDO_SHARE;
  const { deadlineMs, ...rest } = options;
  return {
    ...rest,
    host,
    inventory,
    permit: NO_ALLOWANCE,
    lifted: [],
    writer: host.native.openWriter(host.root),
    deadline: new Deadline(deadlineMs - undoMs),
    undoMs,
  };
}

/** Work that only observes: no lock, nothing changed, no root needed. */
export async function observing<T>(host: Host, options: SessionOptions, body: (work: Work) => Promise<T>): Promise<T> {
  const work = openWork(host, options, NO_DEVICES);
  try {
    return await body(work);
  } finally {
    work.writer.close();
  }
}

/**
 * Raises HOSTDEV_NATIVE_MISSING without the addon, HOSTDEV_NOT_PERMITTED without root on the machine itself or where
 * our state may not be written, HOSTDEV_STORE where that is on a read-only file system, HOSTDEV_STORE_UNSAFE where
 * somebody else can write to it.
 */
export function mayChange(host: Host): void {
  if (host.native.kind === 'fs') throw nativeMissing(host.native);
  if (host.isReal && process.geteuid?.() !== 0)
    throw new HostdevError('HOSTDEV_NOT_PERMITTED', 'Changing a device needs root', { hint: 'Run it with sudo.' });
  refuseUnsafe(host);
  for (const folder of [host.bindings, host.journal, host.locks]) checkFolder(host, folder);
}

/** What {@link mayChange} would raise, for a dry run; null where it would not. */
export function refusal(host: Host): HostdevError | null {
  try {
    mayChange(host);
    return null;
  } catch (e) {
    if (e instanceof HostdevError) return e;
    throw e;
  }
}

/** Work that changes, before any lock. Raises as {@link mayChange}. */
export async function working<T>(
  host: Host,
  options: SessionOptions,
  inventory: Inventory,
  body: (work: Work) => Promise<T>,
): Promise<T> {
  mayChange(host);
  setModes(host);
  for (const folder of [host.journal, host.bindings, host.quarantine]) sweepLitter(host, folder);
  const work = openWork(host, options, inventory);
  try {
    return await body(work);
  } finally {
    work.writer.close();
  }
}

/** What `changing` hands to its body. */
export type Session = {
  work: Work;
  /** The host as it is under the locks: VFs, groups and drivers seen before may be of yesterday. */
  inventory: Inventory;
  /** For each device that was put right, and for what was left alone. */
  recovered: Warning[];
  /** With `tolerant`: what of the devices asked for, or of what hangs together with them, could not be put right. */
  kept: Kept[];
  /**
   * With `tolerant`: the devices that must be left as they are, by an unfinished transaction or a file that nobody
   * understands.
   */
  held: ReadonlySet<Address>;
  /** Of the devices asked for, those that were ours until the recovery gave them back. */
  backAlready: ReadonlySet<Address>;
};

/**
 * Runs `body` with the locks of the devices held, after what dead processes left of these was put right. Raises as
 * {@link working}, HOSTDEV_TIMEOUT when a lock is not to be had, HOSTDEV_STORE_CORRUPT for a file of ours that names
 * one of the devices and cannot be understood, and what {@link refuseKept} raises.
 */
export async function changing<T>(
  host: Host,
  inventory: Inventory,
  asked: Asked,
  options: SessionOptions,
  body: (session: Session) => Promise<T>,
): Promise<T> {
  return working(host, options, inventory, async (work) => {
    const scan = () => scanInventory(host);
    const locked = await lockDevices(work, asked.addresses, scan);
    try {
      work.inventory = locked.inventory;
      const right = (known: Asked) => putRight(work, locked.entries, locked.bad, known, scan);
      return await body(await sessionOf(work, locked, asked, right));
    } finally {
      locked.unlock();
    }
  });
}

/**
 * As {@link changing}, for a dry run: `body` sees the devices and books as they will be once what is unfinished was put
 * right, and what would refuse the real run refuses it too. No lock, nothing changed, no root needed. VFs that would
 * come back are not there, and their drivers are not known.
 */
export async function foreseeing<T>(
  host: Host,
  before: Inventory,
  asked: Asked,
  options: SessionOptions,
  body: (session: Session) => Promise<T>,
): Promise<T> {
  return observing(host, options, async (looking) => {
    const foreseen = nothingForeseen();
    // What another process is at just now is waited for, as the real run does.
    const waited = await awaitWriters(looking, before, asked.addresses);
    const inventory = waited ? scanInventory(host) : before;
    const work: Work = { ...looking, inventory, foreseen };
    const journal = readJournal(host);
    const { entries } = joined(inventory, asked.addresses, journal.entries);
    const bad = [...journal.bad, ...badBooks(host, journal.bad)];
    const right = (known: Asked) => foreseeRight(work, foreseen, entries, bad, known);
    return body(await sessionOf(work, { inventory, entries, bad }, asked, right));
  });
}

/**
 * Puts what is unfinished of the devices right, by `right`, and says what has come of it. Raises as {@link changing}.
 */
async function sessionOf(
  work: Work,
  locked: Omit<Locked, 'unlock'>,
  asked: Asked,
  right: (known: Asked) => Promise<Recovery>,
): Promise<Session> {
  const { host } = work;
  const unread = asked.addresses.filter((a) => unreadOf(locked.inventory, a) !== null);
  if (asked.tolerant !== true) {
    refuseUnread(locked.inventory, unread);
    refuseBad(locked.inventory, asked.addresses, locked.bad);
  }
  const named = new Set([...locked.bad.flatMap((b) => b.addresses), ...unread]);
  const known = { ...asked, addresses: asked.addresses.filter((a) => !named.has(a)) };
  const { done, kept, held } = await right(known);
  const touched = new Set([...locked.entries.flatMap((e) => [...namedBy(e)]), ...done.map((d) => d.address)]);
  const mine = new Set(asked.addresses);
  const entries = new Set([...held].flatMap(([a, id]) => (isOf(work.inventory, mine, a) ? [id] : [])));
  const concerned = kept.filter((k) => entries.has(k.entry));
  if (asked.tolerant !== true) refuseKept(concerned);
  const others = kept.filter((k) => !concerned.includes(k));
  const recovered = [
    ...done.map((d) => warning('recovered', d.text, d.address)),
    ...others.map((k) =>
      warning('unfinished', `left in the journal (${k.entry}): ${k.address}: ${k.reason}`, k.address),
    ),
    ...locked.bad.map((b) => warning('bad-file', badFileText(b))),
    ...unread.map((a) => warning('not-measured', `${unreadOf(locked.inventory, a)}: left alone`, a)),
  ];
  if (done.length > 0 && work.foreseen === undefined) work.inventory = scanInventory(host);
  return {
    work,
    inventory: work.inventory,
    recovered,
    kept: concerned,
    held: new Set([...held.keys(), ...named]),
    backAlready: new Set(known.addresses.filter((a) => touched.has(a) && bindingNow(work, a) === null)),
  };
}

/** True for a device asked for, its PF, and its VFs. */
const isOf = ({ byAddress }: Inventory, asked: ReadonlySet<Address>, address: Address): boolean =>
  asked.has(address) ||
  asked.has(byAddress.get(address)?.parent_addr ?? '') ||
  [...asked].some((a) => byAddress.get(a)?.parent_addr === address);

/** What must be known of a device before it is moved could not be read. */
function refuseUnread(inventory: Inventory, [first]: readonly Address[]): void {
  const why = first === undefined ? null : unreadOf(inventory, first);
  if (why !== null) throw new HostdevError('HOSTDEV_SYSFS', why);
}

function refuseBad(inventory: Inventory, asked: readonly Address[], bad: readonly BadFile[]): void {
  const all = new Set(asked);
  for (const { file, why, addresses: named } of bad) {
    const mine = named.find((a) => isOf(inventory, all, a));
    if (mine !== undefined) throw new HostdevError('HOSTDEV_STORE_CORRUPT', `${file} ${why}, and it names ${mine}`);
  }
}

/**
 * Raises for devices whose earlier change cannot be finished: HOSTDEV_GUARD for what a guard keeps back, HOSTDEV_STUCK
 * for what hangs, else HOSTDEV_UNFINISHED.
 */
function refuseKept(kept: readonly Kept[]): void {
  const [first] = kept;
  if (first === undefined) return;
  const text = `An earlier change is not finished: ${kept.map((k) => `${k.address}: ${k.reason}`).join('; ')}`;
  const hint = `See 'hostdev journal list'; 'hostdev journal undo ${first.entry}' or resume once that is out of the way.`;
  const by = (why: Kept['by']): boolean => kept.some((k) => k.by === why);
  const code = by('failure') ? 'HOSTDEV_UNFINISHED' : by('guard') ? 'HOSTDEV_GUARD' : 'HOSTDEV_STUCK';
  throw new HostdevError(code, text, code === 'HOSTDEV_STUCK' ? {} : { hint });
}

/**
 * Recovers entries whose locks are held, then ends the holds of guests that are gone. Devices are those asked for;
 * `scan` is the host as it is after the recovery, which may have brought VFs back.
 */
export async function putRight(
  work: Work,
  entries: readonly JournalEntry[],
  bad: readonly BadFile[],
  { addresses, owner }: Asked,
  scan: () => Inventory,
): Promise<Recovery> {
  const recovery = await recover(work, entries, bad);
  if (recovery.done.length > 0) work.inventory = scan();
  const barred = new Set([...recovery.held.keys(), ...bad.flatMap((b) => b.addresses)]);
  const ended = await endDeadHolds(work, addresses, barred, owner);
  return { ...recovery, done: [...recovery.done, ...ended] };
}

/** {@link putRight} of a dry run: `foreseen` is told what would come of it. */
export async function foreseeRight(
  work: Work,
  foreseen: Foreseen,
  entries: readonly JournalEntry[],
  bad: readonly BadFile[],
  { addresses, owner }: Asked,
): Promise<Recovery> {
  const recovery = await foresee(work, foreseen, entries, bad);
  const barred = new Set([...recovery.held.keys(), ...bad.flatMap((b) => b.addresses)]);
  const done = await endDeadHolds(work, addresses, barred, owner);
  return { ...recovery, done: [...recovery.done, ...done] };
}

/**
 * A release that could not be carried out, and a prepare whose guest never came: the devices that only such guests hold
 * go back.
 */
async function endDeadHolds(
  work: Work,
  addresses: readonly Address[],
  barred: ReadonlySet<Address>,
  owner: string | undefined,
): Promise<Done[]> {
  const { host, foreseen } = work;
  const bookOf = (a: Address): Binding | null => bookNow(work, a);
  const pfs = new Set(addresses.filter((a) => work.inventory.byAddress.get(a)?.dev_type === 'type-PF'));
  const of = (d: PciDevice): boolean => d.parent_addr !== null && pfs.has(d.parent_addr);
  const vfs = pfs.size === 0 ? [] : work.inventory.devices.filter(of).map((d) => d.address);
  const all = [...new Set([...addresses, ...vfs])].filter((a) => !barred.has(a));
  const bindings = all.flatMap((a) => bookOf(a) ?? []);
  const look = await witness(host, bindings, work.deadline.left);
  const lines: Done[] = [];
  const done = new Set<string>();
  for (const [b, hold] of bindings.flatMap((b) => deadHolds(host, look, b).map((h) => [b, h] as const))) {
    if (hold.owner === owner || done.has(hold.owner)) continue;
    done.add(hold.owner);
    const mine = bindings
      .flatMap((b) => bookOf(b.address) ?? [])
      .filter((b) => b.holds.some((h) => h.owner === hold.owner));
    const list = mine.map((binding) => ({ binding, device: work.inventory.byAddress.get(binding.address) }));
    const { devices, failures } =
      foreseen === undefined
        ? await releaseHolds(work, hold.owner, list)
        : await foreseeRelease(work, hold.owner, list);
    const is = foreseen === undefined ? 'is' : 'would be';
    for (const { address } of mine) {
      const outcome = devices.find((d) => d.address === address);
      const failure = failures.find((f) => f.address === address)?.error as Error | undefined;
      const bad = failure?.message ?? (outcome?.outcome === 'kept' ? outcome.reason : null);
      const back = outcome?.outcome === 'given-back' ? `, and it ${is} given back` : '';
      const what = bad !== null ? `, but it ${is} not given back: ${bad}` : back;
      const text = `${address}: ${endedText(look, b, hold)}: its hold ${is} ended${what}`;
      lines.push({ entry: null, address, text });
    }
  }
  return lines;
}

/** What {@link releaseHolds} would do, in a dry run. */
export async function foreseeRelease(
  work: Work,
  owner: Hold['owner'],
  list: readonly Returning[],
): Promise<Pick<ReleasePlan, 'failures'> & { devices: Returned[] }> {
  const { ways, books, failures } = await planRelease(work, owner, list);
  for (const { move } of ways) {
    if (move === null) continue;
    work.foreseen?.states.set(move.address, move.to);
    if (move.sriov !== undefined) work.foreseen?.sriov.set(move.address, move.sriov.to);
  }
  for (const b of books) work.foreseen?.books.set(b.address, b.after);
  return { devices: ways, failures };
}

/** The devices of a list as they are under the locks. One that went stays as it was seen. */
export const asTheyAre = ({ byAddress }: Inventory, devices: readonly PciDevice[]): PciDevice[] =>
  devices.map((d) => byAddress.get(d.address) ?? d);

/** A bad file in a line: what is wrong with it and what that keeps hostdev from. */
export const badFileText = (b: BadFile): string =>
  `${b.file} ${b.why}; ${b.addresses.length > 0 ? `left alone: ${b.addresses.join(', ')}` : 'no device is named in it'}`;
