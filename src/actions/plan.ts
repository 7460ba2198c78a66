/** A plan as contract 4 prints it. */
import { type BindPlan, planSteps } from '../binding/bind.ts';
import type { Refusal } from '../binding/guards.ts';
import type { Write } from '../binding/move.ts';
import type { Work } from '../binding/transaction.ts';

export type PrintedPlan = {
  devices: { address: string; driver_from: string | null; driver_to: string | null; module: string | null }[];
  steps: { path: string; value: string; undo: Write[] }[];
  refusals: Refusal[];
};

export const printedPlan = (
  work: Pick<Work, 'host'>,
  plan: BindPlan,
  refusals: Refusal[] = plan.refusals,
): PrintedPlan => ({
  devices: plan.devices.map((d) => ({
    address: d.device.address,
    driver_from: d.move.from.driver,
    driver_to: d.target.driver,
    module: d.target.module,
  })),
  steps: planSteps(work, plan).map(({ path, value, undo }) => ({ path, value, undo })),
  refusals,
});
