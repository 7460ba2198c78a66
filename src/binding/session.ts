/** The frame around every change: permission, the groups' locks, the helper that writes, recovery of what a dead process left; and all of it given up again. */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { Deadline, type Stop, takeLocks } from '../store/locks.ts';
import type { Work } from './access.ts';
import { groupLocks } from './bind.ts';
import { type Finish, recover } from './recover.ts';

export type SessionOptions = {
  /** Time for everything, waits for locks included, in ms. */
  deadlineMs: number;
  signal?: Stop;
  onStep?: NonNullable<Work['onStep']>;
  /** What the admin wants of journal entries, instead of what recovery chooses. */
  finish?: Finish;
};

/** A fifth of the time is kept for the undo: a hook that is killed while it undoes leaves more behind than one that gives up early. */
const UNDO_SHARE = 0.2;

function openWork(host: Host, options: SessionOptions): Work {
  const undoMs = options.deadlineMs * UNDO_SHARE;
  const { deadlineMs, ...rest } = options;
  return {
    ...rest,
    host,
    writer: host.native.openWriter(host.root),
    deadline: new Deadline(deadlineMs - undoMs),
    undoMs,
  };
}

/** Work that only observes: no lock, nothing changed, no root needed. */
export async function observing<T>(host: Host, options: SessionOptions, body: (work: Work) => Promise<T>): Promise<T> {
  const work = openWork(host, options);
  try {
    return await body(work);
  } finally {
    work.writer.close();
  }
}

/**
 * Runs `body` with the locks of the groups of `devices` held. Before it runs, what a dead process left in these groups is put right; `recovered` has a
 * line for each, and `fresh` is what the host is then: VFs, groups and drivers seen before the locks were there may be of yesterday. Raises HOSTDEV_NOT_PERMITTED without root on the machine itself, HOSTDEV_NATIVE_MISSING without the addon, HOSTDEV_TIMEOUT when a lock
 * is not to be had, HOSTDEV_UNDO_INCOMPLETE when a device in these groups cannot be recovered.
 */
export async function changing<T>(
  host: Host,
  inventory: Inventory,
  groups: readonly (number | null)[],
  options: SessionOptions,
  body: (work: Work, recovered: string[], fresh: Inventory) => Promise<T>,
): Promise<T> {
  if (host.native.kind === 'fs')
    throw new HostdevError(
      'HOSTDEV_NATIVE_MISSING',
      'hostdev.node is missing: reading works without it, changing does not',
    );
  if (host.isReal && process.geteuid?.() !== 0)
    throw new HostdevError('HOSTDEV_NOT_PERMITTED', 'Changing a device needs root', { hint: 'Run it with sudo.' });
  const work = openWork(host, options);
  const held = new Set<string>();
  const unlocks: (() => void)[] = [];
  const lock = async (more: readonly (number | null)[], deadline: Deadline): Promise<void> => {
    const fresh = groupLocks(more, inventory).filter((name) => !held.has(name));
    unlocks.push(await takeLocks(host, fresh, deadline, options.signal));
    for (const name of fresh) held.add(name);
  };
  // One after the other: two at once could wait for each other in this very process.
  let queue = Promise.resolve();
  work.lockGroups = (more, deadline) => {
    const turn = queue.then(() => lock(more, deadline));
    queue = turn.catch(() => {});
    return turn;
  };
  try {
    await lock(groups, work.deadline);
    const recovered = await putRight(work, inventory, groups, options.finish);
    return await body(work, recovered, scanInventory(host));
  } finally {
    work.writer.close();
    for (const unlock of unlocks.reverse()) unlock();
  }
}

/** {@link recover} of groups whose locks are held: a line for each device. Raises HOSTDEV_UNDO_INCOMPLETE when one cannot be recovered. */
export async function putRight(
  work: Work,
  inventory: Inventory,
  groups: readonly (number | null)[],
  finish?: Finish,
): Promise<string[]> {
  const { done, left } = await recover(work, inventory, groups, finish);
  if (left.length === 0) return done;
  throw new HostdevError('HOSTDEV_UNDO_INCOMPLETE', `An earlier change is not put back: ${left.join('; ')}`, {
    hint: `See ${work.host.journalDir}`,
    data: { left },
  });
}

/** Devices as they are in `fresh`, with the locks of the groups they are in by now: a VF that was made anew may be in another. One that went stays as it was seen. */
export async function asTheyAre(work: Work, fresh: Inventory, devices: readonly PciDevice[]): Promise<PciDevice[]> {
  const now = devices.map((d) => fresh.byAddress.get(d.address) ?? d);
  await work.lockGroups?.(
    now.map((d) => d.iommu_group),
    work.deadline,
  );
  return now;
}
