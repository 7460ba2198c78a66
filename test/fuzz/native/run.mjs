/**
 * `npm run fuzz:native`: the native parts that read what others write, under libFuzzer with ASan and UBSan, and the
 * addon's own functions under both once. HOSTDEV_FUZZ_SECONDS (60) is the time of all targets together. Prints what was
 * run and what was reported; exits 1 on a report, whose input is then in .cache/fuzz-native.
 */
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(join(dirname(fileURLToPath(import.meta.url)), '../../..'));
const OUT = '.cache/fuzz-native';
const SECONDS = Number(process.env.HOSTDEV_FUZZ_SECONDS ?? 60);
const CHECKS = ['-std=c++20', '-g', '-O1', '-fno-omit-frame-pointer', '-fno-sanitize-recover=all', '-Inative'];

/** Of each target its sources in native/, and where its seeds are: texts here, or files of these folders. */
const TARGETS = {
  xml: { sources: ['hook_xml', 'hook_stdin'], folders: ['test/data/domains', 'test/data/seeds'] },
  conf: {
    sources: ['hook_conf', 'root_fs'],
    texts: ['node=/usr/bin/node\ncli=/usr/lib/hostdev/dist/hostdev.js\nroot=/\n', ' prepare_deadline = 6e1\r\n#x=y\n'],
  },
  frame: { sources: ['frame'], texts: ['\x01\0\0\0W\x03\0abcvfio-pci', '\x01\0\0\0\x10\0\0\0\x02'] },
  root_fs: { sources: ['root_fs'], texts: ['\0\x02\xea\xea\xe8\xe0', '\x01\x01\xf4\xe8', 'z\0\xe0\xe3\xea\xe5'] },
  scan: {
    sources: ['scan', 'root_fs'],
    texts: [
      '../../drivers/igb\xff../../groups/7\xff../x\xffDMA-FQ\n\xffpci:v00008086d000010C9\n\xff0x8086\n\xff-1\n\xff8\n',
    ],
  },
  boot_table: {
    sources: ['boot_table', 'boot_cmdline', 'boot_sysfs', 'root_fs'],
    texts: [
      'hostdev boot table 1\nroot /dev/sda1\nvital pci0000:00/1f.2\nend 0123456789abcdef\n',
      'device pci0000:20/04.0/00.0 0000:23:00.0 8086 10d3 - - 020000 00-1b-21-ff-ff-3c-4d-5e 7 vfio-pci vfio_pci -\n',
      'quiet root=/dev/nfs ip=dhcp resume=/dev/sda2 hostdev.off=1',
      '../../../devices/pci0000:20/0000:20:04.0/0000:00:00.0',
    ],
  },
  lock: { sources: ['lock'], texts: ['group-7', 'domain-624392bd-9784-4e20-8b29-1e85f123c67d', 'a\0b'] },
};

const fail = (line) => {
  process.stderr.write(`hostdev: ${line}\n`);
  process.exit(1);
};

const CLANG = ['clang++', ...[22, 21, 20, 19, 18, 17, 16, 15, 14].map((n) => `clang++-${n}`)].find(
  (name) => !spawnSync(name, ['--version'], { stdio: 'ignore' }).error,
);
if (CLANG === undefined)
  fail('clang++ is missing, and the fuzzers are built with it: apt-get install clang libclang-rt-dev');

function compile(output, words) {
  const { status, stderr } = spawnSync(CLANG, [...CHECKS, ...words, '-o', output], { encoding: 'utf8' });
  if (status === 0) return;
  process.stderr.write(stderr);
  fail(
    /libclang_rt|cannot find -lclang_rt/.test(stderr)
      ? `the sanitizers of ${CLANG} are missing: apt-get install libclang-rt-dev (libclang-rt-14-dev for clang-14)`
      : `${output} does not build: see above`,
  );
}

/** Writes a target's seeds; at most 64 KiB each, which is more than any reader wants. */
function seeds(folder, { texts = [], folders = [] }) {
  mkdirSync(folder, { recursive: true });
  for (const [i, text] of texts.entries()) writeFileSync(join(folder, `text-${i}`), text, 'latin1');
  for (const from of folders.filter((f) => existsSync(f)))
    for (const name of readdirSync(from, { recursive: true }).map((n) => join(from, n)))
      if (statSync(name).isFile() && statSync(name).size < 65536) cpSync(name, join(folder, name.replaceAll('/', '-')));
}

