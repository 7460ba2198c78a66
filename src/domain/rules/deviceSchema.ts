/** What libvirt's schema and parser refuse of hostdevs, interfaces and NVMe disks beside their grammars. */
import type { Element } from '@xmldom/xmldom';
import { safe } from '../../text/safe.ts';
import { isQemu, type Part } from '../domainFacts.ts';
import { child, elements } from '../xml/dom.ts';
import { HOSTDEV, interfaceGrammar, NVME_DISK } from './deviceShapes.ts';
import { grammarFaults } from './grammar.ts';
import { faults, faultsOf, hostdevInterfaces, isUsb, nvmeDisks, pciHostdevs } from './ours.ts';
import type { Fault, Target } from './rules.ts';

export function hostdevFaults({ domain, versions }: Target): Fault[] {
  const odd = domain.hostdevs.flatMap((p) => {
    const mode = p.element.getAttribute('mode') ?? 'subsystem';
    if (mode !== 'subsystem' && mode !== 'capabilities') return faults(p, [`'${safe(mode)}' is no mode`]);
    return p.element.getAttribute('type') === null ? faults(p, ['it has no type']) : [];
  });
  return [
    ...odd,
    ...pciHostdevs(domain).flatMap((p) => [
      ...faultsOf(p, grammarFaults(p.element, HOSTDEV, versions.libvirt)),
      ...faults(p, isTornApart(p.element) ? ['<driver>, <teaming> and <source> do not stand together'] : []),
    ]),
  ];
}

/**
 * libxml2 matches the group of these within the rest only where nothing stands between them (measured: 9.0.0 to
 * 12.8.0).
 */
function isTornApart(e: Element): boolean {
  const places = elements(e).flatMap((c, i) => (['driver', 'teaming', 'source'].includes(c.nodeName) ? [i] : []));
  return places.length > 1 && (places.at(-1) ?? 0) - (places[0] ?? 0) !== places.length - 1;
}

export function interfaceFaults({ domain, versions }: Target): Fault[] {
  return hostdevInterfaces(domain).flatMap((p) => {
    const grammar = interfaceGrammar({
      named: child(p.element, 'driver')?.hasAttribute('name') ?? false,
      qbh: child(p.element, 'virtualport')?.getAttribute('type') === '802.1Qbh',
      usb: isUsb(p),
    });
    const isIsolated = child(p.element, 'port')?.getAttribute('isolated') === 'yes';
    return [
      ...faultsOf(p, grammarFaults(p.element, grammar, versions.libvirt)),
      ...faults(p, isQemu(domain) && child(p.element, 'mtu') ? ['<mtu> is not for host devices'] : []),
      ...faults(p, isIsolated ? ['<port isolated> is not for host devices'] : []),
      ...faults(p, hasTwoNatives(p) ? ['several tags of its <vlan> have a nativeMode'] : []),
    ];
  });
}

/** virNetDevVlanParse: duplicate native vlan setting. */
const hasTwoNatives = (p: Part): boolean => {
  const vlan = child(p.element, 'vlan');
  return vlan !== undefined && elements(vlan).filter((t) => t.hasAttribute('nativeMode')).length > 1;
};

export function nvmeFaults({ domain, versions }: Target): Fault[] {
  return nvmeDisks(domain).flatMap((p) => {
    const isRemovable = ['cdrom', 'floppy'].includes(p.element.getAttribute('device') ?? '');
    const name = child(p.element, 'driver')?.getAttribute('name') ?? 'qemu';
    return [
      ...faultsOf(p, grammarFaults(p.element, NVME_DISK, versions.libvirt)),
      ...faults(p, isQemu(domain) && isRemovable ? ['it is of removable media'] : []),
      ...faults(p, isQemu(domain) && name !== 'qemu' ? [`its driver is '${safe(name)}' and not qemu`] : []),
    ];
  });
}
