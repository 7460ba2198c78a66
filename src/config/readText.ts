/**
 * Configuration files and folders as they lie on the disk: bounded, UTF-8, and an error that names the place and the
 * way out.
 */
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { O_PATH, openInRoot, pathOf } from '../addon/inRoot.ts';
import { now } from '../clock.ts';
import { asError, HostdevError, isAbsent, isErrno, orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Finding, fatal } from './place.ts';

const CHUNK = 65536;
const AGAIN_MS = 5;
/** Time for what `<(command)` has to say. */
const PIPE_MS = 10_000;

/** The text of a file, or the finding that says why there is none. */
export type ReadText = { text: string } | { finding: Finding };

/**
 * Reads a configuration file of at most `max` bytes. What is in the file (too much, not UTF-8) is a finding; that it
 * cannot be read raises HOSTDEV_FILE_ABSENT (also for a folder) or HOSTDEV_NOT_PERMITTED.
 */
export function readText(host: Host, file: string, max: number): ReadText {
  const bytes = readBytes(host, file, max);
  const at = (line: number, column: number) => ({ file, line, column, key: '' });
  if (bytes.length > max) {
    return {
      finding: fatal(at(0, 0), `is larger than ${max / 1024 / 1024} MiB`, {
        hint: 'Is this the right file? A configuration has some kilobytes.',
      }),
    };
  }
  try {
    return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    const { line, column, byte } = firstBadByte(bytes);
    return {
      finding: fatal(at(line, column), `is not UTF-8: byte 0x${byte.toString(16).padStart(2, '0')}`, {
        hint: 'Save the file as UTF-8.',
      }),
    };
  }
}

/** Opens what a path names. Below a root that is not the machine's own its links stay inside that. */
function openBelow(host: Host, path: string, flags: number): number {
  const below = host.below(path);
  return below === null ? openSync(path, flags) : openInRoot(host.root, below, flags);
}

function readBytes(host: Host, file: string, max: number): Buffer {
  try {
    // A named pipe that nobody writes to must not hold a guest's start: without waiting it is an empty file.
    const fd = openBelow(host, file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      if (fstatSync(fd).isDirectory()) throw notReadable(file, 'it is a folder', 'Name a file in it.');
      const parts: Buffer[] = [];
      const from = now();
      for (let size = 0; size <= max; ) {
        const chunk = Buffer.alloc(CHUNK);
        const n = readSome(fd, chunk);
        if (n === 0) break;
        if (n !== null) {
          parts.push(chunk.subarray(0, n));
          size += n;
        } else if (now() - from > PIPE_MS)
          throw new HostdevError('HOSTDEV_TIMEOUT', `Failed to read ${file}: nothing came through the pipe`);
      }
      return Buffer.concat(parts);
    } finally {
      closeSync(fd);
    }
  } catch (e) {
    throw readError(file, e);
  }
}

/** Null: a pipe whose writer has nothing yet, looked at again a little later. */
function readSome(fd: number, chunk: Buffer): number | null {
  try {
    return readSync(fd, chunk);
  } catch (e) {
    if (!isErrno(e, 'EAGAIN')) throw e;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, AGAIN_MS);
    return null;
  }
}

/**
 * The names in a folder that end in `suffix`, sorted by bytes as glob and oslo.config sort them. Raises as {@link
 * readText}.
 */
export function namesIn(host: Host, folder: string, suffix: string): string[] {
  try {
    const fd = openBelow(host, folder, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      return readdirSync(pathOf(fd))
        .filter((n) => n.endsWith(suffix) && !n.startsWith('.'))
        .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    } finally {
      closeSync(fd);
    }
  } catch (e) {
    throw readError(folder, e);
  }
}

/**
 * hostdev.toml and conf.d of a folder, those of them that are there. A link that leads nowhere is there: reading it
 * says so.
 */
export function ownFiles(host: Host, folder: string): string[] {
  const names = kindOf(host, folder) === 'folder' ? namesIn(host, folder, '') : [];
  const more = join(folder, 'conf.d');
  return [
    ...(names.includes('hostdev.toml') ? [join(folder, 'hostdev.toml')] : []),
    ...(names.includes('conf.d') && kindOf(host, more) !== 'file'
      ? namesIn(host, more, '.toml').map((n) => join(more, n))
      : []),
  ];
}

/** What a path is; null when nothing is there. Raises HOSTDEV_NOT_PERMITTED. */
export function kindOf(host: Host, path: string): 'file' | 'folder' | null {
  try {
    const fd = openBelow(host, path, O_PATH);
    try {
      return fstatSync(fd).isDirectory() ? 'folder' : 'file';
    } finally {
      closeSync(fd);
    }
  } catch (e) {
    if (isAbsent(e)) return null;
    throw readError(path, e);
  }
}

const notReadable = (file: string, why: string, hint: string): HostdevError =>
  new HostdevError('HOSTDEV_FILE_ABSENT', `Failed to read ${file}: ${why}`, { hint });

const readError = (file: string, e: unknown): HostdevError =>
  asError(`Failed to read ${file}`, e, 'HOSTDEV_FILE_ABSENT', {
    hint: 'Check the path; if it is a link, it must lead to a file below the root.',
  });

/** Where the longest good beginning ends, by bisection. */
function firstBadByte(bytes: Buffer): { line: number; column: number; byte: number } {
  const good = (n: number): boolean => {
    // As a stream, so that a character cut in two at the end is no fault.
    return (
      orNull(() => new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, n), { stream: true })) !== null
    );
  };
  let from = 0;
  let to = bytes.length;
  while (to - from > 1) {
    const middle = (from + to) >> 1;
    if (good(middle)) from = middle;
    else to = middle;
  }
  const before = bytes.subarray(0, to - 1);
  const lastLine = before.subarray(before.lastIndexOf(10) + 1).toString('utf8');
  let line = 1;
  for (const b of before) if (b === 10) line += 1;
  return { line, column: lastLine.length + 1, byte: bytes[to - 1] ?? 0 };
}
