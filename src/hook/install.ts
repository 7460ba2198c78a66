/**
 * `hook install|remove|status`. What libvirt runs is a copy of the native executable as `qemu.d/90-hostdev`, beside
 * `hostdev.conf` that tells it where node and hostdev are. A real file in that folder: AppArmor's and SELinux' rules
 * for hooks fit it, and it answers when node is missing. After users' own scripts (90-), never in place of `hooks/qemu`
 * unless libvirt is older than 6.5 (it has no qemu.d) and the name is free.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { isGuest, readBooks } from '../binding/books.ts';
import type { HookSettings } from '../config/hookDefaults.ts';
import { type Version, version } from '../domain/version.ts';
import { HostdevError } from '../errors.ts';
import { fileFacts } from '../host/files.ts';
import type { Host } from '../host/host.ts';
import { namesIn, readPlain, removeFile, replaceFile } from '../store/files.ts';
import { checkFolder, removeEmptyFolder } from '../store/folder.ts';
import { type Warning, warning } from '../text/warning.ts';

/** Below the root. */
type HookPlaces = { executable: string; conf: string };

export type HookProgram = {
  /** The native executable to copy. */
  native: string;
  /** What the copy starts: absolute paths. Of the nodes, the first that is there when it is called. */
  nodes: readonly string[];
  cli: string;
};

/**
 * What can be wrong with the hook: `missing` and `not-executable`: libvirt runs none; `removed`: it does nothing,
 * because the package went; `no-conf`, `no-node`, `no-cli`: it is run, and stops every guest with host devices;
 * `other-root`: so it does, or works on another host; `outdated`: it works, and is of another version than this one.
 */
export type HookProblem = {
  id: 'missing' | 'not-executable' | 'outdated' | 'no-conf' | 'removed' | 'no-node' | 'no-cli' | 'other-root';
  /** One line for people. */
  text: string;
};

export type HookStatus = {
  installed: boolean;
  path: string;
  /** Empty when libvirt can run it. */
  problems: HookProblem[];
};

/** Bytes that only our executable has: what must be there before a file is overwritten or removed. */
const MARK = 'hostdev-native hook';

const RESTART =
  'libvirt looks for hooks when it starts: systemctl restart libvirtd (or virtqemud); running guests go on';

const NO_LIBVIRT = 'there is no libvirt here (neither libvirtd nor virtqemud): nothing calls the hook until there is';

/** True where libvirt is installed, as far as its programs and its folders tell. */
const hasLibvirt = (host: Host): boolean =>
  [...host.libvirtPrograms, ...host.hookFolders].some((path) => fileFacts(host, path) !== null);

/** Where the hook is or would be. `oldLibvirt`: one without qemu.d. */
function places(host: Host, oldLibvirt: boolean): HookPlaces {
  const folder = host.hookFolders.find((f) => fileFacts(host, f) !== null) ?? 'etc/libvirt/hooks';
  return {
    executable: oldLibvirt ? join(folder, 'qemu') : join(folder, 'qemu.d', '90-hostdev'),
    conf: join(folder, 'hostdev.conf'),
  };
}

/** The first libvirt with qemu.d, 6.5.0. */
const QEMU_D = version('6.5.0');

/**
 * Seconds that libvirt is kept waiting, from `[hook]` of hostdev.toml: the native part reads no TOML, so they are
 * written for it here.
 */
export type HookDeadlines = Pick<HookSettings, 'prepare_seconds' | 'start_seconds' | 'other_seconds'>;

/** `changed`: or would be, in a dry run; then `refused` is what would refuse the real one. */
export type HookChange = { changed: boolean; path: string; notes: Warning[]; refused: HostdevError | null };

/** What would keep this process from changing files in these folders. */
function refusal(host: Host, files: readonly string[]): HostdevError | null {
  try {
    for (const file of files) checkFolder(host, dirname(file));
    return null;
  } catch (e) {
    if (e instanceof HostdevError) return e;
    throw e;
  }
}

/**
 * Installs or renews the hook for the `libvirt` that is here, null where that is not known
 * ({@link file://../libvirt/versions.ts}). Raises HOSTDEV_HOOKS when something else has the name,
 * HOSTDEV_NATIVE_MISSING, HOSTDEV_NOT_PERMITTED, HOSTDEV_STORE.
 */
