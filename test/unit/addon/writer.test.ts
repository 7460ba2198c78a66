/**
 * The helper that writes to sysfs, on ordinary files: what it does, what it refuses, and what becomes of one that
 * hangs.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { buildSync } from 'esbuild';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadNative, nativeExecutable } from '../../../src/addon/load.ts';
import type { KernelWriter } from '../../../src/addon/native.ts';
import { EVER } from '../../patience.ts';

const MS = 2000;
let root: string;
let writer: KernelWriter;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'hostdev-writer-'));
  writer = loadNative().openWriter(root);
});
afterEach(() => {
  writer.close();
  rmSync(root, { recursive: true, force: true });
});

/** Process ids of the helpers that serve this root. */
const helpers = (): string[] =>
  readdirSync('/proc').filter((p) => {
    try {
      return /^\d+$/.test(p) && readlinkSync(`/proc/${p}/fd/3`) === root;
    } catch {
      return false;
    }
  });

test('writes without creating or truncating, reads, restores', async () => {
  writeFileSync(join(root, 'a'), '(null)\n');
  await writer.write('a', 'x\n', MS);
  expect(readFileSync(join(root, 'a'), 'latin1')).toBe('x\null)\n');
  expect(await writer.read('a', MS)).toBe('x\null)\n');
  await writer.restoreFile('a', '(null)\n', MS);
  expect(readFileSync(join(root, 'a'), 'latin1')).toBe('(null)\n');
  await expect(writer.write('b', 'x', MS)).rejects.toMatchObject({
    code: 'ENOENT',
    errno: -2,
    syscall: 'openat2',
    path: 'b',
  });
  await expect(writer.read('.', MS)).rejects.toMatchObject({ code: 'EISDIR', syscall: 'read' });
});

test('no link and no .. leads out of the root', async () => {
  symlinkSync('/etc/hostname', join(root, 'absolute'));
  symlinkSync('../../../../../../etc/hostname', join(root, 'dots'));
  for (const path of ['absolute', 'dots', '../../../etc/hostname', '/etc/hostname'])
    await expect(writer.read(path, MS), path).rejects.toMatchObject({ code: 'ENOENT' });
  mkdirSync(join(root, 'etc'));
  writeFileSync(join(root, 'etc/hostname'), 'inside');
  expect(await writer.read('absolute', MS)).toBe('inside');
});

test('a write that hangs is given up at its deadline; the next one is served by another helper', async () => {
  execFileSync('mkfifo', [join(root, 'fifo')]);
  writeFileSync(join(root, 'a'), '');
  const from = performance.now();
  await expect(writer.write('fifo', 'x', 200)).rejects.toMatchObject({
    code: 'ETIMEDOUT',
    errno: -110,
    syscall: 'write',
    path: 'fifo',
  });
  expect(performance.now() - from).toBeLessThan(EVER);
  const [hung] = helpers();
  await writer.write('a', 'x', MS);
  expect(helpers().length).toBe(2);
  expect(helpers()).toContain(hung);
  process.kill(Number(hung), 'SIGKILL');
});

test('a claim is asked of block devices only: nothing else is opened for it', async () => {
  execFileSync('mkfifo', [join(root, 'fifo')]);
  writeFileSync(join(root, 'a'), '');
  for (const path of ['fifo', 'a', '.']) expect(await writer.claimed(path, MS), path).toBe(false);
  await expect(writer.claimed('sda', MS)).rejects.toMatchObject({ code: 'ENOENT', path: 'sda' });
});

test('a helper that is killed is EPIPE for its request and replaced for the next', async () => {
  execFileSync('mkfifo', [join(root, 'fifo')]);
  writeFileSync(join(root, 'a'), 'x');
  // A request blocks this thread: the killer is another process.
  const killer =
    'sleep 0.3; for p in /proc/[0-9]*; do [ "$(readlink $p/fd/3)" != "$0" ] || kill -9 $(basename $p); done';
  spawn('sh', ['-c', killer, root], { stdio: 'ignore' });
  // The killer starts a process for each there is, and other tests run beside this one.
  await expect(writer.write('fifo', 'x', 15_000)).rejects.toMatchObject({ code: 'EPIPE', path: 'fifo' });
  expect(await writer.read('a', MS)).toBe('x');
});

