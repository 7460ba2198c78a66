/**
 * What this host says of a domain: are its devices there, will their groups be handed over, may they leave their
 * drivers, how near are they.
 */
import { refusalHint } from '../binding/guards.ts';
import type { DomainFacts } from '../domain/domainFacts.ts';
import type { DomainDevices } from '../domain/hostDevices.ts';
import { domainFinding, type Finding } from '../domain/rules/rules.ts';
import type { Versions } from '../domain/version.ts';
import { intelAddressBits } from '../domain/viommu/parts.ts';
import { usesVfio } from '../domain/viommu/suggest.ts';
import type { Objection } from '../hook/check.ts';
import { hookNote, leftToAdmin, type Preview, previewHook } from '../hook/preview.ts';
import type { Host } from '../host/host.ts';
import { iommuAddressBits } from '../host/iommu.ts';
import { numaDistance } from '../host/numa.ts';
import { type PciDevice, scanInventory } from '../pci/inventory.ts';
import { groupMembers } from '../pci/vfio.ts';
import { type Warning, warning } from '../text/warning.ts';
import type { ActionOptions } from './options.ts';

export type HostDevice = {
  address: string;
  iommu_group: number | null;
  /** The other functions of its group. */
  peers: string[];
  driver: string | null;
  /**
   * The driver that the hook binds it to, where one runs (`hook_runs`); 'libvirt' leaves the choice to it; null: it
   * stays, or is left to you.
   */
  will_be: string | null;
  numa_node: number | null;
  /** By the guest cell (null: the whole guest) and the host node of its memory; distance null is not measured. */
  numa: { cell: number | null; node: number; distance: number | null }[];
};

export type HostCheck = {
  findings: Finding[];
  warnings: Warning[];
  /** `hook_runs`: whether libvirt runs hostdev's hook here. */
  host: { iommu_address_bits: number | null; hook_runs: boolean; devices: HostDevice[] };
};

const finding = (
  rule: string,
  stage: Finding['stage'],
  where: string,
  cause: string,
  fix: string,
  source: string,
): Finding => domainFinding({ rule, stage, where, cause, fix, source });

/** Looks at the host as `prepare` would, and says all that it finds instead of stopping at the first. */
export async function checkOnHost(
  host: Host,
  facts: DomainFacts,
  domain: DomainDevices,
  versions: Versions,
  options: ActionOptions,
): Promise<HostCheck> {
  const inventory = scanInventory(host);
  const preview = await previewHook(host, inventory, domain, options);
  // Where only root may look, nothing is known to keep the guest from starting.
  const known = preview.objections.filter((o) => !o.open);
  const open = preview.objections.filter((o) => o.open);
  const here = preview.devices.flatMap(({ device, ...of }) => (device === null ? [] : [{ ...of, device }]));
  return {
    findings: [
      ...known.filter((o) => o.kind !== 'guard').flatMap((o) => objected(preview, o)),
      ...addressBits(host, facts, versions),
      ...known.filter((o) => o.kind === 'guard').flatMap((o) => objected(preview, o)),
      ...hookAdvice(preview),
      ...here.flatMap((h) => farAway(host, facts, h.device)),
    ],
    warnings: [
      ...inventory.warnings,
      ...preview.warnings,
      ...open.map((o) => warning('not-measured', `whether the guest may start, only root can see: ${o.error.message}`)),
    ],
    host: {
      iommu_address_bits: iommuAddressBits(host),
      hook_runs: preview.runs,
      devices: here.map(({ device, fate, driver }) => ({
        address: device.address,
        iommu_group: device.iommu_group,
        peers:
          device.iommu_group === null
            ? []
            : groupMembers(inventory, device.iommu_group).flatMap((p) => (p === device ? [] : [p.address])),
        driver: device.driver,
        will_be: fate === 'libvirt' ? 'libvirt' : driver,
        numa_node: device.numa_node,
        numa: distances(host, facts, device),
      })),
    },
  };
}

/** The rule under which an objection of the hook's is found, and who says so. */
const RULE: Record<Exclude<Objection['kind'], 'device' | 'guard'>, [rule: string, source: string]> = {
  hook: ['hook-broken', 'hostdev native/hook.cc'],
  state: ['hook-state', 'hostdev src/store/ours.ts'],
  config: ['hook-config', 'hostdev src/config/hookSettings.ts'],
  iommu: ['host-iommu', 'drivers/iommu/iommu.c'],
  functions: ['host-functions', 'drivers/pci/iov.c'],
  unfinished: ['host-unfinished', 'hostdev src/binding/session.ts'],
  driver: ['host-driver', 'hostdev src/binding/drivers/driverChoice.ts'],
  'not-bound': ['host-driver', 'hostdev src/hook/prepare.ts'],
  group: ['host-group', 'drivers/iommu/iommu.c iommu_group_claim_dma_owner'],
};

/** What would stop the guest, as findings: one a device where it is about several. */
function objected({ missing, refusals }: Preview, { kind, error }: Objection): Finding[] {
  if (kind === 'guard')
    return refusals.map((r) =>
      finding(`guard-${r.guard}`, 'assign', r.address, r.reason, refusalHint([r]), 'hostdev src/binding/guards.ts'),
    );
  if (kind === 'device')
    return missing.map(({ listed, unread }) => {
      const cause = unread ?? `this host has no ${listed.address}`;
      const fix = unread === null ? "see 'hostdev list'; VFs are there only while their PF has them" : 'try again';
      return finding('host-device', 'assign', listed.where, cause, fix, 'hostdev list');
    });
  const [rule, source] = RULE[kind];
  return [finding(rule, 'assign', 'host', error.message, error.hint, source)];
}

/** What must be done by hand, because no hook does it here; that it is done by then is the admin's to see to. */
function hookAdvice(preview: Preview): Finding[] {
  const source = 'hostdev src/hook/preview.ts';
  const left = leftToAdmin(preview, () => true);
  const found = left === null ? [] : [finding(left.id, 'advice', 'host', left.cause, left.fix, source)];
  // Where none is installed and none is needed there is nothing to say.
  const note = preview.runs && preview.devices.length > 0 ? hookNote(preview) : null;
  if (note !== null) found.push(finding(note.id, 'advice', 'host', note.text, 'hostdev hook install', source));
  return found;
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

/** By the guest's cells and the nodes of their memory. */
export function distances(host: Host, facts: DomainFacts, device: PciDevice): HostDevice['numa'] {
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
