/** What only virtio devices may be told: libvirt refuses it of all other interfaces and disks, so of host devices. */

import type { Part } from '../domainFacts.ts';
import { child } from '../xml/dom.ts';
import { hostdevInterfaces, isVirtioInterface, nvmeDisks } from './ours.ts';
import type { Fault, Rule } from './rules.ts';

const OPTIONS = ['iommu', 'ats', 'packed', 'page_per_vq'];
const DISK_OPTIONS = [...OPTIONS, 'queues', 'event_idx', 'ioeventfd'];

/** The bus of a disk: without one its target's name decides (conf/domain_postparse.c virDomainDiskDefPostParse). */
function isVirtioDisk({ element }: Part): boolean {
  const target = child(element, 'target');
  const bus = target?.getAttribute('bus') ?? null;
  if (bus !== null) return bus === 'virtio';
  return element.getAttribute('device') !== 'floppy' && /^(ioemu:)?vd/.test(target?.getAttribute('dev') ?? '');
}

function refused(p: Part, names: readonly string[]): Fault[] {
  const driver = child(p.element, 'driver');
  return names.filter((n) => driver?.hasAttribute(n)).map((n) => ({ part: p, cause: `its <driver> has '${n}'` }));
}

export const VIRTIO_OPTIONS_RULE: Rule = {
  id: 'virtio-options',
  stage: 'define',
  holds: 'iommu, ats, packed and page_per_vq, and of disks queues, event_idx and ioeventfd, are for virtio devices',
  since: null,
  source: 'libvirt conf/domain_validate.c virDomainCheckVirtioOptionsAreAbsent, virDomainDiskDefValidate',
  fix: 'leave them out: a host device has no virtio driver',
  check: ({ domain }) => [
    ...hostdevInterfaces(domain)
      .filter((p) => !isVirtioInterface(p))
      .flatMap((p) => refused(p, OPTIONS)),
    ...nvmeDisks(domain)
      .filter((p) => !isVirtioDisk(p))
      .flatMap((p) => refused(p, DISK_OPTIONS)),
  ],
};
