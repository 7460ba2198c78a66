/**
 * Every access to an attribute of a device, with its deadline: reading what is so now, and writing. What takes a device's lock may hang in D state for ever; then the
 * device goes into quarantine with who holds it, and nothing here touches it again before the hang has ended.
 */
import type { KernelWriter } from '../addon/native.ts';
import { HostdevError, isErrno, isSysError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { scanInventory } from '../pci/inventory.ts';
import type { Deadline, Stop } from '../store/locks.ts';
import type { DeviceState, Step } from './move.ts';
import { type Quarantine, quarantine, refuseStuck, stuckError } from './quarantine.ts';
import { usesNow } from './usage.ts';

/** What one command works with: the helper that writes, its time, and how it is stopped. */
export type Work = {
  host: Host;
  writer: KernelWriter;
  deadline: Deadline;
  /** Time an undo gets even when the deadline has passed, in ms. */
  undoMs: number;
  /** Set on Ctrl-C or SIGTERM: the transaction stops before its next write and undoes. */
  signal?: Stop;
  /** Devices that recovery left in the journal because they hung: not to be touched in this session even if the hang ends meanwhile. */
  stuck?: Map<Address, Quarantine>;
  /** Told of each write that was made and verified. */
  onStep?: (step: Step) => void;
  /** Takes further groups' locks, for groups that appear in the middle of the work (a PF's VFs); given up with the others. */
  lockGroups?: (groups: readonly (number | null)[], deadline: Deadline) => Promise<void>;
};

/** A read of an attribute that takes the device's lock may hang like a write, but has nothing to wait for when all is well. */
const READ_MS = 2000;

/** The text of an attribute that takes its device's lock. Raises the kernel's own error, and for a device in quarantine or one that hangs HOSTDEV_TIMEOUT. */
export async function readLocked(work: Work, address: Address, path: string): Promise<string> {
  const stuck = work.stuck?.get(address);
  if (stuck !== undefined) throw stuckError(stuck);
  refuseStuck(work.host, address);
  try {
    return await work.writer.read(path, Math.min(READ_MS, Math.max(work.deadline.left, 1)));
  } catch (e) {
    throw isErrno(e, 'ETIMEDOUT') ? accessError(work, address, `Failed to read ${path}`, e) : e;
  }
}

/** What is observed of a device now; null when the device itself is gone. `overrideBytes` is the attribute as read. */
export async function observe(work: Work, address: Address): Promise<(DeviceState & { overrideBytes: string }) | null> {
  const { host } = work;
  try {
    const overrideBytes = await readLocked(work, address, host.device(address, 'driver_override'));
    return {
      driver: host.linkName(host.device(address, 'driver')),
      override: parseOverride(overrideBytes),
      overrideBytes,
    };
  } catch (e) {
    if (isErrno(e, 'ENOENT', 'ENODEV', 'ENXIO') && host.list(host.device(address)) === null) return null;
    throw accessError(work, address, `Failed to read driver_override of ${address}`, e);
  }
}

/** drivers/base/bus.c prints "(null)" for an unset override, an empty line means the same. */
function parseOverride(text: string): string | null {
  const line = text.split('\n', 1)[0] ?? '';
  return line === '' || line === '(null)' ? null : line;
}

/** Writes one attribute. Raises HOSTDEV_TIMEOUT, HOSTDEV_NOT_PERMITTED, HOSTDEV_BIND_FAILED with the kernel's errno as cause. */
export async function write(work: Work, address: Address, path: string, value: string): Promise<void> {
  if (work.deadline.left === 0) throw new HostdevError('HOSTDEV_TIMEOUT', `No time was left for ${path}`);
  try {
    await work.writer.write(path, value, work.deadline.left);
  } catch (e) {
    throw accessError(work, address, `Failed to write ${JSON.stringify(value.trim())} to ${path}`, e);
  }
}

/**
 * Puts an attribute's bytes back on a tree that is no sysfs (a static copy, on which writing does not read back as it was). The kernel's own files refuse this (EPERM by
 * the helper's look at the file system), and there the text is back already.
 */
export async function restore(work: Work, address: Address, path: string, bytes: string): Promise<void> {
  try {
    await work.writer.restoreFile(path, bytes, Math.max(work.deadline.left, 1));
  } catch (e) {
    if (!isErrno(e, 'EPERM')) throw accessError(work, address, `Failed to restore ${path}`, e);
  }
}

/** Who uses the device that hangs: nothing that is looked at here takes its lock. Its driver is the one it had, where `path` is that driver's unbind file. */
function holderLines(host: Host, address: Address, path: string): string[] {
  const device = host.list(host.device(address)) === null ? undefined : scanInventory(host).byAddress.get(address);
  const driver = /\/drivers\/([^/]+)\/unbind$/.exec(path)?.[1] ?? device?.driver ?? null;
  return device === undefined ? [] : usesNow(host, { ...device, driver });
}

/** An access that failed, in our words. One that hangs puts the device into quarantine, with who holds it. */
function accessError({ host }: Work, address: Address, doing: string, e: unknown): HostdevError {
  if (e instanceof HostdevError) return e;
  const name = isSysError(e) ? e.code : String(e);
  if (isSysError(e) && e.code === 'ETIMEDOUT') {
    const helper = 'helper' in e && typeof e.helper === 'string' ? e.helper : null;
    const holders = holderLines(host, address, e.path ?? '');
    if (helper !== null) quarantine(host, { address, path: e.path ?? '', helper, holders });
    const by = holders.length > 0 ? `in use: ${holders.join(', ')}` : 'the device is held';
    return new HostdevError('HOSTDEV_TIMEOUT', `${doing}: no answer before the deadline, ${by}`, { cause: e });
  }
  if (isErrno(e, 'EACCES', 'EPERM'))
    return new HostdevError('HOSTDEV_NOT_PERMITTED', `${doing}: ${name}`, { cause: e });
  return new HostdevError('HOSTDEV_BIND_FAILED', `${doing}: ${name}`, { cause: e });
}
