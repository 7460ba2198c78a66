/**
 * What libvirt refuses of a vIOMMU when a domain is defined: its schema, its parser, its validators. Checked against
 * libvirt 9.0.0, 11.3.0 and 12.8.0.
 */

import { safe } from '../../text/safe.ts';
import { effectiveArch, isArmVirt, isQ35, isQemu, isX86 } from '../domainFacts.ts';
import type { Fault, Rule, Target } from '../rules/rules.ts';
import { below, formatVersion, sinceLibvirt, sinceQemu } from '../version.ts';
import { child } from '../xml/dom.ts';
import { ATTRIBUTES, FILLED_IN_FROM, GRANULE, MODELS, SEVERAL_FROM, XTSUP_FROM } from './models.ts';
import { each, effective, filledIn, granuleOf, guestAddress, iommusOf, known, manyVcpus } from './parts.ts';
import { attributeFaults, schemaFaults } from './schema.ts';

const KIB: Record<string, number> = { b: 1 / 1024, bytes: 1 / 1024, kib: 1, k: 1, mib: 1024, m: 1024 };

const VALIDATE = 'libvirt conf/domain_validate.c';
const QEMU_VALIDATE = 'libvirt qemu/qemu_validate.c';

function ioapicFault(t: Target): Fault[] {
  const { domain } = t;
  const added = domain.iommus.length === 0 && manyVcpus(domain) && isQ35(domain) && filledIn(t);
  const remaps = known(domain).filter((i) => effective(i, t).intremap === 'on');
  if ((remaps.length === 0 && !added) || domain.ioapic === 'qemu') return [];
  if (domain.ioapic === null && filledIn(t)) return [];
  const has = domain.ioapic === null ? 'there is none' : `it has ioapic driver='${safe(domain.ioapic)}'`;
  const why = added ? `libvirt adds interrupt remapping for ${domain.vcpus} vCPUs` : "intremap='on'";
  return [{ part: remaps[0]?.part ?? null, cause: `${why} needs <ioapic driver='qemu'/>, and ${has}` }];
}

function vcpuFault(t: Target): Fault[] {
  const { domain, versions } = t;
  if (!manyVcpus(domain) || !isQ35(domain) || (domain.iommus.length === 0 && filledIn(t))) return [];
  const all = known(domain);
  const first = all[0];
  if (below(versions.libvirt, XTSUP_FROM)) {
    if (first && effective(first, t).eim === 'on') return [];
    return [{ part: first?.part ?? null, cause: `${domain.vcpus} vCPUs without <iommu> with eim='on'` }];
  }
  // From here on an I/O APIC in QEMU is enough, and a missing one becomes that.
  if (domain.ioapic !== 'kvm' || all.some((i) => effective(i, t).eim === 'on' || effective(i, t).xtsup === 'on'))
    return [];
  return [
    { part: first?.part ?? null, cause: `${domain.vcpus} vCPUs with <ioapic driver='kvm'/> and no eim or xtsup` },
  ];
}

