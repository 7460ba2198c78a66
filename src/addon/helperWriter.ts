/**
 * Accesses to sysfs that may never return, each with a deadline, through `hostdev-native write`. A helper that does not answer in time is left
 * behind (not even SIGKILL ends a write in D state) and the next request starts another; the pipes and the clock are the addon's (native/helper.h). A request blocks
 * this thread for its deadline at most: a command has nothing else to do meanwhile, and what hangs is another process.
 */
import { HostdevError, isSysError } from '../errors.ts';
import type { KernelWriter } from './native.ts';

/** The addon's part of it. Raises Errors with code, errno, syscall and path; ETIMEDOUT past the deadline, EPIPE when the helper died. */
export type HelperAddon = {
  openHelper(executable: string, root: string): object;
  askHelper(helper: object, operation: string, path: string, value: string, deadlineMs: number): string;
  closeHelper(helper: object): void;
};

export class HelperWriter implements KernelWriter {
  readonly #addon: HelperAddon;
  readonly #helper: object;

  constructor(addon: HelperAddon, executable: string, root: string) {
    this.#addon = addon;
    this.#helper = addon.openHelper(executable, root);
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

  close(): void {
    this.#addon.closeHelper(this.#helper);
  }

  async #ask(operation: string, path: string, value: string, deadlineMs: number): Promise<string> {
    try {
      return this.#addon.askHelper(this.#helper, operation, path, value, deadlineMs);
    } catch (e) {
      // Not of the file that was asked for: its ENOENT would read as "no such attribute".
      if (isSysError(e) && e.syscall === 'posix_spawn')
        throw new HostdevError('HOSTDEV_NATIVE_MISSING', `Failed to start ${e.path}: ${e.code}`, { cause: e });
      throw e;
    } finally {
      // One turn of the event loop after each: awaits alone never come to it, and a signal's handler runs only there.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}
