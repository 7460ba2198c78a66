/** On this machine: the scan, `list` and the hook client against their floors and lspci. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadNative, nativeExecutable } from '../../src/addon/load.ts';
import { above, type Figure, markdown, median, timeCommands, timeFunctions } from './measure.ts';
import { makeTree } from './tree.ts';

const RUNS = 15;

const of = (figures: readonly Figure[], what: string): number =>
  median(figures.find((f) => f.what === what) ?? { what, ms: [] });

/** node's fs doing the reads of the scan. */
function nodeScan(root: string): void {
  const devices = `${root}/sys/bus/pci/devices`;
  const quiet = (read: () => unknown): boolean => {
    try {
      read();
      return true;
    } catch {
      return false;
    }
  };
  for (const address of readdirSync(devices)) {
    const at = `${devices}/${address}/`;
    readFileSync(`${at}modalias`, 'latin1');
    readFileSync(`${at}numa_node`, 'latin1');
    readlinkSync(`${at}driver`);
    readlinkSync(`${at}iommu_group`);
    if (!quiet(() => readlinkSync(`${at}physfn`))) quiet(() => readFileSync(`${at}sriov_totalvfs`, 'latin1'));
  }
}

/** Markdown of the sections that are measured on this machine. */
export function benchHost(): string {
  const root = makeTree();
  const temp = mkdtempSync(join(tmpdir(), 'hostdev-bench-'));
  try {
    return [...scanSection(root, temp), ...listSection(root), ...hookSection(temp)].join('\n');
  } finally {
    rmSync(root, { recursive: true });
    rmSync(temp, { recursive: true });
  }
}

function scanSection(root: string, temp: string): string[] {
  execFileSync('g++', ['-O2', '-std=c++20', '-o', join(temp, 'barescan'), 'test/bench/barescan.cc']);
  const native = loadNative();
  const bare: Figure = { what: 'bare C++ loop, the same reads', ms: [] };
  const figures = timeFunctions(
    {
      'scanDevices of the addon, objects included': () => void native.scanDevices(root),
      'node fs, the same reads': () => nodeScan(root),
    },
    RUNS,
    // In turn with them; the second of two scans, as theirs are not the first of their process either.
    () => {
      const [, ms] = execFileSync(join(temp, 'barescan'), [root, '2'], { encoding: 'utf8' }).split('\n');
      bare.ms.push(Number(ms));
    },
  );
  const floor = median(bare);
  const text = markdown([bare, ...figures], (f) => `${(median(f) / floor).toFixed(2)} x the bare loop`);
  return ['### Scan of 4,000 functions (tmpfs)', '', text, '', 'To reach: the addon at most 1.3 x the bare loop.', ''];
}

function listSection(root: string): string[] {
  const cli = 'dist/hostdev.js';
  const figures = timeCommands(
    {
      'node -e 0': [process.execPath, '-e', '0'],
      'hostdev list -j': [process.execPath, cli, '--root', root, 'list', '-j'],
      'hostdev list': [process.execPath, cli, '--root', root, 'list'],
      'lspci -nnk': ['lspci', '-O', `sysfs.path=${root}/sys/bus/pci`, '-nnk'],
    },
    RUNS,
  );
  const start = figures.find((f) => f.what === 'node -e 0');
  const lspci = of(figures, 'lspci -nnk');
  const remark = (f: Figure): string => {
    if (!f.what.startsWith('hostdev')) return '';
    const ms = median(above(f, start));
    return `${ms.toFixed(1)} ms above a bare node: ${(lspci / ms).toFixed(1)} x faster than lspci`;
  };
  return [
    '### `list` of 4,000 functions, whole processes',
    '',
    markdown(figures, remark),
    '',
    'To reach: `list -j` above a bare node at least 2.5 x faster than `lspci -nnk`.',
    '',
  ];
}

/** The loop is in C: starting a process from node costs more than the process. */
const LOOP = `#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char** argv) {
  for (int i = 0; i < atoi(argv[1]); i++) {
    struct timespec a, b; pid_t pid; int status; posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa); posix_spawn_file_actions_addopen(&fa, 0, argv[2], O_RDONLY, 0);
    clock_gettime(CLOCK_MONOTONIC, &a);
    if (posix_spawn(&pid, argv[3], &fa, 0, argv + 3, 0)) return 1;
    waitpid(pid, &status, 0); clock_gettime(CLOCK_MONOTONIC, &b);
    if (status) return 1;
    printf("%f\\n", (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6);
    posix_spawn_file_actions_destroy(&fa);
  }
  (void)argc; return 0;
}`;

function hookSection(temp: string): string[] {
  writeFileSync(join(temp, 'loop.c'), LOOP);
  writeFileSync(join(temp, 'empty.c'), 'int main(void) { return 0; }');
  writeFileSync(
    join(temp, 'bare.xml'),
    readFileSync('test/data/domains/hook-prepare-unmanaged.xml', 'utf8').replace(/<hostdev[\s\S]*<\/hostdev>/, ''),
  );
  execFileSync('gcc', ['-O2', '-o', join(temp, 'loop'), join(temp, 'loop.c')]);
  execFileSync('gcc', ['-O2', '-static', '-o', join(temp, 'empty'), join(temp, 'empty.c')]);
  const figures: Figure[] = [
    { what: 'empty static process', ms: [] },
    { what: 'hook, prepare of a domain without host devices', ms: [] },
    { what: 'hook, an operation of no interest (reconnect)', ms: [] },
  ];
  const hook = (operation: string): string[] => [nativeExecutable(), 'hook', 'guest', operation, 'begin', '-'];
  const commands = [[join(temp, 'empty')], hook('prepare'), hook('reconnect')];
  for (let round = 0; round < 5; round += 1) {
    figures.forEach((f, i) => {
      const { stdout, status } = spawnSync(
        join(temp, 'loop'),
        ['200', join(temp, 'bare.xml'), ...(commands[i] ?? [])],
        { encoding: 'utf8' },
      );
      if (status !== 0) throw new Error(`${f.what}: exit ${status}`);
      f.ms.push(...stdout.trim().split('\n').map(Number));
    });
  }
  const floor = of(figures, 'empty static process');
  const text = markdown(figures, (f) => `${(median(f) * 1000).toFixed(0)} us`);
  return [
    '### Hook, whole process',
    '',
    text,
    '',
    `To reach: an empty static process x 1.3 + 0.3 ms, here ${((floor * 1.3 + 0.3) * 1000).toFixed(0)} us.`,
    '',
  ];
}
