/** All rules over what is ours of a domain, and what comes out. Who judges the rest is libvirt/'s to say. */

import type { DomainFacts } from './domainFacts.ts';
import { DEVICE_RULES } from './rules/deviceRules.ts';
import { GUEST_ADDRESS_RULE } from './rules/guestAddressRule.ts';
import { ROOM_RULES } from './rules/roomRules.ts';
import { type Finding, judgeDomain, type Rule } from './rules/rules.ts';
import { UNIQUE_RULES } from './rules/uniqueRules.ts';
import { VIRTIO_OPTIONS_RULE } from './rules/virtioOptionsRule.ts';
import type { Versions } from './version.ts';
import { VIOMMU_DEFINE_RULES } from './viommu/defineRules.ts';
import { VIOMMU_START_RULES } from './viommu/startRules.ts';

/** Every rule of a domain, in the order in which findings are told. */
export const DOMAIN_RULES: readonly Rule[] = [
  ...VIOMMU_DEFINE_RULES,
  ...VIOMMU_START_RULES,
  ...DEVICE_RULES,
  ...UNIQUE_RULES,
  GUEST_ADDRESS_RULE,
  VIRTIO_OPTIONS_RULE,
  ...ROOM_RULES,
];

/** Judges what is ours of a domain for the libvirt and QEMU of `versions`; no fact of any host goes into it. */
export const checkDomain = (domain: DomainFacts, versions: Versions): Finding[] =>
  judgeDomain(DOMAIN_RULES, { domain, versions });
