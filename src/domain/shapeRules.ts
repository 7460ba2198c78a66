/** The rules of a domain's shape around its host devices: what libvirt's schema and parser refuse there. */
import { child, children } from './hostDevices.ts';
import { type Grammar, grammarFaults } from './grammar.ts';
import type { Part } from './domainFacts.ts';
import type { Fault, Rule, Target } from './rules.ts';
import { controllerGrammar, diskGrammar, domainGrammar, interfaceGrammar } from './shapes.ts';
import type { Version } from './version.ts';
import { printable } from './xmlScan.ts';

const SCHEMA = 'libvirt conf/schemas/domaincommon.rng';

function domainFaults({ domain, versions }: Target): Fault[] {
  const root = domain.document.documentElement;
  if (!root) return [];
  const os = child(root, 'os');
  const type = os && child(os, 'type');
  // Xen's and containers' types have shapes of their own.
  const hvm = !/^(xen|linux|exe|uml|xenpvh)$/.test(type?.textContent ?? '');
  return grammarFaults(root, domainGrammar(versions.libvirt, hvm)).map((cause) => ({ part: null, cause }));
}

const typeOf = (p: Part): string | null => p.element.getAttribute('type');

function controllerFaults({ domain, versions }: Target): Fault[] {
  return domain.controllers.flatMap((part) => {
    const grammar = controllerGrammar(typeOf(part), versions.libvirt);
    if (!grammar) return [{ part, cause: `'${printable(typeOf(part) ?? '')}' is no type of a controller` }];
    return grammarFaults(part.element, grammar).map((cause) => ({ part, cause }));
  });
}

/** Disks and interfaces that take nothing of the host: those that do have rules of their own. */
function otherFaults({ domain, versions }: Target): Fault[] {
  const judged = (parts: Part[], own: string, grammar: (type: string | null, libvirt: Version | null) => Grammar) =>
    parts
      .filter((p) => typeOf(p) !== own)
      .flatMap((part) =>
        grammarFaults(part.element, grammar(typeOf(part), versions.libvirt)).map((cause) => ({ part, cause })),
      );
  return [
    ...judged(domain.disks, 'nvme', diskGrammar),
    ...judged(domain.interfaces, 'hostdev', interfaceGrammar),
    ...domain.hostdevs.flatMap((part) => {
      const kinds = part.element.getAttribute('mode') === 'capabilities' ? CAPABILITIES : SUBSYSTEMS;
      const type = typeOf(part);
      return type === null || kinds.test(type) ? [] : [{ part, cause: `'${printable(type)}' is no type of a <hostdev>` }];
    }),
  ];
}

const SUBSYSTEMS = /^(pci|usb|scsi|scsi_host|mdev)$/;
const CAPABILITIES = /^(storage|misc|net)$/;

export const SHAPE_RULES: readonly Rule[] = [
  {
    id: 'domain-schema',
    stage: 'define',
    holds: 'the domain has a name, a memory and an <os> with a type, and each of its sections once, with what the schema knows',
    since: null,
    source: `${SCHEMA} domain`,
    fix: 'correct or leave out what is named',
    check: domainFaults,
  },
  {
    id: 'controller-schema',
    stage: 'define',
    holds: "a <controller> is of a type that there is, with only what the schema knows; type='pci' has a model",
    since: null,
    source: `${SCHEMA} controller`,
    fix: 'correct or leave out what is named',
    check: controllerFaults,
  },
  {
    id: 'device-schema',
    stage: 'define',
    holds: 'disks, interfaces and <hostdev> are of a type that there is, with only what the schema knows',
    since: null,
    source: `${SCHEMA} disk, interface, hostdev`,
    fix: 'correct or leave out what is named',
    check: otherFaults,
  },
  {
    id: 'os-boot',
    stage: 'define',
    holds: 'the boot order is that of <os><boot> or that of the devices, not both',
    since: null,
    source: 'libvirt conf/domain_postparse.c virDomainDefBootOrderPostParse (per-device boot elements cannot be used together with os/boot elements)',
    fix: 'take the <boot> out of <os>, or those of the devices',
    check: ({ domain }) => {
      const root = domain.document.documentElement;
      const byOs = root ? children(root, 'os').some((os) => child(os, 'boot') !== undefined) : false;
      if (!byOs) return [];
      const part = [...domain.disks, ...domain.interfaces, ...domain.hostdevs].find((p) => child(p.element, 'boot'));
      return part ? [{ part, cause: 'it has a <boot>, and so has <os>' }] : [];
    },
  },
];
