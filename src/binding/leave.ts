/**
 * May these devices leave their drivers now? Asked right before every unbind and before VFs are taken away, by whoever
 * moves a device: command, hook, undo, recovery. perform.ts is the only one that writes an unbind or a number of VFs,
 * and it asks here first, so nobody can go round it; a mount that was made since the plan is seen.
 */
import type { Address } from '../pci/address.ts';
import type { Inventory } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { vfLinks } from '../pci/vfLinks.ts';
import type { Access } from './access.ts';
import { isGuest, ownerText, readBinding } from './books.ts';
import { type Asker, judge, type Lifts, type Refusal, type Usage } from './guards.ts';
import { witness } from './guests.ts';
import type { Lifted } from './journal.ts';
import { devicesNow } from './observe.ts';
import { readUsages } from './usage.ts';

/** What a transaction may pass by: who asks for it, and what is lifted for a device. */
export type Permit = { asker: Asker; lifts: (address: Address) => Lifts };

/** Nothing is lifted. */
export const NO_ALLOWANCE: Permit = { asker: 'bind', lifts: () => () => false };

export type Leaving = Access & {
  inventory: Inventory;
  permit: Permit;
  /** What was lifted so far, for the record. */
  lifted?: Lifted[];
};

/** The devices that may not leave, each with what keeps it. */
export async function mayLeave(work: Leaving, addresses: readonly Address[]): Promise<Map<Address, Refusal[]>> {
  const { host, inventory, permit } = work;
  const devices = devicesNow(host, inventory, addresses);
  const refused = new Map<Address, Refusal[]>();
  const usages = await readUsages(work, devices);
  for (const device of devices) {
    const { address } = device;
    const usage = usages.get(address) ?? { uses: [], unmeasured: [] };
    const asker = isVfioDriver(host, address, device.driver) ? 'unbind' : permit.asker;
    const judged = { device, usage, target: null, denylistOff: true, real: host.isReal, asker };
    const { refusals, lifted } = judge(judged, permit.lifts(address));
    work.lifted?.push(...lifted);
    if (refusals.length > 0)
      refused.set(
        address,
        refusals.map((r) => ({ ...r, asker: permit.asker })),
      );
  }
  return refused;
}

/**
 * A refusal for each use of a VF of `pf`: they all go when their number changes, so one guest's VF keeps them all.
 * `owner`: whose hold is none in the way; null is everybody's but a guest's. No allowance lifts them. Raises
 * HOSTDEV_STORE_CORRUPT.
 */
export const vfRefusals = (work: Leaving, pf: Address, owner: string | null): Promise<Refusal[]> =>
  useRefusals(work, vfLinks(work.host, pf), owner, `this VF of ${pf} is in use`);

/** {@link vfRefusals} of the VFs that are named, for a change that takes away what a guest has of them. */
export async function useRefusals(
  work: Leaving,
  addresses: readonly Address[],
  owner: string | null,
  text: string,
): Promise<Refusal[]> {
  const { host } = work;
  const vfs = devicesNow(host, work.inventory, addresses);
  const usages = await readUsages(work, vfs);
  const books = new Map(vfs.flatMap(({ address }) => [[address, readBinding(host, address)] as const]));
  const look = await witness(
    host,
    [...books.values()].flatMap((b) => b ?? []),
    work.deadline.left,
  );
  return vfs.flatMap((vf) => {
    const b = books.get(vf.address) ?? null;
    const foreign = (b?.holds ?? []).filter((h) =>
      isGuest(h) ? b !== null && look.presence(b, h) !== 'gone' : owner !== null && h.owner !== owner,
    );
    const { uses, unmeasured }: Usage = usages.get(vf.address) ?? { uses: [], unmeasured: [] };
    const why = [
      ...foreign.map((h) => `it belongs to ${ownerText(h)}`),
      ...uses.map((u) => u.reason),
      ...(host.isReal ? unmeasured : []).map((what) => `it is not known, ${what} could not be looked at`),
    ];
    return why.map((reason) => ({
      guard: 'in-use',
      address: vf.address,
      reason: `${text}: ${reason}`,
      firm: true,
      asker: work.permit.asker,
    }));
  });
}
