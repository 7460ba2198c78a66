/**
 * What libvirt's `<iommu>` element can say, and since when: the data that both the suggestion and the rules are made
 * of. Sources: libvirt's formatdomain and NEWS (12.8.0), conf/domain_validate.c virDomainIOMMUDefValidate and
 * conf/schemas/domaincommon.rng of 9.0.0, 11.3.0 and 12.8.0.
 */
import { type Version, version } from '../version.ts';

export const VIOMMU_MODELS = ['intel', 'virtio', 'smmuv3', 'amd'] as const;
export type ViommuModel = (typeof VIOMMU_MODELS)[number];

export const isViommuModel = (word: string): word is ViommuModel => (VIOMMU_MODELS as readonly string[]).includes(word);

type ModelRow = {
  /** libvirt from which the model is known at all. */
  libvirt: Version;
  /** QEMU from which the device is what libvirt asks for. */
  qemu: Version;
  machine: 'q35' | 'virt' | 'q35 or virt';
  /** The model is a PCI function of the guest and may have an address. */
  pci: boolean;
  source: string;
};

export const MODELS: Record<ViommuModel, ModelRow> = {
  intel: {
    libvirt: version('2.1.0'),
    qemu: version('2.4.0'),
    machine: 'q35',
    pci: false,
    source: 'libvirt NEWS 2.1.0; qemu_validate.c qemuValidateDomainDeviceDefIOMMU',
  },
  virtio: {
    libvirt: version('8.3.0'),
    // The property boot-bypass, which libvirt insists on (QEMU_CAPS_VIRTIO_IOMMU_BOOT_BYPASS), and VIOT for q35.
    qemu: version('7.0.0'),
    machine: 'q35 or virt',
    pci: true,
    source: 'libvirt NEWS 8.3.0; qemu_validate.c qemuValidateDomainDeviceDefIOMMU',
  },
  smmuv3: {
    libvirt: version('5.5.0'),
    qemu: version('2.12.0'),
    machine: 'virt',
    pci: false,
    source: 'libvirt NEWS 5.5.0; qemu_validate.c qemuValidateDomainDeviceDefIOMMU',
  },
  amd: {
    libvirt: version('11.5.0'),
    // The property pci-id, which libvirt insists on (QEMU_CAPS_AMD_IOMMU_PCI_ID): not in 10.0.13, in 11.1.3 (measured);
    // upstream in 10.1.
    qemu: version('10.1.0'),
    machine: 'q35',
    pci: true,
    source: 'libvirt NEWS 11.5.0; qemu_validate.c qemuValidateDomainDeviceDefIOMMU',
  },
};

export type AttributeRow = {
  /**
   * libvirt from which the schema and the parser know the attribute; before it, VALIDATE refuses it and a plain define
   * drops it silently.
   */
  libvirt: Version;
  value: 'switch' | 'uint8' | 'uint' | 'int';
  /** The models that take it, each with the libvirt from which it does. */
  models: Partial<Record<ViommuModel, Version>>;
  text: string;
};

const only = (model: ViommuModel, from: string): AttributeRow['models'] => ({ [model]: version(from) });

const smmuAccel = (value: AttributeRow['value'], text: string): AttributeRow => ({
  libvirt: version('12.7.0'),
  value,
  models: only('smmuv3', '12.7.0'),
  text,
});

/** The attributes of `<iommu><driver>`. */
export const ATTRIBUTES: Record<string, AttributeRow> = {
  intremap: {
    libvirt: version('3.4.0'),
    value: 'switch',
    models: { intel: version('3.4.0'), amd: version('11.5.0') },
    text: 'interrupt remapping',
  },
  caching_mode: {
    libvirt: version('3.4.0'),
    value: 'switch',
    models: only('intel', '3.4.0'),
    text: 'the guest tells of new mappings too: what devices of the host need',
  },
  eim: {
    libvirt: version('3.4.0'),
    value: 'switch',
    models: only('intel', '3.4.0'),
    text: 'x2APIC: more than 255 vCPUs',
  },
  iotlb: {
    libvirt: version('3.5.0'),
    value: 'switch',
    models: { intel: version('3.5.0'), amd: version('11.5.0') },
    text: 'device IOTLB, for virtio devices with ats',
  },
  aw_bits: {
    libvirt: version('6.5.0'),
    value: 'uint8',
    models: { intel: version('6.5.0'), virtio: version('12.1.0') },
    text: 'width of I/O addresses',
  },
  dma_translation: {
    libvirt: version('10.7.0'),
    value: 'switch',
    models: only('intel', '10.7.0'),
    text: 'off: interrupts are remapped, DMA is not',
  },
  // The validator does not refuse xtsup and passthrough for virtio, where they do nothing (measured: 12.8.0).
  xtsup: {
    libvirt: version('11.5.0'),
    value: 'switch',
    models: { amd: version('11.5.0'), virtio: version('11.5.0') },
    text: 'x2APIC: more than 255 vCPUs',
  },
  passthrough: {
    libvirt: version('11.5.0'),
    value: 'switch',
    models: { amd: version('11.5.0'), virtio: version('11.5.0') },
    text: 'DMA is not translated',
  },
  pciBus: {
    libvirt: version('11.10.0'),
    value: 'uint',
    models: only('smmuv3', '11.10.0'),
    text: 'index of the PCIe controller that this SMMU stands before',
  },
  accel: smmuAccel('switch', "nested in the host's SMMU"),
  ats: smmuAccel('switch', 'address translation services; with accel'),
  ril: smmuAccel('switch', 'range invalidation; with accel'),
  ssidsize: smmuAccel('int', 'bits of a SubstreamID, 0 to 20; with accel'),
  oas: smmuAccel('int', 'bits of an output address; with accel'),
  cmdqv: smmuAccel('switch', "NVIDIA's command queues; with accel"),
};

/** `<driver><granule>` */
export const GRANULE = { libvirt: version('12.1.0'), models: only('virtio', '12.1.0') };

/** `<iommu>` has an address, an alias and acpi like other devices. */
export const DEVICE_INFO_FROM = version('8.3.0');

/** More than one `<iommu>`: each an SMMUv3 before a PCIe bus of its own. */
export const SEVERAL_FROM = version('11.10.0');
/**
 * libvirt adds what more than 255 vCPUs need, and the I/O APIC that interrupt remapping needs, when the XML is silent
 * (qemu_postparse.c).
 */
export const FILLED_IN_FROM = version('10.10.0');
/** xtsup counts for more than 255 vCPUs as eim does. */
export const XTSUP_FROM = version('12.2.0');
/**
 * virtio-iommu knows the reserved and reachable I/O addresses of host devices, and takes 39 or 48 bits instead of 64
 * (QEMU 9.0: aw-bits, granule=host).
 */
export const VIRTIO_VFIO_QEMU = version('9.0.0');
/**
 * intel-iommu's own default of aw-bits became 48 with the machine types of QEMU 9.2, and a host with fewer refuses
 * (qemu ddd84fd0c1, 77f6efc0ab).
 */
export const AW_BITS_48_QEMU = version('9.2.0');
/** A pluggable arm-smmuv3 with its own bus. */
export const SMMU_PER_BUS_QEMU = version('10.2.0');
/** TCG learnt x2APIC; before it eim=on needs KVM (hw/i386/intel_iommu.c vtd_decide_config). */
export const EIM_TCG_QEMU = version('9.0.0');
/** QEMU_MAX_VCPUS_WITHOUT_EIM (qemu_domain.h). */
export const MAX_VCPUS_WITHOUT_EIM = 255;
