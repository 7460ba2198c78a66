/** The way into a machine: ssh through a port of QEMU's user network. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Image } from './image.ts';
import { ended, killNow, spawnTied } from './processes.ts';

/** What a script in the machine came to. */
export interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

/** The ssh connection to a machine: one master, and a session on it per command. */
export class Link {
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

/** Whether sshd's greeting comes through; QEMU's forwarder itself accepts long before there is one. */
export function greets(port: number): Promise<boolean> {
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

/** A port of this machine that is free now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/** For messages: a script and what it said. */
export function told(script: string, { stdout, stderr }: Result): string {
  return `--- script\n${script.trim()}\n--- stdout\n${stdout.trimEnd()}\n--- stderr\n${stderr.trimEnd()}`;
}
