/**
 * The only writer of driver state. Ownership: between taking a device's group lock and giving it up, nobody else who plays by the books changes
 * that device; the kernel, udev and other tools still may, so nothing is believed that was not read again. Rules and the damage that taught them:
 * - `drivers_probe` answers success when nothing was bound (nasty#603): the driver link is read afterwards, every time.
 * - The link appears before probe() has finished: a VFIO driver counts as bound when its `vfio-dev` is there, or the link has stayed.
 * - udev may be loading the host driver at that moment and win the race (seen on igbvf with fresh VFs): then unbind and probe once more.
 * - A write may hang in D state for ever: each has a deadline, and a device that did not answer is `pending`, not failed: it is left alone by the undo.
 * - Undo goes in reverse, starts from what is observed, keeps the first error and reports what it could not put back.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { KernelWriter } from '../addon/native.ts';
import { HostdevError, isErrno, isSysError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { Deadline } from '../store/locks.ts';
import {
  type JournalEntry,
  type JournalKind,
  type JournalMove,
  journalId,
  removeJournal,
  writeJournal,
} from './journal.ts';
import { type DeviceState, describeState, type Move, type Step, sameState, stepsOf } from './move.ts';
import { type Engine, settlePf, writeAutoprobe, writeNumvfs } from './vfs.ts';

/** What one command works with: the helper that writes, its time, and how it is stopped. */
export type Work = {
  host: Host;
  writer: KernelWriter;
  deadline: Deadline;
  /** Time an undo gets even when the deadline has passed, in ms. */
  undoMs: number;
  /** Set on Ctrl-C or SIGTERM: the transaction stops before its next write and undoes. */
  signal?: AbortSignal;
  /** Told of each write that was made and verified. */
  onStep?: (step: Step) => void;
  /** Takes further groups' locks, for groups that appear in the middle of the work (a PF's VFs); given up with the others. */
  lockGroups?: (groups: readonly (number | null)[], deadline: Deadline) => Promise<void>;
};

/** A read of an attribute that takes the device's lock may hang like a write, but has nothing to wait for when all is well. */
const READ_MS = 2000;
/** How long a bound VFIO driver may take to show its vfio-dev: kernels before 6.1 never do. */
const SETTLE_MS = 100;
const PROBE_TRIES = 3;

/** What is observed of a device now; null when the device itself is gone. `overrideBytes` is the attribute as read. */
export async function observe(work: Work, address: Address): Promise<(DeviceState & { overrideBytes: string }) | null> {
  const { host, writer, deadline } = work;
  try {
    const overrideBytes = await writer.read(
      host.device(address, 'driver_override'),
      Math.min(READ_MS, Math.max(deadline.left, 1)),
    );
    return {
      driver: host.linkName(host.device(address, 'driver')),
      override: parseOverride(overrideBytes),
      overrideBytes,
    };
  } catch (e) {
    if (isErrno(e, 'ENOENT', 'ENODEV', 'ENXIO') && host.list(host.device(address)) === null) return null;
    throw accessError(`Failed to read driver_override of ${address}`, e);
  }
}

/** drivers/base/bus.c prints "(null)" for an unset override, an empty line means the same. */
function parseOverride(text: string): string | null {
  const line = text.split('\n', 1)[0] ?? '';
  return line === '' || line === '(null)' ? null : line;
}

/**
 * Carries out moves as one transaction: journal, write and verify each step, `commit` (the books), journal gone. On any failure, or an abort, every
 * device goes back to what it was and the first error is raised: HOSTDEV_BIND_FAILED, HOSTDEV_NOT_PERMITTED, HOSTDEV_TIMEOUT,
 * HOSTDEV_INTERRUPTED, HOSTDEV_STORE; or HOSTDEV_UNDO_INCOMPLETE naming the journal file. The caller holds the groups' locks.
 */
