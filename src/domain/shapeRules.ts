/** The rules of a domain's shape around its host devices: what libvirt's schema and parser refuse there. */
import { child, children } from './hostDevices.ts';
import { type Grammar, grammarFaults } from './grammar.ts';
import type { Fault, Rule, Target } from './rules.ts';
import { domainGrammar, pciControllerGrammar } from './shapes.ts';

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

function controllerFaults({ domain, versions }: Target): Fault[] {
  const grammar: Grammar = pciControllerGrammar(versions.libvirt);
  return domain.controllers
    .filter((p) => p.element.getAttribute('type') === 'pci')
    .flatMap((part) => grammarFaults(part.element, grammar).map((cause) => ({ part, cause })));
}

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
    holds: "<controller type='pci'> has a model and only what the schema knows",
    since: null,
    source: `${SCHEMA} controller`,
    fix: 'correct or leave out what is named',
    check: controllerFaults,
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
