/** A network interface for a domain: what was asked for, joined with what this host knows of the function. */
import { type Nic, type NicShape, VNICS } from '../domain/nic.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { addressOfClass } from '../pci/resolve.ts';

export type AskedNic = {
  vnic: keyof typeof VNICS & string;
  mac: string | null;
  vlan: number | null;
  profile: string | null;
};

export type BoundNic = Nic;

const unfit = (message: string, hint: string): HostdevError =>
  new HostdevError('HOSTDEV_DOMAIN_UNFIT', message, { hint });

/** Base class 02: network controllers, InfiniBand's among them. An unknown class is the device's own matter. */
const isNetwork = (d: PciDevice): boolean => d.class === null || d.class.startsWith('02');

/** Joins a NIC with its device. Raises HOSTDEV_DOMAIN_UNFIT when the device cannot be one of that type. */
export function bindNic(host: Host, device: PciDevice, asked: AskedNic): BoundNic {
  const shape: NicShape = VNICS[asked.vnic]?.shape ?? 'direct';
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
  return { shape, mac: asked.mac, vlan: asked.vlan, profile: asked.profile, hostNode: hostNode(host, address, shape) };
}

function hostNode(host: Host, address: Address, shape: NicShape): string | null {
  if (shape === 'macvtap') return interfaceOf(host, address);
  return shape === 'vdpa' ? vhostVdpaOf(host, address) : null;
}

/** The function's network interface: macvtap passthrough hands over the whole of it. */
function interfaceOf(host: Host, address: Address): string {
  const names = (host.list(host.classLink('net')) ?? []).filter((n) => addressOfClass(host, 'net', n) === address);
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

/** `<function>/vdpaN/vhost-vdpa-M` (drivers/vhost/vdpa.c): the node that QEMU opens. */
function vhostVdpaOf(host: Host, address: Address): string {
  const vdpas = (host.list(host.device(address)) ?? []).filter((n) => /^vdpa\d{1,7}$/.test(n));
  const nodes = vdpas.flatMap((v) =>
    (host.list(host.device(address, v)) ?? []).filter((n) => /^vhost-vdpa-\d{1,7}$/.test(n)),
  );
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
