/** `domain check`: what is found wrong with a domain, from its XML alone or on this host, and who looked. */
import { checkDomain } from '../domain/checkDomain.ts';
import { type Memlock, memlockNeeded } from '../domain/device/memlock.ts';
import { readDomainFacts } from '../domain/domainFacts.ts';
import { type DomainDevices, readDomainDevices } from '../domain/hostDevices.ts';
import { domainFinding, type Finding } from '../domain/rules/rules.ts';
import { type Domain, readDomain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Warning, warning } from '../text/warning.ts';
import { bySchema, type JudgeVerdict, LIBVIRT_NOT_ASKED } from './domainJudges.ts';
import { checkOnHost, type HostCheck } from './domainOnHost.ts';
import { type AskedVersions, readVersions, type ShownVersions } from './domainVersions.ts';
import type { ActionOptions, Warned } from './options.ts';

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

/**
 * Checks a domain; `what` names its XML. Raises HOSTDEV_XML for what is no domain at all, HOSTDEV_USAGE for bad
 * versions; everything else is a finding.
 */
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
  const schema = await bySchema(host, domain, shown);
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
      LIBVIRT_NOT_ASKED,
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
