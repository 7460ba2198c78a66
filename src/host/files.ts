/** What `doctor` asks of ordinary files below the root: mode, times, the first bytes. Links are followed inside the root only. */
import { closeSync, constants, fstatSync, lstatSync, openSync, readlinkSync, readSync, type Stats } from 'node:fs';
import { join, normalize } from 'node:path';
import { isErrno } from '../errors.ts';
import type { Host } from './host.ts';

export type FileFacts = {
  isFile: boolean;
  isFolder: boolean;
  /** Any execute bit: that is what libvirt looks for (virFileIsExecutable as root). */
  executable: boolean;
  /** Milliseconds since the epoch: when content or mode last changed. */
  ctimeMs: number;
  /** When it was made; null where the file system does not keep that. */
  bornMs: number | null;
};

/** How a compiled program begins. */
export const ELF = '\x7fELF';

const MAX_LINKS = 16;
const ABSENT = ['ENOENT', 'ENOTDIR', 'ELOOP'];

/** The path below the root, every link of it resolved inside the root; null when it is not there. */
function inRoot(host: Host, path: string): { at: string; stats: Stats } | null {
  let todo = normalize(`/${path}`).split('/').filter(Boolean);
  let done: string[] = [];
  let links = 0;
  let stats = lstatSync(host.absolute(''));
  while (todo.length > 0) {
    const [part = '', ...rest] = todo;
    todo = rest;
    if (part === '..') {
      done = done.slice(0, -1);
      continue;
    }
    const here = host.absolute([...done, part].join('/'));
    stats = lstatSync(here);
    if (!stats.isSymbolicLink()) {
      done = [...done, part];
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) return null;
    const target = readlinkSync(here);
    todo = [
      ...normalize(join(target.startsWith('/') ? '/' : `/${done.join('/')}`, target))
        .split('/')
        .filter(Boolean),
      ...rest,
    ];
    done = [];
  }
  return { at: host.absolute(done.join('/')), stats };
}

/** Facts of a file, its links followed; null when it is absent. Raises the errno of anything else. */
export function fileFacts(host: Host, path: string): FileFacts | null {
  try {
    const found = inRoot(host, path);
    if (found === null) return null;
    const { stats } = found;
    return {
      isFile: stats.isFile(),
      isFolder: stats.isDirectory(),
      executable: (stats.mode & 0o111) !== 0,
      ctimeMs: stats.ctimeMs,
      bornMs: stats.birthtimeMs > 0 ? stats.birthtimeMs : null,
    };
  } catch (e) {
    if (isErrno(e, ...ABSENT)) return null;
    throw e;
  }
}

/** The first `max` bytes of a regular file; null when it is absent or no regular file. Raises the errno of anything else. */
export function fileHead(host: Host, path: string, max: number): Buffer | null {
  try {
    const found = inRoot(host, path);
    if (found === null || !found.stats.isFile()) return null;
    const fd = openSync(found.at, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    try {
      if (!fstatSync(fd).isFile()) return null;
      const bytes = Buffer.alloc(max);
      return bytes.subarray(0, readSync(fd, bytes, 0, max, 0));
    } finally {
      closeSync(fd);
    }
  } catch (e) {
    if (isErrno(e, ...ABSENT)) return null;
    throw e;
  }
}
