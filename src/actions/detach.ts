/**
 * `detach`: devices out of a guest, of what it is kept as and of the one that runs. libvirt says "detached" while the
 * device is still there, so it is given back only when the guest's XML is without it. What a guest does not let go in
 * time is `leaving`: the next hostdev gives it back once the guest has.
 */

import { ownName } from '../addon/process.ts';
import { plugOf, readBinding } from '../binding/books.ts';
import { pluggedElements } from '../domain/device/plugged.ts';
import type { Domain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Guest, Which } from '../libvirt/guest.ts';
import { type Address, canonicalAddress } from '../pci/address.ts';
import { scanInventory } from '../pci/inventory.ts';
import { resolveDevice } from '../pci/resolve.ts';
import type { Deadline } from '../store/locks.ts';
import { safe } from '../text/safe.ts';
import type { Warning } from '../text/warning.ts';
import type { ActionOptions, Warned } from './options.ts';
import {
  type AskedHalves,
  endHolds,
  endOptions,
  halvesOf,
  holdUnmoved,
  markPlug,
  namedOnce,
  ownerOf,
  refuseOthers,
  withGuest,
} from './plug.ts';
import { outOf } from './plugOut.ts';

export type DetachRequest = AskedHalves & { guest: string; words: readonly string[]; connect: string | null };

/** `absent`: it was not in there; null: that half is not meant. */
type Outcome = 'detached' | 'absent' | null;

export type DetachedDevice = {
  address: Address;
  live: Outcome;
  config: Outcome;
  /** What it is on now, of a dry run what it would be on: null is no driver, or not to be told. */
  driver: string | null;
  given_back: boolean;
};

export type Detached = Warned & {
  changed: boolean;
  guest: { name: string; uuid: string };
  devices: DetachedDevice[];
};

type Part = { address: Address; xml: string };

/**
 * Raises HOSTDEV_GUEST_ABSENT, HOSTDEV_DEVICE_ABSENT for a device that no half that is meant has, HOSTDEV_LIBVIRT for
 * what libvirt refuses and HOSTDEV_INTERRUPTED before the guest was asked (then both halves are as they were, or
 * HOSTDEV_UNDO_INCOMPLETE), HOSTDEV_PLUG_PENDING past the deadline, or interrupted while the guest has been asked.
 */
export const detachDevices = (host: Host, request: DetachRequest, options: ActionOptions): Promise<Detached> =>
  withGuest(host, request.connect, request.guest, options, async (guest, deadline) => {
    const { seen } = guest;
    const inventory = scanInventory(host);
    // One that is gone from the host is still the guest's to lose.
    const addressOf = (w: string): Address => canonicalAddress(w) ?? resolveDevice(host, inventory, w).address;
    const addresses = namedOnce(request.words, addressOf);
    refuseOthers(host, ownerOf(seen), addresses);
    const parts = new Map<Which, Part[]>();
    for (const which of halvesOf(seen, request)) {
      const half = which === 'live' ? seen.live : seen.kept;
      parts.set(which, half === null ? [] : partsOf(half.domain, addresses));
    }
    const nowhere = addresses.find((a) => ![...parts.values()].some((p) => p.some((d) => d.address === a)));
    if (nowhere !== undefined)
      throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `Guest ${safe(seen.name)} does not have ${nowhere}`, {
        hint: `See 'hostdev guest show ${safe(seen.name)}'.`,
      });
    const outcome = (which: Which, a: Address): Outcome =>
      !parts.has(which) ? null : parts.get(which)?.some((d) => d.address === a) ? 'detached' : 'absent';
    const live = parts.get('live') ?? [];
    const config = parts.get('config') ?? [];
    const warnings: Warning[] = [];
    const back = options.dryRun
      ? new Set<Address>()
      : await take(host, guest, deadline, { live, config }, options, warnings);
    return {
      changed: !options.dryRun,
      guest: { name: seen.name, uuid: seen.uuid },
      devices: addresses.map((address) => ({
        address,
        live: outcome('live', address),
        config: outcome('config', address),
        driver: options.dryRun
          ? (readBinding(host, address)?.before.driver ?? null)
          : host.linkName(host.device(address, 'driver')),
        given_back: outcome('live', address) === 'detached' && back.has(address),
      })),
      warnings,
    };
  });

