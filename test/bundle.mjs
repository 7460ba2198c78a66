/** Bundles the CLI into dist/: one CommonJS file, and the XML library beside it for the hook alone. Why so: docs/decisions/0005-bundle.md. */
import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { build } from 'esbuild';

rmSync('dist', { recursive: true, force: true });
const common = {
  outdir: 'dist',
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20',
  legalComments: 'linked',
};
await build({
  ...common,
  entryPoints: { hostdev: 'src/cli/main.ts' },
  define: { 'import.meta.dirname': '__dirname' },
  // A real import() would load node's loader of ES modules.
  supported: { 'dynamic-import': false },
  plugins: [
    {
      name: 'xmldom beside',
      setup: (b) => b.onResolve({ filter: /^@xmldom\/xmldom$/ }, () => ({ path: './xmldom.js', external: true })),
    },
  ],
});
await build({ ...common, entryPoints: { xmldom: '@xmldom/xmldom' } });
// The package's own says "module".
writeFileSync('dist/package.json', '{"type":"commonjs"}\n');
chmodSync('dist/hostdev.js', 0o755);
