/** Devices put into a domain's XML and taken out of it. */
import type { Element } from '@xmldom/xmldom';
import { HostdevError } from '../../errors.ts';
import type { Address } from '../../pci/address.ts';
import { readDomainDevices, sourceAddress } from '../hostDevices.ts';
import { child, children } from '../xml/dom.ts';
import { type Domain, edited } from '../xml/domain.ts';
import { insertIntoSection, removeElements } from '../xml/edit.ts';
import type { XmlElement } from '../xml/write.ts';

/** The error for a change that a domain or device cannot take; `hint` is the way out. */
export const unfit = (message: string, hint: string): HostdevError =>
  new HostdevError('HOSTDEV_DOMAIN_UNFIT', message, { hint });

/** libvirt writes `<devices>` behind these; below them come `<seclabel>` and other tools' namespaces. */
const BEFORE_DEVICES = ['clock', 'on_poweroff', 'on_reboot', 'on_crash', 'pm', 'features', 'cpu', 'os', 'vcpu', 'name'];

/** Writes devices into a domain, each behind the last of its kind. */
export function addDevices(domain: Domain, added: readonly XmlElement[]): Domain {
  let now = domain;
  for (const name of new Set(added.map((e) => e.name))) {
    const same = added.filter((e) => e.name === name);
    now = edited(now, (source) => insertIntoSection(source, 'devices', same, BEFORE_DEVICES));
  }
  return now;
}

/** The elements by which a domain takes a PCI device, and their type then. */
const KINDS = [
  ['hostdev', 'pci'],
  ['interface', 'hostdev'],
  ['disk', 'nvme'],
] as const;

/** The element by which a domain takes each of its PCI devices; of several disks on one controller the last. */
export function deviceElements({ root, what }: Domain): Map<Address, Element> {
  const found = new Map<Address, Element>();
  for (const section of children(root, 'devices')) {
    for (const [kind, wanted] of KINDS)
      for (const e of children(section, kind)) {
        const mode = kind === 'hostdev' ? (e.getAttribute('mode') ?? 'subsystem') : 'subsystem';
        if (mode !== 'subsystem' || e.getAttribute('type') !== wanted) continue;
        found.set(sourceAddress(what, e, child(e, 'source'), `<${e.nodeName}>`), e);
      }
  }
  return found;
}

/**
 * Takes devices out of a domain: `<hostdev>` and `<interface type='hostdev'>`. What hostdev had put in leaves the text
 * as it was before. Raises HOSTDEV_DOMAIN_UNFIT for a device that the domain does not take, or takes by an NVMe disk.
 */
export function removeDevices(domain: Domain, addresses: readonly Address[]): Domain {
  const taken = readDomainDevices(domain);
  for (const address of addresses) {
    const device = taken.devices.find((d) => d.address === address);
    if (!device)
      throw unfit(
        `Domain ${taken.name} does not take ${address}`,
        "There is nothing to remove; 'hostdev hook test' lists what a domain takes.",
      );
    if (device.kind === 'nvme')
      throw unfit(
        `Domain ${taken.name} takes ${address} by ${device.where}, a disk`,
        'Disks are not removed here: take the <disk> out with virsh edit.',
      );
  }
  let now = domain;
  // A section at a time: the places of a second one are others once the first has changed.
  for (const left = new Set(addresses); left.size > 0; ) {
    now = edited(now, (source) => {
      const mine = [...deviceElements(source)].filter(([a]) => left.has(a));
      const section = mine[0]?.[1].parentNode;
      const here = mine.filter(([, e]) => e.parentNode === section);
      if (here.length === 0) throw new HostdevError('HOSTDEV_INTERNAL', `${[...left].join(', ')} is not found again`);
      for (const [a] of here) left.delete(a);
      return removeElements(
        source,
        here.map(([, e]) => e),
      );
    });
  }
  return now;
}

/** What a `<boot order>` more has to agree with. */
export type BootOrders = {
  /** `<os>` has a `<boot dev>`: libvirt refuses orders of devices beside it (virDomainDefParseBootOptions). */
  byOs: boolean;
  /** Every order that is taken, and by what, e.g. "disk (line 12)". */
  taken: Map<number, string>;
};

export function readBootOrders({ root }: Domain): BootOrders {
  const taken = new Map<number, string>();
  for (const section of children(root, 'devices')) {
    for (let n = section.firstChild; n; n = n.nextSibling) {
      if (n.nodeType !== n.ELEMENT_NODE) continue;
      const order = child(n as Element, 'boot')?.getAttribute('order');
      if (order) taken.set(Number(order), `${n.nodeName} (line ${n.lineNumber ?? 1})`);
    }
  }
  return { byOs: children(root, 'os').some((os) => child(os, 'boot') !== undefined), taken };
}
