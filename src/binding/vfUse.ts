/** Whether the VFs of a PF are in use: they all go when their number changes, so one guest's VF keeps them all. */
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { Inventory } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { ownerText, readBinding } from './books.ts';
import type { Refusal } from './guards.ts';
import { readUsage } from './usage.ts';

/**
 * A refusal for each use of a VF of `pf`: claimed in the books by somebody else than `owner` (null: by a guest), held by a process, or used by the host
 * itself. No allowance lifts them. Raises HOSTDEV_STORE_CORRUPT.
 */
export function vfRefusals(host: Host, inventory: Inventory, pf: Address, owner: string | null): Refusal[] {
  const refusals: Refusal[] = [];
  for (const vf of inventory.devices) {
    if (vf.parent_addr !== pf) continue;
    const say = (reason: string): void => {
      refusals.push({ guard: 'in-use', address: vf.address, reason: `this VF of ${pf} is in use: ${reason}` });
    };
    for (const c of readBinding(host, vf.address)?.claims ?? [])
      if (owner === null ? c.owner.startsWith('domain:') : c.owner !== owner) say(`it belongs to ${ownerText(c)}`);
    const usage = readUsage(host, vf, isVfioDriver(host, vf.address, vf.driver));
    for (const h of usage.holders) say(`process ${h.pid} (${h.command}) has ${h.path} open`);
    for (const use of [...usage.disks, ...usage.network, ...usage.display]) say(use);
    for (const what of host.isReal ? usage.unmeasured : []) say(`it is not known, ${what} could not be looked at`);
  }
  return refusals;
}
