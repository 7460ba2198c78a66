/**
 * Bundles the CLI into dist/ as layers, a CommonJS file each; LAYERS says what is in which. A layer finds the modules
 * of those above it in the list in their files, so each module is there once; a layer is loaded when a command asks for
 * it by import(). Why: docs/decisions/0005-bundle.md.
 */
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { build } from 'esbuild';

const LAYERS = [
  ['list', ['src/cli/main.ts']],
  ['input', ['src/cli/input.ts']],
  // What the commands over pools need too, which have no use for the rest of `engine`.
  [
    'common',
    [
      ...['src/binding/drivers/denylist.ts', 'src/pci/resolve.ts', 'src/store/files.ts'],
      ...['allowable', 'hookDefaults', 'place'].map((n) => `src/config/${n}.ts`),
    ],
  ],
  [
    'engine',
    [
      ...['bind', 'group', 'help', 'journal', 'log', 'show', 'status', 'vf'].map((n) => `src/cli/${n}.ts`),
      ...['guards', 'quarantine', 'session'].map((n) => `src/binding/${n}.ts`),
    ],
  ],
  // What the hook reads to see whether there is a configuration; `config` and `toml` it reads only then.
  ['settings', ['src/config/hookSettings.ts']],
  // What the configuration and Nova's grammar both need: else the one would load all of the other.
  ['schema', ['src/config/schema.ts', 'src/config/jsonText.ts']],
  ['simulate', ['src/cli/simulate.ts']],
  ['config', ['src/config/load.ts']],
  ['toml', ['src/config/hostdevToml.ts', 'toml-eslint-parser']],
  // What boot/ made of the wishes, for a list; and the wishes themselves, for a status.
  ['boot', ['src/boot/report.ts']],
  ['wished', ['src/actions/wishes.ts']],
  ['pools', ['config', 'pool', 'claim', 'placement'].map((n) => `src/cli/${n}.ts`)],
  ['wishes', ['src/cli/wish.ts', 'src/cli/boot.ts', 'src/actions/persist.ts']],
  ['completion', ['src/cli/completion.ts']],
  ['hook', ['src/cli/hook.ts', 'src/cli/hookRun.ts']],
  ['doctor', ['src/cli/doctor.ts', 'src/cli/groupWhy.ts']],
  ['import', ['src/cli/import.ts']],
  ['domain', ['src/cli/domainCheck.ts', 'src/cli/viommu.ts']],
  ['plan', ['src/cli/domainPlan.ts']],
  ['guests', ['src/cli/guest.ts', 'src/actions/guests.ts']],
  ['plug', ['src/cli/plug.ts']],
  ['define', ['src/cli/domainDefine.ts']],
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
  // Of two modules of a layer that export one name, the layer would have neither, and who asks for it `undefined`.
  logOverride: { 'ambiguous-reexport': 'error' },
  plugins: [
    {
      name: 'layers',
      setup: (b) =>
        b.onResolve({ filter: /^(\.|(@xmldom\/xmldom|toml-eslint-parser)$)/ }, ({ path, resolveDir }) => {
          const file = path.startsWith('.') ? relative('.', resolve(resolveDir, path)) : path;
          const layer = layerOf.get(file) ?? name;
          return layer === name ? null : { path: `./${layer}.js`, external: true };
        }),
    },
  ],
});

rmSync('dist', { recursive: true, force: true });
mkdirSync('dist');
/** The packages of which something is in the bundle. */
const packages = new Set();
for (const [name, files] of LAYERS) {
  // First which modules it takes, then with all of them exported, for the layers above.
  const all = (list) => ({
    contents: list.map((f) => `export * from '${f.replace(/^src/, './src')}';`).join('\n'),
    resolveDir: '.',
  });
  const first = await build({ ...options(name), stdin: all(files), metafile: true, write: false });
  for (const file of Object.keys(first.metafile.inputs)) {
    const [folder] = /^node_modules\/(@[^/]+\/)?[^/]+/.exec(file) ?? [];
    if (folder !== undefined) packages.add(folder);
  }
  const modules = Object.keys(first.metafile.inputs).filter((f) => f.startsWith('src/'));
  const heavy = modules.filter(
    (f) => name === 'list' && /^src\/(binding|hook|domain|store|config|nova|pool)\//.test(f),
  );
  if (heavy.length > 0)
    throw new Error(`the layer of list would have ${heavy.join(', ')}: name a layer for it in LAYERS`);
  for (const f of modules) layerOf.set(f, name);
  await build({
    ...options(name),
    stdin: all(modules.length > 0 ? modules : files),
    outfile: join('dist', `${name}.js`),
  });
}
// A NODE_COMPILE_CACHE of whoever calls names a folder that is not ours, and node would run the code that it finds
// there.
await build({
  ...options(''),
  entryPoints: ['src/start/hostdev.ts'],
  outfile: 'dist/hostdev.js',
  banner: { js: '#!/usr/bin/env -S -u NODE_COMPILE_CACHE node' },
});
// Their licences ask to go with every copy.
const licences = [...packages]
  .sort()
  .map((p) => `${p.slice('node_modules/'.length)}\n\n${readFileSync(`${p}/LICENSE`, 'utf8')}`);
writeFileSync('dist/LICENSES', licences.join('\n\n'));
for (const shell of ['bash', 'zsh', 'fish']) copyFileSync(`src/cli/completion.${shell}`, `dist/completion.${shell}`);
// The package's own says "module".
writeFileSync('dist/package.json', '{"type":"commonjs"}\n');
chmodSync('dist/hostdev.js', 0o755);
