/**
 * The rules of the vIOMMU, one table: what libvirt's schema, parser and validators refuse, and what QEMU refuses at start. docs/reference/viommu.md is generated from
 * it, and test/data/viommu/verdicts.json holds it against what real libvirts said.
 */
import { type DomainFacts, effectiveArch, isArmVirt, isQ35, isQemu, isX86, type Part } from './domainFacts.ts';
import { child } from './hostDevices.ts';
import {
  ANY,
  below,
  type Fault,
  ON_OFF,
  PCI_ADDRESS,
  type Rule,
  type Shape,
  shapeFaults,
  sinceLibvirt,
  sinceQemu,
  type Target,
  UINT8,
  UINT32,
} from './rules.ts';
import { formatVersion, parseVersion, type Version, version } from './version.ts';
import {
  ATTRIBUTES,
  type AttributeRow,
  AW_BITS_48_QEMU,
  EIM_TCG_QEMU,
  FILLED_IN_FROM,
  GRANULE,
  isViommuModel,
  MAX_VCPUS_WITHOUT_EIM,
  MODELS,
  SEVERAL_FROM,
  SMMU_PER_BUS_QEMU,
  VIRTIO_VFIO_QEMU,
  type ViommuModel,
  XTSUP_FROM,
} from './viommuModels.ts';
import { usesVfio } from './viommuSuggest.ts';
import { printable } from './xmlScan.ts';

/** One `<iommu>` as the rules see it; attributes only where they are well-formed. */
type Iommu = { part: Part; model: ViommuModel | null; modelText: string; driver: Record<string, string> };

function iommusOf(d: DomainFacts): Iommu[] {
  return d.iommus.map((part) => {
    const modelText = part.element.getAttribute('model') ?? '';
    const e = child(part.element, 'driver');
    const driver: Record<string, string> = {};
    for (let i = 0; e && i < e.attributes.length; i += 1) {
      const a = e.attributes.item(i);
      if (a && a.namespaceURI === null) driver[a.name] = a.value;
    }
    return { part, model: isViommuModel(modelText) ? modelText : null, modelText, driver };
  });
}

const known = (d: DomainFacts): (Iommu & { model: ViommuModel })[] =>
  iommusOf(d).filter((i): i is Iommu & { model: ViommuModel } => i.model !== null);

/** A check of every `<iommu>` whose model is known. */
const each =
  (look: (i: Iommu & { model: ViommuModel }, t: Target) => string | null | undefined | false) =>
  (t: Target): Fault[] =>
    known(t.domain).flatMap((i) => {
      const cause = look(i, t);
      return cause ? [{ part: i.part, cause }] : [];
    });

const VALUE: Record<AttributeRow['value'], RegExp> = {
  switch: ON_OFF,
  uint8: UINT8,
  uint: UINT32,
  int: /^\s*[+-]?\d{1,9}$/,
};

const ADDRESS_TYPES = /^(pci|drive|virtio-serial|ccid|usb|spapr-vio|virtio-s390|ccw|virtio-mmio|isa|dimm|unassigned)$/;

const KIB: Record<string, number> = { b: 1 / 1024, bytes: 1 / 1024, kib: 1, k: 1, mib: 1024, m: 1024 };

/** The driver element by libvirt's schema of a version. */
function driverShape(libvirt: Version | null): Shape {
  const attributes: Record<string, RegExp> = {};
  for (const [name, row] of Object.entries(ATTRIBUTES)) {
    if (!below(libvirt, row.libvirt)) attributes[name] = VALUE[row.value];
  }
  return { attributes, children: below(libvirt, GRANULE.libvirt) ? [] : ['granule'] };
}

