/**
 * `status --fix`: what drifted from the books is put right where hostdev can know what right is. Each device for
 * itself: one that fails stops no other.
 */

import { bookNow, nothingForeseen } from '../binding/access.ts';
import { checkModules, executeBind, planBind } from '../binding/bind.ts';
import { type Binding, readBook, readBooks, removeBinding } from '../binding/books.ts';
import { driftOf } from '../binding/drift.ts';
import { releaseHolds } from '../binding/giveBack.ts';
import { lockDevices } from '../binding/groupLocks.ts';
import { refuse } from '../binding/guards.ts';
import { deadHolds, type Told, withTold, witness } from '../binding/guests.ts';
import { type JournalEntry, namedBy, readJournal } from '../binding/journal.ts';
import { devicesNow, observe } from '../binding/observe.ts';
import type { Work } from '../binding/perform.ts';
import { readQuarantine } from '../binding/quarantine.ts';
import type { Recovery } from '../binding/recover.ts';
import { foreseeRelease, foreseeRight, mayChange, observing, putRight, working } from '../binding/session.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { groupNow } from '../pci/vfLinks.ts';
import { Deadline } from '../store/locks.ts';
import { ADMIN } from './bind.ts';
import { type DeviceGuests, toldBy } from './inGuest.ts';
import type { ActionOptions } from './options.ts';
import { lostBindings, lostWithVfs } from './vfLosses.ts';

/**
 * `address` null and `entry` set: an unfinished transaction as a whole. `would`: a dry run, and the real one would mend
 * it. `by`: why it could not be mended, where a guard keeps it back.
 */
export type Mended = {
  address: Address | null;
  entry: string | null;
  mended: boolean;
  would: boolean;
  by: 'guard' | null;
  text: string;
};

/** `told` is what libvirt says of the guests. */
type FixOptions = ActionOptions & { told: Told };

/** Devices that are to be looked at together, and the unfinished transactions that join them. */
type Part = { addresses: Address[]; entries: JournalEntry[] };

/**
 * Finishes what the journal holds and mends the drift of every device; in a dry run only says what it would do. Raises
 * what concerns all of it.
 */
export async function fixStatus(host: Host, options: ActionOptions, guests: DeviceGuests): Promise<Mended[]> {
  if (!options.dryRun) mayChange(host);
  const told = toldBy(guests);
  const inventory = scanInventory(host);
  const { entries, bad } = readJournal(host);
  const { books, bad: badBooks } = readBooks(host);
  const named = new Set([...bad, ...badBooks].flatMap((b) => b.addresses));
  const parts = partsOf(inventory, entries, books).filter((p) => !p.addresses.some((a) => named.has(a)));
  if (parts.length === 0) return [];
  const byAddress = new Map(inventory.byAddress);
  const now = { ...inventory, byAddress };
  return (options.dryRun ? looking : working)(host, options, now, async (work) => {
    const mended: Mended[][] = parts.map(() => []);
    const queue = [...parts.entries()];
    const worker = async (): Promise<void> => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        const [i, part] = next;
        // Each has the whole time: one that hangs leaves the others theirs.
        const own: Work = { ...work, deadline: new Deadline(work.deadline.left || options.deadlineMs / 4) };
        mended[i] = await fixPart(own, byAddress, part, { ...options, told }).catch((e: unknown) => {
          const [address = null] = part.addresses;
          const entry = part.entries[0]?.id ?? null;
          return [
            {
              address,
              entry,
              mended: false,
              would: false,
              by: null,
              text: `${address ?? entry}: ${(e as Error).message}`,
            },
          ];
        });
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    return mended.flat();
  });
}

/** {@link observing} with the inventory at hand: a dry run needs neither root nor locks. */
const looking = <T>(host: Host, options: ActionOptions, inventory: Inventory, body: (work: Work) => Promise<T>) =>
  observing(host, options, (work) => body({ ...work, inventory }));

/** Parts have no device in common, and the kernel's files are another process' to wait for. */
const AT_ONCE = 4;

/**
 * Everything in books and journal, put together where one entry names several devices, or a PF's entry those of its
 * VFs.
 */
function partsOf(inventory: Inventory, entries: readonly JournalEntry[], books: readonly Binding[]): Part[] {
  const partOf = new Map<Address, Part>();
  const parts = new Set<Part>();
  const add = (addresses: Iterable<Address>, entry: JournalEntry | null): void => {
    const all = [...new Set(addresses)];
    const found = [...new Set(all.flatMap((a) => partOf.get(a) ?? []))];
    const part = found[0] ?? { addresses: [], entries: [] };
    for (const other of found.slice(1)) {
      part.addresses.push(...other.addresses);
      part.entries.push(...other.entries);
      for (const a of other.addresses) partOf.set(a, part);
      parts.delete(other);
    }
    for (const a of all) {
      if (partOf.get(a) === part) continue;
      partOf.set(a, part);
      part.addresses.push(a);
    }
    if (entry !== null) part.entries.push(entry);
    parts.add(part);
  };
  for (const b of books) {
    const pf = inventory.byAddress.get(b.address)?.parent_addr ?? null;
    const withPf = pf !== null && entries.some((e) => e.devices.some((m) => m.address === pf));
    add(withPf ? [b.address, pf] : [b.address], null);
  }
  for (const e of entries) add(namedBy(e), e);
  return [...parts];
}

