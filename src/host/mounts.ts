/** What is mounted and where the kernel swaps: fs/proc_namespace.c show_mountinfo, mm/swapfile.c swap_show. */

export type Mount = {
  /** "259:2"; btrfs, zfs and overlay have a number of their own that no disk has. */
  number: string;
  point: string;
  type: string;
  source: string;
};

/** Mounts of proc/self/mountinfo; a line that is none is left out. */
export function parseMounts(lines: readonly string[]): Mount[] {
  const mounts: Mount[] = [];
  for (const line of lines) {
    const f = line.split(' ');
    const dash = f.indexOf('-', 6);
    const [number, point, type, source] = [f[2], f[4], f[dash + 1], f[dash + 2]];
    if (dash < 0 || number === undefined || point === undefined || type === undefined || source === undefined) continue;
    mounts.push({ number, point: unescapePath(point), type, source: unescapePath(source) });
  }
  return mounts;
}

/** Paths of proc/swaps: a device's node or a file. */
export const parseSwaps = (lines: readonly string[]): string[] =>
  lines.slice(1).flatMap((line) => {
    const word = line.split(/[ \t]/, 1)[0] ?? '';
    return word === '' ? [] : [unescapePath(word).replace(/ \(deleted\)$/, '')];
  });

/** fs/seq_file.c mangle_path writes blanks and backslashes as three octal digits. */
const unescapePath = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8) & 0xff));

/** The mount that a file lies on: the longest mount point above it, and of several at one place the last. */
export function mountOf(mounts: readonly Mount[], file: string): Mount | null {
  let best: Mount | null = null;
  for (const m of mounts) {
    const above = m.point === '/' || file === m.point || file.startsWith(`${m.point}/`);
    if (above && (best === null || m.point.length >= best.point.length)) best = m;
  }
  return best;
}