test('one that is killed while it has nothing to do costs no request', async () => {
  writeFileSync(join(root, 'a'), 'x');
  await writer.read('a', MS);
  process.kill(Number(helpers()[0]), 'SIGKILL');
  while (helpers().length > 0) await new Promise((r) => setTimeout(r, 5));
  expect(await writer.read('a', MS)).toBe('x');
});

test('one write(2) whatever is in the value; a page is read, more is refused and not cut off', async () => {
  const at = join(root, 'fifo');
  execFileSync('mkfifo', [at]);
  const value = `a\nb\0\xff${'x'.repeat(4000)}`;
  // Packets: each write(2) is one, and a reader gets one at a time.
  const packets = `import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
print('ready', flush=True)
import select
select.select([fd], [], [])
first = os.read(fd, 65536)
print(len(first), flush=True)`;
  const reader = spawn('python3', ['-c', packets, at]);
  let said = '';
  reader.stdout.on('data', (d) => {
    said += d;
  });
  while (said === '') await new Promise((r) => setTimeout(r, 5));
  await writer.write('fifo', value, MS);
  await new Promise((r) => reader.once('close', r));
  expect(said).toBe(`ready\n${value.length}\n`);
  writeFileSync(join(root, 'page'), 'x'.repeat(4096));
  writeFileSync(join(root, 'more'), 'x'.repeat(4097));
  expect(await writer.read('page', MS)).toHaveLength(4096);
  await expect(writer.read('more', MS)).rejects.toMatchObject({ code: 'EFBIG', syscall: 'read' });
});