export function installHook(
  host: Host,
  program: HookProgram,
  dryRun: boolean,
  deadlines: HookDeadlines,
  libvirt: Version | null,
): HookChange {
  const at = places(host, libvirt !== null && libvirt < QEMU_D);
  const binary = readProgram(program.native);
  const oldConf = readText(host, at.conf);
  const conf = confText(host, program, deadlines, madeFolders(host, at.executable, oldConf));
  const path = host.absolute(at.executable);
  const old = readOurs(host, at.executable);
  if (old?.equals(binary) && oldConf === conf && isExecutable(host, at.executable))
    return { changed: false, path, notes: [], refused: null };
  const first = !anyHook(host, dirname(at.conf));
  const notes = [
    ...(first ? [warning('restart-libvirt', RESTART)] : []),
    ...(hasLibvirt(host) ? [] : [warning('no-libvirt', NO_LIBVIRT)]),
  ];
  if (dryRun) return { changed: true, path, notes, refused: refusal(host, [at.conf, at.executable]) };
  // The conf first: a hook without it would refuse every guest with host devices.
  replaceFile(host, at.conf, conf, { mode: 0o644, durable: true });
  // libvirt runs every executable in qemu.d, half-written ones too.
  replaceFile(host, at.executable, binary, { mode: 0o755, durable: true, scratch: dirname(at.conf) });
  return { changed: true, path, notes, refused: null };
}

/**
 * Removes the hook. Devices that guests hold now will not come back by themselves, and are said. A file of its name
 * that is somebody else's stays: said, where `foreign` is 'stays', else HOSTDEV_HOOKS.
 */
export function removeHook(host: Host, dryRun: boolean, foreign: 'refuses' | 'stays' = 'refuses'): HookChange {
  const at = installedPlaces(host);
  const path = host.absolute(at.executable);
  const found = readOursOrForeign(host, at.executable);
  if (found instanceof HostdevError && foreign === 'refuses') throw found;
  const others = found instanceof HostdevError ? [warning('foreign-hook', `${found.message}: it stays`)] : [];
  const notes = [
    ...others,
    warning(
      'restart-libvirt',
      'libvirt keeps its own list, of hooks and of detached devices, until it is restarted: systemctl restart libvirtd (or virtqemud); running guests go on',
    ),
  ];
  const held = readBooks(host).books.filter((b) => b.holds.some(isGuest));
  if (held.length > 0)
    notes.push(
      warning(
        'still-bound',
        `still bound for guests, and now to be given back by hand when these stop ('hostdev unbind'): ${held.map((b) => b.address).join(', ')}`,
      ),
    );
  const files = [Buffer.isBuffer(found) ? at.executable : [], readText(host, at.conf) === null ? [] : at.conf].flat();
  if (files.length === 0) return { changed: false, path, notes: others, refused: null };
  const made = madeFolders(host, at.executable, readText(host, at.conf));
  if (dryRun) return { changed: true, path, notes, refused: refusal(host, [...files, ...made]) };
  // The executable first: without it the conf means nothing.
  for (const file of files) removeFile(host, file);
  for (const folder of made) removeEmptyFolder(host, folder);
  return { changed: true, path, notes, refused: null };
}

/** The cli= that the installed hook starts; null when none is installed or its conf names none. */
export const installedCli = (host: Host): string | null =>
  valuesOf(readText(host, installedPlaces(host).conf), 'cli').at(-1) ?? null;

/** Whether libvirt would find and could run the hook. */
export function hookStatus(host: Host, program: HookProgram): HookStatus {
  const at = installedPlaces(host);
  const [path, confPath] = [host.absolute(at.executable), host.absolute(at.conf)];
  const binary = readOursOrForeign(host, at.executable);
  if (!Buffer.isBuffer(binary)) {
    const text =
      binary === null
        ? `${path} is not there: run 'hostdev hook install'`
        : `${binary.message}: move it away, then run 'hostdev hook install'`;
    return { installed: false, path, problems: [{ id: 'missing', text }] };
  }
  const problems: HookProblem[] = [];
  const wrong = (id: HookProblem['id'], text: string): number => problems.push({ id, text });
  if (!isExecutable(host, at.executable))
    wrong('not-executable', `${path} is not executable: libvirt passes it over; chmod 755 it`);
  if (existsSync(program.native) && !readFileSync(program.native).equals(binary))
    wrong('outdated', "it is of another version of hostdev: run 'hostdev hook install' again");
  const conf = readText(host, at.conf);
  if (conf === null) wrong('no-conf', `${confPath} is not there: run 'hostdev hook install' again`);
  if (valuesOf(conf, 'removed').length > 0)
    wrong(
      'removed',
      `${confPath} says that hostdev was removed, so the hook does nothing: run 'hostdev hook install' again`,
    );
  const clis = valuesOf(conf, 'cli');
  const started = [
    { key: 'node', files: valuesOf(conf, 'node'), ours: program.nodes, fits: isProgram, is: 'is no program' },
    { key: 'cli', files: clis.slice(-1), ours: [program.cli], fits: isFile, is: 'is no file' },
  ] as const;
  for (const { key, files, ours, fits, is } of conf === null ? [] : started) {
    const stops = (text: string): number => wrong(`no-${key}`, `${text}: guests with host devices will not start`);
    const named = `${key}=${files.join(' and ')} in ${confPath}`;
    // A conf of another machine names files of that one.
    const areHere = host.root === '/' || files.every((f) => ours.includes(f));
    if (files.length === 0) stops(`${confPath} names no ${key}=`);
    else if (areHere && !files.some((f) => fits(f)))
      stops(`${named} ${files.some((f) => existsSync(f)) ? is : 'is not there'}`);
  }
  // One that says '/' may be of an image, and is that one's own.
  const root = valuesOf(conf, 'root').at(-1) ?? '/';
  if (![host.root, '/'].includes(root))
    wrong('other-root', `root=${root} in ${confPath} is not this host: run 'hostdev hook install' again`);
  return { installed: true, path, problems };
}

