/**
 * Our own state: small JSON files that an admin may read, each replaced as a whole. A reader sees the old text or the new one, never half
 * of one; a writer that fails (full disk, read-only /run) leaves the old text and no litter.
 */
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { ownName, processRuns } from '../addon/process.ts';
import { HostdevError, isErrno, isSysError } from '../errors.ts';

/** Canonical text of a PCI address (pci/address.ts, which lies above this floor). */
type Address = string;

/** More than any file of ours ever holds (a transaction of 4,096 devices); what is larger was not written by us. */
const MAX_BYTES = 4 * 1024 * 1024;

/** An errno met on our own state, in our words. */
export function storeError(doing: string, file: string, e: unknown): HostdevError {
  const why = isSysError(e) ? e.code : String(e);
  if (isErrno(e, 'EACCES', 'EPERM')) {
    return new HostdevError('HOSTDEV_NOT_PERMITTED', `Failed to ${doing} ${file}: ${why}`, { cause: e });
  }
  const hint = isErrno(e, 'EROFS')
    ? 'The file system is read-only: remount it or see why it was.'
    : isErrno(e, 'ENOSPC', 'EDQUOT')
      ? 'The file system is full: make room and try again.'
      : undefined;
  return new HostdevError(
    'HOSTDEV_STORE',
    `Failed to ${doing} ${file}: ${why}`,
    hint === undefined ? { cause: e } : { cause: e, hint },
  );
}

/** Makes a folder of ours (mode 0700: the books name what root may undo). Raises HOSTDEV_STORE or HOSTDEV_NOT_PERMITTED. */
export function makeFolder(folder: string, mode = 0o700): void {
  if (existsSync(folder)) return;
  // Parent by parent: mkdirSync's own recursion answers ENOENT on a read-only file system (node 20).
  try {
    makeFolder(dirname(folder), mode);
    mkdirSync(folder, { mode });
  } catch (e) {
    if (isErrno(e, 'EEXIST')) return;
    throw e instanceof HostdevError ? e : storeError('make', folder, e);
  }
}

/** Replaces `file` by `bytes` in one step (write beside it, or in `scratch` on the same file system; rename). `durable` syncs file and folder for what must outlive a power cut. */
export function replaceFile(
  file: string,
  bytes: string | Uint8Array,
  { mode = 0o600, durable = false, folderMode = 0o700, scratch = dirname(file) } = {},
): void {
  makeFolder(dirname(file), folderMode);
  const fresh = join(scratch, `${basename(file)}.${ownName()}.new`);
  try {
    const fd = openSync(fresh, 'wx', mode);
    try {
      fchmodSync(fd, mode);
      const data = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
      for (let at = 0; at < data.length; ) at += writeSync(fd, data, at);
      if (durable) fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(fresh, file);
    if (durable) syncFolder(dirname(file));
  } catch (e) {
    // EEXIST is a leftover of a killed process that had our pid: ours to take over, nobody else writes this name.
    const free = quietUnlink(fresh);
    if (free && isErrno(e, 'EEXIST')) {
      replaceFile(file, bytes, { mode, durable, folderMode, scratch });
      return;
    }
    throw storeError('write', file, e);
  }
}

function syncFolder(folder: string): void {
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function quietUnlink(file: string): boolean {
  try {
    unlinkIfThere(file);
    return true;
  } catch {
    return false; // the first error says more
  }
}

/** Not rmSync, which loads a library for folders first. */
function unlinkIfThere(file: string): void {
  try {
    unlinkSync(file);
  } catch (e) {
    if (!isErrno(e, 'ENOENT', 'ENOTDIR')) throw e;
  }
}

/** Writes a value as JSON, replaced in one step. */
export function writeJson(file: string, value: unknown): void {
  replaceFile(file, `${JSON.stringify(value, null, 1)}\n`);
}

/** The JSON value of a file, null when it is absent. Raises HOSTDEV_STORE_CORRUPT naming the file when it is no JSON, or JSON's own null. */
export function readJson(file: string): unknown {
  let fd: number;
  try {
    // O_NONBLOCK: a FIFO of that name would be waited for.
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (e) {
    if (isErrno(e, 'ENOENT', 'ENOTDIR')) return null;
    throw unreadable(file, e);
  }
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) throw corrupt(file, 'is no regular file');
    if (status.size > MAX_BYTES) throw corrupt(file, `is larger than ${MAX_BYTES} bytes`, readStart(fd));
    return parse(file, readFileSync(fd, 'utf8'));
  } catch (e) {
    throw e instanceof HostdevError ? e : unreadable(file, e);
  } finally {
    closeSync(fd);
  }
}

/** One file that cannot be read is as one that cannot be understood; without the right to read, none of them can. */
function unreadable(file: string, e: unknown): HostdevError {
  const store = storeError('read', file, e);
  return store.code === 'HOSTDEV_STORE' && isSysError(e) ? corrupt(file, `cannot be read (${e.code})`) : store;
}

/** So much of a file that is too large is looked through for what it names. */
const START_BYTES = 256 * 1024;

function readStart(fd: number): string {
  const bytes = Buffer.alloc(START_BYTES);
  return bytes.toString('latin1', 0, readSync(fd, bytes, 0, bytes.length, 0));
}

/** No file of ours is nested deeper; a deeper one ends whoever walks it. */
const MAX_DEPTH = 100;

/** Brackets in strings count too: nothing of ours has so many. */
function isTooDeep(text: string): boolean {
  let depth = 0;
  for (const c of text.matchAll(/[[\]{}]/g)) {
    depth += c[0] === '[' || c[0] === '{' ? 1 : -1;
    if (depth > MAX_DEPTH) return true;
  }
  return false;
}

function parse(file: string, text: string): unknown {
  if (isTooDeep(text)) throw corrupt(file, `is nested deeper than ${MAX_DEPTH}`, text);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Not the parser's words: they quote the file, which may be anybody's.
    throw corrupt(file, 'is no JSON', text);
  }
  if (value === null) throw corrupt(file, 'holds nothing');
  return value;
}

