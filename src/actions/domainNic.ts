/** A network interface for a domain: what was asked for, joined with what this host knows of the function. */
import { unfit } from '../domain/device/devices.ts';
import { type Nic, type NicShape, VNICS } from '../domain/device/nic.ts';
import type { DomainFacts } from '../domain/domainFacts.ts';
import { child } from '../domain/xml/dom.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { Inventory, PciDevice } from '../pci/inventory.ts';
import { representorOf } from '../pci/representors.ts';
import { addressOfClass } from '../pci/resolve.ts';
import { quote } from '../text/safe.ts';

/** What is asked for, as it was typed; undefined was not given. */
export type NicWords = {
  vnic: string;
  mac?: string | undefined;
  vlan?: string | undefined;
  profile?: string | undefined;
};

/** The same, understood. */
export type AskedNic = {
  vnic: string;
  shape: NicShape;
  mac: string | null;
  vlan: number | null;
  profile: string | null;
};

const usage = (message: string, hint: string): HostdevError => new HostdevError('HOSTDEV_USAGE', message, { hint });

/** Reads what was typed. Raises HOSTDEV_USAGE for what is no such value, and for values that the type does not take. */
export function readNic(words: NicWords): AskedNic {
  const vnic = words.vnic.toLowerCase();
  const type = Object.hasOwn(VNICS, vnic) ? VNICS[vnic] : undefined;
  if (!type)
    throw usage(`--vnic ${quote(words.vnic)}: there is no such type`, `There are: ${Object.keys(VNICS).join(', ')}.`);
  const { shape } = type;
  const nic = { vnic, shape, mac: readMac(words.mac), vlan: readVlan(words.vlan), profile: readProfile(words.profile) };
  if (type.profile && nic.profile === null) throw usage(`--vnic ${vnic} needs a port profile`, 'Give --profile-id ID.');
  if (shape === 'physical' && (nic.mac ?? nic.vlan ?? nic.profile) !== null)
    throw usage(`--vnic ${vnic} has no --mac, --vlan or --profile-id`, 'The guest drives the function itself.');
  if (shape === 'vdpa' && (nic.vlan ?? nic.profile) !== null)
    throw usage(`--vnic ${vnic} has no --vlan or --profile-id`, 'libvirt knows neither for vDPA.');
  if (nic.profile !== null && nic.vlan !== null)
    throw usage('--vlan and --profile-id exclude each other', 'With 802.1Qbh the switch sets the VLAN.');
  return nic;
}

/** libvirt refuses a multicast address for an interface (virDomainNetDefParseXML). */
function readMac(word: string | undefined): string | null {
  if (word === undefined) return null;
  const mac = word.toLowerCase();
  if (!/^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/.test(mac))
    throw usage(`--mac ${quote(word)}: no MAC address`, 'For example 52:54:00:12:34:56.');
  if (Number.parseInt(mac.slice(0, 2), 16) % 2 === 1)
    throw usage(`--mac ${mac}: a multicast address`, 'The first pair of digits must be even.');
  return mac;
}

/** 0 is no tag to Nova either; 4095 is reserved (802.1Q). */
function readVlan(word: string | undefined): number | null {
  if (word === undefined) return null;
  if (!/^\d{1,4}$/.test(word) || Number(word) > 4094)
    throw usage(`--vlan ${quote(word)}: no VLAN id`, 'It is a number from 0 (none) to 4094.');
  return Number(word) || null;
}

/**
 * LIBVIRT_IFLA_VF_PORT_PROFILE_MAX is 40 with its NUL; virNetDevVPortProfileFormat writes it without escaping (9.0.0),
 * so its own dump would be no XML.
 */
