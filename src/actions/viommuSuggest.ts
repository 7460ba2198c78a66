/** `viommu suggest`: the vIOMMU that a domain should have, with what it needs besides. */
import { effectiveArch, readDomainFacts } from '../domain/domainFacts.ts';
import { type HostIommu, isViommuWish, suggestViommu, VIOMMU_WISHES } from '../domain/viommu/suggest.ts';
import { readDomain } from '../domain/xml/domain.ts';
import { formatXml, LIBVIRT_LAYOUT, type XmlElement } from '../domain/xml/write.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { iommuAddressBits } from '../host/iommu.ts';
import { quote } from '../text/safe.ts';
import { type AskedVersions, readVersions, type ShownVersions } from './domainVersions.ts';
import type { Warned } from './options.ts';

export type ViommuAnswer = Warned & {
  domain: { name: string | null; arch: string; machine: string | null };
  versions: ShownVersions;
  model: string;
  /** `<iommu>` as XML, and as data. */
  xml: string;
  element: XmlElement;
  /** What must be there besides, and is not: below `<domain>`. */
  needs: { path: string[]; xml: string; reason: string }[];
  /** The `<iommu>` elements that the domain has and that this one is to take the place of. */
  replaces: string[];
  reasons: string[];
  notes: string[];
};

/** The host's IOMMU as the suggestion wants it. */
export const hostIommu = (host: Host): HostIommu => ({ addressBits: iommuAddressBits(host) });

/**
 * Suggests for a domain; `what` names its XML, `wish` is one of {@link VIOMMU_WISHES} as typed. With versions given,
 * this host is not asked. Raises HOSTDEV_XML, HOSTDEV_USAGE, and HOSTDEV_DOMAIN_UNFIT with the rule that stands in the
 * way where the domain or the target can have no such vIOMMU.
 */
export async function suggestForDomain(
  host: Host,
  bytes: Uint8Array,
  what: string,
  wish: string,
  asked: AskedVersions,
): Promise<ViommuAnswer> {
  if (!isViommuWish(wish)) {
    throw new HostdevError('HOSTDEV_USAGE', `--model ${quote(wish)} is no model of a vIOMMU`, {
      hint: `Give one of ${VIOMMU_WISHES.join(', ')}.`,
    });
  }
  const facts = readDomainFacts(readDomain(bytes, what));
  const { versions, shown, onHost } = await readVersions(host, facts, asked);
  const s = suggestViommu(facts, versions, onHost ? hostIommu(host) : null, wish);
  if (s.kind === 'refusal') {
    throw new HostdevError('HOSTDEV_DOMAIN_UNFIT', `No vIOMMU for ${what}: ${s.reason}`, {
      hint: `${s.fix.charAt(0).toUpperCase()}${s.fix.slice(1)}.`,
      data: { rule: s.rule },
    });
  }
  return {
    domain: { name: facts.name, arch: effectiveArch(facts), machine: facts.machine },
    versions: shown,
    model: s.model,
    xml: formatXml(s.element, LIBVIRT_LAYOUT),
    element: s.element,
    needs: s.needs.map(({ path, element, reason }) => ({ path, xml: formatXml(element, LIBVIRT_LAYOUT), reason })),
    replaces: facts.iommus.map((p) => p.where),
    reasons: s.reasons,
    notes: s.notes,
    warnings: [],
  };
}
