/** A file or stdin named on the command line, bounded: a device node or an endless pipe must not fill the memory. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { asError, orNull } from '../errors.ts';

/** What is read of a file; one byte more tells the reader that it is too large. */
export const MAX_INPUT = 16 * 1024 * 1024;
const MAX_BYTES = MAX_INPUT + 1;
const CHUNK_BYTES = 1024 * 1024;
const STDIN = 0;

/**
 * The bytes of a file, `-` being stdin, at most `maxBytes` (16 MiB + 1: the XML reader says that it is too large).
 * Raises HOSTDEV_FILE_ABSENT or HOSTDEV_NOT_PERMITTED.
 */
export async function readInput(file: string, maxBytes = MAX_BYTES): Promise<Uint8Array> {
  if (file === '-' && !isRegular(STDIN)) return readStream(maxBytes);
  // At once: node's streams take 5 ms to set up, a tenth of a command.
  let fd: number | null = null;
  try {
    fd = file === '-' ? STDIN : openSync(file, 'r');
    return readFd(fd, maxBytes);
  } catch (e) {
    throw asError(`Failed to read ${file}`, e, 'HOSTDEV_FILE_ABSENT');
  } finally {
    if (fd !== null && fd !== STDIN) closeSync(fd);
  }
}

const isRegular = (fd: number): boolean => orNull(() => fstatSync(fd).isFile()) ?? false;

function readFd(fd: number, maxBytes: number): Uint8Array {
  const chunks: Buffer[] = [];
  for (let size = 0; size < maxBytes; ) {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, maxBytes - size));
    const read = readSync(fd, chunk, 0, chunk.length, null);
    if (read === 0) break;
    chunks.push(chunk.subarray(0, read));
    size += read;
  }
  return Buffer.concat(chunks);
}

async function readStream(maxBytes: number): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer);
    size += (chunk as Buffer).length;
    if (size >= maxBytes) break;
  }
  return Buffer.concat(chunks).subarray(0, maxBytes);
}
