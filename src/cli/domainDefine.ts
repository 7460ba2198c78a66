import { type DomainDefined, defineDomain } from '../actions/domainDefine.ts';
import { safe, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { harmless, readRequest } from './domainPlan.ts';
import { readInput } from './input.ts';

/** `hostdev domain define FILE [DEV…]`: with -n the XML that libvirt would be given. */
export async function domainDefine(invocation: Invocation): Promise<Answer> {
  const { host, words, options } = invocation;
  const [file = '-', ...more] = words;
  const request = await readRequest(invocation, more);
  const what = file === '-' ? 'stdin' : file;
  const { warnings, ...json } = await defineDomain(host, await readInput(file), what, request, options);
  return { json, text: options.dryRun ? harmless(json.xml) : said(json), warnings };
}

function said({
  changed,
  redefined,
  active,
  domain,
  devices,
  removed,
  libvirt,
}: Omit<DomainDefined, 'warnings'>): string {
  const name = `${safe(domain.name)} (${domain.uuid})`;
  const by = `libvirt ${libvirt.libvirt ?? ''} at ${safe(libvirt.uri)}`;
  if (!changed) return `${safeBlock(name)} is kept like this already by ${by}\n`;
  const put = [
    ...(devices.added.length > 0 ? [`with ${devices.added.join(', ')}`] : []),
    ...(removed.length > 0 ? [`without ${removed.map((d) => d.address).join(', ')}`] : []),
  ];
  const then = active ? '; it runs, and has it from its next start' : '';
  return `${redefined ? 'Defined anew' : 'Defined'}: ${name}${put.map((p) => ` ${p}`).join('')}, read back from ${by}${then}\n`;
}
