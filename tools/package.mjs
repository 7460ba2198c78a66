/**
 * `npm run package [-- --version V] [--without-node]`: the Debian packages `hostdev` and `hostdev-node`, into
 * .cache/package. Builds the program, takes Node from the npm package of the pinned version, lays all of it beside a
 * copy of debian/ and lets debhelper put it together: what is in which package is said there.
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { NODE } from './node.mjs';
import { fail, makeProgram, PREBUILDS, run, TOP } from './program.mjs';

const OUT = resolve(TOP, '.cache/package');
const TREE = join(OUT, 'hostdev');
/** Debian's name of this machine's architecture. */
const ARCH = { x64: 'amd64' }[process.arch];
const NODE_DEB = join(OUT, `hostdev-node_${NODE.version}_${ARCH}.deb`);

const sha256 = (file) => createHash('sha256').update(readFileSync(file)).digest('hex');

/** The version of the packages: package.json's, or that of --version, which the tests of an upgrade need. */
function version() {
  const given = process.argv.indexOf('--version');
  if (given < 0) return JSON.parse(readFileSync('package.json', 'utf8')).version;
  const word = process.argv[given + 1] ?? '';
  if (!/^[0-9][0-9A-Za-z.+~]*$/.test(word))
    fail(`--version ${JSON.stringify(word)}: not a version of a Debian package`);
  return word;
}

function needTools() {
  const missing = [
    ['dpkg-buildpackage', 'dpkg-dev'],
    ['dh', 'debhelper'],
    ['xz', 'xz-utils'],
  ].filter(([tool]) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).error);
  if (missing.length > 0)
    fail(`packages are built with what is missing here: apt-get install ${missing.map(([, p]) => p).join(' ')}`);
}

/** The folder with node and its licence, fetched once; each time its sums are compared with the pinned ones. */
function node() {
  const pinned = NODE[process.arch];
  if (pinned === undefined) fail(`no Node is pinned for ${process.arch}: tools/node.mjs`);
  const folder = resolve(TOP, '.cache', `${pinned.name}-${NODE.version}`);
  const binary = join(folder, 'package/bin/node');
  if (!existsSync(binary) || sha256(binary) !== pinned.binary) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    run('npm', ['pack', `${pinned.name}@${NODE.version}`, '--silent', '--pack-destination', folder]);
    const tarball = join(folder, `${pinned.name}-${NODE.version}.tgz`);
    if (sha256(tarball) !== pinned.tarball) fail(`${tarball} is not the pinned one: its SHA-256 is ${sha256(tarball)}`);
    run('tar', ['-xzf', tarball, '-C', folder, 'package/bin/node', 'package/LICENSE']);
    rmSync(tarball);
    if (sha256(binary) !== pinned.binary) fail(`${binary} is not the pinned one: its SHA-256 is ${sha256(binary)}`);
  }
  return join(folder, 'package');
}

function layTree(own) {
  rmSync(TREE, { recursive: true, force: true });
  mkdirSync(join(TREE, 'bin'), { recursive: true });
  for (const name of ['debian', 'dist', 'prebuilds', 'docs', 'hooks', 'systemd', 'README.md', 'CHANGELOG.md'])
    cpSync(name, join(TREE, name), { recursive: true });
  copyFileSync('debian/hostdev.sh', join(TREE, 'bin/hostdev'));
  chmodSync(join(TREE, 'bin/hostdev'), 0o755);
  // Where each shell looks, under the name that it expects.
  mkdirSync(join(TREE, 'completions'));
  for (const [shell, name] of Object.entries({ bash: 'hostdev', zsh: '_hostdev', fish: 'hostdev.fish' }))
    copyFileSync(`src/cli/completion.${shell}`, join(TREE, 'completions', name));
  // What hooks and units execute lies in /usr/bin: AppArmor's profile of libvirtd asks for it, and resolves links.
  const native = join(TREE, PREBUILDS, 'hostdev-native');
  renameSync(native, join(TREE, 'bin/hostdev-native'));
  chmodSync(join(TREE, 'bin/hostdev-native'), 0o755);
  symlinkSync('../../../../bin/hostdev-native', native);
  chmodSync(join(TREE, PREBUILDS, 'hostdev.node'), 0o644);
  // Nobody runs it by its name here: /usr/bin/hostdev chooses the node.
  const entry = readFileSync('dist/hostdev.js', 'utf8');
  rmSync(join(TREE, 'dist/hostdev.js'));
  writeFileSync(join(TREE, 'dist/hostdev.js'), entry.replace(/^#!.*\n/, ''), { mode: 0o644 });
  const { name, description, license, type } = JSON.parse(readFileSync('package.json', 'utf8'));
  writeFileSync(join(TREE, 'package.json'), `${JSON.stringify({ name, version: own, description, license, type })}\n`);
  const { stdout } = spawnSync('git', ['log', '-1', '--format=%aD'], { encoding: 'utf8' });
  const date = stdout?.trim() || new Date().toUTCString().replace('GMT', '+0000');
  const by = /^Maintainer: (.*)$/m.exec(readFileSync('debian/control', 'utf8'))[1];
  writeFileSync(
    join(TREE, 'debian/changelog'),
    `hostdev (${own}) unstable; urgency=medium\n\n  * See /usr/share/doc/hostdev/changelog.gz.\n\n -- ${by}  ${date}\n`,
  );
}

function layNode(folder) {
  copyFileSync(join(folder, 'bin/node'), join(TREE, 'bin/hostdev-node'));
  chmodSync(join(TREE, 'bin/hostdev-node'), 0o755);
  writeFileSync(join(TREE, 'node-version'), `${NODE.version}\n`);
  const header = `Node.js ${NODE.version}, as the npm package ${NODE[process.arch].name} has it.\nSource: the Node.js project.\n\n`;
  writeFileSync(join(TREE, 'debian/hostdev-node.copyright'), header + readFileSync(join(folder, 'LICENSE'), 'utf8'));
}

/**
 * 120 MB to pack, and seldom another: its package of the last time is taken while nothing that it is made of has
 * changed.
 */
function isNodeMade() {
  const of = ['tools/node.mjs', ...readdirSync('debian').map((n) => join('debian', n))].filter((f) =>
    /node|\/(control|rules)$/.test(f),
  );
  const digest = createHash('sha256');
  for (const file of of.sort()) digest.update(readFileSync(file));
  const stamp = `${NODE_DEB}.${digest.digest('hex').slice(0, 16)}`;
  const made = process.argv.includes('--without-node') || (existsSync(NODE_DEB) && existsSync(stamp));
  return { made, stamp };
}

process.chdir(TOP);
needTools();
const own = version();
makeProgram();
layTree(own);
const { made, stamp } = isNodeMade();
if (!made) layNode(node());
const log = join(OUT, 'build.log');
const { status } = spawnSync('dpkg-buildpackage', ['-b', '-us', '-uc', '-ui'], {
  cwd: TREE,
  env: { ...process.env, ...(made ? { DH_OPTIONS: '-Nhostdev-node' } : {}) },
  stdio: ['ignore', openSync(log, 'w'), openSync(log, 'a')],
});
if (status !== 0)
  fail(`dpkg-buildpackage failed:\n${readFileSync(log, 'utf8').split('\n').slice(-15).join('\n')}\nAll of it: ${log}`);
if (!made) writeFileSync(stamp, '');
process.stdout.write(`${join(OUT, `hostdev_${own}_${ARCH}.deb`)}\n${existsSync(NODE_DEB) ? `${NODE_DEB}\n` : ''}`);
