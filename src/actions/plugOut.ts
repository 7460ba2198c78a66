/** A device out of one half of a guest, and the wait until that has happened. */

import { now, sleep } from '../clock.ts';
import { pluggedElements } from '../domain/device/plugged.ts';
import type { Guest, Which } from '../libvirt/guest.ts';
import type { Address } from '../pci/address.ts';
import type { Deadline, Stop } from '../store/locks.ts';

/** A guest that has just been given a device says that it is busy for some seconds. */
const AGAIN_MS = 1000;
const LOOK_MS = 100;

/**
 * Asks until the half is without the device, or until the deadline: libvirt's own "done" means that the guest was
 * asked, and QEMU says "busy" while an earlier request is under way. Null when it is out, else why it is not known to
 * be, and whether it was `refused`: otherwise it may still go. With `stop` nobody waits any longer.
 */
export async function outOf(
  guest: Guest,
  which: Which,
  { address, xml }: { address: Address; xml: string },
  deadline: Deadline,
  stop: Stop = { aborted: false },
): Promise<{ why: string; refused: boolean } | null> {
  let why = 'the guest has not let it go';
  for (;;) {
    const fault = await guest.detach(which, xml);
    const again = fault === null || fault.lost || fault.busy;
    if (fault !== null) why = fault.error.message;
    try {
      if (await waitGone(guest, which, address, again ? deadline.left : 0, again ? AGAIN_MS : 0)) return null;
    } catch (e) {
      return { why: (e as Error).message, refused: !again };
    }
    if (!again || deadline.left === 0 || stop.aborted) return { why, refused: !again };
  }
}

/** Looks until the half is without the device; false when it has it still after `ms`, or at the end of the time. */
async function waitGone(guest: Guest, which: Which, address: Address, leftMs: number, ms: number): Promise<boolean> {
  const end = now() + Math.min(ms, leftMs);
  for (;;) {
    const half = await guest.half(which);
    if (half === null || !pluggedElements(half.domain).has(address)) return true;
    if (now() >= end) return false;
    await sleep(LOOK_MS);
  }
}
