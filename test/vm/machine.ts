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
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { ensureImage, type Image } from './image.ts';
import { type Profile, topology } from './topology.ts';

/** What a script in the machine came to. */
export interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

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

type Attempt = { accel: Accel; smp: 1 | 2; thread: 'multi' | 'single'; memoryMiB: number };

// Machines that must not outlive this process. The kernel ends them too if it is killed (see `spawnTied`).
const running = new Set<() => void>();
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const killAll = () => {
  for (const kill of running) kill();
};
const onSignal = (signal: NodeJS.Signals) => {
  killAll();
  for (const one of signals) process.removeListener(one, onSignal);
  process.kill(process.pid, signal);
};
let guarded = false;
function guard(kill: () => void): void {
  running.add(kill);
  if (guarded) return;
  guarded = true;
  process.once('exit', killAll);
  for (const one of signals) process.on(one, onSignal);
  // vitest killed by a signal leaves its worker running the file to the end.
  process.once('disconnect', () => {
    if (running.size > 0) process.exit(1);
  });
}

/** Starts a process that the kernel ends when the thread that started it is gone, however that came about. */
function spawnTied(file: string, args: readonly string[], stdio: 'ignore' | ['ignore', number, number]): ChildProcess {
  return spawn('setpriv', ['--pdeathsig', 'KILL', '--', file, ...args], { stdio });
}

const ended = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;

