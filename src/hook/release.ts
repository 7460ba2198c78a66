/**
 * The hook's `release`: the domain's holds end, and what nobody else holds goes back to what it was. The books decide,
 * not the XML: a device unplugged while the guest ran is missing from it, and may be another guest's by now. libvirt
 * has re-attached managed devices before this; what it leaves (an override it cleared, a device its own list kept on
 * VFIO) is put right here. Release may come without prepare, and twice.
 */
import { executeBind, planBind } from '../binding/bind.ts';
import { type Binding, isGuest, readBook, readBooks } from '../binding/books.ts';
import { libvirtLeftIt } from '../binding/drift.ts';
import { type Returned, releaseHolds } from '../binding/giveBack.ts';
import { refuse } from '../binding/guards.ts';
import { forgetStarted, markStarted, witness } from '../binding/guests.ts';
import { namedBy, readJournal } from '../binding/journal.ts';
import { observe } from '../binding/observe.ts';
import type { Work } from '../binding/perform.ts';
import { changing, type SessionOptions } from '../binding/session.ts';
import type { Owner } from '../binding/state.ts';
import type { Host } from '../host/host.ts';
import { scanInventory } from '../pci/inventory.ts';
import { type Warning, warning } from '../text/warning.ts';

export type Released = { devices: Returned[]; failures: { address: string; error: unknown }[]; recovered: Warning[] };

/**
 * Releases a domain; `listed` are the devices of its XML. Failures of single devices do not stop the others; they are
 * returned. Raises only what concerns all of it (locks, the store).
 */
export async function releaseDomain(
  host: Host,
  owner: Owner,
  listed: readonly string[],
  options: SessionOptions,
): Promise<Released> {
  const inXml = new Set(listed);
  // A device whose last hold went while somebody else had it waits in the books for the guest that had it to end.
  const concerns = (b: Binding): boolean =>
    b.holds.some((h) => h.owner === owner) || (b.holds.length === 0 && inXml.has(b.address));
  const released: Released = { devices: [], failures: [], recovered: [] };
  // A prepare of this guest that died before its books: what it began is put right with the locks.
  const begun = readJournal(host)
    .entries.filter((e) => e.owner === owner)
    .flatMap((e) => [...namedBy(e)]);
  const booked = readBooks(host)
    .books.filter(concerns)
    .map((b) => b.address);
  const addresses = [...new Set([...booked, ...begun])];
  if (addresses.length === 0) return released;
  const asked = { addresses, owner, tolerant: true };
  await changing(host, scanInventory(host), asked, options, async ({ work, recovered, inventory, kept, held }) => {
    released.recovered.push(
      ...recovered,
      ...kept.map((k) => warning('unfinished', `left in the journal: ${k.address}: ${k.reason}`, k.address)),
    );
    const mine = addresses
      .filter((a) => !held.has(a))
      .flatMap((a) => readBook(host, a) ?? [])
      .filter(concerns);
    const list = mine.map((binding) => ({ binding, device: inventory.byAddress.get(binding.address) }));
    const { devices, failures } = await releaseHolds(work, owner, list);
    released.devices.push(...devices);
    released.failures.push(...failures, ...(await bindForOthers(work, mine)));
    // What it could not end now is no start's any more: the next hostdev ends it.
    const rest = readBooks(host).books.some((b) => b.holds.some((h) => h.owner === owner));
    (rest ? markStarted : forgetStarted)(host, owner.slice('domain:'.length));
  });
  return released;
}

/**
 * What libvirt has put on its host driver although the admin is to have it on VFIO: it goes there again, past the
 * guards. What does not is drift that `status` tells.
 */
async function bindForOthers(work: Work, bindings: readonly Binding[]): Promise<Released['failures']> {
  const { host, inventory } = work;
  const failures: Released['failures'] = [];
  for (const { address } of bindings) {
    try {
      const book = readBook(host, address);
      const hold = book?.holds.find((h) => !isGuest(h));
      const device = inventory.byAddress.get(address);
      const now = hold === undefined ? null : await observe(work, address);
      if (!book || !hold || !device || now === null || !libvirtLeftIt(host, book, now)) continue;
      const plan = await planBind(work, [{ device, wanted: null }], hold.owner, new Set());
      refuse(plan.refusals);
      await executeBind(work, plan, hold);
    } catch (error) {
      failures.push({ address, error });
    }
  }
  return failures;
}

/**
 * The guests that hold devices under a name, and of which nothing is to be seen: for a release whose XML could not be
 * read.
 */
export async function endedGuests(host: Host, name: string, leftMs: number): Promise<Owner[]> {
  const bindings = readBooks(host).books.filter((b) => b.holds.some((h) => isGuest(h) && h.name === name));
  const look = await witness(host, bindings, leftMs);
  const owners = bindings.flatMap((b) =>
    b.holds.filter((h) => h.name === name && isGuest(h) && look.presence(b, h) !== 'holds').map((h) => h.owner),
  );
  return [...new Set(owners)];
}
