/**
 * The kernel's console on a function: a serial card, a BMC's serial over LAN, an adapter behind a USB controller, a
 * virtio console. Where a machine has no other, it is the way in.
 */
import { orNull } from '../../errors.ts';
import type { Look } from '../../host/look.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import { safe } from '../../text/safe.ts';
import type { Use } from '../guards.ts';

/**
 * Consoles that the kernel writes to now, "ttyS4": sys/class/tty/console/active (drivers/tty/tty_io.c), and where that
 * is not there the first word of each line of proc/consoles.
 */
function activeConsoles(look: Look): string[] {
  const { host } = look;
  const active = look.attribute(host.activeConsoles);
  const names =
    active === null ? look.mayLines(host.consoles).map((l) => l.split(/\s/, 1)[0] ?? '') : active.trim().split(/\s+/);
  return names.filter((n) => /^[A-Za-z]{1,16}\d{1,5}$/.test(n));
}

export function consoleUses(look: Look, { address }: Pick<PciDevice, 'address'>): Use[] {
  const { host } = look;
  const names = activeConsoles(look);
  // Its path names every function that it is below; a terminal of no device of its own is below `virtual`.
  const own = names.filter((n) => orNull(() => host.link(host.classLink('tty', n)))?.includes(`/${address}/`));
  const hypervisor = names.filter((n) => /^hvc\d+$/.test(n));
  const isVirtio = (): boolean =>
    look
      .names(host.device(address))
      .some(
        (n) =>
          /^virtio\d+$/.test(n) &&
          orNull(() => host.linkName(host.device(address, `${n}/driver`))) === 'virtio_console',
      );
  if (hypervisor.length > 0 && isVirtio()) own.push(...hypervisor);
  return own.map((n) => ({ guard: 'console', reason: `the kernel's console ${safe(n)} is on it`, vital: true }));
}
