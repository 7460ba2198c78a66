/**
 * `hook run NAME OP SUBOP EXTRA`: what one call of libvirt's qemu hook means. Only prepare and start can fail; whatever goes wrong in release is logged, because
 * libvirt cannot undo a guest's end.
 */
import { appendFileSync, renameSync, statSync } from 'node:fs';
import type { Guard } from '../binding/guards.ts';
import { now } from '../clock.ts';
import { readHookConfig } from '../config/hookSettings.ts';
import type { DomainDevices } from '../domain/hostDevices.ts';
import { readDomainDevices } from '../domain/hostDevices.ts';
import { decodeXml } from '../domain/xml.ts';
import { HostdevError, isErrno } from '../errors.ts';
import { domainOwner } from '../hook/check.ts';
import { concerned, type HookPolicy, prepareDomain } from '../hook/prepare.ts';
import { releaseDomain } from '../hook/release.ts';
import { checkStart } from '../hook/start.ts';
import type { Host } from '../host/host.ts';
import { makeFolder } from '../store/files.ts';
import { Deadline, type Stop, takeLocks } from '../store/locks.ts';

export type HookCall = { name: string; operation: string; xml: Uint8Array };

export type HookOptions = {
  deadlineMs: number;
  signal?: Stop;
  allowed: ReadonlySet<Guard>;
  /** UUID whose lock the hook client holds for us already. */
  lockedUuid: string | null;
};

/** The operations that libvirt waits for with its guest's life; all others are of no interest and never fail. */
export const HOOK_OPERATIONS = ['prepare', 'start', 'release'];

/** Returns what was done, for the log. Raises the cause when prepare or start must stop the guest. */
export async function runHook(host: Host, call: HookCall, options: HookOptions): Promise<object> {
  if (!HOOK_OPERATIONS.includes(call.operation)) return {};
  const domain = readDomainDevices(decodeXml(call.xml, `domain ${call.name}`), `domain ${call.name}`);
  if (call.operation !== 'release' && domain.devices.length === 0) return {};
  const started = now();
  let unlock = (): void => {};
  try {
    unlock = await lockDomain(host, domain, options);
    const result = await operate(host, call.operation, domain, {
      ...options,
      deadlineMs: options.deadlineMs - (now() - started),
    });
    log(host, { domain: domain.name, uuid: domain.uuid, operation: call.operation, ...result });
    return result;
  } catch (e) {
    log(host, { domain: domain.name, uuid: domain.uuid, operation: call.operation, error: (e as Error).message });
    throw e;
  } finally {
    unlock();
  }
}

/** What hostdev.toml says for the hook. Raises HOSTDEV_CONFIG: with a mistake there no guard is lifted by a guess. */
export async function hookPolicy(host: Host): Promise<HookPolicy> {
  const { hook, allow } = await readHookConfig(host);
  return { unmanaged: hook.unmanaged, allowances: allow };
}

async function operate(host: Host, operation: string, domain: DomainDevices, options: HookOptions): Promise<object> {
  if (operation !== 'release') {
    const policy = await hookPolicy(host);
    const mine = concerned(domain, policy);
    if (mine.devices.length === 0) return {};
    if (operation === 'start') return checkStart(host, mine);
    return prepareDomain(host, mine, options.allowed, options, policy);
  }
  const released = await releaseDomain(host, domain, options);
  return {
    ...released,
    failures: released.failures.map((f) => ({ address: f.address, error: (f.error as Error).message })),
  };
}

/** One guest's hook calls go one after another even when a slow release was left running; the native client takes this lock before it starts node. */
async function lockDomain(host: Host, domain: DomainDevices, options: HookOptions): Promise<() => void> {
  const uuid = domainOwner(domain).slice('domain:'.length);
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
    makeFolder(host.stateDir);
    if (sizeOf(host.hookLog) > MAX_LOG_BYTES) renameSync(host.hookLog, `${host.hookLog}.1`);
    appendFileSync(host.hookLog, `${JSON.stringify({ time: new Date().toISOString(), ...line })}\n`, { mode: 0o600 });
  } catch {
    // Nowhere left to say it.
  }
}

function sizeOf(file: string): number {
  try {
    return statSync(file).size;
  } catch (e) {
    if (isErrno(e, 'ENOENT')) return 0;
    throw e;
  }
}
