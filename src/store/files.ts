/**
 * Our own state: small JSON files that an admin may read, each replaced as a whole. A reader sees the old text or the
 * new one, never half of one; a writer that fails (full disk, read-only /run) leaves the old text and no litter.
 */
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { ownName, processRuns } from '../addon/process.ts';
import { HostdevError, isAbsent, isErrno, isSysError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { isObject } from '../text/json.ts';
import { inFolder, isLink, makeFolder, storeError } from './folder.ts';
import { whyUnsafe } from './ours.ts';

/** Canonical text of a PCI address (pci/address.ts, which lies above this floor). */
type Address = string;

/** More than any file of ours ever holds (a transaction of 4,096 devices); what is larger was not written by us. */
const MAX_BYTES = 4 * 1024 * 1024;

/** Files are named by their path below the root, as everything of a host. */
const split = (file: string): [folder: string, name: string] => [dirname(file), basename(file)];

/**
 * Replaces `file` by `bytes` in one step (write beside it, or in `scratch`, a folder of the same file system; rename).
 * `durable` syncs file and folder for what must outlive a power cut. Raises HOSTDEV_STORE, HOSTDEV_STORE_UNSAFE or
 * HOSTDEV_NOT_PERMITTED.
 */
export function replaceFile(
  host: Host,
  file: string,
  bytes: string | Uint8Array,
  { mode = 0o644, durable = false, scratch = dirname(file) } = {},
): void {
  const [folder, name] = split(file);
  try {
    makeFolder(host, folder);
    makeFolder(host, scratch);
    inFolder(host, folder, (at) =>
      inFolder(host, scratch, (beside) => {
        const fresh = beside(`${name}.${ownName()}.new`);
        try {
          writeNew(fresh, bytes, mode, durable);
          renameSync(fresh, at(name));
        } catch (e) {
          quietUnlink(fresh);
          throw e;
        }
        if (durable) syncFolder(at());
      }),
    );
  } catch (e) {
    throw storeError('write', host.absolute(file), e);
  }
}

function writeNew(fresh: string, bytes: string | Uint8Array, mode: number, durable: boolean): void {
  // A leftover of a killed process that had our pid: ours to take over, nobody else writes this name.
  unlinkIfThere(fresh);
  const fd = openSync(fresh, 'wx', mode);
  try {
    fchmodSync(fd, mode);
    const data = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    for (let at = 0; at < data.length; ) at += writeSync(fd, data, at);
    if (durable) fsyncSync(fd);
  } finally {
    closeSync(fd);
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

function quietUnlink(file: string): void {
  try {
    unlinkIfThere(file);
  } catch {
    // The first error says more.
  }
}

/** Not rmSync, which loads a library for folders first. */
function unlinkIfThere(file: string): void {
  try {
    unlinkSync(file);
  } catch (e) {
    if (!isAbsent(e)) throw e;
  }
}

/** Writes a value as JSON, replaced in one step. */
export function writeJson(host: Host, file: string, value: unknown): void {
  const mode = dirname(file) === host.journal ? 0o600 : 0o644;
  replaceFile(host, file, `${JSON.stringify(value, null, 1)}\n`, { mode });
}

/**
 * The JSON value of a file, null when it is absent. Raises HOSTDEV_STORE_CORRUPT naming the file when it is no JSON, or
 * JSON's own null.
 */
export function readJson(host: Host, file: string): unknown {
  const [folder, name] = split(file);
  try {
    return inFolder(host, folder, (at) => readOpen(host.absolute(file), at(name)));
  } catch (e) {
    if (isAbsent(e)) return null;
    throw e instanceof HostdevError ? e : unreadable(host.absolute(file), e);
  }
}

function readOpen(file: string, path: string): unknown {
  // O_NONBLOCK: a FIFO of that name would be waited for.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) throw corrupt(file, 'is no regular file');
    if (status.size > MAX_BYTES) throw corrupt(file, `is larger than ${MAX_BYTES} bytes`, readStart(fd));
    return parse(file, readFileSync(fd, 'utf8'));
  } finally {
    closeSync(fd);
  }
}

/** One file that cannot be read is as one that cannot be understood; without the right to read, none of them can. */
function unreadable(file: string, e: unknown): HostdevError {
  if (isErrno(e, 'ELOOP')) return corrupt(file, 'is a symbolic link, and no file of ours is one');
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

/**
 * A file of our state that is not what we wrote, and the devices that its text names: those are left alone until a
 * person has looked.
 */
export type BadFile = { file: string; why: string; addresses: Address[] };

/**
 * The error for a state file whose content is not ours: names the file and keeps it. `text` is what could be read of
 * it.
 */
function corrupt(file: string, why: string, text = ''): HostdevError {
  const bad: BadFile = { file, why, addresses: addressesIn(text) };
  return new HostdevError('HOSTDEV_STORE_CORRUPT', `${file} ${why}`, { data: { bad_file: bad } });
}

/** {@link corrupt} for JSON of ours that does not pass: of a newer schema, or no `what` at all. */
export function notOurs(file: string, value: unknown, schema: number, what: string): HostdevError {
  const newer = isObject(value) && typeof value.schema === 'number' && value.schema > schema;
  return corrupt(file, newer ? 'was written by a newer hostdev' : `is no ${what} of ours`, JSON.stringify(value));
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
export function listJson(host: Host, folder: string): string[] {
  return namesIn(host, folder)
    .filter((n) => n.endsWith('.json'))
    .map((n) => n.slice(0, -5))
    .sort();
}

/**
 * Names in a folder of ours, in no order; none when it is not there. Raises HOSTDEV_STORE, HOSTDEV_STORE_UNSAFE or
 * HOSTDEV_NOT_PERMITTED.
 */
export function namesIn(host: Host, folder: string): string[] {
  try {
    return inFolder(host, folder, (at) => readdirSync(at()));
  } catch (e) {
    if (isAbsent(e)) return [];
    throw storeError('read', host.absolute(folder), e);
  }
}

/**
 * The bytes of a regular file; null when it is absent. Raises HOSTDEV_STORE_UNSAFE for anything else of that name,
 * HOSTDEV_STORE or HOSTDEV_NOT_PERMITTED.
 */
export function readPlain(host: Host, file: string): Buffer | null {
  const [folder, name] = split(file);
  try {
    return inFolder(host, folder, (at) => {
      const fd = openSync(at(name), constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
      try {
        if (!fstatSync(fd).isFile())
          throw new HostdevError('HOSTDEV_STORE_UNSAFE', `${host.absolute(file)} is there and is no regular file`);
        return readFileSync(fd);
      } finally {
        closeSync(fd);
      }
    });
  } catch (e) {
    if (isAbsent(e)) return null;
    throw isErrno(e, 'ELOOP') ? isLink(host, file) : storeError('read', host.absolute(file), e);
  }
}

/** True when a file of ours is there. */
export function hasFile(host: Host, file: string): boolean {
  const [folder, name] = split(file);
  try {
    return inFolder(host, folder, (at) => existsSync(at(name)));
  } catch (e) {
    if (isAbsent(e)) return false;
    throw storeError('read', host.absolute(file), e);
  }
}

const NEWLINE = Buffer.from('\n');

function endsLine(fd: number, size: number): boolean {
  const last = Buffer.alloc(1);
  return size === 0 || readSync(fd, last, 0, 1, size - 1) !== 1 || last.equals(NEWLINE);
}

/**
 * Adds a line to a file that is never larger than `max` bytes: what was there becomes `<file>.1`, in place of an older
 * one. Raises HOSTDEV_STORE, HOSTDEV_STORE_UNSAFE or HOSTDEV_NOT_PERMITTED.
 */
export function appendLine(host: Host, file: string, line: string, { max, mode }: { max: number; mode: number }): void {
  const [folder, name] = split(file);
  const bytes = Buffer.from(`${line}\n`);
  const flags = constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  try {
    makeFolder(host, folder);
    inFolder(host, folder, (at) => {
      for (let ino = 0; ; ) {
        const fd = openSync(at(name), flags, mode);
        try {
          const status = fstatSync(fd);
          const unsafe = status.isFile() && status.nlink === 1 ? whyUnsafe(status) : 'is no file of its own';
          if (unsafe !== null) throw new HostdevError('HOSTDEV_STORE_UNSAFE', `${host.absolute(file)} ${unsafe}`);
          if (status.size === 0) fchmodSync(fd, mode);
          ino = status.ino;
          if (status.size === 0 || status.size + bytes.length <= max) {
            // A full disk may have cut the line before off.
            writeSync(fd, endsLine(fd, status.size) ? bytes : Buffer.concat([NEWLINE, bytes]));
            return;
          }
        } finally {
          closeSync(fd);
        }
        // Somebody else may have done it since: then it is his, and hardly begun.
        if (lstatSync(at(name)).ino === ino) renameSync(at(name), at(`${name}.1`));
      }
    });
  } catch (e) {
    throw storeError('write', host.absolute(file), e);
  }
}

/** Takes away what writers that were killed left half written in a folder. */
export function sweepLitter(host: Host, folder: string): void {
  const dead = (name: string): boolean => {
    const writer = /\.(\d+:\d+)\.new$/.exec(name)?.[1];
    return name.endsWith('.new') && (writer === undefined || !processRuns(writer));
  };
  try {
    inFolder(host, folder, (at) => {
      for (const name of readdirSync(at())) if (dead(name)) quietUnlink(at(name));
    });
  } catch {
    // Whoever needs the folder says what is wrong with it.
  }
}

/** Removes `<folder>/<name>.json`; silent when it is gone already. */
export const removeJson = (host: Host, folder: string, name: string): void =>
  removeFile(host, `${folder}/${name}.json`);

/** Removes a file of ours; silent when it is gone already. */
export function removeFile(host: Host, file: string): void {
  const [folder, name] = split(file);
  try {
    inFolder(host, folder, (at) => unlinkIfThere(at(name)));
  } catch (e) {
    if (!isAbsent(e)) throw storeError('remove', host.absolute(file), e);
  }
}
