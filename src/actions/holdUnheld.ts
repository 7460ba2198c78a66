/**
 * What `status --fix` does for a device that a guest has and no hook of ours saw: it notes the guest's hold, as prepare
 * would have. Nothing is moved; what the device is on stays when the guest lets it go, since it was so before.
 */
import { bookNow } from '../binding/access.ts';
import { held } from '../binding/bind.ts';
import { applyBooks, type Hold, isSameDevice, newBinding, readBooks } from '../binding/books.ts';
import { lockDevices } from '../binding/groupLocks.ts';
import { markStarted, withTold, witness } from '../binding/guests.ts';
import { observe } from '../binding/observe.ts';
import type { Work } from '../binding/perform.ts';
import { observing, working } from '../binding/session.ts';
import type { Host } from '../host/host.ts';
import { scanInventory } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { type DeviceGuests, toldBy } from './inGuest.ts';
import type { ActionOptions } from './options.ts';
import { type Unheld, unheldNow } from './status.ts';
import type { Mended } from './statusFix.ts';

/** Each for itself. In a dry run only says what it would do. Raises what concerns all of it. */
export async function holdUnheld(host: Host, own: DeviceGuests, options: ActionOptions): Promise<Mended[]> {
  const unheld = unheldNow(host, own, readBooks(host).books).filter((u) => u.drift);
  if (unheld.length === 0) return [];
  const inventory = scanInventory(host);
  const session = options.dryRun
    ? <T>(body: (work: Work) => Promise<T>) => observing(host, options, (work) => body({ ...work, inventory }))
    : <T>(body: (work: Work) => Promise<T>) => working(host, options, inventory, body);
  return session(async (work) => {
    const mended: Mended[] = [];
    for (const u of unheld) {
      const answer = { address: u.address, entry: null, mended: false, would: false, by: null };
      try {
        const why = await hold(work, u, own, options.dryRun);
        const text = `${u.address} is ${u.guest.name}'s, and ${options.dryRun ? 'would be' : 'is'} in the books as that`;
        mended.push(
          why === null
            ? { ...answer, mended: !options.dryRun, would: options.dryRun, text }
            : { ...answer, text: `${u.address} is not noted for ${u.guest.name}: ${why}` },
        );
      } catch (e) {
        mended.push({ ...answer, text: `${u.address} could not be noted: ${(e as Error).message}` });
      }
    }
    return mended;
  });
}

/** Null: it is noted, or would be; else why not. */
async function hold(
  work: Work,
  { address, guest }: Unheld,
  own: DeviceGuests,
  dryRun: boolean,
): Promise<string | null> {
  const { host } = work;
  const locked = dryRun ? null : await lockDevices(work, [address], () => scanInventory(host));
  try {
    if ((locked?.entries.length ?? 0) > 0) return 'an unfinished change of it comes first';
    const device = (locked?.inventory ?? work.inventory).byAddress.get(address);
    const now = await observe(work, address);
    if (device === undefined || now === null) return 'it went away';
    if (!isVfioDriver(host, address, now.driver))
      return `it is on ${now.driver ?? 'no driver'}, which is no VFIO driver`;
    const book = bookNow(work, address);
    const b = book !== null && isSameDevice(host, book) ? book : null;
    const state = { driver: now.driver, override: now.override };
    const mine: Hold = { owner: `domain:${guest.uuid}`, name: guest.name, managed: false, libvirt: null };
    const fresh = newBinding(host, address, device.iommu_group, mine, state, state);
    const look = withTold(await witness(host, [b ?? fresh], work.deadline.left, true), toldBy(own));
    // What libvirt said is of a moment ago; a process that has it is of now.
    if (look.holders(b ?? fresh).length === 0) return 'no process has it';
    if (dryRun) return null;
    markStarted(host, guest.uuid);
    applyBooks(host, [{ address, before: b, after: b === null ? fresh : held(host, look, b, mine) }], 'after');
    return null;
  } finally {
    locked?.unlock();
  }
}
