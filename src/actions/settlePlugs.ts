/**
 * What attach and detach left on its way when they were killed, or ran out of time: finished or undone by what the
 * guest has, as libvirt says it. Without libvirt the holders of the device tell (binding/guests.ts).
 */

import { type Binding, type Hold, isSameDevice, type Plug, readBooks } from '../binding/books.ts';
import { namedBy, readJournal } from '../binding/journal.ts';
import { hostdevElement } from '../domain/device/fragments.ts';
import { pluggedElements } from '../domain/device/plugged.ts';
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

/**
 * Holds of devices on their way that no process is at any more, and that no unfinished transaction names: how many of
 * one command's there are is known only when that is finished.
 */
function pendingOf(host: Host): Pending[] {
  const unfinished = new Set(readJournal(host).entries.flatMap((e) => [...namedBy(e)]));
  return readBooks(host).books.flatMap((binding) =>
    binding.holds.flatMap((hold) => {
      const { plug } = hold;
      const isOpen = unfinished.has(binding.address) || !isSameDevice(host, binding);
      return plug === undefined || isOpen || host.native.processRuns(plug.by) ? [] : [{ binding, hold, plug }];
    }),
  );
}

/** Nothing is asked of libvirt where nothing is pending, or none is to be asked. */
export async function settlePlugs(host: Host, connect: string | null, options: ActionOptions): Promise<Mended[]> {
  const pending = pendingOf(host);
  if (pending.length === 0 || whichLibvirt(host, connect).uri === null) return [];
  const mended: Mended[] = [];
  // What one command was at for one guest is whole, or not at all.
  const commands = new Map<string, Pending[]>();
  for (const p of pending) {
    const command = `${p.hold.owner} ${p.plug.by}`;
    commands.set(command, [...(commands.get(command) ?? []), p]);
  }
  for (const [first, ...rest] of commands.values())
    if (first !== undefined) mended.push(...(await settled(host, connect, options, [first, ...rest])));
  return mended;
}

/** What of one command's devices has become of them. */
async function settled(
  host: Host,
  connect: string | null,
  options: ActionOptions,
  list: [Pending, ...Pending[]],
): Promise<Mended[]> {
  const told = ({ binding: { address } }: Pending, is: boolean, text: string): Mended => ({
    address,
    entry: null,
    mended: is && !options.dryRun,
    would: is && options.dryRun,
    by: null,
    text: `${address} ${text}`,
  });
  const [{ hold, plug }] = list;
  const { owner } = hold;
  try {
    return await withGuest(host, connect, owner.slice('domain:'.length), options, async (guest, deadline) => {
      const { name, live, kept } = guest.seen;
      const isIn = (half: typeof live, p: Pending): boolean =>
        half?.devices.devices.some((d) => d.address === p.binding.address) === true;
      const arrived = list.every(
        (p) => p.plug.state === 'attaching' && (!p.plug.live || isIn(live, p)) && (!p.plug.kept || isIn(kept, p)),
      );
      const stay = list.filter((p) => p.plug.state === 'leaving' && p.plug.live && isIn(live, p));
      const mine = list.filter((p) => arrived && p.plug.live);
      const go = list.filter((p) => !mine.includes(p) && !stay.includes(p));
      const answers = [
        ...stay.map((p) => told(p, false, `is still in guest ${name}, which was asked to let it go`)),
        ...mine.map((p) => told(p, true, `is in guest ${name}`)),
      ];
      if (options.dryRun) return [...answers, ...go.map((p) => told(p, true, 'would be given back'))];
      if (mine.length > 0)
        await markPlug(
          host,
          owner,
          mine.map((p) => p.binding.address),
          null,
          options,
        );
      for (const p of [...stay, ...go]) {
        if (p.plug.state === 'attaching') {
          if (!arrived) await undo(guest, p, deadline);
        } else await outOfKept(guest, p, deadline);
      }
      const addresses = go.map((p) => p.binding.address);
      const { devices } = go.length === 0 ? { devices: [] } : await endHolds(host, owner, addresses, options, plug.by);
      const back = (p: Pending): Mended => {
        const d = devices.find((o) => o.address === p.binding.address);
        return d?.outcome === 'kept'
          ? told(p, false, `is not given back: ${d.reason}`)
          : told(p, true, `is not on its way to guest ${name} any more`);
      };
      return [...answers, ...go.map(back)];
    });
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    const why = e.message;
    return list.map((p) => told(p, false, `is on its way, and what became of it is not known: ${why}`));
  }
}

/** Out of what the guest is kept as, where the command that is gone was to do that too. */
async function outOfKept(guest: Guest, { binding, plug }: Pending, deadline: Deadline): Promise<void> {
  const { kept } = guest.seen;
  const standing = kept === null ? undefined : pluggedElements(kept.domain).get(binding.address);
  if (!plug.kept || standing === undefined) return;
  const left = await outOf(guest, 'config', { address: binding.address, xml: `${standing}` }, deadline);
  if (left !== null) throw new HostdevError('HOSTDEV_LIBVIRT', left.why);
}

/**
 * Out of both halves, by calls that wait for an attach that libvirt may still be at: a look alone would be too early.
 * Raises HOSTDEV_LIBVIRT for what stays.
 */
async function undo(guest: Guest, pending: Pending, deadline: Deadline): Promise<void> {
  const { address } = pending.binding;
  const { active, kept } = guest.seen;
  const standing = kept === null ? undefined : pluggedElements(kept.domain).get(address);
  if (active) {
    const xml = standing === undefined ? plainXml(address) : `${standing}`;
    const left = await outOf(guest, 'live', { address, xml }, deadline);
    if (left !== null) throw new HostdevError('HOSTDEV_LIBVIRT', left.why);
  }
  await outOfKept(guest, pending, deadline);
}

const plainXml = (address: Address): string =>
  formatXml(
    hostdevElement({ address, managed: false, model: null, rom: null, boot: null, unassigned: false }),
    LIBVIRT_LAYOUT,
  );
