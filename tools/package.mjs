/**
 * `npm run package [-- --version V]`: the Debian packages `hostdev` and `hostdev-node`, into .cache/package. Builds the program, takes Node from the npm package of the pinned version, lays
 * all of it beside a copy of debian/ and lets debhelper put it together: what is in which package is said there.
 */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { spawnSync } from 'node:child_process';
import { NODE } from './node.mjs';
import { fail, makeProgram, PREBUILDS, run, TOP } from './program.mjs';

const OUT = resolve(TOP, '.cache/package');
const TREE = join(OUT, 'hostdev');

const sha256 = (file) => createHash('sha256').update(readFileSync(file)).digest('hex');

/** The version of the packages: package.json's, or that of --version, which the tests of an upgrade need. */
function version() {
  const given = process.argv.indexOf('--version');
  if (given < 0) return JSON.parse(readFileSync('package.json', 'utf8')).version;
  const word = process.argv[given + 1] ?? '';
  if (!/^[0-9][0-9A-Za-z.+~]*$/.test(word)) fail(`--version ${JSON.stringify(word)}: not a version of a Debian package`);
  return word;
}

function needTools() {
  const missing = [
    ['dpkg-buildpackage', 'dpkg-dev'],
    ['dh', 'debhelper'],
    ['xz', 'xz-utils'],
  ].filter(([tool]) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).error);
  if (missing.length > 0) fail(`packages are built with what is missing here: apt-get install ${missing.map(([, p]) => p).join(' ')}`);
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

function layTree(own, nodeFolder) {
  rmSync(OUT, { recursive: true, force: true });
  mkdirSync(join(TREE, 'bin'), { recursive: true });
  for (const name of ['debian', 'dist', 'prebuilds', 'docs', 'package.json', 'README.md', 'CHANGELOG.md'])
    cpSync(name, join(TREE, name), { recursive: true });
  const put = (from, to, mode) => {
    copyFileSync(from, to);
    chmodSync(to, mode);
  };
  put('debian/hostdev.sh', join(TREE, 'bin/hostdev'), 0o755);
  put(join(nodeFolder, 'bin/node'), join(TREE, 'bin/hostdev-node'), 0o755);
  // What hooks and units execute lies in /usr/bin: AppArmor's profile of libvirtd asks for it, and resolves links.
  const native = join(TREE, PREBUILDS, 'hostdev-native');
  renameSync(native, join(TREE, 'bin/hostdev-native'));
  chmodSync(join(TREE, 'bin/hostdev-native'), 0o755);
  symlinkSync('../../../../bin/hostdev-native', native);
  // A library, as the linker's are; and nobody runs a file of the bundle by its name.
  chmodSync(join(TREE, PREBUILDS, 'hostdev.node'), 0o644);
  chmodSync(join(TREE, 'dist/hostdev.js'), 0o644);
  writeFileSync(join(TREE, 'node-version'), `${NODE.version}\n`);
  const header = `Node.js ${NODE.version}, as the npm package ${NODE[process.arch].name} has it.\nSource: the Node.js project.\n\n`;
  writeFileSync(join(TREE, 'debian/hostdev-node.copyright'), header + readFileSync(join(nodeFolder, 'LICENSE'), 'utf8'));
  const { stdout } = spawnSync('git', ['log', '-1', '--format=%aD'], { encoding: 'utf8' });
  const date = stdout?.trim() || new Date().toUTCString().replace('GMT', '+0000');
  const by = /^Maintainer: (.*)$/m.exec(readFileSync('debian/control', 'utf8'))[1];
  writeFileSync(
    join(TREE, 'debian/changelog'),
    `hostdev (${own}) unstable; urgency=medium\n\n  * See /usr/share/doc/hostdev/changelog.gz.\n\n -- ${by}  ${date}\n`,
  );
}

process.chdir(TOP);
needTools();
const own = version();
makeProgram();
layTree(own, node());
run('dpkg-buildpackage', ['-b', '-us', '-uc', '-ui'], { cwd: TREE });
for (const name of readdirSync(OUT).filter((n) => n.endsWith('.deb'))) process.stdout.write(`${join(OUT, name)}\n`);