export async function runMoves(
  work: Work,
  kind: JournalKind,
  owner: string,
  moves: readonly JournalMove[],
  commit: () => void,
): Promise<void> {
  const { host } = work;
  const entry: JournalEntry = {
    schema: 1,
    id: journalId(),
    kind,
    owner,
    pid: process.pid,
    started: new Date().toISOString(),
    state: 'intent',
    devices: [...moves],
    left: [],
  };
  writeJournal(host, entry);
  try {
    for (const step of stepsOf(host, moves)) {
      if (work.signal?.aborted)
        throw new HostdevError('HOSTDEV_INTERRUPTED', `Interrupted before ${step.path}; everything was put back`);
      await performStep(work, step);
      work.onStep?.(step);
    }
    for (const move of moves) if (move.sriov !== undefined) await settlePf(work, move, 'to', ENGINE);
    commit();
  } catch (e) {
    const { failed, left, pending } = await undo(work, moves);
    if (left.length === 0) {
      removeJournal(host, entry.id);
      throw e;
    }
    writeJournal(host, { ...entry, devices: failed, state: pending ? 'pending' : 'undo-incomplete', left });
    const file = `${host.journalDir}/${entry.id}.json`;
    const first = e instanceof Error ? e.message : String(e);
    if (pending)
      throw new HostdevError('HOSTDEV_TIMEOUT', `${first}; not known to be back: ${left.join('; ')}`, {
        cause: e,
        hint: `The next hostdev finishes it; until then see ${file}`,
        data: { left },
      });
    throw new HostdevError('HOSTDEV_UNDO_INCOMPLETE', `${first}; and not put back: ${left.join('; ')}`, {
      cause: e,
      hint: `See ${file}, then 'hostdev status'`,
      data: { left },
    });
  }
  removeJournal(host, entry.id);
}

/** Puts every device of the moves back, last first. What could not be is said, one line a device. */
async function undo(
  work: Work,
  moves: readonly JournalMove[],
): Promise<{ failed: JournalMove[]; left: string[]; pending: boolean }> {
  const { signal: _stop, onStep: _told, ...quiet } = work;
  const late = {
    ...quiet,
    deadline: new Deadline(Math.max(work.undoMs, Math.min(work.deadline.left, work.undoMs * 2))),
  };
  const failed: JournalMove[] = [];
  const left: string[] = [];
  let pending = false;
  for (const move of [...moves].reverse()) {
    try {
      await settleMove(late, move, 'from');
      await restoreBytes(late, move);
    } catch (e) {
      pending ||= e instanceof HostdevError && e.code === 'HOSTDEV_TIMEOUT';
      failed.unshift(move);
      left.push(`${move.address}, which was on ${describeState(move.from)}: ${(e as Error).message}`);
    }
  }
  return { failed, left, pending };
}

/** Brings a device, and the VFs of a PF that changed with it, from whatever they are on now to one end of a move. */
export const settleMove = (work: Work, move: JournalMove, end: 'from' | 'to'): Promise<void> =>
  settlePf(work, move, end, ENGINE);

/** Brings one device from whatever it is on now to `target`. A device that is gone is where it can be. */
export async function settle(work: Work, move: Pick<Move, 'address' | 'group'>, target: DeviceState): Promise<void> {
  const now = await observe(work, move.address);
  if (now === null || sameState(now, target)) return;
  for (const step of stepsOf(work.host, [{ ...move, from: now, to: target }])) await performStep(work, step);
}

/**
 * On a tree that is no sysfs (a static copy that reacts to nothing) clearing an override does not read back as it was. The kernel's own file refuses this
 * write (EPERM by the helper's look at the file system), and there the text is back already.
 */
export async function restoreBytes(work: Work, move: JournalMove): Promise<void> {
  const path = work.host.device(move.address, 'driver_override');
  const now = await observe(work, move.address);
  if (now === null || now.overrideBytes === move.override_bytes) return;
  try {
    await work.writer.restoreFile(path, move.override_bytes, Math.max(work.deadline.left, 1));
  } catch (e) {
    if (!isErrno(e, 'EPERM')) throw accessError(`Failed to restore ${path}`, e);
  }
}

