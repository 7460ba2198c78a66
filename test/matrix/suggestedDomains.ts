/** Domains with the vIOMMU that hostdev suggests for them: what a libvirt of that version must take. */
import { readDomainFacts } from '../../src/domain/domainFacts.ts';
import { parseVersion } from '../../src/domain/version.ts';
import { suggestViommu, VIOMMU_WISHES } from '../../src/domain/viommu/suggest.ts';
import { readDomain } from '../../src/domain/xml/domain.ts';
import { formatXml, type XmlElement } from '../../src/domain/xml/write.ts';
import type { MatrixDomain } from './viommuDomains.ts';

/** The pairs that judges are there for. */
export const TARGETS = [
  { libvirt: '9.0.0', qemu: '7.2.22' },
  { libvirt: '11.3.0', qemu: '10.0.13' },
  { libvirt: '12.8.0', qemu: '11.1.3' },
];

const MACHINES: Record<string, string> = {
  q35: "<type arch='x86_64' machine='q35'>hvm</type>",
  virt: "<type arch='aarch64' machine='virt'>hvm</type><loader readonly='yes' type='pflash'>/usr/share/AAVMF/AAVMF_CODE.fd</loader>",
};

const HOSTDEV =
  "<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x41' slot='0x10' function='0x0'/></source></hostdev>";

/** An element of a suggestion as XML. */
export const elementXml = (e: XmlElement): string => formatXml(e, null);

/** Every suggestion that is none is left out; ids name the target, the domain and the wish. */
export function suggestedDomains(): MatrixDomain[] {
  const domains: MatrixDomain[] = [];
  for (const target of TARGETS) {
    for (const [machine, os] of Object.entries(MACHINES)) {
      for (const vcpus of [2, 256]) {
        for (const hostdev of ['', HOSTDEV]) {
          for (const wish of VIOMMU_WISHES) {
            const id = `suggested-${target.libvirt}-${machine}-${vcpus}-${hostdev ? 'vf-' : ''}${wish}`;
            const write = (features: string, iommu: string): string => `<domain type='qemu'>
  <name>${id}</name>
  <memory unit='MiB'>64</memory>
  <vcpu>${vcpus}</vcpu>
  <os>${os}</os>
  <features>${features}</features>
  <devices>
    ${hostdev}${iommu}
    <memballoon model='none'/>
  </devices>
</domain>
`;
            const versions = { libvirt: parseVersion(target.libvirt), qemu: parseVersion(target.qemu) };
            const s = suggestViommu(readDomainFacts(readDomain(write('', ''), id)), versions, null, wish);
            if (s.kind === 'refusal') continue;
            domains.push({ id, xml: write(s.needs.map((n) => elementXml(n.element)).join(''), elementXml(s.element)) });
          }
        }
      }
    }
  }
  return domains;
}
