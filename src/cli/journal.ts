import { type Finished, finishJournal, listJournal } from '../actions/journal.ts';
import type { Kept } from '../binding/decision.ts';
import { type JournalEntry, writerOf } from '../binding/journal.ts';
import { badFileText } from '../binding/session.ts';
import { EXIT } from '../errors.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { table } from './table.ts';

const state = (d: { driver: string | null }): string => d.driver ?? 'no driver';

function stateOf(e: JournalEntry): string {
  const writer = writerOf(e);
  return writer === null ? e.state : `process ${writer} is at work`;
}

function rows(entries: readonly JournalEntry[]): string {
  const lines = entries.flatMap((e) =>
    e.devices.map((d, i) => [
      i === 0 ? e.id : '',
      i === 0 ? e.kind : '',
      i === 0 ? e.owner : '',
      i === 0 ? stateOf(e) : '',
      d.address,
      `${state(d.from)} -> ${state(d.to)}`,
    ]),
  );
  return safeBlock(table(['ID', 'KIND', 'FOR', 'STATE', 'ADDRESS', 'MOVE'], lines));
}

/** `hostdev journal list` */
export function journalList({ host }: Invocation): Answer {
  const { entries, bad } = listJournal(host);
  const left = entries.flatMap((e) => e.left.map((l) => safeBlock(`${e.id}: ${l}\n`)));
  const text = entries.length + bad.length === 0 ? 'The journal is clean\n' : entries.length === 0 ? '' : rows(entries);
  return { json: { journal: entries, bad_files: bad }, text: [text, ...left, ...unreadable(bad)].join('') };
}

const unreadable = (bad: Finished['bad']): string[] => bad.map((b) => `${safeBlock(badFileText(b))}\n`);

const finish =
  (direction: 'undo' | 'resume') =>
  async ({ host, words, options }: Invocation): Promise<Answer> => {
    const { changed, entries, done, kept, bad } = await finishJournal(host, words, direction, options);
    const text = entries.length + bad.length === 0 ? 'The journal is clean\n' : options.dryRun ? rows(entries) : '';
    const lines = done.map((d) => `${safeBlock(d)}\n`);
    const left = kept.map((k) => `${k.address} stays in the journal (${k.entry}): ${safeBlock(k.reason)}\n`);
    const by = (why: Kept['by']): boolean => kept.some((k) => k.by === why);
    const failed = by('failure') || bad.length > 0;
    const exit = by('guard') ? EXIT.refused : by('stuck') ? EXIT.timedOut : failed ? EXIT.failed : EXIT.done;
    return {
      json: { changed, journal: entries, done, kept, bad_files: bad },
      text: [text, ...lines, ...left, ...unreadable(bad)].join(''),
      exit,
    };
  };

/** `hostdev journal undo [ID…]` */
export const journalUndo = finish('undo');

/** `hostdev journal resume [ID…]` */
export const journalResume = finish('resume');