/** The elements as they stand in the guest: libvirt finds by them what is meant (MAC, source, alias). */
const partsOf = (domain: Domain, addresses: readonly Address[]): Part[] => {
  const elements = pluggedElements(domain);
  return addresses.flatMap((address) => {
    const element = elements.get(address);
    return element === undefined ? [] : [{ address, xml: `${element}` }];
  });
};

/** Carries it out; what was given back. */
async function take(
  host: Host,
  guest: Guest,
  deadline: Deadline,
  { live, config }: { live: Part[]; config: Part[] },
  options: ActionOptions,
  warnings: Warning[],
): Promise<ReadonlySet<Address>> {
  const owner = ownerOf(guest.seen);
  const { signal } = options;
  const session = endOptions(options, deadline);
  const plug = plugOf('leaving', ownName(), { live: live.length > 0, kept: config.length > 0 });
  const leaving = live.map((p) => p.address);
  if (leaving.length > 0) warnings.push(...(await markPlug(host, owner, leaving, plug, session)));
  const only = config.map((p) => p.address).filter((a) => !leaving.includes(a));
  if (only.length > 1) warnings.push(...(await holdUnmoved(host, guest.seen, only, plug, session)));
  const addresses = only.length > 1 ? [...leaving, ...only] : leaving;
  const done: Part[] = [];
  const out = new Set<Address>();
  const oneOut = async (which: Which, part: Part): Promise<void> => {
    if (signal?.aborted) throw interrupted(part, out);
    const stays = await outOf(guest, which, part, deadline, which === 'live' ? signal : undefined);
    if (stays === null) return;
    throw stays.refused
      ? new HostdevError('HOSTDEV_LIBVIRT', `${part.address}: ${stays.why}`)
      : pending(which, part, stays.why);
  };
  try {
    for (const part of config) {
      await oneOut('config', part);
      done.push(part);
    }
    for (const part of live) {
      await oneOut('live', part);
      out.add(part.address);
    }
  } catch (e) {
    const isPending = e instanceof HostdevError && e.code === 'HOSTDEV_PLUG_PENDING';
    if (out.size > 0) await endHolds(host, owner, [...out], session);
    if (isPending) throw e;
    // Nothing has left the running guest: what it is kept as goes back too, and the hold is as it was.
    const rest = leaving.filter((a) => !out.has(a));
    const lost: string[] = [];
    for (const part of done.filter((p) => !out.has(p.address))) {
      const fault = await guest.attach('config', part.xml);
      if (fault !== null) lost.push(`${part.address}: ${fault.error.message}`);
    }
    if (rest.length > 0) await markPlug(host, owner, rest, null, session);
    if (only.length > 1) await endHolds(host, owner, only, session);
    if (lost.length > 0) throw undoIncomplete(e, lost);
    throw e;
  }
  const { devices, warnings: told } = await endHolds(host, owner, addresses, session);
  warnings.push(...told);
  return new Set(devices.filter((d) => d.outcome === 'given-back' || d.outcome === 'already').map((d) => d.address));
}

const pending = (which: Which, { address }: Part, why: string): HostdevError =>
  which === 'live'
    ? new HostdevError('HOSTDEV_PLUG_PENDING', `${address}: the running guest was asked, and has it still: ${why}`, {
        hint: "It is given back once the guest lets it go: by 'hostdev status --fix', or the next change of it.",
      })
    : new HostdevError(
        'HOSTDEV_PLUG_PENDING',
        `${address}: whether the guest's next start has it is not known: ${why}`,
        {
          hint: "See 'hostdev guest show'; the same command again takes it out.",
        },
      );

const interrupted = ({ address }: Part, out: ReadonlySet<Address>): HostdevError =>
  new HostdevError(
    'HOSTDEV_INTERRUPTED',
    `Interrupted before ${address} was taken out; ${out.size === 0 ? 'all was put back' : `out: ${[...out].join(', ')}`}`,
  );

const undoIncomplete = (first: unknown, lost: readonly string[]): HostdevError =>
  new HostdevError(
    'HOSTDEV_UNDO_INCOMPLETE',
    `${(first as Error).message}; and not put back into what the guest is kept as: ${lost.join('; ')}`,
    { cause: first, hint: "'hostdev attach --config' puts it in again." },
  );
