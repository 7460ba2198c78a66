/**
 * What of a domain the schema does not take. RelaxNG's own messages name the section at best ("Extra element devices in
 * interleave"), so the thing is looked for: the smallest element or attribute without which the domain passes.
 */
import type { Element } from '@xmldom/xmldom';
import { elements } from '../domain/xml/dom.ts';
import type { Domain } from '../domain/xml/domain.ts';

/** An element that the schema does not take, or an attribute of it. */
export type Culprit = { element: Element; attribute: string | null };

/** One that may be, and where it stands in the text. */
type Suspect = Culprit & { from: number; to: number };

/** Questions to the schema, which takes some 15 ms each: enough to find one of a million by halves. */
const MAX_ASKED = 64;

/** From here on halves are quicker than one by one. */
const FEW = 8;

const ATTRIBUTE = /[ \t\r\n]+([^\s=]+)[ \t\r\n]*=[ \t\r\n]*(?:"[^"]*"|'[^']*')/y;

/** What is directly in an element: its children and its attributes, namespaces apart. */
function suspectsIn({ text, at }: Domain, element: Element): Suspect[] {
  const found: Suspect[] = elements(element).map((e) => ({
    element: e,
    attribute: null,
    from: at(e).start,
    to: at(e).end,
  }));
  ATTRIBUTE.lastIndex = at(element).start + 1 + element.nodeName.length;
  for (
    let from = ATTRIBUTE.lastIndex, m = ATTRIBUTE.exec(text);
    m;
    from = ATTRIBUTE.lastIndex, m = ATTRIBUTE.exec(text)
  ) {
    const attribute = m[1] ?? '';
    if (!/^xmlns(:|$)/.test(attribute)) found.push({ element, attribute, from, to: ATTRIBUTE.lastIndex });
  }
  return found;
}

/** The text without these. */
function without(text: string, suspects: readonly Suspect[]): string {
  let left = '';
  let from = 0;
  for (const s of [...suspects].sort((a, b) => a.from - b.from)) {
    left += text.slice(from, s.from);
    from = s.to;
  }
  return left + text.slice(from);
}

/**
 * Looks for the culprit of a domain that does not pass; `passes` asks the schema about a text. Null where there are
 * several, or where it cannot be taken out: what is missing, for one.
 */
export async function findCulprit(domain: Domain, passes: (xml: string) => Promise<boolean>): Promise<Culprit | null> {
  let asked = 0;
  const clears = async (suspects: readonly Suspect[]): Promise<boolean> => {
    asked += 1;
    return asked <= MAX_ASKED && suspects.length > 0 && (await passes(without(domain.text, suspects)));
  };
  const among = async (suspects: readonly Suspect[]): Promise<Suspect | null> => {
    if (suspects.length > FEW && (await clears(suspects))) return halved(suspects, clears);
    for (const s of suspects) {
      if (asked >= MAX_ASKED) return null;
      if (await clears([s])) return s;
    }
    return null;
  };
  // What must be there cannot be taken out, and may hold the culprit all the same: a level deeper.
  const within = async (element: Element): Promise<Suspect | null> => {
    for (let level = [element]; level.length > 0 && asked < MAX_ASKED; level = level.flatMap(elements)) {
      const suspect = await among(level.flatMap((e) => suspectsIn(domain, e)));
      if (suspect) return suspect;
    }
    return null;
  };
  let found = await within(domain.root);
  for (let next = found; next !== null && next.attribute === null; ) {
    next = await within(next.element);
    found = next ?? found;
  }
  return found && { element: found.element, attribute: found.attribute };
}

/** One of them without which it passes, as it does without all; null where that takes several. */
async function halved(
  suspects: readonly Suspect[],
  clears: (suspects: readonly Suspect[]) => Promise<boolean>,
): Promise<Suspect | null> {
  let list = suspects;
  while (list.length > 1) {
    const middle = list.length >> 1;
    const [a, b] = [list.slice(0, middle), list.slice(middle)];
    const next = (await clears(a)) ? a : (await clears(b)) ? b : null;
    if (next === null) return null;
    list = next;
  }
  return list[0] ?? null;
}
