/**
 * Bundles the CLI into dist/ as layers, a CommonJS file each: `hostdev` holds all that `list` needs, `engine` what the other commands add, `hook` what only the
 * hook does, `xmldom` the XML library. A layer finds the modules of those below it in their files, so each module is there once; a layer
 * above is loaded when a command asks for it by import(). Why: docs/decisions/0005-bundle.md.
 */
import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { build } from 'esbuild';

const LAYERS = [
  ['hostdev', ['src/cli/main.ts']],
  [
    'engine',
    ['bind', 'group', 'help', 'show', 'status', 'vf'].map((n) => `src/cli/${n}.ts`).concat('src/binding/guards.ts'),
  ],
  ['hook', ['src/cli/hook.ts', 'src/cli/hookRun.ts']],
  ['xmldom', ['@xmldom/xmldom']],
];

/** The layer that each module lies in; what is asked for by import() is known before its layer is made. */
const layerOf = new Map(LAYERS.flatMap(([name, files]) => files.map((f) => [f, name])));

const options = (name) => ({
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20',
  // A real import() would load node's loader of ES modules.
  supported: { 'dynamic-import': false },
  define: { 'import.meta.dirname': '__dirname' },
  legalComments: 'inline',
  plugins: [
    {
      name: 'layers',
      setup: (b) =>
        b.onResolve({ filter: /^(\.|@xmldom\/xmldom$)/ }, ({ path, resolveDir }) => {
          const file = path.startsWith('.') ? relative('.', resolve(resolveDir, path)) : path;
          const layer = layerOf.get(file) ?? name;
          return layer === name ? null : { path: `./${layer}.js`, external: true };
        }),
    },
  ],
});

rmSync('dist', { recursive: true, force: true });
for (const [name, files] of LAYERS) {
  // First which modules it takes, then with all of them exported, for the layers above.
  const all = (list) => ({
    contents: list.map((f) => `export * from '${f.replace(/^src/, './src')}';`).join('\n'),
    resolveDir: '.',
  });
  const first = await build({ ...options(name), stdin: all(files), metafile: true, write: false });
  const modules = Object.keys(first.metafile.inputs).filter((f) => f.startsWith('src/'));
  for (const f of modules) layerOf.set(f, name);
  await build({
    ...options(name),
    stdin: all(modules.length > 0 ? modules : files),
    outfile: join('dist', `${name}.js`),
    banner: name === 'hostdev' ? { js: '#!/usr/bin/env node' } : {},
  });
}
// The package's own says "module".
writeFileSync('dist/package.json', '{"type":"commonjs"}\n');
chmodSync('dist/hostdev.js', 0o755);
