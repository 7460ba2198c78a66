/** Words of the kernel command line, and a change of them. */

/** One word in the place of another; `by` is the same list with values left out, or another spelling. */
type Replacement = { word: string; by: string };

/**
 * What is to be on the kernel command line: words to add (one that has the same key is replaced), to take out, to
 * replace.
 */
export type CmdlineChange = {
  add?: readonly string[];
  remove?: readonly string[];
  replace?: readonly Replacement[];
};

export type Change = Required<CmdlineChange>;

/** Only such words are put into lines that a shell or YAML reads. */
export const WORD = /^[\w.,:=@/+-]{1,256}$/;

/** What stands before the `=`. */
export const key = (word: string): string => word.split('=', 1)[0] ?? word;

/**
 * Options of which one word counts, its value a list by commas (drivers/iommu/intel/iommu.c, drivers/iommu/amd/init.c,
 * arch/x86/kernel/pci-dma.c): ours takes the place of the word that is there, whose other values stay. All others may
 * be said several times, and theirs are left alone.
 */
export const ONCE = new Set(['intel_iommu', 'amd_iommu', 'iommu']);

/** What all lists leave of a word's values, by commas; null when nothing is left. */
function inAll(word: string, lists: readonly string[]): string | null {
  const values = (w: string): string[] => w.slice(key(w).length + 1).split(',');
  const left = values(lists[0] ?? word).filter((v) => lists.every((l) => values(l).includes(v)));
  return left.length === 0 ? null : `${key(lists[0] ?? word)}=${left.join(',')}`;
}

/**
 * Several changes as one, so that no line undoes another: what one of them takes out is out, and of a list that several
 * shorten stays what all of them leave. Words that a shell or YAML could read otherwise are left out.
 */
export function merged(changes: readonly CmdlineChange[]): Change {
  const words = (of: 'add' | 'remove'): string[] => [
    ...new Set(changes.flatMap((c) => c[of] ?? []).filter((w) => WORD.test(w))),
  ];
  const lists = new Map<string, string[]>();
  for (const { word, by } of changes.flatMap((c) => c.replace ?? []))
    if (WORD.test(word) && WORD.test(by)) lists.set(word, [...(lists.get(word) ?? []), by]);
  const remove = words('remove');
  const replace: Replacement[] = [];
  for (const [word, by] of lists) {
    if (remove.includes(word)) continue;
    const left = inAll(word, by);
    if (left === null) remove.push(word);
    else replace.push({ word, by: left });
  }
  return { add: words('add').filter((w) => !remove.includes(w)), remove, replace };
}

/** The same change for tools that know of no replacing. */
export const withoutReplacing = ({ add, remove, replace }: Change): Change => ({
  add: [...add, ...replace.map((r) => r.by)],
  remove: [...remove, ...replace.map((r) => r.word)],
  replace: [],
});

/** The words of a command line with the change made, each in the place of the word that it replaces. */
export function changed(words: readonly string[], { add = [], remove = [], replace = [] }: CmdlineChange): string[] {
  const left = new Set(add);
  const kept = words.flatMap((w) => {
    const wanted = ONCE.has(key(w)) ? add.find((a) => key(a) === key(w)) : add.find((a) => a === w);
    if (wanted === undefined) return remove.includes(w) ? [] : [replace.find((r) => r.word === w)?.by ?? w];
    // Said twice is once too often: the first place is kept.
    if (!left.delete(wanted)) return [];
    if (w === wanted) return [w];
    const value = wanted.slice(key(wanted).length + 1);
    const others = w
      .slice(key(w).length + 1)
      .split(',')
      // A word that is to go loses what switches off (igfx_off too), and keeps the rest.
      .filter((v) => !['', 'on', 'off', value].includes(v) && !(remove.includes(w) && v.endsWith('_off')));
    return [`${key(wanted)}=${[value, ...others].join(',')}`];
  });
  return [...kept, ...left];
}

/** What a boot loader puts on the command line by itself. */
export const BY_LOADER = /^(?:BOOT_IMAGE|initrd)=/;

/**
 * What must go from the words that the kernel was started with, and what must come, for tools that are told the
 * difference; `all` is the outcome.
 */
export function difference(
  words: readonly string[],
  change: CmdlineChange,
): { remove: string[]; add: string[]; all: string[] } {
  const all = changed(words, change);
  const less = (of: readonly string[], these: readonly string[]): string[] => {
    const rest = [...these];
    return of.filter((w) => {
      const at = rest.indexOf(w);
      if (at >= 0) rest.splice(at, 1);
      return at < 0;
    });
  };
  return { remove: less(words, all), add: less(all, words), all };
}
