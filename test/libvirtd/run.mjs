/** Bundles one of the programs here, which is the first word, and runs it: node 20 runs no TypeScript. */
import { spawnSync } from 'node:child_process';
import { build } from 'esbuild';

const name = process.argv[2];
const outfile = `.cache/${name}.mjs`;
await build({
  entryPoints: [`test/libvirtd/${name}.ts`],
  outfile,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  logLevel: 'warning',
});
process.env.HOSTDEV_NATIVE_DIR ??= `${process.cwd()}/build/Release`;
// What is not in use any more is to be gone when the memory is measured.
const { status } = spawnSync(process.execPath, ['--expose-gc', outfile], { stdio: 'inherit' });
process.exitCode = status ?? 1;