export const VIOMMU_DEFINE_RULES: readonly Rule[] = [
  {
    id: 'viommu-driver',
    stage: 'define',
    holds: "a vIOMMU is for QEMU's domains only",
    since: null,
    source: 'libvirt docs/formatdomain: iommu (QEMU/KVM only); nova.virt.libvirt.driver',
    fix: "use type='kvm' or 'qemu', or take the <iommu> out",
    check: ({ domain }) =>
      // The test driver takes any, and has none.
      isQemu(domain) || domain.type === 'test' || domain.iommus.length === 0
        ? []
        : [{ part: domain.iommus[0] ?? null, cause: `the domain is of type '${safe(domain.type)}'` }],
  },
  {
    id: 'viommu-schema',
    stage: 'define',
    holds:
      '<iommu> and what is in it have only the attributes, values and elements that the schema of that libvirt knows',
    since: null,
    source: 'libvirt conf/schemas/domaincommon.rng iommu; conf/domain_conf.c virDomainIOMMUDefParseXML',
    fix: 'correct or leave out what is named; a define without VALIDATE drops it silently',
    check: schemaFaults,
  },
  {
    id: 'viommu-model',
    stage: 'define',
    holds: `the model is one that libvirt knows: ${Object.entries(MODELS)
      .map(([m, r]) => `${m} from ${formatVersion(r.libvirt)}`)
      .join(', ')}`,
    since: null,
    source: 'libvirt conf/domain_conf.c virDomainIOMMUModel; NEWS',
    fix: "use a model that is there: 'hostdev viommu suggest' names one",
    check: ({ domain, versions }) =>
      iommusOf(domain).flatMap((i): Fault[] => {
        if (i.model === null) return [{ part: i.part, cause: `'${safe(i.modelText)}' is no model` }];
        const from = MODELS[i.model].libvirt;
        if (!below(versions.libvirt, from)) return [];
        return [{ part: i.part, cause: `model ${i.model} needs ${sinceLibvirt(from)}`, since: sinceLibvirt(from) }];
      }),
  },
  {
    id: 'viommu-single',
    stage: 'define',
    holds: `there is one <iommu>; several only from libvirt ${formatVersion(SEVERAL_FROM)} on`,
    since: `libvirt ${formatVersion(SEVERAL_FROM)} takes several`,
    source: 'libvirt conf/domain_conf.c virDomainDefParseXML (only a single IOMMU device is supported); schema',
    fix: 'leave one',
    check: ({ domain, versions }) =>
      domain.iommus.length > 1 && below(versions.libvirt, SEVERAL_FROM)
        ? [{ part: domain.iommus[1] ?? null, cause: `there are ${domain.iommus.length}` }]
        : [],
  },
  {
    id: 'viommu-machine',
    stage: 'define',
    holds: 'intel and amd stand on q35, smmuv3 on Arm virt, virtio on either',
    since: null,
    source: `${QEMU_VALIDATE} qemuValidateDomainDeviceDefIOMMU (is only supported with … machines)`,
    fix: 'change the machine or the model',
    check: each((i, { domain, versions }) => {
      if (!isQemu(domain)) return null;
      const isVirt = isArmVirt(domain, versions.libvirt);
      const { machine } = MODELS[i.model];
      const fits = machine === 'q35 or virt' ? isQ35(domain) || isVirt : machine === 'q35' ? isQ35(domain) : isVirt;
      const is = domain.machine ?? "libvirt's default for it";
      return !fits && `model ${i.model} needs ${machine}; the domain is ${effectiveArch(domain)} with ${safe(is)}`;
    }),
  },
  {
    id: 'viommu-qemu',
    stage: 'define',
    holds: `QEMU has the model: virtio with boot-bypass from ${formatVersion(MODELS.virtio.qemu)}, amd with a pci-id from ${formatVersion(MODELS.amd.qemu)}`,
    since: null,
    source: `${QEMU_VALIDATE} qemuValidateDomainDeviceDefIOMMU (is not supported with this QEMU binary)`,
    fix: 'use a newer QEMU or another model',
    check: ({ domain, versions }) =>
      known(domain).flatMap((i): Fault[] => {
        const from = MODELS[i.model].qemu;
        if (!isQemu(domain) || !below(versions.qemu, from)) return [];
        return [{ part: i.part, cause: `model ${i.model} needs ${sinceQemu(from)}`, since: sinceQemu(from) }];
      }),
  },
  {
    id: 'viommu-attribute',
    stage: 'define',
    holds: 'the driver has only attributes that its model takes on that libvirt',
    since: null,
    source: `${VALIDATE} virDomainIOMMUDefValidate (doesn't support additional attributes)`,
    fix: 'leave the attribute out',
    check: attributeFaults,
  },
  {
    id: 'virtio-aw-bits',
    stage: 'define',
    holds: "virtio's aw_bits is 32 to 64",
    since: sinceLibvirt(ATTRIBUTES.aw_bits?.models.virtio ?? 0),
    source: `${VALIDATE} virDomainIOMMUDefValidate (aw-bits must be within [32,64])`,
    fix: 'use 39 or 48',
    check: each((i, { versions }) => {
      const bits = Number(i.driver.aw_bits ?? 0);
      if (i.model !== 'virtio' || below(versions.libvirt, ATTRIBUTES.aw_bits?.models.virtio ?? 0)) return null;
      return bits !== 0 && (bits < 32 || bits > 64) && `aw_bits is ${bits}`;
    }),
  },
  {
    id: 'virtio-granule',
    stage: 'define',
    holds: 'a granule is 4, 8, 16 or 64 KiB; without a unit the size counts KiB',
    since: sinceLibvirt(GRANULE.libvirt),
    source: `${QEMU_VALIDATE} qemuValidateDomainDeviceDefIOMMU (unsupported granule size)`,
    fix: "use mode='host' or one of these sizes",
    check: each((i, { domain, versions }) => {
      const granule = granuleOf(i.part);
      const size = granule?.getAttribute('size');
      if (!isQemu(domain) || i.model !== 'virtio' || !size || below(versions.libvirt, GRANULE.libvirt)) return null;
      const factor = KIB[(granule?.getAttribute('unit') ?? 'KiB').toLowerCase()];
      const kib = factor === undefined ? null : Number(size) * factor;
      return (
        (kib === null || ![4, 8, 16, 64].includes(kib)) && `the granule is ${kib === null ? safe(size) : `${kib} KiB`}`
      );
    }),
  },
  {
    id: 'smmuv3-accel',
    stage: 'define',
    holds: "ats, ril, ssidsize, oas and cmdqv need accel='on'",
    since: sinceLibvirt(ATTRIBUTES.accel?.libvirt ?? 0),
    source: `${VALIDATE} virDomainIOMMUDefValidate (accel must be enabled)`,
    fix: "add accel='on'",
    check: each((i, { versions }) => {
      if (i.model !== 'smmuv3' || below(versions.libvirt, ATTRIBUTES.accel?.libvirt ?? 0) || i.driver.accel === 'on')
        return null;
      // -1 is libvirt's own "not given".
      const set = ['ats', 'ril', 'cmdqv', 'ssidsize', 'oas'].filter(
        (a) => i.driver[a] !== undefined && !i.driver[a]?.startsWith('-'),
      );
      return set.length > 0 && `${set.join(', ')} without accel='on'`;
    }),
  },
  {
    id: 'viommu-address',
    stage: 'define',
    holds: 'intel and smmuv3 have no address in the guest; virtio and amd may have a PCI address',
    since: null,
    source: `${VALIDATE} virDomainIOMMUDefValidate (can't have address), virDomainDeviceInfoValidate; ${QEMU_VALIDATE} (needs a PCI address)`,
    fix: 'take the <address> out: libvirt chooses one where there must be one',
    check: each((i, { domain }) => {
      const type = guestAddress(i);
      if (type === null) return null;
      if (!MODELS[i.model].pci) return `model ${i.model} has an <address>`;
      return (type === 'unassigned' || (type !== 'pci' && isQemu(domain))) && `its <address> is of type ${safe(type)}`;
    }),
  },
  {
    id: 'viommu-root-bus',
    stage: 'define',
    holds: 'virtio and amd stand on the root bus: bus 0',
    since: null,
    source: 'libvirt conf/domain_addr.c virDomainPCIAddressFlagsCompatible (needs to be an integrated device (bus=0))',
    fix: "use bus='0x00', or take the <address> out",
    check: each((i, { domain }) => {
      const address = child(i.part.element, 'address');
      if (!isQemu(domain) || !MODELS[i.model].pci || address?.getAttribute('type') !== 'pci') return null;
      const bus = address.getAttribute('bus') ?? '0';
      return Number(bus) !== 0 && `it is on bus ${safe(bus)}`;
    }),
  },
  {
    id: 'virtio-acpi',
    stage: 'define',
    holds: 'virtio needs ACPI, which on aarch64 needs UEFI',
    since: null,
    source: `${QEMU_VALIDATE} qemuValidateDomainDeviceDefIOMMU (requires ACPI), qemuValidateDomainDef (ACPI requires UEFI)`,
    fix: 'add <acpi/> to <features>',
    check: each((i, { domain }) => isQemu(domain) && i.model === 'virtio' && !domain.acpi && 'there is no <acpi/>'),
  },
  {
    id: 'acpi-uefi',
    stage: 'define',
    holds: 'with a vIOMMU, ACPI on aarch64 needs UEFI',
    since: null,
    source: `${QEMU_VALIDATE} qemuValidateDomainDef (ACPI requires UEFI on this architecture)`,
    fix: "use <os firmware='efi'> or a pflash loader",
    check: ({ domain }) =>
      isQemu(domain) && domain.arch === 'aarch64' && domain.acpi && !domain.uefi && domain.iommus.length > 0
        ? [{ part: null, cause: 'there is <acpi/> and no UEFI' }]
        : [],
  },
  {
    id: 'ioapic-arch',
    stage: 'define',
    holds: 'only x86 has an I/O APIC, which a vIOMMU there does not need',
    since: null,
    source: `${QEMU_VALIDATE} qemuValidateDomainDefFeatures (The 'ioapic' feature is not supported for architecture)`,
    fix: 'take <ioapic> out (Nova writes it on Arm too)',
    check: ({ domain }) =>
      isQemu(domain) && domain.ioapic !== null && !isX86(domain) && domain.iommus.length > 0
        ? [{ part: null, cause: `there is <ioapic> on ${effectiveArch(domain)}` }]
        : [],
  },
  {
    id: 'intremap-ioapic',
    stage: 'define',
    holds: "intremap='on' needs <ioapic driver='qemu'/> in <features>",
    since: `libvirt ${formatVersion(FILLED_IN_FROM)} adds a missing one`,
    source: `${VALIDATE} virDomainDefIOMMUValidate (requires split I/O APIC); qemu/qemu_postparse.c qemuDomainDefEnableDefaultFeatures`,
    fix: "add <ioapic driver='qemu'/> to <features>",
    check: ioapicFault,
  },
  {
    id: 'eim-intremap',
    stage: 'define',
    holds: "eim='on' needs intremap='on'",
    since: null,
    source: `${VALIDATE} virDomainDefIOMMUValidate (eim requires interrupt remapping)`,
    fix: "add intremap='on'",
    check: each((i, t) => {
      const { intremap, eim } = effective(i, t);
      if (i.model !== 'intel' || eim !== 'on' || intremap === 'on') return null;
      const why = i.driver.eim === 'on' ? "eim='on'" : `libvirt sets eim for ${t.domain.vcpus} vCPUs`;
      return `${why} with ${intremap === undefined ? 'no intremap' : `intremap='${safe(intremap)}'`}`;
    }),
  },
  {
    id: 'vcpus-eim',
    stage: 'define',
    holds: `more than 255 vCPUs on x86 need an intel <iommu> with eim='on'; from libvirt ${formatVersion(FILLED_IN_FROM)} on it is added where the XML is silent; from ${formatVersion(XTSUP_FROM)} on <ioapic driver='qemu'/> or amd's xtsup='on' will do`,
    since: `libvirt ${formatVersion(FILLED_IN_FROM)} adds it, ${formatVersion(XTSUP_FROM)} takes amd with xtsup`,
    source: `${QEMU_VALIDATE} qemuValidateDomainVCpuTopology (require extended interrupt mode)`,
    fix: "add <iommu model='intel'><driver intremap='on' eim='on'/></iommu>",
    check: vcpuFault,
  },
];
