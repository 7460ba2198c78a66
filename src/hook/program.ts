import { realpathSync } from 'node:fs';
import { nativeExecutable } from '../addon/load.ts';
import type { HookProgram } from './install.ts';

/**
 * The nodes of the Debian package in its order; debian/hostdev.sh has the same. Installed as that, the hook takes
 * whichever is there when it is called.
 */
const PACKAGED = { cli: '/usr/lib/hostdev/dist/hostdev.js', nodes: ['/usr/bin/hostdev-node', '/usr/bin/node'] };

/** What the installed hook starts: this node and this hostdev. */
export function hookProgram(): HookProgram {
  const cli = realpathSync(process.argv[1] ?? process.execPath);
  return { native: nativeExecutable(), nodes: cli === PACKAGED.cli ? PACKAGED.nodes : [process.execPath], cli };
}