function schemaFaults({ domain, versions }: Target): Fault[] {
  return iommusOf(domain).flatMap(({ part }) => {
    const e = part.element;
    const faults = shapeFaults(e, { attributes: { model: ANY }, children: ['driver', 'acpi', 'address', 'alias'] });
    const driver = child(e, 'driver');
    const late: Fault[] = [];
    if (driver) {
      for (const text of shapeFaults(driver, driverShape(versions.libvirt))) {
        const name = /no (?:attribute '|element <)(\w+)/.exec(text)?.[1] ?? '';
        const row = name === 'granule' ? GRANULE : Object.hasOwn(ATTRIBUTES, name) ? ATTRIBUTES[name] : undefined;
        const since = row && sinceLibvirt(row.libvirt);
        late.push(since ? { part, cause: `${text} before ${since}`, since } : { part, cause: text });
      }
      const granule = child(driver, 'granule');
      if (granule && !below(versions.libvirt, GRANULE.libvirt)) faults.push(...granuleFaults(granule));
    }
    const address = child(e, 'address');
    if (address) faults.push(...addressFaults(address));
    const acpi = child(e, 'acpi');
    if (acpi) faults.push(...shapeFaults(acpi, { attributes: { index: /^0*[1-9]\d{0,8}$/ }, children: [] }));
    return [...faults.map((cause) => ({ part, cause })), ...late];
  });
}

function granuleFaults(e: Parameters<typeof shapeFaults>[0]): string[] {
  const mode = e.getAttribute('mode');
  const size = e.getAttribute('size');
  if ((mode === null) === (size === null)) return ["<granule> has either mode='host' or a size"];
  if (mode !== null && e.getAttribute('unit') !== null) return ["<granule mode='host'> has no unit"];
  return shapeFaults(e, { attributes: { mode: /^host$/, size: /^\d{1,10}$/, unit: /^[A-Za-z]{1,5}$/ }, children: [] });
}

function addressFaults(e: Parameters<typeof shapeFaults>[0]): string[] {
  const type = e.getAttribute('type');
  if (type === null || !ADDRESS_TYPES.test(type)) return [`'${printable(type ?? '')}' is no type of an <address>`];
  return type === 'pci' ? shapeFaults(e, { attributes: { type: ANY, ...PCI_ADDRESS }, children: ['zpci'] }) : [];
}

/** Attributes of the driver that its model does not take. */
function attributeFaults({ domain, versions }: Target): Fault[] {
  return known(domain).flatMap((i) => {
    const names = Object.keys(i.driver).filter((name) => {
      const row = Object.hasOwn(ATTRIBUTES, name) ? ATTRIBUTES[name] : undefined;
      if (row === undefined || below(versions.libvirt, row.libvirt)) return false;
      // libvirt keeps 0 for "not given".
      if (name === 'aw_bits' && Number(i.driver[name]) === 0) return false;
      const from = row.models[i.model];
      return from === undefined || below(versions.libvirt, from);
    });
    const granule =
      child(i.part.element, 'driver') && child(child(i.part.element, 'driver') as Part['element'], 'granule');
    if (granule && i.model !== 'virtio' && !below(versions.libvirt, GRANULE.libvirt)) names.push('granule');
    return names.map((name): Fault => {
      const from = ATTRIBUTES[name]?.models[i.model];
      const fix = from ? `leave ${name} out, or use ${sinceLibvirt(from)}` : `leave ${name} out`;
      return {
        part: i.part,
        cause: `model ${i.model} does not take ${name}${from ? ` before ${sinceLibvirt(from)}` : ''}`,
        ...(from ? { since: sinceLibvirt(from) } : {}),
        fix,
      };
    });
  });
}

const guestAddress = (i: Iommu): string | null => child(i.part.element, 'address')?.getAttribute('type') ?? null;

/** libvirt writes what more than 255 vCPUs need into the definition when the XML is silent. */
const filledIn = (t: Target): boolean => isQemu(t.domain) && !below(t.versions.libvirt, FILLED_IN_FROM);

const manyVcpus = (d: DomainFacts): boolean => isQemu(d) && isX86(d) && d.vcpus > MAX_VCPUS_WITHOUT_EIM;

type Switches = Record<'intremap' | 'eim' | 'xtsup', string | undefined>;

/** What libvirt's validators see, after it has filled in what more than 255 vCPUs need (qemu_postparse.c qemuDomainIOMMUDefPostParse). */
function effective(i: Iommu & { model: ViommuModel }, t: Target): Switches {
  const { intremap, eim, xtsup } = i.driver;
  const said = { intremap, eim, xtsup };
  if (!filledIn(t) || !manyVcpus(t.domain) || !isQ35(t.domain)) return said;
  if (i.model === 'intel') return { intremap: intremap ?? 'on', eim: eim ?? 'on', xtsup };
  const amd = i.model === 'amd' && !below(t.versions.libvirt, XTSUP_FROM);
  return amd ? { intremap: intremap ?? 'on', eim, xtsup: xtsup ?? 'on' } : said;
}

function ioapicFault(t: Target): Fault[] {
  const { domain } = t;
  const added = domain.iommus.length === 0 && manyVcpus(domain) && isQ35(domain) && filledIn(t);
  const remaps = known(domain).filter((i) => effective(i, t).intremap === 'on');
  if ((remaps.length === 0 && !added) || domain.ioapic === 'qemu') return [];
  if (domain.ioapic === null && filledIn(t)) return [];
  const has = domain.ioapic === null ? 'there is none' : `it has ioapic driver='${printable(domain.ioapic)}'`;
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

/** The most vCPUs of a machine type: hw/i386/pc_q35.c, pc_piix.c, hw/arm/virt.c; null is not known. */
function machineLimit(d: DomainFacts, qemu: Version | null): number | null {
  if (isArmVirt(d)) return 512;
  if (!isX86(d)) return null;
  if (d.machine === null || d.machine === 'pc' || d.machine.startsWith('pc-i440fx-')) return 255;
  if (!isQ35(d)) return null;
  const named = parseVersion(/^pc-q35-(.*)$/.exec(d.machine)?.[1] ?? '') ?? (d.machine === 'q35' ? qemu : null);
  if (named === null) return null;
  return named < version('8.1.0') ? 288 : named < version('9.1.0') ? 1024 : 4096;
}

/** The version that a machine type is named after, or null. */
const machineVersion = (machine: string | null): Version | null =>
  parseVersion(/^(?:pc-q35|pc-i440fx|virt)-(\d+\.\d+(?:\.\d+)?)$/.exec(machine ?? '')?.[1] ?? '');

/** The default width of intel-iommu in a domain: by its machine type (QEMU's compatibility properties), else by QEMU. */
function defaultIntelBits(d: DomainFacts, qemu: Version | null): number | null {
  const v = machineVersion(d.machine) ?? qemu;
  return v === null ? null : v < AW_BITS_48_QEMU ? 39 : 48;
}

/** The width of I/O addresses that a domain's intel-iommu will have; null is not known, or there is none. */
export function intelAddressBits({ domain, versions }: Target): number | null {
  const intel = known(domain).find((i) => i.model === 'intel');
  if (!intel) return null;
  const given = Number(intel.driver.aw_bits ?? 0);
  return given > 0 ? given : defaultIntelBits(domain, versions.qemu);
}

const VALIDATE = 'libvirt conf/domain_validate.c';
const QEMU_VALIDATE = 'libvirt qemu/qemu_validate.c';

export const VIOMMU_RULES: readonly Rule[] = [
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
        : [{ part: domain.iommus[0] ?? null, cause: `the domain is of type '${printable(domain.type)}'` }],
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
        if (i.model === null) return [{ part: i.part, cause: `'${printable(i.modelText)}' is no model` }];
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
    id: 'viommu-several',
    stage: 'start',
    holds: 'where there are several <iommu>, all are smmuv3, each with a pciBus of its own',
    since: `libvirt ${formatVersion(SEVERAL_FROM)}`,
    source: `${VALIDATE} virDomainDefIOMMUValidate, which reports this and forgets to refuse it (measured: 12.8.0 defines two intel)`,
    fix: 'leave one, or give each smmuv3 its pciBus',
    check: ({ domain, versions }) => {
      const all = iommusOf(domain);
      if (all.length < 2 || below(versions.libvirt, SEVERAL_FROM)) return [];
      const odd = all.find((i) => i.model !== 'smmuv3' || i.driver.pciBus === undefined);
      if (odd)
        return [
          {
            part: odd.part,
            cause: `beside others, it is ${odd.modelText} ${odd.model === 'smmuv3' ? 'without pciBus' : ''}`.trim(),
          },
        ];
      const buses = all.map((i) => Number(i.driver.pciBus));
      const twice = all.find((_, n) => buses.indexOf(buses[n] ?? -1) !== n);
      return twice ? [{ part: twice.part, cause: `pciBus ${twice.driver.pciBus} is there twice` }] : [];
    },
  },
  {
    id: 'viommu-machine',
    stage: 'define',
    holds: 'intel and amd stand on q35, smmuv3 on Arm virt, virtio on either',
    since: null,
    source: `${QEMU_VALIDATE} qemuValidateDomainDeviceDefIOMMU (is only supported with … machines)`,
    fix: 'change the machine or the model',
    check: each((i, { domain }) => {
      if (!isQemu(domain)) return null;
      const { machine } = MODELS[i.model];
      const fits =
        machine === 'q35 or virt'
          ? isQ35(domain) || isArmVirt(domain)
          : machine === 'q35'
            ? isQ35(domain)
            : isArmVirt(domain);
      const is = domain.machine ?? "libvirt's default for it";
      return !fits && `model ${i.model} needs ${machine}; the domain is ${effectiveArch(domain)} with ${printable(is)}`;
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
      const driver = child(i.part.element, 'driver');
      const granule = driver && child(driver, 'granule');
      const size = granule?.getAttribute('size');
      if (!isQemu(domain) || i.model !== 'virtio' || !size || below(versions.libvirt, GRANULE.libvirt)) return null;
      const factor = KIB[(granule?.getAttribute('unit') ?? 'KiB').toLowerCase()];
      const kib = factor === undefined ? null : Number(size) * factor;
      return (
        (kib === null || ![4, 8, 16, 64].includes(kib)) &&
        `the granule is ${kib === null ? printable(size) : `${kib} KiB`}`
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
      return (
        (type === 'unassigned' || (type !== 'pci' && isQemu(domain))) && `its <address> is of type ${printable(type)}`
      );
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
      return Number(bus) !== 0 && `it is on bus ${printable(bus)}`;
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
    holds: 'ACPI on aarch64 needs UEFI',
    since: null,
    source: `${QEMU_VALIDATE} qemuValidateDomainDef (ACPI requires UEFI on this architecture)`,
    fix: "use <os firmware='efi'> or a pflash loader",
    check: ({ domain }) =>
      isQemu(domain) && domain.arch === 'aarch64' && domain.acpi && !domain.uefi
        ? [{ part: null, cause: 'there is <acpi/> and no UEFI' }]
        : [],
  },
  {
    id: 'ioapic-arch',
    stage: 'define',
    holds: 'only x86 has an I/O APIC',
    since: null,
    source: `${QEMU_VALIDATE} qemuValidateDomainDefFeatures (The 'ioapic' feature is not supported for architecture)`,
    fix: 'take <ioapic> out (Nova writes it on Arm too)',
    check: ({ domain }) =>
      isQemu(domain) && domain.ioapic !== null && !isX86(domain)
        ? [{ part: null, cause: `there is <ioapic> on ${effectiveArch(domain)}` }]
        : [],
  },
  {
    id: 'ioapic-schema',
    stage: 'define',
    holds: "<ioapic> has driver='qemu' or driver='kvm'",
    since: null,
    source: 'libvirt conf/schemas/domaincommon.rng features',
    fix: "write <ioapic driver='qemu'/>",
    check: ({ domain }) =>
      domain.ioapic === null || ['qemu', 'kvm'].includes(domain.ioapic)
        ? []
        : [{ part: null, cause: `its driver is '${printable(domain.ioapic)}'` }],
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
      return `${why} with ${intremap === undefined ? 'no intremap' : `intremap='${printable(intremap)}'`}`;
    }),
  },
  {
    id: 'vcpus-schema',
    stage: 'define',
    holds: '<vcpu> is a number from 1 on',
    since: null,
    source: 'libvirt conf/schemas/domaincommon.rng vcpu',
    fix: 'write how many vCPUs the guest can have',
    check: ({ domain }) => (domain.vcpus > 0 ? [] : [{ part: null, cause: 'it is not' }]),
  },
  {
    id: 'vcpus-machine',
    stage: 'define',
    holds:
      'the vCPUs are no more than the machine type has: pc 255; q35 288, 1024 from 8.1, 4096 from 9.1; Arm virt 512',
    since: null,
    source: `${QEMU_VALIDATE} qemuValidateDomainDef (Maximum CPUs greater than specified machine type limit; only supported on q35)`,
    fix: 'use fewer vCPUs, q35, or a newer machine type',
    check: ({ domain, versions }) => {
      const limit = isQemu(domain) ? machineLimit(domain, versions.qemu) : null;
      return limit !== null && domain.vcpus > limit
        ? [
            {
              part: null,
              cause: `${domain.vcpus} vCPUs on ${printable(domain.machine ?? 'the default machine')}, which has ${limit}`,
            },
          ]
        : [];
    },
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
  {
    id: 'vcpus-x2apic',
    stage: 'advice',
    holds: "more than 255 vCPUs get interrupts from devices only with intel's eim='on' or amd's xtsup='on'",
    since: `libvirt ${formatVersion(XTSUP_FROM)} no longer refuses it (measured: 12.8.0)`,
    source: `${QEMU_VALIDATE} qemuValidateDomainVCpuTopology`,
    fix: "use intel with eim='on' or amd with xtsup='on'",
    check: (t) => {
      if (!manyVcpus(t.domain) || below(t.versions.libvirt, XTSUP_FROM)) return [];
      const first = known(t.domain)[0];
      if (!first) return [];
      const fine =
        first.model === 'intel'
          ? effective(first, t).eim === 'on'
          : first.model === 'amd' && first.driver.xtsup !== 'off';
      return fine ? [] : [{ part: first.part, cause: `${t.domain.vcpus} vCPUs with ${first.model} and no x2APIC` }];
    },
  },
  {
    id: 'machine-version',
    stage: 'define',
    holds: 'the machine type is no newer than QEMU',
    since: null,
    source: `${QEMU_VALIDATE} qemuValidateDomainDef (does not support machine type)`,
    fix: 'use the machine type without a version, or a newer QEMU',
    check: ({ domain, versions }) => {
      const named = isQemu(domain) ? machineVersion(domain.machine) : null;
      const minor = versions.qemu === null ? null : Math.floor(versions.qemu / 1000) * 1000;
      return named !== null && minor !== null && named > minor
        ? [{ part: null, cause: `machine ${printable(domain.machine ?? '')} needs ${sinceQemu(named)}` }]
        : [];
    },
  },
  {
    id: 'intel-caching-mode',
    stage: 'assign',
    holds: "intel needs caching_mode='on' where the domain takes devices of the host",
    since: null,
    source:
      'QEMU hw/i386/intel_iommu.c vtd_iommu_notify_flag_changed (We need to set caching-mode=on for intel-iommu to enable device assignment)',
    fix: "add caching_mode='on' to its <driver>",
    check: each(
      (i, { domain }) =>
        i.model === 'intel' &&
        usesVfio(domain) &&
        i.driver.caching_mode !== 'on' &&
        `the domain takes ${domain.vfioDevices + domain.mdevs} device(s) of the host without it`,
    ),
  },
  {
    id: 'smmuv3-vfio',
    stage: 'assign',
    holds: "smmuv3 without accel='on' takes no devices of the host",
    since: null,
    source:
      'QEMU hw/arm/smmuv3.c smmuv3_notify_flag_changed (requires iommu MAP notifier which is not currently supported)',
    fix: "use virtio, or accel='on' where host and versions have it",
    check: each(
      (i, { domain }) =>
        i.model === 'smmuv3' && usesVfio(domain) && i.driver.accel !== 'on' && 'the domain takes devices of the host',
    ),
  },
  {
    id: 'amd-vfio',
    stage: 'assign',
    holds: 'amd takes no devices of the host',
    since: null,
    source:
      'QEMU hw/i386/amd_iommu.c amdvi_iommu_notify_flag_changed: needs the property dma-remap, which libvirt does not set (12.8.0)',
    fix: "use intel with caching_mode='on', or virtio",
    check: each((i, { domain }) => i.model === 'amd' && usesVfio(domain) && 'the domain takes devices of the host'),
  },
  {
    id: 'virtio-vfio',
    stage: 'advice',
    holds: `virtio with devices of the host needs QEMU ${formatVersion(VIRTIO_VFIO_QEMU)}`,
    since: sinceQemu(VIRTIO_VFIO_QEMU),
    source: 'QEMU hw/virtio/virtio-iommu.c: aw-bits and granule of 9.0, reserved regions of the host of 8.2',
    fix: "use intel with caching_mode='on', or a newer QEMU",
    check: each(
      (i, { domain, versions }) =>
        i.model === 'virtio' &&
        usesVfio(domain) &&
        below(versions.qemu, VIRTIO_VFIO_QEMU) &&
        'the guest may use I/O addresses that the host cannot map',
    ),
  },
  {
    id: 'intel-aw-bits',
    stage: 'start',
    holds: "intel's aw_bits is 39 or 48",
    since: null,
    source: 'QEMU hw/i386/intel_iommu.c vtd_decide_config (Supported values for aw-bits are: 39, 48)',
    fix: 'use 48, or 39 where the host has no more',
    check: each((i) => {
      const bits = Number(i.driver.aw_bits ?? 0);
      return (
        i.model === 'intel' &&
        bits !== 0 &&
        UINT8.test(i.driver.aw_bits ?? '') &&
        bits !== 39 &&
        bits !== 48 &&
        `aw_bits is ${bits}`
      );
    }),
  },
  {
    id: 'intel-eim-tcg',
    stage: 'start',
    holds: `eim='on' needs KVM before QEMU ${formatVersion(EIM_TCG_QEMU)}`,
    since: sinceQemu(EIM_TCG_QEMU),
    source: 'QEMU hw/i386/intel_iommu.c vtd_decide_config (eim=on requires accel=kvm,kernel-irqchip=split)',
    fix: "use type='kvm', or leave eim out",
    check: each(
      (i, { domain, versions }) =>
        i.model === 'intel' &&
        domain.type === 'qemu' &&
        i.driver.eim === 'on' &&
        below(versions.qemu, EIM_TCG_QEMU) &&
        "the domain is of type 'qemu'",
    ),
  },
  {
    id: 'smmuv3-pcibus',
    stage: 'start',
    holds: `pciBus needs QEMU ${formatVersion(SMMU_PER_BUS_QEMU)} and is the index of a PCI controller of the domain`,
    since: sinceQemu(SMMU_PER_BUS_QEMU),
    source: 'QEMU hw/arm/smmuv3.c primary-bus; libvirt docs/formatdomain: pciBus',
    fix: 'name the index of a pcie-root or pcie-expander-bus controller',
    check: each((i, { domain, versions }) => {
      const bus = i.driver.pciBus;
      if (i.model !== 'smmuv3' || bus === undefined || !UINT32.test(bus) || below(versions.libvirt, SEVERAL_FROM))
        return null;
      if (below(versions.qemu, SMMU_PER_BUS_QEMU)) return 'there is a pciBus';
      const there = domain.controllers.some(
        (c) =>
          c.element.getAttribute('type') === 'pci' && Number(c.element.getAttribute('index') ?? -1) === Number(bus),
      );
      return !there && Number(bus) !== 0 && `there is no PCI controller of index ${Number(bus)}`;
    }),
  },
  {
    id: 'virtio-ignored',
    stage: 'advice',
    holds: 'xtsup and passthrough do nothing for virtio',
    since: 'libvirt 11.5.0',
    source: `${VALIDATE} virDomainIOMMUDefValidate does not look (measured: 12.8.0)`,
    fix: 'leave them out',
    check: each((i, { versions }) => {
      const names = ['xtsup', 'passthrough'].filter((n) => i.driver[n] !== undefined);
      return (
        i.model === 'virtio' &&
        !below(versions.libvirt, version('11.5.0')) &&
        names.length > 0 &&
        `${names.join(' and ')} given`
      );
    }),
  },
  {
    id: 'viommu-virtio-devices',
    stage: 'advice',
    holds: "virtio devices go through the vIOMMU only with <driver iommu='on'/>",
    since: null,
    source: 'libvirt docs/formatdomain: Virtio-related options',
    fix: "add iommu='on' to their <driver>",
    check: ({ domain }) => {
      if (domain.iommus.length === 0) return [];
      const virtio = [
        ...domain.interfaces.filter((p) => child(p.element, 'model')?.getAttribute('type')?.startsWith('virtio')),
        ...domain.disks.filter((p) => child(p.element, 'target')?.getAttribute('bus') === 'virtio'),
      ].filter((p) => child(p.element, 'driver')?.getAttribute('iommu') !== 'on');
      return virtio.slice(0, 4).map((part) => ({ part, cause: 'it stays outside the vIOMMU' }));
    },
  },
];
