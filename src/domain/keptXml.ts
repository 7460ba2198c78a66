/**
 * What libvirt made of a domain that it was given: each element and attribute of the one is looked for in the other.
 * What libvirt adds, or writes in another order, is no difference; nor is another way to write the same value.
 */
import type { Element } from '@xmldom/xmldom';
import { safe } from '../text/safe.ts';
import { bytesOf, partOf } from './domainFacts.ts';
import { isOurs } from './ourElements.ts';
import { elements, hasText } from './xml/dom.ts';
import type { Domain } from './xml/domain.ts';

/**
 * `ours`: it is of what hostdev answers for. `attribute` null: the element, or its text. `kept` null: it is not there.
 */
export type Difference = {
  ours: boolean;
  where: string;
  line: number;
  attribute: string | null;
  asked: string;
  kept: string | null;
};

const MAX_TEXT = 100;
const XMLNS = 'http://www.w3.org/2000/xmlns/';

/** What of `asked` is not in `kept`, or is otherwise there, in the order of the text. */
export function differences(asked: Domain, kept: Domain): Difference[] {
  const found: Difference[] = [];
  compare(asked.root, kept.root, false, found);
  return found;
}

function compare(asked: Element, kept: Element, within: boolean, found: Difference[]): void {
  const ours = within || isOursToKeep(asked);
  const tell = (of: Element, attribute: string | null, was: string, is: string | null): void => {
    const { where, place } = partOf(of, null);
    const isMine = ours || isOursToKeep(of);
    found.push({ ours: isMine, where, line: place.line, attribute, asked: safe(was, MAX_TEXT), kept: is });
  };
  for (const a of Array.from(asked.attributes)) {
    if (isLibvirts(asked, a.name) || a.namespaceURI === XMLNS) continue;
    const is = kept.getAttribute(a.name);
    if (is === null) tell(asked, a.name, a.value, null);
    else if (!sameValue(a.value, is) && !sameAmount(asked, kept, a.name))
      tell(asked, a.name, a.value, safe(is, MAX_TEXT));
  }
  if (hasText(asked) && elements(asked).length === 0) {
    const [was, is] = [textOf(asked), textOf(kept)];
    if (!sameValue(was, is) && !sameAmount(asked, kept, null)) tell(asked, null, was, safe(is, MAX_TEXT));
  }
  for (const [element, partner] of pairs(
    elements(asked).filter((e) => !isDropped(e)),
    elements(kept),
  )) {
    if (partner === null) tell(element, null, `<${element.nodeName}>`, null);
    else compare(element, partner, ours, found);
  }
}

const textOf = (e: Element): string => (e.textContent ?? '').trim();

/** What is ours, and what it needs besides. */
const isOursToKeep = (e: Element): boolean =>
  isOurs(e) || (e.namespaceURI === null && ['ioapic', 'locked'].includes(e.nodeName));

/** The number of the running guest, and words that a reader of the XML sets and a writer leaves out (`type='pci'`). */
const isLibvirts = (e: Element, attribute: string): boolean =>
  (attribute === 'id' && e.nodeName === 'domain') ||
  (attribute === 'type' && e.nodeName === 'address' && e.parentNode?.nodeName === 'source');

/**
 * Names that libvirt gave itself, for as long as a guest runs: it keeps only those that begin with `ua-`
 * (virDomainDeviceInfoParseXML). And a `<driver/>` that says nothing.
 */
const isDropped = (e: Element): boolean =>
  (e.nodeName === 'alias' && !(e.getAttribute('name') ?? '').startsWith('ua-')) ||
  (e.nodeName === 'driver' && e.attributes.length === 0 && elements(e).length === 0);

/** Decimal, or hex behind 0x: what PCI addresses are written in. */
const NUMBER = /^(?:0x[0-9a-f]{1,16}|\d{1,19})$/i;
/** MAC addresses and UUIDs, whose letters have no case. */
const HEX = /^[0-9a-f:-]+$/i;

function sameValue(a: string, b: string): boolean {
  if (a.trim() === b.trim()) return true;
  if (NUMBER.test(a) && NUMBER.test(b)) return BigInt(a) === BigInt(b);
  return HEX.test(a) && HEX.test(b) && a.replaceAll('-', '').toLowerCase() === b.replaceAll('-', '').toLowerCase();
}

/** A size in its unit: 1 GiB is 1048576 KiB. `attribute` null: the size is the text; the unit itself is no value. */
function sameAmount(a: Element, b: Element, attribute: string | null): boolean {
  if (!a.hasAttribute('unit') && !b.hasAttribute('unit')) return false;
  if (attribute === 'unit') return true;
  const amount = (e: Element): number | null =>
    bytesOf(attribute === null ? textOf(e) : e.getAttribute(attribute), e.getAttribute('unit'));
  const was = amount(a);
  return was !== null && was === amount(b);
}

/**
 * Each element with the one of the same name that has most in common with it; each of `kept` once, and those that came
 * back as they were before all others.
 */
function pairs(asked: readonly Element[], kept: readonly Element[]): [Element, Element | null][] {
  const wanted = asked.map((element) => ({ element, words: wordsOf(element) }));
  const left = kept.map((element) => ({ element, words: wordsOf(element) }));
  const found = new Map<Element, Element>();
  const take = (element: Element, i: number): void => {
    for (const { element: partner } of left.splice(i, 1)) found.set(element, partner);
  };
  for (const { element, words } of wanted) {
    const i = left.findIndex((k) => k.element.nodeName === element.nodeName && [...words].every((w) => k.words.has(w)));
    if (i >= 0) take(element, i);
  }
  for (const { element, words } of wanted) {
    if (found.has(element)) continue;
    const common = left.map((k) =>
      k.element.nodeName === element.nodeName ? [...words].filter((w) => k.words.has(w)).length : -1,
    );
    const most = Math.max(-1, ...common);
    if (most >= 0) take(element, common.indexOf(most));
  }
  return asked.map((element) => [element, found.get(element) ?? null]);
}

/** What an element says, a word for each attribute and text in it; numbers by their value. */
function wordsOf(element: Element): Set<string> {
  const words = new Set<string>();
  const plain = (v: string): string => (NUMBER.test(v) ? `${BigInt(v)}` : v.toLowerCase());
  const walk = (e: Element, path: string): void => {
    for (const a of Array.from(e.attributes)) words.add(`${path}@${a.name}=${plain(a.value)}`);
    const below = elements(e);
    if (below.length === 0 && hasText(e)) words.add(`${path}=${plain(textOf(e))}`);
    for (const b of below) walk(b, `${path}/${b.nodeName}`);
  };
  walk(element, '');
  return words;
}
