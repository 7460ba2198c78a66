/** `pool list`: each pool with its devices, free or why not. */
import type { Host } from '../host/host.ts';
import { hostPools } from '../nova/hostPools.ts';
import { type SetupOptions, usableSetup } from '../nova/setup.ts';
import { resourceClass } from '../placement/names.ts';
import type { TrackedDevice } from '../pool/tracker.ts';
import type { JsonObject } from '../text/json.ts';
import { NOT_ASKED, othersOf } from './inGuest.ts';
import type { Warned } from './options.ts';
import { whoHas } from './whoHas.ts';
import { seenWishes } from './wishes.ts';

type PoolDeviceReport = {
  address: string;
  state: 'free' | 'claimed' | 'unavailable';
  reason: string | null;
  consumer: string | null;
  resource_class: string;
  /** What a wish wants it to be on at every boot; null where none does. */
  wish: string | null;
};

export type PoolReport = Counts & {
  /** What makes its devices alike: Nova's pool keys. */
  keys: JsonObject;
  physical_network: string | null;
  /** Those of its devices, more than one where VFs are of different kinds. */
  resource_classes: string[];
  devices: PoolDeviceReport[];
};

type Counts = { total: number; free: number; claimed: number; unavailable: number };

export type ListedPools = Warned & {
  pools: PoolReport[];
  networks: (Counts & { physical_network: string | null })[];
  left_out: { address: string; reason: string }[];
  /** Whether libvirt said who has what. */
  guests_asked: boolean;
};

/** Raises HOSTDEV_CONFIG, what hostPools raises, and what reading the files raises. */
export async function listPools(host: Host, options: SetupOptions, connect: string | null): Promise<ListedPools> {
  const setup = await usableSetup(host, options);
  const own = options.inventory === null ? await whoHas(host, connect) : NOT_ASKED;
  const { offered, notFree, leftOut, warnings } = await hostPools(
    setup,
    options.inventory === null ? host : null,
    othersOf(own),
  );
  const wishes = new Map(
    options.inventory === null
      ? seenWishes(host, setup.inventory, setup.config).seen.flatMap(({ match: { wish, device } }) =>
          device === null || wish.kind === 'pf' ? [] : [[device.address, wish.driver] as const],
        )
      : [],
  );
  const states = new Map(offered.devices().map((s) => [s.device.address, s]));
  const report = ({ device, tags }: TrackedDevice): PoolDeviceReport => {
    const why = notFree.get(device.address);
    const given = typeof tags.resource_class === 'string' ? tags.resource_class : null;
    return {
      address: device.address,
      state: why?.state ?? 'free',
      reason: why?.reason ?? null,
      consumer: why?.consumer ?? null,
      resource_class: resourceClass(given, device.vendor_id, device.product_id),
      wish: wishes.get(device.address) ?? null,
    };
  };
  // Nothing was claimed from these pools: each device is still in its own.
  const pools = offered.pools().map(({ count: _, devices: addresses, _has_rp: __, ...keys }): PoolReport => {
    const devices = addresses.flatMap((a) => states.get(a) ?? []).map(report);
    return {
      keys: keys as JsonObject,
      physical_network: networkOf(keys as JsonObject),
      resource_classes: [...new Set(devices.map((d) => d.resource_class))].sort(),
      ...countsOf(devices),
      devices,
    };
  });
  const networks = [...new Set(pools.map((p) => p.physical_network))].map((physical_network) => ({
    physical_network,
    ...countsOf(pools.filter((p) => p.physical_network === physical_network).flatMap((p) => p.devices)),
  }));
  return {
    pools,
    networks,
    left_out: leftOut,
    guests_asked: own.asked,
    warnings: [...setup.warnings, ...warnings, ...own.warnings],
  };
}

/** Nova and Placement take null and the empty text for no network. */
const networkOf = (keys: JsonObject): string | null =>
  typeof keys.physical_network === 'string' && keys.physical_network !== '' ? keys.physical_network : null;

function countsOf(devices: readonly PoolDeviceReport[]): Counts {
  const count = (state: PoolDeviceReport['state']): number => devices.filter((d) => d.state === state).length;
  return { total: devices.length, free: count('free'), claimed: count('claimed'), unavailable: count('unavailable') };
}
