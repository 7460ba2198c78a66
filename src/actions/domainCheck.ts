/** `domain check`: what is found wrong with a domain, from its XML alone or on this host, and who looked. */
import { checkDomain } from '../domain/checkDomain.ts';
import { type Memlock, memlockNeeded } from '../domain/device/memlock.ts';
import { readDomainFacts } from '../domain/domainFacts.ts';
import { type DomainDevices, readDomainDevices } from '../domain/hostDevices.ts';
import { type Migration, migrationOf } from '../domain/migration.ts';
import { domainFinding, type Finding } from '../domain/rules/rules.ts';
import { tooOld, tooOldText, type Versions } from '../domain/version.ts';
import { type Domain, readDomain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { connectedVersions } from '../libvirt/versions.ts';
import { type Warning, warning } from '../text/warning.ts';
import { byLibvirt, bySchema, type JudgeVerdict, LIBVIRT_NOT_ASKED } from './domainJudges.ts';
import { checkOnHost, type HostCheck } from './domainOnHost.ts';
import { type AskedVersions, readVersions, type ShownVersions } from './domainVersions.ts';
import { emptyFindings, type NetworkPool, networkPools } from './networkPools.ts';
import type { ActionOptions, Warned } from './options.ts';

/** `connect`: the libvirt to ask, null or none being this machine's; `askLibvirt`: its parser too. */
export type CheckRequest = AskedVersions & { connect?: string | null; askLibvirt?: boolean };

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
  /** Its networks, and which of them are pools of host devices. */
  networks: NetworkPool[];
  memlock_kib: number | null;
  /** Whether libvirt would migrate it while it runs, for its devices. */
  migration: Migration;
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
  asked: CheckRequest,
  options: ActionOptions,
): Promise<DomainCheck> {
  const domain = readDomain(bytes, what);
  if (asked.askLibvirt !== true) return checked(host, domain, asked, options, async () => NOT_ASKED);
  const { withAsked } = await import('./guests.ts');
  const how = { readOnly: false, deadlineMs: ASK_MS };
  return withAsked(host, asked.connect ?? null, how, async (connection, left) => {
    const connected = await connectedVersions(connection, left());
    const judge: Judging = (shown) => byLibvirt(connection, domain, shown, left());
    return checked(host, domain, { ...asked, connected }, options, judge);
  });
}

type Judging = (shown: ShownVersions) => ReturnType<typeof byLibvirt>;

const NOT_ASKED: Awaited<ReturnType<Judging>> = { verdict: LIBVIRT_NOT_ASKED, findings: [] };

/** A libvirtd that has just started runs each emulator before it answers. */
const ASK_MS = 30_000;

async function checked(
  host: Host,
  domain: Domain,
  asked: CheckRequest,
  options: ActionOptions,
  judge: Judging,
): Promise<DomainCheck> {
  const facts = readDomainFacts(domain);
  const { versions, shown, onHost } = await readVersions(host, facts, asked);
  const offline = [...checkDomain(facts, versions), ...oldVersions(versions)];
  const schema = await bySchema(host, domain, shown);
  const libvirt = await judge(shown);
  const { devices, findings } = readDevices(domain, defines([...offline, ...schema.findings]));
  const there = onHost && devices !== null ? await checkOnHost(host, facts, devices, versions, options) : null;
  const networks = await networkPools(host, (onHost ? devices?.networks : null) ?? [], asked.connect ?? null);
  const ours = [...offline, ...findings, ...(there?.findings ?? []), ...emptyFindings(networks)];
  const all = [...ours, ...schema.findings, ...libvirt.findings];
  const memlock: Memlock = memlockNeeded(facts);
  return {
    domain: { name: facts.name, uuid: devices?.uuid ?? null },
    valid: isGood(all),
    defines: defines(all),
    judges: [
      { judge: 'hostdev', libvirt: shown.libvirt, verdict: isGood(ours) ? 'passed' : 'refused', text: OURS },
      schema.verdict,
      libvirt.verdict,
    ],
    versions: shown,
    devices: (devices?.devices ?? []).map(({ address, kind, managed, unassigned }) => ({
      address,
      kind,
      managed,
      unassigned,
    })),
    networks: networks.pools,
    memlock_kib: memlock.kib,
    migration: migrationOf(facts, versions),
    findings: all,
    host: there?.host ?? null,
    warnings: [...notMeasured(shown), ...(there?.warnings ?? []), ...networks.warnings],
  };
}

/** What hostdev's rules are not about. */
const oldVersions = (versions: Versions): Finding[] =>
  tooOld(versions).map((v) =>
    domainFinding({
      rule: 'libvirt-old',
      stage: 'advice',
      where: 'domain',
      cause: tooOldText(v),
      fix: `take ${v.program} ${v.least} or newer`,
      source: "Nova's admin guide, pci-passthrough",
    }),
  );

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
