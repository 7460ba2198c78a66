import { realpathSync } from 'node:fs';
import { nativeExecutable } from '../addon/load.ts';
import type { HookProgram } from '../hook/install.ts';

/** What the installed hook starts: this node and this hostdev. */
export const hookProgram = (): HookProgram => ({
  native: nativeExecutable(),
  node: process.execPath,
  cli: realpathSync(process.argv[1] ?? ''),
});
