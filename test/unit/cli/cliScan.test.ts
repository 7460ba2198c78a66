/** Listing a host that is large, and one that changes meanwhile. */
import { spawn } from 'node:child_process';
import { renameSync, rmSync, symlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { CLI, hostdev, StaticHost } from '../../mock/tree.ts';
import { EVER } from '../../patience.ts';

test('4,000 devices are listed in less than 1.5 s', () => {
  // With a modalias these are not read.
  const unread = { vendor: null, device: null, class: null, subsystem_vendor: null, subsystem_device: null };
  const many = new StaticHost({
    devices: Array.from({ length: 4000 }, (_, i) => {
      const bus = (i >> 8).toString(16).padStart(2, '0');
      const slot = ((i >> 3) & 31).toString(16).padStart(2, '0');
      return {
        address: `0001:${bus}:${slot}.${i & 7}`,
        ids: '8086:10ca',
        group: i,
        driver: 'igbvf',
        attributes: unread,
      };
    }),
  });
  try {
    hostdev(['--root', many.root, 'list']);
    const from = performance.now();
    const ran = many.run('list', '-j');
    expect(performance.now() - from).toBeLessThan(EVER);
    expect(ran.json.devices).toHaveLength(4000);
    expect(many.run('group', 'list', '-j').json.groups).toHaveLength(4000);
  } finally {
    many.remove();
  }
});

const STAYS = '0000:02:00.0';
const GOES = ['0000:05:00.0', '0000:06:00.0', '0000:07:00.0'];

test('devices that come and go while they are listed, 200 times', async () => {
  const host = new StaticHost({
    devices: [STAYS, ...GOES].map((address, group) => ({ address, ids: '8086:1521', group, driver: 'igb' })),
  });
  let over = false;
  const churn = comeAndGo(host, () => over);
  const seen = new Set<number>();
  try {
    for (let i = 0; i < 50; i += 1) {
      for (const { exit, err, addresses } of await Promise.all([list(host), list(host), list(host), list(host)])) {
        expect({ exit, err: err.includes('    at ') }).toEqual({ exit: 0, err: false });
        expect(addresses).toContain(STAYS);
        seen.add(addresses.length);
      }
    }
    // Otherwise nothing came or went.
    expect(seen.size).toBeGreaterThan(1);
  } finally {
    over = true;
    await churn;
    host.remove();
  }
});

/**
 * Takes devices away and brings them back: by the link, by the folder, by single attributes, as a removal looks in the
 * middle of a scan.
 */
async function comeAndGo(host: StaticHost, isOver: () => boolean): Promise<void> {
  const away = host.path('away');
  while (!isOver()) {
    for (const address of GOES) {
      const link = host.path(`sys/bus/pci/devices/${address}`);
      const folder = host.path(`sys/devices/pci${address.slice(0, 7)}/${address}`);
      for (const part of [folder, `${folder}/modalias`, `${folder}/driver`, `${folder}/iommu_group`]) {
        renameSync(part, away);
        await sleep(1);
        renameSync(away, part);
      }
      rmSync(link);
      await sleep(1);
      symlinkSync(`../../../devices/pci${address.slice(0, 7)}/${address}`, link);
    }
  }
}

type Listed = { exit: number | null; err: string; addresses: string[] };

/** Not synchronous like the others: meanwhile devices come and go. */
function list(host: StaticHost): Promise<Listed> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CLI, '--root', host.root, 'list', '-j'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      out += chunk;
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      err += chunk;
    });
    child.on('error', reject);
    child.on('close', (exit) => {
      try {
        const { devices } = JSON.parse(out) as { devices: { address: string }[] };
        resolve({ exit, err, addresses: devices.map((d) => d.address) });
      } catch (e) {
        reject(new Error(`exit ${exit}, ${out.slice(0, 200)} ${err}`, { cause: e }));
      }
    });
  });
}
