/** All rules over one domain, and what comes out: whether libvirt will define it, and whether it can start with what it takes. */

import type { DomainFacts } from './domainFacts.ts';
import { DEVICE_RULES } from './rules/deviceRules.ts';
import { GUEST_ADDRESS_RULE } from './rules/guestAddressRule.ts';
import { ROOM_RULES } from './rules/roomRules.ts';
import { type Finding, judgeDomain, type Rule } from './rules/rules.ts';
import { SHAPE_RULES } from './rules/shapeRules.ts';
import { VIRTIO_OPTIONS_RULE } from './rules/virtioOptionsRule.ts';
import type { Versions } from './version.ts';
import { VIOMMU_RULES } from './viommu/rules.ts';

/** Every rule of a domain, in the order in which findings are told. */
export const DOMAIN_RULES: readonly Rule[] = [
  ...SHAPE_RULES,
  ...VIOMMU_RULES,
  ...DEVICE_RULES,
  GUEST_ADDRESS_RULE,
  VIRTIO_OPTIONS_RULE,
  ...ROOM_RULES,
];

export type Verdict = {
  /** Nothing that libvirt refuses, and nothing that keeps the guest from its devices. */
  valid: boolean;
  /** What `virsh define --validate` of that libvirt says of what hostdev knows the rules of. */
  defines: boolean;
  findings: Finding[];
};

/** The verdict on findings, wherever they come from. */
export const verdict = (findings: readonly Finding[]): Verdict => ({
  valid: !findings.some((f) => f.stage === 'define' || f.stage === 'assign'),
  defines: !findings.some((f) => f.stage === 'define'),
  findings: [...findings],
});

/** Judges a domain for the libvirt and QEMU of `versions`; no fact of any host goes into it. */
export const checkDomain = (domain: DomainFacts, versions: Versions): Verdict =>
  verdict(judgeDomain(DOMAIN_RULES, { domain, versions }));
