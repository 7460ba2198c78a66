/** clang-format and clang-tidy over the native part, clang-format over the simulated host of the tests. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));
const files = readdirSync('native')
  .filter((n) => /\.(cc|h)$/.test(n))
  .map((n) => join('native', n));
const sim = readdirSync('test/simhost')
  .filter((n) => /\.(cc|h)$/.test(n))
  .map((n) => join('test/simhost', n));
const headers = join(dirname(dirname(process.execPath)), 'include/node');

function lint(tool, args) {
  const { status, error } = spawnSync(tool, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (error) process.stderr.write(`hostdev: ${tool} is missing: apt-get install ${tool}\n`);
  if (status !== 0) process.exit(1);
}

lint('clang-format', ['--dry-run', '-Werror', ...files, ...sim]);
lint('clang-tidy', [
  '--quiet',
  ...files.filter((f) => f.endsWith('.cc')),
  '--',
  '-std=c++20',
  '-Inative',
  ...['node_modules/node-addon-api', headers].flatMap((d) => ['-isystem', d]),
  ...['NAPI_VERSION=8', 'NODE_ADDON_API_CPP_EXCEPTIONS_ALL', 'NODE_ADDON_API_DISABLE_DEPRECATED'].map((d) => `-D${d}`),
]);
