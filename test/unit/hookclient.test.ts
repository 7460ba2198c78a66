/** What libvirt runs: the real executable, installed as in production, with scripts in node's place. */
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
import { loadNative, nativeExecutable } from '../../src/addon/load.ts';
import { domainXml, UUID_A } from '../mock/hosts.ts';

const XML = domainXml('a', UUID_A, [{ address: '0000:21:10.0' }]);
const BARE = domainXml('a', UUID_A, []);

let top: string;
const hook = () => join(top, 'hooks/qemu.d/90-hostdev');
const out = (name: string) => join(top, name);
const seen = (name: string) => (existsSync(out(name)) ? readFileSync(out(name), 'latin1') : null);

/** Installs the hook with a shell script as node. */
function install(script: string, more = ''): void {
  writeFileSync(join(top, 'node'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  writeFileSync(
    join(top, 'hooks/hostdev.conf'),
    `# written by a test\nnode=${top}/node\ncli=${top}/cli.js\nroot=${top}/root\n${more}\n`,
  );
}

const run = (args: string[], input: Uint8Array = XML) =>
  spawnSync(hook(), args, { input, encoding: 'utf8', timeout: 20_000 });
const call = (operation: string, input: Uint8Array = XML, name = 'a') =>
  run([name, operation, operation === 'release' ? 'end' : 'begin', '-'], input);

/** An entry in the books, without which a release has nothing to do. */
function book(): void {
  mkdirSync(out('root/run/hostdev/bindings'), { recursive: true });
  writeFileSync(out('root/run/hostdev/bindings/0000:21:10.0.json'), '{}');
}

beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), 'hostdev-client-'));
  mkdirSync(join(top, 'hooks/qemu.d'), { recursive: true });
  mkdirSync(out('root/run'), { recursive: true });
  copyFileSync(nativeExecutable(), hook());
  chmodSync(hook(), 0o755);
});
afterEach(() => rmSync(top, { recursive: true, force: true }));

test('node gets the words, the XML byte for byte, and the domain lock; nothing of libvirt', () => {
  install(
    `for a in "$@"; do echo "$a"; done > ${out('args')}; cat > ${out('stdin')}; ls /proc/$$/fd > ${out('fds')}; echo "$HOSTDEV_HOOK_UUID" > ${out('uuid')}`,
  );
  const r = run(["it's -a name", 'prepare', 'begin', '-']);
  expect([r.status, r.stdout, r.stderr]).toEqual([0, '', '']);
  const args = seen('args')?.trim().split('\n') ?? [];
  expect(args.slice(0, 6)).toEqual([`${top}/cli.js`, '--root', `${top}/root`, 'hook', 'run', '--deadline-ms']);
  expect(Number(args[6])).toBeGreaterThan(20_000);
  expect(Number(args[6])).toBeLessThan(30_000);
  expect(args.slice(7)).toEqual(['--', "it's -a name", 'prepare', 'begin', '-']);
  expect(seen('stdin')).toBe(Buffer.from(XML).toString('latin1'));
  // The shell has its script open as well, at 10 or above.
  expect(
    seen('fds')
      ?.split('\n')
      .filter((n) => n !== '' && Number(n) < 10)
      .sort(),
  ).toEqual(['0', '1', '2', '9']);
  expect(seen('uuid')?.trim()).toBe(UUID_A);
});

describe('only prepare and start fail, and say why in one line', () => {
  const OTHERS = [
    'release',
    'started',
    'stopped',
    'reconnect',
    'migrate',
    'restore',
    'attach',
    'new-in-libvirt-13',
    '',
  ];
  const WAYS: [string, () => void, RegExp][] = [
    ['node refuses', () => install('echo "hostdev: some cause" >&2; exit 5'), /^hostdev: some cause\n$/],
    ['node ends without a word', () => install('exit 70'), /exit code 70 and said nothing/],
    ['node is killed', () => install('kill -9 $$'), /killed by signal 9/],
    [
      'node is missing',
      () => {
        install('');
        rmSync(out('node'));
      },
      /node could not be started \(No such file or directory\)/,
    ],
    [
      'node is no program',
      () => {
        install('');
        writeFileSync(out('node'), 'x', { mode: 0o755 });
      },
      /could not be started \(Exec format error\)/,
    ],
    [
      'the conf is missing',
      () => {
        install('');
        rmSync(join(top, 'hooks/hostdev.conf'));
      },
      /hostdev\.conf is not there; run 'hostdev hook install'/,
    ],
    [
      'the conf is empty',
      () => {
        install('');
        writeFileSync(join(top, 'hooks/hostdev.conf'), '');
      },
      /names no node= and cli=/,
    ],
  ];
  for (const [what, arrange, text] of WAYS) {
    test(what, () => {
      arrange();
      book();
      for (const operation of ['prepare', 'start']) {
        const r = call(operation);
        expect([r.status, r.stdout]).toEqual([1, '']);
        expect(r.stderr).toMatch(text);
        expect(r.stderr.trim().split('\n')).toHaveLength(1);
      }
      for (const operation of OTHERS) {
        const r = call(operation);
        expect([operation, r.status, r.stdout, r.stderr]).toEqual([operation, 0, '', '']);
      }
    });
  }

  test('wrong words are none of our business', () => {
    install('exit 1');
    for (const args of [[], ['a'], ['a', 'prepare', 'begin'], ['a', 'prepare', 'begin', '-', 'more']])
      expect(run(args).status).toBe(0);
  });
});

