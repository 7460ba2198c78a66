/**
 * A PF whose VFs a dead process was changing. As for any device, what was begun is undone and a way back is gone to its end; but VFs that somebody uses by now stay,
 * whatever the dead process wanted, for taking one of them takes all.
 */
import type { Host } from '../host/host.ts';
import { type Inventory, scanInventory } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { observe, type Work } from './access.ts';
import { goneVfs } from './bind.ts';
import { type Binding, newBinding, type Owner, readBinding, removeBinding, writeBinding } from './books.ts';
import { closeBooks, ensureDriver } from './giveBack.ts';
import type { JournalEntry, JournalMove } from './journal.ts';
import { describeState, sameState } from './move.ts';
import { type Direction, refuseHeld } from './recover.ts';
import { autoprobeStep, recordedVfs, type SriovChange } from './sriov.ts';
import { performStep, restoreBytes, settleMove } from './transaction.ts';
import { bookVfs } from './vfBooks.ts';
import { lockVfs, observeSriov, type SeenSriov } from './vfs.ts';
import { vfRefusals } from './vfUse.ts';

type PfMove = JournalMove & { sriov: SriovChange };

/** Puts the PF right, the way `asked` or else what recovery chooses, and returns a line that says how. Raises what {@link settleMove} raises, and an Error when a process holds the PF. */
export async function recoverPf(
  work: Work,
  inventory: Inventory,
  entry: JournalEntry,
  move: PfMove,
  asked?: Direction,
): Promise<string> {
  const { host } = work;
  const { address, sriov } = move;
  const device = await observe(work, address);
  await lockVfs(work, address);
  const seen = await observeSriov(work, address);
  const direction = asked ?? (entry.kind === 'give-back' || committed(host, move, seen) ? 'resume' : 'undo');
  const end = direction === 'undo' ? 'from' : 'to';
  const goal = move[end];
  const after = `after an interrupted ${entry.kind} (${entry.id})`;
  if (seen.numvfs > 0 && seen.numvfs !== sriov[end].numvfs && device?.driver === goal.driver) {
    const [used] = await vfRefusals(work, scanInventory(host), address, null);
    if (used !== undefined) {
      if (sriov.from.autoprobe !== null && seen.autoprobe !== sriov.from.autoprobe)
        await performStep(work, autoprobeStep(host, address, sriov.from.autoprobe));
      if (sameState(move.from, move.to)) bookVfs(host, move, entry.owner as Owner, entry.started);
      return `${address} keeps its ${seen.numvfs} VFs ${after}: ${used.address}: ${used.reason}`;
    }
  }
  if (device !== null && !sameState(device, goal)) {
    await refuseHeld(work, inventory.byAddress.get(address));
    await ensureDriver(work, address, goal.driver);
  }
  const booked = seen.vfs.flatMap((vf) => readBinding(host, vf.address) ?? []);
  await settleMove(work, move, end);
  if (direction === 'undo') await restoreBytes(work, move);
  if (!sameState(move.from, move.to)) keepBooks(host, entry, move, direction, booked);
  else if (direction === 'resume') bookVfs(host, move, entry.owner as Owner, entry.started);
  forgetGone(host, move, seen);
  return `${address} is on ${describeState(goal)} with ${sriov[end].numvfs} VFs ${after}`;
}

/**
 * Of a PF that changed its driver the books say so. Of one that kept it the kernel does: with the last step made only the books of its VFs were left to be written, and
 * perhaps those of VFs that went are closed already, so that there is no way back.
 */
function committed(host: Host, move: PfMove, seen: SeenSriov): boolean {
  if (!sameState(move.from, move.to)) {
    const after = readBinding(host, move.address)?.after;
    return after != null && sameState(after, move.to);
  }
  const { to } = move.sriov;
  if (seen.numvfs !== to.numvfs || seen.autoprobe !== to.autoprobe) return false;
  if (to.vfs !== 'vfio') return true;
  return seen.vfs.length === to.numvfs && seen.vfs.every((vf) => isVfioDriver(host, vf.address, vf.driver));
}

/** As for any device: a PF that is the host's again has none, one that went to VFIO has what it lost in its own. */
function keepBooks(host: Host, entry: JournalEntry, move: PfMove, direction: Direction, vf_bindings: Binding[]): void {
  const binding = readBinding(host, move.address);
  const bind = entry.kind === 'bind';
  if (bind === (direction === 'undo')) {
    if (binding !== null) closeBooks(host, binding, undefined);
    return;
  }
  if (binding !== null) return;
  const [before, after] = bind ? [move.from, move.to] : [move.to, move.from];
  const claim = { owner: entry.owner as Owner, name: null, managed: false };
  const gone = bind ? goneVfs(host, move) : { sriov: move.sriov.to, vf_bindings };
  writeBinding(host, { ...newBinding(move.address, move.group, claim, before, after), ...gone });
}

/** No books for VFs that are no more. */
function forgetGone(host: Host, { sriov }: PfMove, seen: SeenSriov): void {
  for (const { address } of [...seen.vfs, ...recordedVfs(sriov.from)])
    if (host.list(host.device(address)) === null) removeBinding(host, address);
}
