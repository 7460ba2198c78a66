/** What a mistyped word may have meant. */

/** How many letters may be wrong: one in a short word, two in others. */
const allowed = (word: string): number => (word.length <= 4 ? 1 : 2);

/** Longer than any word of ours; the distance costs the product of the lengths. */
const MAX_LENGTH = 40;

/**
 * The known word nearest to `typed`: letters missing, too many, wrong, or swapped with their neighbour (optimal string
 * alignment), `-` and case not counted. Null when nothing is near, or `typed` is known.
 */
export function nearestWord(typed: string, known: Iterable<string>): string | null {
  const word = fold(typed);
  if (word.length === 0 || word.length > MAX_LENGTH) return null;
  let best: string | null = null;
  let least = allowed(word) + 1;
  for (const k of known) {
    if (k === typed) return null;
    const d = distance(word, fold(k));
    if (d < least) [best, least] = [k, d];
  }
  return best;
}

const fold = (text: string): string => text.trim().toLowerCase().replace(/[- ]/g, '_');

function distance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let d = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) d = Math.min(d, (before[j - 2] ?? 0) + 1);
      row.push(d);
    }
    before = last;
    last = row;
  }
  return last[b.length] ?? 0;
}
