/** What this host says of a domain: are its devices there, will their groups be handed over, may they leave their drivers, how near are they. */
import { refusalHint } from '../binding/guards.ts';
import { observing } from '../binding/session.ts';
import type { DomainFacts } from '../domain/domainFacts.ts';
import type { DomainDevice, DomainDevices } from '../domain/hostDevices.ts';
import type { Finding } from '../domain/rules/rules.ts';
import type { Versions } from '../domain/version.ts';
import { intelAddressBits } from '../domain/viommu/parts.ts';
import { usesVfio } from '../domain/viommu/suggest.ts';
import { HostdevError } from '../errors.ts';
import { checkFunctions, checkIommu, checkViability, domainOwner } from '../hook/check.ts';
import { planPrepare } from '../hook/prepare.ts';
import { hookPolicy } from '../hook/run.ts';
import type { Host } from '../host/host.ts';
import { iommuAddressBits } from '../host/iommu.ts';
import { numaDistance } from '../host/numa.ts';
import { type PciDevice, scanInventory, unreadOf } from '../pci/inventory.ts';
import { groupMembers } from '../pci/vfio.ts';
import type { Warning } from '../text/warning.ts';
import type { ActionOptions } from './options.ts';

export type HostDevice = {
  address: string;
  iommu_group: number | null;
  /** The other functions of its group. */
  peers: string[];
  driver: string | null;
  /** The driver that it will be on for the guest: 'libvirt' leaves the choice to it; null: it stays. */
  will_be: string | null;
  numa_node: number | null;
  /** By the guest cell (null: the whole guest) and the host node of its memory; distance null is not measured. */
  numa: { cell: number | null; node: number; distance: number | null }[];
};

export type HostCheck = {
  findings: Finding[];
  warnings: Warning[];
  host: { iommu_address_bits: number | null; devices: HostDevice[] };
};

/** A domain without a UUID was never defined; any will do to ask what would happen. */
const NOBODY = '00000000-0000-0000-0000-000000000000';

const finding = (
  rule: string,
  stage: Finding['stage'],
  where: string,
  cause: string,
  fix: string,
  source: string,
): Finding => ({
  judge: 'hostdev',
  rule,
  stage,
  where,
  line: null,
  column: null,
  cause,
  since: null,
  fix,
  source,
});

/** A refusal of the hook's checks as a finding. */
function caught(rule: string, source: string, check: () => void): Finding[] {
  try {
    check();
    return [];
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    return [finding(rule, 'assign', 'host', e.message, e.hint, source)];
  }
}

/** Looks at the host as `prepare` would, and says all that it finds instead of stopping at the first. */
export async function checkOnHost(
  host: Host,
  facts: DomainFacts,
  domain: DomainDevices,
  versions: Versions,
  options: ActionOptions,
): Promise<HostCheck> {
  const inventory = scanInventory(host);
  const here: { listed: DomainDevice; device: PciDevice }[] = [];
  const findings: Finding[] = [];
  for (const listed of domain.devices) {
    const device = inventory.byAddress.get(listed.address);
    if (device) here.push({ listed, device });
    else if (unreadOf(inventory, listed.address) !== null) {
      const cause = unreadOf(inventory, listed.address) ?? '';
      findings.push(finding('host-device', 'assign', listed.where, cause, 'try again', 'hostdev list'));
    } else {
      const fix = "see 'hostdev list'; VFs are there only while their PF has them";
      findings.push(
        finding('host-device', 'assign', listed.where, `this host has no ${listed.address}`, fix, 'hostdev list'),
      );
    }
  }
  const devices = here.map((h) => h.device);
  findings.push(
    ...caught('host-iommu', 'drivers/iommu/iommu.c', () => checkIommu(host, devices)),
    ...caught('host-functions', 'drivers/pci/iov.c', () => checkFunctions(host, inventory, devices)),
    ...caught('host-group', 'drivers/iommu/iommu.c iommu_group_claim_dma_owner', () =>
      checkViability(host, inventory, domain),
    ),
    ...addressBits(host, facts, versions),
  );
  const prepared = await prepare(host, here, domain, options);
  return {
    findings: [...findings, ...prepared.findings, ...devices.flatMap((d) => farAway(host, facts, d))],
    warnings: [...inventory.warnings, ...prepared.warnings],
    host: {
      iommu_address_bits: iommuAddressBits(host),
      devices: here.map(({ listed, device }) => ({
        address: device.address,
        iommu_group: device.iommu_group,
        peers:
          device.iommu_group === null
            ? []
            : groupMembers(inventory, device.iommu_group).flatMap((p) => (p === device ? [] : [p.address])),
        driver: device.driver,
        will_be: prepared.drivers.get(device.address) ?? (listed.managed ? 'libvirt' : null),
        numa_node: device.numa_node,
        numa: distances(host, facts, device),
      })),
    },
  };
}

