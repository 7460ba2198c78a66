/** Bundles the fuzzer and runs it: node 20 runs no TypeScript. Arguments: see domainFuzz.ts. */
import { build } from 'esbuild';

await build({
  entryPoints: ['test/fuzz/domainFuzz.ts'],
  outfile: '.cache/domainFuzz.mjs',
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  logLevel: 'warning',
});
await import('../../.cache/domainFuzz.mjs');