/** A file of our state that is not what we wrote, and the devices that its text names: those are left alone until a person has looked. */
export type BadFile = { file: string; why: string; addresses: Address[] };

/** The error for a state file whose content is not ours: names the file and keeps it. `text` is what could be read of it. */
export function corrupt(file: string, why: string, text = ''): HostdevError {
  const bad: BadFile = { file, why, addresses: addressesIn(text) };
  return new HostdevError('HOSTDEV_STORE_CORRUPT', `${file} ${why}`, { data: { bad_file: bad } });
}

/** What {@link corrupt} said of a file, for readers of whole folders; raises everything else again. */
export function badFile(e: unknown): BadFile {
  if (e instanceof HostdevError && e.code === 'HOSTDEV_STORE_CORRUPT') return e.data.bad_file as BadFile;
  throw e;
}

const addressesIn = (text: string): Address[] => [
  ...new Set(text.match(/(?<![0-9a-f])[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7](?![0-9a-f])/g) ?? []),
];

/** Names of the `*.json` files in a folder, without the suffix, sorted; none when the folder is not there. */
export function listJson(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((n) => n.endsWith('.json'))
      .map((n) => n.slice(0, -5))
      .sort();
  } catch (e) {
    if (isErrno(e, 'ENOENT', 'ENOTDIR')) return [];
    throw storeError('read', folder, e);
  }
}

/** Takes away what writers that were killed left half written in a folder. */
export function sweepLitter(folder: string): void {
  let names: string[];
  try {
    names = readdirSync(folder).filter((n) => n.endsWith('.new'));
  } catch {
    return; // whoever needs the folder says what is wrong with it
  }
  for (const name of names) {
    const writer = /\.(\d+:\d+)\.new$/.exec(name)?.[1];
    if (writer === undefined || !processRuns(writer)) quietUnlink(join(folder, name));
  }
}

/** Removes `<folder>/<name>.json`; silent when it is gone already. */
export const removeJson = (folder: string, name: string): void => removeFile(join(folder, `${name}.json`));

/** Removes a file of ours; silent when it is gone already. */
export function removeFile(file: string): void {
  try {
    unlinkIfThere(file);
  } catch (e) {
    throw storeError('remove', file, e);
  }
}
