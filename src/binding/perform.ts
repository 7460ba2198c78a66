/**
 * The only writer of driver state: makes a step and looks whether it did what it should. Nothing is believed that was
 * not read again. Rules and the damage that taught them:
 * - `drivers_probe` answers success when nothing was bound (nasty#603): the driver link is read afterwards, every time.
 * - The link appears before probe() has finished: a VFIO driver counts as bound when its `vfio-dev` is there, or the
 *   link has stayed.
 * - udev may be loading the host driver at that moment and win the race (seen on igbvf with fresh VFs): then unbind and
 *   probe once more.
 * - A write may hang in D state for ever: each has a deadline, and a device that did not answer is in quarantine from
 *   then on.
 * - Between plan and unbind the host may have mounted the disk: it is asked once more (leave.ts), and no unbind is
 *   written but from here.
 */
import { sleep } from '../clock.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { Deadline } from '../store/locks.ts';
import { quote } from '../text/safe.ts';
import { bindingNow, noAnswer, writeAttribute } from './access.ts';
import { refuse } from './guards.ts';
import { type Leaving, mayLeave } from './leave.ts';
import { writeNumvfs } from './numvfs.ts';
import { observe, remembered } from './observe.ts';
import { writeLink } from './pfLink.ts';
import { ANY_HOST, type Step } from './steps.ts';
import { writeVgpuType } from './vgpu.ts';

/** What one transaction works with. */
export type Work = Leaving & {
  /** Time an undo gets even when the deadline has passed, in ms. */
  undoMs: number;
  /** Which command or hook call it is, for the record. */
  verb?: string;
  /** Told of each write that was made and verified. */
  onStep?: (step: Step) => void;
};

/** How long a bound VFIO driver may take to show its vfio-dev: kernels before 6.1 never do. */
const SETTLE_MS = 100;
const PROBE_TRIES = 3;

/** Raises HOSTDEV_INTERRUPTED when the work is to stop before `what`. */
export function refuseStopped({ signal }: Pick<Work, 'signal'>, what: string): void {
  if (signal?.aborted)
    throw new HostdevError('HOSTDEV_INTERRUPTED', `Interrupted before ${what}; everything was put back`);
}

/**
 * Steps that may go on together: neighbours of one kind on different devices. Each takes its own device's lock. A PF's
 * number of VFs changes alone: it brings and takes devices; and so does a vGPU type, which changes what its siblings
 * may have.
 */
export function batchesOf(steps: readonly Step[]): Step[][] {
  const batches: Step[][] = [];
  for (const step of steps) {
    const last = batches.at(-1);
    const together = step.kind !== 'numvfs' && step.kind !== 'vgpu' && last?.[0]?.kind === step.kind;
    if (last !== undefined && together && !last.some((s) => s.address === step.address)) last.push(step);
    else batches.push([step]);
  }
  return batches;
}

/** All steps of a batch to their end; what failed, by device, in the order of the steps. */
export async function performBatch(work: Work, batch: readonly Step[]): Promise<Map<Address, unknown>> {
  const unbinds = batch.filter((s) => s.kind === 'unbind').map((s) => s.address);
  const refused = unbinds.length === 0 ? null : await mayLeave(work, unbinds);
  const results = await Promise.allSettled(
    batch.map(async (step) => {
      refuse(refused?.get(step.address) ?? []);
      await perform(work, step);
      work.onStep?.(step);
    }),
  );
  const failures = new Map<Address, unknown>();
  for (const [i, result] of results.entries())
    if (result.status === 'rejected') failures.set((batch[i] as Step).address, result.reason);
  return failures;
}

/** {@link performBatch} of one step, raising its failure. */
export async function performStep(work: Work, step: Step): Promise<void> {
  refuseStopped(work, step.path);
  for (const e of (await performBatch(work, [step])).values()) throw e;
}

