/**
 * Which PCI functions of the host a domain takes, read from its XML the way libvirt reads it
 * (virDomainHostdevDefParseXMLSubsys, virDomainNetDefParseXML, virHostdevGetNVMeDeviceList; libvirt 6.0 to 12).
 */

import type { Attr, Element } from '@xmldom/xmldom';
import { type Address, formatAddress } from '../pci/address.ts';
import { safe } from '../text/safe.ts';
import { child, children } from './xml/dom.ts';
import type { Domain } from './xml/domain.ts';
import { placeOf, xmlError } from './xml/parse.ts';

/** One PCI function that the domain takes. */
export type DomainDevice = {
  address: Address;
  kind: 'hostdev' | 'interface' | 'nvme';
  /** libvirt itself binds it before the start and gives it back after the stop. */
  managed: boolean;
  /** The host driver or module of `<driver model='…'>` (libvirt 10.0.0), null when libvirt is to choose. */
  model: string | null;
  /** `<address type='unassigned'/>` (libvirt 6.0.0): taken from the host but not shown to the guest. */
  unassigned: boolean;
  /** For messages, e.g. `hostdev 2 (line 57)`: counted from 1 among the domain's elements of that name. */
  where: string;
};

export type DomainDevices = {
  name: string;
  /** 36 characters, lower case; null when the XML has none (libvirt makes one at define). */
  uuid: string | null;
  /** In the order of the XML: all of hostdev, then interface, then disk. No address is there twice. */
  devices: DomainDevice[];
  /**
   * Sources of `<interface type='network'>`, each once: a network that is a pool of host devices turns into one at
   * start.
   */
  networks: string[];
  /** Host devices that are no PCI devices, e.g. `hostdev 1 (line 40): subsystem usb`. */
  ignored: string[];
};

/**
 * What the readers of the single kinds share: the name of the input for messages, and the answer under construction.
 */
type Reading = { what: string; devices: Map<Address, DomainDevice>; networks: Set<string>; ignored: string[] };

const LIMITS = { domain: 0xffffffff, bus: 0xff, slot: 0x1f, function: 7 } as const;

/**
 * virStrToLong_uip with base 0: hex with 0x, octal with a leading 0, else decimal; no sign, no other text around it.
 */
const NUMBER = /^(?:0x[0-9a-f]{1,16}|0[0-7]{0,21}|[1-9][0-9]{0,19})$/i;

/** What the kernel takes for a module's name (MODULE_NAME_LEN is 56); it becomes part of a path. */
const MODULE = /^[A-Za-z0-9_-]{1,55}$/;

const UUID = /^([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})$/;

const fail = (what: string, node: Element | Attr, reason: string): never => {
  throw xmlError(what, placeOf(node), reason);
};

/**
 * One part of an address. Only `domain` may be left out: libvirt takes 0 for any, which here would be another device.
 */
function part(what: string, address: Element, name: keyof typeof LIMITS): number {
  const attr = address.getAttributeNode(name);
  if (!attr) return name === 'domain' ? 0 : fail(what, address, `the PCI address has no attribute '${name}'`);
  const text = attr.value;
  if (!NUMBER.test(text)) fail(what, attr, `'${name}' of the PCI address is '${safe(text)}', which is no number`);
  const octal = text.length > 1 && text.startsWith('0') && !/^0x/i.test(text);
  const value = octal ? Number.parseInt(text, 8) : Number(text);
  const limit = LIMITS[name];
  if (value > limit) {
    fail(what, attr, `'${name}' of the PCI address is '${safe(text)}', above 0x${limit.toString(16)}`);
  }
  return value;
}

/** The host's address below `<source>`, canonical. */
export function sourceAddress(what: string, owner: Element, source: Element | undefined, where: string): Address {
  if (!source) return fail(what, owner, `${where} has no <source>`);
  const address = child(source, 'address');
  if (!address) return fail(what, source, `${where} has no <address> in its <source>`);
  return addressOf(what, address);
}

/** What an `<address>` names, canonical. Raises HOSTDEV_XML for one that is none. */
export const addressOf = (what: string, address: Element): Address =>
  formatAddress({
    domain: part(what, address, 'domain'),
    bus: part(what, address, 'bus'),
    slot: part(what, address, 'slot'),
    func: part(what, address, 'function'),
  });

function managedOf(what: string, element: Element): boolean {
  const attr = element.getAttributeNode('managed');
  if (!attr || attr.value === 'no') return false;
  return attr.value === 'yes' || fail(what, attr, `'managed' is '${safe(attr.value)}', neither yes nor no`);
}

function modelOf(what: string, element: Element): string | null {
  const attr = child(element, 'driver')?.getAttributeNode('model');
  if (!attr) return null;
  if (!MODULE.test(attr.value)) fail(what, attr, `'model' is '${safe(attr.value)}', no name of a driver or module`);
  return attr.value;
}

const unassignedOf = (element: Element): boolean => child(element, 'address')?.getAttribute('type') === 'unassigned';

