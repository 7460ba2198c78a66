/**
 * What `npm pack` makes of a clean clone, and that it installs with neither a registry nor a compiler. `npm run
 * test:package`, as root.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';

const top = join(dirname(fileURLToPath(import.meta.url)), '../..');

let folder: string;
let clone: string;

type Ran = { status: number | null; stdout: string; stderr: string };
const run = (cwd: string, command: string, args: string[], env: NodeJS.ProcessEnv = process.env): Ran =>
  spawnSync(command, args, { cwd, env, encoding: 'utf8', maxBuffer: 1 << 26 });

/** A folder of commands with nothing in it but these: no compiler, no make, no python. */
function onlyCommands(...names: string[]): string {
  const bin = mkdtempSync(join(folder, 'bin-'));
  for (const name of names) symlinkSync(run(top, 'sh', ['-c', `command -v ${name}`]).stdout.trim(), join(bin, name));
  return bin;
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hostdev-npm-'));
  clone = join(folder, 'clone');
  mkdirSync(clone);
  // What a commit of this tree would have.
  const copied = run(top, 'sh', ['-c', `git ls-files -co --exclude-standard -z | xargs -0 cp --parents -t '${clone}'`]);
  expect(copied).toMatchObject({ status: 0 });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('without a compiler it refuses, and says which package brings one', () => {
  const packed = run(clone, 'npm', ['pack'], { ...process.env, PATH: onlyCommands('node', 'npm', 'sh', 'env') });
  expect(packed.status).not.toBe(0);
  expect(packed.stderr).toContain('apt-get install g++');
  expect(readdirSync(clone).filter((n) => n.endsWith('.tgz'))).toEqual([]);
});

test('it packs a program that installs offline, without a compiler, and works', () => {
  const packed = run(clone, 'npm', ['pack', '--json']);
  expect(packed).toMatchObject({ status: 0 });
  const [file = ''] = readdirSync(clone).filter((n) => n.endsWith('.tgz'));
  const prefix = join(folder, 'prefix');
  // No network, no cache, no registry that was set up, no compiler.
  const env = { PATH: onlyCommands('node', 'npm', 'sh', 'env', 'unshare'), HOME: join(folder, 'home') };
  const install = ['--net', 'npm', 'install', '--global', '--prefix', prefix, join(clone, file)];
  const installed = run(folder, 'unshare', install, env);
  expect(installed).toMatchObject({ status: 0 });
  const program = join(prefix, 'bin/hostdev');
  expect(existsSync(program)).toBe(true);
  expect(run(folder, program, ['--version'], env).stdout).toMatch(/^hostdev \d/);
  expect(JSON.parse(run(folder, program, ['list', '-j'], env).stdout).devices.length).toBeGreaterThan(0);
  // Its own native part is loaded.
  const root = join(folder, 'root');
  mkdirSync(root);
  expect(run(folder, program, ['--root', root, 'hook', 'install'], env)).toMatchObject({ status: 0 });
  expect(existsSync(join(root, 'etc/libvirt/hooks/qemu.d/90-hostdev'))).toBe(true);
  expect(run(folder, program, ['--root', root, 'status'], env).stderr).not.toContain('hostdev.node');
});
