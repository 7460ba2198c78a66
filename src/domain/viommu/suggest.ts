/**
 * Which vIOMMU a domain should have: Nova's choice (nova.virt.libvirt.driver _get_iommu_model and _set_iommu) where the
 * target versions take it, and only the attributes that the chosen model takes there. Pure: facts in, an element as
 * data out.
 */
import { type DomainFacts, isArmVirt, isQ35, isQemu, isX86 } from '../domainFacts.ts';
import { below, formatVersion, type Version, type Versions } from '../version.ts';
import type { XmlElement } from '../xml/write.ts';
import {
  ATTRIBUTES,
  EIM_TCG_QEMU,
  isViommuModel,
  MAX_VCPUS_WITHOUT_EIM,
  MODELS,
  VIRTIO_VFIO_QEMU,
  type ViommuModel,
  XTSUP_FROM,
} from './models.ts';

/** What somebody asks for: Nova's values of hw:viommu_model, and amd. */
export const VIOMMU_WISHES = ['auto', 'intel', 'virtio', 'smmuv3', 'amd'] as const;
export type ViommuWish = (typeof VIOMMU_WISHES)[number];
export const isViommuWish = (word: string): word is ViommuWish => (VIOMMU_WISHES as readonly string[]).includes(word);

/** What the host can do, as far as it was measured; null as a whole when no host is to be asked. */
export type HostIommu = {
  /** The widest I/O address that every IOMMU unit of the host translates; null is not measured. */
  addressBits: number | null;
};

/**
 * What the domain must have elsewhere, or the element is refused: `path` below `<domain>`, the element to be there with
 * these attributes.
 */
export type Need = { path: string[]; element: XmlElement; reason: string };

export type ViommuSuggestion = {
  kind: 'suggestion';
  model: ViommuModel;
  element: XmlElement;
  /** Only what the domain lacks. */
  needs: Need[];
  reasons: string[];
  /** What to know besides; nothing that keeps the domain from being defined or started. */
  notes: string[];
};

export type ViommuRefusal = {
  kind: 'refusal';
  /** The rule (defineRules.ts, startRules.ts) that stands in the way. */
  rule: string;
  reason: string;
  fix: string;
};

export type ViommuDomain = Pick<
  DomainFacts,
  'type' | 'arch' | 'machine' | 'vcpus' | 'acpi' | 'ioapic' | 'uefi' | 'vfioDevices' | 'nvmeDisks' | 'mdevs'
>;

const refusal = (rule: string, reason: string, fix: string): ViommuRefusal => ({ kind: 'refusal', rule, reason, fix });

/** Anything that maps the guest's memory through VFIO and so must follow the guest's mappings. */
export const usesVfio = (d: Pick<DomainFacts, 'vfioDevices' | 'mdevs'>): boolean => d.vfioDevices + d.mdevs > 0;

/**
 * Suggests the vIOMMU of a domain. `versions` are the libvirt and QEMU it is for, `host` the IOMMU that its devices are
 * behind. An explicit wish is never turned into another model: where the target cannot have it, that is a refusal with
 * the way out.
 */
export function suggestViommu(
  domain: ViommuDomain,
  versions: Versions,
  host: HostIommu | null,
  wish: ViommuWish,
): ViommuSuggestion | ViommuRefusal {
  const refused = refuseDomain(domain, versions.libvirt);
  if (refused) return refused;
  const choice = isViommuModel(wish)
    ? { model: wish, reasons: [`model ${wish} was asked for`] }
    : choose(domain, versions);
  const { model } = choice;
  const fault = refuseModel(domain, versions, host, model);
  if (fault) return fault;
  const { driver, reasons } = driverOf(domain, versions, host, model);
  const element: XmlElement = {
    name: 'iommu',
    attributes: { model },
    children: Object.keys(driver).length > 0 ? [{ name: 'driver', attributes: driver, children: [] }] : [],
  };
  const needs = needsOf(domain, model, driver);
  return {
    kind: 'suggestion',
    model,
    element,
    needs,
    reasons: [...choice.reasons, ...reasons, ...needs.map((n) => n.reason)],
    notes: notesOf(domain, host, model),
  };
}

