/**
 * The rules of what may be there once in a domain: addresses, names and numbers that a host device shares with nothing
 * else.
 */

import { safe } from '../../text/safe.ts';
import { isArmVirt, isQemu, isX86, type Part, partOf } from '../domainFacts.ts';
import { below, sinceLibvirt } from '../version.ts';
import { child, children, elements } from '../xml/dom.ts';
import { DISPLAY_FROM } from './deviceShapes.ts';
import {
  faults,
  hostdevInterfaces,
  hostParts,
  isUsb,
  nvmeDisks,
  pciControllers,
  pciHostdevs,
  shared,
  sourceAddress,
} from './ours.ts';
import type { Fault, Rule, Target } from './rules.ts';
import { addressPart } from './values.ts';

/**
 * The host's address by its numbers, 0 where an attribute is missing, as libvirt reads it; null when one is no number.
 */
function hostAddress(p: Part): string | null {
  const e = sourceAddress(p);
  const parts = e ? (['domain', 'bus', 'slot', 'function'] as const).map((n) => addressPart(e, n)) : [null];
  return parts.includes(null) ? null : parts.join(':');
}

const bootOrder = ({ element }: Part): string | null => {
  const order = child(element, 'boot')?.getAttribute('order');
  return order ? `${Number(order)}` : null;
};

/** libvirt drops every other alias of an inactive domain. */
const ownAlias = ({ element }: Part): string | null => {
  const alias = child(element, 'alias')?.getAttribute('name') ?? '';
  return alias.startsWith('ua-') ? alias : null;
};

function indexFaults({ domain }: Target): Fault[] {
  const seen = new Set<number>();
  return pciControllers(domain).flatMap((part): Fault[] => {
    const text = part.element.getAttribute('index');
    if (text === null || !/^\d{1,10}$/.test(text)) return [];
    const index = Number(text);
    const isTaken = seen.has(index);
    seen.add(index);
    const isRoot = /^pcie?-root$/.test(part.element.getAttribute('model') ?? '');
    const isKnown = isQemu(domain) && (isX86(domain) || isArmVirt(domain, null));
    return faults(part, [
      ...(isTaken ? [`index ${index} is there twice`] : []),
      ...(index > 255 ? [`its index is ${index}`] : []),
      ...(isKnown && isRoot !== (index === 0)
        ? [isRoot ? `the root has index ${index}` : 'only the root has index 0']
        : []),
    ]);
  });
}

const VALIDATE = 'libvirt conf/domain_validate.c';

export const UNIQUE_RULES: readonly Rule[] = [
  {
    id: 'hostdev-duplicate',
    stage: 'define',
    holds: 'no host address is there twice among <hostdev> and <interface type=hostdev>',
    since: null,
    source: `${VALIDATE} virDomainDefHostdevValidate (Hostdev already exists in the domain configuration)`,
    fix: 'leave one',
    check: ({ domain }) => {
      const mine = [...pciHostdevs(domain), ...hostdevInterfaces(domain).filter((p) => !isUsb(p))];
      return shared(mine, mine, hostAddress, (_, other) => `the host's address is that of ${other.where}`);
    },
  },
  {
    id: 'hostdev-ramfb',
    stage: 'define',
    holds: "one device has ramfb='on'",
    since: `${sinceLibvirt(DISPLAY_FROM)} for PCI devices`,
    source: `${VALIDATE} virDomainDefHostdevValidate (Only one vgpu device can have 'ramfb' enabled)`,
    fix: 'take it out of the others',
    check: ({ domain, versions }) => {
      const pci = below(versions.libvirt, DISPLAY_FROM) ? [] : pciHostdevs(domain);
      const ramfb = ({ element }: Part): string | null => (element.getAttribute('ramfb') === 'on' ? 'on' : null);
      return shared(pci, domain.hostdevs, ramfb, (_, other) => `${other.where} has it`);
    },
  },
  {
    id: 'boot-order',
    stage: 'define',
    holds: 'each boot order is there once',
    since: null,
    source: `${VALIDATE} virDomainDefBootValidate (used for more than one device)`,
    fix: 'number them anew',
    check: ({ domain }) =>
      shared(
        hostParts(domain),
        [...domain.disks, ...domain.interfaces, ...domain.hostdevs],
        bootOrder,
        (order, other) => `boot order ${order} is that of ${other.where}`,
      ),
  },
  {
    id: 'os-boot',
    stage: 'define',
    holds: 'the boot order is that of <os><boot> or that of the devices, not both',
    since: null,
    source:
      'libvirt conf/domain_postparse.c virDomainDefBootOrderPostParse (per-device boot elements cannot be used together with os/boot elements)',
    fix: 'take the <boot> out of <os>, or those of the devices',
    check: ({ domain }) => {
      const byOs = children(domain.root, 'os').some((os) => child(os, 'boot') !== undefined);
      const mine = hostParts(domain).filter((p) => byOs && child(p.element, 'boot'));
      return mine.map((part) => ({ part, cause: 'it has a <boot>, and so has <os>' }));
    },
  },
  {
    id: 'alias-unique',
    stage: 'define',
    holds: "an alias that begins with 'ua-' is that of one device",
    since: null,
    source: `${VALIDATE} virDomainDeviceDefValidateAliasesIterator (non unique alias detected)`,
    fix: 'name them differently',
    check: ({ domain }) => {
      const all = children(domain.root, 'devices').flatMap(elements);
      const mine = [...hostParts(domain), ...domain.iommus];
      return shared(
        mine,
        all.map((e) => partOf(e, null)),
        ownAlias,
        (alias, other) => `alias ${safe(alias)} is that of ${other.where}`,
      );
    },
  },
  {
    id: 'disk-target',
    stage: 'define',
    holds: 'a <target> is that of one disk',
    since: null,
    source: 'libvirt conf/domain_conf.c virDomainDiskDefCheckDuplicateInfo (target duplicated for disk sources)',
    fix: 'name them differently',
    check: ({ domain }) =>
      shared(
        nvmeDisks(domain),
        domain.disks,
        (p) =>
          child(p.element, 'target')
            ?.getAttribute('dev')
            ?.replace(/^ioemu:/, '') ?? null,
        (name, other) => `'${safe(name)}' is the target of ${other.where}`,
      ),
  },
  {
    id: 'controller-index',
    stage: 'define',
    holds: 'PCI controllers have each an index of their own, up to 255, and the root has 0',
    since: null,
    source: `${VALIDATE} virDomainControllerDefValidate, virDomainDefValidateInternal; conf/domain_conf.c`,
    fix: 'number them anew',
    check: indexFaults,
  },
];
