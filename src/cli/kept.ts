/** Wishes for people: what one wants, and what became of conf.d/90-kept.toml. */
import type { Kept } from '../actions/persist.ts';
import type { PrintedWish } from '../actions/wishes.ts';
import { safeBlock } from '../text/safe.ts';

/** What was kept, in a line each. */
export function keptText({ file, added, removed, already }: Kept, dryRun: boolean): string {
  const at = safeBlock(file);
  const line = (w: PrintedWish, verb: string): string => `${w.wished_address}  ${safeBlock(wantOf(w))}: ${verb}\n`;
  const lines = [
    ...removed.map((w) => line(w, `${dryRun ? 'would be ' : ''}taken out of ${at}`)),
    ...added.map((w) => line(w, `${dryRun ? 'would be ' : ''}kept in ${at}`)),
    ...already.map((w) => line(w, `wished by ${safeBlock(`${w.file}:${w.line}`)} already`)),
  ];
  return lines.length === 0 ? 'No wish changes\n' : lines.join('');
}

/** What a wish wants, for a table. */
export function wantOf(w: PrintedWish): string {
  if (w.kind === 'pf') return `${w.vfs} VFs for ${w.for}`;
  return `${w.driver === 'none' ? 'no driver' : w.driver}${w.group === null ? '' : ' (group)'}`;
}

/** {@link keptText} of a command that keeps only with --persist. */
export const alsoKept = (answer: object, dryRun: boolean): string =>
  'kept' in answer ? keptText(answer.kept as Kept, dryRun) : '';

/** The configuration, and what reads it, are loaded for --persist only. */
export const persist = () => import('../actions/persist.ts');
