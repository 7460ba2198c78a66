/**
 * Disposable virtual machines: boots one, runs scripts in it over ssh, ends it. Nothing that happens inside is kept.
 * Every machine has a run folder of its own, so several can run side by side (on two cores they starve each other).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  closeSync,
  createReadStream,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { ensureImage, type Image } from './image.ts';
import { freePort, greets, Link, type Result, told } from './link.ts';
import { ended, guard, killNow, spawnTied, unguard } from './processes.ts';
import { type Profile, type Topology, topology } from './topology.ts';

/** How the machine came up: a stall is a boot that had no shell in time, or a kernel that gave up, and was ended. */
export interface BootReport {
  tries: number;
  stalls: number;
  seconds: number;
  accel: Accel;
}

export interface MachineOptions {
  profile?: Profile;
  name?: string;
  memoryMiB?: number;
  /** Added to the kernel's command line. */
  append?: string;
  /** Extra devices say bus=pcie.0,addr=7 or higher: the default bus takes bridges only. */
  extraQemuArgs?: readonly string[];
  /** A boot without a shell after this long is stalled (120 s). */
  stallMs?: number;
}

export type Accel = 'tcg' | 'kvm';

const STALL_MS = 120_000;
const PROBE_MS = 10_000;
const SCRIPT_MS = 120_000;

/** A QEMU that was started, whatever became of it. */
export type Started = {
  runDir: string;
  qemu: ChildProcess;
  link: Link;
  kill: () => void;
  port: number;
  /** Why it could not be started. */
  failed?: Error;
};

export type Attempt = { accel: Accel; smp: 1 | 2; thread: 'multi' | 'single'; memoryMiB: number };

/** A running machine. */
export class Machine {
  readonly name: string;
  readonly profile: Profile;
  readonly boot: BootReport;
  /** Serial console and QEMU's own messages lie here until the machine is stopped. */
  readonly runDir: string;
  readonly #qemu: ChildProcess;
  readonly #link: Link;
  readonly #kill: () => void;

  /** @internal Use {@link startMachine}. */
  constructor(name: string, profile: Profile, boot: BootReport, started: Started) {
    this.name = name;
    this.profile = profile;
    this.boot = boot;
    this.runDir = started.runDir;
    this.#qemu = started.qemu;
    this.#link = started.link;
    this.#kill = started.kill;
  }

  /** The process id of QEMU. */
  get pid(): number {
    return this.#qemu.pid ?? 0;
  }

