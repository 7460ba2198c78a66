/**
 * After a crash: whoever has the lock of a device's group finishes or undoes what a dead process began there. A bind goes back, unless its books were written (then it
 * had been done); a give-back goes on to its end, for its guest is gone.
 */
import type { Host } from '../host/host.ts';
import type { Inventory } from '../pci/inventory.ts';
import { readBinding, removeBinding } from './books.ts';
import { ensureDriver } from './giveBack.ts';
import { type JournalEntry, type JournalMove, readJournal, removeJournal, writeJournal } from './journal.ts';
import { describeState, sameState } from './move.ts';
import { recoverPf } from './recoverPf.ts';
import { observe, restoreBytes, settle, type Work } from './transaction.ts';
import { vfioNodes } from './usage.ts';

/**
 * Recovers all journal entries' devices in `groups`, whose locks the caller holds. Returns a line for each device that was put right and one for each that
 * could not be (those stay in the journal). Raises HOSTDEV_STORE_CORRUPT for a journal file that cannot be understood.
 */
export async function recover(
  work: Work,
  inventory: Inventory,
  groups: readonly (number | null)[],
): Promise<{ done: string[]; left: string[] }> {
  const done: string[] = [];
  const left: string[] = [];
  for (const entry of readJournal(work.host)) {
    const mine = entry.devices.filter((d) => groups.includes(d.group));
    if (mine.length === 0) continue;
    const failed: JournalMove[] = [];
    const reasons: string[] = [];
    for (const move of [...mine].reverse()) {
      try {
        done.push(await recoverDevice(work, inventory, entry, move));
      } catch (e) {
        failed.unshift(move);
        reasons.push(`${move.address}: ${(e as Error).message}`);
      }
    }
    left.push(...reasons);
    const rest = [...entry.devices.filter((d) => !groups.includes(d.group)), ...failed];
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
): Promise<string> {
  const { host } = work;
  const { address } = move;
  const now = await observe(work, address);
  if (now === null) {
    removeBinding(host, address);
    return `${address} is gone; forgot what an interrupted ${entry.kind} (${entry.id}) left of it`;
  }
  if (move.sriov !== undefined) return recoverPf(work, inventory, entry, { ...move, sriov: move.sriov });
  const goal = entry.kind === 'bind' && !committed(host, move) ? move.from : move.to;
  if (!sameState(now, goal)) {
    refuseHeld(host, inventory, address);
    await ensureDriver(work, address, goal.driver);
    await settle(work, move, goal);
  }
  if (goal === move.from) await restoreBytes(work, move);
  if (entry.kind === 'give-back') removeBinding(host, address);
  return `${address} is on ${describeState(goal)} after an interrupted ${entry.kind} (${entry.id})`;
}

/** The books are written after the last step and before the journal goes. */
function committed(host: Host, move: JournalMove): boolean {
  const after = readBinding(host, move.address)?.after;
  return after != null && sameState(after, move.to);
}

function refuseHeld(host: Host, inventory: Inventory, address: string): void {
  const device = inventory.byAddress.get(address);
  const holder = device === undefined ? undefined : host.native.holders(host.root, vfioNodes(host, device)).holders[0];
  if (holder !== undefined) throw new Error(`process ${holder.pid} (${holder.command}) holds ${holder.path}`);
}
