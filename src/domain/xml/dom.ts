/** Walking a DOM the way libvirt's XPath looks at a domain: elements in no namespace, in their order. */
import type { Document, Element } from '@xmldom/xmldom';

/** All child elements, of whatever name and namespace. */
export function elements(parent: Document | Element): Element[] {
  const found: Element[] = [];
  for (let n = parent.firstChild; n; n = n.nextSibling) if (n.nodeType === n.ELEMENT_NODE) found.push(n as Element);
  return found;
}

/** The elements of that name directly below `parent`, in no namespace: libvirt's own look at a domain. */
export const children = (parent: Element, name: string): Element[] =>
  elements(parent).filter((e) => e.namespaceURI === null && e.nodeName === name);

/** The first one, as libvirt's XPath takes it. */
export const child = (parent: Element, name: string): Element | undefined => children(parent, name)[0];

/** Whether text stands directly in an element that is more than XML's blanks. */
export function hasText(e: Element): boolean {
  for (let n = e.firstChild; n; n = n.nextSibling) {
    const isText = n.nodeType === n.TEXT_NODE || n.nodeType === n.CDATA_SECTION_NODE;
    if (isText && /[^ \t\r\n]/.test(n.nodeValue ?? '')) return true;
  }
  return false;
}
