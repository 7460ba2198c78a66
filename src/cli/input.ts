/** A file or stdin named on the command line, bounded: a device node or an endless pipe must not fill the memory. */
import { open } from 'node:fs/promises';
import { HostdevError, isErrno } from '../errors.ts';

/** What is read of a file; one byte more tells the reader that it is too large. */
export const MAX_INPUT = 16 * 1024 * 1024;
const MAX_BYTES = MAX_INPUT + 1;

/** The bytes of a file, `-` being stdin, at most `maxBytes` (16 MiB + 1: the XML reader says that it is too large). Raises HOSTDEV_FILE_ABSENT or HOSTDEV_NOT_PERMITTED. */
export async function readInput(file: string, maxBytes = MAX_BYTES): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let size = 0;
  const add = (chunk: Buffer): boolean => {
    chunks.push(chunk);
    size += chunk.length;
    return size < maxBytes;
  };
  if (file === '-') {
    for await (const chunk of process.stdin) if (!add(chunk as Buffer)) break;
  } else {
    const handle = await open(file).catch((e: unknown) => {
      if (isErrno(e, 'EACCES', 'EPERM'))
        throw new HostdevError('HOSTDEV_NOT_PERMITTED', `Failed to read ${file}: EACCES`, { cause: e });
      throw new HostdevError('HOSTDEV_FILE_ABSENT', `Failed to read ${file}: ${(e as Error).message}`, { cause: e });
    });
    try {
      for await (const chunk of handle.createReadStream()) if (!add(chunk as Buffer)) break;
    } catch (e) {
      throw new HostdevError('HOSTDEV_FILE_ABSENT', `Failed to read ${file}: ${(e as Error).message}`, { cause: e });
    } finally {
      await handle.close().catch(() => {});
    }
  }
  return Buffer.concat(chunks).subarray(0, maxBytes);
}
