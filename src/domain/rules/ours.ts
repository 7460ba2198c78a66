/** What a domain takes from the host, and what that needs in the guest: the parts that are ours to judge. */
import type { Element } from '@xmldom/xmldom';
import type { DomainFacts, Part } from '../domainFacts.ts';
import { sinceLibvirt } from '../version.ts';
import { child, children } from '../xml/dom.ts';
import { type GrammarFault, worded } from './grammar.ts';
import type { Fault } from './rules.ts';

const ofType = (parts: readonly Part[], type: string): Part[] =>
  parts.filter((p) => p.element.getAttribute('type') === type);

export const pciHostdevs = (d: DomainFacts): Part[] =>
  ofType(d.hostdevs, 'pci').filter((p) => (p.element.getAttribute('mode') ?? 'subsystem') === 'subsystem');

export const hostdevInterfaces = (d: DomainFacts): Part[] => ofType(d.interfaces, 'hostdev');

export const nvmeDisks = (d: DomainFacts): Part[] => ofType(d.disks, 'nvme');

/** All that takes a PCI device of the host. */
export const hostParts = (d: DomainFacts): Part[] => [...pciHostdevs(d), ...hostdevInterfaces(d), ...nvmeDisks(d)];

/** The ports and buses behind which they stand. */
export const pciControllers = (d: DomainFacts): Part[] => ofType(d.controllers, 'pci');

export const sourceOf = (p: Part): Element | undefined => child(p.element, 'source');

export const sourceAddress = (p: Part): Element | undefined => {
  const source = sourceOf(p);
  return source && child(source, 'address');
};

/** An `<interface type='hostdev'>` whose source is a USB device. */
export const isUsb = (p: Part): boolean => {
  const source = sourceOf(p);
  return (
    sourceAddress(p)?.getAttribute('type') === 'usb' || (source !== undefined && child(source, 'vendor') !== undefined)
  );
};

export function vlanTags(p: Part): Element[] {
  const vlan = child(p.element, 'vlan');
  return vlan ? children(vlan, 'tag') : [];
}

/** virDomainNetIsVirtioModel */
export const isVirtioInterface = ({ element }: Part): boolean =>
  /^virtio(-transitional|-non-transitional)?$/.test(child(element, 'model')?.getAttribute('type') ?? '');

export const faults = (part: Part, causes: readonly string[]): Fault[] => causes.map((cause) => ({ part, cause }));

/**
 * Faults of each part of ours whose word another of `all` has too; where both are ours, of the later one. `word` null:
 * it has none.
 */
export function shared(
  mine: readonly Part[],
  all: readonly Part[],
  word: (p: Part) => string | null,
  cause: (word: string, other: Part) => string,
): Fault[] {
  const by = new Map<string, Part[]>();
  for (const p of all) {
    const w = word(p);
    if (w !== null) by.set(w, [...(by.get(w) ?? []).slice(0, 1), p]);
  }
  const left = new Set(mine.map((p) => p.element));
  return mine.flatMap((part) => {
    left.delete(part.element);
    const w = word(part);
    const other = w === null ? undefined : by.get(w)?.find((p) => p.element !== part.element);
    return w === null || other === undefined || left.has(other.element) ? [] : [{ part, cause: cause(w, other) }];
  });
}

/** What is wrong with a part of the domain, for a rule. */
export const faultsOf = (part: Part, faults: readonly GrammarFault[]): Fault[] =>
  faults.map((f) => ({
    part,
    cause: worded(f),
    ...('since' in f && f.since !== null ? { since: sinceLibvirt(f.since) } : {}),
  }));
