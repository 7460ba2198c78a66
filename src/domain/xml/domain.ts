/**
 * A domain's XML, read once: everything that is asked of a domain is asked of this value, and an edit gives a new one.
 */
import type { Element } from '@xmldom/xmldom';
import { HostdevError } from '../../errors.ts';
import { safe } from '../../text/safe.ts';
import { decodeXml, parseXml, placeOf, xmlError } from './parse.ts';
import { placesOf, type SourceNode } from './source.ts';

export type Domain = {
  /** As it was read, line ends untouched, without a byte order mark. */
  readonly text: string;
  /** The name of the input, for messages. */
  readonly what: string;
  /** The element `<domain>`. */
  readonly root: Element;
  /** Where an element of the DOM stands in `text`. */
  readonly at: (element: Element) => SourceNode;
};

/**
 * Reads a domain's XML: one scan and one DOM. `input` is text, or bytes in UTF-8 ({@link decodeXml}); `what` names it
 * in messages. Raises HOSTDEV_XML, with line and column, for what is not well-formed ({@link parseXml}) and for a root
 * that is not `<domain>` in no namespace.
 */
export function readDomain(input: Uint8Array | string, what: string): Domain {
  const text = typeof input === 'string' ? input : decodeXml(input, what);
  const marks: number[] = [];
  const document = parseXml(text, what, (start, end) => marks.push(start, end));
  const root = document.documentElement;
  if (!root) throw xmlError(what, { line: 1, column: 1 }, 'there is no element');
  if (root.nodeName !== 'domain' || root.namespaceURI !== null) {
    const is = `the root element is <${safe(root.nodeName)}> and not <domain> without a namespace`;
    throw xmlError(what, placeOf(root), is);
  }
  // Only an edit asks for places.
  let places: Map<Element, SourceNode> | null = null;
  const at = (element: Element): SourceNode => {
    places ??= placesOf(text, document, marks);
    const node = places.get(element);
    if (!node) throw new HostdevError('HOSTDEV_INTERNAL', `The place of <${element.nodeName}> is not known`);
    return node;
  };
  return { text, what, root, at };
}

/**
 * The domain after an edit of its text: itself when the edit changes nothing, else the result read again: an edit that
 * broke the document would be a fault of ours, seen here.
 */
export function edited(domain: Domain, edit: (domain: Domain) => string): Domain {
  const text = edit(domain);
  return text === domain.text ? domain : readDomain(text, domain.what);
}
