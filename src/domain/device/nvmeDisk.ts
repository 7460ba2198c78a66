/** An NVMe controller as a disk of QEMU's own driver: `<disk type='nvme'>` (libvirt 6.0.0). */
import type { DomainFacts } from '../domainFacts.ts';
import { child } from '../xml/dom.ts';
import { addressElement, type XmlElement } from '../xml/write.ts';
import { unfit } from './devices.ts';
import type { Passed } from './fragments.ts';

/** Nova's bus; what a guest calls the disk is its own affair. */
const BUS = 'virtio';

/** libvirt's order (virDomainDiskDefFormat): driver, source, target, boot. */
export const nvmeDiskElement = ({ address, managed, boot }: Passed, namespace: number, target: string): XmlElement => ({
  name: 'disk',
  attributes: { type: 'nvme', device: 'disk' },
  children: [
    { name: 'driver', attributes: { name: 'qemu', type: 'raw' } },
    {
      name: 'source',
      attributes: { type: 'pci', managed: managed ? 'yes' : 'no', namespace: `${namespace}` },
      children: [addressElement(address)],
    },
    { name: 'target', attributes: { dev: target, bus: BUS } },
    ...(boot === null ? [] : [{ name: 'boot', attributes: { order: `${boot}` } }]),
  ],
});

/** Names of disks that the domain has free, one at each call: vda, vdb … vdz. Raises HOSTDEV_DOMAIN_UNFIT. */
export function freeTargets({ disks, name }: DomainFacts): () => string {
  const taken = new Set(disks.map((d) => child(d.element, 'target')?.getAttribute('dev')));
  return () => {
    const free = [...'abcdefghijklmnopqrstuvwxyz'].map((c) => `vd${c}`).find((dev) => !taken.has(dev));
    if (free === undefined) throw unfit(`Domain ${name} has disks vda to vdz`, 'Take one of them out first.');
    taken.add(free);
    return free;
  };
}
