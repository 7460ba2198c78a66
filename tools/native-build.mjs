/** Builds the addon and hostdev-native into build/Release, when a source is newer than they are. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync, utimesSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const top = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(top);

const OUTPUTS = ['build/Release/hostdev.node', 'build/Release/hostdev-native'];
const sources = [
  'binding.gyp',
  'package-lock.json',
  ...readdirSync('native')
    .filter((n) => /\.(cc|h)$/.test(n))
    .map((n) => join('native', n)),
];
const time = (file) => (existsSync(file) ? statSync(file).mtimeMs : 0);
const oldest = Math.min(...OUTPUTS.map(time));
if (oldest > 0 && sources.every((s) => time(s) <= oldest)) process.exit(0);

const fail = (line) => {
  process.stderr.write(`hostdev: ${line}\n`);
  process.exit(1);
};
for (const [tool, pkg] of [
  ['g++', 'g++'],
  ['make', 'make'],
  ['python3', 'python3'],
]) {
  if (spawnSync(tool, ['--version'], { stdio: 'ignore' }).error)
    fail(`${tool} is missing, and the native part is built with it: apt-get install ${pkg}`);
}

const begun = new Date();
// Headers that lie beside node make the build independent of the network.
const prefix = dirname(dirname(process.execPath));
const nodedir = existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
const gyp = spawnSync(
  process.execPath,
  // Not `rebuild`, which removes build/ first: what runs meanwhile would find no native part.
  ['node_modules/node-gyp/bin/node-gyp.js', 'configure', 'build', '--silent', '--jobs=2', ...nodedir],
  { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' },
);
if (gyp.status !== 0) {
  process.stderr.write(`${gyp.stdout}${gyp.stderr}`);
  fail('the native part does not build: see above');
}
// make leaves alone what a change did not concern; as old as this build it is not built again the next time.
for (const file of OUTPUTS) utimesSync(file, begun, begun);
