/**
 * `npm run sanitize:native`: the client of libvirt, built with ASan and UBSan and then with TSan, under stress.cc on
 * libvirt's test driver and on a libvirtd of its own that restarts, is killed and is stopped meanwhile.
 * HOSTDEV_SANITIZE_SECONDS (120) is the time of each. Prints what was done and reported; exits 1 on a report.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { now, sleep } from '../../src/clock.ts';
import { LibvirtSandbox, sandboxLacks, UPHEAVALS } from './sandbox.ts';

const OUT = '.cache/sanitize';
const SECONDS = Number(process.env.HOSTDEV_SANITIZE_SECONDS ?? 120);
const SOURCES = ['test/libvirtd/stress.cc', ...['api', 'calls', 'client'].map((n) => `native/libvirt_${n}.cc`)];
/** The sanitizers stand before the XDR functions that libvirt calls, and must find the true ones. */
const LIBRARIES = ['-ldl', '-Wl,--no-as-needed', '-l:libtirpc.so.3'];
const WORDS = ['-std=c++20', '-g', '-O1', '-fno-omit-frame-pointer', '-Wall', '-Wextra', '-Inative', '-pthread'];

/**
 * What libvirt 9.0.0 itself leaks with a connection that is lost: the ping of its keepalive that was not sent yet, from
 * its own loop, and the error that it keeps while virConnectClose cleans up. We call neither.
 */
const LEAKS_OF_LIBVIRT = 'leak:virNetClientSendNonBlock\nleak:virSaveLastError\n';

/**
 * libvirt and glib are not built with TSan, which does not see how they lock: what they do among themselves is not
 * judged. Addresses at random are not what every TSan expects.
 */
const BUILDS = [
  {
    name: 'address',
    words: ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'],
    env: {
      ASAN_OPTIONS: 'fast_unwind_on_malloc=0',
      LSAN_OPTIONS: `suppressions=${join(OUT, 'leaks')}:print_suppressions=0`,
    },
    before: [],
  },
  {
    name: 'thread',
    words: ['-fsanitize=thread'],
    env: { TSAN_OPTIONS: 'ignore_noninstrumented_modules=1' },
    before: ['setarch', '-R'],
  },
];

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

function fail(line: string): never {
  process.stderr.write(`hostdev: ${line}\n`);
  process.exit(1);
}

/** Runs one build on `uris` while `body` does; what it printed, and how it ended. */
async function stress(
  build: (typeof BUILDS)[number],
  uris: string[],
  body: () => Promise<void>,
): Promise<{ said: string; how: number | string | null }> {
  const [program = '', ...words] = [...build.before, join(OUT, build.name), ...uris];
  const child = spawn(program, words, { env: { ...process.env, ...build.env } });
  let said = '';
  const hear = (text: Buffer): void => {
    said += text;
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  // It may have ended already, with a report.
  child.stdin.on('error', () => {});
  const ended = new Promise<number | string | null>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal));
  });
  await body();
  child.stdin.end();
  const how = await ended;
  return { said, how };
}

const lacks = sandboxLacks();
if (lacks !== null) fail(lacks);
mkdirSync(OUT, { recursive: true });
for (const { name, words } of BUILDS) {
  const all = [...WORDS, ...words, ...SOURCES, ...LIBRARIES, '-o', join(OUT, name)];
  const { status, error, stderr } = spawnSync('g++', all, { encoding: 'utf8' });
  if (error) fail('g++ is missing: apt-get install g++');
  if (status !== 0) fail(`${name}: does not build: ${stderr}`);
}
const node = join(process.cwd(), OUT, 'node.xml');
writeFileSync(node, '<node/>');
writeFileSync(join(OUT, 'leaks'), LEAKS_OF_LIBVIRT);
const sandbox = await LibvirtSandbox.start('test/libvirtd/sandbox.sh');
try {
  for (const build of BUILDS) {
    const end = now() + 1000 * SECONDS;
    let upheavals = 0;
    const { said, how } = await stress(build, [sandbox.uri, sandbox.uri, `test://${node}`], async () => {
      for (; now() < end; upheavals += 1) {
        await sleep(1000);
        await sandbox.upheave(UPHEAVALS[upheavals % UPHEAVALS.length] ?? 'kill', async () => {});
        await sandbox.answers();
      }
    });
    const reports = said.match(/^.*(Sanitizer: |runtime error: ).*$/gm) ?? [];
    const isClean = how === 0 && reports.length === 0;
    say(`${build.name}: ${upheavals} upheavals; ${isClean ? said.trim() : `${how}, ${reports.length} reports`}`);
    if (isClean) continue;
    say(said);
    process.exitCode = 1;
  }
} finally {
  await sandbox.stop();
}
