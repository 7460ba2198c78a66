/**
 * What the engine takes when there is much of it: unfinished transactions to recover, and hooks that all come at once.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { domainXml } from '../mock/hosts.ts';
import type { HostDescription } from '../scenarios/host.ts';
import { mounted } from './bindTime.ts';
import { above, type Figure, markdown, median } from './measure.ts';
import { makeTree } from './tree.ts';

const CLI = 'dist/hostdev.js';
const ENTRIES = 1500;
const HOOKS = 200;
const RUNS = 7;

/** So many binds that died before their first write, each of a VF of the tree. */
function leaveEntries(root: string): void {
  const journal = join(root, 'run/hostdev/journal');
  mkdirSync(journal, { recursive: true });
  mkdirSync(join(root, 'sys/bus/pci/drivers/vfio-pci'), { recursive: true });
  for (let i = 0; i < ENTRIES; i += 1) {
    const [p, v] = [Math.floor(i / 124), (i % 124) + 1];
    const address = `0000:${(0x20 + p * 2).toString(16)}:${(v >> 3).toString(16).padStart(2, '0')}.${v & 7}`;
    const vfio = { driver: 'vfio-pci', override: 'vfio-pci' };
    const move = { address, group: p * 125 + v, inode: null, from: { driver: 'igbvf', override: null }, to: vfio };
    const id = `bench-${String(i).padStart(5, '0')}-1`;
    const entry = {
      schema: 2,
      id,
      kind: 'bind',
      owner: 'admin',
      boot: null,
      pid: 1,
      started: '',
      mark: null,
      state: 'intent',
    };
    const rest = { devices: [{ ...move, override_bytes: '(null)\n' }], books: [], fresh: null, lifted: [], left: [] };
    writeFileSync(join(journal, `${id}.json`), JSON.stringify({ ...entry, ...rest }));
  }
}

function recovery(): Figure[] {
  const bare: Figure = { what: 'node -e 0', ms: [] };
  const fix: Figure = { what: `status --fix with ${ENTRIES} unfinished transactions`, ms: [] };
  for (let run = 0; run < RUNS; run += 1) {
    const root = makeTree();
    leaveEntries(root);
    for (const [figure, args] of [
      [bare, ['-e', '0']],
      [fix, [CLI, '--root', root, 'status', '--fix']],
    ] as const) {
      const from = performance.now();
      const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
      if (status !== 0) throw new Error(stderr);
      figure.ms.push(performance.now() - from);
    }
    rmSync(root, { recursive: true });
  }
  return [bare, above(fix, bare)];
}

const address = (i: number): string => `0000:40:${(i >> 3).toString(16).padStart(2, '0')}.${i & 7}`;

/** 200 guests, each with a device of its own, prepared at the same moment: how long until the last has its answer. */
async function hooks(): Promise<{ figures: Figure[]; failed: number }> {
  const description: HostDescription = {
    drivers: [
      { name: 'e1000e', module: 'e1000e', ids: ['8086:10d3'] },
      { name: 'vfio-pci', module: 'vfio_pci', ids: [], vfio: true },
    ],
    devices: Array.from({ length: HOOKS }, (_, i) => ({
      address: address(i),
      ids: '8086:10d3',
      group: i,
      driver: 'e1000e',
    })),
  };
  const bare: Figure = { what: `${HOOKS} x node -e 0 at once, the last`, ms: [] };
  const prepare: Figure = { what: `${HOOKS} x hook prepare at once, the last`, ms: [] };
  let failed = 0;
  const all = (argsOf: (i: number) => string[], input: (i: number) => string): Promise<number[]> =>
    Promise.all(
      Array.from({ length: HOOKS }, (_, i) => {
        const child = spawn(process.execPath, argsOf(i), { stdio: ['pipe', 'ignore', 'ignore'] });
        child.stdin.on('error', () => {});
        child.stdin.end(input(i));
        return new Promise<number>((resolve) => child.once('close', (code) => resolve(code ?? 1)));
      }),
    );
  for (let run = 0; run < 3; run += 1) {
    let from = performance.now();
    await all(
      () => ['-e', '0'],
      () => '',
    );
    bare.ms.push(performance.now() - from);
    await mounted(description, async (root) => {
      const uuid = (i: number): string => `${String(i).padStart(8, '0')}-0000-4000-8000-000000000000`;
      from = performance.now();
      const codes = await all(
        (i) => [CLI, '--root', root, 'hook', 'run', '--deadline-ms', '120000', `g${i}`, 'prepare', 'begin', '-'],
        (i) => domainXml(`g${i}`, uuid(i), [{ address: address(i) }]).toString(),
      );
      prepare.ms.push(performance.now() - from);
      failed += codes.filter((c) => c !== 0).length;
    });
  }
  return { figures: [bare, prepare], failed };
}

export async function benchEngine(): Promise<string> {
  const [bare, fix] = recovery();
  const { figures, failed } = await hooks();
  const remark = (f: Figure): string =>
    f === fix ? `${((median(f) / ENTRIES) * 1000).toFixed(0)} us each, above a bare node` : '';
  const last = figures.map(median);
  return [
    '### Recovery',
    '',
    markdown(
      [bare, fix].flatMap((f) => f ?? []),
      remark,
    ),
    '',
    'To reach: 1,500 in a second.',
    '',
    `### ${HOOKS} hooks at once, on the simulated host`,
    '',
    markdown(figures, () => ''),
    '',
    `${failed} of ${HOOKS * 3} failed. The last answer came after ${((last[1] ?? 0) / (last[0] ?? 1)).toFixed(1)} x what as many bare nodes take.`,
  ].join('\n');
}
