/**
 * A simulated host for a test: test/simhost mounted on a folder of its own, driven by its control file. Everything
 * below `root` is the host: sysfs that answers and fails as the kernel's does, and plain files for the rest. Use:
 * `const sims = useSimHosts()`, then `const sim = await sims.start(description)`; all end after each test, whatever
 * hangs in them.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe } from 'vitest';
import { loadNative } from '../../src/addon/load.ts';
import { Host } from '../../src/host/host.ts';
import { isLacking } from '../lacking.ts';
import { CLI, hostdev, type Ran, ranOf } from '../mock/tree.ts';
import { EVER } from '../patience.ts';
import { type HostDescription, linesOf } from '../scenarios/host.ts';

const EXECUTABLE = fileURLToPath(new URL('../../build/simhost', import.meta.url));

/** Why there can be no simulated host here, with what brings it; null when there can. */
function missing(): string | null {
  if (!existsSync(EXECUTABLE))
    return 'build/simhost is not built: apt-get install libfuse3-dev fuse3 pkg-config, then node test/simhost/build.mjs';
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch {
    return '/dev/fuse cannot be opened here (a container needs --device /dev/fuse; package fuse3)';
  }
  return null;
}

/** `describe`, skipped where there can be no simulated host. */
export const describeSim = describe.skipIf(isLacking(missing()));

export class SimHost {
  readonly root: string;
  readonly #server: ChildProcess;
  readonly #ended: Promise<void>;
  #stopped = false;

  private constructor(root: string, server: ChildProcess) {
    this.root = root;
    this.#server = server;
    this.#ended = new Promise((resolve) => server.once('exit', () => resolve()));
  }

  static async start(description: HostDescription): Promise<SimHost> {
    const root = mkdtempSync(join(tmpdir(), 'hostdev-fuse-'));
    const server = spawn(EXECUTABLE, [root], { stdio: ['pipe', 'pipe', 'inherit'] });
    const sim = new SimHost(root, server);
    await new Promise<void>((resolve, reject) => {
      server.stdout?.once('data', () => resolve());
      server.once('exit', (code) => reject(new Error(`simhost ended with ${code} before it was ready`)));
      server.once('error', reject);
    });
    sim.ctl(...linesOf(description));
    return sim;
  }

  path(name: string): string {
    return join(this.root, name);
  }

  /** Carries out lines of test/simhost/control.cc. Raises what the control file complains of. */
  ctl(...lines: string[]): void {
    for (let at = 0; at < lines.length; ) {
      let text = '';
      // One write each: it has to fit into one request.
      do text += `${lines[at++]}\n`;
      while (at < lines.length && text.length < 32 * 1024);
      const fd = openSync(this.path('.sim/ctl'), constants.O_WRONLY);
      try {
        writeSync(fd, text);
      } catch (e) {
        throw new Error(`simhost: ${readFileSync(this.path('.sim/ctl'), 'utf8')}${(e as Error).message}`);
      } finally {
        closeSync(fd);
      }
    }
  }

  /** Every write to sysfs so far, in order of arrival: "path=value". */
  journal(): string[] {
    return this.#lines('.sim/journal');
  }

  /** What hangs now. */
  hung(): string[] {
    return this.#lines('.sim/hung');
  }

  /** How many writes to sysfs, and how many changes of anything, the host was asked for. */
  count(): { writes: number; changes: number } {
    const [writes = 0, changes = 0] = readFileSync(this.path('.sim/count'), 'utf8').split(' ').map(Number);
    return { writes, changes };
  }

  /** The path of each of those changes, in order. */
  changes(): string[] {
    return this.#lines('.sim/changes');
  }

  #lines(name: string): string[] {
    return readFileSync(this.path(name), 'utf8').split('\n').filter(Boolean);
  }

  /** The same host for the code in this process, by the real addon. Each has its own helper. */
  host(): Host {
    return new Host(this.root, loadNative());
  }

  /** The built CLI on this host, to its end. */
  run(...args: string[]): Ran {
    return hostdev(['--root', this.root, ...args]);
  }

  /** The same, while this process goes on. */
  spawn(args: string[], input = ''): Running {
    const child = spawn(process.execPath, [CLI, '--root', this.root, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    const from = performance.now();
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (d) => {
      out += d;
    });
    child.stderr.setEncoding('utf8').on('data', (d) => {
      err += d;
    });
    // A command that ends without reading its input is no error.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    const ended = new Promise<Ran & { signal: NodeJS.Signals | null; ms: number }>((resolve) => {
      child.once('close', (code, signal) =>
        resolve({ ...ranOf(code, out, err), signal, ms: performance.now() - from }),
      );
    });
    return { child, ended };
  }

  /** Ends the server: whatever hangs in it is answered by this machine's kernel. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#server.kill('SIGTERM');
    const late = setTimeout(() => this.#server.kill('SIGKILL'), 2000);
    await this.#ended;
    clearTimeout(late);
    try {
      rmdirSync(this.root);
    } catch {
      // It was killed while mounted.
      execFileSync('fusermount3', ['-u', '-z', this.root], { stdio: 'ignore' });
      rmdirSync(this.root);
    }
  }
}

export type Running = { child: ChildProcess; ended: Promise<Ran & { signal: NodeJS.Signals | null; ms: number }> };

/** Simulated hosts that end after each test. */
export function useSimHosts(): { start(description: HostDescription): Promise<SimHost> } {
  const running: SimHost[] = [];
  afterEach(async () => {
    for (const sim of running.splice(0)) await sim.stop();
  });
  return {
    async start(description) {
      const sim = await SimHost.start(description);
      running.push(sim);
      return sim;
    },
  };
}

/** HOSTDEV_SIM_FULL=1: every case, not only one of those that are much alike. */
export const FULL = process.env.HOSTDEV_SIM_FULL === '1';

/** HOSTDEV_STORM=1 (`npm run storm`): every way at every point, and thousands of kills by chance. */
export const STORM = process.env.HOSTDEV_STORM === '1';

/** Two at a time: a case is mostly a process that starts, or a wait. */
export async function inPairs(cases: (() => Promise<void>)[]): Promise<void> {
  const queue = [...cases];
  const worker = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) await next();
  };
  await Promise.all([worker(), worker()]);
}

/** Waits until `look` is true. Raises after `ms`. */
export async function until(look: () => boolean, what: string, ms = EVER): Promise<void> {
  for (const end = performance.now() + ms; !look(); ) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((r) => setTimeout(r, 5));
  }
}
