/** What of a domain hostdev judges and answers for; and a copy of a domain without that, for who judges the rest. */
import type { Element } from '@xmldom/xmldom';
import { child, children, elements } from './xml/dom.ts';
import { type Domain, edited } from './xml/domain.ts';
import { removeElements } from './xml/edit.ts';

/** A PCI device of the host, by whichever element it is given, or a vIOMMU. */
export function isOurs(e: Element): boolean {
  if (e.namespaceURI !== null) return false;
  const type = e.getAttribute('type');
  switch (e.nodeName) {
    case 'hostdev':
      return type === 'pci';
    case 'interface':
      return type === 'hostdev';
    case 'disk':
      return isOnNvme(e);
    default:
      return e.nodeName === 'iommu';
  }
}

function isOnNvme(disk: Element): boolean {
  for (let layer: Element | undefined = disk; layer; layer = child(layer, 'backingStore'))
    if (layer.getAttribute('type') === 'nvme') return true;
  return false;
}

/**
 * The domain without what is ours and without its other host devices, and how many elements that were. libvirtd 9.0.0
 * refuses plain PCI hostdevs when it is asked for QEMU's words, and dies of a SCSI one; 11.3.0's dies of an interface.
 */
export function withoutOurs(domain: Domain): { rest: Domain; removed: number } {
  let rest = domain;
  let removed = 0;
  // A section at a time: the places of a second one are others once the first has changed.
  const next = (): Element[] =>
    children(rest.root, 'devices')
      .map((s) => elements(s).filter((e) => isOurs(e) || e.nodeName === 'hostdev'))
      .find((found) => found.length > 0) ?? [];
  for (let found = next(); found.length > 0; found = next()) {
    removed += found.length;
    rest = edited(rest, (source) => removeElements(source, found));
  }
  return { rest, removed };
}
