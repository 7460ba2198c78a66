/**
 * Network interfaces in the shapes that Nova gives its vnic types (nova/virt/libvirt/vif.py and designer.py, 2025.1):
 * the elements, their order and which of them go together.
 */

import { addressElement, type XmlElement } from '../xml/write.ts';
import { bootAndRom, driverElement, hostdevElement, type Passed } from './fragments.ts';

/**
 * How a port gets to its device: `direct` the VF itself, `macvtap` a macvtap on the VF's interface, `physical` the
 * whole function as a plain host device, `vdpa` a vDPA device of the VF.
 */
export type NicShape = 'direct' | 'macvtap' | 'physical' | 'vdpa';

/**
 * Names of neutron's vnic_type and of Nova's VIF types that have a shape here; `profile` says that a port profile must
 * be given.
 */
export const VNICS: Readonly<Record<string, { shape: NicShape; profile: boolean }>> = {
  direct: { shape: 'direct', profile: false },
  'accelerator-direct': { shape: 'direct', profile: false },
  hw_veb: { shape: 'direct', profile: false },
  '802.1qbh': { shape: 'direct', profile: true },
  macvtap: { shape: 'macvtap', profile: false },
  'direct-physical': { shape: 'physical', profile: false },
  'accelerator-direct-physical': { shape: 'physical', profile: false },
  hostdev_physical: { shape: 'physical', profile: false },
  ib_hostdev: { shape: 'physical', profile: false },
  vdpa: { shape: 'vdpa', profile: false },
};

export type Nic = {
  shape: NicShape;
  /** Canonical text; null lets libvirt make one up. */
  mac: string | null;
  /** One tag, 1 to 4094; null for none. */
  vlan: number | null;
  /** Port profile of 802.1Qbh; null without. */
  profile: string | null;
  /** The function's interface on the host for macvtap, its /dev/vhost-vdpa-N for vdpa; null otherwise. */
  hostNode: string | null;
};

const element = (name: string, attributes: Record<string, string>): XmlElement => ({ name, attributes });
const some = (wanted: boolean, ...elements: XmlElement[]): XmlElement[] => (wanted ? elements : []);

/** Nova's order: mac, model, driver, source, vlan, virtualport. */
export function nicElement(nic: Nic, device: Passed): XmlElement {
  const { shape, mac, vlan, profile, hostNode } = nic;
  if (shape === 'physical') return hostdevElement({ ...device, unassigned: false });
  const parameters = element('parameters', { profileid: profile ?? '' });
  const first = some(mac !== null, element('mac', { address: mac ?? '' }));
  const last = [
    ...some(vlan !== null, { name: 'vlan', children: [element('tag', { id: `${vlan}` })] }),
    ...some(profile !== null, { name: 'virtualport', attributes: { type: '802.1Qbh' }, children: [parameters] }),
    ...bootAndRom(device),
  ];
  const dev = hostNode ?? '';
  if (shape === 'direct') {
    return {
      name: 'interface',
      attributes: { type: 'hostdev', managed: device.managed ? 'yes' : 'no' },
      children: [
        ...first,
        // Nova writes no <driver> here, and libvirt takes VFIO by itself.
        ...some(device.model !== null, driverElement(device)),
        { name: 'source', children: [addressElement(device.address, 'pci')] },
        ...last,
      ],
    };
  }
  const model = element('model', { type: 'virtio' });
  const body =
    shape === 'macvtap'
      ? [model, element('driver', { name: 'vhost' }), element('source', { dev, mode: 'passthrough' })]
      : [model, element('source', { dev })];
  const type = shape === 'macvtap' ? 'direct' : 'vdpa';
  return { name: 'interface', attributes: { type }, children: [...first, ...body, ...last] };
}
