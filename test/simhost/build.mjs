/**
 * Builds build/simhost, the simulated host of test/sim, with pkg-config's fuse3. Not part of the product. Where libfuse
 * is missing it says so in one line and ends with 0: the tests then skip, loudly.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
process.chdir(dirname(dirname(here)));

const SOURCES = 'test/simhost';
const OBJECTS = 'build/simhost.o';
const OUTPUT = 'build/simhost';
const FLAGS = ['-std=c++20', '-O1', '-Wall', '-Wextra', '-Werror', '-pthread'];

const config = spawnSync('pkg-config', ['--cflags', '--libs', 'fuse3'], { encoding: 'utf8' });
if (config.status !== 0) {
  process.stderr.write(
    'hostdev: test/sim will be skipped: libfuse is missing: apt-get install libfuse3-dev fuse3 pkg-config\n',
  );
  process.exit(0);
}
const fuse = config.stdout.trim().split(/\s+/);
const time = (file) => (existsSync(file) ? statSync(file).mtimeMs : 0);
const names = readdirSync(SOURCES);
const headers = Math.max(...names.filter((n) => n.endsWith('.h')).map((n) => time(join(SOURCES, n))));

function compile(args, what) {
  const { status, stderr } = spawnSync('g++', args, { encoding: 'utf8', stdio: ['ignore', 'inherit', 'pipe'] });
  if (status === 0) return;
  process.stderr.write(`${stderr}hostdev: ${what} does not build\n`);
  process.exit(1);
}

mkdirSync(OBJECTS, { recursive: true });
const objects = [];
for (const name of names.filter((n) => n.endsWith('.cc'))) {
  const source = join(SOURCES, name);
  const object = join(OBJECTS, name.replace(/cc$/, 'o'));
  objects.push(object);
  if (time(object) < Math.max(time(source), headers)) compile([...FLAGS, ...fuse, '-c', source, '-o', object], source);
}
if (time(OUTPUT) < Math.max(...objects.map(time))) compile([...FLAGS, ...objects, ...fuse, '-o', OUTPUT], OUTPUT);
