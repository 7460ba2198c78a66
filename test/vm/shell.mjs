#!/usr/bin/env node
// Boots a machine and leaves it up until Ctrl-C. usage: node test/vm/shell.mjs [profile] [--install] [--boot]
//   --install puts the built hostdev into it; --boot: one of the boot suite, with a disk of its own
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const here = path.dirname(fileURLToPath(import.meta.url));
const temp = mkdtempSync(path.join(os.tmpdir(), 'hostdev-vm-shell-'));
const outfile = path.join(temp, 'shell.mjs');
try {
  await build({
    entryPoints: [path.join(here, 'shell.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    logLevel: 'warning',
  });
  process.env.HOSTDEV_VM_DIR = here;
  const { shell } = await import(pathToFileURL(outfile).href);
  rmSync(temp, { recursive: true });
  await shell(process.argv.slice(2));
} catch (error) {
  rmSync(temp, { recursive: true, force: true });
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
