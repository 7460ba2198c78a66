/**
 * What starting costs: whole processes by their name, as people and libvirt start them, with each node of HOSTDEV_NODES
 * (paths, `:` between them; else the node of this process). Other builds in HOSTDEV_CLONES (folders of clones that are
 * built) take their turns in the same rounds.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { domainXml, UUID_A } from '../mock/hosts.ts';
import { type Figure, markdown, min, timeCommands } from './measure.ts';
import { makeTree } from './tree.ts';

const RUNS = Number(process.env.HOSTDEV_BENCH_RUNS ?? 31);
// The guest's, and one that nobody holds.
const TAKEN = '0000:20:00.1';
const FREE = '0000:20:00.2';

const paths = (text: string | undefined, otherwise: string): string[] =>
  (text ?? otherwise)
    .split(':')
    .filter((p) => p !== '')
    .map((p) => resolve(p));

/** A build's commands with one node; `env PATH=…` because that is how a program called by its name finds its node. */
function commands(build: string, node: string, root: string, conf: string): Record<string, string[]> {
  const hostdev = [
    'env',
    '-u',
    'HOSTDEV_NATIVE_DIR',
    `PATH=${dirname(node)}:/usr/bin:/bin`,
    join(build, 'dist/hostdev.js'),
    '--root',
    root,
  ];
  const hook = ['env', '-u', 'HOSTDEV_NATIVE_DIR', join(build, 'build/Release/hostdev-native'), 'hook', '--conf', conf];
  return {
    list: [...hostdev, 'list'],
    'bind -n of one VF': [...hostdev, 'bind', '-n', '--driver', 'vfio-pci', FREE],
    'hook, prepare of a guest with one VF': [
      'sh',
      '-c',
      'exec "$@" < "$0"',
      `${conf}.xml`,
      ...hook,
      'guest',
      'prepare',
      'begin',
      '-',
    ],
  };
}

/** Markdown of the section: a table for each node, the builds' rows beside each other. */
export function benchStart(): string {
  const root = makeTree();
  const temp = mkdtempSync(join(tmpdir(), 'hostdev-bench-'));
  try {
    mkdirSync(join(root, 'sys/bus/pci/drivers/vfio-pci'));
    const builds = [...paths(process.env.HOSTDEV_CLONES, ''), process.cwd()];
    const tables = paths(process.env.HOSTDEV_NODES, process.execPath).flatMap((node, i) =>
      ofNode(node, builds, root, join(temp, `${i}`)),
    );
    return [`${RUNS} rounds.`, '', ...tables].join('\n');
  } finally {
    rmSync(root, { recursive: true });
    rmSync(temp, { recursive: true });
  }
}

function ofNode(given: string, builds: string[], root: string, folder: string): string[] {
  mkdirSync(folder);
  // By its name it has to be called node.
  const node = join(folder, 'node');
  symlinkSync(given, node);
  const all: Record<string, string[]> = { 'node -e 0': [node, '-e', '0'] };
  const ofBuilds = builds.map((build, i) => {
    const conf = join(folder, `hostdev-${i}.conf`);
    writeFileSync(conf, `node=${node}\ncli=${join(build, 'dist/hostdev.js')}\nroot=${root}\n`);
    // managed='yes': libvirt binds it, so nothing moves and a tree of plain files will do.
    writeFileSync(`${conf}.xml`, domainXml('guest', UUID_A, [{ address: TAKEN, managed: 'yes' }]));
    return {
      name: build === process.cwd() ? 'this build' : basename(build),
      commands: commands(build, node, root, conf),
    };
  });
  for (const what of Object.keys(ofBuilds[0]?.commands ?? {}))
    for (const build of ofBuilds) all[builds.length > 1 ? `${what}: ${build.name}` : what] = build.commands[what] ?? [];
  const figures = timeCommands(all, RUNS);
  const bare = figures[0];
  const remark = (f: Figure): string =>
    bare === undefined || f === bare ? '' : `${(min(f) - min(bare)).toFixed(1)} ms above a bare node`;
  const version = execFileSync(
    node,
    [
      '-p',
      'process.version + (process.config.variables.node_use_node_snapshot ? "" : ", built without a startup snapshot")',
    ],
    {
      encoding: 'utf8',
    },
  ).trim();
  return [`### node ${version}`, '', markdown(figures, remark), ''];
}
