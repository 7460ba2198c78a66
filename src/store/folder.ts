/**
 * Folders of ours, and how a file in one is named for node's fs. Below another root by the folder's own descriptor, and
 * none of its parents is a link: a tree from somebody's machine cannot lead our writes out of it. On the machine's own
 * root by its plain path.
 */
import { accessSync, chmodSync, closeSync, constants, existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { O_PATH, openInRoot, pathOf } from '../addon/inRoot.ts';
import { asError, HostdevError, isErrno, isSysError } from '../errors.ts';
import type { Host } from '../host/host.ts';

/** Names a file of an open folder; without a name the folder itself. */
export type At = (name?: string) => string;

/**
 * Calls `body` with the folder open; what it makes of {@link At} is of use only until it returns. Raises
 * HOSTDEV_STORE_UNSAFE when a link is on the way there, and the errno of anything else (ENOENT: there is no such
 * folder).
 */
export function inFolder<T>(host: Host, folder: string, body: (at: At) => T): T {
  if (host.root === '/') return body((name) => (name === undefined ? `/${folder}` : `/${folder}/${name}`));
  const fd = openFolder(host, folder);
  try {
    return body((name) => pathOf(fd, name));
  } finally {
    closeSync(fd);
  }
}

function openFolder(host: Host, folder: string): number {
  try {
    return openInRoot(host.root, folder, O_PATH | constants.O_DIRECTORY, 'refuse');
  } catch (e) {
    if (isErrno(e, 'ELOOP') && isSysError(e)) throw isLink(host, e.path ?? folder);
    throw e;
  }
}

/** The error for a link where a file or folder of ours should be. */
export const isLink = (host: Host, path: string): HostdevError =>
  new HostdevError(
    'HOSTDEV_STORE_UNSAFE',
    `${host.absolute(path)} is a symbolic link, and what hostdev writes to is none`,
    {
      hint: `See where it leads: ls -l ${host.absolute(path)}; then remove it.`,
    },
  );

/** An errno met on our own state, in our words; `file` as people write it. */
export const storeError = (doing: string, file: string, e: unknown): HostdevError =>
  asError(`Failed to ${doing} ${file}`, e, 'HOSTDEV_STORE', isErrno(e, 'ELOOP') ? { hint: LINK_HINT } : {});

const LINK_HINT = 'It is a symbolic link, and no file of hostdev is one: see where it leads, then remove it.';

/** The mode of what every user may look into, and of what is root's alone (contract 13). */
const OPEN = 0o755;
const CLOSED = 0o700;

/** The mode of a folder of ours; whatever else we make is as its neighbours are. */
export const modeOf = (host: Host, folder: string): number =>
  folder === host.journal || folder === host.locks ? CLOSED : OPEN;

/** Makes a folder of ours, with its parents. Raises HOSTDEV_STORE, HOSTDEV_STORE_UNSAFE or HOSTDEV_NOT_PERMITTED. */
export function makeFolder(host: Host, folder: string): void {
  try {
    // Parent by parent: mkdirSync's own recursion answers ENOENT on a read-only file system (node 20).
    if (isThere(host, folder)) return;
    const cut = folder.lastIndexOf('/');
    if (cut >= 0) makeFolder(host, folder.slice(0, cut));
    const parent = cut < 0 ? '' : folder.slice(0, cut);
    inFolder(host, parent, (at) => {
      const path = at(folder.slice(cut + 1));
      mkdirSync(path, { mode: modeOf(host, folder) });
      // Whatever the umask of whoever calls us says: libvirtd's, or an admin's.
      chmodSync(path, modeOf(host, folder));
    });
  } catch (e) {
    if (!isErrno(e, 'EEXIST')) throw storeError('make', host.absolute(folder), e);
  }
}

/** Takes a folder away if it is there and empty. Raises HOSTDEV_STORE or HOSTDEV_NOT_PERMITTED. */
export function removeEmptyFolder(host: Host, folder: string): void {
  const cut = folder.lastIndexOf('/');
  try {
    inFolder(host, folder.slice(0, Math.max(cut, 0)), (at) => rmdirSync(at(folder.slice(cut + 1))));
  } catch (e) {
    if (!isErrno(e, 'ENOENT', 'ENOTEMPTY', 'EEXIST')) throw storeError('remove', host.absolute(folder), e);
  }
}

/**
 * Raises what would keep this process from making a file in a folder of ours, or the folder first:
 * HOSTDEV_NOT_PERMITTED, HOSTDEV_STORE on a read-only file system, HOSTDEV_STORE_UNSAFE. Makes nothing.
 */
export function checkFolder(host: Host, folder: string): void {
  try {
    inFolder(host, folder, (at) => accessSync(at(), constants.W_OK | constants.X_OK));
  } catch (e) {
    if (!isErrno(e, 'ENOENT') || folder === '') throw storeError('write to', host.absolute(folder), e);
    checkFolder(host, folder.slice(0, Math.max(0, folder.lastIndexOf('/'))));
  }
}

function isThere(host: Host, folder: string): boolean {
  try {
    return inFolder(host, folder, (at) => existsSync(at()));
  } catch (e) {
    if (isErrno(e, 'ENOENT')) return false;
    throw e;
  }
}
