/** What is foretold of a migration, by libvirt's own rules of each version. */
import { expect, test } from 'vitest';
import { readDomainFacts } from '../../../src/domain/domainFacts.ts';
import { migrationOf } from '../../../src/domain/migration.ts';
import { version } from '../../../src/domain/version.ts';
import { readDomain } from '../../../src/domain/xml/domain.ts';

const SOURCE = "<source><address type='pci' domain='0' bus='1' slot='0' function='0'/></source>";
const HOSTDEV = `<hostdev mode='subsystem' type='pci' managed='yes'>${SOURCE}</hostdev>`;
const VF = `<interface type='hostdev' managed='yes'>${SOURCE}</interface>`;
const TEAMED = `<interface type='hostdev' managed='yes'>${SOURCE}<teaming type='transient' persistent='ua-a'/></interface>`;
const MACVTAP = "<interface type='direct'><source dev='eth0' mode='passthrough'/></interface>";
const NVME = `<disk type='nvme' device='disk'>${SOURCE.replace('<source>', "<source type='pci' managed='yes' namespace='1'>")}<target dev='vda'/></disk>`;
const USB = "<hostdev mode='subsystem' type='usb'><source><vendor id='1'/></source></hostdev>";

const OLD = { libvirt: version('8.5.0'), qemu: version('8.0.0') };
const NEW = { libvirt: version('9.0.0'), qemu: version('7.2.0') };

test.each([
  ['no device', '', NEW, 'yes'],
  ['a USB device', USB, OLD, 'yes'],
  ['macvtap (seed 003)', MACVTAP, OLD, 'yes'],
  ['a host device, before libvirt asked QEMU', HOSTDEV, OLD, 'no'],
  ['a VF as interface, likewise', VF, OLD, 'no'],
  ['a host device', HOSTDEV, NEW, 'depends'],
  ['a host device, with a QEMU that tells no reasons', HOSTDEV, { ...NEW, qemu: version('5.2.0') }, 'no'],
  ['the transient half of a team', TEAMED, OLD, 'yes'],
  ['the same, before libvirt knew teams', TEAMED, { ...OLD, libvirt: version('6.0.0') }, 'no'],
  ['an NVMe disk', NVME, NEW, 'no'],
  ['versions not known', HOSTDEV, { libvirt: null, qemu: null }, 'depends'],
])('%s', (_what, devices, versions, possible) => {
  const xml = `<domain type='kvm'><name>g</name><devices>${devices}</devices></domain>`;
  const answer = migrationOf(readDomainFacts(readDomain(xml, 'g.xml')), versions);
  expect(answer.possible).toBe(possible);
  expect(answer.reasons.length > 0).toBe(possible !== 'yes');
});
