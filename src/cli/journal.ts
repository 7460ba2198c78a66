import { finishJournal, listJournal } from '../actions/journal.ts';
import type { JournalEntry } from '../binding/journal.ts';
import type { Answer, Invocation } from './command.ts';
import { plain, table } from './table.ts';

const state = (d: { driver: string | null }): string => d.driver ?? 'no driver';

function rows(entries: readonly JournalEntry[]): string {
  const lines = entries.flatMap((e) =>
    e.devices.map((d, i) => [
      i === 0 ? e.id : '',
      i === 0 ? e.kind : '',
      i === 0 ? e.owner : '',
      i === 0 ? e.state : '',
      d.address,
      `${state(d.from)} -> ${state(d.to)}`,
    ]),
  );
  return plain(table(['ID', 'KIND', 'FOR', 'STATE', 'ADDRESS', 'MOVE'], lines));
}

/** `hostdev journal list` */
export function journalList({ host }: Invocation): Answer {
  const entries = listJournal(host);
  return { json: { journal: entries }, text: entries.length === 0 ? 'The journal is clean\n' : rows(entries) };
}

const finish =
  (direction: 'undo' | 'resume') =>
  async ({ host, words, options }: Invocation): Promise<Answer> => {
    const { changed, entries, warnings } = await finishJournal(host, words, direction, options);
    const text = entries.length === 0 ? 'The journal is clean\n' : options.dryRun ? rows(entries) : '';
    const done = warnings.map((w) => `${plain(w)}\n`).join('');
    return { json: { changed, journal: entries, done: warnings }, text: text + done };
  };

/** `hostdev journal undo [ID…]` */
export const journalUndo = finish('undo');

/** `hostdev journal resume [ID…]` */
export const journalResume = finish('resume');
