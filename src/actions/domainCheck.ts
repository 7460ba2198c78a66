/** `domain check`: what is found wrong with a domain, from its XML alone or on this host, and who looked. */
import { checkDomain } from '../domain/checkDomain.ts';
import { type Memlock, memlockNeeded } from '../domain/device/memlock.ts';
import { type DomainFacts, effectiveArch, partOf, readDomainFacts } from '../domain/domainFacts.ts';
import { type DomainDevices, readDomainDevices } from '../domain/hostDevices.ts';
import { domainFinding, type Finding, type Judge } from '../domain/rules/rules.ts';
import { formatVersion, parseVersion, type Versions } from '../domain/version.ts';
import { type Domain, readDomain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Culprit } from '../libvirt/schemaCulprit.ts';
import { judgeBySchema, type SchemaFault, schemaCulprit, XMLLINT } from '../libvirt/schemaJudge.ts';
import { installedLibvirt, installedVersions } from '../libvirt/versions.ts';
import { safe } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import { checkOnHost, type HostCheck } from './domainOnHost.ts';
import type { ActionOptions, Warned } from './options.ts';

/** Versions as typed; null is not given. */
export type AskedVersions = { libvirt: string | null; qemu: string | null };

/** The versions that an answer is for; null is not known. */
export type ShownVersions = { libvirt: string | null; qemu: string | null; source: 'given' | 'installed' };

export type DomainCheck = Warned & {
  domain: { name: string | null; uuid: string | null };
  /** Nothing was found, by those who judged, that keeps it from being defined or from its devices. */
  valid: boolean;
  /** Nothing was found, by those who judged, that libvirt refuses to define (VIR_DOMAIN_DEFINE_VALIDATE). */
  defines: boolean;
  /** Who looked, at what, and who did not: `valid` says no more than these do. */
  judges: JudgeVerdict[];
  versions: ShownVersions;
  devices: { address: string; kind: string; managed: boolean; unassigned: boolean }[];
  memlock_kib: number | null;
  findings: Finding[];
  /** What this host says of it; null when versions were given. */
  host: HostCheck['host'] | null;
};

type JudgeVerdict = {
  /** Our own rules, the schema of the installed libvirt, libvirt's parser. */
  judge: Judge | 'libvirt';
  /** The libvirt that it judged for; null: not known, or it did not judge. */
  libvirt: string | null;
  verdict: 'passed' | 'refused' | 'not_judged';
  /** What it looks at, or why it did not judge. */
  text: string;
};

const show = (v: number | null): string | null => (v === null ? null : formatVersion(v));

function given(word: string | null, option: string): number | null {
  if (word === null) return null;
  const v = /^\d{1,3}\.\d{1,3}(\.\d{1,3})?$/.test(word) ? parseVersion(word) : null;
  if (v === null) {
    throw new HostdevError('HOSTDEV_USAGE', `${option} wants a version`, {
      hint: `Write ${option} 9.0.0, for instance.`,
    });
  }
  return v;
}

/**
 * The versions to judge by: those given, of which a missing one is not known; without any, those of this host (null: another is meant). Raises HOSTDEV_USAGE for a
 * word that is no version.
 */
export async function readVersions(
  host: Host | null,
  domain: DomainFacts,
  asked: AskedVersions,
): Promise<{ versions: Versions; shown: ShownVersions; onHost: boolean }> {
  const onHost = host !== null && asked.libvirt === null && asked.qemu === null;
  const versions = onHost
    ? await installedVersions(host, effectiveArch(domain))
    : { libvirt: given(asked.libvirt, '--libvirt'), qemu: given(asked.qemu, '--qemu') };
  const source = onHost ? 'installed' : 'given';
  return { versions, shown: { libvirt: show(versions.libvirt), qemu: show(versions.qemu), source }, onHost };
}

