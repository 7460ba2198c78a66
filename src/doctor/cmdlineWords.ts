/** Words of the kernel command line, and a change of them. */

/** What is to be on the kernel command line: words to add (one that has the same key is replaced) and words to take out. */
export type CmdlineChange = { add?: readonly string[]; remove?: readonly string[] };

/** Only such words are put into lines that a shell or YAML reads. */
export const WORD = /^[\w.,:=@/+-]{1,256}$/;

/** What stands before the `=`. */
export const key = (word: string): string => word.split('=', 1)[0] ?? word;

/**
 * Options of which one word counts, its value a list by commas (drivers/iommu/intel/iommu.c, drivers/iommu/amd/init.c, arch/x86/kernel/pci-dma.c): ours takes the place of
 * the word that is there, whose other values stay. All others may be said several times, and theirs are left alone.
 */
export const ONCE = new Set(['intel_iommu', 'amd_iommu', 'iommu']);

/** The words of a command line with the change made, each in the place of the word that it replaces. */
export function changed(words: readonly string[], { add = [], remove = [] }: CmdlineChange): string[] {
  const left = new Set(add);
  const kept = words.flatMap((w) => {
    const wanted = ONCE.has(key(w)) ? add.find((a) => key(a) === key(w)) : add.find((a) => a === w);
    if (wanted === undefined) return remove.includes(w) ? [] : [w];
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

/** What must go from the words that the kernel was started with, and what must come, for tools that are told the difference; `all` is the outcome. */
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