/** Nova's InvalidVIOMMUArchitecture and InvalidVIOMMUMachineType. */
function refuseDomain(d: ViommuDomain, libvirt: Version | null): ViommuRefusal | null {
  if (!isQemu(d)) {
    return refusal('viommu-driver', `the domain is of type '${d.type}'`, "only QEMU has vIOMMUs: type='kvm' or 'qemu'");
  }
  if (isX86(d) && !isQ35(d)) {
    const is = d.machine === null ? 'names no machine, which gives it i440FX' : `has the machine ${d.machine}`;
    return refusal('viommu-machine', `the domain ${is}, and no vIOMMU exists for it`, "use machine='q35'");
  }
  if (!isX86(d) && !isArmVirt(d, libvirt)) {
    return refusal(
      'viommu-machine',
      `no vIOMMU exists for ${d.arch ?? 'this architecture'}${d.machine === null ? '' : ` with machine ${d.machine}`}`,
      'only x86 with q35 and Arm with virt have one',
    );
  }
  return null;
}

/** Nova's auto, left where its choice could not work on the target. */
function choose(d: ViommuDomain, v: Versions): { model: ViommuModel; reasons: string[] } {
  const x86 = isX86(d);
  const other: ViommuModel = x86 ? 'intel' : 'smmuv3';
  if (x86 && d.vcpus > MAX_VCPUS_WITHOUT_EIM) {
    return {
      model: 'intel',
      reasons: [`auto is intel: ${d.vcpus} vCPUs need extended interrupt mode, which virtio does not have`],
    };
  }
  for (const [tool, mine] of [
    ['libvirt', v.libvirt],
    ['QEMU', v.qemu],
  ] as const) {
    const from = MODELS.virtio[tool === 'libvirt' ? 'libvirt' : 'qemu'];
    if (below(mine, from)) {
      return { model: other, reasons: [`auto is ${other}: virtio needs ${tool} ${formatVersion(from)}`] };
    }
  }
  if (x86 && usesVfio(d) && (v.qemu === null || v.qemu < VIRTIO_VFIO_QEMU)) {
    const what = v.qemu === null ? 'the version of QEMU is not known' : `QEMU is ${formatVersion(v.qemu)}`;
    return {
      model: 'intel',
      reasons: [
        `auto is intel: the domain takes devices of the host, and with them virtio needs QEMU ${formatVersion(VIRTIO_VFIO_QEMU)}; ${what}`,
      ],
    };
  }
  return {
    model: 'virtio',
    reasons: [`auto is virtio, as in Nova from libvirt ${formatVersion(MODELS.virtio.libvirt)} on`],
  };
}

function refuseModel(d: ViommuDomain, v: Versions, host: HostIommu | null, model: ViommuModel): ViommuRefusal | null {
  const row = MODELS[model];
  if (below(v.libvirt, row.libvirt)) {
    return refusal(
      'viommu-model',
      `model ${model} needs libvirt ${formatVersion(row.libvirt)}`,
      'choose another model, or auto',
    );
  }
  if (below(v.qemu, row.qemu)) {
    return refusal(
      'viommu-qemu',
      `model ${model} needs QEMU ${formatVersion(row.qemu)}`,
      'choose another model, or auto',
    );
  }
  const fits = row.machine === 'q35 or virt' || (row.machine === 'q35' ? isQ35(d) : isArmVirt(d, v.libvirt));
  if (!fits) {
    return refusal(
      'viommu-machine',
      `model ${model} is for ${row.machine} machines only`,
      'choose another model, or auto',
    );
  }
  if (isX86(d) && d.vcpus > MAX_VCPUS_WITHOUT_EIM && model === 'virtio') {
    return refusal(
      'vcpus-eim',
      `${d.vcpus} vCPUs need extended interrupt mode, which virtio does not have`,
      'choose intel',
    );
  }
  if (d.vcpus > MAX_VCPUS_WITHOUT_EIM && model === 'amd' && below(v.libvirt, XTSUP_FROM)) {
    return refusal(
      'vcpus-eim',
      `${d.vcpus} vCPUs with model amd need libvirt ${formatVersion(XTSUP_FROM)}`,
      'choose intel',
    );
  }
  if (
    isX86(d) &&
    d.vcpus > MAX_VCPUS_WITHOUT_EIM &&
    model === 'intel' &&
    d.type === 'qemu' &&
    below(v.qemu, EIM_TCG_QEMU)
  ) {
    return refusal(
      'intel-eim-tcg',
      `${d.vcpus} vCPUs need extended interrupt mode, which without KVM needs QEMU ${formatVersion(EIM_TCG_QEMU)}`,
      "use type='kvm', or 255 vCPUs",
    );
  }
  if (!usesVfio(d)) return null;
  if (model === 'smmuv3') {
    return refusal(
      'smmuv3-vfio',
      "QEMU's emulated smmuv3 does not tell VFIO of the guest's mappings, so a guest with devices of the host does not start",
      'choose virtio, or auto',
    );
  }
  if (model === 'amd') {
    return refusal(
      'amd-vfio',
      "QEMU's amd-iommu tells VFIO of the guest's mappings only with its property dma-remap, which libvirt cannot set",
      'choose intel or virtio, or auto',
    );
  }
  if (model === 'intel' && host?.addressBits != null && host.addressBits < 39) {
    return refusal(
      'intel-aw-bits',
      `the host's IOMMU has ${host.addressBits} address bits, and intel-iommu has 39 at the least`,
      'choose virtio',
    );
  }
  return null;
}

