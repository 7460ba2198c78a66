/** `placement show`: what Placement would be told of this host, without a server. */
import type { Host } from '../host/host.ts';
import { hostPools, viewOptions } from '../nova/hostPools.ts';
import { type SetupOptions, usableSetup } from '../nova/setup.ts';
import { Ledger, type PlacementView } from '../placement/ledger.ts';
import { warning } from '../text/warning.ts';
import type { Warned } from './options.ts';

export type ShownPlacement = Warned & {
  hypervisor_hostname: string;
  /** By name, in order: the inventories, traits and devices of each provider. */
  providers: Record<string, PlacementView['rps'][string] & { devices: string[] }>;
  /** Offered, and none of Placement's business: they have a physical_network. */
  not_reported: string[];
};

/**
 * `hypervisorHostname` goes before the configured one: a saved inventory may be another host's. Raises HOSTDEV_CONFIG,
 * HOSTDEV_PLACEMENT and its kin where Nova would not start, and what reading the files raises.
 */
export async function showPlacement(
  host: Host,
  options: SetupOptions,
  hypervisorHostname: string | null = null,
): Promise<ShownPlacement> {
  const setup = await usableSetup(host, options);
  if (hypervisorHostname !== null) setup.config.pci.hypervisor_hostname = hypervisorHostname;
  const { offered, warnings } = await hostPools(setup, options.inventory === null ? host : null);
  const ledger = new Ledger(viewOptions(setup));
  const devices = offered.devices();
  const { rps } = ledger.report(
    setup.specs.map((s) => s.value),
    devices,
  );
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
    warnings: [
      ...setup.warnings,
      ...warnings,
      ...(reported
        ? []
        : [warning('nova', 'report_in_placement is off: Nova reports nothing, and this is what it would report')]),
    ],
  };
}
