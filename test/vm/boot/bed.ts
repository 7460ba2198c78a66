/**
 * A machine whose disk outlives its end: it boots by its own boot loader, kernel and initramfs, is started again with
 * the same or with other cards, and loses its power at any moment. One runs at a time.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ensureImage, type Image, projectDir, runBuild } from '../image.ts';
import {
  answers,
  basicArgs,
  chooseAccel,
  drop,
  launch,
  Machine,
  makeDisks,
  type Started,
  say,
  tail,
} from '../machine.ts';
import { ended, guard, killNow, unguard } from '../processes.ts';
import { bootTopology, type Layout, USUAL } from './topology.ts';

export type Iommu = 'intel' | 'amd';

/** What a start may have other than the one before; what is not said stays as it was. */
export type Start = {
  layout?: Layout;
  /** Added to the kernel line, as typed in the boot loader's menu. */
  words?: string;
  /** A display at 0000:00:06.0, which the firmware uses. */
  display?: boolean;
};

/** A machine that boots its own initramfs, under emulation, on a busy host. */
const BOOT_MS = 600_000;
const DOWN_MS = 300_000;

/** Builds the disk if need be, and says where it is. */
export async function ensureDisk(): Promise<{ image: Image; disk: string }> {
  const image = await ensureImage();
  const dir = await runBuild(path.join(projectDir, 'test/vm/boot/image/build.sh'), image.dir);
  return { image, disk: path.join(dir, 'disk.img') };
}

/** A machine with its disk. */
export class Bed {
  readonly iommu: Iommu;
  /** The disk's overlay and the NVMe cards' storage lie here until {@link end}. */
  readonly dir: string;
  readonly #image: Image;
  readonly #remove: () => void;
  #layout: Layout = USUAL;
  #words = '';
  #display = false;
  #started: Started | undefined;
  #machine: Machine | undefined;
  #console = '';

  private constructor(iommu: Iommu, image: Image, disk: string) {
    this.iommu = iommu;
    this.#image = image;
    this.dir = mkdtempSync(path.join(os.tmpdir(), 'hostdev-bed-'));
    this.#remove = () => rmSync(this.dir, { recursive: true, force: true });
    guard(this.#remove);
    const args = ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', disk, this.#overlay];
    execFileSync(path.join(image.dir, 'qemu/qemu-img'), args, { stdio: ['ignore', 'ignore', 'inherit'] });
  }

  /** A machine that is off, with a fresh disk. */
  static async make(iommu: Iommu): Promise<Bed> {
    const { image, disk } = await ensureDisk();
    return new Bed(iommu, image, disk);
  }

  get #overlay(): string {
    return path.join(this.dir, 'disk.qcow2');
  }

