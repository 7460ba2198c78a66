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
import { loadNative, nativeExecutable } from '../../../src/addon/load.ts';
import { domainXml, UUID_A } from '../../mock/hosts.ts';
import { EVER } from '../../patience.ts';

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
  spawnSync(hook(), args, { input, encoding: 'utf8', timeout: EVER });
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
  writeFileSync(out('cli.js'), '');
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
    [
      'node ends as it does of a fault of its own',
      () => install('printf "Error: x\\n    at y\\n\\nNode.js v20\\n" >&2; exit 1'),
      /^Error: x\n(.*\n)*hostdev: (prepare|start) of domain 'a' was stopped: .*node ended with exit code 1: see above\n$/,
    ],
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
        expect(r.stderr.trim().split('\n').at(-1)).toMatch(/^hostdev: /);
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
    // Ceph and iSCSI: in many guests, and nothing of the host's.
    expect(started(inDevices("<disk type='network' device='disk'/>"))).toBe(false);
    expect(started(inDevices("<interface x='>' type='user'/>"))).toBe(false);
    expect(started(Buffer.from("hostdev nvme network type='hostdev'"))).toBe(false);
    expect(started(Buffer.alloc(0))).toBe(false);
  });

  test('hostdev, NVMe disk, interface of a device or a network, either quote', () => {
    for (const xml of [
      "<hostdev mode='subsystem'/>",
      '<disk device="disk" type="nvme"/>',
      "<interface type='hostdev'/>",
      '<interface\n\ttype="network">',
      "<interface x='>' type='network'>",
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

  test('what takes devices is looked for beyond 16 MiB too, where tags lie across the pieces', () => {
    install('exit 0');
    for (const size of [17 * 2 ** 20, 16 * 2 ** 20 - 30, 18 * 2 ** 20 - 3]) {
      const blank = Buffer.alloc(size, ' ');
      const taking = call('prepare', Buffer.concat([blank, Buffer.from("<hostdev mode='x'/>"), blank]));
      expect([size, taking.status]).toEqual([size, 1]);
      expect(call('prepare', Buffer.concat([blank, Buffer.from('<devices/>'), blank])).status).toBe(0);
    }
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

  test('prepare is asked to stop, then left behind; stderr ends although the child lives on', async () => {
    install(`trap 'touch ${out('asked')}' TERM; for i in $(seq 600); do sleep 0.1; done`, 'prepare_deadline=10');
    const r = timed('prepare');
    expect(r.status).toBe(1);
    expect(r.stderr).toContain('no answer within 10 s');
    expect(r.ms).toBeLessThan(EVER);
    while (!existsSync(out('asked'))) await new Promise((r) => setTimeout(r, 20));
  });

  test('a slow release is left running with its lock; the next prepare of that guest waits for it', () => {
    install(
      `case "$*" in *release*) until [ -e ${out('go')} ]; do sleep 0.05; done; sleep 0.3; touch ${out('released')} ;; *) [ -e ${out('released')} ] || { echo early >&2; exit 1; } ;; esac`,
      'other_deadline=0.3',
    );
    book();
    const r = timed('release');
    expect([r.status, existsSync(out('released'))]).toEqual([0, false]);
    expect(loadNative().tryLock(out(`root/run/hostdev/lock/domain-${UUID_A}`), false)).toBeNull();
    writeFileSync(out('go'), '');
    const next = timed('prepare');
    expect([next.status, next.stderr]).toEqual([0, '']);
  });
});

describe('stdin', () => {
  test('a pipe that does not block and is empty yet is not the end of the XML', () => {
    install(`touch ${out('ran')}`);
    const late = `import os, subprocess, sys, time
r, w = os.pipe()
os.set_blocking(r, False)
p = subprocess.Popen([sys.argv[1], 'a', 'prepare', 'begin', '-'], stdin=r)
os.close(r)
time.sleep(0.1)
os.write(w, sys.argv[2].encode())
os.close(w)
sys.exit(p.wait())`;
    expect(spawnSync('python3', ['-c', late, hook(), Buffer.from(XML).toString()]).status).toBe(0);
    expect(existsSync(out('ran'))).toBe(true);
  });

  test('one that does not end costs no more than the deadline', async () => {
    install('exit 0', 'start_deadline=0.3');
    const wait = async (xml: Uint8Array): Promise<[number | null, string]> => {
      const child = spawn(hook(), ['a', 'start', 'begin', '-'], { stdio: ['pipe', 'pipe', 'pipe'], timeout: EVER });
      child.stdin.write(xml);
      let text = '';
      child.stderr.on('data', (d) => {
        text += d;
      });
      const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
      child.stdin.destroy();
      return [code, text];
    };
    expect(await wait(XML)).toEqual([1, expect.stringContaining('its XML did not come to an end')]);
    // Devices may be listed behind its end.
    expect(await wait(BARE)).toEqual([1, expect.stringContaining('its XML did not come to an end')]);
  });

  test.each(['<hostdev', "<interface type='", '<disk ', '<!--', '<![CDATA['])(
    'a mebibyte of %s without an end is answered',
    (open) => {
      install('exit 0');
      const text = `<domain type='kvm'><uuid>${UUID_A}</uuid>${open.repeat((1024 * 1024) / open.length)}`;
      const r = call('prepare', Buffer.from(text));
      expect(r.status).toBe(0);
    },
  );

  test('closed descriptors and inherited ones: node gets its own three and the lock', () => {
    install(`ls -l /proc/$$/fd > ${out('fds')}`);
    writeFileSync(out('libvirts'), '');
    writeFileSync(out('xml'), XML);
    const sh = `exec 5<${out('libvirts')} 8<&5 9<&5 17<&5; exec ${hook()} a prepare begin - <${out('xml')} >&- 2>&-`;
    expect(spawnSync('bash', ['-c', sh]).status).toBe(0);
    expect(seen('fds')).not.toContain('libvirts');
    expect(seen('fds')).toContain(`domain-${UUID_A}`);
  });
});

test('what the environment, a word and a missing program could do', () => {
  install(`env > ${out('env')}`);
  const env = { ...process.env, NODE_OPTIONS: '--require /tmp/x.js', NODE_PATH: '/tmp' };
  expect(spawnSync(hook(), ['a', 'prepare', 'begin', '-'], { input: XML, env }).status).toBe(0);
  expect(seen('env')).not.toMatch(/^NODE_/m);
  writeFileSync(out('evil.js'), '');
  expect(spawnSync(hook(), [out('evil.js')], { input: XML }).status).toBe(0);
  rmSync(out('cli.js'));
  expect(call('prepare')).toMatchObject({ status: 1, stderr: expect.stringContaining(`hostdev is gone from ${top}`) });
  expect(call('started').status).toBe(0);
  // A log that may not grow is no reason to end by a signal.
  writeFileSync(out('cli.js'), '');
  writeFileSync(out('node'), 'no program');
  writeFileSync(out('xml'), XML);
  book();
  for (const [operation, code] of [
    ['prepare', 1],
    ['release', 0],
    ['started', 0],
  ] as const) {
    const { status } = spawnSync('bash', ['-c', `ulimit -f 0; exec ${hook()} a ${operation} begin - < ${out('xml')}`]);
    expect([operation, status]).toEqual([operation, code]);
  }
});

test('under any name it is the hook: moved in the order, a backup copy, half installed', () => {
  install('echo no >&2; exit 1');
  for (const name of ['50-hostdev', '90-hostdev~', '.90-hostdev.12.new', 'write']) {
    const other = join(top, 'hooks/qemu.d', name);
    copyFileSync(hook(), other);
    expect(spawnSync(other, ['a', 'prepare', 'begin', '-'], { input: XML }).status, name).toBe(1);
    expect(spawnSync(other, ['a', 'started', 'begin', '-'], { input: XML }).status, name).toBe(0);
  }
});

test('the conf as a person may write it', () => {
  install(`echo "$7" > ${out('ms')}`);
  const conf = join(top, 'hooks/hostdev.conf');
  writeFileSync(conf, `${readFileSync(conf, 'utf8')} prepare_deadline = 60 \n`.replaceAll('\n', '\r\n'));
  expect(call('prepare').status).toBe(0);
  expect(Number(seen('ms'))).toBeGreaterThan(40_000);
});

test('what libvirt blocks or ignores, node gets as usual, and the hook learns its exit code', () => {
  const signals = `import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD})
os.execv(sys.argv[1], sys.argv[1:])`;
  install(`grep -E '^Sig(Blk|Ign)' /proc/self/status > ${out('signals')}; echo 'hostdev: no' >&2; exit 1`);
  const from = performance.now();
  const r = spawnSync('python3', ['-c', signals, hook(), 'a', 'prepare', 'begin', '-'], { input: XML });
  expect([r.status, r.stderr.toString()]).toEqual([1, 'hostdev: no\n']);
  expect(performance.now() - from).toBeLessThan(EVER);
  const masks = [...(seen('signals') ?? '').matchAll(/Sig\w+:\s*([0-9a-f]+)/g)].map((m) => BigInt(`0x${m[1]}`));
  // SIGPIPE 13, SIGALRM 14, SIGTERM 15, SIGCHLD 17.
  expect(masks.map((m) => m & 0b1_0111_0000_0000_0000n)).toEqual([0n, 0n]);
});

test('a release that node did not get to stands in the log', () => {
  install('exit 0');
  book();
  rmSync(out('node'));
  expect(run(['say "hi"\n', 'release', 'end', '-']).status).toBe(0);
  install('exit 70');
  expect(call('release').status).toBe(0);
  const lines = seen('root/run/hostdev/hook.log')?.trim().split('\n') ?? [];
  expect(lines.map((l) => JSON.parse(l))).toMatchObject([
    { domain: 'say "hi"?', operation: 'release', error: expect.stringContaining('could not be started') },
    { domain: 'a', operation: 'release', error: expect.stringContaining('exit code 70') },
  ]);
});

describe('the lock of a guest', () => {
  const held = (): number => {
    mkdirSync(out('root/run/hostdev/lock'), { recursive: true });
    return loadNative().tryLock(out(`root/run/hostdev/lock/domain-${UUID_A}`), false) ?? -1;
  };

  test('held past the deadline: prepare says so, and does not blame node', () => {
    install(`touch ${out('ran')}`, 'prepare_deadline=0.5');
    const fd = held();
    const r = call('prepare');
    loadNative().unlock(fd);
    expect([r.status, existsSync(out('ran'))]).toEqual([1, false]);
    expect(r.stderr).toMatch(/an earlier call for this guest still has its lock after 0\.5 s/);
  });

  test('a release does not wait for it for ever: node is started without it and logs', async () => {
    install(`echo "[$HOSTDEV_HOOK_UUID]" > ${out('uuid')}`, 'prepare_deadline=0.4\nother_deadline=0.1');
    book();
    const fd = held();
    expect(call('release').status).toBe(0);
    while (!seen('uuid')?.endsWith('\n')) await new Promise((r) => setTimeout(r, 20));
    loadNative().unlock(fd);
    expect(seen('uuid')).toBe('[]\n');
  });

  test('node stopped at the deadline is not called killed', () => {
    install('exec sleep 600', 'prepare_deadline=0.4');
    const r = call('prepare');
    expect([r.status, r.stderr]).toEqual([1, expect.stringContaining('no answer within 0.4 s')]);
    install('trap "echo hostdev: undone >&2; exit 1" TERM; sleep 600 & wait', 'prepare_deadline=5');
    expect(call('prepare').stderr).toBe('hostdev: undone\n');
  });
});

test('a background process of node keeps nothing of libvirt: its pipe ends when the hook does', async () => {
  install('sleep 600 & exit 0');
  const child = spawn(hook(), ['a', 'prepare', 'begin', '-'], { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.end(XML);
  const from = performance.now();
  await new Promise((resolve) => child.stderr.on('end', resolve).resume());
  expect(performance.now() - from).toBeLessThan(EVER);
});

describe('the conf', () => {
  const LOG = () => `echo "$0" > ${out('started')}`;

  test('of several nodes the first that can be executed is started', () => {
    install(LOG());
    copyFileSync(out('node'), out('second'));
    chmodSync(out('second'), 0o755);
    const conf = (...nodes: string[]) =>
      writeFileSync(
        out('hooks/hostdev.conf'),
        `${nodes.map((n) => `node=${out(n)}`).join('\n')}\ncli=${top}/cli.js\nroot=${top}/root\n`,
      );
    for (const [nodes, started] of [
      [['nowhere', 'second', 'node'], 'second'],
      [['node', 'second'], 'node'],
      [['second', 'nowhere'], 'second'],
    ] as const) {
      conf(...nodes);
      expect([nodes, call('prepare').status, seen('started')]).toEqual([nodes, 0, `${out(started)}\n`]);
    }
    conf('nowhere', 'neither');
    expect(call('prepare')).toMatchObject({ status: 1, stderr: expect.stringContaining('neither') });
  });

  test('one that tells of a removal: one line, exit 0, and nothing is started, for every operation', () => {
    install(LOG(), 'removed=2026-11-26T12:00:00Z');
    book();
    for (const operation of ['prepare', 'start', 'started', 'stopped', 'release'])
      for (const xml of [XML, BARE, Buffer.from('<domain')]) {
        const { status, stdout, stderr } = call(operation, xml);
        expect([operation, status, stdout, stderr.split('\n').length]).toEqual([operation, 0, '', 2]);
        expect(stderr).toMatch(/^hostdev: it was removed .*install it again/);
      }
    for (const operation of ['reconnect', 'migrate', 'nonesuch', ''])
      expect(call(operation)).toMatchObject({ status: 0, stdout: '' });
    expect(seen('started')).toBeNull();
    install(LOG(), 'removed=');
    expect([call('prepare').status, seen('started')]).toEqual([0, `${out('node')}\n`]);
  });
});
