/** The machine runner: what its callers may rely on. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { startMachine } from './machine.ts';
import { useMachine } from './suite.ts';

const processes = () => execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' });
const machineProcesses = () =>
  processes()
    .split('\n')
    .filter((line) => line.includes('/hostdev-vm-')).length;

const vm = useMachine('none', { memoryMiB: 2048, append: 'hostdev.note=seen' });

describe('scripts', () => {
  test('their output and exit status come back', async () => {
    expect(await vm().sh('echo out; echo err >&2; exit 7')).toEqual({ code: 7, stdout: 'out\n', stderr: 'err\n' });
    expect(await vm().sh('')).toEqual({ code: 0, stdout: '', stderr: '' });
    await expect(vm().ok('echo why >&2; false')).rejects.toThrow('why');
  });

  test('a command that reads stdin finds it empty and eats nothing of the script', async () => {
    const script = 'cat; ssh -V 2>/dev/null; read line; echo "after [$line]"; cat <<\'E\'\n  it\'s "$kept"\nE\n';
    expect(await vm().ok(script)).toBe('after []\n  it\'s "$kept"');
  });

  test('may be long', async () => {
    const script = `${'# a line that does nothing but be there\n'.repeat(10_000)}echo end`;
    expect(await vm().ok(script)).toBe('end');
  });

  test('a script that takes too long throws and is ended in there', async () => {
    await expect(vm().sh('echo begun; sleep 4242', { timeoutMs: 2000 })).rejects.toThrow('begun');
    expect(await vm().ok('pgrep -fx "sleep 4242" || echo none')).toBe('none');
  });

  test('run side by side', async () => {
    const out = await Promise.all(Array.from({ length: 8 }, (_, i) => vm().ok(`sleep 0.2; echo ${i}`)));
    expect(out).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
  });
});

test('push copies files and folders, with their modes', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'hostdev-push-'));
  try {
    mkdirSync(path.join(dir, 'sub dir'));
    writeFileSync(path.join(dir, "it's"), 'one', { mode: 0o755 });
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251));
    writeFileSync(path.join(dir, 'sub dir/bytes'), bytes, { mode: 0o600 });
    await vm().push(dir, '/opt/new folder/copy');
    await vm().push(path.join(dir, "it's"), "/opt/it's");
    await vm().write('/opt/text', 'line\n', '600');
  } finally {
    rmSync(dir, { recursive: true });
  }
  const out = await vm().ok(`cd /opt; find . -type f -printf '%m %u %s %p\\n' | sort -k4`);
  expect(out.split('\n')).toEqual([
    "755 root 3 ./it's",
    "755 root 3 ./new folder/copy/it's",
    '600 root 300000 ./new folder/copy/sub dir/bytes',
    '600 root 5 ./text',
  ]);
  await expect(vm().push('/nowhere', '/opt/x')).rejects.toThrow('ENOENT');
  await expect(vm().pushTar(['-C', '/', 'nowhere'], '/opt/x')).rejects.toThrow('nowhere');
});

test('the profile and the kernel arguments are the ones asked for', async () => {
  expect(await vm().ok('cat /proc/cmdline')).toContain('hostdev.note=seen');
  expect(await vm().ok('ls /sys/kernel/iommu_groups')).toBe('');
  expect(Number(await vm().ok("awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo"))).toBeLessThan(2048);
  expect(Number(await vm().ok("awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo"))).toBeGreaterThan(1500);
});

test('a QEMU that refuses its arguments is an error with its words, at once', async () => {
  const begin = Date.now();
  await expect(startMachine({ profile: 'none', extraQemuArgs: ['-device', 'no-such'] })).rejects.toThrow('no-such');
  expect(Date.now() - begin).toBeLessThan(20_000);
});

test('a boot that stalls is tried again, three times in all, and then given up', async () => {
  const before = machineProcesses();
  const options = { profile: 'none', name: 'stuck', append: 'systemd.unit=emergency.target', stallMs: 1500 } as const;
  await expect(startMachine(options)).rejects.toThrow('stuck: no shell in 3 boots');
  expect(machineProcesses()).toBe(before);
});

test('a kernel that panics counts as a stalled boot', async () => {
  const options = { profile: 'none', name: 'panic', append: 'rdinit=/nowhere root=/nowhere', memoryMiB: 512 } as const;
  await expect(startMachine(options)).rejects.toThrow('panic: no shell in 3 boots');
});

// Last: it ends the machine the others use.
test('a dead machine is told from a failing script, and stop leaves nothing', async () => {
  const { pid, runDir } = vm();
  expect(existsSync(runDir)).toBe(true);
  await expect(vm().sh('sync; echo o > /proc/sysrq-trigger; sleep 60')).rejects.toThrow('the machine is gone');
  await vm().stop();
  expect(existsSync(runDir)).toBe(false);
  expect(existsSync(`/proc/${pid}`)).toBe(false);
  expect(processes()).not.toContain(runDir);
});
