/** `claim -n`: which devices a request would get now. Nothing is kept yet. */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { Ledger } from '../placement/ledger.ts';
import type { GuestPlace, ProviderUnits } from '../pool/filters.ts';
import type { ClaimOptions, PciTracker } from '../pool/tracker.ts';
import { NovaError } from '../spec/novaError.ts';
import { type PciRequest, resolveRequest } from '../spec/request.ts';
import { type HostPools, hostPools, viewOptions } from './hostPools.ts';
import type { Warned } from './options.ts';
import { type PciSetup, type SetupOptions, usableSetup } from './pciSetup.ts';

export type ClaimWish = {
  /** "gpu:1, qat-c62x-vf:2" */
  request: string;
  place: GuestPlace;
  /** hw:pci_numa_affinity_policy: goes before the aliases' own. */
  policy: string | null;
  /** group_policy=isolate: each device from another provider; only where Placement allocates. */
  isolate: boolean;
  spread: boolean;
};

export type ClaimedDevice = {
  address: string;
  vendor_id: string | null;
  product_id: string | null;
  dev_type: string;
  numa_node: number | null;
  /** The resource provider that Placement took it from; null where Placement was not asked. */
  provider: string | null;
};

export type ClaimAnswer = Warned & {
  changed: false;
  requests: { alias_name: string | null; count: number; numa_policy: string; devices: ClaimedDevice[] }[];
};

/** The name of a claim that is only tried. */
const NOBODY = 'claim -n';

/** Raises HOSTDEV_REQUEST, HOSTDEV_ALIAS_ABSENT, HOSTDEV_NO_CAPACITY, and what {@link usableSetup} and hostPools raise. */
export async function tryClaim(host: Host, options: SetupOptions, wish: ClaimWish): Promise<ClaimAnswer> {
  const setup = await usableSetup(host, options);
  const { requests, notes } = resolveRequest(wish.request, setup.aliases, wish.policy);
  const pools = await hostPools(setup, options.inventory === null ? host : null);
  const { byRequest, providerOf } = take(setup, pools, requests, wish);
  const known = setup.inventory.byAddress;
  return {
    changed: false,
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
        return { address, vendor_id, product_id, dev_type, numa_node, provider: providerOf(address) };
      }),
    })),
    warnings: [
      ...setup.warnings,
      ...pools.warnings,
      ...notes.map((n) => n.text),
      ...wishWarnings(setup, requests, wish),
    ],
  };
}

type Taken = { byRequest: string[][]; providerOf: (address: string) => string | null };

function take(setup: PciSetup, pools: HostPools, requests: readonly PciRequest[], wish: ClaimWish): Taken {
  const base: ClaimOptions = { place: wish.place, spread: wish.spread };
  if (!setup.config.pci.pci_in_placement) {
    const { byRequest } = claimOrSay(pools, requests, () => pools.free.claim(NOBODY, requests, base));
    return { byRequest, providerOf: () => null };
  }
  const ledger = new Ledger(viewOptions(setup));
  const tracker = pools.free;
  ledger.report(
    setup.specs.map((s) => s.value),
    tracker.devices(),
  );
  tracker.assignProviders((d) => ledger.providerOf(d));
  const names = new Map(tracker.devices().map((d) => [d.device.address, ledger.providerOf(d)]));
  const byRequest = claimOrSay(pools, requests, () => {
    const units = firstThatFits(tracker, ledger, requests, base, wish.isolate);
    return tracker.claim(NOBODY, requests, { ...base, units });
  }).byRequest;
  return { byRequest, providerOf: (address) => names.get(address) ?? null };
}

/** Placement offers candidates, the pools decide which of them they can serve. */
function firstThatFits(
  tracker: PciTracker,
  ledger: Ledger,
  requests: readonly PciRequest[],
  base: ClaimOptions,
  isolate: boolean,
): ProviderUnits[] {
  for (const candidate of ledger.candidates(requests, isolate))
    if (tracker.isSupported(requests, { ...base, units: candidate })) return candidate;
  throw new NovaError('PciDeviceRequestFailed', 'Placement has no providers that serve all of it');
}

/** The refusal with the numbers of each alias in it. */
function claimOrSay<T>({ offered, free, notFree }: HostPools, requests: readonly PciRequest[], claim: () => T): T {
  try {
    return claim();
  } catch (e) {
    if (!(e instanceof NovaError) || e.novaClass !== 'PciDeviceRequestFailed') throw e;
    const count = (tracker: PciTracker, r: PciRequest): number => most(tracker, r);
    const rows = requests.map((r) => {
      const all = count(offered, r);
      return { alias_name: r.alias_name, wanted: r.count, offered: all, free: Math.min(all, count(free, r)) };
    });
    const short = rows
      .map((r) => `${r.alias_name ?? 'a port'}: ${r.wanted} wanted, ${r.free} free of ${r.offered}`)
      .join('; ');
    const held = rows.some((r) => r.free < r.offered);
    const enough = rows.every((r) => r.free >= r.wanted);
    const alone = requests.length === 1;
    const hint =
      enough && alone
        ? "NUMA nodes, --policy or the provider's share keep it from them: 'hostdev pool list' shows where they are."
        : enough
          ? 'Each alone would do: NUMA nodes, a PF that excludes its VFs, or two aliases for the same devices keep them from it together.'
          : held
            ? `${notFree.size} devices are not free: 'hostdev pool list' says why.`
            : "'hostdev config check' shows what each device_spec takes.";
    throw new HostdevError('HOSTDEV_NO_CAPACITY', `The devices are not all free (${short})`, {
      hint,
      data: { requests: rows },
      cause: e,
    });
  }
}

/** How many devices a request alone could get, wherever the guest is. */
function most(tracker: PciTracker, request: PciRequest): number {
  let [low, high] = [0, tracker.devices().length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (tracker.isSupported([{ ...request, count: middle }])) low = middle;
    else high = middle - 1;
  }
  return low;
}

function wishWarnings(setup: PciSetup, requests: readonly PciRequest[], wish: ClaimWish): string[] {
  const { pci_in_placement: inPlacement } = setup.config.pci;
  const warnings: string[] = [];
  const inert = requests.filter((r) => r.spec.some((s) => 'resource_class' in s || 'traits' in s));
  if (!inPlacement && inert.length > 0)
    warnings.push(
      `resource_class and traits of ${inert.map((r) => r.alias_name).join(', ')} count only with pci_in_placement, as in Nova`,
    );
  if (!inPlacement && wish.isolate) warnings.push('group policy isolate counts only with pci_in_placement, as in Nova');
  const policies = new Set(requests.map((r) => r.numa_policy));
  const { numaCells, hostCells } = wish.place;
  if (policies.has('socket') && numaCells.length > 0 && hostCells.length === 0)
    warnings.push(
      'the sockets of NUMA nodes are not known, so that the policy socket finds only devices on the nodes themselves: give --sockets',
    );
  if (numaCells.length === 0 && policies.has('required'))
    warnings.push('without --numa the policy required asks nothing, as in Nova');
  return warnings;
}
