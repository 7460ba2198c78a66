/** `domain check`: whether libvirt will define a domain and whether it can start, from its XML alone or on this host. */
import { checkDomain, verdict } from '../domain/checkDomain.ts';
import { type Memlock, memlockNeeded } from '../domain/device/memlock.ts';
import { type DomainFacts, effectiveArch, readDomainFacts } from '../domain/domainFacts.ts';
import { type DomainDevices, readDomainDevices } from '../domain/hostDevices.ts';
import type { Finding } from '../domain/rules/rules.ts';
import { formatVersion, parseVersion, type Versions } from '../domain/version.ts';
import { type Domain, readDomain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { installedVersions } from '../libvirt/versions.ts';
import { checkOnHost, type HostCheck } from './domainOnHost.ts';
import type { ActionOptions, Warned } from './options.ts';

/** Versions as typed; null is not given. */
export type AskedVersions = { libvirt: string | null; qemu: string | null };

/** The versions that an answer is for; null is not known. */
export type ShownVersions = { libvirt: string | null; qemu: string | null; source: 'given' | 'installed' };

export type DomainCheck = Warned & {
  domain: { name: string | null; uuid: string | null };
  /** libvirt defines it, and nothing known keeps it from its devices. */
  valid: boolean;
  /** libvirt defines it (VIR_DOMAIN_DEFINE_VALIDATE). */
  defines: boolean;
  versions: ShownVersions;
  devices: { address: string; kind: string; managed: boolean; unassigned: boolean }[];
  memlock_kib: number | null;
  findings: Finding[];
  /** What this host says of it; null when versions were given. */
  host: HostCheck['host'] | null;
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
  const { devices, findings } = readDevices(domain, offline.defines);
  const there = onHost && devices !== null ? await checkOnHost(host, facts, devices, versions, options) : null;
  const all = verdict([...offline.findings, ...findings, ...(there?.findings ?? [])]);
  const memlock: Memlock = memlockNeeded(facts);
  return {
    domain: { name: facts.name, uuid: devices?.uuid ?? null },
    valid: all.valid,
    defines: all.defines,
    versions: shown,
    devices: (devices?.devices ?? []).map(({ address, kind, managed, unassigned }) => ({
      address,
      kind,
      managed,
      unassigned,
    })),
    memlock_kib: memlock.kib,
    findings: all.findings,
    host: there?.host ?? null,
    warnings: [...notMeasured(shown), ...(there?.warnings ?? [])],
  };
}

/** The devices as the hook reads them; what the hook would refuse and libvirt takes is a finding. */
function readDevices(domain: Domain, defines: boolean): { devices: DomainDevices | null; findings: Finding[] } {
  try {
    return { devices: readDomainDevices(domain), findings: [] };
  } catch (e) {
    if (!(e instanceof HostdevError) || e.code !== 'HOSTDEV_XML') throw e;
    // A rule has said it already.
    if (!defines) return { devices: null, findings: [] };
    const { line, column } = e.data as { line?: number; column?: number };
    const cause = e.message.replace(/^.*?column \d+: /s, '');
    return {
      devices: null,
      findings: [
        {
          rule: 'hook-reads',
          stage: 'start',
          where: line === undefined ? 'domain' : `line ${line}`,
          line: line ?? null,
          column: column ?? null,
          cause,
          since: null,
          fix: 'correct it: with hostdev installed as hook, the guest does not start',
          source: 'hostdev src/domain/hostDevices.ts',
        },
      ],
    };
  }
}

const notMeasured = (v: ShownVersions): string[] => {
  const missing = [...(v.libvirt === null ? ['libvirt'] : []), ...(v.qemu === null ? ['QEMU'] : [])];
  if (missing.length === 0) return [];
  const why = v.source === 'given' ? 'not given' : 'not measured';
  return [`the version of ${missing.join(' and of ')} is ${why}: rules that depend on it count as kept`];
};