async function perform(work: Work, step: Step): Promise<void> {
  try {
    switch (step.kind) {
      case 'override':
        return await writeOverride(work, step);
      case 'unbind':
        return await unbind(work, step.address, step.path);
      case 'probe':
        return await probe(work, step);
      case 'numvfs':
        return await writeNumvfs(work, step);
      case 'autoprobe':
        return await writeAutoprobe(work, step);
      case 'vgpu':
        return await writeVgpuType(work, step);
      case 'link':
        return await writeLink(work, step);
    }
  } catch (e) {
    throw remembered(work.host, e);
  }
}

async function writeOverride(work: Work, step: Step): Promise<void> {
  await writeAttribute(work, step.address, step.path, step.value);
  const now = await observe(work, step.address);
  if (now !== null && now.override === step.expect) return;
  throw new HostdevError(
    'HOSTDEV_BIND_FAILED',
    `${step.path} of ${step.address} reads ${JSON.stringify(now?.overrideBytes ?? null)} after ${JSON.stringify(step.value)} was written`,
  );
}

/**
 * ENODEV says that the driver had let go already: what counts is that it has. The kernel takes the link away before it
 * waits for whoever holds the device (drivers/base/dd.c __device_release_driver), so a write that has not come back is
 * none, whatever the link says.
 */
async function unbind(work: Work, address: Address, path: string): Promise<void> {
  const failure = await writeAttribute(work, address, path, address).then(
    () => null,
    (e: unknown) => e,
  );
  if (noAnswer(failure) !== null) throw failure;
  const driver = work.host.linkName(work.host.device(address, 'driver'));
  if (driver === null) return;
  if (failure !== null) throw failure;
  if (path === work.host.driver(driver, 'unbind')) {
    throw new HostdevError('HOSTDEV_BIND_FAILED', `${address} is still on ${driver} although ${path} took the write`);
  }
}

async function probe(work: Work, step: Step): Promise<void> {
  const { host } = work;
  const { address, expect } = step;
  for (let tries = 1; ; tries += 1) {
    await writeAttribute(work, address, step.path, step.value);
    const driver = host.linkName(host.device(address, 'driver'));
    if (expect === ANY_HOST) return;
    if (driver === expect && (await staysBound(host, address, driver))) return;
    if (driver === null || driver === expect || tries === PROBE_TRIES) {
      const saw = driver === null ? 'no driver' : driver;
      throw new HostdevError(
        'HOSTDEV_BIND_FAILED',
        `${address} has ${saw} after the probe, not ${expect}, although ${step.path} took the write: the driver refused it or nothing reacts`,
      );
    }
    refuse((await mayLeave(work, [address])).get(address) ?? []);
    await unbind(work, address, host.driver(driver, 'unbind'));
  }
}

/** Host drivers are bound when the synchronous probe has returned; a VFIO driver shows it by `vfio-dev`. */
async function staysBound(host: Host, address: Address, driver: string | null): Promise<boolean> {
  if (driver === null || !/vfio/.test(driver)) return true;
  const until = new Deadline(SETTLE_MS);
  while (until.left > 0 && host.list(host.device(address, 'vfio-dev')) === null) await sleep(5);
  return host.linkName(host.device(address, 'driver')) === driver;
}

/** Writes sriov_drivers_autoprobe and reads it again. */
async function writeAutoprobe(work: Work, step: Step): Promise<void> {
  await writeAttribute(work, step.address, step.path, step.value);
  const now = work.host.read(step.path);
  if (now !== step.expect)
    throw new HostdevError(
      'HOSTDEV_BIND_FAILED',
      `${step.path} reads ${quote(now ?? '')} after ${step.value} was written`,
    );
}

/** True when the device is on a VFIO driver now. */
export const onVfio = (host: Host, address: Address): boolean =>
  isVfioDriver(host, address, host.linkName(host.device(address, 'driver')));

/** {@link onVfio}, as it will be then in a dry run: its books say which VFIO driver it is bound to. */
export function onVfioNow(work: Pick<Work, 'host' | 'foreseen'>, address: Address): boolean {
  const { host, foreseen } = work;
  const then = foreseen?.states.get(address);
  if (then === undefined || then.driver === host.linkName(host.device(address, 'driver'))) return onVfio(host, address);
  return then.driver !== null && bindingNow(work, address)?.after?.driver === then.driver;
}
