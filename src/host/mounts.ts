/** What is mounted and where the kernel swaps: fs/proc_namespace.c show_mountinfo, mm/swapfile.c swap_show. */

export type Mount = {
  /** "259:2"; btrfs, zfs and overlay have a number of their own that no disk has. */
  number: string;
  point: string;
  type: string;
  source: string;
  /** Options of the file system itself: "rw,lowerdir=/a:/b,upperdir=/c", "rw,vers=4.2,addr=10.0.0.5". */
  options: string;
};

/** Mounts of proc/self/mountinfo; a line that is none is left out. */
export function parseMounts(lines: readonly string[]): Mount[] {
  const mounts: Mount[] = [];
  for (const line of lines) {
    const f = line.split(' ');
    const dash = f.indexOf('-', 6);
    const [number, point, type, source, options = ''] = [f[2], f[4], f[dash + 1], f[dash + 2], f[dash + 3]];
    if (dash < 0 || number === undefined || point === undefined || type === undefined || source === undefined) continue;
    mounts.push({
      number,
      point: unescapePath(point),
      type,
      source: unescapePath(source),
      options: unescapePath(options),
    });
  }
  return mounts;
}

/** The value of an option of a mount ("addr" of "rw,addr=10.0.0.5"); null when it has none. */
export function mountOption({ options }: Mount, name: string): string | null {
  // overlayfs writes a comma or colon of a path with a backslash before it (fs/overlayfs/super.c ovl_show_options).
  const words = options.match(/(?:\\.|[^,\\])+/g) ?? [];
  const found = words.find((w) => w.startsWith(`${name}=`));
  return found === undefined ? null : found.slice(name.length + 1);
}

const REMOTE = /^(nfs4?|cifs|smb3|ceph|fuse\.(glusterfs|sshfs|ceph-fuse|s3fs)|glusterfs|lustre|gpfs|9p)$/;

/** True for a file system that comes over the network. */
export const isRemote = (m: Pick<Mount, 'type'>): boolean => REMOTE.test(m.type);

/**
 * Without one of these places, or what is mounted in one of them, the running system or its services are lost, not only
 * somebody's files.
 */
const VITAL_PLACES = ['/usr', '/etc', '/boot', '/efi', '/var', '/nix'];

/** The places themselves: a host full of containers has thousands of overlays inside them. */
export const isVitalPlace = (point: string): boolean =>
  ['/', '/boot/efi', '/nix/store', ...VITAL_PLACES].includes(point);

export const isVitalPoint = (point: string): boolean =>
  point === '/' || VITAL_PLACES.some((place) => point === place || point.startsWith(`${place}/`));

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
