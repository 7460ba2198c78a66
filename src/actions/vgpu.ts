/** `vf set --vgpu-type`: the vGPU types of VFs, as one transaction. */
import { changing, foreseeing } from '../binding/session.ts';
import type { Owner } from '../binding/state.ts';
import { stepsOf } from '../binding/steps.ts';
import { runChange } from '../binding/transaction.ts';
import { planVgpu } from '../binding/vgpu.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { namedDevices } from './bind.ts';
import type { ActionOptions, Warned } from './options.ts';
import type { PrintedPlan } from './plan.ts';

/** `type`: the number of a vGPU type, "0" for none. */
export type WantedType = { device: PciDevice; type: string };

export type TypesResult = Warned & { changed: boolean; plan: PrintedPlan };

/** {@link setTypes} of the VFs that words name, for the admin. Raises what resolving the words raises too. */
export async function setVgpuType(
  host: Host,
  words: readonly string[],
  type: string,
  options: ActionOptions,
): Promise<TypesResult> {
  const inventory = scanInventory(host);
  const { devices, resolved } = namedDevices(host, inventory, words);
  const wanted = devices.map((device) => ({ device, type }));
  const result = await setTypes(host, inventory, wanted, options, 'admin');
  return { ...result, warnings: [...resolved, ...result.warnings] };
}

/**
 * Gives each VF its vGPU type, all of them or none; one that has it is left alone. Raises HOSTDEV_VGPU_TYPE for what is
 * no vGPU and for a type that a VF cannot have, HOSTDEV_IN_USE for a VF that a guest has, and what a transaction
 * raises; then each is as it was.
 */
export async function setTypes(
  host: Host,
  inventory: Inventory,
  wanted: readonly WantedType[],
  options: ActionOptions,
  owner: Owner,
): Promise<TypesResult> {
  const session = options.dryRun ? foreseeing : changing;
  const addresses = wanted.map((w) => w.device.address);
  return session(host, inventory, { addresses }, options, async ({ work, inventory: fresh, recovered }) => {
    const moves = [];
    for (const { device, type } of wanted) {
      const there = fresh.byAddress.get(device.address);
      if (there === undefined) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${device.address} went away`);
      const move = await planVgpu(work, there, type);
      if (move !== null) moves.push(move);
    }
    const plan: PrintedPlan = {
      devices: moves.map(({ address, from, to }) => ({
        address,
        driver_from: from.driver,
        driver_to: to.driver,
        module: null,
      })),
      steps: stepsOf(host, moves).map(({ path, value, undo }) => ({ path, value, undo })),
      refusals: [],
    };
    const changed = !options.dryRun && moves.length > 0;
    if (changed) await runChange(work, { kind: 'bind', owner, devices: moves, books: [] });
    return { changed, plan, warnings: recovered };
  });
}
