/**
 * A PF whose VFs a dead process was changing. As for any device, what was begun is undone and a way back is gone to its end; but VFs that somebody uses by now stay,
 * whatever the dead process wanted, for taking one of them takes all.
 */
import { type Inventory, scanInventory } from '../pci/inventory.ts';
import { readBinding, removeBinding } from './books.ts';
import { closeBooks, ensureDriver } from './giveBack.ts';
import type { JournalEntry, JournalMove } from './journal.ts';
import { describeState, sameState } from './move.ts';
import { autoprobeStep, recordedVfs, type SriovChange } from './sriov.ts';
import { observe, performStep, restoreBytes, settleMove, type Work } from './transaction.ts';
import { vfioNodes } from './usage.ts';
import { lockVfs, observeSriov, type SeenSriov } from './vfs.ts';
import { vfRefusals } from './vfUse.ts';

/** Puts the PF right and returns a line that says how. Raises what {@link settleMove} raises, and an Error when a process holds the PF. */
export async function recoverPf(
  work: Work,
  inventory: Inventory,
  entry: JournalEntry,
  move: JournalMove & { sriov: SriovChange },
): Promise<string> {
  const { host } = work;
  const { address, sriov } = move;
  const device = await observe(work, address);
  await lockVfs(work, address);
  const seen = await observeSriov(work, address, observe);
  const end = entry.kind === 'give-back' || committed(work, move, seen) ? 'to' : 'from';
  const goal = move[end];
  const after = `after an interrupted ${entry.kind} (${entry.id})`;
  if (seen.numvfs > 0 && seen.numvfs !== sriov[end].numvfs && device?.driver === goal.driver) {
    const [used] = vfRefusals(host, scanInventory(host), address, null);
    if (used !== undefined) {
      if (sriov.from.autoprobe !== null && seen.autoprobe !== sriov.from.autoprobe)
        await performStep(work, autoprobeStep(host, address, sriov.from.autoprobe));
      return `${address} keeps its ${seen.numvfs} VFs ${after}: ${used.address}: ${used.reason}`;
    }
  }
  if (device !== null && !sameState(device, goal)) {
    const pf = inventory.byAddress.get(address);
    const holder = pf === undefined ? undefined : host.native.holders(host.root, vfioNodes(host, pf)).holders[0];
    if (holder !== undefined) throw new Error(`process ${holder.pid} (${holder.command}) holds ${holder.path}`);
    await ensureDriver(work, address, goal.driver);
  }
  await settleMove(work, move, end);
  if (end === 'from') await restoreBytes(work, move);
  const binding = readBinding(host, address);
  if (entry.kind === 'give-back' && !sameState(move.from, move.to) && binding !== null)
    closeBooks(host, binding, sriov);
  forgetGone(work, move, seen);
  return `${address} is on ${describeState(goal)} with ${sriov[end].numvfs} VFs ${after}`;
}

/** The books are written after the last step, which puts autoprobe back; VFs made for a host driver have none. */
function committed(work: Work, move: JournalMove & { sriov: SriovChange }, seen: SeenSriov): boolean {
  const { host } = work;
  if (!sameState(move.from, move.to)) {
    const after = readBinding(host, move.address)?.after;
    return after != null && sameState(after, move.to);
  }
  const { to } = move.sriov;
  if (seen.numvfs !== to.numvfs || seen.autoprobe !== to.autoprobe) return false;
  return to.vfs !== 'vfio' || seen.vfs.every((vf) => readBinding(host, vf.address) !== null);
}

/** No books for VFs that are no more. */
function forgetGone(work: Work, { sriov }: { sriov: SriovChange }, seen: SeenSriov): void {
  const known = [...seen.vfs, ...recordedVfs(sriov.from)];
  for (const { address } of known)
    if (work.host.list(work.host.device(address)) === null) removeBinding(work.host, address);
}
