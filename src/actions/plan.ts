/** A plan as contract 4 prints it. */

import { type BindPlan, planSteps } from '../binding/bind.ts';
import { type PrintedRefusal, printedRefusals, type Refusal, refuse } from '../binding/guards.ts';
import type { Work } from '../binding/perform.ts';
import type { Write } from '../binding/steps.ts';
import { asError, HostdevError } from '../errors.ts';
import { checkWritable } from '../host/files.ts';
import type { Host } from '../host/host.ts';
import type { ActionOptions } from './options.ts';

export type PrintedPlan = {
  devices: { address: string; driver_from: string | null; driver_to: string | null; module: string | null }[];
  steps: { path: string; value: string; undo: Write[] }[];
  refusals: PrintedRefusal[];
};

export const printedPlan = (
  work: Pick<Work, 'host'>,
  plan: BindPlan,
  refusals: readonly Refusal[] = plan.refusals,
): PrintedPlan => ({
  devices: plan.devices.map((d) => ({
    address: d.device.address,
    driver_from: d.move.from.driver,
    driver_to: d.move.to.driver,
    module: d.target.module,
  })),
  steps: planSteps(work, plan).map(({ path, value, undo }) => ({ path, value, undo })),
  refusals: printedRefusals(refusals),
});

/**
 * Of a dry run: what would keep this process from the plan's writes, HOSTDEV_NOT_PERMITTED or HOSTDEV_SYSFS (read-only)
 * for the first file that it cannot write. Null where nothing would, and for a real run.
 */
export function foreseenRefusal(
  host: Host,
  { plan }: { plan: Pick<PrintedPlan, 'steps'> },
  { dryRun }: ActionOptions,
): HostdevError | null {
  if (!dryRun) return null;
  for (const { path } of plan.steps) {
    try {
      checkWritable(host, path);
    } catch (e) {
      return asError(`Failed to write to ${host.absolute(path)}`, e, 'HOSTDEV_SYSFS');
    }
  }
  return null;
}

/**
 * Raises what {@link refuse} raises, with the plan in the error's data: an answer in JSON shows what would have been
 * done.
 */
export function refuseWithPlan(plan: PrintedPlan, refusals: readonly Refusal[]): void {
  try {
    refuse(refusals);
  } catch (e) {
    if (e instanceof HostdevError) throw new HostdevError(e.code, e.message, { hint: e.hint, data: { plan } });
    throw e;
  }
}
