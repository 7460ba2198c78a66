/** The VFs of a PF: they go with its driver. */
import type { Host } from '../../host/host.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import { isVfioDriver } from '../../pci/vfio.ts';
import { groupNow, vfLinks } from '../../pci/vfLinks.ts';
import { isGuest, readBinding } from '../books.ts';
import type { Usage, Use } from '../guards.ts';

const NAMED = 4;

/** A PF's VFs by its virtfn links, with what says where their nodes and interfaces are. None of these takes a lock. */
export function vfsOf(host: Host, pf: PciDevice): PciDevice[] {
  if ((pf.sriov_numvfs ?? 0) === 0) return [];
  return vfLinks(host, pf.address).map((address) => ({
    ...pf,
    address,
    driver: host.linkName(host.device(address, 'driver')),
    iommu_group: groupNow(host, address),
    dev_type: 'type-VF',
    parent_addr: pf.address,
    sriov_totalvfs: null,
    sriov_numvfs: null,
  }));
}

/**
 * `usageOf` each VF: one that is in use makes it firm, because `--allow=vfs` is for removing idle ones, and vital where
 * a guest has it or the host stands on it: libvirt would unbind the PF all the same.
 */
export function vfUses(host: Host, pf: PciDevice, vfs: readonly PciDevice[], usageOf: (vf: PciDevice) => Usage): Use[] {
  const count = pf.sriov_numvfs ?? 0;
  if (count === 0) return [];
  const used = vfs.flatMap((vf) => {
    // What the admin or boot has bound and nobody uses is idle; its books come back with it.
    const hold = readBinding(host, vf.address)?.holds.find(isGuest);
    if (hold !== undefined) return [{ text: `${vf.address} belongs to ${hold.name ?? hold.owner}`, vital: true }];
    const { uses } = usageOf(vf);
    const [first] = uses;
    const guest = uses.some((u) => u.guard === 'in-use') && isVfioDriver(host, vf.address, vf.driver);
    const vital = guest || uses.some((u) => u.vital === true);
    return first === undefined ? [] : [{ text: `${vf.address}: ${first.reason}`, vital }];
  });
  const what = `it has ${count} VFs, which would go with its driver`;
  if (used.length === 0) return [{ guard: 'vfs', reason: what }];
  const more = used.length > NAMED ? ` and ${used.length - NAMED} more` : '';
  const named = used.slice(0, NAMED).map((u) => u.text);
  return [
    {
      guard: 'vfs',
      reason: `${what}, and of which are in use: ${named.join('; ')}${more}`,
      firm: true,
      vital: used.some((u) => u.vital),
    },
  ];
}
