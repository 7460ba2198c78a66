/**
 * Bundles the CLI into dist/: one file and a few chunks that are loaded when a command needs them. Not for size: node loads one module in about a
 * millisecond, and the hook and `list` are judged by their start.
 */
import { chmodSync, rmSync } from 'node:fs';
import { build } from 'esbuild';

rmSync('dist', { recursive: true, force: true });
await build({
  entryPoints: { hostdev: 'src/cli/main.ts' },
  outdir: 'dist',
  bundle: true,
  splitting: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  legalComments: 'linked',
  chunkNames: '[name]-[hash]',
});
chmodSync('dist/hostdev.js', 0o755);
