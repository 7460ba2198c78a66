/**
 * The shape of a domain around what it takes from the host, by libvirt's schema: conf/schemas/domaincommon.rng of 9.0.0, and what 11.3.0 has beside it. What the
 * rules are not about is named and not looked into.
 */

import { type Version, version } from '../version.ts';
import type { Grammar } from './grammar.ts';
import { ANY, DECIMAL_32, ON_OFF, PCI_ADDRESS, YES_NO } from './values.ts';

/** The last schema that these shapes were held against; what a newer one knows beside them is not refused. */
const LAST_SCHEMA = version('11.3.0');
const FIRST_SCHEMA = version('9.0.0');

export const isNewer = (libvirt: Version | null): boolean => libvirt === null || libvirt > LAST_SCHEMA;

/** Names that 9.0.0 does not have and 11.3.0 does: known unless libvirt is no newer than 9.0.0. */
export const later = (libvirt: Version | null, names: readonly string[]): readonly string[] =>
  libvirt !== null && libvirt <= FIRST_SCHEMA ? [] : names;

export const any = (names: readonly string[]): Record<string, null> => Object.fromEntries(names.map((n) => [n, null]));

/** From 1 to 4294967295 with digits alone: the schema's positiveInteger, the parser's unsigned int. */
export const POSITIVE = new RegExp(`^0*(?:${DECIMAL_32})$`);
/** The schema's UUID: with dashes or without. */
export const UUID = /^([a-fA-F0-9]{32}|[a-fA-F0-9]{8}-([a-fA-F0-9]{4}-){3}[a-fA-F0-9]{12})$/;
export const EMPTY: Grammar = {};

export const ALIAS: Grammar = { attributes: { name: /^[a-zA-Z0-9_\-.]+$/ }, required: ['name'] };
export const BOOT: Grammar = {
  attributes: { order: POSITIVE, loadparm: /^[a-zA-Z0-9.\s]{1,8}$/ },
  required: ['order'],
};
export const ROM: Grammar = { attributes: { enabled: YES_NO, bar: ON_OFF, file: /^(\/|[a-zA-Z]:\\)./ } };

/** ACPI's index; `nodeset` is a rule of its own. */
export const acpiIndexGrammar = (nodeset: boolean): Grammar => ({
  attributes: { index: POSITIVE, ...(nodeset ? { nodeset: ANY } : {}) },
});

export const UNIT = /^([bB]([yY][tT][eE][sS]?)?|[kKmMgGtTpPeE]([iI]?[bB])?)?$/;
export const SIZE = /^[ \t\r\n]*\d{1,20}$/;

export const VIRTIO_OPTIONS = { iommu: ON_OFF, ats: ON_OFF, packed: ON_OFF, page_per_vq: ON_OFF };

const UINT8_ADDRESS = /^(0x)?[0-9a-fA-F]{1,3}$/;

/** The address of a device in the guest, by its type; null for one that is none. */
export function guestAddressGrammar(type: string | null): Grammar | null {
  const attributes: Record<string, Record<string, RegExp>> = {
    pci: PCI_ADDRESS,
    drive: { controller: /^\d{1,2}$/, bus: /^\d{1,2}$/, target: /^\d{1,5}$/, unit: /^\d{1,10}$/ },
    'virtio-serial': { controller: /^\d{1,2}$/, bus: /^\d{1,2}$/, port: /^\d{1,2}$/ },
    ccid: { controller: /^\d{1,2}$/, slot: /^\d{1,2}$/ },
    usb: { bus: UINT8_ADDRESS, port: /^\d{1,3}(\.\d{1,3}){0,3}$/ },
    'spapr-vio': { reg: /^0x[0-9a-fA-F]{1,16}$/ },
    ccw: { cssid: ANY, ssid: ANY, devno: ANY },
    isa: { iobase: /^0x[a-fA-F0-9]{1,4}$/, irq: /^0x[a-fA-F0-9]$/ },
    dimm: { slot: /^\d{1,10}$/, base: /^0x[0-9a-fA-F]+$/ },
    'virtio-mmio': {},
    unassigned: {},
  };
  if (type === null || !Object.hasOwn(attributes, type)) return null;
  return {
    attributes: { type: ANY, ...attributes[type] },
    children: type === 'pci' ? { zpci: { attributes: { uid: ANY, fid: ANY } } } : {},
  };
}
