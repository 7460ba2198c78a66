/** A device in a domain's XML as libvirt gives it back: the alias that is ours, and whether all of it was kept. */
import type { Element } from '@xmldom/xmldom';
import { type Address, canonicalAddress } from '../../pci/address.ts';
import { child, children } from '../xml/dom.ts';
import type { Domain } from '../xml/domain.ts';
import type { XmlElement } from '../xml/write.ts';
import { deviceElements } from './devices.ts';

/**
 * The alias under which events name the device: libvirt's own (hostdev0) is the next device's soon. It keeps those that
 * begin with `ua-` and are of letters, digits, - and _ only (virDomainDeviceInfoParseXML); others it drops.
 */
export const ownAlias = (address: Address): string => `ua-hostdev-${address.replaceAll(/[:.]/g, '-')}`;

/**
 * The elements of a domain by the device that they are about: also of an interface that only sits on one (macvtap,
 * vDPA) and has our alias.
 */
export function pluggedElements(domain: Domain): Map<Address, Element> {
  const found = deviceElements(domain);
  for (const section of children(domain.root, 'devices'))
    for (const e of children(section, 'interface')) {
      const [, d, bus, slot, fn] = OWN_ALIAS.exec(child(e, 'alias')?.getAttribute('name') ?? '') ?? [];
      const address = canonicalAddress(`${d}:${bus}:${slot}.${fn}`);
      if (address !== null && !found.has(address)) found.set(address, e);
    }
  return found;
}

const OWN_ALIAS = /^ua-hostdev-([0-9a-f]{4,8})-([0-9a-f]{2})-([0-9a-f]{2})-([0-7])$/;

export const withAlias = (element: XmlElement, address: Address): XmlElement => ({
  ...element,
  children: [...(element.children ?? []), { name: 'alias', attributes: { name: ownAlias(address) } }],
});

/** libvirt leaves the attribute out of an interface where it is 'no' (virDomainNetDefFormat). */
const DEFAULTS: Readonly<Record<string, string>> = { managed: 'no' };

/**
 * What of the wanted element is not in the one that libvirt gives back, e.g. `vlan/tag id='5'`: it drops what it does
 * not know in silence.
 */
export function dropped(wanted: XmlElement, seen: Element): string[] {
  const attributes = Object.entries(wanted.attributes ?? {}).flatMap(([name, value]) =>
    value === undefined || (seen.getAttribute(name) ?? DEFAULTS[name]) === value ? [] : [`${name}='${value}'`],
  );
  const below = (wanted.children ?? []).flatMap((c) => {
    const all = children(seen, c.name).map((e) => dropped(c, e));
    const best = all.sort((a, b) => a.length - b.length)[0] ?? [''];
    return best.map((d) => (d === '' ? c.name : `${c.name}/${d}`));
  });
  return [...attributes, ...below];
}
