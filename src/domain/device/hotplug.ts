/**
 * Whether there is room to plug a device into a running guest: PCI Express takes one device a root port, and ports
 * cannot be added to a running guest.
 */

import { type Address, parseAddress } from '../../pci/address.ts';
import { type DomainFacts, isArmVirt, isQ35, type Part } from '../domainFacts.ts';
import { child } from '../xml/dom.ts';
import type { XmlElement } from '../xml/write.ts';
import { unfit } from './devices.ts';

const PORT_MODELS = ['pcie-root-port', 'pcie-switch-downstream-port'];

const isPort = (p: Part): boolean =>
  p.element.getAttribute('type') === 'pci' && PORT_MODELS.includes(p.element.getAttribute('model') ?? '');

/** What libvirt puts behind a port of its own when the XML gives it no address (qemu_domain_address.c). */
function wantsPort(p: Part): boolean {
  const e = p.element;
  const type = e.getAttribute('type');
  if (child(e, 'address')) return false;
  if (e.nodeName === 'hostdev') return type === 'pci';
  if (e.nodeName === 'interface') return true;
  return child(e, 'target')?.getAttribute('bus') === 'virtio';
}

/** The numbers of ports on which nothing has an address; -1 for one whose number is libvirt's to give. */
const emptyPorts = (d: DomainFacts): number[] => {
  const used = new Set<number>();
  for (const address of d.root.getElementsByTagName('address')) {
    if (address.getAttribute('type') !== 'pci' || address.parentNode?.nodeName === 'source') continue;
    const bus = Number(address.getAttribute('bus') ?? 0);
    if (Number.isInteger(bus)) used.add(bus);
  }
  return d.controllers
    .filter(isPort)
    .map((p) => Number(p.element.getAttribute('index') ?? -1))
    .filter((index) => !used.has(index));
};

/**
 * Functions of one card on one slot of the guest, each at its own function's number there, in the order in which they
 * are plugged in: QEMU shows all of them to the guest when function 0 comes. Raises HOSTDEV_DOMAIN_UNFIT where no port
 * is free or the functions do not make a card.
 */
export function onOneSlot<T extends { address: Address; element: XmlElement }>(
  d: DomainFacts,
  list: readonly T[],
): T[] {
  const functions = list.map((p) => parseAddress(p.address)?.func ?? 0);
  const slots = new Set(list.map((p) => p.address.slice(0, -2)));
  if (slots.size > 1 || !functions.includes(0))
    throw unfit('--one-slot is for functions of one card, its function 0 among them', 'Leave it out.');
  const bus = emptyPorts(d).find((index) => index > 0);
  if (bus === undefined)
    throw unfit(
      `Domain ${d.name} names no port that is free`,
      "Give it one more <controller type='pci' model='pcie-root-port'/> at its next start.",
    );
  const placed = list.map((p, i): T => {
    const func = functions[i] ?? 0;
    const address = {
      name: 'address',
      attributes: {
        type: 'pci',
        domain: '0x0000',
        bus: `0x${bus.toString(16).padStart(2, '0')}`,
        slot: '0x00',
        function: `0x${func}`,
        multifunction: func === 0 ? 'on' : undefined,
      },
    };
    return { ...p, element: { ...p.element, children: [...(p.element.children ?? []), address] } };
  });
  return placed.sort((a, b) => (a.address < b.address ? 1 : -1));
}

/**
 * Ports that will be free once the guest runs; null where the machine is not PCI Express or the XML leaves the ports to
 * libvirt.
 */
export function freePorts(d: DomainFacts): number | null {
  if (!isQ35(d) && !isArmVirt(d, null)) return null;
  const ports = d.controllers.filter(isPort);
  if (ports.length === 0) return null;
  const devices = [...d.hostdevs, ...d.interfaces, ...d.disks];
  return emptyPorts(d).length - devices.filter(wantsPort).length;
}
