/**
 * The parent's side of `hostdev-native write`: accesses to sysfs that may never return, each with a deadline. A helper that does not answer in time is left
 * behind (not even SIGKILL ends a write in D state) and another one takes its place; nothing here waits for it, and it holds none of our descriptors
 * but its two pipes.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { getSystemErrorMap } from 'node:util';
import { HostdevError, type SysError } from '../errors.ts';
import type { KernelWriter } from './native.ts';

/** native/writer.cc, enum Call. */
const CALLS = ['', 'openat2', 'write', 'read', 'ftruncate', 'close'];

const HEAD = 4;
const ETIMEDOUT = -110;
const EPIPE = -32;

type Answer = { errno: number; call: string; bytes: string };
type Helper = { child: ChildProcess; input: Writable; output: Readable; buffered: Buffer; waiting: Waiting | null };
type Waiting = { id: number; settle: (answer: Answer | 'gone') => void };

export class HelperWriter implements KernelWriter {
  readonly #executable: string;
  readonly #root: string;
  #helper: Helper | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  #lastId = 0;

  constructor(executable: string, root: string) {
    this.#executable = executable;
    this.#root = root;
  }

  async write(path: string, value: string, deadlineMs: number): Promise<void> {
    await this.#request('W', path, value, deadlineMs);
  }

  async read(path: string, deadlineMs: number): Promise<string> {
    return (await this.#request('R', path, '', deadlineMs)).bytes;
  }

  async restoreFile(path: string, bytes: string, deadlineMs: number): Promise<void> {
    await this.#request('F', path, bytes, deadlineMs);
  }

  close(): void {
    if (this.#helper !== null) abandon(this.#helper);
    this.#helper = null;
  }

  /** One request at a time; the deadline counts from when it is sent. */
  #request(operation: string, path: string, value: string, deadlineMs: number): Promise<Answer> {
    const result = this.#turn.then(() => this.#send(operation, path, value, deadlineMs));
    this.#turn = result.catch(() => {});
    return result;
  }

  async #send(operation: string, path: string, value: string, deadlineMs: number): Promise<Answer> {
    const helper = this.#helper ?? this.#start();
    this.#helper = helper;
    this.#lastId = (this.#lastId + 1) >>> 0;
    const id = this.#lastId;
    const syscall = operation === 'R' ? 'read' : 'write';
    const answer = await new Promise<Answer | 'gone' | 'late'>((resolve) => {
      const timer = setTimeout(() => resolve('late'), deadlineMs);
      helper.waiting = {
        id,
        settle: (a) => {
          clearTimeout(timer);
          resolve(a);
        },
      };
      helper.input.write(frame(id, operation, path, value));
    });
    helper.waiting = null;
    if (answer === 'late' || answer === 'gone') {
      abandon(helper);
      this.#helper = null;
      throw answer === 'late' ? sysError(ETIMEDOUT, syscall, path) : sysError(EPIPE, syscall, path);
    }
    if (answer.errno !== 0) throw sysError(-answer.errno, answer.call, path);
    return answer;
  }

  #start(): Helper {
    const root = openRoot(this.#root);
    try {
      const child = spawn(this.#executable, ['write'], {
        stdio: ['pipe', 'pipe', 'ignore', root],
        detached: true,
        env: {},
      });
      const helper: Helper = {
        child,
        input: child.stdin as Writable,
        output: child.stdout as Readable,
        buffered: Buffer.alloc(0),
        waiting: null,
      };
      const gone = (): void => helper.waiting?.settle('gone');
      child.on('error', gone);
      child.on('exit', gone);
      helper.input.on('error', gone);
      helper.output.on('data', (chunk: Buffer) => receive(helper, chunk));
      return helper;
    } finally {
      closeSync(root);
    }
  }
}

/** node has no O_PATH constant; a folder opened for reading does as well. */
function openRoot(root: string): number {
  try {
    return openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (e) {
    throw new HostdevError('HOSTDEV_FILE_ABSENT', `Failed to open ${root}: ${(e as Error).message}`, {
      cause: e,
      hint: 'Check --root.',
    });
  }
}

/** Lets go of a helper: it ends by itself at the end of its stdin, or when its write returns. */
function abandon(helper: Helper): void {
  helper.child.removeAllListeners();
  helper.child.on('error', () => {});
  helper.input.on('error', () => {});
  helper.input.destroy();
  helper.output.destroy();
  helper.child.unref();
}

function frame(id: number, operation: string, path: string, value: string): Buffer {
  const p = Buffer.from(path, 'latin1');
  const v = Buffer.from(value, 'latin1');
  const head = Buffer.alloc(HEAD + 4 + 1 + 2);
  head.writeUInt32LE(4 + 1 + 2 + p.length + v.length, 0);
  head.writeUInt32LE(id, 4);
  head.write(operation, 8, 'latin1');
  head.writeUInt16LE(p.length, 9);
  return Buffer.concat([head, p, v]);
}

function receive(helper: Helper, chunk: Buffer): void {
  helper.buffered = Buffer.concat([helper.buffered, chunk]);
  for (;;) {
    const b = helper.buffered;
    if (b.length < HEAD) return;
    const size = b.readUInt32LE(0);
    if (b.length < HEAD + size) return;
    helper.buffered = b.subarray(HEAD + size);
    if (helper.waiting?.id !== b.readUInt32LE(HEAD)) continue;
    helper.waiting.settle({
      errno: b.readInt32LE(HEAD + 4),
      call: CALLS[b[HEAD + 8] ?? 0] ?? '',
      bytes: b.subarray(HEAD + 9, HEAD + size).toString('latin1'),
    });
  }
}

/** As node's own fs words it, from the same table. */
function sysError(errno: number, syscall: string, path: string): SysError {
  const [code, text] = getSystemErrorMap().get(errno) ?? [`E${-errno}`, 'unknown error'];
  return Object.assign(new Error(`${code}: ${text}, ${syscall} '${path}'`), { code, errno, syscall, path });
}
