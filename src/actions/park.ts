/**
 * A device that no driver shall have: off its driver as one transaction, with an override that no driver has for a
 * name, so that none claims it later.
 */

import { bindingNow } from '../binding/access.ts';
import { type Hold, newBinding, readBook, withHold } from '../binding/books.ts';
import { byName, judge, refuse } from '../binding/guards.ts';
import { observe } from '../binding/observe.ts';
import { changing } from '../binding/session.ts';
import type { Move } from '../binding/state.ts';
import { runChange } from '../binding/transaction.ts';
import { readUsages } from '../binding/usage.ts';
import { withoutVfs } from '../binding/vfPlan.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Inventory, PciDevice } from '../pci/inventory.ts';
import type { ActionOptions } from './options.ts';

/** No driver has this name (driverctl and the kernel's own documents use it so). */
export const NO_DRIVER = 'none';

/** Takes a device off its driver. False where it has none. Raises what `bind` raises. */
export async function parkDevice(
  host: Host,
  inventory: Inventory,
  device: PciDevice,
  options: ActionOptions,
  hold: Hold,
): Promise<boolean> {
  const { address } = device;
  return changing(host, inventory, { addresses: [address] }, options, async ({ work, inventory: fresh }) => {
    const now = await observe(work, address);
    const there = fresh.byAddress.get(address);
    if (now === null || there === undefined) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${address} went away`);
    if (now.driver === null) return false;
    const usages = await readUsages(work, [there]);
    const judged = {
      device: there,
      usage: usages.get(address) ?? { uses: [], unmeasured: [] },
      target: null,
      denylistOff: true,
    };
    const lifts = byName(options.allowed);
    const judgement = judge({ ...judged, real: host.isReal, asker: 'bind' }, lifts);
    refuse(judgement.refusals);
    const to = { driver: null, override: NO_DRIVER };
    const from = { driver: now.driver, override: now.override };
    const move: Move = {
      address,
      group: there.iommu_group,
      inode: host.inode(host.device(address)),
      from,
      to,
      override_bytes: now.overrideBytes,
      ...((there.sriov_numvfs ?? 0) > 0 ? { sriov: await withoutVfs(work, address) } : {}),
    };
    const binding = bindingNow(work, address);
    const after =
      binding === null
        ? newBinding(host, address, there.iommu_group, hold, from, to)
        : { ...withHold(binding, hold), after: to };
    await runChange(
      { ...work, permit: { asker: 'bind', lifts: () => lifts } },
      {
        kind: 'bind',
        owner: hold.owner,
        devices: [move],
        books: [{ address, before: readBook(host, address), after }],
        lifted: judgement.lifted,
      },
    );
    return true;
  });
}
