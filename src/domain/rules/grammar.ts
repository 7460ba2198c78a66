/** What an element may hold, as libvirt's RelaxNG says it, and where one holds something else. */
import type { Element } from '@xmldom/xmldom';
import { safe } from '../../text/safe.ts';
import { elements, hasText } from '../xml/dom.ts';

/** What an element may have. An element that the table names without a grammar (null) is not looked into. */
export type Grammar = {
  /** The value of each attribute by pattern. */
  attributes?: Record<string, RegExp>;
  /** Those of them that must be there. */
  required?: readonly string[];
  children?: Record<string, Grammar | null>;
  /** Those of them that must be there. */
  needs?: readonly string[];
  /** Those of them that may be there more than once. */
  many?: readonly string[];
  /** Namespaces of which an element may stand here; not looked into. */
  foreign?: readonly string[];
  /** The text, where the element has one; without it only blanks may stand there. */
  text?: RegExp;
  /** True where attributes and children that are not named are not judged: a newer schema may know them. */
  open?: boolean;
};

/** Bounds on what a hostile document can make us say. */
const MAX_FAULTS = 8;

const ofLibvirt = (e: Element): boolean => e.namespaceURI === null;

function attributeFaults(e: Element, g: Grammar): string[] {
  const name = safe(e.nodeName);
  const found: string[] = [];
  for (let i = 0; i < e.attributes.length; i += 1) {
    const a = e.attributes.item(i);
    if (!a || a.name === 'xmlns' || a.name.startsWith('xmlns:')) continue;
    const known = a.namespaceURI === null && g.attributes !== undefined && Object.hasOwn(g.attributes, a.name);
    const pattern = known ? g.attributes?.[a.name] : undefined;
    if (!pattern && g.open && a.namespaceURI === null) continue;
    if (!pattern) found.push(`<${name}> has no attribute '${safe(a.name)}'`);
    else if (!pattern.test(a.value)) {
      found.push(`'${safe(a.value)}' is no value for the attribute '${a.name}' of <${name}>`);
    }
  }
  for (const n of g.required ?? []) if (!e.hasAttribute(n)) found.push(`<${name}> needs the attribute '${n}'`);
  return found;
}

/** Where `e` and what is in it are not of the grammar: one sentence each, the first few. */
export function grammarFaults(e: Element, g: Grammar): string[] {
  const name = safe(e.nodeName);
  const found = attributeFaults(e, g);
  const seen = new Set<string>();
  for (const c of elements(e)) {
    if (found.length >= MAX_FAULTS) break;
    const child = c.nodeName;
    const known = ofLibvirt(c) && g.children !== undefined && Object.hasOwn(g.children, child);
    if (!known) {
      if (c.namespaceURI !== null && g.foreign?.includes(c.namespaceURI)) continue;
      if (!(g.open && ofLibvirt(c))) found.push(`<${name}> has no element <${safe(child)}>`);
      continue;
    }
    if (seen.has(child) && !g.many?.includes(child)) found.push(`<${child}> is there twice in <${name}>`);
    seen.add(child);
    const inside = g.children?.[child];
    if (inside) found.push(...grammarFaults(c, inside));
  }
  for (const n of g.needs ?? []) if (!seen.has(n)) found.push(`<${name}> needs <${n}>`);
  if (g.text === undefined ? hasText(e) : !g.text.test(e.textContent ?? '')) {
    found.push(
      g.text === undefined
        ? `<${name}> has text in it`
        : `'${safe((e.textContent ?? '').slice(0, 64))}' is no value for <${name}>`,
    );
  }
  return found.slice(0, MAX_FAULTS);
}
