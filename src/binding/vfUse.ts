/** Whether the VFs of a PF are in use: they all go when their number changes, so one guest's VF keeps them all. */
import type { Address } from '../pci/address.ts';
import type { Inventory } from '../pci/inventory.ts';
import type { Work } from './access.ts';
import { ownerText, readBinding } from './books.ts';
import { firm, type Refusal } from './guards.ts';
import { readUsages } from './usage.ts';

/**
 * A refusal for each use of a VF of `pf`: claimed in the books by somebody else than `owner` (null: by a guest), held by a process, or used by the host
 * itself. No allowance lifts them. Raises HOSTDEV_STORE_CORRUPT.
 */
export async function vfRefusals(
  work: Work,
  inventory: Inventory,
  pf: Address,
  owner: string | null,
): Promise<Refusal[]> {
  const { host } = work;
  const vfs = inventory.devices.filter((d) => d.parent_addr === pf);
  const usages = await readUsages(work, vfs);
  return vfs.flatMap((vf) => {
    const foreign = (readBinding(host, vf.address)?.claims ?? []).filter((c) =>
      owner === null ? c.owner.startsWith('domain:') : c.owner !== owner,
    );
    const { uses, unmeasured } = usages.get(vf.address) ?? { uses: [], unmeasured: [] };
    const why = [
      ...foreign.map((c) => `it belongs to ${ownerText(c)}`),
      ...uses.map((u) => u.reason),
      ...(host.isReal ? unmeasured : []).map((what) => `it is not known, ${what} could not be looked at`),
    ];
    return why.map((reason) =>
      firm({ guard: 'in-use', address: vf.address, reason: `this VF of ${pf} is in use: ${reason}` }),
    );
  });
}