/** Checks a domain; `what` names its XML. Raises HOSTDEV_XML for what is no domain at all, HOSTDEV_USAGE for bad versions; everything else is a finding. */
export async function checkDomainXml(
  host: Host,
  bytes: Uint8Array,
  what: string,
  asked: AskedVersions,
  options: ActionOptions,
): Promise<DomainCheck> {
  const domain = readDomain(bytes, what);
  const facts = readDomainFacts(domain);
  const { versions, shown, onHost } = await readVersions(host, facts, asked);
  const offline = checkDomain(facts, versions);
  const schema = await bySchema(host, domain, shown, asked);
  const { devices, findings } = readDevices(domain, defines([...offline, ...schema.findings]));
  const there = onHost && devices !== null ? await checkOnHost(host, facts, devices, versions, options) : null;
  const ours = [...offline, ...findings, ...(there?.findings ?? [])];
  const all = [...ours, ...schema.findings];
  const memlock: Memlock = memlockNeeded(facts);
  return {
    domain: { name: facts.name, uuid: devices?.uuid ?? null },
    valid: isGood(all),
    defines: defines(all),
    judges: [
      { judge: 'hostdev', libvirt: shown.libvirt, verdict: isGood(ours) ? 'passed' : 'refused', text: OURS },
      schema.verdict,
      { judge: 'libvirt', libvirt: null, verdict: 'not_judged', text: "libvirt's own parser is not asked" },
    ],
    versions: shown,
    devices: (devices?.devices ?? []).map(({ address, kind, managed, unassigned }) => ({
      address,
      kind,
      managed,
      unassigned,
    })),
    memlock_kib: memlock.kib,
    findings: all,
    host: there?.host ?? null,
    warnings: [...notMeasured(shown), ...(there?.warnings ?? [])],
  };
}

/** What our own rules are about. */
const OURS = 'PCI hostdevs, interfaces of type hostdev, NVMe disks, vIOMMUs, and what these need';

const defines = (findings: readonly Finding[]): boolean => !findings.some((f) => f.stage === 'define');
const isGood = (findings: readonly Finding[]): boolean =>
  !findings.some((f) => f.stage === 'define' || f.stage === 'assign');

/** The schema's verdict, which is that of the installed libvirt and of no other. */
async function bySchema(
  host: Host,
  domain: Domain,
  shown: ShownVersions,
  asked: AskedVersions,
): Promise<{ verdict: JudgeVerdict; findings: Finding[] }> {
  const silent = (text: string): { verdict: JudgeVerdict; findings: Finding[] } => ({
    verdict: { judge: 'schema', libvirt: null, verdict: 'not_judged', text },
    findings: [],
  });
  if (shown.source === 'given' && host.isReal) {
    if (asked.libvirt === null) return silent('no libvirt was named: give --libvirt, or no version at all');
    const installed = show(await installedLibvirt(host));
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

/** The devices as the hook reads them; what the hook would refuse and libvirt takes is a finding. */
function readDevices(domain: Domain, defines: boolean): { devices: DomainDevices | null; findings: Finding[] } {
  try {
    return { devices: readDomainDevices(domain), findings: [] };
  } catch (e) {
    if (!(e instanceof HostdevError) || e.code !== 'HOSTDEV_XML') throw e;
    // A rule has said it already.
    if (!defines) return { devices: null, findings: [] };
    const { line, column, reason } = e.data as { line?: number; column?: number; reason?: string };
    return {
      devices: null,
      findings: [
        domainFinding({
          rule: 'hook-reads',
          stage: 'start',
          where: line === undefined ? 'domain' : `line ${line}`,
          line: line ?? null,
          column: column ?? null,
          cause: reason ?? e.message,
          fix: 'correct it: with hostdev installed as hook, the guest does not start',
          source: 'hostdev src/domain/hostDevices.ts',
        }),
      ],
    };
  }
}

const notMeasured = (v: ShownVersions): Warning[] => {
  const missing = [...(v.libvirt === null ? ['libvirt'] : []), ...(v.qemu === null ? ['QEMU'] : [])];
  if (missing.length === 0) return [];
  const why = v.source === 'given' ? 'not given' : 'not measured';
  const text = `the version of ${missing.join(' and of ')} is ${why}: rules that depend on it count as kept`;
  return [warning('not-measured', text)];
};
