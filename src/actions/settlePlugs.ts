/**
 * What attach and detach left on its way when they were killed, or ran out of time: finished or undone by what the
 * guest has, as libvirt says it. Without libvirt the holders of the device tell (binding/guests.ts).
 */
import { type Binding, type Hold, isSameDevice, type Plug, readBooks } from '../binding/books.ts';
import { deviceElements } from '../domain/device/devices.ts';
import { hostdevElement } from '../domain/device/fragments.ts';
import { formatXml, LIBVIRT_LAYOUT } from '../domain/xml/write.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { whichLibvirt } from '../libvirt/connection.ts';
import type { Guest } from '../libvirt/guest.ts';
import type { Address } from '../pci/address.ts';
import type { Deadline } from '../store/locks.ts';
import type { ActionOptions } from './options.ts';
import { endHolds, markPlug, withGuest } from './plug.ts';
import { outOf } from './plugOut.ts';
import type { Mended } from './statusFix.ts';

type Pending = { binding: Binding; hold: Hold; plug: Plug };

/** Holds of devices on their way that no process is at any more. */
const pendingOf = (host: Host): Pending[] =>
  readBooks(host).books.flatMap((binding) =>
    binding.holds.flatMap((hold) => {
      const { plug } = hold;
      if (plug === undefined || host.native.processRuns(plug.by) || !isSameDevice(host, binding)) return [];
      return [{ binding, hold, plug }];
    }),
  );

/** Nothing is asked of libvirt where nothing is pending, or none is to be asked. */
export async function settlePlugs(host: Host, connect: string | null, options: ActionOptions): Promise<Mended[]> {
  const pending = pendingOf(host);
  if (pending.length === 0 || whichLibvirt(host, connect).uri === null) return [];
  const mended: Mended[] = [];
  for (const p of pending) mended.push(await settled(host, connect, options, p));
  return mended;
}

async function settled(host: Host, connect: string | null, options: ActionOptions, p: Pending): Promise<Mended> {
  const { address } = p.binding;
  const told = (is: boolean, text: string): Mended => ({
    address,
    entry: null,
    mended: is && !options.dryRun,
    would: is && options.dryRun,
    by: null,
    text: `${address} ${text}`,
  });
  try {
    return await withGuest(host, connect, p.hold.owner.slice('domain:'.length), options, async (guest, deadline) => {
      const { name, live } = guest.seen;
      const has = live?.devices.devices.some((d) => d.address === address) === true;
      if (p.plug.state === 'leaving' && has)
        return told(false, `is still in guest ${name}, which was asked to let it go; 'hostdev detach' asks it again`);
      const arrived = p.plug.state === 'attaching' && has;
      if (options.dryRun) return told(true, arrived ? `is in guest ${name}` : 'would be given back');
      if (arrived) {
        await markPlug(host, p.hold.owner, [address], null, options);
        return told(true, `is in guest ${name}`);
      }
      if (p.plug.state === 'attaching') await undo(guest, p, deadline);
      const { devices, warnings } = await endHolds(host, p.hold.owner, [address], options);
      const kept = devices.some((d) => d.outcome === 'kept');
      return told(
        !kept,
        kept ? (warnings.at(-1)?.text ?? 'is not given back') : `is not in guest ${name}, and was given back`,
      );
    });
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    return told(false, `is on its way, and what became of it is not known: ${e.message}`);
  }
}

/**
 * Out of both halves, by calls that wait for an attach that libvirt may still be at: a look alone would be too early.
 * Raises HOSTDEV_LIBVIRT for what stays.
 */
async function undo(guest: Guest, { binding, plug }: Pending, deadline: Deadline): Promise<void> {
  const { address } = binding;
  const { active, kept } = guest.seen;
  const standing = kept === null ? undefined : deviceElements(kept.domain).get(address);
  const xml = standing === undefined ? plainXml(address) : `${standing}`;
  for (const which of ['live', 'config'] as const) {
    if (which === 'live' ? !active : !plug.kept || standing === undefined) continue;
    const why = await outOf(guest, which, { address, xml }, deadline);
    if (why !== null) throw new HostdevError('HOSTDEV_LIBVIRT', why);
  }
}

const plainXml = (address: Address): string =>
  formatXml(
    hostdevElement({ address, managed: false, model: null, rom: null, boot: null, unassigned: false }),
    LIBVIRT_LAYOUT,
  );
