/**
 * Makes the program as the packages ship it: dependencies, native part, bundle, and the native part again as
 * prebuilds/linux-ARCH. `npm pack` runs this first (prepack), so a clean clone packs a working program or nothing;
 * tools/package.mjs takes what it made. Plain JavaScript without dependencies, because it runs before there are any.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { newestGlibc, OLDEST_GLIBC } from './glibc.mjs';

export const TOP = dirname(dirname(fileURLToPath(import.meta.url)));
export const PREBUILDS = `prebuilds/linux-${process.arch}`;

export function fail(line) {
  process.stderr.write(`hostdev: ${line}\n`);
  process.exit(1);
}

/** Runs a command in `cwd`, what it says on stderr; ends the program when it fails. */
export function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 2, 2], cwd: TOP, ...options });
  if (error) fail(`${command} could not be started: ${error.message}`);
  if (status !== 0) fail(`${command} ${args.join(' ')} failed (exit code ${status}): see above`);
}

export function makeProgram() {
  process.chdir(TOP);
  if (!existsSync('binding.gyp'))
    fail('there are no sources here to make the program of: pack a clone of the repository');
  // Of the clone's lock file; a folder that another lock file made would pack other code.
  if (!existsSync('node_modules/.package-lock.json'))
    // Not where -g of whoever installs us says.
    run('npm', ['ci', '--global=false', '--ignore-scripts', '--no-audit', '--no-fund']);
  run(process.execPath, ['tools/native-build.mjs']);
  run(process.execPath, ['tools/bundle.mjs']);
  rmSync('prebuilds', { recursive: true, force: true });
  mkdirSync(PREBUILDS, { recursive: true });
  for (const name of ['hostdev.node', 'hostdev-native'])
    copyFileSync(join('build/Release', name), join(PREBUILDS, name));
  const newest = newestGlibc(join(PREBUILDS, 'hostdev.node'));
  if (newest > OLDEST_GLIBC)
    fail(
      `hostdev.node needs glibc 2.${newest}, and packages promise 2.${OLDEST_GLIBC}: build on Debian 12 or as old a system`,
    );
  // The proof that what is packed works, with what is packed only.
  const { status, stdout, stderr } = spawnSync(process.execPath, ['dist/hostdev.js', '--version'], {
    encoding: 'utf8',
    env: { ...process.env, HOSTDEV_NATIVE_DIR: resolve(PREBUILDS) },
  });
  if (status !== 0 || !stdout.startsWith('hostdev ')) fail(`the program that was made does not run: ${stderr}`);
}

// npm packs what it clones itself (npm i git+…) without asking prepack; prepare it asks, there with this variable set,
// and at every `npm ci` in a clone too.
const isNpmsClone = process.env._PACOTE_NO_PREPARE_ !== undefined;
if (process.argv[1] === fileURLToPath(import.meta.url) && (process.argv[2] !== '--if-npms-clone' || isNpmsClone))
  makeProgram();
