/** What a rule of a domain is, and what it found. The rules themselves are in viommuRules.ts and deviceRules.ts. */
import type { Element } from '@xmldom/xmldom';
import { safe } from '../../text/safe.ts';
import type { DomainFacts, Part } from '../domainFacts.ts';
import { formatVersion, type Version, type Versions } from '../version.ts';
import { elements, hasText } from '../xml/dom.ts';

/**
 * When a broken rule shows: `define`: libvirt refuses the definition (VIR_DOMAIN_DEFINE_VALIDATE); `assign`: it is defined, but the guest cannot start with the
 * host's devices that it takes; `start`: QEMU will refuse it, whatever it takes; `advice`: it works, and not as meant.
 */
export type Stage = 'define' | 'assign' | 'start' | 'advice';

/** What a rule judges: a domain, and what it is to run on. */
export type Target = { domain: DomainFacts; versions: Versions };

/** One breach. `since` overrides the rule's own where it depends on what was found. */
export type Fault = { part: Part | null; cause: string; since?: string; fix?: string };

export type Rule = {
  id: string;
  stage: Stage;
  /** What must hold, as one sentence without a full stop. */
  holds: string;
  /** From which version it holds, or up to which; null: in all that hostdev knows (libvirt 6.0 and later). */
  since: string | null;
  /** File and function of libvirt or QEMU, or the document, that says so. */
  source: string;
  fix: string;
  check: (t: Target) => Fault[];
};

export type Finding = {
  rule: string;
  stage: Stage;
  /** "iommu (line 12)", or the domain as a whole. */
  where: string;
  line: number | null;
  column: number | null;
  cause: string;
  since: string | null;
  fix: string;
  source: string;
};

/** True when the version is known and below: what is not known is never held against a domain. */
export const below = (v: Version | null, from: Version): boolean => v !== null && v < from;

export const sinceLibvirt = (v: Version): string => `libvirt ${formatVersion(v)}`;
export const sinceQemu = (v: Version): string => `QEMU ${formatVersion(v)}`;

/** Runs rules over a domain: all findings, in the order of the rules. */
export function judgeDomain(rules: readonly Rule[], target: Target): Finding[] {
  return rules.flatMap((rule) =>
    rule.check(target).map((f) => ({
      rule: rule.id,
      stage: rule.stage,
      where: f.part?.where ?? 'domain',
      line: f.part?.place.line ?? null,
      column: f.part?.place.column ?? null,
      cause: f.cause,
      since: f.since ?? rule.since,
      fix: f.fix ?? rule.fix,
      source: rule.source,
    })),
  );
}

/** What an element may have by libvirt's schema: the value of each attribute by pattern, its children by name, each at most once. */
export type Shape = { attributes: Record<string, RegExp>; children: readonly string[] };

/** Bounds on what a hostile document can make us print. */
const MAX_SHOWN = 8;

/**
 * Where an element is not of its shape, as the schema would say it: unknown or malformed attributes, unknown or repeated children, text. Namespace declarations are
 * no attributes.
 */
export function shapeFaults(e: Element, shape: Shape): string[] {
  const faults: string[] = [];
  for (let i = 0; i < e.attributes.length; i += 1) {
    const a = e.attributes.item(i);
    if (!a || a.name === 'xmlns' || a.name.startsWith('xmlns:')) continue;
    const pattern =
      a.namespaceURI === null && Object.hasOwn(shape.attributes, a.name) ? shape.attributes[a.name] : null;
    if (!pattern) faults.push(`<${safe(e.nodeName)}> has no attribute '${safe(a.name)}'`);
    else if (!pattern.test(a.value)) {
      faults.push(`'${safe(a.value)}' is no value for the attribute '${a.name}' of <${safe(e.nodeName)}>`);
    }
  }
  const seen = new Set<string>();
  for (const c of elements(e)) {
    const name = c.nodeName;
    if (c.namespaceURI !== null || !shape.children.includes(name)) {
      faults.push(`<${safe(e.nodeName)}> has no element <${safe(name)}>`);
    } else if (seen.has(name)) faults.push(`<${safe(name)}> is there twice in <${safe(e.nodeName)}>`);
    seen.add(name);
  }
  if (hasText(e)) faults.push(`<${safe(e.nodeName)}> has text in it`);
  return faults.slice(0, MAX_SHOWN);
}
