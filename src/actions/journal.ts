/** `journal list|undo|resume`: what transactions of dead processes left, and which way to finish them. */
import { type JournalEntry, readJournal } from '../binding/journal.ts';
import type { Direction } from '../binding/recover.ts';
import { changing } from '../binding/session.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { scanInventory } from '../pci/inventory.ts';
import type { ActionOptions, Warned } from './options.ts';

/** All entries. One whose process still runs is being worked at, which only its groups' locks tell. Raises HOSTDEV_STORE_CORRUPT. */
export const listJournal = (host: Host): JournalEntry[] => readJournal(host);

/**
 * Finishes entries (all, or those named by id) the way asked for: `undo` brings each device to where it was before, `resume` to where it was going. What is not
 * named is left. Raises HOSTDEV_JOURNAL_ABSENT, HOSTDEV_TIMEOUT for one that is being worked at, HOSTDEV_UNDO_INCOMPLETE for what cannot be finished.
 */
export async function finishJournal(
  host: Host,
  ids: readonly string[],
  direction: Direction,
  options: ActionOptions,
): Promise<Warned & { changed: boolean; entries: JournalEntry[] }> {
  const all = readJournal(host);
  const absent = ids.find((id) => !all.some((e) => e.id === id));
  if (absent !== undefined)
    throw new HostdevError('HOSTDEV_JOURNAL_ABSENT', `The journal has no entry ${JSON.stringify(absent.slice(0, 80))}`);
  const entries = ids.length === 0 ? all : all.filter((e) => ids.includes(e.id));
  if (options.dryRun || entries.length === 0) return { changed: false, entries, warnings: [] };
  const groups = entries.flatMap((e) => e.devices.map((d) => d.group));
  const finish = { only: new Set(entries.map((e) => e.id)), direction };
  const warnings = await changing(
    host,
    scanInventory(host),
    groups,
    { ...options, finish },
    async (_work, done) => done,
  );
  return { changed: warnings.length > 0, entries, warnings };
}
