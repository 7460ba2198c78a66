/**
 * Whether there is room to plug a device into a running guest: PCI Express takes one device a root port, and ports
 * cannot be added to a running guest.
 */
import { type DomainFacts, isArmVirt, isQ35, type Part } from '../domainFacts.ts';
import { child } from '../xml/dom.ts';

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

/**
 * Ports that will be free once the guest runs; null where the machine is not PCI Express or the XML leaves the ports to
 * libvirt.
 */
export function freePorts(d: DomainFacts): number | null {
  if (!isQ35(d) && !isArmVirt(d, null)) return null;
  const ports = d.controllers.filter(isPort);
  if (ports.length === 0) return null;
  const devices = [...d.hostdevs, ...d.interfaces, ...d.disks];
  const used = new Set<number>();
  for (const address of d.root.getElementsByTagName('address')) {
    if (address.getAttribute('type') !== 'pci' || address.parentNode?.nodeName === 'source') continue;
    const bus = Number(address.getAttribute('bus') ?? 0);
    if (Number.isInteger(bus)) used.add(bus);
  }
  const taken = ports.filter((p) => used.has(Number(p.element.getAttribute('index') ?? -1))).length;
  return ports.length - taken - devices.filter(wantsPort).length;
}
