/** Which kernel's life a file of our state is of: journal and books describe one, and mean nothing to the next. */
import { statfsSync } from 'node:fs';
import { orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { inFolder } from '../store/folder.ts';

/** include/uapi/linux/magic.h TMPFS_MAGIC, RAMFS_MAGIC. */
const IN_MEMORY = [0x01021994, 0x858458f6];

/**
 * True for a file that names `boot` (null: it names none, as those of older versions). Such a one is of this boot where
 * our folder does not outlive one. Where the kernel's own boot is not to be told (a static tree) all are.
 */
export function isOfThisBoot(host: Host, boot: string | null): boolean {
  const now = host.boot;
  return now === null || (boot === null ? livesInMemory(host) : boot === now);
}

function livesInMemory(host: Host): boolean {
  return orNull(() => inFolder(host, host.state, (at) => IN_MEMORY.includes(statfsSync(at()).type))) ?? false;
}
