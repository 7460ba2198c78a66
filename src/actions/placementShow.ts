/** `placement show`: what Placement would be told of this host, without a server. */
import type { Host } from '../host/host.ts';
import { hostPools, viewOptions } from '../nova/hostPools.ts';
import { type SetupOptions, usableSetup } from '../nova/setup.ts';
import { Ledger, type PlacementView } from '../placement/ledger.ts';
import { warning } from '../text/warning.ts';
import { NOT_ASKED, othersOf } from './inGuest.ts';
import type { Warned } from './options.ts';
import { whoHas } from './whoHas.ts';

export type ShownPlacement = Warned & {
  hypervisor_hostname: string;
  /** By name, in order: the inventories, traits and devices of each provider. */
  providers: Record<string, PlacementView['rps'][string] & { devices: string[] }>;
  /** Offered, and none of Placement's business: they have a physical_network. */
  not_reported: string[];
  /** Offered, and given out by libvirt's networks too: Placement would count them as free. */
  in_networks: { address: string; network: string }[];
};

/**
 * `hypervisorHostname` goes before the configured one: a saved inventory may be another host's. Raises HOSTDEV_CONFIG,
 * HOSTDEV_PLACEMENT and its kin where Nova would not start, and what reading the files raises.
 */
export async function showPlacement(
  host: Host,
  options: SetupOptions,
  hypervisorHostname: string | null,
  connect: string | null,
): Promise<ShownPlacement> {
  const setup = await usableSetup(host, options);
  if (hypervisorHostname !== null) setup.config.pci.hypervisor_hostname = hypervisorHostname;
  const isHere = options.inventory === null;
  const own = isHere ? await whoHas(host, connect) : NOT_ASKED;
  const { offered, warnings } = await hostPools(setup, isHere ? host : null, othersOf(own));
  const ledger = new Ledger(viewOptions(setup));
  const devices = offered.devices();
  const { rps } = ledger.report(
    setup.specs.map((s) => s.value),
    devices,
  );
  const offeredOf = new Set(devices.map((d) => d.device.address));
  const inNetworks = othersOf(own).inNetworks.filter((n) => offeredOf.has(n.address));
  const of = new Map<string | null, string[]>();
  for (const d of devices) {
    const name = ledger.providerOf(d);
    of.set(name, [...(of.get(name) ?? []), d.device.address]);
  }
  const { report_in_placement: reported, hypervisor_hostname } = setup.config.pci;
  return {
    hypervisor_hostname,
    providers: Object.fromEntries(
      Object.entries(rps).map(([name, rp]) => [name, { ...rp, devices: of.get(name) ?? [] }]),
    ),
    not_reported: of.get(null) ?? [],
    in_networks: inNetworks,
    warnings: [
      ...setup.warnings,
      ...warnings,
      ...own.warnings,
      ...inNetworks.map(({ address, network }) =>
        warning('nova', `${address} is offered, and libvirt's network ${network} gives it out too`, address),
      ),
      ...(reported
        ? []
        : [warning('nova', 'report_in_placement is off: Nova reports nothing, and this is what it would report')]),
    ],
  };
}