describe('node is started only for domains that may take host devices', () => {
  const inDevices = (text: string) =>
    Buffer.from(Buffer.from(BARE).toString().replace('<devices>', `<devices>${text}`));
  const started = (xml: Uint8Array): boolean => {
    install(`touch ${out('ran')}`);
    rmSync(out('ran'), { force: true });
    expect(call('prepare', xml).status).toBe(0);
    return existsSync(out('ran'));
  };

  test('none: not started', () => {
    expect(started(BARE)).toBe(false);
    expect(
      started(inDevices("<disk type='file'/><interface type='bridge' x=\"network\"/><interface\n  type = 'user'/>")),
    ).toBe(false);
    expect(started(Buffer.from("hostdev nvme network type='hostdev'"))).toBe(false);
    expect(started(Buffer.alloc(0))).toBe(false);
  });

  test('hostdev, NVMe disk, interface of a device or a network, either quote', () => {
    for (const xml of [
      "<hostdev mode='subsystem'/>",
      '<disk device="disk" type="nvme"/>',
      "<interface type='hostdev'/>",
      '<interface\n\ttype="network">',
    ]) {
      expect(started(inDevices(xml)), xml).toBe(true);
    }
  });

  test('more than 16 MiB is refused where it may take devices', () => {
    install('exit 0');
    const huge = Buffer.concat([Buffer.from('<domain><devices><hostdev/>'), Buffer.alloc(16 * 1024 * 1024, ' ')]);
    const r = call('prepare', huge);
    expect(r.status).toBe(1);
    expect(r.stderr).toContain('larger than 16 MiB');
  });

  test('a release without books does not start it', () => {
    install(`touch ${out('ran')}`);
    expect(call('release').status).toBe(0);
    expect(existsSync(out('ran'))).toBe(false);
    book();
    call('release', BARE);
    expect(existsSync(out('ran'))).toBe(true);
  });
});

describe('deadlines', () => {
  const timed = (operation: string): { ms: number; status: number | null; stderr: string } => {
    const from = performance.now();
    const { status, stderr } = call(operation);
    return { ms: performance.now() - from, status, stderr };
  };

  test('prepare is asked to stop, then left behind; stderr ends although the child lives on', () => {
    install(`trap 'touch ${out('asked')}' TERM; while :; do sleep 0.05; done`, 'prepare_deadline=1');
    const r = timed('prepare');
    expect(r.status).toBe(1);
    expect(r.stderr).toContain('no answer within 1 s');
    expect(r.ms).toBeLessThan(1500);
    expect(existsSync(out('asked'))).toBe(true);
  });

  test('a slow release is left running with its lock; the next prepare of that guest waits for it', () => {
    install(
      `case "$*" in *release*) sleep 1.2; touch ${out('released')} ;; *) [ -e ${out('released')} ] || { echo early >&2; exit 1; } ;; esac`,
      'other_deadline=0.3',
    );
    book();
    const r = timed('release');
    expect([r.status, existsSync(out('released'))]).toEqual([0, false]);
    expect(r.ms).toBeLessThan(900);
    expect(loadNative().tryLock(out(`root/run/hostdev/lock/domain-${UUID_A}`), false)).toBeNull();
    const next = timed('prepare');
    expect([next.status, next.stderr]).toEqual([0, '']);
  });
});

test('a background process of node keeps nothing of libvirt: its pipe ends when the hook does', async () => {
  install('sleep 3 & exit 0');
  const child = spawn(hook(), ['a', 'prepare', 'begin', '-'], { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.end(XML);
  const from = performance.now();
  await new Promise((resolve) => child.stderr.on('end', resolve).resume());
  expect(performance.now() - from).toBeLessThan(2000);
});
