/** A domain as a tree that can be changed and written: what the fuzzer makes, mutates and shrinks. */

export type Node = { name: string; attributes: [name: string, value: string][]; children: (Node | string)[] };

/** An element; children that are '' are left out. */
export const el = (name: string, attributes: Record<string, string> = {}, children: (Node | string)[] = []): Node => ({
  name,
  attributes: Object.entries(attributes),
  children: children.filter((c) => c !== ''),
});

const escaped = (text: string): string =>
  text.replace(/[&<'\n\t]/g, (c) => (c === '&' ? '&amp;' : c === '<' ? '&lt;' : `&#${c.charCodeAt(0)};`));

/** The XML of a tree; strings among the children are written as they are. */
export function write(node: Node): string {
  const attributes = node.attributes.map(([n, v]) => ` ${n}='${escaped(v)}'`).join('');
  const inside = node.children.map((c) => (typeof c === 'string' ? c : write(c))).join('');
  return inside === '' ? `<${node.name}${attributes}/>` : `<${node.name}${attributes}>${inside}</${node.name}>`;
}

export const clone = (node: Node): Node => structuredClone(node);

/** All elements of a tree, the root first. */
export const nodesOf = (node: Node): Node[] => [
  node,
  ...node.children.flatMap((c) => (typeof c === 'string' ? [] : nodesOf(c))),
];

/** The name that undefine needs; the id where the domain lost its own. */
export function nameOf({ id, tree }: { id: string; tree: Node }): string {
  const name = nodesOf(tree).find((n) => n.name === 'name')?.children[0];
  return typeof name === 'string' && /^[\w-]+$/.test(name) ? name : id;
}

/** Every tree that is this one without one of its attributes or children. */
export function shrunk(root: Node): Node[] {
  const found: Node[] = [];
  const places = nodesOf(root).map((n) => [n.children.length, n.attributes.length] as const);
  for (const [at, [children, attributes]] of places.entries()) {
    for (let i = 0; i < children; i += 1) {
      const copy = clone(root);
      nodesOf(copy)[at]?.children.splice(i, 1);
      found.push(copy);
    }
    for (let i = 0; i < attributes; i += 1) {
      const copy = clone(root);
      nodesOf(copy)[at]?.attributes.splice(i, 1);
      found.push(copy);
    }
  }
  return found;
}

/** A linear congruential generator: the same domains in every node. */
export type Chance = {
  next: () => number;
  pick: <T>(list: readonly T[]) => T;
  /** `make()` with the probability `p`, else ''. */
  maybe: <T>(p: number, make: () => T) => T | '';
};

export function chance(seed: number): Chance {
  let state = seed & 0x7fffffff;
  const next = (): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (state >>> 8) / 0x800000;
  };
  return {
    next,
    pick: (list) => list[Math.floor(next() * list.length)] as (typeof list)[number],
    maybe: (p, make) => (next() < p ? make() : ''),
  };
}