function killNow(child: ChildProcess | undefined): void {
  if (child?.pid !== undefined && !ended(child)) child.kill('SIGKILL');
}

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
    running.delete(this.#kill);
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

/** The ssh connection to a machine: one master, and a session on it per command. */
class Link {
  readonly options: readonly string[];
  readonly #socket: string;
  #master: ChildProcess | undefined;

  constructor(image: Image, runDir: string, port: number) {
    this.#socket = path.join(runDir, 'ctl');
    this.options = ['-q', '-F', 'none', '-i', image.sshKey, '-p', String(port)].concat(
      ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'BatchMode=yes', 'ConnectTimeout=20'].flatMap(
        (o) => ['-o', o],
      ),
    );
  }

  /** Connects; says whether a shell answers. */
  async open(timeoutMs: number): Promise<boolean> {
    const until = Date.now() + timeoutMs;
    this.close();
    const master = spawnTied('ssh', [...this.options, '-M', '-S', this.#socket, '-N', 'root@127.0.0.1'], 'ignore');
    this.#master = master;
    master.on('error', () => undefined);
    while (!existsSync(this.#socket)) {
      if (ended(master) || Date.now() > until) return false;
      await sleep(50);
    }
    const result = await this.run('echo shell', '', Math.max(1000, until - Date.now())).catch(() => undefined);
    return result?.stdout === 'shell\n';
  }

  close(): void {
    killNow(this.#master);
    rmSync(this.#socket, { force: true });
  }

  run(command: string, input: string | Readable, timeoutMs: number): Promise<Result> {
    return new Promise((resolve, reject) => {
      const ssh = spawn('ssh', [...this.options, '-S', this.#socket, 'root@127.0.0.1', command], { stdio: 'pipe' });
      const out: Buffer[] = [];
      const err: Buffer[] = [];
      let late = false;
      const timer = setTimeout(() => {
        late = true;
        ssh.kill('SIGKILL');
      }, timeoutMs);
      ssh.stdout.on('data', (data: Buffer) => out.push(data));
      ssh.stderr.on('data', (data: Buffer) => err.push(data));
      // A command may end without having read its input.
      ssh.stdin.on('error', () => undefined);
      ssh.on('error', (error) => {
        clearTimeout(timer);
        reject(error);
      });
      ssh.on('close', (code) => {
        clearTimeout(timer);
        const result = {
          code: code ?? 255,
          stdout: Buffer.concat(out).toString('utf8'),
          stderr: Buffer.concat(err).toString('utf8'),
        };
        if (late) reject(new Error(`no answer after ${timeoutMs} ms\n${told(command, result)}`));
        else resolve(result);
      });
      if (typeof input === 'string') ssh.stdin.end(input);
      else {
        input.on('error', (error) => {
          reject(error);
          ssh.kill();
        });
        input.pipe(ssh.stdin);
      }
    });
  }
}

type Started = { runDir: string; qemu: ChildProcess; link: Link; kill: () => void };

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
  const port = await freePort();
  const runDir = mkdtempSync(path.join(os.tmpdir(), 'hostdev-vm-'));
  const link = new Link(image, runDir, port);
  let qemu: ChildProcess | undefined;
  const kill = () => {
    killNow(qemu);
    link.close();
    rmSync(runDir, { recursive: true, force: true });
  };
  const drop = () => {
    kill();
    running.delete(kill);
  };
  guard(kill);
  const log = openSync(path.join(runDir, 'qemu.log'), 'w');
  qemu = spawnTied(image.qemu, qemuArgs(image, profile, attempt, options, runDir, port), ['ignore', log, log]);
  closeSync(log);
  let failed: Error | undefined;
  qemu.on('error', (error) => {
    failed = error;
  });
  const until = Date.now() + (options.stallMs ?? STALL_MS);
  while (Date.now() < until) {
    if (failed || ended(qemu)) {
      // A kernel that panics reboots, which is QEMU's end without an error: as good as a stall.
      if (qemu.exitCode === 0) break;
      const said = `${tail(path.join(runDir, 'qemu.log'), 10)}\n${tail(path.join(runDir, 'serial.log'), 10)}`;
      drop();
      throw new Error(`qemu ended (exit ${qemu.exitCode ?? qemu.signalCode}): ${failed?.message ?? ''}\n${said}`);
    }
    if ((await greets(port)) && (await link.open(Math.min(60_000, until - Date.now()))))
      return { runDir, qemu, link, kill };
    await sleep(100);
  }
  say(`the console of the stalled machine ended with\n${tail(path.join(runDir, 'serial.log'), 15)}`);
  drop();
  return null;
}

function qemuArgs(
  image: Image,
  profile: Profile,
  { accel, smp, thread, memoryMiB }: Attempt,
  options: MachineOptions,
  runDir: string,
  port: number,
): string[] {
  const half = Math.floor(memoryMiB / 2);
  const { args, append, disks } = topology(profile, runDir);
  for (const { file, mib } of disks) {
    writeFileSync(file, '');
    truncateSync(file, mib * 1024 * 1024);
  }
  const kernel = ['root=/dev/vda', 'rw', 'rootfstype=ext4', 'console=ttyS0', 'panic=-1', 'quiet', 'audit=0'];
  kernel.push('systemd.show_status=0', 'mitigations=off', 'net.ifnames=0', 'random.trust_cpu=on', ...append);
  if (options.append) kernel.push(options.append);
  return [
    ...['-accel', accel === 'kvm' ? 'kvm' : `tcg,thread=${thread},tb-size=1024`, '-cpu', 'max'],
    ...['-smp', String(smp), '-m', String(memoryMiB), '-nodefaults', '-display', 'none', '-no-reboot'],
    ...['-object', `memory-backend-ram,id=m0,size=${half}M`],
    ...['-object', `memory-backend-ram,id=m1,size=${memoryMiB - half}M`],
    ...['-numa', 'node,nodeid=0,memdev=m0,cpus=0', '-numa', `node,nodeid=1,memdev=m1${smp > 1 ? ',cpus=1' : ''}`],
    ...['-kernel', image.kernel, '-initrd', image.initrd, '-serial', `file:${path.join(runDir, 'serial.log')}`],
    ...['-qmp', `unix:${path.join(runDir, 'qmp.sock')},server=on,wait=off`],
    ...['-drive', `file=${image.root},format=raw,if=none,id=root,snapshot=on,cache=unsafe`],
    ...['-device', 'virtio-blk-pci,drive=root,addr=3'],
    ...['-netdev', `user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:${port}-10.0.2.15:22`],
    ...['-device', 'virtio-net-pci,netdev=mgmt,mac=52:54:00:7b:00:01,romfile=,addr=2'],
    ...['-device', 'virtio-rng-pci,addr=4'],
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
      running.delete(kill);
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

/** Whether sshd's greeting comes through; QEMU's forwarder itself accepts long before there is one. */
function greets(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    const end = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(2000, () => end(false));
    socket.on('data', (data) => end(data.toString('latin1').startsWith('SSH-')));
    socket.on('error', () => end(false));
    socket.on('close', () => end(false));
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/** Quotes a word for the shell. */
export function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

function tail(file: string, lines: number): string {
  if (!existsSync(file)) return '';
  return readFileSync(file, 'latin1').trimEnd().split(/\r?\n/).slice(-lines).join('\n');
}

function told(script: string, { stdout, stderr }: Result): string {
  return `--- script\n${script.trim()}\n--- stdout\n${stdout.trimEnd()}\n--- stderr\n${stderr.trimEnd()}`;
}

function say(text: string): void {
  process.stderr.write(`vm: ${text}\n`);
}
