/**
 * Whether our state is ours (contract 13): what is in it makes root write to sysfs, so nobody else may have made it or
 * be able to change it. Root's files are trusted, and those of whoever runs us (below a root of his own).
 */
import { chmodSync, lstatSync, readdirSync, type Stats } from 'node:fs';
import { HostdevError, isAbsent } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { inFolder, modeOf, storeError } from './folder.ts';

/**
 * A folder or file of our state that somebody else could have written: its absolute path, why, and the command that
 * ends it.
 */
export type Unsafe = { path: string; why: string; fix: string };

const OTHERS_WRITE = 0o022;

/** Why something is not to be trusted; null when it is. A link has no mode of its own. */
export function whyUnsafe(s: Stats): string | null {
  const mine = process.geteuid?.() ?? 0;
  if (s.uid !== 0 && s.uid !== mine) return `belongs to the user ${s.uid}`;
  return s.isSymbolicLink() || (s.mode & OTHERS_WRITE) === 0
    ? null
    : `can be written to by others (mode ${(s.mode & 0o7777).toString(8)})`;
}

const split = (path: string): [folder: string, name: string] => {
  const cut = path.lastIndexOf('/');
  return [path.slice(0, cut), path.slice(cut + 1)];
};

const foldersOf = (host: Host): string[] => [
  host.state,
  host.bindings,
  host.journal,
  host.quarantine,
  host.started,
  host.locks,
];

/**
 * Calls `visit` for each folder of our state that is there, and for each file in it where `files` says so by then. What
 * is in the state's own folder beside these is not ours alone (sockets).
 */
function visitAll(
  host: Host,
  visit: (path: string, is: Stats, at: string) => void,
  files: (folder: string) => boolean = () => true,
): void {
  for (const folder of foldersOf(host)) {
    const [parent, own] = split(folder);
    const isFolder = quietly(host, folder, () =>
      inFolder(host, parent, (at) => {
        const is = lstatSync(at(own));
        visit(folder, is, at(own));
        return is.isDirectory();
      }),
    );
    if (isFolder !== true || !files(folder)) continue;
    quietly(host, folder, () =>
      inFolder(host, folder, (at) => {
        const names = folder === host.state ? [split(host.hookLog)[1]] : readdirSync(at());
        for (const name of names)
          quietly(host, `${folder}/${name}`, () => visit(`${folder}/${name}`, lstatSync(at(name)), at(name)));
      }),
    );
  }
}

/** Null where there is nothing. */
function quietly<T>(host: Host, path: string, look: () => T): T | null {
  try {
    return look();
  } catch (e) {
    if (isAbsent(e)) return null;
    throw storeError('read', host.absolute(path), e);
  }
}

/**
 * All of it that is not to be trusted, added to `found`. Raises HOSTDEV_NOT_PERMITTED where it may not be looked at
 * (what was found before stays), HOSTDEV_STORE_UNSAFE for a link on the way there.
 */
export function unsafeState(host: Host, found: Unsafe[] = []): Unsafe[] {
  visitAll(host, (path, is) => {
    // A link to a file stops the devices that its name tells of, as every file that is not what we wrote
    // (store/files.ts).
    const why = is.isSymbolicLink() && foldersOf(host).includes(path) ? 'is a symbolic link' : whyUnsafe(is);
    if (why === null) return;
    const at = host.absolute(path);
    // chown and chmod would follow it.
    const fix = is.isSymbolicLink() ? `rm ${at}` : `chown root:root ${at} && chmod go-w ${at}`;
    found.push({ path: at, why, fix });
  });
  return found;
}

/** Raises HOSTDEV_STORE_UNSAFE for the first of {@link unsafeState}. */
export function refuseUnsafe(host: Host): void {
  const [first, ...more] = unsafeState(host);
  if (first === undefined) return;
  const others = more.length === 0 ? '' : ` (and ${more.length} more)`;
  throw new HostdevError('HOSTDEV_STORE_UNSAFE', `${first.path} ${first.why}${others}; nothing was changed`, {
    hint: `See who made it and what it says; then '${first.fix}', or remove it.`,
  });
}

/**
 * Sets right the modes of what an earlier version made for root alone. Raises HOSTDEV_STORE or HOSTDEV_NOT_PERMITTED.
 */
export function setModes(host: Host): void {
  const mine = process.geteuid?.() ?? 0;
  // Thousands of files need no look where their folder is as it is to be: then it was made by this version.
  const wrong = new Set<string>();
  const visit = (path: string, is: Stats, at: string): void => {
    if (is.uid !== mine) return;
    const [folder] = split(path);
    const open = [host.bindings, host.quarantine, host.started].includes(folder);
    const mode = is.isDirectory() ? modeOf(host, path) : is.isFile() && open ? 0o644 : null;
    if (mode === null || (is.mode & 0o777) === mode) return;
    chmodSync(at, mode);
    wrong.add(path);
  };
  visitAll(host, visit, (folder) => wrong.has(folder));
}
