/**
 * Contract 8 as a table: whatever is missing when libvirt calls, only prepare and start may stop a guest, and only one
 * that takes host devices or whose XML did not come whole; nothing is printed on stdout, and a refusal is one clear
 * last line that says what to do.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { nativeExecutable } from '../../../src/addon/load.ts';
import { domainXml, UUID_A } from '../../mock/hosts.ts';
import { EVER } from '../../patience.ts';

const OPERATIONS = [
  'prepare',
  'start',
  'started',
  'stopped',
  'release',
  'migrate',
  'restore',
  'reconnect',
  'attach',
  'frobnicate',
];
const MAY_FAIL = ['prepare', 'start'];
const WITH = Buffer.from(domainXml('a', UUID_A, [{ address: '0000:21:10.0' }]));
const WITHOUT = Buffer.from(domainXml('a', UUID_A, []));
const LARGE = Buffer.concat([WITHOUT, Buffer.alloc(15 << 20, ' ')]);

let top: string;
const hook = () => join(top, 'hooks/qemu.d/90-hostdev');

function install(more: Record<string, string> = {}): void {
  const conf = { node: process.execPath, cli: join(top, 'cli.js'), root: join(top, 'root'), ...more };
  writeFileSync(
    join(top, 'hooks/hostdev.conf'),
    Object.entries(conf)
      .map(([k, v]) => `${k}=${v}\n`)
      .join(''),
  );
}

beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), 'hostdev-contract-'));
  mkdirSync(join(top, 'hooks/qemu.d'), { recursive: true });
  // Something in the books and the journal, so that a release and a stopped have work.
  for (const folder of ['bindings', 'journal']) {
    mkdirSync(join(top, 'root/run/hostdev', folder), { recursive: true });
    writeFileSync(join(top, 'root/run/hostdev', folder, 'x.json'), '{}');
  }
  writeFileSync(join(top, 'cli.js'), '');
  copyFileSync(nativeExecutable(), hook());
  chmodSync(hook(), 0o755);
  install();
});
afterEach(() => rmSync(top, { recursive: true, force: true }));

type Ran = { status: number | null; stdout: string; stderr: string };

/** The hook below a shell's limits or redirections. */
function run(operation: string, input: Buffer, before = '', after = ''): Ran {
  const words = `exec ${hook()} a ${operation} ${operation === 'release' ? 'end' : 'begin'} - ${after}`;
  return spawnSync('bash', ['-c', `${before}${words}`], { input, encoding: 'utf8', timeout: EVER });
}

/** A pipe that stays open with nothing more in it. */
function stalled(operation: string, input: Buffer): Promise<Ran> {
  const child = spawn(hook(), ['a', operation, operation === 'release' ? 'end' : 'begin', '-']);
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (d) => {
    stdout += d;
  });
  child.stderr.on('data', (d) => {
    stderr += d;
  });
  child.stdin.on('error', () => {});
  child.stdin.write(input);
  return new Promise((resolve) => child.once('close', (status) => resolve({ status, stdout, stderr })));
}

/** What a refusal tells to do. */
const WAY_OUT =
  /install it again|install nodejs again|run 'hostdev |start it again|'virsh edit'|'hostdev status'|see above/;

/** `stops`: whether this guest may be stopped at all, `must`: whether it has to be. */
function judge(operation: string, r: Ran, stops: boolean, must = stops): void {
  const may = stops && MAY_FAIL.includes(operation);
  const said = `${operation}: ${r.status} ${r.stderr}`;
  expect(r.stdout, said).toBe('');
  if (!may) expect(r.status, said).toBe(0);
  if (may && must) expect(r.status, said).not.toBe(0);
  if (r.status === 0) return;
  expect(r.status, said).toBe(1);
  expect(r.stderr.trimEnd().split('\n').at(-1), said).toMatch(/^hostdev: /);
  expect(r.stderr, said).toMatch(WAY_OUT);
}

const logged = (): string =>
  existsSync(join(top, 'root/run/hostdev/hook.log'))
    ? readFileSync(join(top, 'root/run/hostdev/hook.log'), 'utf8')
    : '';

describe('each operation, with host devices and without', () => {
  const both = (what: string, arrange: () => void, before = '') =>
    test(what, () => {
      arrange();
      for (const operation of OPERATIONS) {
        judge(operation, run(operation, WITH, before), true);
        judge(operation, run(operation, WITHOUT, before), false);
      }
      // A release that nobody could do stands in the log, by the guest's name.
      expect(logged()).toMatch(/"domain":"a","operation":"release","error":"/);
    });

  both('no node', () => install({ node: join(top, 'nowhere') }));
  both('no program', () => rmSync(join(top, 'cli.js')));
  both('a program that is none', () => writeFileSync(join(top, 'cli.js'), '\x7fELF junk ('));
  both('a program that says nothing', () => writeFileSync(join(top, 'cli.js'), 'process.exit(3)'));
  both('no conf', () => writeFileSync(join(top, 'hooks/hostdev.conf'), `root=${top}/root\n`));

  test('no room for a file: what node says counts', () => {
    for (const operation of OPERATIONS) {
      judge(operation, run(operation, WITH, 'ulimit -f 0; '), true, false);
      judge(operation, run(operation, WITHOUT, 'ulimit -f 0; '), false);
    }
  });

  test('no memory: none for 15 MiB of XML, none for node', () => {
    for (const kib of [6_000, 12_000, 24_000, 48_000])
      for (const operation of OPERATIONS) {
        // What could not be read may take devices.
        judge(operation, run(operation, LARGE, `ulimit -v ${kib}; `), true, false);
        judge(operation, run(operation, WITH, `ulimit -v ${kib}; `), true);
      }
  });

  test('stdin closed; an XML that ends too early', () => {
    for (const operation of OPERATIONS) {
      judge(operation, run(operation, Buffer.alloc(0), '', '<&-'), true);
      judge(operation, run(operation, WITH.subarray(0, WITH.indexOf('<source'))), true, false);
    }
  });

  test('stdin that stalls, empty or half way: the deadline ends it', async () => {
    install({ prepare_deadline: '1', start_deadline: '1', other_deadline: '1' });
    for (const input of [Buffer.alloc(0), WITHOUT.subarray(0, 40)])
      await Promise.all(OPERATIONS.map(async (o) => judge(o, await stalled(o, input), true)));
  });
});

describe('linear in its input', () => {
  const PIECES = [
    '<hostdev ',
    "<interface type='",
    '<disk ',
    '<!--',
    '<!-- <interface ',
    '<![CDATA[',
    "<a b='<hostdev",
  ];

  test.each(PIECES)('%s, again and again: four times the text costs about four times the work', (piece) => {
    install({ node: join(top, 'nowhere') });
    const cpu = (bytes: number): number => {
      const input = Buffer.from(`<domain><metadata>${piece.repeat(bytes / piece.length)}`);
      const r = spawnSync('bash', ['-c', `TIMEFORMAT='%U %S'; time ${hook()} a prepare begin - 2>/dev/null`], {
        input,
        encoding: 'utf8',
        timeout: EVER,
      });
      const [user = 0, system = 0] = (r.stderr.trim().split('\n').at(-1) ?? '').split(' ').map(Number);
      return user + system;
    };
    const least = (bytes: number): number => Math.min(...[1, 2, 3].map(() => cpu(bytes)));
    // Its own processor time, not the clock: 30 s and more when it was quadratic.
    expect(least(1 << 20)).toBeLessThan(Math.max(0.5, 8 * least(1 << 18)));
  });
});
