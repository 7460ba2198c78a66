/**
 * Who judges a domain beside our own rules: the schema of the installed libvirt, and libvirt's parser, which is not
 * asked yet.
 */
import { partOf } from '../domain/domainFacts.ts';
import { domainFinding, type Finding, type Judge } from '../domain/rules/rules.ts';
import { formatVersion } from '../domain/version.ts';
import type { Domain } from '../domain/xml/domain.ts';
import type { Host } from '../host/host.ts';
import type { Culprit } from '../libvirt/schemaCulprit.ts';
import { judgeBySchema, type SchemaFault, schemaCulprit, XMLLINT } from '../libvirt/schemaJudge.ts';
import { installedLibvirt } from '../libvirt/versions.ts';
import { safe } from '../text/safe.ts';
import type { ShownVersions } from './domainVersions.ts';

export type JudgeVerdict = {
  /** Our own rules, the schema of the installed libvirt, libvirt's parser. */
  judge: Judge | 'libvirt';
  /** The libvirt that it judged for; null: not known, or it did not judge. */
  libvirt: string | null;
  verdict: 'passed' | 'refused' | 'not_judged';
  /** What it looks at, or why it did not judge. */
  text: string;
};

/** libvirt's parser and validators: only a connection could ask them (`--ask-libvirt`, with the connection). */
export const LIBVIRT_NOT_ASKED: JudgeVerdict = {
  judge: 'libvirt',
  libvirt: null,
  verdict: 'not_judged',
  text: "libvirt's own parser is not asked",
};

/** The schema's verdict, which is that of the installed libvirt and of no other. */
export async function bySchema(
  host: Host,
  domain: Domain,
  shown: ShownVersions,
): Promise<{ verdict: JudgeVerdict; findings: Finding[] }> {
  const silent = (text: string): { verdict: JudgeVerdict; findings: Finding[] } => ({
    verdict: { judge: 'schema', libvirt: null, verdict: 'not_judged', text },
    findings: [],
  });
  if (shown.source === 'given' && host.isReal) {
    if (shown.libvirt === null) return silent('no libvirt was named: give --libvirt, or no version at all');
    const version = await installedLibvirt(host);
    const installed = version === null ? null : formatVersion(version);
    if (installed !== shown.libvirt) {
      const is = installed === null ? 'and which one is installed is not measured' : `and ${installed} is installed`;
      return silent(`it is of the installed libvirt; ${shown.libvirt} was named, ${is}`);
    }
  }
  const said = await judgeBySchema(host, domain, XMLLINT);
  if (said.verdict === 'not judged') return silent(said.why);
  const text = 'all words of the domain (domain.rng)';
  return said.verdict === 'passed'
    ? { verdict: { judge: 'schema', libvirt: shown.libvirt, verdict: 'passed', text }, findings: [] }
    : {
        verdict: { judge: 'schema', libvirt: shown.libvirt, verdict: 'refused', text },
        findings: [schemaFinding(said.faults, await schemaCulprit(host, domain, XMLLINT))],
      };
}

function schemaFinding(faults: readonly SchemaFault[], culprit: Culprit | null): Finding {
  const part = culprit && partOf(culprit.element, null);
  const placed = faults.find((f) => f.line !== null);
  const messages = faults.map((f) => (f.line === null ? f.text : `line ${f.line}: ${f.text}`)).join('; ');
  const is =
    culprit === null
      ? ''
      : culprit.attribute === null
        ? 'it is not taken here: '
        : `${attributeOf(culprit)} is not taken: `;
  return domainFinding({
    judge: 'schema',
    rule: 'schema',
    stage: 'define',
    where: part?.where ?? (placed ? `${placed.element} (line ${placed.line})` : 'domain'),
    line: part?.place.line ?? placed?.line ?? null,
    column: part?.place.column ?? null,
    cause: `${is}${messages}`,
    fix: 'correct it or leave it out; without VALIDATE libvirt refuses it or drops it silently',
    source: 'domain.rng of the installed libvirt, by xmllint',
  });
}

const attributeOf = ({ element, attribute }: Culprit): string =>
  `${safe(attribute ?? '')}='${safe(element.getAttribute(attribute ?? '') ?? '')}'`;
