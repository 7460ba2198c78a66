/**
 * Runs in the machine: binds devices and gives them back, over and over in one process, and looks after each time
 * whether everything is as it was before the first. Prints one JSON line. usage: node --expose-gc
 * --max-semi-space-size=1 cycles.js N DEV… What V8 has not collected yet, and what it gives its young generation in
 * advance, is no growth of ours: hence the two options.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { bindDevices } from '../../../src/actions/bind.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { Host } from '../../../src/host/host.ts';

const SYSFS = '/sys/bus/pci/devices';

function stateOf(address: string): string {
  let driver = '-';
  try {
    driver = readlinkSync(`${SYSFS}/${address}/driver`).split('/').at(-1) ?? '-';
  } catch {
    // None.
  }
  return `${address} ${driver} ${readFileSync(`${SYSFS}/${address}/driver_override`, 'utf8').trim()}`;
}

async function run(cycles: number, devices: string[]): Promise<void> {
  const host = new Host('/', loadNative());
  const options = { allowed: new Set<never>(), deadlineMs: 120_000, dryRun: false };
  const states = () => devices.map(stateOf);
  const before = states();
  const drifted: string[] = [];
  const rss: number[] = [];
  for (let i = 0; i < cycles; i += 1) {
    await bindDevices(host, devices, null, options);
    const bound = states();
    await unbindDevices(host, devices, false, options);
    const after = states();
    for (const [n, text] of after.entries()) if (text !== before[n]) drifted.push(`${i}: ${before[n]} -> ${text}`);
    for (const text of bound) if (!text.includes('vfio')) drifted.push(`${i}: not bound: ${text}`);
    globalThis.gc?.();
    rss.push(process.memoryUsage.rss());
  }
  // The first tenth is V8 settling: after it nothing may grow.
  const settled = rss[Math.floor(cycles / 10)] ?? 0;
  process.stdout.write(`${JSON.stringify({ cycles, drifted, settled, last: rss.at(-1) })}\n`);
}

const [, , cycles = '1', ...devices] = process.argv;
void run(Number(cycles), devices);