function installedPlaces(host: Host): HookPlaces {
  const modern = places(host, false);
  const isOurs = (at: HookPlaces): boolean => Buffer.isBuffer(readOursOrForeign(host, at.executable));
  return [modern, places(host, true)].find(isOurs) ?? modern;
}

/** What a conf says under a key, line by line, read as native/hook_conf.cc does. */
const valuesOf = (conf: string | null, key: string): string[] =>
  (conf ?? '').split('\n').flatMap((line) => {
    const [name = '', ...value] = line.split('=');
    const text = value.join('=').trim();
    return name.trim() === key && text !== '' ? [text] : [];
  });

const isFile = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isFile() === true;

const isProgram = (path: string): boolean => isFile(path) && (statSync(path).mode & 0o111) !== 0;

/**
 * Of the folders above an executable those that installing makes or, as the conf says, has made, deepest first: what
 * removing takes away again.
 */
function madeFolders(host: Host, executable: string, conf: string | null): string[] {
  const said = valuesOf(conf, 'made').flatMap((v) => v.split(' '));
  const made: string[] = [];
  for (let at = dirname(executable); at !== '.'; at = dirname(at))
    if (said.includes(at) || fileFacts(host, at) === null) made.push(at);
  return made;
}

function confText(host: Host, { nodes, cli }: HookProgram, deadlines: HookDeadlines, made: readonly string[]): string {
  for (const path of [...nodes, cli, host.root]) {
    if (/[\n\r]/.test(path))
      throw new HostdevError(
        'HOSTDEV_HOOKS',
        `A path with a line break in it cannot be installed: ${JSON.stringify(path)}`,
      );
  }
  return [
    '# Written by hostdev hook install; read by 90-hostdev beside it. Deadlines are in seconds.',
    ...nodes.map((node) => `node=${node}`),
    `cli=${cli}`,
    `root=${host.root}`,
    `prepare_deadline=${Math.ceil(deadlines.prepare_seconds)}`,
    `start_deadline=${Math.ceil(deadlines.start_seconds)}`,
    `other_deadline=${Math.ceil(deadlines.other_seconds)}`,
    ...(made.length === 0 ? [] : [`made=${made.join(' ')}`]),
    '',
  ].join('\n');
}

function readProgram(native: string): Buffer {
  try {
    return readFileSync(native);
  } catch (e) {
    throw new HostdevError('HOSTDEV_NATIVE_MISSING', `Failed to read ${native}: ${(e as Error).message}`, { cause: e });
  }
}

/** The bytes of our installed hook, null when nothing is there. Raises HOSTDEV_HOOKS for a file that is not ours. */
function readOurs(host: Host, file: string): Buffer | null {
  let bytes: Buffer | null;
  try {
    bytes = readPlain(host, file);
  } catch (e) {
    if (e instanceof HostdevError && e.code === 'HOSTDEV_STORE_UNSAFE')
      throw new HostdevError('HOSTDEV_HOOKS', e.message, { hint: 'Move it away first.' });
    throw e;
  }
  if (bytes === null || bytes.includes(MARK)) return bytes;
  throw new HostdevError('HOSTDEV_HOOKS', `${host.absolute(file)} is there and is not hostdev's`, {
    hint: 'Move it away first; hostdev replaces no hook of yours.',
  });
}

/** As {@link readOurs}; for a file that is not ours the error that says so. */
function readOursOrForeign(host: Host, file: string): Buffer | HostdevError | null {
  try {
    return readOurs(host, file);
  } catch (e) {
    if (e instanceof HostdevError && e.code === 'HOSTDEV_HOOKS') return e;
    throw e;
  }
}

const readText = (host: Host, file: string): string | null => readPlain(host, file)?.toString('utf8') ?? null;

/** As libvirt looks (virFileIsExecutable, for root). */
function isExecutable(host: Host, file: string): boolean {
  const facts = fileFacts(host, file);
  return facts?.isFile === true && facts.executable;
}

/** True when libvirt, started now, would find any qemu hook: only then does it look into qemu.d again at each call. */
const anyHook = (host: Host, folder: string): boolean =>
  ['qemu', ...namesIn(host, `${folder}/qemu.d`).map((n) => `qemu.d/${n}`)].some((n) =>
    isExecutable(host, `${folder}/${n}`),
  );
