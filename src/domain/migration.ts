/**
 * Whether libvirt would migrate a guest that runs with these devices, foretold from the domain and its versions
 * (qemuMigrationSrcIsAllowedHostdev, qemuMigrationSrcIsSafe; libvirt 4.1 to 12).
 */
import type { DomainFacts, Part } from './domainFacts.ts';
import { type Version, type Versions, version } from './version.ts';
import { child } from './xml/dom.ts';

/** `yes`; `no`: refused for the reasons; `depends`: QEMU decides by what the device's driver can. */
export type Migration = { possible: 'yes' | 'no' | 'depends'; reasons: string[] };

/** A transient interface of a team is unplugged before the migration, and plugged in again (docs: `<teaming>`). */
const TEAMING: Version = version('6.1.0');
/** From these on libvirt asks QEMU what blocks a migration, in place of refusing each host device itself. */
const ASKS_QEMU: Version = version('8.6.0');
const BLOCKED_REASONS: Version = version('6.0.0');

/** Of devices only: what else a guest has that keeps it here is not judged. */
export function migrationOf({ hostdevs, interfaces, disks }: DomainFacts, { libvirt, qemu }: Versions): Migration {
  const asksQemu = (libvirt === null || libvirt >= ASKS_QEMU) && (qemu === null || qemu >= BLOCKED_REASONS);
  const leaves = ({ element }: Part): boolean =>
    (libvirt === null || libvirt >= TEAMING) && child(element, 'teaming')?.getAttribute('type') === 'transient';
  const pci = [
    ...hostdevs.filter(({ element }) => element.getAttribute('type') === 'pci'),
    ...interfaces.filter(({ element }) => element.getAttribute('type') === 'hostdev'),
  ].filter((p) => !leaves(p));
  const nvme = disks.filter(({ element }) => element.getAttribute('type') === 'nvme');
  const stays = [
    ...(asksQemu ? [] : pci.map((p) => `${p.where} is a host device, which this libvirt never migrates`)),
    ...nvme.map((d) => `${d.where} is a disk of this host alone`),
  ];
  if (stays.length > 0) return { possible: 'no', reasons: stays };
  if (pci.length === 0) return { possible: 'yes', reasons: [] };
  return {
    possible: 'depends',
    reasons: pci.map((p) => `${p.where}: QEMU refuses unless the device's VFIO driver can migrate (vfio-pci cannot)`),
  };
}
