/** clang-format and clang-tidy over the native part. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));
const files = readdirSync('native').map((n) => join('native', n));
const sources = files.filter((f) => f.endsWith('.cc'));

function lint(tool, args) {
  const { status, error } = spawnSync(tool, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (error) process.stderr.write(`hostdev: ${tool} is missing: apt-get install ${tool}\n`);
  if (status !== 0) process.exit(1);
}

lint('clang-format', ['--dry-run', '-Werror', ...files.filter((f) => /\.(cc|h)$/.test(f))]);
const includes = [
  '-Inative',
  '-isystem',
  'node_modules/node-addon-api',
  '-isystem',
  join(dirname(dirname(process.execPath)), 'include/node'),
];
const defines = ['-DNAPI_VERSION=8', '-DNODE_ADDON_API_CPP_EXCEPTIONS', '-DNODE_ADDON_API_DISABLE_DEPRECATED'];
lint('clang-tidy', ['--quiet', ...sources, '--', '-std=c++20', ...includes, ...defines]);
