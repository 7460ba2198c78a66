/**
 * Grammars of what stands in several elements of a device, by libvirt's schema (conf/schemas/domaincommon.rng of 9.0.0,
 * 11.3.0 and 12.8.0).
 */
import type { Grammar } from './grammar.ts';
import { ALIAS_NAME, ANY, FILE, ON_OFF, PCI_ADDRESS, POSITIVE, YES_NO } from './values.ts';

export const EMPTY: Grammar = {};
export const ALIAS: Grammar = { attributes: { name: ALIAS_NAME }, required: ['name'] };
export const BOOT: Grammar = {
  attributes: { order: POSITIVE, loadparm: /^[a-zA-Z0-9.\s]{1,8}$/ },
  required: ['order'],
};
export const ROM: Grammar = { attributes: { enabled: YES_NO, bar: ON_OFF, file: FILE } };
export const ACPI_INDEX: Grammar = { attributes: { index: POSITIVE } };
export const VIRTIO_OPTIONS = { iommu: ON_OFF, ats: ON_OFF, packed: ON_OFF, page_per_vq: ON_OFF };

/** Types of an `<address>` in the guest that are not PCI's: what they hold is not looked into. */
const OTHER_ADDRESS = /^(drive|virtio-serial|ccid|usb|spapr-vio|ccw|isa|dimm|virtio-mmio)$/;
const PCI: Grammar = {
  attributes: { type: ANY, ...PCI_ADDRESS },
  children: { zpci: { attributes: { uid: ANY, fid: ANY } } },
};
const UNASSIGNED: Grammar = { attributes: { type: ANY } };

/** The address of a device in the guest, by its type: null is not looked into, undefined is no type that there is. */
export function guestAddressGrammar(type: string | null): Grammar | null | undefined {
  if (type === 'pci') return PCI;
  if (type === 'unassigned') return UNASSIGNED;
  return OTHER_ADDRESS.test(type ?? '') ? null : undefined;
}
