/** `claim -n`: which devices a request would get now. Nothing is kept yet. */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { allocatorOf, mostOf } from '../nova/allocation.ts';
import { NovaError } from '../nova/grammar/novaError.ts';
import { type PciRequest, resolveRequest } from '../nova/grammar/request.ts';
import { strictBool } from '../nova/grammar/values.ts';
import { type Held, type HostPools, hostPools } from '../nova/hostPools.ts';
import { type PciSetup, type SetupOptions, usableSetup } from '../nova/setup.ts';
import { ANYWHERE, type GuestPlace } from '../pool/filters.ts';
import type { PciTracker } from '../pool/tracker.ts';
import { warning } from '../text/warning.ts';
import { type DeviceGuests, NOT_ASKED, othersOf } from './inGuest.ts';
import type { Warned } from './options.ts';
import { whoHas } from './whoHas.ts';

export type ClaimWish = {
  /** "gpu:1, qat-c62x-vf:2" */
  request: string;
  place: GuestPlace;
  /** hw:pci_numa_affinity_policy: goes before the aliases' own. */
  policy: string | null;
  /** group_policy=isolate: each device from another provider; only where Placement allocates. */
  isolate: boolean;
  spread: boolean;
  /** What the nodes of `place` are, where the request does not name them. */
  placeOf?: string;
};

type ClaimedDevice = {
  address: string;
  vendor_id: string | null;
  product_id: string | null;
  dev_type: string;
  numa_node: number | null;
  /** The resource provider that Placement took it from; null where Placement was not asked. */
  provider: string | null;
  /** The tag `managed` of its device_spec; null is none, which counts as true. */
  managed: boolean | null;
};

export type ClaimAnswer = Warned & {
  changed: false;
  /** Whether libvirt said who has what. */
  guests_asked: boolean;
  requests: { alias_name: string | null; count: number; numa_policy: string; devices: ClaimedDevice[] }[];
};

/**
 * Raises HOSTDEV_REQUEST, HOSTDEV_ALIAS_ABSENT, HOSTDEV_NO_CAPACITY, and what {@link usableSetup} and hostPools raise.
 */
export async function tryClaim(
  host: Host,
  options: SetupOptions,
  wish: ClaimWish,
  connect: string | null,
): Promise<ClaimAnswer> {
  const setup = await usableSetup(host, options);
  const isHere = options.inventory === null;
  return claimFrom(setup, isHere ? host : null, wish, isHere ? await whoHas(host, connect) : NOT_ASKED, []);
}

/**
 * The same from a setup that was read; `host` null: its devices are those of a saved inventory. `own` is what
 * libvirt says; `held` is not offered either, nor what it excludes.
 */
export async function claimFrom(
  setup: PciSetup & Warned,
  host: Host | null,
  wish: ClaimWish,
  own: DeviceGuests,
  held: readonly Held[],
): Promise<ClaimAnswer> {
  const { requests, notes } = resolveRequest(wish.request, setup.aliases, wish.policy);
  const others = othersOf(own);
  const pools = await hostPools(setup, host, { ...others, held: [...others.held, ...held] });
  const allocator = allocatorOf(setup, pools.free(), wish.isolate);
  let byRequest: string[][];
  try {
    byRequest = allocator.claim(requests, { place: wish.place, spread: wish.spread });
  } catch (e) {
    if (!(e instanceof NovaError) || e.novaClass !== 'PciDeviceRequestFailed') throw e;
    throw noCapacity(setup, pools, requests, wish, e);
  }
  const known = setup.inventory.byAddress;
  const tags = new Map(pools.offered.devices().map((d) => [d.device.address, d.tags]));
  return {
    changed: false,
    guests_asked: own.asked,
    requests: requests.map((r, n) => ({
      alias_name: r.alias_name,
      count: r.count,
      numa_policy: r.numa_policy ?? 'legacy',
      devices: (byRequest[n] ?? []).map((address) => {
        const {
          vendor_id = null,
          product_id = null,
          dev_type = 'type-PCI',
          numa_node = null,
        } = known.get(address) ?? {};
        const provider = allocator.providerOf(address);
        const managed = strictBool(tags.get(address)?.managed ?? null);
        return { address, vendor_id, product_id, dev_type, numa_node, provider, managed };
      }),
    })),
    warnings: [
      ...setup.warnings,
      ...pools.warnings,
      ...own.warnings,
      ...notes.map((n) => warning('nova', n.text)),
      ...wishNotes(setup, requests, wish).map((text) => warning('nova', text)),
    ],
  };
}