function fuzz(name, target, scratch) {
  const program = join(OUT, name);
  const sources = [`test/fuzz/native/${name}.cc`, ...target.sources.map((s) => `native/${s}.cc`)];
  compile(program, ['-fsanitize=fuzzer,address,undefined', ...sources]);
  const corpus = join(OUT, `${name}.corpus`);
  seeds(corpus, target);
  const seconds = Math.max(1, Math.floor(SECONDS / Object.keys(TARGETS).length));
  const ran = spawnSync(
    program,
    [`-max_total_time=${seconds}`, '-print_final_stats=1', `-artifact_prefix=${OUT}/${name}-`, '-timeout=10', corpus],
    { encoding: 'utf8', maxBuffer: 2 ** 28, env: { ...process.env, FUZZ_SCRATCH: scratch } },
  );
  writeFileSync(join(OUT, `${name}.log`), `${ran.stdout}${ran.stderr}`);
  const runs = Number(/stat::number_of_executed_units:\s*(\d+)/.exec(ran.stderr)?.[1] ?? 0);
  return { name, runs, reports: ran.status === 0 ? 0 : 1 };
}

/**
 * A library of node's is not built with sanitizers: theirs is loaded first, and leaks of node's own are not looked for.
 */
function callAddon(scratch) {
  const [, list = ''] =
    /'target_name': 'hostdev',\s*'sources': \[([^\]]*)\]/.exec(readFileSync('binding.gyp', 'utf8')) ?? [];
  const sources = list.match(/native\/\w+\.cc/g) ?? [];
  const prefix = dirname(dirname(process.execPath));
  const headers = [join(prefix, 'include/node'), 'node_modules/node-addon-api'].flatMap((d) => ['-isystem', d]);
  if (!existsSync(join(prefix, 'include/node/node_api.h')))
    fail(`${prefix}/include/node is missing: the headers of this node`);
  const defines = ['NAPI_VERSION=8', 'NODE_ADDON_API_CPP_EXCEPTIONS_ALL', 'NODE_ADDON_API_DISABLE_DEPRECATED'];
  const output = join(OUT, 'hostdev.node');
  compile(output, [
    ...['-shared', '-fPIC', '-fsanitize=address,undefined', '-fno-sanitize=vptr,function', '-shared-libasan'],
    ...[...headers, ...defines.map((d) => `-D${d}`), ...sources],
  ]);
  const runtime = spawnSync(CLANG, [`-print-file-name=libclang_rt.asan-x86_64.so`], { encoding: 'utf8' }).stdout.trim();
  const env = {
    ...process.env,
    LD_PRELOAD: runtime,
    ASAN_OPTIONS: 'detect_leaks=0',
    HOSTDEV_ADDON: join(process.cwd(), output),
    FUZZ_SCRATCH: scratch,
  };
  const ran = spawnSync(process.execPath, ['test/fuzz/native/addon.mjs'], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    env,
  });
  writeFileSync(join(OUT, 'addon.log'), `${ran.stdout}${ran.stderr}`);
  return { name: 'addon', runs: Number(ran.stdout.split(' ')[0] || 0), reports: ran.status === 0 ? 0 : 1 };
}

mkdirSync(OUT, { recursive: true });
const scratch = mkdtempSync('/dev/shm/hostdev-fuzz-');
try {
  const rows = [...Object.entries(TARGETS).map(([name, target]) => fuzz(name, target, scratch)), callAddon(scratch)];
  for (const { name, runs, reports } of rows) {
    process.stdout.write(`${name.padEnd(8)} ${String(runs).padStart(10)} runs  ${reports} reports\n`);
    // Nothing was run: the target itself is broken.
    if (reports > 0 || runs === 0) {
      process.stdout.write(
        readFileSync(join(OUT, `${name}.log`), 'utf8')
          .split('\n')
          .slice(-60)
          .join('\n'),
      );
      process.exitCode = 1;
    }
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
