/** The books of a PF's VFs, when their number has changed and the PF kept its driver. */
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { scanInventory } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { newBinding, type Owner, readBinding, removeBinding, writeBinding } from './books.ts';
import type { JournalMove } from './journal.ts';
import { recordedVfs } from './sriov.ts';

/** Whether the books of a VF are of a change that began at `started`; older ones are of a VF that went in it, at the same address. */
const bookedSince = (host: Host, vf: Address, started: string): boolean =>
  (readBinding(host, vf)?.since ?? '') >= started;

/**
 * The books of the VFs that went are closed; those made for guests are `owner`'s, and were on nothing before. With `started`, of a transaction that died, what it had
 * written already stays.
 */
export function bookVfs(host: Host, { address, sriov }: JournalMove, owner: Owner, started?: string): void {
  const written = (vf: Address): boolean => started !== undefined && bookedSince(host, vf, started);
  for (const vf of recordedVfs(sriov?.from)) if (!written(vf.address)) removeBinding(host, vf.address);
  if (sriov?.to.vfs !== 'vfio') return;
  const none = { driver: null, override: null };
  const claim = { owner, name: null, managed: false };
  for (const vf of scanInventory(host).devices) {
    if (vf.parent_addr !== address || written(vf.address) || !isVfioDriver(host, vf.address, vf.driver)) continue;
    const on = { driver: vf.driver, override: vf.driver };
    writeBinding(host, newBinding(vf.address, vf.iommu_group, claim, none, on));
  }
}