/** Nova's driver element without what the model or the target does not take. */
function driverOf(
  d: ViommuDomain,
  v: Versions,
  host: HostIommu | null,
  model: ViommuModel,
): { driver: Record<string, string>; reasons: string[] } {
  const driver: Record<string, string> = {};
  const reasons: string[] = [];
  const add = (name: string, value: string, why: string): void => {
    const from = ATTRIBUTES[name]?.models[model];
    if (from === undefined) return;
    if (below(v.libvirt, from)) {
      reasons.push(`${name} is left out: ${model} takes it from libvirt ${formatVersion(from)} on`);
      return;
    }
    driver[name] = value;
    reasons.push(`${name}='${value}': ${why}`);
  };
  if (model === 'intel') {
    add('intremap', 'on', 'interrupts of devices are remapped, and eim needs it');
    add('caching_mode', 'on', 'without it QEMU refuses to start a guest with devices of the host');
    const bits = usesVfio(d) && host?.addressBits != null && host.addressBits < 48 ? 39 : 48;
    add(
      'aw_bits',
      `${bits}`,
      bits === 48
        ? "Nova's width"
        : `the host's IOMMU has ${host?.addressBits} bits, and a wider guest would not start`,
    );
    if (d.type !== 'qemu' || !below(v.qemu, EIM_TCG_QEMU)) {
      add('eim', 'on', 'q35 has it, and more than 255 vCPUs need it');
    } else {
      reasons.push(`eim is left out: without KVM it needs QEMU ${formatVersion(EIM_TCG_QEMU)}`);
    }
    add('iotlb', 'on', 'virtio devices with ats can cache translations');
  } else if (model === 'amd') {
    add('intremap', 'on', 'interrupts of devices are remapped, and xtsup needs it');
    add('xtsup', 'on', 'x2APIC, which more than 255 vCPUs need');
  } else {
    reasons.push(`model ${model} takes none of the attributes that Nova writes`);
  }
  return { driver, reasons };
}

function needsOf(d: ViommuDomain, model: ViommuModel, driver: Record<string, string>): Need[] {
  const needs: Need[] = [];
  const feature = (name: string, attributes: Record<string, string>, reason: string): void => {
    needs.push({ path: ['features'], element: { name, attributes, children: [] }, reason });
  };
  if (model === 'virtio' && !d.acpi)
    feature('acpi', {}, 'acpi: the guest learns of virtio-iommu from an ACPI table (VIOT)');
  if (driver.intremap === 'on' && d.ioapic !== 'qemu') {
    feature('ioapic', { driver: 'qemu' }, "ioapic driver='qemu': interrupt remapping needs the I/O APIC in QEMU");
  }
  return needs;
}

function notesOf(d: ViommuDomain, host: HostIommu | null, model: ViommuModel): string[] {
  const notes = ["virtio devices go through the vIOMMU only with <driver iommu='on'/>"];
  if (usesVfio(d)) notes.push('devices get groups of their own only behind PCIe root ports of their own');
  if (model === 'virtio' && !d.acpi && !isX86(d) && !d.uefi) notes.push('on Arm, ACPI needs UEFI: <os firmware="efi">');
  if (model === 'intel' && usesVfio(d) && host?.addressBits == null) {
    notes.push("the address width of the host's IOMMU is not measured: if it is 39, aw_bits must be 39 too");
  }
  return notes;
}
