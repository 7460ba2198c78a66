/**
 * What `doctor` asks of ordinary files below the root: mode, times, the first bytes. Links are followed inside the root
 * only.
 */
import { accessSync, closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { O_PATH, openInRoot, pathOf } from '../addon/inRoot.ts';
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

/** Names that editors, packages and people leave behind. */
const BACKUP =
  /^\.|^#.*#$|~$|\.(?:bak|old|orig|rej|save|swp|swo|tmp|disabled|off)\d*$|\.(?:dpkg|rpm|ucf)[-\w]*$|\.rpm(?:new|save|orig)$/;

/** True for the name of a backup or of a file that was put aside. */
export const isBackupName = (name: string): boolean => BACKUP.test(name);

const ABSENT = ['ENOENT', 'ENOTDIR', 'ELOOP'];

/**
 * Calls `read` with the descriptor of a file, its links resolved inside the root; null when it is absent. Raises the
 * errno of anything else.
 */
function opened<T>(host: Host, path: string, flags: number, read: (fd: number) => T): T | null {
  try {
    const fd = openInRoot(host.root, path, flags);
    try {
      return read(fd);
    } finally {
      closeSync(fd);
    }
  } catch (e) {
    if (isErrno(e, ...ABSENT)) return null;
    throw e;
  }
}

/** Facts of a file, its links followed; null when it is absent. Raises the errno of anything else. */
export function fileFacts(host: Host, path: string): FileFacts | null {
  return opened(host, path, O_PATH, (fd) => {
    const stats = fstatSync(fd);
    return {
      isFile: stats.isFile(),
      isFolder: stats.isDirectory(),
      executable: (stats.mode & 0o111) !== 0,
      ctimeMs: stats.ctimeMs,
      bornMs: stats.birthtimeMs > 0 ? stats.birthtimeMs : null,
    };
  });
}

/** Raises EACCES or EROFS for a file that is there and that this process cannot write. */
export function checkWritable(host: Host, path: string): void {
  opened(host, path, O_PATH, (fd) => accessSync(pathOf(fd), constants.W_OK));
}

/**
 * The first `max` bytes of a regular file; null when it is absent or no regular file. Raises the errno of anything
 * else.
 */
export function fileHead(host: Host, path: string, max: number): Buffer | null {
  return opened(host, path, O_PATH, (found) => {
    // Opening a device to read it may do something.
    if (!fstatSync(found).isFile()) return null;
    const fd = openSync(pathOf(found), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const bytes = Buffer.alloc(max);
      return bytes.subarray(0, readSync(fd, bytes, 0, max, 0));
    } finally {
      closeSync(fd);
    }
  });
}
