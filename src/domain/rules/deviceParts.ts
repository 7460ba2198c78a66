/** What a domain takes from the host, as the rules look at it: PCI hostdevs, interfaces of type hostdev, NVMe disks. */
import type { Element } from '@xmldom/xmldom';
import type { DomainFacts, Part } from '../domainFacts.ts';
import { version } from '../version.ts';
import { child, children } from '../xml/dom.ts';
import { type Grammar, grammarFaults } from './grammar.ts';
import type { Fault } from './rules.ts';

export const DISPLAY_FROM = version('10.3.0');

export const ofType = (parts: readonly Part[], type: string): Part[] =>
  parts.filter((p) => p.element.getAttribute('type') === type);

export const pciHostdevs = (d: DomainFacts): Part[] =>
  ofType(d.hostdevs, 'pci').filter((p) => (p.element.getAttribute('mode') ?? 'subsystem') === 'subsystem');

export const hostdevInterfaces = (d: DomainFacts): Part[] => ofType(d.interfaces, 'hostdev');

export const nvmeDisks = (d: DomainFacts): Part[] => ofType(d.disks, 'nvme');

export const sourceOf = (p: Part): Element | undefined => child(p.element, 'source');

export const sourceAddress = (p: Part): Element | undefined => {
  const source = sourceOf(p);
  return source && child(source, 'address');
};

export function vlanTags(p: Part): Element[] {
  const vlan = child(p.element, 'vlan');
  return vlan ? children(vlan, 'tag') : [];
}

/** virDomainNetIsVirtioModel */
export const isVirtioInterface = ({ element }: Part): boolean =>
  /^virtio(-transitional|-non-transitional)?$/.test(child(element, 'model')?.getAttribute('type') ?? '');

export const faults = (part: Part, causes: readonly string[]): Fault[] => causes.map((cause) => ({ part, cause }));

/** What the elements directly in `e` are not by their grammars. */
export const childCauses = (e: Element, grammars: Record<string, Grammar>): string[] =>
  Object.entries(grammars).flatMap(([name, g]) => children(e, name).flatMap((c) => grammarFaults(c, g)));
