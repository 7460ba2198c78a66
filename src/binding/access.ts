/**
 * Reading and writing one attribute of a device, with its deadline. What takes a device's lock may hang in D state for
 * ever: then the helper that is at it is named.
 */
import type { KernelWriter } from '../addon/native.ts';
import { asError, HostdevError, isErrno, isSysError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { Deadline, Stop } from '../store/locks.ts';
import { type Binding, readBinding, readBook } from './books.ts';
import type { DeviceState, SriovState } from './state.ts';

/**
 * What a dry run takes for so: the devices and books as the real run finds them, once it has put right what is
 * unfinished.
 */
export type Foreseen = {
  states: Map<Address, DeviceState>;
  sriov: Map<Address, SriovState>;
  books: Map<Address, Binding | null>;
};

export const nothingForeseen = (): Foreseen => ({ states: new Map(), sriov: new Map(), books: new Map() });

/** What every access works with: the helper that may hang in our place, its time, and how it is stopped. */
export type Access = {
  host: Host;
  writer: KernelWriter;
  deadline: Deadline;
  /** Set on Ctrl-C or SIGTERM, and when whoever asked is gone: a transaction stops before its next write and undoes. */
  signal?: Stop;
  /** Of a dry run only. */
  foreseen?: Foreseen;
};

/** {@link readBook}, as it will be then in a dry run. Raises HOSTDEV_STORE_CORRUPT. */
export function bookNow({ host, foreseen }: Pick<Access, 'host' | 'foreseen'>, address: Address): Binding | null {
  const then = foreseen?.books.get(address);
  return then === undefined ? readBook(host, address) : then;
}

/** {@link readBinding}, as it will be then in a dry run. Raises HOSTDEV_STORE_CORRUPT. */
export function bindingNow({ host, foreseen }: Pick<Access, 'host' | 'foreseen'>, address: Address): Binding | null {
  const then = foreseen?.books.get(address);
  return then === undefined ? readBinding(host, address) : then;
}

/** An access that has not come back. The books remember the helper that is at it (quarantine.ts). */
export type NoAnswer = { address: Address; path: string; helper: string | null };

/** What of `e` says that an access did not come back; null for every other error. */
export const noAnswer = (e: unknown): NoAnswer | null =>
  e instanceof HostdevError && e.data.no_answer !== undefined ? (e.data.no_answer as NoAnswer) : null;

/**
 * A read of an attribute that takes the device's lock may hang like a write, but has nothing to wait for when all is
 * well.
 */
const READ_MS = 2000;

/**
 * The text of an attribute that takes its device's lock. Raises the kernel's own error, HOSTDEV_TIMEOUT when it hangs.
 */
export async function readAttribute(work: Access, address: Address, path: string): Promise<string> {
  try {
    return await work.writer.read(path, Math.min(READ_MS, Math.max(work.deadline.left, 1)));
  } catch (e) {
    throw isErrno(e, 'ETIMEDOUT') ? accessError(address, `Failed to read ${path}`, e) : e;
  }
}

/**
 * Writes one attribute. Raises HOSTDEV_TIMEOUT, HOSTDEV_NOT_PERMITTED, HOSTDEV_BIND_FAILED with the kernel's errno as
 * cause.
 */
export async function writeAttribute(work: Access, address: Address, path: string, value: string): Promise<void> {
  if (work.deadline.left === 0) throw new HostdevError('HOSTDEV_TIMEOUT', `No time was left for ${path}`);
  try {
    await work.writer.write(path, value, work.deadline.left);
  } catch (e) {
    throw accessError(address, `Failed to write ${JSON.stringify(value.trim())} to ${path}`, e);
  }
}

/**
 * Puts an attribute's bytes back on a tree that is no sysfs (a static copy, on which writing does not read back as it
 * was). The kernel's own files refuse this (EPERM by the helper's look at the file system), and there the text is back
 * already.
 */
export async function restoreAttribute(work: Access, address: Address, path: string, bytes: string): Promise<void> {
  try {
    await work.writer.restoreFile(path, bytes, Math.max(work.deadline.left, 1));
  } catch (e) {
    if (!isErrno(e, 'EPERM')) throw accessError(address, `Failed to restore ${path}`, e);
  }
}

/** An access that failed, in our words; of one that did not come back the helper that is at it is told. */
export function accessError(address: Address, doing: string, e: unknown): HostdevError {
  if (!isErrno(e, 'ETIMEDOUT') || !isSysError(e)) return asError(doing, e, 'HOSTDEV_BIND_FAILED');
  const helper = 'helper' in e && typeof e.helper === 'string' ? e.helper : null;
  const no_answer: NoAnswer = { address, path: e.path ?? '', helper };
  return asError(doing, e, 'HOSTDEV_TIMEOUT', { data: { no_answer } });
}
