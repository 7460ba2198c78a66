/** `<controller>` by its type. */

import type { Version } from '../version.ts';
import type { Grammar } from './grammar.ts';
import { ALIAS, acpiIndexGrammar, any, isNewer, later, SIZE, UNIT, VIRTIO_OPTIONS } from './shapes.ts';
import { ANY, ON_OFF } from './values.ts';

const PCI_MODELS =
  /^(pci-root|pcie-root|pci-bridge|dmi-to-pci-bridge|pcie-to-pci-bridge|pcie-root-port|pcie-switch-upstream-port|pcie-switch-downstream-port|pci-expander-bus|pcie-expander-bus)$/;
const UINT8 = /^(0x[0-9a-fA-F]{1,2}|0*(25[0-5]|2[0-4]\d|1?\d?\d))$/;

const CONTROLLER_ATTRIBUTES: Record<string, Record<string, RegExp>> = {
  fdc: {},
  sata: {},
  ccid: {},
  isa: {},
  scsi: {
    model:
      /^(auto|buslogic|lsilogic|lsisas1068|vmpvscsi|ibmvscsi|virtio-scsi|lsisas1078|virtio-transitional|virtio-non-transitional|ncr53c90|dc390|am53c974)$/,
  },
  usb: {
    model:
      /^(piix3-uhci|piix4-uhci|ehci|ich9-ehci1|ich9-uhci[123]|vt82c686b-uhci|pci-ohci|nec-xhci|none|qusb[12]|qemu-xhci)$/,
    ports: /^\d{1,10}$/,
  },
  ide: { model: /^(piix3|piix4|ich6)$/ },
  'virtio-serial': {
    model: /^virtio(-transitional|-non-transitional)?$/,
    ports: /^\d{1,10}$/,
    vectors: /^\d{1,10}$/,
  },
  xenbus: { maxGrantFrames: /^\d{1,10}$/, maxEventChannels: /^\d{1,10}$/ },
};

const COUNT = /^\d{1,10}$/;
const controllerDriver = (libvirt: Version | null): Grammar => ({
  attributes: {
    ...VIRTIO_OPTIONS,
    queues: COUNT,
    cmd_per_lun: COUNT,
    max_sectors: COUNT,
    ioeventfd: ON_OFF,
    iothread: COUNT,
  },
  children: any(later(libvirt, ['iothreads'])),
  open: isNewer(libvirt),
});

/** `<controller>` of another type than pci; null for a type that there is not. nvme: from 11.5.0 on. */
export function controllerGrammar(type: string | null, libvirt: Version | null): Grammar | null {
  if (type === 'pci') return pciControllerGrammar(libvirt);
  if (type === null || !Object.hasOwn(CONTROLLER_ATTRIBUTES, type))
    return type !== null && isNewer(libvirt) ? {} : null;
  return {
    attributes: { type: ANY, index: CONTROLLER_INDEX, ...CONTROLLER_ATTRIBUTES[type] },
    children: {
      ...any(['address', ...(type === 'usb' ? ['master'] : [])]),
      driver: controllerDriver(libvirt),
      acpi: acpiIndexGrammar(isNewer(libvirt)),
      alias: ALIAS,
    },
  };
}

/** virXMLPropInt: what the schema takes as unsignedInt, the parser takes as int. */
const CONTROLLER_INDEX =
  /^0*(\d{1,9}|1\d{9}|20\d{8}|21[0-3]\d{7}|214[0-6]\d{6}|2147[0-3]\d{5}|21474[0-7]\d{4}|214748[0-2]\d{3}|2147483[0-5]\d{2}|21474836[0-3]\d|214748364[0-7])$/;

/** `<controller type='pci'>` */
const pciControllerGrammar = (libvirt: Version | null): Grammar => ({
  attributes: { type: ANY, index: CONTROLLER_INDEX, model: PCI_MODELS },
  required: ['model'],
  children: {
    ...any(['address']),
    driver: controllerDriver(libvirt),
    acpi: acpiIndexGrammar(isNewer(libvirt)),
    alias: ALIAS,
    model: {
      attributes: {
        name: /^(spapr-pci-host-bridge|pci-bridge|i82801b11-bridge|pcie-pci-bridge|ioh3420|pcie-root-port|x3130-upstream|xio3130-downstream|pxb|pxb-pcie)$/,
      },
      required: ['name'],
    },
    target: {
      attributes: {
        chassisNr: UINT8,
        chassis: UINT8,
        port: UINT8,
        busNr: UINT8,
        index: UINT8,
        hotplug: ON_OFF,
        ...Object.fromEntries(later(libvirt, ['memReserve']).map((n) => [n, /^\d{1,20}$/])),
      },
      children: { node: { text: /^\s*\d{1,10}\s*$/ } },
    },
    pcihole64: { attributes: { unit: UNIT }, text: SIZE },
  },
  open: isNewer(libvirt),
});

/** ACPI's index; `nodeset` is a rule of its own. */
