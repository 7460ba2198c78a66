/** `status --fix`: what drifted from the books is put right where hostdev can know what right is. Each device for itself: one that fails stops no other. */

import { observe, type Work } from '../binding/access.ts';
import { executeBind, planBind, refuse } from '../binding/bind.ts';
import { type Binding, readBinding, readBooks, removeBinding } from '../binding/books.ts';
import { driftOf } from '../binding/drift.ts';
import { giveBack } from '../binding/giveBack.ts';
import { readJournal } from '../binding/journal.ts';
import { readQuarantine } from '../binding/quarantine.ts';
import { changing } from '../binding/session.ts';
import type { Host } from '../host/host.ts';
import { type Inventory, scanInventory } from '../pci/inventory.ts';
import type { ActionOptions } from './options.ts';

export type Mended = { address: string; mended: boolean; text: string };

/** Finishes what the journal holds and mends the drift of every device; in a dry run only says what it would do. Raises what concerns all of it. */
export async function fixStatus(host: Host, options: ActionOptions): Promise<Mended[]> {
  const inventory = scanInventory(host);
  const mended: Mended[] = [];
  const groups = new Set([
    ...readBooks(host).map((b) => b.group),
    ...readJournal(host).flatMap((e) => e.devices.map((d) => d.group)),
  ]);
  for (const group of groups) {
    try {
      await changing(host, inventory, [group], options, async (work, recovered, fresh) => {
        mended.push(...recovered.map((text) => ({ address: text.split(' ', 1)[0] ?? '', mended: true, text })));
        for (const b of readBooks(host).filter((x) => x.group === group))
          mended.push(...(await mend(work, fresh, b, options)));
      });
    } catch (e) {
      mended.push({ address: `IOMMU group ${group}`, mended: false, text: (e as Error).message });
    }
  }
  return mended;
}

async function mend(work: Work, inventory: Inventory, b: Binding, options: ActionOptions): Promise<Mended[]> {
  const { host } = work;
  const { address } = b;
  const answer = (mended: boolean, text: string): Mended[] => [{ address, mended, text: `${address} ${text}` }];
  try {
    const held = readQuarantine(host, address);
    if (held !== null) return answer(false, `hangs in the kernel at ${held.path}`);
    const found = driftOf(host, b, await observe(work, address));
    if (found === null) return [];
    if (found.mend === null) return answer(false, `${found.drift}: ${found.advice}`);
    if (options.dryRun) return answer(false, `${found.drift}: would ${found.mend}`);
    if (found.mend === 'forget') {
      removeBinding(host, address);
      return answer(true, 'is out of the books');
    }
    const device = inventory.byAddress.get(address);
    if (found.mend === 'give-back' || device === undefined) {
      const back = await giveBack(work, device, b);
      return answer(back.outcome !== 'kept', back.reason ?? 'was given back');
    }
    const claim = b.claims[0];
    if (claim === undefined) return [];
    const plan = await planBind(work, [{ device, wanted: b.after?.driver ?? null }], claim.owner, options.allowed);
    refuse(plan.refusals);
    await executeBind(work, plan, claim);
    return answer(true, `is on ${readBinding(host, address)?.after?.driver ?? 'VFIO'} again`);
  } catch (e) {
    return answer(false, `could not be mended: ${(e as Error).message}`);
  }
}
