/**
 * What a test needs and this machine may lack: said loudly where tests may be skipped, an error where none may be
 * (HOSTDEV_NO_SKIP=1, as in CI).
 */
import { spawnSync } from 'node:child_process';

/** Whether the program is installed. */
export const has = (command: string): boolean => spawnSync(command, ['--version']).error === undefined;

/** For `skipIf`: whether something is lacking, as `why` says it with the package that brings it; null: nothing is. */
export function isLacking(why: string | null): boolean {
  if (why === null) return false;
  if (process.env.HOSTDEV_NO_SKIP === '1') throw new Error(`Tests would be skipped: ${why}`);
  process.stderr.write(`\n!! SKIPPED: ${why}\n`);
  return true;
}