/** Makes one write and looks whether it did what it should. */
export async function performStep(work: Work, step: Step): Promise<void> {
  switch (step.kind) {
    case 'override':
      return writeOverride(work, step);
    case 'unbind':
      return unbind(work, step.address, step.path);
    case 'probe':
      return probe(work, step);
    case 'numvfs':
      return writeNumvfs(work, step, write);
    case 'autoprobe':
      return writeAutoprobe(work, step, write);
  }
}

const ENGINE: Engine = { observe, settle, perform: performStep };

async function writeOverride(work: Work, step: Step): Promise<void> {
  await write(work, step.path, step.value);
  const now = await observe(work, step.address);
  if (now !== null && now.override === step.expect) return;
  throw new HostdevError(
    'HOSTDEV_BIND_FAILED',
    `${step.path} of ${step.address} reads ${JSON.stringify(now?.overrideBytes ?? null)} after ${JSON.stringify(step.value)} was written`,
  );
}

/** ENODEV says that the driver had let go already: what counts is that it has. */
async function unbind(work: Work, address: Address, path: string): Promise<void> {
  const failure = await write(work, path, address).then(
    () => null,
    (e: unknown) => e,
  );
  const driver = work.host.linkName(work.host.device(address, 'driver'));
  if (driver === null) return;
  if (failure !== null) throw failure;
  if (path === work.host.driver(driver, 'unbind')) {
    throw new HostdevError('HOSTDEV_BIND_FAILED', `${address} is still on ${driver} although ${path} took the write`);
  }
}

async function probe(work: Work, step: Step): Promise<void> {
  const { host } = work;
  const { address, expect } = step;
  for (let tries = 1; ; tries += 1) {
    await write(work, step.path, step.value);
    const driver = host.linkName(host.device(address, 'driver'));
    if (driver === expect && (await staysBound(host, address, driver))) return;
    if (driver === null || driver === expect || tries === PROBE_TRIES) {
      const saw = driver === null ? 'no driver' : driver;
      throw new HostdevError(
        'HOSTDEV_BIND_FAILED',
        `${address} has ${saw} after the probe, not ${expect}, although ${step.path} took the write: the driver refused it or nothing reacts`,
      );
    }
    await unbind(work, address, host.driver(driver, 'unbind'));
  }
}

/** Host drivers are bound when the synchronous probe has returned; a VFIO driver shows it by `vfio-dev`. */
async function staysBound(host: Host, address: Address, driver: string | null): Promise<boolean> {
  if (driver === null || !/vfio/.test(driver)) return true;
  const until = new Deadline(SETTLE_MS);
  while (until.left > 0 && host.list(host.device(address, 'vfio-dev')) === null) await sleep(5);
  return host.linkName(host.device(address, 'driver')) === driver;
}

async function write(work: Work, path: string, value: string): Promise<void> {
  if (work.deadline.left === 0) throw new HostdevError('HOSTDEV_TIMEOUT', `No time was left for ${path}`);
  try {
    await work.writer.write(path, value, work.deadline.left);
  } catch (e) {
    throw accessError(`Failed to write ${JSON.stringify(value.trim())} to ${path}`, e);
  }
}

function accessError(doing: string, e: unknown): HostdevError {
  if (e instanceof HostdevError) return e;
  const name = isSysError(e) ? e.code : String(e);
  if (isErrno(e, 'ETIMEDOUT'))
    return new HostdevError('HOSTDEV_TIMEOUT', `${doing}: no answer before the deadline, the device is held`, {
      cause: e,
    });
  if (isErrno(e, 'EACCES', 'EPERM'))
    return new HostdevError('HOSTDEV_NOT_PERMITTED', `${doing}: ${name}`, { cause: e });
  return new HostdevError('HOSTDEV_BIND_FAILED', `${doing}: ${name}`, { cause: e });
}

/** True when the device is on a VFIO driver now. */
export const onVfio = (host: Host, address: Address): boolean =>
  isVfioDriver(host, address, host.linkName(host.device(address, 'driver')));
