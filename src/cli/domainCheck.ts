import { checkDomainXml, type DomainCheck } from '../actions/domainCheck.ts';
import { poolText } from '../actions/networkPools.ts';
import { EXIT, HostdevError } from '../errors.ts';
import { fixText } from '../text/finding.ts';
import { safe, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { readInput } from './input.ts';
import { colours, pairs, table } from './table.ts';

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);

/** `hostdev domain check FILE [--libvirt X.Y.Z] [--qemu X.Y.Z] [--ask-libvirt]`: exit 3 when it is not valid. */
export async function domainCheck({ host, words, own, options, connect }: Invocation): Promise<Answer> {
  const file = words[0] ?? '-';
  const what = file === '-' ? 'stdin' : file;
  const versions = { libvirt: text(own.libvirt), qemu: text(own.qemu) };
  const askLibvirt = own['ask-libvirt'] === true;
  if ((askLibvirt || connect !== null) && (versions.libvirt !== null || versions.qemu !== null))
    throw new HostdevError('HOSTDEV_USAGE', 'A libvirt that is asked has versions of its own', {
      hint: 'Leave --libvirt and --qemu out, or --ask-libvirt and --connect.',
    });
  const asked = { ...versions, connect, askLibvirt };
  const { warnings, ...json } = await checkDomainXml(host, await readInput(file), what, asked, options);
  return { json, text: printed(json), warnings, exit: json.valid ? EXIT.done : EXIT.no };
}

/** What each stage of a rule means to a reader. */
const STAGE = { define: 'refused', assign: 'no start', start: 'no start', advice: 'advice' } as const;

const JUDGE = {
  hostdev: () => 'hostdev',
  schema: (libvirt: string | null) => (libvirt === null ? "libvirt's schema" : `the schema of libvirt ${libvirt}`),
  libvirt: () => 'libvirt',
} as const;
const SAID = { passed: 'nothing found', refused: 'refused', not_judged: 'not judged' } as const;

/** The verdict in words: what each judge said stands below it. */
function said(c: Pick<DomainCheck, 'valid' | 'defines' | 'findings'>): string {
  const { good, bad, warn } = colours(process.stdout);
  if (!c.valid) return bad(c.defines ? 'does not start' : 'refused');
  return c.findings.some((f) => f.stage === 'start')
    ? warn('not refused, and does not start')
    : good('nothing found wrong');
}

const migrates = ({ possible, reasons }: DomainCheck['migration']): string =>
  safeBlock(reasons.length === 0 ? possible : `${possible}: ${reasons.join('; ')}`);

function printed(c: Omit<DomainCheck, 'warnings'>): string {
  const { bad, warn } = colours(process.stdout);
  const paint = { define: bad, assign: bad, start: warn, advice: warn };
  const verdict = said(c);
  const version = (v: string | null): string => v ?? 'not known';
  const head = pairs([
    ['Domain', safeBlock(c.domain.name ?? '(no name)')],
    ['Judged for', `libvirt ${version(c.versions.libvirt)}, QEMU ${version(c.versions.qemu)} (${c.versions.source})`],
    ['Takes', c.devices.map((d) => d.address).join(' ') || 'no device of the host'],
    ...(c.memlock_kib === null ? [] : [['Locks', `${c.memlock_kib} KiB`] as const]),
    ...(c.devices.length === 0 ? [] : [['Migrates', migrates(c.migration)] as const]),
    ...c.networks.map((n) => ['Network', safeBlock(poolText(n))] as const),
    ['Verdict', verdict],
    ...c.judges.map(
      (j, i) =>
        [i === 0 ? 'Judges' : '', `${JUDGE[j.judge](j.libvirt)}: ${SAID[j.verdict]} (${safe(j.text)})`] as const,
    ),
  ]);
  const findings = c.findings.map((f) => {
    const since = f.since === null ? '' : ` [${f.since}]`;
    const place = f.column === null ? f.where : `${f.where}, column ${f.column}`;
    return `${paint[f.stage](STAGE[f.stage])}  ${f.rule}  ${safeBlock(place)}: ${safeBlock(f.cause)}${since}\n    fix: ${safeBlock(fixText(f))}\n    by: ${f.source}\n`;
  });
  const host = (c.host?.devices ?? []).map((d) => [
    d.address,
    `${d.iommu_group ?? '-'}`,
    d.driver ?? '-',
    d.will_be ?? '-',
    `${d.numa_node ?? '-'}`,
    d.peers.join(' ') || '-',
  ]);
  return head + findings.join('') + table(['ADDRESS', 'GROUP', 'DRIVER', 'WILL BE', 'NUMA', 'PEERS'], host);
}