test('the helper has our pipes and the root, nothing else; Ctrl-C does not reach it; it ends with us', async () => {
  writeFileSync(join(root, 'a'), 'x');
  await writer.read('a', MS);
  const [pid = ''] = helpers();
  expect(
    readdirSync(`/proc/${pid}/fd`).filter(
      (fd) => Number(fd) > 3 && readlinkSync(`/proc/${pid}/fd/${fd}`) !== '/dev/null',
    ),
  ).toEqual([]);
  expect(readlinkSync(`/proc/${pid}/fd/2`)).toBe('/dev/null');
  for (const s of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(Number(pid), s);
  expect(await writer.read('a', MS)).toBe('x');
  expect(helpers()).toEqual([pid]);
  writer.close();
  while (helpers().length > 0) await new Promise((r) => setTimeout(r, 5));
});

test('a parent that speaks another protocol is shown the door', () => {
  const serve = (bytes: number[]) =>
    spawnSync(nativeExecutable(), ['write'], { input: Buffer.from(bytes), stdio: ['pipe', 'pipe', 'pipe', 'ignore'] })
      .status;
  expect(serve([0xff, 0xff, 0xff, 0xff])).toBe(2);
  expect(serve([1, 0, 0, 0, 7])).toBe(2);
  expect(serve([8, 0, 0, 0, 1, 0, 0, 0, 87, 9, 0, 65])).toBe(2);
  expect(serve([])).toBe(0);
});

test('what was not begun: a deadline that has passed, too large a request; the helper stays', async () => {
  writeFileSync(join(root, 'a'), 'x');
  await writer.read('a', MS);
  const before = helpers();
  for (const none of [0, -1, Number.NaN])
    await expect(writer.write('a', 'y', none)).rejects.toMatchObject({
      code: 'ETIMEDOUT',
      syscall: 'write',
      path: 'a',
    });
  await expect(writer.write('a', 'y'.repeat(8192), MS)).rejects.toMatchObject({ code: 'E2BIG', path: 'a' });
  expect(await writer.read('a', Number.POSITIVE_INFINITY)).toBe('x');
  expect(helpers()).toEqual(before);
});

test('a missing program is named, and is not taken for a missing attribute', async () => {
  const top = join(root, 'native');
  mkdirSync(top);
  symlinkSync(join(dirname(nativeExecutable()), 'hostdev.node'), join(top, 'hostdev.node'));
  process.env.HOSTDEV_NATIVE_DIR = top;
  try {
    await expect(loadNative().openWriter(root).read('a', MS)).rejects.toMatchObject({
      code: 'HOSTDEV_NATIVE_MISSING',
      message: expect.stringContaining(join(top, 'hostdev-native')),
    });
  } finally {
    delete process.env.HOSTDEV_NATIVE_DIR;
  }
});

test('a helper that nobody closed does not keep the program from ending, and ends with it', () => {
  writeFileSync(join(root, 'a'), 'x');
  const script = join(root, 'forgetful.mjs');
  buildSync({
    stdin: {
      contents: `import { loadNative } from './src/addon/load.ts';
        loadNative().openWriter(process.argv[2]).read('a', 1000).then(console.log);`,
      resolveDir: process.cwd(),
    },
    bundle: true,
    platform: 'node',
    format: 'esm',
    outfile: script,
  });
  const env = { ...process.env, HOSTDEV_NATIVE_DIR: dirname(nativeExecutable()) };
  const r = spawnSync(process.execPath, [script, root], { encoding: 'utf8', timeout: EVER, env });
  expect([r.status, r.stdout]).toEqual([0, 'x\n']);
});

test('a signal is heard between two requests', async () => {
  writeFileSync(join(root, 'a'), 'x');
  await writer.read('a', MS);
  let heard = 0;
  const listen = (): void => {
    heard += 1;
  };
  process.on('SIGUSR2', listen);
  process.kill(process.pid, 'SIGUSR2');
  await writer.read('a', MS);
  await writer.read('a', MS);
  process.off('SIGUSR2', listen);
  expect(heard).toBe(1);
});

test('a request of a command that was killed is not carried out afterwards', async () => {
  writer.close();
  while (helpers().length > 0) await new Promise((r) => setTimeout(r, 5));
  writeFileSync(join(root, 'a'), 'x');
  const script = join(root, 'victim.mjs');
  buildSync({
    stdin: {
      contents: `import { loadNative } from './src/addon/load.ts';
        const writer = loadNative().openWriter(process.argv[2]);
        await writer.read('a', 1000);
        console.log('ready');
        process.stdin.once('data', () => writer.write('a', 'y', 60_000));`,
      resolveDir: process.cwd(),
    },
    bundle: true,
    platform: 'node',
    format: 'esm',
    outfile: script,
  });
  const env = { ...process.env, HOSTDEV_NATIVE_DIR: dirname(nativeExecutable()) };
  const victim = spawn(process.execPath, [script, root], { env, stdio: ['pipe', 'pipe', 'inherit'] });
  await new Promise((r) => victim.stdout.once('data', r));
  const [helper = ''] = helpers();
  // As on a busy machine: the request is in the pipe, and the helper does not come to it.
  process.kill(Number(helper), 'SIGSTOP');
  victim.stdin.write('go');
  await new Promise((r) => setTimeout(r, 300));
  victim.kill('SIGKILL');
  await new Promise((r) => victim.once('close', r));
  try {
    process.kill(Number(helper), 'SIGCONT');
  } catch {
    // It has ended already.
  }
  for (const end = performance.now() + EVER; helpers().includes(helper); ) {
    expect(performance.now()).toBeLessThan(end);
    await new Promise((r) => setTimeout(r, 5));
  }
  expect(readFileSync(join(root, 'a'), 'utf8')).toBe('x');
});

test('the processes of writers that were closed do not stay behind as zombies', async () => {
  const zombies = (): number =>
    readdirSync('/proc').filter((p) => {
      try {
        const [, state, parent] =
          readFileSync(`/proc/${p}/stat`, 'latin1')
            .split(') ')
            .at(-1)
            ?.match(/^(\S) (\d+)/) ?? [];
        return state === 'Z' && parent === String(process.pid);
      } catch {
        return false;
      }
    }).length;
  writeFileSync(join(root, 'a'), 'x');
  for (let i = 0; i < 40; i += 1) {
    const one = loadNative().openWriter(root);
    await Promise.all([one.read('a', MS), one.read('a', MS)]);
    one.close();
  }
  await new Promise((r) => setTimeout(r, 200));
  loadNative().openWriter(root).close();
  expect(zombies()).toBeLessThan(3);
});
