/**
 * Locks between processes: flock(2) on files in run/hostdev/lock, so that the kernel lets go for a process that dies.
 * Order everywhere: a domain's lock, then groups (PFs' first, then ascending; binding/session.ts). No lock that a hook
 * may wait on is ever held across a libvirt call: virsh start holds the domain's job while its hook waits.
 */

import { lstatSync } from 'node:fs';
import { now, sleep } from '../clock.ts';
import { HostdevError, isAbsent, isSysError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { inFolder, makeFolder, storeError } from './folder.ts';

/** Time left until a fixed moment; every wait of one command counts against the same one. */
export class Deadline {
  readonly at: number;

  constructor(ms: number) {
    this.at = now() + ms;
  }

  /** Milliseconds left, 0 when it has passed. */
  get left(): number {
    return Math.max(0, this.at - now());
  }
}

/** Set by Ctrl-C or SIGTERM. An AbortSignal is one; making an AbortController takes node as long as a scan. */
export type Stop = { readonly aborted: boolean };

const FIRST_WAIT_MS = 2;
const LONGEST_WAIT_MS = 50;

/** A lock by its name; shared ones may be had by several at once. */
export type LockName = { name: string; shared: boolean };

/**
 * Takes the locks `names` in the order given and returns what gives them up. Raises HOSTDEV_TIMEOUT, naming the lock,
 * when one is still held at the deadline (those already taken are given up), HOSTDEV_NOT_PERMITTED or HOSTDEV_STORE
 * when the folder can't be made.
 */
export async function takeLocks(
  host: Host,
  names: readonly (string | LockName)[],
  deadline: Deadline,
  signal?: Stop,
): Promise<() => void> {
  makeFolder(host, host.locks);
  const held: number[] = [];
  const release = (): void => {
    for (const fd of held.splice(0).reverse()) host.native.unlock(fd);
  };
  try {
    for (const lock of names) {
      const { name, shared } = typeof lock === 'string' ? { name: lock, shared: false } : lock;
      held.push(await takeLock(host, name, shared, deadline, signal));
    }
  } catch (e) {
    release();
    throw e;
  }
  return release;
}

/** One try; null when another has the lock. Raises HOSTDEV_STORE, HOSTDEV_STORE_UNSAFE or HOSTDEV_NOT_PERMITTED. */
function tryLock(host: Host, name: string, shared: boolean): number | null {
  try {
    return inFolder(host, host.locks, (at) => host.native.tryLock(at(name), shared));
  } catch (e) {
    throw isSysError(e) ? storeError('lock', host.absolute(`${host.locks}/${name}`), e) : e;
  }
}

/**
 * True when somebody has the lock of that name, null where it may not be looked at. One that never was taken has no
 * file.
 */
export function isLocked(host: Host, name: string): boolean | null {
  try {
    inFolder(host, host.locks, (at) => lstatSync(at(name)));
    const fd = tryLock(host, name, true);
    if (fd === null) return true;
    host.native.unlock(fd);
    return false;
  } catch (e) {
    return isAbsent(e) ? false : null;
  }
}

async function takeLock(host: Host, name: string, shared: boolean, deadline: Deadline, signal?: Stop): Promise<number> {
  const file = host.absolute(`${host.locks}/${name}`);
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    const fd = tryLock(host, name, shared);
    if (fd !== null) return fd;
    if (signal?.aborted)
      throw new HostdevError('HOSTDEV_INTERRUPTED', `Interrupted while waiting for ${file}; nothing was changed`);
    if (deadline.left === 0) {
      throw new HostdevError('HOSTDEV_TIMEOUT', `Another hostdev still holds ${file}`, {
        hint: `See who: fuser -v ${file}`,
      });
    }
    await sleep(Math.min(wait, deadline.left));
  }
}
