/** `journal list|undo|resume`: what transactions of dead processes left, and which way to finish them. */
import { nothingForeseen } from '../binding/access.ts';
import type { Direction, Kept } from '../binding/decision.ts';
import { lockDevices } from '../binding/groupLocks.ts';
import { type JournalEntry, namedBy, readJournal } from '../binding/journal.ts';
import { foresee, recover } from '../binding/recover.ts';
import { mayChange, observing, working } from '../binding/session.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { scanInventory } from '../pci/inventory.ts';
import type { BadFile } from '../store/files.ts';
import { quote } from '../text/safe.ts';
import type { ActionOptions } from './options.ts';

/** All entries. One whose process still runs is being worked at, which only its devices' locks tell. */
export const listJournal = (host: Host): { entries: JournalEntry[]; bad: BadFile[] } => readJournal(host);

/** `done` has a line for each device that was put right, `kept` each that stays in the journal and why. */
export type Finished = { changed: boolean; entries: JournalEntry[]; done: string[]; kept: Kept[]; bad: BadFile[] };

/**
 * Finishes entries (all, or those named by id) the way asked for: `undo` brings each device to where it was before,
 * `resume` to where it was going; an entry that has its mark is finished as that says. What is not named is left.
 * Raises HOSTDEV_JOURNAL_ABSENT, HOSTDEV_TIMEOUT for one that is being worked at.
 */
export async function finishJournal(
  host: Host,
  ids: readonly string[],
  direction: Direction,
  options: ActionOptions,
): Promise<Finished> {
  if (!options.dryRun) mayChange(host);
  const { entries: all, bad } = readJournal(host);
  const absent = ids.find((id) => !all.some((e) => e.id === id));
  const unclear = bad.find((b) => b.file === host.absolute(`${host.journal}/${absent}.json`));
  if (unclear !== undefined) throw new HostdevError('HOSTDEV_STORE_CORRUPT', `${unclear.file} ${unclear.why}`);
  if (absent !== undefined)
    throw new HostdevError('HOSTDEV_JOURNAL_ABSENT', `The journal has no entry ${quote(absent)}`);
  const entries = ids.length === 0 ? all : all.filter((e) => ids.includes(e.id));
  const finished: Finished = { changed: false, entries, done: [], kept: [], bad: ids.length === 0 ? bad : [] };
  if (entries.length === 0) return finished;
  const inventory = scanInventory(host);
  if (options.dryRun)
    return observing(host, options, async (work) => {
      const { done, kept } = await foresee({ ...work, inventory }, nothingForeseen(), entries, bad, direction);
      return { ...finished, done: done.map((d) => d.text), kept };
    });
  return working(host, options, inventory, async (work) => {
    const addresses = entries.flatMap((e) => [...namedBy(e)]);
    const locked = await lockDevices(work, addresses, () => scanInventory(host), entries);
    try {
      work.inventory = locked.inventory;
      const { done, kept } = await recover(work, locked.entries, bad, direction);
      return { ...finished, changed: done.length > 0, done: done.map((d) => d.text), kept };
    } finally {
      locked.unlock();
    }
  });
}
