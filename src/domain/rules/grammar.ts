/**
 * What an element may hold, as libvirt's RelaxNG says it by version, and where one holds something else: as values,
 * worded in one place.
 */
import type { Element } from '@xmldom/xmldom';
import { safe } from '../../text/safe.ts';
import { below, sinceLibvirt, type Version } from '../version.ts';
import { elements, hasText } from '../xml/dom.ts';
import type { Value } from './values.ts';

/** An attribute by its value; with the libvirt from which there is one. */
type AttributeGrammar = Value | { value: Value; since: Version };

/** What an element may have. An element that the table names without a grammar (null) is not looked into. */
export type Grammar = {
  /** The libvirt from which the element is known where it stands. */
  since?: Version;
  attributes?: Readonly<Record<string, AttributeGrammar>>;
  /** Those of them that must be there. */
  required?: readonly string[];
  /** Those that must be there before a libvirt. */
  requiredBefore?: Readonly<Record<string, Version>>;
  children?: Readonly<Record<string, Grammar | null>>;
  /** Those of them that must be there. */
  needs?: readonly string[];
  /** Those of them that may be there more than once. */
  many?: readonly string[];
  /**
   * The last libvirt that this was held against: what a newer one, or one that is not known, has beside it is not
   * judged.
   */
  upTo?: Version;
};

/**
 * Where an element is not of its grammar. `name` is that of the attribute or child; `since` when there is such a thing.
 */
export type GrammarFault =
  | { kind: 'attribute' | 'element'; element: string; name: string; since: Version | null }
  | { kind: 'value'; element: string; name: string; value: string }
  | { kind: 'no-attribute'; element: string; name: string; since: Version | null }
  | { kind: 'no-element' | 'twice'; element: string; name: string }
  | { kind: 'text'; element: string };

/** Bounds on what a hostile document can make us say. */
const MAX_FAULTS = 8;

/** The one wording of each kind. */
export function worded(f: GrammarFault): string {
  const element = safe(f.element);
  if (f.kind === 'text') return `<${element}> has text in it`;
  const name = safe(f.name);
  const before = 'since' in f && f.since !== null ? ` before ${sinceLibvirt(f.since)}` : '';
  switch (f.kind) {
    case 'attribute':
      return `<${element}> has no attribute '${name}'${before}`;
    case 'element':
      return `<${element}> has no element <${name}>${before}`;
    case 'value':
      return `'${safe(f.value)}' is no value for the attribute '${name}' of <${element}>`;
    case 'no-attribute':
      return `<${element}> needs the attribute '${name}'${before}`;
    case 'no-element':
      return `<${element}> needs <${name}>`;
    case 'twice':
      return `<${name}> is there twice in <${element}>`;
  }
}

const own = <T>(table: Readonly<Record<string, T>> | undefined, name: string): T | undefined =>
  table !== undefined && Object.hasOwn(table, name) ? table[name] : undefined;

const isOpen = (g: Grammar, libvirt: Version | null): boolean =>
  g.upTo !== undefined && (libvirt === null || libvirt > g.upTo);

function attributeFaults(e: Element, g: Grammar, libvirt: Version | null): GrammarFault[] {
  const element = e.nodeName;
  const found: GrammarFault[] = [];
  for (const { name, value, namespaceURI } of e.attributes) {
    if (name === 'xmlns' || name.startsWith('xmlns:')) continue;
    const known = namespaceURI === null ? own(g.attributes, name) : undefined;
    if (known === undefined) {
      if (namespaceURI !== null || !isOpen(g, libvirt)) found.push({ kind: 'attribute', element, name, since: null });
      continue;
    }
    const { value: wanted, since } = 'since' in known ? known : { value: known, since: null };
    if (since !== null && below(libvirt, since)) found.push({ kind: 'attribute', element, name, since });
    else if (!wanted.test(value)) found.push({ kind: 'value', element, name, value });
  }
  for (const name of g.required ?? []) {
    if (!e.hasAttribute(name)) found.push({ kind: 'no-attribute', element, name, since: null });
  }
  for (const [name, since] of Object.entries(g.requiredBefore ?? {})) {
    if (!e.hasAttribute(name) && below(libvirt, since)) found.push({ kind: 'no-attribute', element, name, since });
  }
  return found;
}

/** Where `e` and what is in it are not of the grammar of a libvirt (null: not known); the first few. */
export function grammarFaults(e: Element, g: Grammar, libvirt: Version | null): GrammarFault[] {
  const element = e.nodeName;
  const found = attributeFaults(e, g, libvirt);
  const seen = new Set<string>();
  for (const c of elements(e)) {
    if (found.length >= MAX_FAULTS) break;
    const name = c.nodeName;
    const inside = c.namespaceURI === null ? own(g.children, name) : undefined;
    if (inside === undefined) {
      if (c.namespaceURI !== null || !isOpen(g, libvirt)) found.push({ kind: 'element', element, name, since: null });
      continue;
    }
    if (seen.has(name) && !g.many?.includes(name)) found.push({ kind: 'twice', element, name });
    seen.add(name);
    if (inside?.since !== undefined && below(libvirt, inside.since)) {
      found.push({ kind: 'element', element, name, since: inside.since });
    } else if (inside) found.push(...grammarFaults(c, inside, libvirt));
  }
  for (const name of g.needs ?? []) if (!seen.has(name)) found.push({ kind: 'no-element', element, name });
  if (hasText(e)) found.push({ kind: 'text', element });
  return found.slice(0, MAX_FAULTS);
}
