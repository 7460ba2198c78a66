/**
 * `hook run NAME OP SUBOP EXTRA`: what one call of libvirt's qemu hook means. Only prepare and start can fail; whatever
 * goes wrong in release is logged, because libvirt cannot undo a guest's end.
 */
import type { Guard } from '../binding/guards.ts';
import { markStarted } from '../binding/guests.ts';
import { namedBy, readJournal } from '../binding/journal.ts';
import { changing } from '../binding/session.ts';
import type { Owner } from '../binding/state.ts';
import { now } from '../clock.ts';
import type { DomainDevices } from '../domain/hostDevices.ts';
import { readDomainDevices } from '../domain/hostDevices.ts';
import { readDomain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { scanInventory } from '../pci/inventory.ts';
import { appendLine } from '../store/files.ts';
import { Deadline, type Stop, takeLocks } from '../store/locks.ts';
import { refuseUnsafe } from '../store/ours.ts';
import { domainOwner } from './check.ts';
import { concerned, hookPolicy } from './policy.ts';
import { prepareDomain } from './prepare.ts';
import { endedGuests, releaseDomain } from './release.ts';
import { checkStart } from './start.ts';

export type HookCall = { name: string; operation: string; xml: Uint8Array };

export type HookOptions = {
  deadlineMs: number;
  /** For the record. */
  verb?: string;
  signal?: Stop;
  allowed: ReadonlySet<Guard>;
  /** UUID whose lock the hook client holds for us already. */
  lockedUuid: string | null;
  /** The libvirtd that asks (addon/process.ts). */
  libvirt?: string | null;
};

/**
 * The operations that mean something here; all others are of no interest and never fail. libvirt waits for prepare,
 * start and release with its guest's life; started says that QEMU is up, stopped ends a prepare that is still at work.
 */
export const HOOK_OPERATIONS = ['prepare', 'start', 'started', 'stopped', 'release'];

const MAY_FAIL = ['prepare', 'start'];

/** Returns what was done, for the log. Raises the cause when prepare or start must stop the guest. */
export async function runHook(host: Host, call: HookCall, options: HookOptions): Promise<object> {
  const { operation } = call;
  if (!HOOK_OPERATIONS.includes(operation)) return {};
  const started = now();
  const left = (): HookOptions => ({ ...options, deadlineMs: options.deadlineMs - (now() - started) });
  let who: { domain: string; uuid: string | null } = { domain: call.name, uuid: null };
  let unlock = (): void => {};
  try {
    const domain = readDomainDevices(readDomain(call.xml, `domain ${call.name}`));
    who = { domain: domain.name, uuid: domain.uuid };
    if (MAY_FAIL.includes(operation) && domain.devices.length === 0) return {};
    refuseUnsafe(host);
    if (operation === 'started') {
      if (domain.devices.length > 0) markStarted(host, domainOwner(domain).slice('domain:'.length));
      return {};
    }
    unlock = await lockDomain(host, domainOwner(domain), options);
    const result = await operate(host, operation, domain, left());
    log(host, { ...who, operation, ...result });
    return result;
  } catch (e) {
    log(host, { ...who, operation, error: (e as Error).message });
    if (operation === 'release' && who.uuid === null) await releaseByName(host, call.name, left());
    throw e;
  } finally {
    unlock();
  }
}

/** The XML could not be read, and the guest of that name is ending: what it holds, if nobody has it. */
async function releaseByName(host: Host, name: string, options: HookOptions): Promise<void> {
  for (const owner of await endedGuests(host, name, options.deadlineMs)) {
    const unlock = await lockDomain(host, owner, options);
    try {
      const result = await releaseDomain(host, owner, [], options);
      log(host, { domain: name, uuid: owner.slice('domain:'.length), operation: 'release', ...told(result) });
    } finally {
      unlock();
    }
  }
}

async function operate(host: Host, operation: string, domain: DomainDevices, options: HookOptions): Promise<object> {
  const owner = domainOwner(domain);
  if (operation === 'stopped') return endPrepare(host, owner, options);
  if (operation === 'release') {
    const listed = domain.devices.map((d) => d.address);
    return told(await releaseDomain(host, owner, listed, options));
  }
  const policy = await hookPolicy(host);
  const mine = concerned(domain, policy);
  if (mine.devices.length === 0) return {};
  if (operation === 'start') return checkStart(host, mine);
  return prepareDomain(host, mine, options.allowed, options, policy);
}

const told = (released: Awaited<ReturnType<typeof releaseDomain>>): object => ({
  ...released,
  failures: released.failures.map((f) => ({ address: f.address, error: (f.error as Error).message })),
});

/**
 * A prepare of this guest was at work until its lock was ours: if it did not get to its end, what it began goes back.
 * Its holds are release's to end.
 */
async function endPrepare(host: Host, owner: Owner, options: HookOptions): Promise<object> {
  const entries = readJournal(host).entries.filter((e) => e.owner === owner);
  const addresses = [...new Set(entries.flatMap((e) => [...namedBy(e)]))];
  if (addresses.length === 0) return {};
  const asked = { addresses, owner, tolerant: true };
  return changing(host, scanInventory(host), asked, options, async ({ recovered }) => ({ recovered }));
}

/**
 * One guest's hook calls go one after another even when a slow release was left running; the native client takes this
 * lock before it starts node.
 */
async function lockDomain(host: Host, owner: Owner, options: HookOptions): Promise<() => void> {
  const uuid = owner.slice('domain:'.length);
  if (options.lockedUuid === uuid) return () => {};
  try {
    return await takeLocks(host, [`domain-${uuid}`], new Deadline(options.deadlineMs));
  } catch (e) {
    // start only looks: a read-only /run must not stop it.
    if (e instanceof HostdevError && e.code === 'HOSTDEV_STORE') return () => {};
    throw e;
  }
}

const MAX_LOG_BYTES = 1024 * 1024;

/** One JSON line; a log that cannot be written is no reason to stop a guest. */
function log(host: Host, line: object): void {
  try {
    const text = JSON.stringify({ time: new Date().toISOString(), ...line });
    appendLine(host, host.hookLog, text, { max: MAX_LOG_BYTES, mode: 0o600 });
  } catch {
    // Nowhere left to say it.
  }
}
