/** `hostdev` by its name: the line of shell, native/launch.cc, node; and node's startup snapshot where it fits. */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

const scratch = realpathSync(mkdtempSync(join(tmpdir(), 'hostdev-launch-')));
const dist = join(scratch, 'dist');
const script = join(dist, 'hostdev.js');
const blob = join(dist, 'snapshot.blob');
const key = join(dist, 'snapshot.key');

beforeAll(() => {
  cpSync('dist', dist, { recursive: true });
  cpSync('package.json', join(scratch, 'package.json'));
  mkdirSync(join(scratch, 'build'));
  symlinkSync(resolve('build/Release'), join(scratch, 'build/Release'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const env = (more: Record<string, string> = {}): NodeJS.ProcessEnv => {
  const { NODE_OPTIONS: _none, ...rest } = process.env;
  return { ...rest, ...more };
};
const run = (words: string[], more: Record<string, string> = {}, program = script): SpawnSyncReturns<string> =>
  spawnSync(program, words, { encoding: 'utf8', env: env(more) });

describe('which way it goes, with a node that tells its words', () => {
  const bin = join(scratch, 'bin');
  const node = join(bin, 'node');
  const PATH = `${bin}:${process.env.PATH}`;
  const words = (more: Record<string, string> = {}): string[] =>
    run(['bind', '-n', '', 'a b', '--help'], { PATH, ...more })
      .stdout.split('\n')
      .slice(0, -1);
  const plain = [script, 'bind', '-n', '', 'a b', '--help'];
  const quick = ['--snapshot-blob', blob, '--', 'bind', '-n', '', 'a b', '--help'];

  const lines = (): string[] => {
    const { size, mtimeNs } = statSync(node, { bigint: true });
    const [first = ''] = readFileSync('/proc/cpuinfo', 'latin1').split('\n\n', 1);
    const features = first.split('\n').filter((l) => /^(vendor_id|model name|flags|Features|isa)\b/.test(l));
    return [dist, `${size} ${mtimeNs} ${node}`, ...features, ''];
  };

  beforeEach(() => {
    mkdirSync(bin, { recursive: true });
    writeFileSync(node, '#!/bin/sh\nprintf "%s\\n" "$@"\n', { mode: 0o755 });
    writeFileSync(key, lines().join('\n'));
  });

  test('from the snapshot that was made for it; through a link too', () => {
    expect(words()).toEqual(quick);
    const link = join(scratch, 'hostdev');
    symlinkSync(script, link);
    expect(run(['list'], { PATH }, link).stdout).toBe(`--snapshot-blob\n${blob}\n--\nlist\n`);
  });

  test('without a key: the script', () => {
    rmSync(key);
    expect(words()).toEqual(plain);
  });

  test('options for node: the script', () => {
    expect(words({ NODE_OPTIONS: '--max-old-space-size=64' })).toEqual(plain);
    expect(words({ NODE_OPTIONS: '' })).toEqual(quick);
  });

  test('another node, the same one changed since: the script', () => {
    utimesSync(node, 1, 1);
    expect(words()).toEqual(plain);
    const [folder = '', , ...rest] = lines();
    const { size, mtimeNs } = statSync('/bin/sh', { bigint: true });
    writeFileSync(key, [folder, `${size} ${mtimeNs} /bin/sh`, ...rest].join('\n'));
    expect(words()).toEqual(plain);
    writeFileSync(key, [folder, ...lines().slice(1, 2), '1 1 /nowhere/libnode.so.115', ...rest].join('\n'));
    expect(words()).toEqual(plain);
  });

  test('another folder, another processor: the script', () => {
    writeFileSync(key, ['/usr/lib/hostdev/dist', ...lines().slice(1)].join('\n'));
    expect(words()).toEqual(plain);
    writeFileSync(key, [...lines().slice(0, 2), 'flags\t\t: fpu', ''].join('\n'));
    expect(words()).toEqual(plain);
  });

  test.each([
    ['nothing', ''],
    ['one line', `${dist}\n`],
    ['no line end', dist],
    ['noise', '\0\xff\n\n\n9'],
    ['a megabyte', `${dist}\n${'9 9 /x\n'.repeat(150_000)}`],
  ])('a key of %s: the script', (_what, text) => {
    writeFileSync(key, text, 'latin1');
    expect(words()).toEqual(plain);
  });

  test('no node in PATH: said, 1', () => {
    const nowhere = join(scratch, 'empty');
    mkdirSync(nowhere, { recursive: true });
    for (const tool of ['readlink', 'sh']) symlinkSync(`/bin/${tool}`, join(nowhere, tool));
    const ran = run(['list'], { PATH: nowhere });
    expect([ran.status, ran.stdout, ran.stderr]).toEqual([
      1,
      '',
      'hostdev: node is not in PATH: install nodejs, 20.19 or later\n',
    ]);
  });

  test('the native part is not built: node all the same', () => {
    const alone = join(scratch, 'alone/dist');
    cpSync('dist/hostdev.js', join(alone, 'hostdev.js'));
    expect(run(['list'], { PATH }, join(alone, 'hostdev.js')).stdout).toBe(`${join(alone, 'hostdev.js')}\nlist\n`);
  });
});

describe('from a snapshot of this node', () => {
  beforeAll(() => {
    rmSync(key, { force: true });
    const warm = spawnSync(process.execPath, [join(dist, 'warm.js')], { env: env({ HOSTDEV_SNAPSHOT: 'make' }) });
    expect(warm.status).toBe(0);
  }, 60_000);

  test('the key is what the launcher makes of it', () => {
    expect(readFileSync(key, 'utf8').split('\n')[0]).toBe(dist);
    expect(run(['--version']).stdout).toMatch(/^hostdev \d/);
    // With a broken snapshot the key alone decides: node is told to start from it, and refuses.
    const whole = readFileSync(blob);
    writeFileSync(blob, 'no snapshot');
    expect(run(['--version']).status).not.toBe(0);
    writeFileSync(blob, whole);
  });

  const asScript = (words: string[]) =>
    spawnSync(process.execPath, [script, ...words], { encoding: 'utf8', env: env() });
  test.each([
    [['--version']],
    [['--help']],
    [['list', '-j', '--root', '/nowhere']],
    [['bind', '0000:ff:1f.7', '-n', '--root', scratch]],
    [['bnd']],
    [['bind', '--allow=nothing', '0000:00:00.0']],
    [['status', '-j', '--root', scratch]],
    [['journal', 'list', '--root', scratch]],
    [['domain', 'check', 'test/data/domains/edit/arm.xml', '--libvirt', '9.0.0', '--qemu', '7.2.0']],
    [
      [
        'config',
        'check',
        '--config',
        'docs/guide/nova-on-one-host/fixed.conf',
        '--inventory',
        'docs/guide/nova-on-one-host/host7.json',
      ],
    ],
    [['simulate', '/dev/null']],
    [['hook', 'test', 'test/data/domains/hook-prepare-managed.xml', '--root', scratch]],
  ])('%j: the same words and exit code as without', (words) => {
    const [quick, plain] = [run(words), asScript(words)];
    expect([quick.status, quick.stdout, quick.stderr]).toEqual([plain.status, plain.stdout, plain.stderr]);
  });
});
