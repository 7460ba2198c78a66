/**
 * A document together with where each of its elements stands in the text, so that an edit changes the bytes it means and no others. The places come
 * from the strict scanner, the meaning (namespaces, entities) from the DOM; both list elements in the same order.
 */
import type { Document, Element } from '@xmldom/xmldom';
import { HostdevError } from '../../errors.ts';
import { elements } from './dom.ts';
import { parseXml } from './parse.ts';
import { findXmlFault } from './scan.ts';

/** A piece of markup; offsets into the text as it was read, line ends untouched. */
export type SourceNode = {
  kind: 'element' | 'comment' | 'cdata' | 'instruction';
  start: number;
  end: number;
  /** Behind the start tag; `end` for a tag that closes itself, and for what is no element. */
  openEnd: number;
  /** Before the end tag; `end` likewise. */
  closeStart: number;
  children: SourceNode[];
};

export type XmlSource = {
  text: string;
  /** The name of the input, for messages. */
  what: string;
  root: Element;
  /** Where an element of the DOM stands. */
  at: (element: Element) => SourceNode;
};

const KINDS = { '!-': 'comment', '![': 'cdata', '?': 'instruction' } as const;

const kindOf = (text: string, start: number): SourceNode['kind'] =>
  KINDS[text.slice(start + 1, start + 3) as keyof typeof KINDS] ?? KINDS[text[start + 1] as '?'] ?? 'element';

/** The roots of `text`, which is well-formed and has `\n` for line ends: the one element, and comments and instructions beside it. */
function scan(text: string): SourceNode[] {
  const top: SourceNode[] = [];
  const open: SourceNode[] = [];
  findXmlFault(text, { depth: Number.MAX_SAFE_INTEGER, attributes: Number.MAX_SAFE_INTEGER }, (start, end) => {
    if (text[start + 1] === '/') {
      const closed = open.pop();
      if (closed) Object.assign(closed, { closeStart: start, end });
      return;
    }
    const node: SourceNode = {
      kind: kindOf(text, start),
      start,
      end,
      openEnd: end,
      closeStart: end,
      children: [],
    };
    (open.at(-1)?.children ?? top).push(node);
    if (node.kind === 'element' && text[end - 2] !== '/') open.push(node);
  });
  return top;
}

/** From offsets of the text with `\n` for every line end to those of the text as it was read, where some are `\r\n`. */
function rawOffsets(raw: string): (offset: number) => number {
  const dropped: number[] = [];
  for (let i = raw.indexOf('\r\n'); i >= 0; i = raw.indexOf('\r\n', i + 2)) dropped.push(i - dropped.length);
  return (offset) => {
    let low = 0;
    for (let high = dropped.length; low < high; ) {
      const middle = (low + high) >> 1;
      if ((dropped[middle] ?? 0) < offset) low = middle + 1;
      else high = middle;
    }
    return offset + low;
  };
}

function move(nodes: readonly SourceNode[], to: (offset: number) => number): void {
  for (const n of nodes) {
    Object.assign(n, { start: to(n.start), end: to(n.end), openEnd: to(n.openEnd), closeStart: to(n.closeStart) });
    move(n.children, to);
  }
}

function pair(parent: Document | Element, nodes: readonly SourceNode[], to: Map<Element, SourceNode>): void {
  const places = nodes.filter((n) => n.kind === 'element');
  for (const [i, element] of elements(parent).entries()) {
    const node = places[i];
    if (!node) throw new HostdevError('HOSTDEV_INTERNAL', `The place of <${element.nodeName}> is not known`);
    to.set(element, node);
    pair(element, node.children, to);
  }
}

/** Parses `text` (decoded already) as {@link parseXml} does, and raises what it raises; `what` names it in messages. */
export function readXmlSource(text: string, what: string): XmlSource {
  const document = parseXml(text, what);
  const root = document.documentElement;
  if (!root) throw new HostdevError('HOSTDEV_XML', `${what}: there is no element`);
  const nodes = scan(text.includes('\r') ? text.replace(/\r\n?/g, '\n') : text);
  if (text.includes('\r\n')) move(nodes, rawOffsets(text));
  const places = new Map<Element, SourceNode>();
  pair(document, nodes, places);
  const at = (element: Element): SourceNode => {
    const node = places.get(element);
    if (!node) throw new HostdevError('HOSTDEV_INTERNAL', `The place of <${element.nodeName}> is not known`);
    return node;
  };
  return { text, what, root, at };
}
