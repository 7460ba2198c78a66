/**
 * After a crash: whoever has the lock of a device's group finishes or undoes what a dead process began there. A bind goes back, unless its books were written (then it
 * had been done); a give-back goes on to its end, for its guest is gone.
 */
import type { Host } from '../host/host.ts';
import { heldBy } from '../pci/holders.ts';
import type { Inventory, PciDevice } from '../pci/inventory.ts';
import { observe, type Work } from './access.ts';
import { newBinding, type Owner, readBinding, removeBinding, writeBinding } from './books.ts';
import { ensureDriver } from './giveBack.ts';
import { type JournalEntry, type JournalMove, readJournal, removeJournal, writeJournal } from './journal.ts';
import { describeState, sameState } from './move.ts';
import { endQuarantine, readQuarantine } from './quarantine.ts';
import { recoverPf } from './recoverPf.ts';
import { restoreBytes, settleMove } from './transaction.ts';
import { vfioNodes } from './usage.ts';

/** Which way an entry is finished: back to where its devices were, or on to where they were going. */
export type Direction = 'undo' | 'resume';

/** The admin's own choice for entries, by id; the others are left as they are. */
export type Finish = { only: ReadonlySet<string>; direction: Direction };

/**
 * Recovers all journal entries' devices in `groups`, whose locks the caller holds. Returns a line for each device that was put right and one for each that
 * could not be (those stay in the journal). Raises HOSTDEV_STORE_CORRUPT for a journal file that cannot be understood.
 */
export async function recover(
  work: Work,
  inventory: Inventory,
  groups: readonly (number | null)[],
  finish?: Finish,
): Promise<{ done: string[]; left: string[] }> {
  const done: string[] = [];
  const left: string[] = [];
  for (const entry of readJournal(work.host)) {
    if (finish !== undefined && !finish.only.has(entry.id)) continue;
    // One that hangs is left for when it has come back; whoever asks for it is told so.
    const mine = entry.devices.filter((d) => {
      if (!groups.includes(d.group)) return false;
      const stuck = readQuarantine(work.host, d.address);
      if (stuck !== null) work.stuck = new Map([...(work.stuck ?? []), [d.address, stuck]]);
      return stuck === null;
    });
    if (mine.length === 0) continue;
    const failed: JournalMove[] = [];
    const reasons: string[] = [];
    for (const move of [...mine].reverse()) {
      try {
        done.push(await recoverDevice(work, inventory, entry, move, finish?.direction));
      } catch (e) {
        failed.unshift(move);
        reasons.push(`${move.address}: ${(e as Error).message}`);
      }
    }
    left.push(...reasons);
    const rest = [...entry.devices.filter((d) => !mine.includes(d)), ...failed];
    if (rest.length === 0) removeJournal(work.host, entry.id);
    else
      writeJournal(work.host, {
        ...entry,
        devices: rest,
        state: reasons.length > 0 ? 'undo-incomplete' : entry.state,
        left: reasons,
      });
  }
  return { done, left };
}

async function recoverDevice(
  work: Work,
  inventory: Inventory,
  entry: JournalEntry,
  move: JournalMove,
  asked?: Direction,
): Promise<string> {
  const { host } = work;
  const { address } = move;
  const now = await observe(work, address);
  endQuarantine(host, address);
  if (now === null) {
    removeBinding(host, address);
    return `${address} is gone; forgot what an interrupted ${entry.kind} (${entry.id}) left of it`;
  }
  if (move.sriov !== undefined) return recoverPf(work, inventory, entry, { ...move, sriov: move.sriov }, asked);
  const direction = asked ?? (entry.kind === 'bind' && !committed(host, move) ? 'undo' : 'resume');
  const goal = direction === 'undo' ? move.from : move.to;
  if (!sameState(now, goal)) {
    await refuseHeld(work, inventory.byAddress.get(address));
    await ensureDriver(work, address, goal.driver);
    await settleMove(work, move, direction === 'undo' ? 'from' : 'to');
  }
  if (direction === 'undo') await restoreBytes(work, move);
  keepBooks(host, entry, move, direction);
  return `${address} is on ${describeState(goal)} after an interrupted ${entry.kind} (${entry.id})`;
}

/** A bind that was finished is its owner's, one that was undone nobody's; a give-back the other way round. */
function keepBooks(host: Host, entry: JournalEntry, move: JournalMove, direction: Direction): void {
  if ((entry.kind === 'bind') === (direction === 'undo')) {
    removeBinding(host, move.address);
    return;
  }
  if (readBinding(host, move.address) !== null) return;
  const [before, after] = entry.kind === 'bind' ? [move.from, move.to] : [move.to, move.from];
  const claim = { owner: entry.owner as Owner, name: null, managed: false };
  writeBinding(host, newBinding(move.address, move.group, claim, before, after));
}

/** The books are written after the last step and before the journal goes. */
function committed(host: Host, move: JournalMove): boolean {
  const after = readBinding(host, move.address)?.after;
  return after != null && sameState(after, move.to);
}

/** Raises an Error when a process holds the device on VFIO. */
export async function refuseHeld({ host, deadline }: Work, device: PciDevice | undefined): Promise<void> {
  const found = device === undefined ? null : await heldBy(host, vfioNodes(host, device), deadline.left);
  const [holder] = found?.holders ?? [];
  if (holder !== undefined) throw new Error(`process ${holder.pid} (${holder.command}) holds ${holder.path}`);
}