  /** The machine that runs; throws between a start and its shell, and while it is off. */
  get vm(): Machine {
    if (this.#machine === undefined) throw new Error('the machine is off, or has no shell yet');
    return this.#machine;
  }

  /** What the console has said since the last start; also after the machine's end. */
  get console(): string {
    const file = this.#started && path.join(this.#started.runDir, 'serial.log');
    if (file !== undefined && existsSync(file)) this.#console = readFileSync(file, 'latin1');
    return this.#console;
  }

  /** Starts the machine and waits for nothing. */
  async powerOn(start: Start = {}): Promise<void> {
    if (this.#started !== undefined) throw new Error('the machine is on');
    this.#layout = start.layout ?? this.#layout;
    this.#words = start.words ?? this.#words;
    this.#display = start.display ?? this.#display;
    const { args, append, disks } = bootTopology(this.iommu, this.#layout, this.dir);
    makeDisks(disks);
    // An emulated timer on a busy host is not on time when the kernel tests it, and that ends in a panic.
    const words = [...append, 'no_timer_check', this.#words].join(' ').trim().replaceAll(',', ',,');
    const attempt = { accel: await chooseAccel(this.#image), smp: 2, thread: 'multi', memoryMiB: 3072 } as const;
    this.#console = '';
    this.#started = await launch(this.#image, (runDir, port) => [
      ...basicArgs(attempt, runDir, port),
      // writeback, not unsafe: what the machine has flushed is there after a cut.
      ...['-drive', `file=${this.#overlay},format=qcow2,if=none,id=root,cache=writeback`],
      ...['-device', 'virtio-blk-pci,drive=root,addr=3,bootindex=0'],
      ...['-smbios', `type=1,sku=${words}`],
      ...(this.#display ? ['-device', 'VGA,addr=6'] : []),
      ...args,
    ]);
  }

  /** Starts the machine and waits for a shell; throws, with the end of the console, when there is none. */
  async boot(start: Start = {}): Promise<Machine> {
    const begin = Date.now();
    await this.powerOn(start);
    const started = this.#started as Started;
    if (!(await answers(started, BOOT_MS))) {
      const last = tail(path.join(started.runDir, 'serial.log'), 40);
      await this.powerCut();
      throw new Error(`no shell after ${Math.round((Date.now() - begin) / 1000)} s; the console ended with\n${last}`);
    }
    const seconds = (Date.now() - begin) / 1000;
    say(`bed: ${this.iommu}, shell after ${seconds.toFixed(1)} s`);
    const accel = await chooseAccel(this.#image);
    this.#machine = new Machine('bed', this.iommu, { tries: 1, stalls: 0, seconds, accel }, started);
    return this.#machine;
  }

  /** Boots, and waits until no unit is being started and udev is idle. A test waits for what comes after that. */
  async bootSettled(start: Start = {}): Promise<Machine> {
    const vm = await this.boot(start);
    await this.settled();
    return vm;
  }

  /** Waits until the boot is over. */
  async settled(): Promise<void> {
    const wait = 'systemctl is-system-running --wait > /dev/null; udevadm settle -t 300';
    const idle = 'for ((i = 0; i < 600; i++)); do [ -z "$(systemctl list-jobs --no-legend)" ] && exit; sleep 0.5; done';
    await this.vm.ok(`${wait}; ${idle}; systemctl list-jobs; exit 1`, { timeoutMs: BOOT_MS });
  }

  /** Waits until the machine turns itself off, or resets itself: with the next start it goes on. */
  async down(): Promise<void> {
    const qemu = this.#started?.qemu;
    if (qemu === undefined) return;
    for (const until = Date.now() + DOWN_MS; !ended(qemu); await sleep(100))
      if (Date.now() > until) throw new Error(`the machine does not go down\n${this.console.slice(-3000)}`);
    await this.powerCut();
  }

  /** The answer may be lost with the machine: what counts is that it goes down. */
  async #ask(verb: 'reboot' | 'poweroff'): Promise<void> {
    await this.vm.sh(`systemctl --no-block ${verb}`).catch(() => undefined);
    await this.down();
  }

  /** A clean reboot; gives the machine when the boot is over. */
  async reboot(start: Start = {}): Promise<Machine> {
    await this.#ask('reboot');
    return this.bootSettled(start);
  }

  /** A clean end. */
  async shutdown(): Promise<void> {
    await this.#ask('poweroff');
  }

  /** Takes the power away, now. */
  async powerCut(): Promise<void> {
    const started = this.#started;
    if (started === undefined) return;
    killNow(started.qemu);
    while (!ended(started.qemu)) await sleep(10);
    this.#console = this.console;
    drop(started);
    this.#started = undefined;
    this.#machine = undefined;
  }

  /** Waits until the console has said something; throws when the machine ends before. */
  async heard(text: string | RegExp): Promise<void> {
    const has = () => (typeof text === 'string' ? this.console.includes(text) : text.test(this.console));
    for (const until = Date.now() + BOOT_MS; !has(); await sleep(20))
      if (Date.now() > until || this.#started === undefined || ended(this.#started.qemu))
        throw new Error(`${text} was not heard; the console ended with\n${this.console.slice(-3000)}`);
  }

  /** The machine and its disk are gone. */
  async end(): Promise<void> {
    await this.powerCut();
    this.#remove();
    unguard(this.#remove);
  }
}