/** The refusal, with how many devices each alias alone could have, wherever the guest is. */
function noCapacity(
  setup: PciSetup,
  { offered, free, notFree }: HostPools,
  requests: readonly PciRequest[],
  wish: ClaimWish,
  cause: NovaError,
): HostdevError {
  const [all, now] = [offered, free()].map((tracker) => {
    const allocator = allocatorOf(setup, tracker, false);
    return requests.map((r) => mostOf(allocator, r, tracker.devices().length));
  });
  const rows = requests.map((r, n) => ({
    alias_name: r.alias_name,
    wanted: r.count,
    offered: all?.[n] ?? 0,
    free: now?.[n] ?? 0,
  }));
  const numbers = rows.map((r) => `${r.alias_name ?? 'a port'}: ${r.wanted} wanted, ${r.free} free of ${r.offered}`);
  const fits = (isolate: boolean, place: GuestPlace): boolean =>
    allocatorOf(setup, free(), isolate).supports(requests, { place });
  const isEnough = rows.every((r) => r.free >= r.wanted);
  const hint = !isEnough
    ? rows.some((r) => r.free < r.offered)
      ? `${keptBack(offered, notFree)}. 'hostdev pool list' shows all.`
      : "'hostdev config check' shows what each device_spec takes."
    : wish.isolate && fits(false, wish.place)
      ? 'There are enough, but not each on another provider, as --group-policy isolate asks.'
      : fits(wish.isolate, ANYWHERE)
        ? `There are enough, but not on ${wish.placeOf ?? 'these NUMA nodes'}: see 'hostdev pool list', or give --policy preferred.`
        : 'There are enough for each alone, but not for all together: a PF excludes its VFs, and aliases may share devices.';
  return new HostdevError('HOSTDEV_NO_CAPACITY', `The devices are not all free (${some(numbers, '; ')})`, {
    hint,
    data: { requests: rows },
    cause,
  });
}

/** How many devices or requests an error names. */
const MAX_NAMED = 4;

function keptBack(offered: PciTracker, notFree: HostPools['notFree']): string {
  const kept = offered.devices().flatMap(({ device: { address } }) => {
    const why = notFree.get(address);
    return why === undefined ? [] : [`${address} (${why.reason})`];
  });
  return `Not free: ${some(kept, ', ')}`;
}

const some = (list: readonly string[], between: string): string =>
  `${list.slice(0, MAX_NAMED).join(between)}${list.length > MAX_NAMED ? ` and ${list.length - MAX_NAMED} more` : ''}`;

function wishNotes(setup: PciSetup, requests: readonly PciRequest[], wish: ClaimWish): string[] {
  const { pci_in_placement: inPlacement } = setup.config.pci;
  const notes: string[] = [];
  const inert = requests.filter((r) => r.spec.some((s) => 'resource_class' in s || 'traits' in s));
  if (!inPlacement && inert.length > 0)
    notes.push(
      `resource_class and traits of ${inert.map((r) => r.alias_name).join(', ')} count only with pci_in_placement, as in Nova`,
    );
  if (!inPlacement && wish.isolate) notes.push('group policy isolate counts only with pci_in_placement, as in Nova');
  const policies = new Set(requests.map((r) => r.numa_policy));
  const { numaCells, hostCells } = wish.place;
  if (policies.has('socket') && numaCells.length > 0 && hostCells.length === 0)
    notes.push(
      'the sockets of NUMA nodes are not known, so that the policy socket finds only devices on the nodes themselves: give --sockets',
    );
  if (numaCells.length === 0 && policies.has('required'))
    notes.push('without --numa the policy required asks nothing, as in Nova');
  return notes;
}
