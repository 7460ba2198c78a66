/**
 * Domain XML edited in its own text: what is not meant stays byte for byte, so comments, order, namespaces, metadata
 * and everybody else's elements are untouched. What was added goes away again without a trace: an element gets the line
 * end and indentation before it, and takes them along.
 */
import type { Element } from '@xmldom/xmldom';
import { children } from './dom.ts';
import type { Domain } from './domain.ts';
import type { SourceNode } from './source.ts';
import { formatXml, type Layout, type XmlElement } from './write.ts';

const UNIT = '  ';

const splice = (text: string, from: number, to: number, insert: string): string =>
  text.slice(0, from) + insert + text.slice(to);

/** The line end and indentation directly before `offset`; null when something else stands before it on its line. */
function lineStart(text: string, offset: number): { from: number; eol: string; indent: string } | null {
  let i = offset;
  while (text[i - 1] === ' ' || text[i - 1] === '\t') i -= 1;
  const eol = text.slice(i - 2, i) === '\r\n' ? '\r\n' : (text[i - 1] ?? '');
  if (i === 0 || !/^\r?\n?$/.test(eol)) return null;
  return { from: i - eol.length, eol, indent: text.slice(i, offset) };
}

/** The layout of what is written on lines of its own beside `node`; null when `node` has none. */
function layoutBeside({ text }: Domain, node: SourceNode, parent: SourceNode): Layout | null {
  const own = lineStart(text, node.start);
  if (!own) return null;
  const outer = lineStart(text, parent.start)?.indent ?? '';
  const deeper = own.indent.length > outer.length && own.indent.startsWith(outer);
  return { eol: own.eol, indent: own.indent, unit: deeper ? own.indent.slice(outer.length) : UNIT };
}

/** The end of a node and of the comments behind it on its line: they are about it. */
function endWithRemarks(text: string, node: SourceNode, siblings: readonly SourceNode[]): number {
  let { end } = node;
  for (const next of siblings.slice(siblings.indexOf(node) + 1)) {
    const gap = text.slice(end, next.start);
    if (next.kind !== 'comment' || /[^ \t]/.test(gap) || /[\r\n]/.test(text.slice(next.start, next.end))) break;
    end = next.end;
  }
  return /^[ \t]*[\r\n]/.test(text.slice(end, end + 256)) ? end : node.end;
}

/** The element of the DOM that `parent` has last of that name. */
const lastNamed = (parent: Element, name: string): Element | undefined => children(parent, name).at(-1);

/**
 * Writes elements below `parent`: behind the last one of the same name as the first of them, else behind all that is
 * there. On lines of their own where their neighbour is, else without any space. Returns the new text.
 */
function insertBelow(source: Domain, parent: Element, added: readonly XmlElement[]): string {
  const { text } = source;
  const into = source.at(parent);
  const like = lastNamed(parent, added[0]?.name ?? '');
  const beside = like ? source.at(like) : into.children.at(-1);
  if (beside) {
    // A last comment may stand behind an element on its line.
    const first = like ? beside : (into.children.findLast((n) => lineStart(text, n.start) !== null) ?? beside);
    const layout = layoutBeside(source, first, into);
    const lead = layout ? layout.eol + layout.indent : '';
    const end = layout ? endWithRemarks(text, beside, into.children) : beside.end;
    return splice(text, end, end, added.map((e) => lead + formatXml(e, layout)).join(''));
  }
  // Without any space: what removeElements leaves is then what was there, be it nothing or a line end.
  const compact = added.map((e) => formatXml(e, null)).join('');
  if (into.openEnd !== into.end) return splice(text, into.openEnd, into.openEnd, compact);
  const open = text.slice(into.start, into.end - 2);
  return splice(text, into.start, into.end, `${open}>${compact}</${parent.nodeName}>`);
}

/**
 * Writes a section that the domain does not have yet, `<devices>` or `<features>`, with its elements, behind the last
 * of the elements named in `after`, else behind the last in no other tool's namespace. Its elements always have lines
 * of their own: so removeElements knows that the section came with them.
 */
function insertSection(source: Domain, name: string, added: readonly XmlElement[], after: string[]): string {
  const { text, root } = source;
  const into = source.at(root);
  const before = lastOf(root, (e) => after.includes(e.nodeName)) ?? lastOf(root, (e) => !e.nodeName.includes(':'));
  const beside = before && source.at(before);
  const layout = beside ? layoutBeside(source, beside, into) : null;
  const eol = layout?.eol ?? '\n';
  const inner: Layout = { eol, indent: layout ? layout.indent + layout.unit : '', unit: layout?.unit ?? UNIT };
  const lines = added.map((e) => eol + inner.indent + formatXml(e, inner)).join('');
  const lead = layout ? eol + layout.indent : '';
  const section = `${lead}<${name}>${lines}${eol}${layout?.indent ?? ''}</${name}>`;
  const end = beside ? (layout ? endWithRemarks(text, beside, into.children) : beside.end) : into.openEnd;
  return splice(text, end, end, section);
}

function lastOf(root: Element, wanted: (e: Element) => boolean): Element | undefined {
  for (let n = root.lastChild; n; n = n.previousSibling) {
    if (n.nodeType === n.ELEMENT_NODE && wanted(n as Element)) return n as Element;
  }
  return undefined;
}

/** Writes elements into the domain's section of that name, which is made when there is none. Returns the new text. */
export function insertIntoSection(
  source: Domain,
  name: string,
  added: readonly XmlElement[],
  after: string[] = [],
): string {
  const section = children(source.root, name)[0];
  return section ? insertBelow(source, section, added) : insertSection(source, name, added, after);
}

/** What goes with an element: the line end and indentation before it, where it begins a line. */
const whole = (text: string, node: SourceNode): [number, number] => [
  lineStart(text, node.start)?.from ?? node.start,
  node.end,
];

/**
 * Takes elements out of one parent. A parent that has nothing but these, each on a line of its own, goes with them when
 * it is a section of the domain: that is what {@link insertSection} made, and for libvirt an empty one is none. Returns
 * the new text.
 */
export function removeElements(source: Domain, removed: readonly Element[]): string {
  const { text } = source;
  const nodes = removed.map(source.at).sort((a, b) => b.start - a.start);
  const parent = removed[0]?.parentNode;
  if (parent && parent !== source.root && parent.parentNode === source.root) {
    const section = source.at(parent as Element);
    if (isOnlyThese(text, section, nodes)) return splice(text, ...whole(text, section), '');
  }
  return nodes.reduce((t, node) => splice(t, ...whole(text, node), ''), text);
}

function isOnlyThese(text: string, section: SourceNode, nodes: readonly SourceNode[]): boolean {
  if (section.children.length !== nodes.length || nodes.some((n) => lineStart(text, n.start) === null)) return false;
  let rest = '';
  let from = section.openEnd;
  for (const n of section.children) {
    rest += text.slice(from, n.start);
    from = n.end;
  }
  return /^[ \t\r\n]*$/.test(rest + text.slice(from, section.closeStart));
}

/** Puts an element where another is, in its indentation. Returns the new text. */
export function replaceElement(source: Domain, old: Element, by: XmlElement): string {
  const node = source.at(old);
  const parent = old.parentNode as Element | null;
  const layout = parent && parent.nodeType === old.nodeType ? layoutBeside(source, node, source.at(parent)) : null;
  return splice(source.text, node.start, node.end, formatXml(by, layout));
}