function readProfile(word: string | undefined): string | null {
  if (word === undefined || /^[^\p{Cc}<>&'"]{1,39}$/u.test(word)) return word ?? null;
  throw usage('--profile-id: not 1 to 39 characters without < > & or quotes', 'libvirt keeps no other ids.');
}

/** Base class 02: network controllers, InfiniBand's among them. An unknown class is the device's own matter. */
const isNetwork = (d: PciDevice): boolean => d.class === null || d.class.startsWith('02');

/**
 * Joins a NIC with its device; `host` null: the device is of a saved inventory. Raises HOSTDEV_DOMAIN_UNFIT when the
 * device cannot be one of that type.
 */
export function bindNic(host: Host | null, device: PciDevice, asked: AskedNic): Nic {
  const { shape, mac, vlan, profile } = asked;
  const { address } = device;
  if (!isNetwork(device))
    throw unfit(`${address} is no network device (class ${device.class})`, 'Leave --vnic out to take it as it is.');
  if (shape === 'direct' && device.dev_type !== 'type-VF') {
    const vdpa = device.dev_type === 'vdpa';
    throw unfit(
      `${address} is ${vdpa ? 'a VF with a vDPA device' : 'no VF'}: <interface type='hostdev'> is for SR-IOV virtual functions only`,
      vdpa
        ? 'Take it with --vnic vdpa, or remove its vDPA device first.'
        : 'Name one of its VFs, or take the whole function with --vnic direct-physical.',
    );
  }
  return { shape, mac, vlan, profile, hostNode: hostNode(host, address, shape) };
}

function hostNode(host: Host | null, address: Address, shape: NicShape): string | null {
  if (shape !== 'macvtap' && shape !== 'vdpa') return null;
  if (host === null)
    throw unfit(
      `${address}: an inventory does not tell what ${shape === 'macvtap' ? 'its network interface' : 'its vDPA device'} is called`,
      'Plan it on the host itself, without --inventory.',
    );
  return shape === 'macvtap' ? interfaceOf(host, address) : vhostVdpaOf(host, address);
}

/** The function's network interface: macvtap passthrough hands over the whole of it. */
function interfaceOf(host: Host, address: Address): string {
  const names = (host.list(host.classLink('net')) ?? []).filter(
    (n) => addressOfClass(host, 'net', n) === address && representorOf(host, n, address) === null,
  );
  const [only, ...more] = names;
  if (only === undefined)
    throw unfit(
      `${address} has no network interface on this host, and macvtap sits on one`,
      'Bring it to its host driver.',
    );
  if (more.length > 0)
    throw unfit(`${address} has several network interfaces: ${names.join(', ')}`, 'macvtap needs a function with one.');
  return only;
}

/** `<function>/vdpaN/vhost-vdpa-M` (drivers/vhost/vdpa.c): its vDPA devices, and the nodes that QEMU opens. */
function vdpaNodes(host: Host, address: Address): { vdpas: string[]; nodes: string[] } {
  const vdpas = (host.list(host.device(address)) ?? []).filter((n) => /^vdpa\d{1,7}$/.test(n));
  const nodes = vdpas.flatMap((v) =>
    (host.list(host.device(address, v)) ?? []).filter((n) => /^vhost-vdpa-\d{1,7}$/.test(n)),
  );
  return { vdpas, nodes };
}

function vhostVdpaOf(host: Host, address: Address): string {
  const { vdpas, nodes } = vdpaNodes(host, address);
  const [only, ...more] = nodes;
  if (vdpas.length === 0)
    throw unfit(`${address} has no vDPA device`, `Make one: vdpa dev add name vdpa0 mgmtdev pci/${address}`);
  if (only === undefined)
    throw unfit(
      `${vdpas.join(', ')} of ${address} is not on vhost_vdpa, so there is no /dev/vhost-vdpa-N`,
      `Bind it: echo ${vdpas[0]} > /sys/bus/vdpa/drivers/vhost_vdpa/bind, after unbinding virtio_vdpa.`,
    );
  if (more.length > 0)
    throw unfit(`${address} has several vDPA devices: ${nodes.join(', ')}`, 'Remove all but one with vdpa dev del.');
  return `/dev/${only}`;
}

/**
 * The functions that a domain's macvtap and vDPA interfaces sit on, with where. A PF is not among them: its interface
 * may carry a macvtap while its VFs are given away. What this host does not know is left out.
 */
export function behindInterfaces(
  host: Host,
  inventory: Inventory,
  { interfaces }: DomainFacts,
): { address: Address; where: string }[] {
  return interfaces.flatMap(({ element, where }) => {
    const dev = child(element, 'source')?.getAttribute('dev') ?? '';
    const address = functionBehind(host, inventory, element.getAttribute('type'), dev);
    const device = address === null ? undefined : inventory.byAddress.get(address);
    return device === undefined || device.dev_type === 'type-PF' ? [] : [{ address: device.address, where }];
  });
}

function functionBehind(host: Host, inventory: Inventory, type: string | null, dev: string): Address | null {
  // IFNAMSIZ is 16 with its NUL; dots alone would be a path.
  if (type === 'direct') return /^(?!\.{1,2}$)[^/\s]{1,15}$/.test(dev) ? addressOfClass(host, 'net', dev) : null;
  const node = type === 'vdpa' ? /^\/dev\/(vhost-vdpa-\d{1,7})$/.exec(dev)?.[1] : undefined;
  if (node === undefined) return null;
  const parents = inventory.devices.filter((d) => d.dev_type === 'vdpa');
  return parents.find((d) => vdpaNodes(host, d.address).nodes.includes(node))?.address ?? null;
}
