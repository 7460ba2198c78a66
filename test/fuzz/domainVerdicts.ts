/** Our verdict on domains beside that of a libvirt, and the smallest domain about which the two disagree. */
import { checkDomain } from '../../src/domain/checkDomain.ts';
import { readDomainFacts } from '../../src/domain/domainFacts.ts';
import type { Versions } from '../../src/domain/version.ts';
import { readDomain } from '../../src/domain/xml/domain.ts';
import { HostdevError } from '../../src/errors.ts';
import { fuzzDomains } from './generate.ts';
import { askLibvirt } from './judge.ts';
import { type Node, nameOf, nodesOf, shrunk, write } from './tree.ts';

export type Target = { uri: string; type: string; versions: Versions };
export type Disagreement = { id: string; tree: Node; libvirt: string | null; ours: string[] };

/** Why we say that libvirt refuses it; empty where it defines. */
export function ourFaults(xml: string, versions: Versions): string[] {
  try {
    const findings = checkDomain(readDomainFacts(readDomain(xml, 'fuzz')), versions);
    return findings.filter((f) => f.stage === 'define').map((f) => `${f.rule}: ${f.cause}`);
  } catch (error) {
    if (error instanceof HostdevError) return [`${error.code}: ${error.message}`];
    throw error;
  }
}

const CHUNK = 500;

async function compare(trees: { id: string; tree: Node }[], target: Target): Promise<Disagreement[]> {
  const found: Disagreement[] = [];
  for (let i = 0; i < trees.length; i += CHUNK) {
    const some = trees.slice(i, i + CHUNK);
    const xmls = some.map((t) => write(t.tree));
    const said = await askLibvirt(target.uri, some.map(nameOf), xmls);
    for (const [n, xml] of xmls.entries()) {
      const ours = ourFaults(xml, target.versions);
      const libvirt = said[n] ?? null;
      const { id, tree } = some[n] as (typeof some)[number];
      // A machine without that emulator judges nothing.
      if (libvirt?.includes('No emulator found')) continue;
      if ((libvirt === null) !== (ours.length === 0)) found.push({ id, tree, libvirt, ours });
    }
  }
  return found;
}

/** Two disagreements of one kind differ in numbers and names only. */
export const kindOf = (d: Disagreement): string =>
  d.libvirt === null
    ? `we refuse: ${d.ours[0]?.replace(/'[^']*'/g, "'…'").replace(/\d+/g, 'N')}`
    : `libvirt refuses: ${d.libvirt
        .replace(/'[^']*'/g, "'…'")
        .replace(/\d+/g, 'N')
        .slice(0, 200)}`;

/** Without these, every libvirt refuses a domain, and that says nothing of what was found. */
const whole = (tree: Node): boolean => {
  const filled = (name: string): boolean => nodesOf(tree).some((n) => n.name === name && n.children.length > 0);
  return ['name', 'memory', 'os', 'type'].every(filled) && tree.attributes.some(([n]) => n === 'type');
};

/** The smallest domain about which the two still disagree, in the same direction and for the same reason. */
export async function minimised(d: Disagreement, target: Target): Promise<Disagreement> {
  const bySchema = /Unable to validate/.test(d.libvirt ?? '');
  let now = d;
  for (;;) {
    const smaller = shrunk(now.tree)
      .filter(whole)
      .map((tree) => ({ id: d.id, tree }));
    const still = (await compare(smaller, target)).filter((s) => (s.libvirt === null) === (d.libvirt === null));
    // What the schema says depends on all that stands around it.
    const best = still.find((s) => (bySchema ? /Unable to validate/.test(s.libvirt ?? '') : kindOf(s) === kindOf(d)));
    if (!best) return now;
    now = best;
  }
}

/** All disagreements of `count` domains of a seed. */
export const disagreements = (seed: number, count: number, target: Target): Promise<Disagreement[]> =>
  compare(fuzzDomains(seed, count, target.type), target);
