/** Which glibc a binary needs: what is built here must load on the oldest system that is promised. */
import { readFileSync } from 'node:fs';

/** Minor version: glibc 2.34 is Ubuntu 22.04's (2.35) and RHEL 9's (2.34). */
export const OLDEST_GLIBC = 34;

/**
 * The newest glibc whose symbols `file` asks for, as the minor version. The names of versions stand in its string table
 * in plain text.
 */
export const newestGlibc = (file) =>
  Math.max(0, ...[...readFileSync(file, 'latin1').matchAll(/\0GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor)));