  /** A command line that opens an interactive shell. */
  get sshCommand(): string {
    return ['ssh', ...this.#link.options, 'root@127.0.0.1'].join(' ');
  }

  /**
   * Runs a bash script; its commands find an empty stdin. Throws when it takes too long or the machine is gone, not
   * when it fails. A process left in the background must give up stdout and stderr, or this waits for it.
   */
  async sh(script: string, options: { timeoutMs?: number } = {}): Promise<Result> {
    const timeoutMs = options.timeoutMs ?? SCRIPT_MS;
    // `timeout` so that a script given up on does not go on in there.
    const command = `exec timeout -k 5 ${Math.ceil(timeoutMs / 1000)} bash -c 'eval "$(cat)" < /dev/null'`;
    const result = await this.#ssh(command, script, timeoutMs + 15_000);
    if (result.code === 124) throw new Error(`${this.name}: no end after ${timeoutMs} ms\n${told(script, result)}`);
    return result;
  }

  /** Like {@link sh}, but a script that fails throws, with everything it said; gives its stdout, trimmed. */
  async ok(script: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const result = await this.sh(script, options);
    if (result.code !== 0) throw new Error(`${this.name}: exit ${result.code}\n${told(script, result)}`);
    return result.stdout.trim();
  }

  /** Copies a file or a folder's content; missing parents are made, the mode is kept. */
  async push(hostPath: string, guestPath: string): Promise<void> {
    const stat = statSync(hostPath);
    const to = quote(guestPath);
    if (!stat.isDirectory()) {
      const mode = (stat.mode & 0o7777).toString(8);
      await this.#send(`mkdir -p "$(dirname ${to})" && cat > ${to} && chmod ${mode} ${to}`, createReadStream(hostPath));
      return;
    }
    await this.pushTar(['-C', hostPath, '.'], guestPath);
  }

  /** Unpacks into a folder of the guest what the host's tar packs when given these arguments. */
  async pushTar(tarArgs: readonly string[], guestPath: string): Promise<void> {
    const to = quote(guestPath);
    const tar = spawn('tar', ['-cf', '-', '--owner=0', '--group=0', ...tarArgs], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    tar.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    const packed = new Promise<void>((resolve, reject) => {
      tar.on('error', reject);
      tar.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`tar: exit ${code}: ${said.trim()}`))));
    });
    await Promise.all([packed, this.#send(`mkdir -p ${to} && tar -xf - -C ${to}`, tar.stdout)]);
  }

  /** Writes a text file; missing parents are made. */
  async write(guestPath: string, content: string, mode = '644'): Promise<void> {
    const to = quote(guestPath);
    await this.#send(`mkdir -p "$(dirname ${to})" && cat > ${to} && chmod ${mode} ${to}`, content);
  }

  /** The end of the serial console: where a kernel's last words are. */
  serial(lines = 30): string {
    return tail(path.join(this.runDir, 'serial.log'), lines);
  }

  /** Ends the machine and removes its run folder. */
  async stop(): Promise<void> {
    const gone = ended(this.#qemu)
      ? Promise.resolve()
      : new Promise<void>((done) => this.#qemu.once('exit', () => done()));
    this.#kill();
    await gone;
    unguard(this.#kill);
  }

  async #send(command: string, input: string | Readable): Promise<void> {
    const result = await this.#ssh(command, input, SCRIPT_MS);
    if (result.code !== 0) throw new Error(`${this.name}: ${command}: exit ${result.code}: ${result.stderr.trim()}`);
  }

  async #ssh(command: string, input: string | Readable, timeoutMs: number): Promise<Result> {
    const result = await this.#link.run(command, input, timeoutMs);
    if (result.code !== 255) return result;
    // 255 is ssh's own; a kernel that dies takes a moment to take QEMU with it.
    await sleep(1000);
    if (!ended(this.#qemu)) return result;
    throw new Error(`${this.name}: the machine is gone\n${told(command, result)}\n${this.serial()}`);
  }
}

/** Boots a machine and gives it back when a shell answers; a boot that stalls is tried again with other settings. */
export async function startMachine(options: MachineOptions = {}): Promise<Machine> {
  const profile = options.profile ?? 'intel';
  const name = options.name ?? profile;
  const memoryMiB = options.memoryMiB ?? 3072;
  const image = await ensureImage();
  const accel = await chooseAccel(image);
  // A machine that KVM lets down is tried without it, unless KVM was asked for.
  const second = process.env.HOSTDEV_VM_ACCEL === 'kvm' ? 'kvm' : 'tcg';
  const attempts: Attempt[] = [
    { accel, smp: 2, thread: 'multi', memoryMiB },
    { accel: second, smp: 1, thread: 'multi', memoryMiB },
    { accel: second, smp: 1, thread: 'single', memoryMiB: memoryMiB + 1024 },
  ];
  let stalls = 0;
  const begin = Date.now();
  for (const [index, attempt] of attempts.entries()) {
    const tries = index + 1;
    const started = await boot(image, profile, attempt, options);
    if (started) {
      const report = { tries, stalls, seconds: (Date.now() - begin) / 1000, accel: attempt.accel };
      const trouble = stalls > 0 ? `, try ${tries}, ${stalls} stalled` : '';
      say(`${name}: ${profile}, ${attempt.accel}, shell after ${report.seconds.toFixed(1)} s${trouble}`);
      return new Machine(name, profile, report, started);
    }
    stalls += 1;
    say(`${name}: try ${tries} stalled (${attempt.accel}, smp ${attempt.smp}, ${attempt.memoryMiB} MiB): no shell`);
  }
  throw new Error(`${name}: no shell in ${attempts.length} boots of ${(options.stallMs ?? STALL_MS) / 1000} s each`);
}

/** One boot: the machine, or nothing if it stalled. Throws if QEMU itself fails. */
async function boot(
  image: Image,
  profile: Profile,
  attempt: Attempt,
  options: MachineOptions,
): Promise<Started | null> {
  const started = await launch(image, (runDir, port) => qemuArgs(image, profile, attempt, options, runDir, port));
  if (await answers(started, options.stallMs ?? STALL_MS)) return started;
  say(`the console of the stalled machine ended with\n${tail(path.join(started.runDir, 'serial.log'), 15)}`);
  drop(started);
  return null;
}

/** Starts QEMU, in a run folder of its own; `argsOf` gets that folder and the port that leads to the machine's ssh. */
export async function launch(image: Image, argsOf: (runDir: string, port: number) => string[]): Promise<Started> {
  const port = await freePort();
  const runDir = mkdtempSync(path.join(os.tmpdir(), 'hostdev-vm-'));
  const link = new Link(image, runDir, port);
  let qemu: ChildProcess | undefined;
  const kill = () => {
    killNow(qemu);
    link.close();
    rmSync(runDir, { recursive: true, force: true });
  };
  guard(kill);
  const log = openSync(path.join(runDir, 'qemu.log'), 'w');
  qemu = spawnTied(image.qemu, argsOf(runDir, port), ['ignore', log, log]);
  closeSync(log);
  const started: Started = { runDir, qemu, link, kill, port };
  qemu.on('error', (error) => {
    started.failed = error;
  });
  return started;
}

/**
 * Waits for a shell. False when there was none in time, or the machine ended itself: a kernel that panics reboots,
 * which is QEMU's end without an error. Throws, the machine being gone, if QEMU itself fails.
 */
export async function answers(started: Started, timeoutMs: number): Promise<boolean> {
  const { qemu, link, port, runDir } = started;
  const until = Date.now() + timeoutMs;
  while (Date.now() < until) {
    if (started.failed || ended(qemu)) {
      if (qemu.exitCode === 0) return false;
      const said = `${tail(path.join(runDir, 'qemu.log'), 10)}\n${tail(path.join(runDir, 'serial.log'), 10)}`;
      drop(started);
      const how = `exit ${qemu.exitCode ?? qemu.signalCode}`;
      throw new Error(`qemu ended (${how}): ${started.failed?.message ?? ''}\n${said}`);
    }
    if ((await greets(port)) && (await link.open(Math.min(60_000, until - Date.now())))) return true;
    await sleep(100);
  }
  return false;
}

/** Ends a machine that nobody got, and removes its run folder. */
export function drop({ kill }: Started): void {
  kill();
  unguard(kill);
}

/** What every machine has: processors, memory in two nodes, a console in a file, and the NIC that ssh comes through. */
export function basicArgs({ accel, smp, thread, memoryMiB }: Attempt, runDir: string, port: number): string[] {
  const half = Math.floor(memoryMiB / 2);
  return [
    ...['-accel', accel === 'kvm' ? 'kvm' : `tcg,thread=${thread},tb-size=1024`, '-cpu', 'max'],
    ...['-smp', String(smp), '-m', String(memoryMiB), '-nodefaults', '-display', 'none', '-no-reboot'],
    ...['-object', `memory-backend-ram,id=m0,size=${half}M`],
    ...['-object', `memory-backend-ram,id=m1,size=${memoryMiB - half}M`],
    ...['-numa', 'node,nodeid=0,memdev=m0,cpus=0', '-numa', `node,nodeid=1,memdev=m1${smp > 1 ? ',cpus=1' : ''}`],
    ...['-serial', `file:${path.join(runDir, 'serial.log')}`],
    ...['-qmp', `unix:${path.join(runDir, 'qmp.sock')},server=on,wait=off`],
    ...['-netdev', `user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:${port}-10.0.2.15:22`],
    ...['-device', 'virtio-net-pci,netdev=mgmt,mac=52:54:00:7b:00:01,romfile=,addr=2'],
    ...['-device', 'virtio-rng-pci,addr=4'],
  ];
}

/** Makes the sparse files that a topology's disks are. */
export function makeDisks(disks: Topology['disks']): void {
  for (const { file, mib } of disks) {
    writeFileSync(file, '', { flag: 'a' });
    truncateSync(file, mib * 1024 * 1024);
  }
}

function qemuArgs(
  image: Image,
  profile: Profile,
  attempt: Attempt,
  options: MachineOptions,
  runDir: string,
  port: number,
): string[] {
  const { args, append, disks } = topology(profile, runDir);
  makeDisks(disks);
  const kernel = ['root=/dev/vda', 'rw', 'rootfstype=ext4', 'console=ttyS0', 'panic=-1', 'quiet', 'audit=0'];
  kernel.push('systemd.show_status=0', 'mitigations=off', 'net.ifnames=0', 'random.trust_cpu=on', ...append);
  if (options.append) kernel.push(options.append);
  return [
    ...basicArgs(attempt, runDir, port),
    ...['-kernel', image.kernel, '-initrd', image.initrd],
    ...['-drive', `file=${image.root},format=raw,if=none,id=root,snapshot=on,cache=unsafe`],
    ...['-device', 'virtio-blk-pci,drive=root,addr=3'],
    ...args,
    ...['-append', kernel.join(' ')],
    ...(options.extraQemuArgs ?? []),
  ];
}

/** HOSTDEV_VM_ACCEL, or what this machine can do. */
export async function chooseAccel(image: Image): Promise<Accel> {
  const wanted = process.env.HOSTDEV_VM_ACCEL ?? 'auto';
  if (wanted === 'tcg' || wanted === 'kvm') return wanted;
  if (wanted !== 'auto') throw new Error(`HOSTDEV_VM_ACCEL is tcg, kvm or auto, not ${wanted}`);
  probed ??= probeKvm(image);
  return (await probed) ? 'kvm' : 'tcg';
}

let probed: Promise<boolean> | undefined;

/** A machine with /dev/kvm can still be unable to run a guest, so one is run: up to a user space that speaks. */
async function probeKvm(image: Image): Promise<boolean> {
  if (!existsSync('/dev/kvm')) return false;
  const args = ['-accel', 'kvm', '-M', 'q35', '-m', '256', '-cpu', 'max', '-nodefaults', '-display', 'none'];
  args.push('-no-reboot', '-serial', 'stdio', '-kernel', image.kernel, '-initrd', image.initrd);
  args.push('-append', 'console=ttyS0 panic=-1 quiet hostdev.probe');
  const begin = Date.now();
  const works = await new Promise<boolean>((resolve) => {
    const qemu = spawn('setpriv', ['--pdeathsig', 'KILL', '--', image.qemu, ...args], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const kill = () => killNow(qemu);
    guard(kill);
    const end = (answer: boolean) => {
      clearTimeout(timer);
      kill();
      unguard(kill);
      resolve(answer);
    };
    const timer = setTimeout(() => end(false), PROBE_MS);
    let said = '';
    qemu.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.includes('hostdev-probe: shell')) end(true);
    });
    qemu.on('error', () => end(false));
    qemu.on('close', () => end(false));
  });
  const seconds = ((Date.now() - begin) / 1000).toFixed(1);
  say(works ? `KVM works (probed in ${seconds} s)` : `/dev/kvm is there but runs no guest (${seconds} s): using TCG`);
  return works;
}

/** Quotes a word for the shell. */
export function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** The last lines of a file. */
export function tail(file: string, lines: number): string {
  if (!existsSync(file)) return '';
  return readFileSync(file, 'latin1').trimEnd().split(/\r?\n/).slice(-lines).join('\n');
}

/** Tells whoever watches the suite. */
export function say(text: string): void {
  process.stderr.write(`vm: ${text}\n`);
}
