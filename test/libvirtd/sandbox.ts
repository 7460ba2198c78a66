/**
 * A real libvirtd with the qemu driver, for a test: in a mount and PID namespace of its own, all that it writes in a
 * temporary folder. It has no IOMMU, no network and no other guests. When whoever started it ends, it ends too.
 */
import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { sleep } from '../../src/clock.ts';
import { has } from '../lacking.ts';

const run = promisify(execFile);

/** What of it is lacking here, for isLacking; null: nothing. */
export function sandboxLacks(): string | null {
  if (process.getuid?.() !== 0) return 'a libvirtd of its own is started as root only';
  const lacking = (['libvirtd', 'qemu-system-x86_64', 'virsh', 'unshare'] as const).find((p) => !has(p));
  return lacking === undefined ? null : `no ${lacking}: apt-get install libvirt-daemon libvirt-clients qemu-system-x86`;
}

/** What may happen to libvirtd: `stop` is longer than keepalive bears, `pause` is not. */
export const UPHEAVALS = ['restart', 'kill', 'stop', 'pause'] as const;
export type Upheaval = (typeof UPHEAVALS)[number];

const STOPPED_MS = { stop: 4000, pause: 300 } as const;

export class LibvirtSandbox {
  /** The folder of all that it writes; the test may write there too. */
  readonly dir = mkdtempSync(join(tmpdir(), 'hostdev-libvirtd-'));
  readonly uri = `qemu+unix:///system?socket=${this.dir}/run/libvirt/libvirt-sock`;
  readonly #init: ChildProcessWithoutNullStreams;
  readonly #answers: AsyncIterator<string>;

  private constructor(script: string) {
    const words = ['--mount', '--pid', '--fork', '--kill-child=KILL', '/bin/bash', script, this.dir];
    this.#init = spawn('unshare', words, { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' } });
    this.#init.stderr.resume();
    this.#answers = createInterface({ input: this.#init.stdout })[Symbol.asyncIterator]();
  }

  /** Starts one, and waits until it answers. `script` is sandbox.sh. */
  static async start(script = join(dirname(new URL(import.meta.url).pathname), 'sandbox.sh')): Promise<LibvirtSandbox> {
    const sandbox = new LibvirtSandbox(script);
    await sandbox.order('start');
    await sandbox.answers();
    return sandbox;
  }

  /**
   * One command of sandbox.sh: `start` (its pid in the sandbox), `pid` (`none`: it has ended), a signal, or
   * `kill-guest NAME`. One at a time.
   */
  async order(command: string): Promise<string> {
    this.#init.stdin.write(`${command}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error(`the sandbox has ended: ${this.log()}`);
    return value;
  }

  /** Waits until libvirtd has started: it looks at every emulator first, and keeps what it saw for the next start. */
  async answers(): Promise<void> {
    for (;;) {
      try {
        await this.virsh('version');
        return;
      } catch (e) {
        if ((await this.order('pid')) === 'none') throw new Error(`libvirtd has ended: ${this.log()}`, { cause: e });
        await sleep(100);
      }
    }
  }

  /** One upheaval; afterwards libvirtd runs, or starts, again. `whileAway`: where there is none meanwhile. */
  async upheave(upheaval: Upheaval, whileAway: () => Promise<void>): Promise<void> {
    if (upheaval === 'stop' || upheaval === 'pause') {
      await this.order('STOP');
      await sleep(STOPPED_MS[upheaval]);
      await this.order('CONT');
      return;
    }
    await this.order(upheaval === 'kill' ? 'KILL' : 'TERM');
    await whileAway();
    await this.order('start');
  }

  log(): string {
    return readFileSync(join(this.dir, 'libvirtd.log'), 'utf8');
  }

  /** Commands of virsh, in one process; what they printed. Rejects when one fails. */
  async virsh(...commands: string[]): Promise<string> {
    const { stdout } = await run('virsh', ['-q', '-c', this.uri, commands.join('; ')], { env: VIRSH_ENV });
    return stdout;
  }

  /** Defines a guest of {@link sandboxGuest}. */
  async define(name: string, more = ''): Promise<void> {
    const file = join(this.dir, `define-${name}.xml`);
    writeFileSync(file, sandboxGuest(name, more));
    await this.virsh(`define ${file}`);
  }

  /** Ends libvirtd and its guests, and removes the folder. */
  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#init.once('exit', resolve));
    this.#init.stdin.end();
    await ended;
    rmSync(this.dir, { recursive: true, force: true });
  }
}

const VIRSH_ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };

/** Guest `gpuN` has the UUID of N. */
export const sandboxUuid = (name: string): string =>
  `624392bd-9784-4e20-8b29-${Number(/\d+$/.exec(name)?.[0] ?? 0)
    .toString(16)
    .padStart(12, '0')}`;

/** A guest without a disk, which runs paused in a few MiB; `more` goes between its devices. */
export const sandboxGuest = (name: string, more = ''): string => `<domain type='qemu'>
<name>${name}</name><uuid>${sandboxUuid(name)}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/><memballoon model='none'/>
${more}</devices></domain>`;

/** A host device as `more` of {@link sandboxGuest}. */
export const sandboxDevice = (address: string, managed = 'no'): string => {
  const [domain, bus, slot, fn] = address.split(/[:.]/);
  return `<hostdev mode='subsystem' type='pci' managed='${managed}'><source>
<address domain='0x${domain}' bus='0x${bus}' slot='0x${slot}' function='0x${fn}'/></source></hostdev>`;
};