/** intel-iommu wider than the host's own (QEMU hw/vfio: aw-bits 48 > host aw-bits 39). */
function addressBits(host: Host, facts: DomainFacts, versions: Versions): Finding[] {
  const wanted = usesVfio(facts) ? intelAddressBits({ domain: facts, versions }) : null;
  const bits = iommuAddressBits(host);
  if (wanted === null || bits === null || wanted <= bits) return [];
  const cause = `the guest's intel-iommu has ${wanted} address bits, and this host's IOMMU ${bits}`;
  const source = 'QEMU hw/i386/intel_iommu.c vtd_check_hiod (aw-bits 48 > host aw-bits 39)';
  return [finding('host-aw-bits', 'assign', 'iommu', cause, "write aw_bits='39'", source)];
}

type Prepared = { findings: Finding[]; warnings: Warning[]; drivers: Map<string, string> };

async function prepare(
  host: Host,
  here: { listed: DomainDevice; device: PciDevice }[],
  domain: DomainDevices,
  options: ActionOptions,
): Promise<Prepared> {
  try {
    return await observing(host, options, async (work) => {
      const claim = {
        owner: domainOwner({ ...domain, uuid: domain.uuid ?? NOBODY }),
        name: domain.name,
        managed: false,
        libvirt: null,
      };
      const plan = await planPrepare(work, here, claim, options.allowed, await hookPolicy(host));
      return {
        findings: plan.refusals.map((r) =>
          finding(`guard-${r.guard}`, 'assign', r.address, r.reason, refusalHint([r]), 'hostdev src/binding/guards.ts'),
        ),
        warnings: plan.warnings,
        drivers: new Map(plan.bind.devices.map((d) => [d.device.address, d.target.driver])),
      };
    });
  } catch (e) {
    // A driver that cannot be found out (no modules.alias, say): everything else is still worth knowing.
    if (!(e instanceof HostdevError)) throw e;
    const source = 'hostdev src/hook/prepare.ts';
    return {
      findings: [finding('host-driver', 'assign', 'host', e.message, e.hint, source)],
      warnings: [],
      drivers: new Map(),
    };
  }
}

function distances(host: Host, facts: DomainFacts, device: PciDevice): HostDevice['numa'] {
  const at = device.numa_node;
  if (at === null) return [];
  return facts.memoryNodes.flatMap(({ cell, nodes }) =>
    nodes.map((node) => ({ cell, node, distance: numaDistance(host, at, node) })),
  );
}

function farAway(host: Host, facts: DomainFacts, device: PciDevice): Finding[] {
  const all = distances(host, facts, device);
  if (all.length === 0 || all.some((d) => d.node === device.numa_node)) return [];
  const far = all.map(
    (d) => `${d.cell === null ? '' : `cell ${d.cell} on `}node ${d.node} (distance ${d.distance ?? 'not measured'})`,
  );
  const cause = `it is on host node ${device.numa_node}, the guest's memory on ${far.slice(0, 8).join(', ')}`;
  const fix = `bind memory of the guest to node ${device.numa_node}, or take a device that is nearer`;
  return [
    finding(
      'host-numa',
      'advice',
      device.address,
      cause,
      fix,
      'drivers/base/node.c; libvirt docs/formatdomain: numatune',
    ),
  ];
}
