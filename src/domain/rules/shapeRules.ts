/** The rules of a domain's shape around its host devices: what libvirt's schema and parser refuse there. */

import { safe } from '../../text/safe.ts';
import { isArmVirt, isQemu, isX86, type Part, partOf } from '../domainFacts.ts';
import type { Version } from '../version.ts';
import { child, children, elements } from '../xml/dom.ts';
import { controllerGrammar } from './controllerShape.ts';
import { vlanTags } from './deviceParts.ts';
import { diskGrammar } from './diskShape.ts';
import { domainGrammar } from './domainShape.ts';
import { type Grammar, grammarFaults } from './grammar.ts';
import { hostdevGrammar } from './hostdevShape.ts';
import { interfaceGrammar } from './interfaceShape.ts';
import type { Fault, Rule, Target } from './rules.ts';
import { virtualPortFaults, WITH_PORT } from './virtualPort.ts';

const VALIDATE = 'libvirt conf/domain_validate.c';
const SCHEMA = 'libvirt conf/schemas/domaincommon.rng';

function domainFaults({ domain, versions }: Target): Fault[] {
  const { root } = domain;
  const os = child(root, 'os');
  const type = os && child(os, 'type');
  // Xen's and containers' types have shapes of their own.
  const hvm = !/^(xen|linux|exe|uml|xenpvh)$/.test(type?.textContent ?? '');
  const found = grammarFaults(root, domainGrammar(versions.libvirt, hvm));
  if (domain.memoryKib === null || domain.memoryKib === 0) found.push('it has no memory');
  return found.map((cause) => ({ part: null, cause }));
}

const typeOf = (p: Part): string | null => p.element.getAttribute('type');

