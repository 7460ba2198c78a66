import { realpathSync } from 'node:fs';
import type { HookProgram } from '../actions/hookInstall.ts';
import { nativeExecutable } from '../addon/load.ts';

/** What the installed hook starts: this node and this hostdev. */
export const hookProgram = (): HookProgram => ({
  native: nativeExecutable(),
  node: process.execPath,
  cli: realpathSync(process.argv[1] ?? ''),
});
