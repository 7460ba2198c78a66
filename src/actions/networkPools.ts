/** Which networks of a domain are pools of host devices, and what of them is free: libvirt gives one at each start. */
import { domainFinding, type Finding } from '../domain/rules/rules.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { safe } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import { whoHas } from './whoHas.ts';

/** `pool` null: libvirt was not asked, or did not answer. `free`: no running guest has it. */
export type NetworkPool = {
  network: string;
  pool: boolean | null;
  managed: boolean | null;
  devices: Address[];
  free: Address[];
};

export type NetworkPools = { pools: NetworkPool[]; warnings: Warning[] };

/** Asks libvirt about the networks of these names; nothing is asked for none. */
export async function networkPools(
  host: Host,
  names: readonly string[],
  connect: string | null,
): Promise<NetworkPools> {
  if (names.length === 0) return { pools: [], warnings: [] };
  const { asked, guests, networks, warnings } = await whoHas(host, connect);
  const pools = names.map((network): NetworkPool => {
    const found = networks.find((n) => n.name === network);
    const devices = found?.devices ?? [];
    return {
      network,
      pool: asked ? found !== undefined : null,
      managed: found?.managed ?? null,
      devices,
      free: devices.filter((a) => !guests.has(a)),
    };
  });
  return { pools, warnings };
}

/** A pool of which nothing is left for the guest. */
const emptyPools = ({ pools }: NetworkPools): NetworkPool[] =>
  pools.filter((p) => p.pool === true && p.free.length === 0);

const emptyText = ({ network, devices }: NetworkPool): string =>
  `libvirt's network ${safe(network)} gives each guest one of its ${devices.length} host devices, and none is free`;

export const emptyFindings = (networks: NetworkPools): Finding[] =>
  emptyPools(networks).map((p) =>
    domainFinding({
      rule: 'network-pool',
      stage: 'assign',
      where: `network ${safe(p.network)}`,
      cause: emptyText(p),
      fix: 'stop a guest that has one, or give the network more',
      source: 'src/network/bridge_driver.c networkAllocatePort',
    }),
  );

export const emptyWarnings = (networks: NetworkPools): Warning[] =>
  emptyPools(networks).map((p) => warning('nothing-offered', emptyText(p)));

/** A pool in one line, for people. */
export const poolText = ({ network, pool, devices, free }: NetworkPool): string =>
  pool === null
    ? `network ${network}: whether it is a pool of host devices is known to libvirt, which was not asked`
    : pool
      ? `network ${network}: one of its ${devices.length} host devices at each start, ${free.length} free (${free.join(' ') || 'none'})`
      : `network ${network}: no host device`;
