/**
 * The only writer of driver state. Ownership: between taking a device's group lock and giving it up, nobody else who plays by the books changes
 * that device; the kernel, udev and other tools still may, so nothing is believed that was not read again. Rules and the damage that taught them:
 * - `drivers_probe` answers success when nothing was bound (nasty#603): the driver link is read afterwards, every time.
 * - The link appears before probe() has finished: a VFIO driver counts as bound when its `vfio-dev` is there, or the link has stayed.
 * - udev may be loading the host driver at that moment and win the race (seen on igbvf with fresh VFs): then unbind and probe once more.
 * - A write may hang in D state for ever: each has a deadline, and a device that did not answer is `pending`, not failed: it is left alone by the undo.
 * - Undo goes in reverse, starts from what is observed, keeps the first error and reports what it could not put back.
 */
import { sleep } from '../clock.ts';
import { ERRORS, EXIT, HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { Deadline } from '../store/locks.ts';
import { observe, restore, type Work, write } from './access.ts';
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

/** How long a bound VFIO driver may take to show its vfio-dev: kernels before 6.1 never do. */
const SETTLE_MS = 100;
const PROBE_TRIES = 3;

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
  commit: () => void | Promise<void>,
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
    for (const batch of batchesOf(stepsOf(host, moves))) {
      if (work.signal?.aborted)
        throw new HostdevError('HOSTDEV_INTERRUPTED', `Interrupted before ${batch[0]?.path}; everything was put back`);
      const failures = await performBatch(work, batch);
      if (failures.size > 0) throw [...failures.values()][0];
    }
    for (const move of moves) await settleVfsOf(work, move, 'to');
    await commit();
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

/**
 * Steps that may go on together: neighbours of one kind on different devices. Each takes its own device's lock. A PF's number of VFs changes alone: it takes the locks
 * of groups that another PF's VFs may be in.
 */
function batchesOf(steps: readonly Step[]): Step[][] {
  const batches: Step[][] = [];
  for (const step of steps) {
    const last = batches.at(-1);
    const together = step.kind !== 'numvfs' && last?.[0]?.kind === step.kind;
    if (last !== undefined && together && !last.some((s) => s.address === step.address)) last.push(step);
    else batches.push([step]);
  }
  return batches;
}

/** All steps of a batch to their end; what failed, by device, in the order of the steps. */
async function performBatch(work: Work, batch: readonly Step[]): Promise<Map<Address, unknown>> {
  const results = await Promise.allSettled(
    batch.map(async (step) => {
      await performStep(work, step);
      work.onStep?.(step);
    }),
  );
  const failures = new Map<Address, unknown>();
  for (const [i, result] of results.entries())
    if (result.status === 'rejected') failures.set((batch[i] as Step).address, result.reason);
  return failures;
}

/** Puts every device of the moves back, last first; one that fails stops no other. What could not be is said, one line a device. */
async function undo(
  work: Work,
  moves: readonly JournalMove[],
): Promise<{ failed: JournalMove[]; left: string[]; pending: boolean }> {
  const { signal: _stop, onStep: _told, ...quiet } = work;
  const late = {
    ...quiet,
    deadline: new Deadline(Math.max(work.undoMs, Math.min(work.deadline.left, work.undoMs * 2))),
  };
  const failures = await settleAll(
    late,
    [...moves]
      .reverse()
      .filter((m) => m.sriov === undefined)
      .map((move) => ({ move, target: move.from })),
  );
  for (const move of [...moves].reverse())
    await settleVfsOf(late, move, 'from').catch((e: unknown) => failures.set(move.address, e));
  for (const move of moves) {
    if (failures.has(move.address)) continue;
    await restoreBytes(late, move).catch((e: unknown) => failures.set(move.address, e));
  }
  const failed = moves.filter((m) => failures.has(m.address));
  const errors = failed.map((m) => failures.get(m.address));
  return {
    failed,
    left: failed.map((m, i) => `${m.address}, which was on ${describeState(m.from)}: ${(errors[i] as Error).message}`),
    pending: errors.some((e) => e instanceof HostdevError && ERRORS[e.code].exit === EXIT.timedOut),
  };
}

/** Brings devices from whatever each is on now to its target, together; what failed, by device. A device that is gone is where it can be. */
export async function settleAll(
  work: Work,
  ways: readonly { move: Pick<Move, 'address' | 'group'>; target: DeviceState }[],
): Promise<Map<Address, unknown>> {
  const failures = new Map<Address, unknown>();
  const moves: Move[] = [];
  await Promise.all(
    ways.map(async ({ move, target }) => {
      try {
        const now = await observe(work, move.address);
        if (now !== null && !sameState(now, target)) moves.push({ ...move, from: now, to: target });
      } catch (e) {
        failures.set(move.address, e);
      }
    }),
  );
  let batches = batchesOf(stepsOf(work.host, moves));
  for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
    const failed = await performBatch(work, batch);
    for (const [address, e] of failed) failures.set(address, e);
    batches = batches.map((b) => b.filter((s) => !failures.has(s.address))).filter((b) => b.length > 0);
  }
  return failures;
}

/** {@link settleAll}, raising the first failure. */
async function settle(
  work: Work,
  ways: readonly { move: Pick<Move, 'address' | 'group'>; target: DeviceState }[],
): Promise<void> {
  for (const e of (await settleAll(work, ways)).values()) throw e;
}

/** Brings a device, and the VFs of a PF that changed with it, from whatever they are on now to one end of a move. */
export const settleMove = (work: Work, move: JournalMove, end: 'from' | 'to'): Promise<void> =>
  move.sriov === undefined ? settle(work, [{ move, target: move[end] }]) : settleVfsOf(work, move, end);

/** {@link settleMove} of a PF whose VFs change; nothing to do for any other device. */
async function settleVfsOf(work: Work, move: JournalMove, end: 'from' | 'to'): Promise<void> {
  if (move.sriov !== undefined) await settlePf(work, { ...move, sriov: move.sriov }, end, ENGINE);
}

/** Puts the override's bytes back where the tree is no sysfs. */
export async function restoreBytes(work: Work, move: JournalMove): Promise<void> {
  const now = await observe(work, move.address);
  if (now === null || now.overrideBytes === move.override_bytes) return;
  await restore(work, move.address, work.host.device(move.address, 'driver_override'), move.override_bytes);
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
      return writeNumvfs(work, step);
    case 'autoprobe':
      return writeAutoprobe(work, step);
  }
}

const ENGINE: Engine = { settle, perform: performStep };

async function writeOverride(work: Work, step: Step): Promise<void> {
  await write(work, step.address, step.path, step.value);
  const now = await observe(work, step.address);
  if (now !== null && now.override === step.expect) return;
  throw new HostdevError(
    'HOSTDEV_BIND_FAILED',
    `${step.path} of ${step.address} reads ${JSON.stringify(now?.overrideBytes ?? null)} after ${JSON.stringify(step.value)} was written`,
  );
}

/** ENODEV says that the driver had let go already: what counts is that it has. */
async function unbind(work: Work, address: Address, path: string): Promise<void> {
  const failure = await write(work, address, path, address).then(
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
    await write(work, step.address, step.path, step.value);
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

/** True when the device is on a VFIO driver now. */
export const onVfio = (host: Host, address: Address): boolean =>
  isVfioDriver(host, address, host.linkName(host.device(address, 'driver')));
