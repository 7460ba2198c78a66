/**
 * A fresh Debian in a folder, to install the packages in: what a command there prints, and what is in it, path by path.
 * As root.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const top = join(here, '../..');

export type Ran = { code: number | null; stdout: string; stderr: string };

/** What dpkg and apt keep of what they did: not part of what an installation leaves. */
const BOOKKEEPING =
  /^(?:var\/lib\/dpkg|var\/lib\/apt|var\/cache|var\/log\/(?:dpkg|alternatives)\.log|packages|proc|sys|dev)(?:\/|$)/;

function run(command: string, args: string[], env: NodeJS.ProcessEnv = process.env): Ran {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', env, maxBuffer: 1 << 26 });
  if (error) throw error;
  return { code: status, stdout, stderr };
}

function must(ran: Ran, what: string): string {
  if (ran.code !== 0) throw new Error(`${what} failed (${ran.code}):\n${ran.stdout}${ran.stderr}`);
  return ran.stdout;
}

/** Builds the packages of a version (npm run package), and gives their paths: hostdev's and hostdev-node's. */
export const buildPackages = (version: string): string[] =>
  must(run(process.execPath, [join(top, 'tools/package.mjs'), '--version', version]), 'npm run package')
    .trim()
    .split('\n');

export class Root {
  readonly folder: string;

  constructor(suite: string) {
    const tar = must(run('bash', [join(here, 'root.sh'), suite]), 'root.sh').trim();
    this.folder = mkdtempSync(join(tmpdir(), `hostdev-${suite}-`));
    must(run('tar', ['-xf', tar, '-C', this.folder, '--numeric-owner', '--exclude=./dev/*']), 'tar');
    mkdirSync(join(this.folder, 'packages'));
  }

  path(...parts: string[]): string {
    return join(this.folder, ...parts);
  }

  /** A shell script inside, with this machine's /proc, /dev and /sys (to be read only). */
  sh(script: string, env: Record<string, string> = {}): Ran {
    const mounts = `mount -t proc p "$R/proc" && mount --rbind /sys "$R/sys" && mount -o remount,bind,ro "$R/sys" && mount --rbind /dev "$R/dev"`;
    return run('unshare', ['--mount', '--pid', '--fork', 'sh', '-c', `${mounts} && exec chroot "$R" sh -c "$S"`], {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      DEBIAN_FRONTEND: 'noninteractive',
      R: this.folder,
      S: script,
      ...env,
    });
  }

  /** What it prints; raises what it said when it fails. */
  ok(script: string, env: Record<string, string> = {}): string {
    return must(this.sh(script, env), script);
  }

  install(debs: readonly string[]): string {
    for (const deb of debs) copyFileSync(deb, this.path('packages', basename(deb)));
    return this.ok(`dpkg -i ${debs.map((d) => `/packages/${basename(d)}`).join(' ')} 2>&1`);
  }

  /** Every path with its kind, mode, owner and content. */
  snapshot(): Map<string, string> {
    const all = new Map<string, string>();
    const walk = (folder: string): void => {
      for (const name of readdirSync(this.path(folder))) {
        const file = folder === '' ? name : `${folder}/${name}`;
        if (BOOKKEEPING.test(file)) continue;
        const s = lstatSync(this.path(file));
        const what = s.isSymbolicLink()
          ? readlinkSync(this.path(file))
          : s.isFile()
            ? createHash('sha256')
                .update(readFileSync(this.path(file)))
                .digest('hex')
            : '';
        all.set(file, `${s.mode.toString(8)} ${s.uid}:${s.gid} ${what}`);
        if (s.isDirectory()) walk(file);
      }
    };
    walk('');
    return all;
  }

  isThere(file: string): boolean {
    return statSync(this.path(file), { throwIfNoEntry: false }) !== undefined;
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The paths that are not the same in both. */
export function difference(before: Map<string, string>, after: Map<string, string>): string[] {
  const paths = new Set([...before.keys(), ...after.keys()]);
  return [...paths].filter((p) => before.get(p) !== after.get(p)).sort();
}
