/** What a rule of a domain is, and what it found. */
import { advice, type Finding as Told } from '../../text/finding.ts';
import type { DomainFacts, Part } from '../domainFacts.ts';
import type { Versions } from '../version.ts';

/**
 * When a broken rule shows: `define`: libvirt refuses the definition (VIR_DOMAIN_DEFINE_VALIDATE); `assign`: it is
 * defined, but the guest cannot start with the host's devices that it takes; `start`: QEMU will refuse it, whatever it
 * takes; `advice`: it works, and not as meant.
 */
type Stage = 'define' | 'assign' | 'start' | 'advice';

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

/** Who found it: our own rules and what this host says; the schema of the installed libvirt; libvirt's parser. */
export type Judge = 'hostdev' | 'schema' | 'libvirt';

/** `id` is the rule; `object` is where: "iommu (line 12)", or the domain as a whole. */
export type Finding = Told & {
  judge: Judge;
  rule: string;
  stage: Stage;
  where: string;
  line: number | null;
  column: number | null;
  since: string | null;
  source: string;
};

/** The severity of each stage: what keeps a guest from being defined or from its devices is an error. */
const SEVERITY = { define: 'error', assign: 'error', start: 'warning', advice: 'note' } as const;

/** What a finding is made of; what is left out is null, and `fix` is said in words. */
type Found = Pick<Finding, 'rule' | 'stage' | 'where' | 'cause' | 'source'> &
  Partial<Pick<Finding, 'judge' | 'line' | 'column' | 'since'>> & { fix: string };

export const domainFinding = ({ rule, stage, where, cause, fix, source, ...more }: Found): Finding => ({
  id: rule,
  severity: SEVERITY[stage],
  object: where,
  cause,
  fix: fix === '' ? [] : [advice(where, fix)],
  judge: more.judge ?? 'hostdev',
  rule,
  stage,
  where,
  line: more.line ?? null,
  column: more.column ?? null,
  since: more.since ?? null,
  source,
});

/** Runs rules over a domain: all findings, in the order of the rules. */
export function judgeDomain(rules: readonly Rule[], target: Target): Finding[] {
  return rules.flatMap((rule) =>
    rule.check(target).map((f) =>
      domainFinding({
        rule: rule.id,
        stage: rule.stage,
        where: f.part?.where ?? 'domain',
        line: f.part?.place.line ?? null,
        column: f.part?.place.column ?? null,
        cause: f.cause,
        since: f.since ?? rule.since,
        fix: f.fix ?? rule.fix,
        source: rule.source,
      }),
    ),
  );
}
