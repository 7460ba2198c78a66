/** How `hostdev` starts: by its name, through a link, with what the environment has for other programs. */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

const scratch = mkdtempSync(join(tmpdir(), 'hostdev-start-'));
const script = join(scratch, 'dist/hostdev.js');

beforeAll(() => {
  cpSync('dist', join(scratch, 'dist'), { recursive: true });
  cpSync('package.json', join(scratch, 'package.json'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const run = (words: string[], more: NodeJS.ProcessEnv = {}, program = script): SpawnSyncReturns<string> =>
  spawnSync(program, words, { encoding: 'utf8', env: { ...process.env, ...more } });

test('by its name, through a link, from another folder: the same', () => {
  const link = join(scratch, 'hostdev');
  symlinkSync(script, link);
  const [plain, linked] = [run(['--version']), run(['--version'], {}, link)];
  expect([plain.status, plain.stderr]).toEqual([0, '']);
  expect(plain.stdout).toMatch(/^hostdev \d/);
  expect([linked.status, linked.stdout, linked.stderr]).toEqual([0, plain.stdout, '']);
});

test('a layer that a command asks for is found beside it', () => {
  const ran = run(['status', '-j', '--root', scratch], { HOSTDEV_NATIVE_DIR: resolve('build/Release') });
  expect([ran.status, ran.stderr]).toEqual([0, '']);
  expect(JSON.parse(ran.stdout)).toMatchObject({ schema: 1 });
});

test('a compile cache of whoever calls is neither filled nor read', () => {
  // In node's place: what of the environment reaches it. (Node 20 knows no compile cache that could be looked at.)
  const bin = mkdtempSync(join(scratch, 'bin-'));
  writeFileSync(join(bin, 'node'), '#!/bin/sh\necho "[$NODE_COMPILE_CACHE] $*"\n', { mode: 0o755 });
  const cache = join(scratch, 'cache');
  const ran = run(['list', 'a b'], { PATH: `${bin}:${process.env.PATH}`, NODE_COMPILE_CACHE: cache });
  expect(ran.stdout).toBe(`[] ${script} list a b\n`);
  expect(run(['--version'], { NODE_COMPILE_CACHE: cache }).status).toBe(0);
  expect(existsSync(cache)).toBe(false);
});

test('the build leaves JavaScript and nothing that was made by running it', () => {
  const files = readdirSync('dist');
  expect(files).toContain('hostdev.js');
  expect(files.filter((f) => !f.endsWith('.js')).sort()).toEqual([
    'LICENSES',
    'completion.bash',
    'completion.fish',
    'completion.zsh',
    'package.json',
  ]);
});

test('the licence of each package in the build goes with it', () => {
  const licences = readFileSync('dist/LICENSES', 'utf8');
  const bundled = new Set<string>();
  for (const name of readdirSync('dist').filter((n) => n.endsWith('.js')))
    for (const [, from = ''] of readFileSync(`dist/${name}`, 'utf8').matchAll(
      /^\s*\/\/ node_modules\/((?:@[^/]+\/)?[^/]+)\//gm,
    ))
      bundled.add(from);
  expect(bundled.size).toBeGreaterThan(2);
  const copyright = readFileSync('debian/copyright', 'utf8');
  for (const name of bundled) {
    expect(licences).toContain(`${name}\n\n${readFileSync(`node_modules/${name}/LICENSE`, 'utf8')}`);
    expect(copyright).toContain(name);
  }
});
