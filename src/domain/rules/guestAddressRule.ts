/**
 * Where devices stand on the guest's own PCI buses: what QEMU's driver of libvirt refuses when it gives out addresses.
 */
import type { Element } from '@xmldom/xmldom';
import { type DomainFacts, isArmVirt, isQ35, isQemu, isX86, type Part, partOf } from '../domainFacts.ts';
import type { Version } from '../version.ts';
import { child, children, elements } from '../xml/dom.ts';
import { hostParts, pciControllers, shared } from './ours.ts';
import type { Fault, Rule, Target } from './rules.ts';
import { addressPart } from './values.ts';

type GuestAddress = Record<'domain' | 'bus' | 'slot' | 'function', number>;

/**
 * The address as numbers; null where it is none, or one that libvirt is to choose (virPCIDeviceAddressIsEmpty does not
 * look at the function).
 */
function readAddress(e: Element): GuestAddress | null {
  const part = (name: keyof GuestAddress): number => addressPart(e, name) ?? Number.NaN;
  const a = { domain: part('domain'), bus: part('bus'), slot: part('slot'), function: part('function') };
  if (Object.values(a).some(Number.isNaN) || (a.domain === 0 && a.bus === 0 && a.slot === 0)) return null;
  return a;
}

/**
 * The slots of a bus by the controller that makes it; one that the XML does not name is made by libvirt. Null is not
 * known.
 */
function slotsOf(d: DomainFacts, bus: number, libvirt: Version | null): 'from 1' | 'only 0' | null {
  const named = d.controllers.find(
    (c) => c.element.getAttribute('type') === 'pci' && c.element.getAttribute('index') === String(bus),
  );
  const isExpress = isQ35(d) || isArmVirt(d, libvirt);
  const made = bus === 0 ? (isExpress ? 'pcie-root' : 'pci-root') : isExpress ? 'pcie-root-port' : 'pci-bridge';
  const model = named?.element.getAttribute('model') ?? made;
  if (['pci-root', 'pcie-root', 'pci-bridge'].includes(model)) return 'from 1';
  return ['pcie-root-port', 'pcie-switch-downstream-port'].includes(model) ? 'only 0' : null;
}

/** The address of a device of the guest, by number; null where it has none that counts. */
function standing(e: Element): GuestAddress | null {
  // The first console is the first serial port again, address and all.
  const address = e.nodeName === 'console' ? undefined : child(e, 'address');
  return address?.getAttribute('type') === 'pci' ? readAddress(address) : null;
}

function keyOf({ element }: Part): string | null {
  const a = standing(element);
  return a && Object.values(a).join(':');
}

function check({ domain, versions }: Target): Fault[] {
  if (!isQemu(domain) || !(isX86(domain) || isArmVirt(domain, versions.libvirt))) return [];
  const all = children(domain.root, 'devices').flatMap(elements);
  const mine = [...hostParts(domain), ...domain.iommus, ...pciControllers(domain)];
  const twice = shared(
    mine,
    all.map((e) => partOf(e, null)),
    keyOf,
    (_, other) => `its <address> is that of ${other.where}`,
  );
  const misplaced = mine.flatMap((part): Fault[] => {
    const a = standing(part.element);
    if (!a) return [];
    if (a.domain !== 0) return [{ part, cause: `its <address> is in PCI domain ${a.domain}` }];
    const slots = slotsOf(domain, a.bus, versions.libvirt);
    const wrong = slots === 'from 1' ? a.slot === 0 : slots === 'only 0' && a.slot !== 0;
    return wrong ? [{ part, cause: `it is in slot ${a.slot} of bus ${a.bus}, which has ${slots}` }] : [];
  });
  return [...twice, ...misplaced];
}

export const GUEST_ADDRESS_RULE: Rule = {
  id: 'guest-pci-address',
  stage: 'define',
  holds:
    'PCI addresses in the guest of host devices, vIOMMUs and PCI controllers are in domain 0, each there once, in a slot that the bus has: root buses and bridges from 1, ports only 0',
  since: null,
  source:
    'libvirt conf/domain_addr.c virDomainPCIAddressValidate, virDomainPCIAddressReserveAddrInternal (Attempted double use of PCI Address)',
  fix: 'take the <address> out: libvirt chooses one',
  check,
};
