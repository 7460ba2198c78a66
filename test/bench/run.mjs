/** Bundles the benchmark and runs it: node 20 runs no TypeScript. */
import { build } from 'esbuild';

await build({
  entryPoints: ['test/bench/bench.ts'],
  outfile: '.cache/bench.mjs',
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  logLevel: 'warning',
});
process.env.HOSTDEV_VM_DIR = `${process.cwd()}/test/vm`;
process.env.HOSTDEV_NATIVE_DIR ??= `${process.cwd()}/build/Release`;
await import('../../.cache/bench.mjs');
