/** The helper that writes to sysfs, on ordinary files: what it does, what it refuses, and what becomes of one that hangs. */
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
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadNative, nativeExecutable } from '../../src/addon/load.ts';
import type { KernelWriter } from '../../src/addon/native.ts';

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
  expect(performance.now() - from).toBeLessThan(1000);
  const [hung] = helpers();
  await writer.write('a', 'x', MS);
  expect(helpers().length).toBe(2);
  expect(helpers()).toContain(hung);
  process.kill(Number(hung), 'SIGKILL');
});

test('a helper that is killed is EPIPE for its request and replaced for the next', async () => {
  execFileSync('mkfifo', [join(root, 'fifo')]);
  writeFileSync(join(root, 'a'), 'x');
  // A request blocks this thread: the killer is another process.
  const killer =
    'sleep 0.3; for p in /proc/[0-9]*; do [ "$(readlink $p/fd/3)" != "$0" ] || kill -9 $(basename $p); done';
  spawn('sh', ['-c', killer, root], { stdio: 'ignore' });
  await expect(writer.write('fifo', 'x', MS)).rejects.toMatchObject({ code: 'EPIPE', path: 'fifo' });
  expect(await writer.read('a', MS)).toBe('x');
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
