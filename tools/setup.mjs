/**
 * What a fresh clone needs before anything runs: the dependencies, the native part, the bundle. Plain JavaScript
 * without dependencies, because it runs before there are any. Each part is skipped when it is up to date. What cannot
 * be had is said in one line with the package that brings it.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const TOP = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(TOP);

const fail = (line) => {
  process.stderr.write(`hostdev: ${line}\n`);
  process.exit(1);
};

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19))
  fail(`node ${process.versions.node} is too old: hostdev needs 20.19 or later (package nodejs)`);
if (process.platform !== 'linux') fail('hostdev is for Linux');

function run(what, command, args) {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 2, 2] });
  if (error) fail(`${what}: ${command} could not be started: ${error.message}`);
  if (status !== 0) fail(`${what} failed: see above`);
}

/** Runs `make` unless the text of all `sources` is what it was the last time and `output` is there. */
function upToDate(name, output, sources, make) {
  const hash = createHash('sha256');
  for (const file of sources) hash.update(`${file}\0`).update(readFileSync(file));
  const digest = hash.digest('hex');
  const stamp = join('.cache', `${name}.stamp`);
  if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return;
  make();
  mkdirSync('.cache', { recursive: true });
  writeFileSync(stamp, digest);
}

const files = (dir) =>
  readdirSync(dir, { recursive: true })
    .map((n) => join(dir, n))
    .filter((f) => statSync(f).isFile())
    .sort();

upToDate('dependencies', 'node_modules/esbuild', ['package-lock.json'], () =>
  run('npm ci', 'npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund']),
);
run('The native part', process.execPath, ['tools/native-build.mjs']);
run('The simulated host', process.execPath, ['test/simhost/build.mjs']);
upToDate('bundle', 'dist/hostdev.js', [...files('src'), 'package.json', 'tools/bundle.mjs'], () =>
  run('The bundle', process.execPath, ['tools/bundle.mjs']),
);
upToDate(
  'story',
  '.cache/story.mjs',
  [...files('src'), ...files('test/mock'), ...files('test/scenarios'), ...files('test/demo')],
  () =>
    run('The story', 'node_modules/.bin/esbuild', [
      'test/demo/story.ts',
      '--bundle',
      '--platform=node',
      '--format=esm',
      '--target=node20',
      '--log-level=warning',
      '--outfile=.cache/story.mjs',
    ]),
);
