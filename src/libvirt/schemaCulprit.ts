/**
 * What of a domain the schema does not take. RelaxNG's own messages name the section at best ("Extra element devices in interleave"), so the thing is looked for:
 * the smallest element or attribute without which the domain passes.
 */
import { type Attr, type Element, XMLSerializer } from '@xmldom/xmldom';
import { elements } from '../domain/xml/dom.ts';

/** An element that the schema does not take, or an attribute of it. */
export type Culprit = { element: Element; attribute: string | null };

/** Something that can be taken out of the copy. */
type Thing = { owner: Element; node: Element | Attr };

/** Questions to the schema, which takes some 15 ms each: enough to find one of a million by halves. */
const MAX_ASKED = 64;

/** From here on halves are quicker than one by one. */
const FEW = 8;

const isAttribute = (node: Element | Attr): node is Attr => node.nodeType === node.ATTRIBUTE_NODE;

/** What is directly in an element: its children and its attributes, namespaces apart. */
const thingsIn = (owner: Element): Thing[] => [
  ...elements(owner).map((node) => ({ owner, node })),
  ...[...owner.attributes].filter((a) => !/^xmlns(:|$)/.test(a.name)).map((node) => ({ owner, node })),
];

/** Takes things out of their elements; returns how to put them back. */
function takeOut(things: readonly Thing[]): () => void {
  const back = things.map(({ owner, node }) => {
    if (isAttribute(node)) {
      owner.removeAttributeNode(node);
      return () => void owner.setAttributeNode(node);
    }
    const next = node.nextSibling;
    owner.removeChild(node);
    return () => void owner.insertBefore(node, next);
  });
  return () => {
    // What stood behind it has to be there again first.
    for (const undo of back.reverse()) undo();
  };
}

/**
 * Looks for the culprit of a document that does not pass; `passes` asks the schema. Null where there are several, or where it cannot be taken out: what is missing,
 * for one.
 */
export async function findCulprit(root: Element, passes: (xml: string) => Promise<boolean>): Promise<Culprit | null> {
  const copy = root.cloneNode(true) as Element;
  const originals = new Map<Element, Element>();
  const pair = (a: Element, b: Element): void => {
    originals.set(a, b);
    const there = elements(b);
    for (const [i, e] of elements(a).entries()) pair(e, there[i] as Element);
  };
  pair(copy, root);
  let asked = 0;
  const without = async (things: readonly Thing[]): Promise<boolean> => {
    asked += 1;
    if (asked > MAX_ASKED || things.length === 0) return false;
    const putBack = takeOut(things);
    const xml = new XMLSerializer().serializeToString(copy);
    putBack();
    return passes(xml);
  };
  const among = async (things: readonly Thing[]): Promise<Thing | null> => {
    if (things.length > FEW && (await without(things))) return halved(things, without);
    for (const thing of things) if (await without([thing])) return thing;
    return null;
  };
  // What must be there cannot be taken out, and may hold the culprit all the same: a level deeper.
  const within = async (e: Element): Promise<Thing | null> => {
    for (let level = [e]; level.length > 0; level = level.flatMap(elements)) {
      const thing = await among(level.flatMap(thingsIn));
      if (thing) return thing;
    }
    return null;
  };
  let found = await within(copy);
  for (let next = found; next !== null && !isAttribute(next.node); ) {
    next = await within(next.node);
    found = next ?? found;
  }
  if (found === null) return null;
  const holder = isAttribute(found.node) ? found.owner : found.node;
  const element = originals.get(holder);
  return element ? { element, attribute: isAttribute(found.node) ? found.node.name : null } : null;
}

/** One of `things` without which it passes, as it does without all of them; null where that takes several. */
async function halved(
  things: readonly Thing[],
  without: (things: readonly Thing[]) => Promise<boolean>,
): Promise<Thing | null> {
  let list = things;
  while (list.length > 1) {
    const middle = list.length >> 1;
    const halves = [list.slice(0, middle), list.slice(middle)];
    let next: readonly Thing[] | null = null;
    for (const half of halves) if (next === null && (await without(half))) next = half;
    if (next === null) return null;
    list = next;
  }
  return list[0] ?? null;
}
