/**
 * Who judges a domain beside our own rules: the schema of the installed libvirt, and libvirt's parser where it is to be
 * asked.
 */
import { partOf, readDomainFacts } from '../domain/domainFacts.ts';
import { withoutOurs } from '../domain/ourElements.ts';
import { domainFinding, type Finding, type Judge } from '../domain/rules/rules.ts';
import { formatVersion } from '../domain/version.ts';
import type { Domain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Connection, isUnsupported, isXmlFault, libvirtWords } from '../libvirt/connection.ts';
import { tryNative } from '../libvirt/domains.ts';
import type { Culprit } from '../libvirt/schemaCulprit.ts';
import { judgeBySchema, type SchemaFault, schemaCulprit, XMLLINT } from '../libvirt/schemaJudge.ts';
import { installedLibvirt } from '../libvirt/versions.ts';
import { safe } from '../text/safe.ts';
import type { ShownVersions } from './domainVersions.ts';

export type JudgeVerdict = {
  judge: Judge;
  /** The libvirt that it judged for; null: not known, or it did not judge. */
  libvirt: string | null;
  verdict: 'passed' | 'refused' | 'not_judged';
  /** What it looks at, or why it did not judge. */
  text: string;
};

/** libvirt's parser and validators are asked with `--ask-libvirt` only. */
export const LIBVIRT_NOT_ASKED: JudgeVerdict = {
  judge: 'libvirt',
  libvirt: null,
  verdict: 'not_judged',
  text: "libvirt's own parser is asked with --ask-libvirt",
};

/** More vCPUs than that need a vIOMMU with eim (qemu_validate.c), and libvirt is shown none. */
const MAX_WITHOUT_IOMMU = 255;

/**
 * The verdict of libvirt's parser and validators over the domain without what is ours: a reading verb is not to take
 * the daemon of every guest down. Raises what a connection raises that does not answer.
 */
export async function byLibvirt(
  connection: Connection,
  domain: Domain,
  { libvirt }: ShownVersions,
  deadlineMs: number,
): Promise<{ verdict: JudgeVerdict; findings: Finding[] }> {
  const answer = (verdict: JudgeVerdict['verdict'], text: string, findings: Finding[] = []) => ({
    verdict: { judge: 'libvirt' as const, libvirt: verdict === 'not_judged' ? null : libvirt, verdict, text },
    findings,
  });
  const { iommus, vcpus } = readDomainFacts(domain);
  if (iommus.length > 0 && vcpus > MAX_WITHOUT_IOMMU)
    return answer('not_judged', `its ${vcpus} vCPUs need the vIOMMU, which libvirt is not shown`);
  const { rest, removed } = withoutOurs(domain);
  const shown = removed === 0 ? 'all of it' : `all but its ${removed} host devices and vIOMMUs`;
  try {
    await tryNative(connection, rest.text, deadlineMs);
    return answer('passed', `${shown} (XML to native)`);
  } catch (e) {
    if (isUnsupported(e)) return answer('not_judged', 'the driver of this connection does not judge');
    if (!(e instanceof HostdevError) || e.code !== 'HOSTDEV_LIBVIRT') throw e;
    if (!isXmlFault(e)) return answer('not_judged', e.message);
    const finding = domainFinding({
      judge: 'libvirt',
      rule: 'libvirt',
      stage: 'define',
      where: 'domain',
      cause: libvirtWords(e),
      fix: "correct what libvirt names; it was asked about a copy without hostdev's elements",
      source: "libvirt's parser and validators, by virConnectDomainXMLToNative",
    });
    return answer('refused', `${shown} (XML to native)`, [finding]);
  }
}

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
  if (shown.source !== 'installed' && host.isReal) {
    if (shown.libvirt === null)
      return silent('which libvirt is meant is not known: give --libvirt, or no version at all');
    const version = await installedLibvirt(host);
    const installed = version === null ? null : formatVersion(version);
    if (installed !== shown.libvirt) {
      const is = installed === null ? 'and which one is installed is not measured' : `and ${installed} is installed`;
      return silent(`it is of the installed libvirt; ${shown.libvirt} is meant, ${is}`);
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
