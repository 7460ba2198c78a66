/**
 * Below another root nothing of this machine is read or spoken to (contract 1): every verb runs under strace, and each
 * path it names, each process it starts and each socket it uses is looked at. What is allowed is a short list, each
 * with its reason.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { COMMANDS } from '../../src/cli/commands.ts';
import { isLacking } from '../lacking.ts';
import { domainXml, UUID_A } from '../mock/hosts.ts';
import { CLI } from '../mock/tree.ts';
import { describeSim, SimHost } from './simhost.ts';
import { A, D, PF, WORLD } from './world.ts';

const TOP = dirname(dirname(CLI));
const NODE = realpathSync(process.execPath);
const NATIVE = join(TOP, 'build/Release/hostdev-native');

/** Why no process can be traced here; null when one can. */
function missing(): string | null {
  const ran = spawnSync('strace', ['-qq', '-o', '/dev/null', 'true']);
  if (ran.error !== undefined) return 'strace is not installed: apt-get install strace';
  return ran.status === 0 ? null : `strace cannot trace here: ${ran.stderr}`;
}

const describeTraced = describe.skipIf(isLacking(missing()));

const ALLOWED: [RegExp, why: string][] = [
  [/^\/(usr\/)?lib(64)?\/|^\/etc\/ld\.so\./, 'the loader: libraries of node and of the addon'],
  [/^\/etc\/ssl\/|^\/usr\/(local\/)?(lib\/)?ssl\/|openssl\.cnf$/, 'node: its OpenSSL looks for a configuration'],
  [
    /^\/proc\/self\/|^\/proc\/(meminfo|cpuinfo|stat)$|^\/sys\/fs\/cgroup|^\/sys\/devices\/system\/cpu/,
    'node: how much memory it may use; ours: our own descriptors',
  ],
  [/^\/proc\/\d+\/stat$/, 'ours: whether our helpers and our callers still run (addon/process.ts)'],
  [/^\/proc\/sys\/vm\/|^\/proc\/version/, 'node: how the kernel hands out memory'],
  [/^\/dev\/(null|urandom|random|tty)$/, 'node, and our helper that is left without stderr'],
  [/^\/etc(\/localtime)?$|^\/usr\/share($|\/zoneinfo)/, 'node: the time zone, and the folders on the way there'],
  [/^\/(usr\/)?(local\/)?share\/locale|^\/usr\/share\/icu/, 'node: languages'],
];

/** Paths of the program itself, and the folders on the way there, which node's realpath looks at. */
function isProgram(path: string): boolean {
  return (
    [NODE, process.execPath, TOP].some((own) => path === own || own.startsWith(path === '/' ? path : `${path}/`)) ||
    path.startsWith(`${TOP}/`)
  );
}

let sim: SimHost;
let work: string;

/** What a run names that is not below the root, one line each; and its exit code. */
function outside(args: string[], input: string): { exit: number | null; found: string[]; err: string } {
  const trace = join(work, 'trace');
  const ran = spawnSync(
    'strace',
    [
      '-f',
      '-qq',
      '-s',
      '4096',
      '-e',
      'signal=none',
      '-e',
      'trace=%file,%network',
      '-o',
      trace,
      NODE,
      CLI,
      '--root',
      sim.root,
      ...args,
    ],
    { input, cwd: work, encoding: 'utf8', env: { PATH: process.env.PATH ?? '', HOME: work } },
  );
  const found = new Set<string>();
  for (const line of readFileSync(trace, 'utf8').split('\n')) {
    const call = /^\d+ +(\w+)\((.*)$/.exec(line);
    if (call === null) continue;
    const [, name = '', rest = ''] = call;
    if (name === 'socketpair' || name === 'shutdown' || /^[gs]etsockopt$|^getsockname$|^recv/.test(name)) continue;
    const path = /^(?:AT_FDCWD, )?"([^"]*)"/.exec(rest)?.[1];
    if (name.startsWith('execve')) {
      if (path !== NODE && path !== NATIVE) found.add(`starts ${path}`);
      continue;
    }
    // A path from a descriptor is below what that was opened by; anything else is a socket.
    if (path === undefined) {
      if (!/^(?:\d+, )/.test(rest)) found.add(`${name}(${rest}`);
      else if (/^(socket|connect|bind|listen|accept|send)/.test(name)) found.add(`${name}(${rest}`);
      continue;
    }
    const at = resolve(work, path);
    const isBelow = at === sim.root || at.startsWith(`${sim.root}/`) || sim.root.startsWith(`${at}/`);
    if (isBelow || at === work || at.startsWith(`${work}/`) || isProgram(at)) continue;
    if (!ALLOWED.some(([pattern]) => pattern.test(at))) found.add(`${name} ${at}`);
  }
  return { exit: ran.status, found: [...found], err: ran.stderr };
}

