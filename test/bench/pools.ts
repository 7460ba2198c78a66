/** Nova's resource model: building pools, claiming, and `simulate` as a whole process. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseDeviceSpecs } from '../../src/nova/grammar/deviceSpec.ts';
import type { PciRequest } from '../../src/nova/grammar/request.ts';
import type { PoolDevice } from '../../src/pool/device.ts';
import { PciTracker } from '../../src/pool/tracker.ts';
import { type Figure, markdown, median, timeCommands } from './measure.ts';

const RUNS = 41;
const DEVICES = 4096;
const VFS_EACH = 64;

const hex = (n: number): string => n.toString(16).padStart(2, '0');
const base = { vendor_id: '8086', parent_addr: null, card_serial_number: null, parent_ifname: null };

/** 64 PFs with 64 VFs each. */
const VFS: PoolDevice[] = Array.from({ length: DEVICES / VFS_EACH }, (_, p) => {
  const pf = `0000:${hex(p + 16)}:00.0`;
  const vf = (v: number): string => `0000:${hex(p + 16)}:${hex((v >> 3) + 16)}.${v & 7}`;
  return [
    { ...base, address: pf, product_id: '1528', dev_type: 'type-PF' as const, numa_node: p % 2 },
    ...Array.from({ length: VFS_EACH }, (_u, v) => ({
      ...base,
      address: vf(v),
      product_id: '1515',
      dev_type: 'type-VF' as const,
      parent_addr: pf,
      numa_node: p % 2,
    })),
  ];
}).flat();

/** As many cards, a pool each. */
const CARDS: PoolDevice[] = Array.from({ length: DEVICES }, (_, i) => ({
  ...base,
  address: `${(i >> 8).toString(16).padStart(4, '0')}:${hex((i >> 3) & 31)}:${hex(0)}.${i & 7}`,
  product_id: '0443',
  dev_type: 'type-PCI' as const,
  numa_node: i % 2,
}));

const SPECS = parseDeviceSpecs([
  { address: '0000:ff:*.*', physical_network: 'none' },
  { address: { bus: 'f[ef]', slot: '1' }, managed: 'no' },
  { vendor_id: '8086' },
]).specs;

const request = (count: number, devType: string, policy: PciRequest['numa_policy'] = null): PciRequest => ({
  alias_name: 'x',
  count,
  numa_policy: policy,
  spec: [{ vendor_id: '8086', dev_type: devType }],
});

/** Each round on a fresh tracker, made outside the measured part; the first rounds warm up. */
function time(what: string, f: (tracker: PciTracker, round: number) => void, devices: PoolDevice[]): Figure {
  const ms: number[] = [];
  for (let round = -10; round < RUNS; round += 1) {
    const tracker = new PciTracker(SPECS, devices);
    const from = performance.now();
    f(tracker, round);
    if (round >= 0) ms.push(performance.now() - from);
  }
  return { what, ms };
}

function timePlain(what: string, f: () => unknown): Figure {
  const ms: number[] = [];
  for (let round = -5; round < RUNS; round += 1) {
    const from = performance.now();
    f();
    if (round >= 0) ms.push(performance.now() - from);
  }
  return { what, ms };
}

const place = { numaCells: [1], hostCells: [0, 1].map((id) => ({ id, socket: id })) };

function computing(): Figure[] {
  const pf = request(2, 'type-PF');
  return [
    timePlain('pools of 4,160 functions (64 PFs, 4,096 VFs)', () => new PciTracker(SPECS, VFS)),
    timePlain('pools of 4,096 cards, a pool each', () => new PciTracker(SPECS, CARDS)),
    time('claim of 1 VF of 4,096', (t) => t.claim('a', [request(1, 'type-VF')]), VFS),
    time('claim of 16 VFs, NUMA preferred', (t) => t.claim('a', [request(16, 'type-VF', 'preferred')], { place }), VFS),
    time('claim of 16 VFs, spread', (t) => t.claim('a', [request(16, 'type-VF')], { spread: true }), VFS),
    time('claim of 2 PFs and 8 VFs', (t) => t.claim('a', [pf, request(8, 'type-VF')]), VFS),
    time('claim of 1 card of 4,096', (t) => t.claim('a', [request(1, 'type-PCI')]), CARDS),
  ];
}

function processes(folder: string): Figure[] {
  const rows = readFileSync('test/conformance/nova-pci.jsonl', 'utf8').split('\n');
  const small = join(folder, 'small.json');
  writeFileSync(small, rows.find((r) => r.includes('"group-019"')) ?? '');
  const large = join(folder, 'large.json');
  const alias = [{ name: 'vf', vendor_id: '8086', product_id: '1515', device_type: 'type-VF' }];
  writeFileSync(large, JSON.stringify({ device_spec: [{}], alias, devices: VFS, request: 'vf:16' }));
  const simulate = (file: string): string[] => [process.execPath, 'dist/hostdev.js', 'simulate', file, '-j'];
  return timeCommands(
    {
      'node -e 0': [process.execPath, '-e', '0'],
      'hostdev simulate -j, a scenario of five claims': simulate(small),
      'hostdev simulate -j, 4,160 functions': simulate(large),
    },
    15,
  );
}

/** Markdown of the tables. */
export function benchPools(): string {
  const folder = mkdtempSync(join(tmpdir(), 'hostdev-bench-'));
  try {
    const runs = processes(folder);
    const bare = median(runs[0] ?? { what: '', ms: [] });
    return [
      '### Pools and claims, computing alone',
      '',
      markdown(computing(), (f) => `${(median(f) * 1000).toFixed(0)} us`),
      '',
      'To reach: a claim from 4,096 VFs at most 1 ms, pools of 4,096 devices at most 20 ms.',
      '',
      '### `simulate`, whole processes',
      '',
      markdown(runs, (f) => `${(median(f) / bare).toFixed(2)} x a bare node`),
      '',
      'To reach: at most 1.5 x a bare node.',
      '',
    ].join('\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
}