function controllerFaults({ domain, versions }: Target): Fault[] {
  return domain.controllers.flatMap((part): Fault[] => {
    const isRoot = /^pcie?-root$/.test(part.element.getAttribute('model') ?? '');
    if (typeOf(part) === 'pci' && isRoot && child(part.element, 'address')) {
      return [{ part, cause: 'a root has no <address>' }];
    }
    const grammar = controllerGrammar(typeOf(part), versions.libvirt);
    if (!grammar) return [{ part, cause: `'${safe(typeOf(part) ?? '')}' is no type of a controller` }];
    const model = part.element.getAttribute('model') ?? '';
    const isVirtioScsi = typeOf(part) === 'scsi' && /^virtio-(scsi|transitional|non-transitional)$/.test(model);
    const isOdd = !isVirtioScsi && Number(child(part.element, 'driver')?.getAttribute('iothread') ?? 0) > 0;
    return [
      ...grammarFaults(part.element, grammar).map((cause) => ({ part, cause })),
      ...(isOdd ? [{ part, cause: 'its <driver> has an iothread, and it is no virtio-scsi' }] : []),
    ];
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
    ...domain.interfaces
      .filter((p) => typeOf(p) !== 'hostdev' && WITH_PORT.includes(typeOf(p) ?? ''))
      .flatMap((part) => virtualPortFaults(part.element).map((cause) => ({ part, cause }))),
    ...domain.disks.filter(isMissingSource).map((part) => ({ part, cause: 'it has no <source>' })),
    ...domain.disks
      .filter((p) => p.element.getAttribute('device') === 'floppy')
      .filter((p) => !['fdc', null, undefined].includes(child(p.element, 'target')?.getAttribute('bus')))
      .map((part) => ({ part, cause: 'it is a floppy on another bus than fdc' })),
    ...domain.hostdevs.flatMap((part) => otherHostdevFaults(part, versions.libvirt)),
  ];
}

/** virDomainDiskDefValidateSource: only drives with removable media may be empty. */
function isMissingSource(p: Part): boolean {
  const device = p.element.getAttribute('device') ?? 'disk';
  const source = child(p.element, 'source');
  const type = typeOf(p) ?? 'file';
  const empty = type === 'file' ? !source?.getAttribute('file') : !source;
  return (device === 'disk' || device === 'lun') && type !== 'nvme' && empty;
}

function otherHostdevFaults(part: Part, libvirt: Version | null): Fault[] {
  const [mode, type] = [part.element.getAttribute('mode'), typeOf(part)];
  if (type === null || (type === 'pci' && mode !== 'capabilities')) return [];
  const grammar = hostdevGrammar(part.element, libvirt);
  if (grammar === null) return [{ part, cause: `'${safe(type)}' is no type of a <hostdev>` }];
  const found = grammarFaults(part.element, grammar);
  const source = child(part.element, 'source');
  const names = (n: string): boolean => source !== undefined && child(source, n) !== undefined;
  if (type === 'usb' && !names('address') && !(names('vendor') && names('product')))
    found.push('its <source> names neither <vendor> and <product> nor an <address>');
  return found.map((cause) => ({ part, cause }));
}

function aliasFaults({ domain }: Target): Fault[] {
  const { root } = domain;
  const devices = children(root, 'devices').flatMap(elements);
  const seen = new Set<string>();
  return devices.flatMap((e) => {
    // libvirt drops every other alias of an inactive domain.
    const alias = child(e, 'alias')?.getAttribute('name') ?? '';
    const twice = alias.startsWith('ua-') && seen.has(alias);
    seen.add(alias);
    return twice ? [{ part: partOf(e, null), cause: `alias ${safe(alias)} is another device's too` }] : [];
  });
}

function indexFaults({ domain }: Target): Fault[] {
  const seen = new Set<string>();
  return domain.controllers.flatMap((part): Fault[] => {
    const text = part.element.getAttribute('index');
    const type = typeOf(part) ?? '';
    if (text === null || !/^\d{1,10}$/.test(text)) return [];
    const index = Number(text);
    const found: Fault[] = [];
    // The functions of one USB 2 controller share an index.
    if (seen.has(`${type} ${index}`) && type !== 'usb') found.push({ part, cause: `index ${index} is there twice` });
    seen.add(`${type} ${index}`);
    if (type !== 'pci') return found;
    if (index > 255) found.push({ part, cause: `its index is ${index}` });
    const isRoot = /^pcie?-root$/.test(part.element.getAttribute('model') ?? '');
    if (isQemu(domain) && (isX86(domain) || isArmVirt(domain, null)) && isRoot !== (index === 0)) {
      found.push({ part, cause: isRoot ? `the root has index ${index}` : 'only the root has index 0' });
    }
    return found;
  });
}

export const SHAPE_RULES: readonly Rule[] = [
  {
    id: 'domain-schema',
    stage: 'define',
    holds:
      'the domain has a name, a memory and an <os> with a type, and each of its sections once, with what the schema knows',
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
    id: 'alias-unique',
    stage: 'define',
    holds: "an alias that begins with 'ua-' is that of one device",
    since: null,
    source: `${VALIDATE} virDomainDeviceDefValidateAliasesIterator (non unique alias detected)`,
    fix: 'name them differently',
    check: aliasFaults,
  },
  {
    id: 'controller-index',
    stage: 'define',
    holds: 'controllers of a type have each an index of their own; those of PCI up to 255, and the root has 0',
    since: null,
    source: `${VALIDATE} virDomainControllerDefValidate, virDomainDefValidateInternal; conf/domain_conf.c`,
    fix: 'number them anew',
    check: indexFaults,
  },
  {
    id: 'vlan-native',
    stage: 'define',
    holds: 'one tag of a <vlan> has a nativeMode',
    since: null,
    source: 'libvirt conf/netdev_vlan_conf.c virNetDevVlanParse (duplicate native vlan setting)',
    fix: 'take it out of the others',
    check: ({ domain }) =>
      domain.interfaces
        .filter((p) => vlanTags(p).filter((t) => t.hasAttribute('nativeMode')).length > 1)
        .map((part) => ({ part, cause: 'several tags have one' })),
  },
  {
    id: 'vcpu-current',
    stage: 'define',
    holds: 'no more vCPUs are there from the start (current) than there may be',
    since: null,
    source: 'libvirt conf/domain_conf.c virDomainVcpuParse (maximum vCPU count must not be less than current)',
    fix: 'lower current, or raise the number',
    check: ({ domain }) => {
      const { root } = domain;
      const vcpu = child(root, 'vcpu');
      const current = Number(vcpu?.getAttribute('current') ?? 0);
      return vcpu && current > Number(vcpu.textContent)
        ? [{ part: partOf(vcpu, null), cause: `${current} of ${Number(vcpu.textContent)}` }]
        : [];
    },
  },
  {
    id: 'disk-target',
    stage: 'define',
    holds: 'a <target> is that of one disk',
    since: null,
    source: 'libvirt conf/domain_conf.c virDomainDiskDefCheckDuplicateInfo (target duplicated for disk sources)',
    fix: 'name them differently',
    check: ({ domain }) => {
      const seen = new Set<string>();
      return domain.disks.flatMap((part) => {
        const name =
          child(part.element, 'target')
            ?.getAttribute('dev')
            ?.replace(/^ioemu:/, '') ?? null;
        if (name === null) return [];
        const isTaken = seen.has(name);
        seen.add(name);
        return isTaken ? [{ part, cause: `'${safe(name)}' is the target of another disk` }] : [];
      });
    },
  },
  {
    id: 'os-loader',
    stage: 'define',
    holds: 'a <loader> names a file, unless the firmware is to be chosen',
    since: null,
    source: `${VALIDATE} virDomainDefOSValidate (no loader path specified and firmware auto selection disabled)`,
    fix: "name the file, take the <loader> out, or say <os firmware='efi'>",
    check: ({ domain }) => {
      const { root } = domain;
      const os = child(root, 'os');
      const loader = os && child(os, 'loader');
      const isEmpty = loader !== undefined && loader.textContent === '' && !os?.hasAttribute('firmware');
      return isEmpty && os ? [{ part: partOf(os, null), cause: 'its <loader> is empty' }] : [];
    },
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
      const { root } = domain;
      const byOs = children(root, 'os').some((os) => child(os, 'boot') !== undefined);
      if (!byOs) return [];
      const part = [...domain.disks, ...domain.interfaces, ...domain.hostdevs].find((p) => child(p.element, 'boot'));
      return part ? [{ part, cause: 'it has a <boot>, and so has <os>' }] : [];
    },
  },
];
