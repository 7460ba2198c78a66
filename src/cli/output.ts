/** stdout and stderr, written at once: node's own streams take 3 ms to set up, a quarter of a `list`. */
import { writeSync } from 'node:fs';
import { EXIT, isErrno, isSysError } from '../errors.ts';

const AGAIN_MS = 5;

function writeAll(fd: 1 | 2, text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (e) {
      // A pipe that somebody has set non-blocking, and that is full.
      if (!isErrno(e, 'EAGAIN')) throw e;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, AGAIN_MS);
    }
  }
}

/**
 * A reader that goes away (| head) is no fault: there is nobody left to tell. A full disk is one, and makes the exit
 * code.
 */
export function out(text: string): void {
  try {
    writeAll(1, text);
  } catch (e) {
    if (isErrno(e, 'EPIPE')) return;
    err(`hostdev: Failed to write to stdout: ${isSysError(e) ? e.code : e}\n`);
    process.exitCode = EXIT.failed;
  }
}

/** For people. Where it cannot be written there is nobody to tell. */
export function err(text: string): void {
  try {
    writeAll(2, text);
  } catch {}
}
