/**
 * hostdev's own time for a bind: the whole transaction in this process, on the simulated host, less what its own reads
 * and writes of the kernel's files take when they are done again with nothing between them. What is left is the
 * journal, the books, the locks, the helper process and the thinking.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmdirSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bindDevices } from '../../src/actions/bind.ts';
import { unbindDevices } from '../../src/actions/unbind.ts';
import { loadNative } from '../../src/addon/load.ts';
import type { KernelWriter, NativeBinding } from '../../src/addon/native.ts';
import { Host } from '../../src/host/host.ts';
import { type HostDescription, linesOf } from '../scenarios/host.ts';
import { above, type Figure, markdown, median } from './measure.ts';

const SIMHOST = 'build/simhost';
const RUNS = 31;
const WARM = 10;
const LIMIT_MS = 5;

const OPTIONS = { allowed: new Set<never>(), deadlineMs: 30_000, dryRun: false };

const hex = (n: number): string => n.toString(16).padStart(2, '0');

function world(count: number): { description: HostDescription; addresses: string[] } {
  const addresses = Array.from({ length: count }, (_, i) => `0000:30:${hex(i >> 3)}.${i & 7}`);
  const drivers = [
    { name: 'e1000e', module: 'e1000e', ids: ['8086:10d3'] },
    { name: 'vfio-pci', module: 'vfio_pci', ids: [], vfio: true },
  ];
  const devices = addresses.map((address, i) => ({ address, ids: '8086:10d3', group: i, driver: 'e1000e' }));
  return { description: { drivers, devices }, addresses };
}

export async function mounted<T>(description: HostDescription, body: (root: string) => Promise<T>): Promise<T> {
  const root = mkdtempSync(join(tmpdir(), 'hostdev-bench-'));
  const server = spawn(SIMHOST, [root], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    await new Promise<void>((resolve, reject) => {
      server.stdout.once('data', () => resolve());
      server.once('exit', (code) => reject(new Error(`${SIMHOST} ended with ${code}`)));
    });
    for (const line of linesOf(description)) writeAt(join(root, '.sim/ctl'), `${line}\n`);
    return await body(root);
  } finally {
    server.stdin.end();
    await new Promise((resolve) => server.once('exit', resolve));
    rmdirSync(root);
  }
}

function writeAt(path: string, text: string): void {
  const fd = openSync(path, 'w');
  writeSync(fd, text);
  closeSync(fd);
}

/** The addon, taking down every access to the kernel's files as something that can be done again. */
function recording(root: string, native: NativeBinding, accesses: (() => unknown)[]): NativeBinding {
  const noted =
    <A extends unknown[], R>(f: (...args: A) => R) =>
    (...args: A): R => {
      accesses.push(() => {
        try {
          f(...args);
        } catch {
          // Absent then as now.
        }
      });
      return f(...args);
    };
  const openWriter = (at: string): KernelWriter => {
    const writer = native.openWriter(at);
    return {
      ...writer,
      write: (path, value, ms) => {
        accesses.push(() => writeAt(join(root, path), value));
        return writer.write(path, value, ms);
      },
      read: (path, ms) => {
        accesses.push(() => readFileSync(join(root, path)));
        return writer.read(path, ms);
      },
      close: () => writer.close(),
    };
  };
  return {
    ...native,
    kind: native.kind,
    scanDevices: noted(native.scanDevices.bind(native)),
    scanGroups: noted(native.scanGroups.bind(native)),
    readFile: noted(native.readFile.bind(native)),
    readLink: noted(native.readLink.bind(native)),
    readDir: noted(native.readDir.bind(native)),
    holders: noted(native.holders.bind(native)),
    openWriter,
  };
}

/** The bind, and its accesses alone, in turn. */
async function measure(count: number): Promise<[Figure, Figure]> {
  const { description, addresses } = world(count);
  const ours: Figure = { what: `hostdev's bind of ${count}`, ms: [] };
  const bare: Figure = { what: `its reads and writes alone`, ms: [] };
  await mounted(description, async (root) => {
    const accesses: (() => unknown)[] = [];
    await bindDevices(new Host(root, recording(root, loadNative(), accesses)), addresses, null, OPTIONS);
    const host = new Host(root, loadNative());
    await unbindDevices(host, addresses, false, OPTIONS);
    for (let run = -WARM; run < RUNS; run += 1) {
      let from = performance.now();
      for (const access of accesses) access();
      if (run >= 0) bare.ms.push(performance.now() - from);
      await unbindDevices(host, addresses, true, OPTIONS);
      from = performance.now();
      await bindDevices(host, addresses, null, OPTIONS);
      if (run >= 0) ours.ms.push(performance.now() - from);
      await unbindDevices(host, addresses, false, OPTIONS);
    }
  });
  return [ours, bare];
}

export async function benchBind(): Promise<string> {
  if (!existsSync(SIMHOST)) throw new Error(`${SIMHOST} is not built: node test/simhost/build.mjs`);
  const rows: string[] = [];
  const tables: string[] = [];
  for (const count of [1, 8, 64]) {
    const [ours, bare] = await measure(count);
    const own = above(ours, bare);
    own.what = `hostdev's own time for ${count}`;
    tables.push(
      markdown([bare, ours, own], (f) => (f === own ? `${(median(own) / count).toFixed(2)} ms a device` : '')),
    );
    rows.push(`${count}: ${(median(own) / count).toFixed(2)} ms`);
  }
  return `### Own time of a bind, in one process on the simulated host\n\n${tables.join('\n\n')}\n\nA device, beyond the reads and writes themselves: ${rows.join('; ')}. To reach: at most ${LIMIT_MS} ms for one.`;
}
