/** What attach and detach share: the guest and its halves, the hold while a device is on its way, and its end. */
import { ownName } from '../addon/process.ts';
import { applyBooks, type BookChange, type Hold, type Plug, readBinding } from '../binding/books.ts';
import { type Returned, releaseHolds } from '../binding/giveBack.ts';
import { witness } from '../binding/guests.ts';
import { changing, type SessionOptions } from '../binding/session.ts';
import type { Owner } from '../binding/state.ts';
import { runChange } from '../binding/transaction.ts';
import { unfit } from '../domain/device/devices.ts';
import { HostdevError } from '../errors.ts';
import { unmovedBook } from '../hook/prepare.ts';
import type { Host } from '../host/host.ts';
import { whichLibvirt } from '../libvirt/connection.ts';
import type { SeenDomain } from '../libvirt/domains.ts';
import { Guest, type Which } from '../libvirt/guest.ts';
import type { Address } from '../pci/address.ts';
import { scanInventory } from '../pci/inventory.ts';
import { Deadline } from '../store/locks.ts';
import { safe } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import type { ActionOptions } from './options.ts';

/** Of which halves a device is meant; neither said is both, where both can be. */
export type AskedHalves = { live: boolean; config: boolean };

export const ownerOf = ({ uuid }: Pick<SeenDomain, 'uuid'>): Owner => `domain:${uuid}`;

/**
 * The halves of a guest that are meant, what is kept first. Raises HOSTDEV_DOMAIN_UNFIT for a half that it does not
 * have.
 */
export function halvesOf({ name, active, persistent }: SeenDomain, asked: AskedHalves): Which[] {
  const what = `Guest ${safe(name)}`;
  if (asked.live && !active)
    throw unfit(`${what} does not run: there is no --live of it`, 'Start it, or give --config alone.');
  if (asked.config && !persistent)
    throw unfit(`${what} is transient: nothing of it is kept, and there is no --config`, 'Give --live alone.');
  const both = !asked.live && !asked.config;
  const halves: Which[] = [];
  if (persistent && (both || asked.config)) halves.push('config');
  if (active && (both || asked.live)) halves.push('live');
  return halves;
}

/** The devices that the words name. Raises HOSTDEV_USAGE for one named twice, and HOSTDEV_DEVICE_ABSENT. */
export function namedOnce(words: readonly string[], resolve: (word: string) => Address): Address[] {
  const addresses = words.map(resolve);
  const twice = addresses.find((a, i) => addresses.indexOf(a) !== i);
  if (twice !== undefined)
    throw new HostdevError('HOSTDEV_USAGE', `${twice} is named twice`, { hint: 'Name each device once.' });
  return addresses;
}

/** Runs `body` with the guest, until the deadline of the options. Raises as {@link Guest.open}. */
export async function withGuest<T>(
  host: Host,
  connect: string | null,
  word: string,
  { deadlineMs, dryRun }: ActionOptions,
  body: (guest: Guest, deadline: Deadline) => Promise<T>,
): Promise<T> {
  const which = whichLibvirt(host, connect);
  if (which.uri === null) throw new HostdevError('HOSTDEV_LIBVIRT_UNREACHABLE', `No libvirt is asked: ${which.why}`);
  const calls = host.native.openLibvirt?.();
  if (calls === undefined)
    throw new HostdevError('HOSTDEV_NATIVE_MISSING', 'libvirt is called by the native part, which is not in use here');
  const deadline = new Deadline(deadlineMs);
  const guest = await Guest.open(calls, which.uri, word, () => Math.max(1, deadline.left), dryRun);
  try {
    return await body(guest, deadline);
  } finally {
    guest.close();
  }
}

/**
 * Writes into a guest's holds on these devices what is being done with them, under their locks; null: nothing any more.
 * Devices of which it holds none are passed over. Raises HOSTDEV_IN_USE when another command is at one, and as
 * {@link changing}.
 */
export async function markPlug(
  host: Host,
  owner: Owner,
  addresses: readonly Address[],
  plug: Plug | null,
  options: SessionOptions,
): Promise<Warning[]> {
  return changing(host, scanInventory(host), { addresses, owner }, options, async ({ work, recovered }) => {
    refuseOthers(host, owner, addresses);
    const books = addresses.flatMap((address): BookChange[] => {
      const before = readBinding(host, address);
      if (before === null) return [];
      const holds = before.holds.map((h): Hold => {
        if (h.owner !== owner) return h;
        const { plug: _, ...rest } = h;
        return plug === null ? rest : { ...rest, plug };
      });
      return [{ address, before, after: { ...before, holds } }];
    });
    if (books.length <= 1) applyBooks(host, books, 'after');
    else await runChange(work, { kind: 'bind', owner, devices: [], books, lifted: [] });
    return recovered;
  });
}

