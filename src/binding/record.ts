/**
 * The record (docs/decisions/0017-record.md): a line for each device that was moved, and for each guard that was
 * lifted: who, what, before, after. In a file that is never large, and on the machine itself in the system log too. It
 * is written when a transaction has ended, whichever way; a record that cannot be written fails nothing.
 */

import { whoAsks } from '../addon/process.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { appendLine } from '../store/files.ts';
import { asciiJson } from '../text/safe.ts';
import type { JournalEntry, Lifted } from './journal.ts';
import type { Work } from './perform.ts';
import { type DeviceState, describeState, type Move, type Owner } from './state.ts';

/**
 * How it ended for a device: `done`; `undone`: it is where it was; `left`: neither is known; `allowed`: nothing was
 * moved here, only a guard lifted.
 */
type Outcome = 'done' | 'undone' | 'left' | 'allowed';

export type RecordLine = {
  schema: 1;
  time: string;
  device: Address;
  /** The command or hook call that did it; null where a program asked. */
  verb: string | null;
  outcome: Outcome;
  /** What it was on, and what it is on now; null where that is not known. */
  before: DeviceState | null;
  after: DeviceState | null;
  /** Of a PF whose VFs changed: their number. */
  vfs: { before: number; after: number } | null;
  /** Of a VF whose vGPU type changed, "0" for none. */
  vgpu_type: { before: string; after: string } | null;
  /** Why it is not `done`. */
  reason: string | null;
  /** For whom: "admin", "domain:<uuid>", and that guest's name. */
  owner: string;
  guest: string | null;
  /**
   * Who asked: as whom it ran, as whom he had logged in (null: nobody had, a daemon or the boot), and who was root by
   * sudo.
   */
  uid: number | null;
  loginuid: number | null;
  sudo_uid: number | null;
  /** The journal entry, and whether another process than the one that began it has ended it. */
  entry: string | null;
  recovered: boolean;
  lifted: { guard: string; reason: string }[];
};

/** One move's end. */
export type Ended = { move: Move; outcome: Exclude<Outcome, 'allowed'>; reason?: string | null };

const MAX_RECORD_BYTES = 1024 * 1024;
const MODE = 0o640;
const MAX_REASON = 500;
const MAX_LIFTED = 16;

/** Records how a transaction ended for its devices. Raises nothing. */
export function recordEnd(work: Work, entry: JournalEntry, ended: readonly Ended[]): void {
  write(
    work,
    ended.map(({ move, outcome, reason = null }) => ({
      ...common(work, entry.owner, guestName(entry)),
      device: move.address,
      outcome,
      before: plainState(move.from),
      after: outcome === 'left' ? null : plainState(outcome === 'undone' ? move.from : reached(work.host, move)),
      vfs: vfsOf(move, outcome),
      vgpu_type: typesOf(move, outcome),
      reason: reason === null ? null : reason.slice(0, MAX_REASON),
      entry: entry.id,
      recovered: entry.pid !== process.pid,
      lifted: liftedOf([...entry.lifted, ...(work.lifted ?? [])], move.address),
    })),
  );
}

/**
 * Records the guards that were lifted for devices that are not moved here: libvirt moves them, or they are where they
 * are to be. Raises nothing.
 */
export function recordLifted(work: Work, owner: Owner, guest: string | null, lifted: readonly Lifted[]): void {
  write(
    work,
    [...new Set(lifted.map((l) => l.address))].map((device) => ({
      ...common(work, owner, guest),
      device,
      outcome: 'allowed',
      before: null,
      after: null,
      vfs: null,
      vgpu_type: null,
      reason: null,
      entry: null,
      recovered: false,
      lifted: liftedOf(lifted, device),
    })),
  );
}

const common = (work: Work, owner: string, guest: string | null) => ({
  schema: 1 as const,
  time: new Date().toISOString(),
  verb: work.verb ?? null,
  owner,
  guest,
  ...whoAsks(),
});

const plainState = ({ driver, override }: DeviceState): DeviceState => ({ driver, override });

/** Which host driver a device ended on is the kernel's to say. */
const reached = (host: Host, m: Move): DeviceState =>
  m.any_host ? { driver: host.linkName(host.device(m.address, 'driver')), override: null } : m.to;

function vfsOf({ sriov }: Move, outcome: Outcome): RecordLine['vfs'] {
  if (sriov === undefined || outcome === 'left') return null;
  const before = sriov.from.numvfs;
  return { before, after: outcome === 'undone' ? before : sriov.to.numvfs };
}

function typesOf({ vgpu }: Move, outcome: Outcome): RecordLine['vgpu_type'] {
  if (vgpu === undefined || outcome === 'left') return null;
  return { before: vgpu.from, after: outcome === 'undone' ? vgpu.from : vgpu.to };
}

/** The books know a guest's name, the journal only its UUID. */
function guestName({ owner, books }: JournalEntry): string | null {
  const holds = books.flatMap((b) => [...(b.after?.holds ?? []), ...(b.before?.holds ?? [])]);
  return holds.find((h) => h.owner === owner)?.name ?? null;
}

function liftedOf(lifted: readonly Lifted[], address: Address): RecordLine['lifted'] {
  const mine = new Map(
    lifted.filter((l) => l.address === address).map(({ guard, reason }) => [`${guard} ${reason}`, { guard, reason }]),
  );
  return [...mine.values()].slice(0, MAX_LIFTED).map((l) => ({ ...l, reason: l.reason.slice(0, MAX_REASON) }));
}

function write({ host }: Work, lines: readonly RecordLine[]): void {
  if (lines.length === 0) return;
  try {
    const text = lines.map((l) => JSON.stringify(l)).join('\n');
    appendLine(host, host.record, text, { max: MAX_RECORD_BYTES, mode: MODE });
  } catch {
    // Full or read-only: the change is made all the same, and the system log has it.
  }
  if (!host.isReal) return;
  for (const line of lines) {
    try {
      host.native.systemLog(host.systemLog, systemText(line));
    } catch {
      // Nobody listens.
    }
  }
}

/** The same line for the system log: one line, every text of somebody else's quoted, bounded by the addon. */
export function systemText(l: RecordLine): string {
  const state = (s: DeviceState | null): string => (s === null ? 'not known' : describeState(s));
  const pairs: [string, string | number | null][] = [
    ['device', l.device],
    ['verb', l.verb],
    ['outcome', l.outcome],
    ['before', l.outcome === 'allowed' ? null : state(l.before)],
    ['after', l.outcome === 'allowed' ? null : state(l.after)],
    ['vfs', l.vfs === null ? null : `${l.vfs.before} -> ${l.vfs.after}`],
    ['vgpu_type', l.vgpu_type === null ? null : `${l.vgpu_type.before} -> ${l.vgpu_type.after}`],
    ['for', l.owner],
    ['guest', l.guest],
    ['uid', l.uid],
    ['loginuid', l.loginuid],
    ['sudo_uid', l.sudo_uid],
    ['entry', l.entry],
    ['recovered', l.recovered ? 'yes' : null],
    ...l.lifted.map((g): [string, string] => ['lifted', `${g.guard}: ${g.reason}`]),
    ['reason', l.reason],
  ];
  return pairs.flatMap(([key, value]) => (value === null ? [] : `${key}=${quoted(value)}`)).join(' ');
}

/** Plain words as they are, everything else as JSON has it, in ASCII. */
function quoted(value: string | number): string {
  const text = `${value}`;
  if (/^[\w.:/-]+$/.test(text)) return text;
  return asciiJson(text);
}
