/**
 * Accesses to sysfs that may never return, each with a deadline, through `hostdev-native write`. A helper does one
 * access at a time; several that are asked for together go to several helpers. One that does not answer in time is left
 * behind (not even SIGKILL ends a write in D state) and the next request starts another; its process id goes with the
 * error, so that the books can tell when the hang is over. The pipes are the addon's (native/helper.h). This thread
 * waits in slices, between which signals are heard.
 */

import { now } from '../clock.ts';
import { HostdevError, isSysError } from '../errors.ts';
import type { KernelWriter } from './native.ts';
import { processName } from './process.ts';

/** The addon's part of it. Raises Errors with code, errno, syscall and path; EPIPE when the helper died. */
export type HelperAddon = {
  openHelper(executable: string, root: string): object;
  sendHelper(helper: object, operation: string, path: string, value: string): void;
  /** Indices of the helpers that have something to take. */
  waitHelpers(helpers: object[], ms: number): number[];
  takeHelper(helper: object): string | null;
  abandonHelper(helper: object): number;
  closeHelper(helper: object): void;
};

type Request = {
  operation: 'W' | 'R' | 'F' | 'X' | 'L' | 'U';
  path: string;
  value: string;
  until: number;
  resolve: (answer: string) => void;
  reject: (error: unknown) => void;
};

/**
 * As many accesses go on at once; more make the kernel no faster, for most of an unbind waits under one lock of its
 * subsystem.
 */
const MOST_HELPERS = 8;
const SLICE_MS = 100;
/** include/uapi/linux/if.h */
const IFF_UP = 1;
/** What a request that has not come back is called. */
const SYSCALLS: Partial<Record<string, string>> = { R: 'read', L: 'RTM_GETLINK', U: 'RTM_SETLINK' };

export class HelperWriter implements KernelWriter {
  readonly #addon: HelperAddon;
  readonly #executable: string;
  readonly #root: string;
  readonly #idle: object[] = [];
  readonly #busy = new Map<object, Request>();
  readonly #waiting: Request[] = [];
  #turning = false;

  constructor(addon: HelperAddon, executable: string, root: string) {
    this.#addon = addon;
    this.#executable = executable;
    this.#root = root;
    this.#idle.push(addon.openHelper(executable, root));
  }

  async write(path: string, value: string, deadlineMs: number): Promise<void> {
    await this.#ask('W', path, value, deadlineMs);
  }

  read(path: string, deadlineMs: number): Promise<string> {
    return this.#ask('R', path, '', deadlineMs);
  }

  async restoreFile(path: string, bytes: string, deadlineMs: number): Promise<void> {
    await this.#ask('F', path, bytes, deadlineMs);
  }

  async claimed(path: string, deadlineMs: number): Promise<boolean> {
    return (await this.#ask('X', path, '', deadlineMs)) === '1';
  }

  link(index: number, deadlineMs: number): Promise<string> {
    return this.#ask('L', `${index}`, '', deadlineMs);
  }

  async setUp({ name, index }: { name: string; index: number }, up: boolean, deadlineMs: number): Promise<void> {
    if (this.#root === '/') {
      await this.#ask('U', `${index}`, up ? '1' : '0', deadlineMs);
      return;
    }
    const path = `sys/class/net/${name}/flags`;
    const flags = Number((await this.#ask('R', path, '', deadlineMs)).trim());
    await this.#ask('W', path, `0x${(up ? flags | IFF_UP : flags & ~IFF_UP).toString(16)}\n`, deadlineMs);
  }

  close(): void {
    for (const helper of [...this.#idle.splice(0), ...this.#busy.keys()]) this.#addon.closeHelper(helper);
  }

  #ask(operation: Request['operation'], path: string, value: string, deadlineMs: number): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ operation, path, value, until: now() + deadlineMs, resolve, reject });
      this.#send();
      this.#turn();
    });
  }

  #send(): void {
    while (this.#waiting.length > 0 && this.#busy.size < MOST_HELPERS) {
      const request = this.#waiting.shift() as Request;
      // Not begun: no reason to leave open whether it was done.
      if (!(request.until > now())) request.reject(timedOut(request, null));
      else this.#hand(this.#idle.pop() ?? this.#addon.openHelper(this.#executable, this.#root), request);
    }
  }

  #hand(helper: object, request: Request): void {
    try {
      this.#addon.sendHelper(helper, request.operation, request.path, request.value);
      this.#busy.set(helper, request);
    } catch (e) {
      this.#idle.push(helper);
      // Not of the file that was asked for: its ENOENT would read as "no such attribute".
      request.reject(
        isSysError(e) && e.syscall === 'posix_spawn'
          ? new HostdevError('HOSTDEV_NATIVE_MISSING', `Failed to start ${e.path}: ${e.code}`, { cause: e })
          : e,
      );
    }
  }

  /**
   * One turn of the event loop for each look: awaits alone never come to it, and a signal's handler runs only there.
   */
  #turn(): void {
    if (this.#turning || this.#busy.size === 0) return;
    this.#turning = true;
    setImmediate(() => {
      this.#turning = false;
      this.#look();
      this.#send();
      this.#turn();
    });
  }

  #look(): void {
    const busy = [...this.#busy];
    const first = Math.min(...busy.map(([, r]) => r.until));
    const ready = this.#addon.waitHelpers(
      busy.map(([helper]) => helper),
      Math.min(SLICE_MS, Math.max(0, first - now())),
    );
    for (const i of ready) this.#take(...(busy[i] as [object, Request]));
    for (const [helper, request] of this.#busy) {
      if (request.until > now()) continue;
      this.#busy.delete(helper);
      request.reject(timedOut(request, processName(this.#addon.abandonHelper(helper))));
      this.#idle.push(helper);
    }
  }

  #take(helper: object, request: Request): void {
    let answer: string | null = null;
    let failure: unknown = null;
    try {
      answer = this.#addon.takeHelper(helper);
      if (answer === null) return;
    } catch (e) {
      failure = e;
    }
    this.#busy.delete(helper);
    this.#idle.push(helper);
    if (answer === null) request.reject(failure);
    else request.resolve(answer);
  }
}

/** `helper` is the process that may still do it, null when nothing was begun. */
function timedOut({ operation, path }: Request, helper: string | null): Error {
  const syscall = SYSCALLS[operation] ?? 'write';
  return Object.assign(new Error(`ETIMEDOUT: ${syscall} '${path}'`), {
    code: 'ETIMEDOUT',
    errno: -110,
    syscall,
    path,
    helper,
  });
}