async function fixPart(
  work: Work,
  byAddress: Map<Address, PciDevice>,
  part: Part,
  options: FixOptions,
): Promise<Mended[]> {
  if (options.dryRun) {
    const foreseen = nothingForeseen();
    const then: Work = { ...work, foreseen };
    return fixed(then, part, await foreseeRight(then, foreseen, part.entries, [], part), options);
  }
  const look = () => lookAgain(work, byAddress, part.addresses);
  const locked = await lockDevices(work, part.addresses, look, part.entries);
  try {
    const recovery = await putRight(work, locked.entries, [], part, look);
    if (recovery.done.length > 0) look();
    return await fixed(work, part, recovery, options);
  } finally {
    locked.unlock();
  }
}

/** What has become of a part's entries and holds, and then of the drift of its devices; in a dry run what would. */
async function fixed(work: Work, part: Part, { done, kept, held }: Recovery, options: FixOptions): Promise<Mended[]> {
  const rest = part.addresses.filter((a) => !held.has(a));
  return [
    ...done.map((d): Mended => ({ ...d, mended: !options.dryRun, would: options.dryRun, by: null })),
    ...kept.map(({ address, reason, by, entry }): Mended => {
      const text = `${address} stays in the journal (${entry}): ${reason}`;
      return { address, entry, mended: false, would: false, by: by === 'guard' ? 'guard' : null, text };
    }),
    ...(await mendBooks(work, rest, options)),
  ];
}

/**
 * Brings the part's devices in the inventory up to date, under the locks, without a scan of all others for each of a
 * thousand parts.
 */
function lookAgain(
  { host, inventory }: Work,
  byAddress: Map<Address, PciDevice>,
  addresses: readonly Address[],
): Inventory {
  const there = devicesNow(host, inventory, addresses);
  for (const a of addresses) byAddress.delete(a);
  for (const d of there) byAddress.set(d.address, { ...d, iommu_group: groupNow(host, d.address) });
  return inventory;
}

async function mendBooks(work: Work, addresses: readonly Address[], options: FixOptions): Promise<Mended[]> {
  const mended: Mended[] = [];
  for (const address of addresses) {
    const answer = (is: boolean, text: string, by: Mended['by'] = null): void => {
      mended.push({
        address,
        entry: null,
        mended: is && !options.dryRun,
        would: is && options.dryRun,
        by,
        text: `${address} ${text}`,
      });
    };
    try {
      await mend(work, address, options, answer);
    } catch (e) {
      const guard = ['HOSTDEV_GUARD', 'HOSTDEV_IN_USE'].includes((e as { code?: string }).code ?? '');
      answer(false, `could not be mended: ${(e as Error).message}`, guard ? 'guard' : null);
    }
  }
  return mended;
}

async function mend(
  work: Work,
  address: Address,
  options: FixOptions,
  answer: (mended: boolean, text: string) => void,
): Promise<void> {
  const { host, inventory } = work;
  const b = bookNow(work, address);
  if (b === null) return;
  const hang = readQuarantine(host, address);
  if (hang !== null) return answer(false, `hangs in the kernel at ${hang.path}`);
  const look = withTold(await witness(host, [b], work.deadline.left), options.told);
  const found = driftOf(host, look, b, await observe(work, address));
  if (found === null) return;
  if (found.mend === null) return answer(false, `${found.drift}: ${found.advice}`);
  const device = inventory.byAddress.get(address);
  switch (found.mend) {
    case 'forget':
      if (options.dryRun) return answer(true, 'would be out of the books');
      removeBinding(host, address);
      return answer(true, 'is out of the books');
    case 'end-hold':
    case 'give-back': {
      // Of a book without holds nobody's is ended, and what is left is the way back.
      const owner = deadHolds(host, look, b)[0]?.owner ?? 'admin';
      const { devices, failures } = options.dryRun
        ? await foreseeRelease(work, owner, [{ device, binding: b }])
        : await releaseHolds(work, owner, [{ device, binding: b }]);
      const [failure] = failures;
      if (failure !== undefined) throw failure.error;
      const [back] = devices;
      if (back?.outcome === 'kept') return answer(false, `is not given back: ${back.reason}`);
      if (options.dryRun)
        return answer(true, back === undefined ? 'would be free of that hold' : 'would be given back');
      return answer(true, back === undefined ? 'is free of that hold' : (back.reason ?? 'was given back'));
    }
    case 'rebind': {
      if (device === undefined) return;
      const [hold = ADMIN] = b.holds;
      const plan = await planBind(work, [{ device, wanted: b.after?.driver ?? null }], hold.owner, options.allowed);
      refuse(plan.refusals);
      const from = plan.devices[0]?.move.sriov?.from;
      const losses = from === undefined ? null : await lostWithVfs(work, inventory, device, from);
      const lines = losses === null ? [] : [...lostBindings(address, losses.lost), ...losses.lines];
      const gone = lines.map((l) => `; ${l.text}`).join('');
      if (options.dryRun) {
        await checkModules(work, plan);
        return answer(true, `would be on ${plan.devices[0]?.target.driver ?? 'VFIO'} again${gone}`);
      }
      await executeBind(work, plan, hold);
      return answer(true, `is on ${readBook(host, address)?.after?.driver ?? 'VFIO'} again${gone}`);
    }
  }
}