/** Each verb with words for it, in an order in which most of them have something to do. */
const RUNS: [name: string, args: string[], input?: string][] = (() => {
  const guest = Buffer.from(domainXml('g', UUID_A, [{ address: D }])).toString();
  return [
    ['list', []],
    ['list', ['-j']],
    ['show', [A]],
    ['group list', []],
    ['group show', ['20']],
    ['group why', [A]],
    ['attach', ['g', A]],
    ['detach', ['g', A]],
    ['guest list', []],
    ['guest show', ['g']],
    ['bind', ['-n', D]],
    ['bind', [D]],
    ['status', []],
    ['status', ['--fix']],
    ['unbind', [D]],
    ['vf create', [PF, '--count', '2']],
    ['vf list', [PF]],
    ['vf set', [PF, '--vgpu-type', '0']],
    ['vf remove', [PF]],
    ['wish add', [A]],
    ['wish list', []],
    ['wish check', []],
    ['boot apply', []],
    ['boot status', []],
    ['boot install', []],
    ['boot refresh', []],
    ['boot remove', []],
    ['import', ['driverctl']],
    ['import', ['rc.local', '--write']],
    ['wish remove', [A]],
    ['hook install', []],
    ['hook status', []],
    ['hook test', ['guest.xml']],
    ['hook run', ['g', 'prepare', 'begin', '-'], guest],
    ['hook run', ['g', 'start', 'begin', '-'], guest],
    ['hook run', ['g', 'started', 'begin', '-'], guest],
    ['hook run', ['g', 'release', 'end', '-'], guest],
    ['hook remove', []],
    ['log', []],
    ['log', [D]],
    ['journal list', []],
    ['journal undo', ['x-1-1']],
    ['journal resume', ['x-1-1']],
    ['doctor', []],
    ['completion', ['words', '--', 'bi']],
    ['domain plan', ['guest.xml', '--device', A]],
    ['domain check', ['guest.xml']],
    ['domain define', ['guest.xml']],
    ['viommu suggest', ['guest.xml']],
    ['config check', []],
    ['pool list', []],
    ['claim', ['-n', 'x:1']],
    ['placement show', []],
    ['simulate', ['-'], '{"device_spec":[],"alias":[],"devices":[]}'],
  ];
})();

describeSim('--root', () => {
  describeTraced('under strace', () => {
    beforeAll(async () => {
      work = mkdtempSync(join(tmpdir(), 'hostdev-trace-'));
      writeFileSync(join(work, 'guest.xml'), domainXml('g', UUID_A, [{ address: D }]));
      sim = await SimHost.start(WORLD);
    });
    afterAll(async () => {
      await sim.stop();
      rmSync(work, { recursive: true });
    });

    test('every verb is here', () => {
      const names = new Set(RUNS.map(([name]) => name));
      expect(COMMANDS.map((c) => c.name).filter((name) => !names.has(name))).toEqual([]);
    });

    test.each(RUNS)('%s %j', (name, args, input = '') => {
      const { exit, found, err } = outside([...name.split(' '), ...args], input);
      expect(found).toEqual([]);
      expect({ exit, err }).not.toEqual({ exit: 2, err: expect.anything() });
      expect({ exit, err }).not.toEqual({ exit: 70, err: expect.anything() });
    });

    test('the look finds what it is for', () => {
      const { found } = outside(['config', 'check', '--config', '/etc/hostname'], '');
      expect(found).toContain('openat /etc/hostname');
    });
  });
});