/**
 * Holds devices that are not moved, while several of them go into or out of what a guest is kept as: a command that is
 * killed between two of them has its end then. Raises as {@link markPlug}.
 */
export async function holdUnmoved(
  host: Host,
  { uuid, name }: Pick<SeenDomain, 'uuid' | 'name'>,
  addresses: readonly Address[],
  plug: Plug,
  options: SessionOptions,
): Promise<Warning[]> {
  const owner = ownerOf({ uuid });
  return changing(host, scanInventory(host), { addresses, owner }, options, async ({ work, recovered, inventory }) => {
    refuseOthers(host, owner, addresses);
    // A hold that the guest has as it runs is not ours to end.
    const free = addresses.filter((a) => {
      const has = readBinding(host, a)?.holds.find((h) => h.owner === owner);
      return has === undefined || has.plug?.live === false;
    });
    const devices = free.flatMap((a) => inventory.byAddress.get(a) ?? []);
    const bindings = devices.map((device) => ({ device, binding: readBinding(host, device.address) }));
    const look = await witness(
      host,
      bindings.flatMap((b) => b.binding ?? []),
      work.deadline.left,
    );
    const hold: Hold = { owner, name, managed: true, libvirt: null, plug };
    const books: BookChange[] = [];
    for (const { device, binding } of bindings) books.push(await unmovedBook(work, look, device, binding, hold));
    if (books.length > 0) await runChange(work, { kind: 'bind', owner, devices: [], books, lifted: [] });
    return recovered;
  });
}

/** For a change that ends the work: neither libvirt's time nor an interrupt may cut it off. */
export function endOptions({ signal: _, ...options }: ActionOptions, deadline: Deadline): ActionOptions {
  return { ...options, deadlineMs: Math.max(deadline.left, END_MS) };
}

const END_MS = 10_000;

/** Raises HOSTDEV_IN_USE when another process attaches or detaches one of the devices for this guest. */
export function refuseOthers(host: Host, owner: Owner, addresses: readonly Address[]): void {
  for (const address of addresses) {
    const plug = readBinding(host, address)?.holds.find((h) => h.owner === owner)?.plug;
    if (plug === undefined || plug.by === ownName() || !host.native.processRuns(plug.by)) continue;
    const verb = plug.state === 'attaching' ? 'attaching' : 'detaching';
    throw new HostdevError('HOSTDEV_IN_USE', `${address}: process ${plug.by.split(':')[0]} is ${verb} it`, {
      hint: 'Wait for that command to end.',
    });
  }
}

/**
 * Ends a guest's holds on devices that it does not have any more, and gives back what nobody else holds: those that
 * the process `by` plugs. One that the guest's prepare has made anew meanwhile is of its next start. What could not be
 * given back is a warning: it stays in the books, and `status` says why.
 */
export async function endHolds(
  host: Host,
  owner: Owner,
  addresses: readonly Address[],
  options: SessionOptions,
  by = ownName(),
): Promise<{ devices: Returned[]; warnings: Warning[] }> {
  const asked = { addresses, owner, tolerant: true };
  return changing(host, scanInventory(host), asked, options, async ({ work, recovered, inventory, held }) => {
    const list = addresses
      .filter((a) => !held.has(a))
      .flatMap((a) => readBinding(host, a) ?? [])
      .filter((b) => b.holds.some((h) => h.owner === owner && h.plug?.by === by))
      .map((binding) => ({ binding, device: inventory.byAddress.get(binding.address) }));
    const { devices, failures } = await releaseHolds(work, owner, list);
    const told = [
      ...devices.flatMap((d) => (d.outcome === 'kept' ? [{ address: d.address, why: d.reason ?? d.outcome }] : [])),
      ...failures.map((f) => ({ address: f.address, why: (f.error as Error).message })),
    ];
    return {
      devices,
      warnings: [
        ...recovered,
        ...told.map((t) => warning('stale-hold', `${t.address} is not given back: ${t.why}`, t.address)),
      ],
    };
  });
}
