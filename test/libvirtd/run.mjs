/** Bundles the restarts of libvirtd and runs them: node 20 runs no TypeScript. */
import { spawnSync } from 'node:child_process';
import { build } from 'esbuild';

await build({
  entryPoints: ['test/libvirtd/restartsMain.ts'],
  outfile: '.cache/restarts.mjs',
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  logLevel: 'warning',
});
process.env.HOSTDEV_NATIVE_DIR ??= `${process.cwd()}/build/Release`;
// What is not in use any more is to be gone when the memory is measured.
const { status } = spawnSync(process.execPath, ['--expose-gc', '.cache/restarts.mjs'], { stdio: 'inherit' });
process.exitCode = status ?? 1;
