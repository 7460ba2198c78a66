/**
 * Where each element of a document stands in its text, so that an edit changes the bytes it means and no others. The
 * places come from the strict scanner, the meaning (namespaces, entities) from the DOM; both list elements in the same
 * order.
 */
import type { Document, Element } from '@xmldom/xmldom';
import { HostdevError } from '../../errors.ts';
import { elements } from './dom.ts';
import { unixLines } from './scan.ts';

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

const KINDS = { '!-': 'comment', '![': 'cdata', '?': 'instruction' } as const;

const kindOf = (text: string, start: number): SourceNode['kind'] =>
  KINDS[text.slice(start + 1, start + 3) as keyof typeof KINDS] ?? KINDS[text[start + 1] as '?'] ?? 'element';

/**
 * The roots of `text`, whose line ends are `\n`, by the places of its markup: the one element, comments and
 * instructions.
 */
function nested(text: string, marks: readonly number[]): SourceNode[] {
  const top: SourceNode[] = [];
  const open: SourceNode[] = [];
  for (let i = 0; i < marks.length; i += 2) {
    const start = marks[i] ?? 0;
    const end = marks[i + 1] ?? 0;
    if (text[start + 1] === '/') {
      const closed = open.pop();
      if (closed) Object.assign(closed, { closeStart: start, end });
      continue;
    }
    const node: SourceNode = { kind: kindOf(text, start), start, end, openEnd: end, closeStart: end, children: [] };
    (open.at(-1)?.children ?? top).push(node);
    if (node.kind === 'element' && text[end - 2] !== '/') open.push(node);
  }
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

/**
 * Where each element of `document` stands in `text`, as it was read. `marks` are the places at which each piece of
 * markup begins and ends, in their order, in the text with `\n` for line ends, as `parseXml` tells them.
 */
export function placesOf(text: string, document: Document, marks: readonly number[]): Map<Element, SourceNode> {
  const nodes = nested(unixLines(text), marks);
  if (text.includes('\r\n')) move(nodes, rawOffsets(text));
  const places = new Map<Element, SourceNode>();
  pair(document, nodes, places);
  return places;
}