const whereOf = (element: Element, index: number): string =>
  `${element.nodeName} ${index + 1} (line ${element.lineNumber ?? 1})`;

/**
 * Adds a device that is passed through whole: libvirt refuses it twice (`Hostdev already exists in the domain
 * configuration`).
 */
function add(to: Reading, element: Element, device: DomainDevice): void {
  const earlier = to.devices.get(device.address);
  if (earlier) fail(to.what, element, `${device.address} is listed twice: ${earlier.where} and ${device.where}`);
  to.devices.set(device.address, device);
}

function readHostdev(to: Reading, element: Element, where: string): void {
  const mode = element.getAttribute('mode') ?? 'subsystem';
  const type = element.getAttribute('type');
  if (mode === 'subsystem' && !type) fail(to.what, element, `${where} has no attribute 'type'`);
  if (mode !== 'subsystem' || type !== 'pci') {
    to.ignored.push(`${where}: ${safe(mode)} ${safe(type ?? '')}`.trimEnd());
    return;
  }
  const address = sourceAddress(to.what, element, child(element, 'source'), where);
  const managed = managedOf(to.what, element);
  const model = modelOf(to.what, element);
  add(to, element, { address, kind: 'hostdev', managed, model, unassigned: unassignedOf(element), where });
}

function readInterface(to: Reading, element: Element, where: string): void {
  const type = element.getAttribute('type');
  const source = child(element, 'source');
  if (type === 'network') {
    const network = source?.getAttribute('network');
    if (network) to.networks.add(network);
  }
  if (type !== 'hostdev') return;
  const address = sourceAddress(to.what, element, source, where);
  // Here the type of the device is the type of its address (virDomainNetDefParseXML), and only PCI is allowed.
  const addressType = source && child(source, 'address')?.getAttribute('type');
  if (addressType !== 'pci') fail(to.what, element, `${where} has an <address> in its <source> without type='pci'`);
  const managed = managedOf(to.what, element);
  add(to, element, { address, kind: 'interface', managed, model: modelOf(to.what, element), unassigned: false, where });
}

/** One NVMe layer of a disk. Each namespace is a disk of its own, so a controller may well be there several times. */
function readNvme(to: Reading, layer: Element, where: string): void {
  const source = child(layer, 'source');
  const address = sourceAddress(to.what, layer, source, where);
  const managed = source ? managedOf(to.what, source) : false;
  const earlier = to.devices.get(address);
  if (earlier?.kind !== 'nvme') {
    add(to, layer, { address, kind: 'nvme', managed, model: null, unassigned: false, where });
  } else if (earlier.managed !== managed) {
    fail(to.what, layer, `${address} is managed='yes' in one and 'no' in the other of ${earlier.where} and ${where}`);
  }
}

/**
 * A disk and what it is based on: libvirt takes the NVMe controllers of the whole chain (virHostdevGetNVMeDeviceList).
 */
function readDisk(to: Reading, disk: Element, where: string): void {
  for (let layer: Element | undefined = disk; layer; layer = child(layer, 'backingStore')) {
    if (layer.getAttribute('type') === 'nvme') readNvme(to, layer, where);
  }
}

function readName(what: string, domain: Element): string {
  const element = child(domain, 'name');
  if (!element) return fail(what, domain, 'the domain has no <name>');
  const name = element.textContent ?? '';
  if (name.length < 1 || name.length > 255) fail(what, element, `the name has ${name.length} characters, not 1 to 255`);
  if (/[\p{Cc}/]/u.test(name)) fail(what, element, `the name '${safe(name)}' has a / or a control character`);
  return name;
}

function readUuid(what: string, domain: Element): string | null {
  const element = child(domain, 'uuid');
  if (!element) return null;
  const text = (element.textContent ?? '').trim().toLowerCase();
  const parts = UUID.exec(text);
  return parts ? parts.slice(1).join('-') : fail(what, element, `'${safe(text)}' is no UUID`);
}

/**
 * What a domain takes. Only elements directly below `<domain><devices>` count, in no namespace, so metadata can't
 * smuggle a device in. Raises HOSTDEV_XML with line and column when the name or UUID is no such, a host device has no
 * source address or an impossible one, `managed` is neither yes nor no, or an address is listed twice.
 */
export function readDomainDevices({ root, what }: Domain): DomainDevices {
  const name = readName(what, root);
  const uuid = readUuid(what, root);
  const reading: Reading = { what, devices: new Map(), networks: new Set(), ignored: [] };
  const sections = children(root, 'devices');
  const each = (kind: string, read: (to: Reading, element: Element, where: string) => void): void => {
    const elements = sections.flatMap((s) => children(s, kind));
    for (const [i, element] of elements.entries()) read(reading, element, whereOf(element, i));
  };
  each('hostdev', readHostdev);
  each('interface', readInterface);
  each('disk', readDisk);
  return {
    name,
    uuid,
    devices: [...reading.devices.values()],
    networks: [...reading.networks],
    ignored: reading.ignored,
  };
}
