/** `<hostdev>` of the kinds that are no PCI device: USB, SCSI, vhost-scsi, mediated devices, and what containers take. That of a PCI device has rules of its own. */
import type { Element } from '@xmldom/xmldom';
import type { Version } from '../version.ts';
import { child } from '../xml/dom.ts';
import type { Grammar } from './grammar.ts';
import { ALIAS, acpiIndexGrammar, any, BOOT, EMPTY, isNewer, ROM, UUID } from './shapes.ts';
import { ANY, MANAGED, ON_OFF, YES_NO } from './values.ts';

const MDEV_ADDRESS: Grammar = { attributes: { uuid: UUID }, required: ['uuid'] };

const USB_ID: Grammar = { attributes: { id: /^(0x)?[0-9a-fA-F]{1,4}$/ }, required: ['id'] };
const USB_NUMBER = /^(0x)?[0-9a-fA-F]{1,3}$/;
const USB_ADDRESS: Grammar = { attributes: { bus: USB_NUMBER, device: USB_NUMBER }, required: ['bus', 'device'] };
const USB_SOURCE: Grammar = {
  attributes: { startupPolicy: /^(mandatory|requisite|optional)$/, guestReset: /^(off|uninitialized|on)$/ },
  children: {
    vendor: USB_ID,
    product: USB_ID,
    address: USB_ADDRESS,
  },
};

/** The source of an interface that is a USB device: by its address, which says so, or by its name, with or without one. */
export const usbInterfaceSource = (byAddress: boolean): Grammar => ({
  attributes: { missing: YES_NO },
  children: byAddress
    ? { address: { attributes: { type: ANY, bus: USB_NUMBER, device: USB_NUMBER }, required: ['bus', 'device'] } }
    : { vendor: USB_ID, product: USB_ID, address: USB_ADDRESS },
  needs: byAddress ? ['address'] : ['vendor', 'product'],
});

const SCSI_SOURCE: Grammar = {
  attributes: { protocol: /^adapter$/ },
  children: any(['adapter', 'address']),
  needs: ['adapter', 'address'],
};
const ISCSI_SOURCE: Grammar = {
  attributes: { protocol: /^iscsi$/, name: ANY },
  required: ['name'],
  children: any(['host', 'auth', 'initiator']),
  needs: ['host'],
  many: ['host'],
};

const SUBSYSTEMS: Record<string, Grammar> = {
  usb: { children: { source: USB_SOURCE } },
  scsi: {
    attributes: { sgio: /^(filtered|unfiltered)$/, rawio: YES_NO },
    children: { source: SCSI_SOURCE },
  },
  scsi_host: {
    attributes: { model: /^virtio(-transitional|-non-transitional)?$/ },
    children: {
      source: {
        attributes: { protocol: /^vhost$/, wwpn: /^naa\.[0-9a-fA-F]{16}$/ },
        required: ['protocol', 'wwpn'],
      },
    },
  },
  mdev: {
    attributes: { model: /^vfio-(pci|ccw|ap)$/, ramfb: ON_OFF, display: ON_OFF },
    required: ['model'],
    children: { source: { children: { address: MDEV_ADDRESS }, needs: ['address'] } },
  },
};
const CAPABILITIES: Record<string, Grammar> = {
  storage: { children: { source: { children: any(['block']), needs: ['block'] } } },
  misc: { children: { source: { children: any(['char']), needs: ['char'] } } },
  net: {
    children: { source: { children: any(['interface']), needs: ['interface'] }, ...any(['ip', 'route']) },
    many: ['ip', 'route'],
  },
};

/** The grammar of a `<hostdev>` by its mode and type; null where there is no such kind, or it is PCI. */
export function hostdevGrammar(e: Element, libvirt: Version | null): Grammar | null {
  const [mode, type] = [e.getAttribute('mode'), e.getAttribute('type') ?? ''];
  const kinds = mode === 'capabilities' ? CAPABILITIES : SUBSYSTEMS;
  const kind = Object.hasOwn(kinds, type) ? kinds[type] : undefined;
  if (!kind) return null;
  const isIscsi = type === 'scsi' && child(e, 'source')?.getAttribute('protocol') === 'iscsi';
  return {
    ...kind,
    attributes: {
      mode: /^(subsystem|capabilities)$/,
      type: ANY,
      ...(mode === 'capabilities' ? {} : { managed: MANAGED }),
      ...kind.attributes,
    },
    children: {
      ...kind.children,
      ...(isIscsi ? { source: ISCSI_SOURCE } : {}),
      ...any(['address']),
      acpi: acpiIndexGrammar(isNewer(libvirt)),
      alias: ALIAS,
      boot: BOOT,
      rom: ROM,
      readonly: EMPTY,
      shareable: EMPTY,
    },
    needs: ['source'],
    open: isNewer(libvirt),
  };
}
