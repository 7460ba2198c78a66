/** A suggested vIOMMU in a domain's text. */
import { describe, expect, test } from 'vitest';
import { readDomainFacts } from '../../../src/domain/domainFacts.ts';
import { version } from '../../../src/domain/version.ts';
import { removeViommu, setViommu } from '../../../src/domain/viommu/edit.ts';
import { suggestViommu, type ViommuWish } from '../../../src/domain/viommu/suggest.ts';
import { readDomain } from '../../../src/domain/xml/domain.ts';
import { decodeXml } from '../../../src/domain/xml/parse.ts';
import { allDomains, canonical } from '../../mock/domains.ts';

const VERSIONS = { libvirt: version('9.0.0'), qemu: version('7.2.0') };

function put(text: string, wish: ViommuWish): string {
  const s = suggestViommu(readDomainFacts(readDomain(text, 'x')), VERSIONS, null, wish);
  if (s.kind === 'refusal') throw new Error(s.reason);
  return setViommu(readDomain(text, 'x'), s).text;
}

const domain = (features: string, iommu: string): string => `<domain type='kvm'>
  <name>x</name> <!-- n -->
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
${features}  <devices>
    <memballoon model='none'/>
${iommu}  </devices>
</domain>
`;

const INTEL = `    <iommu model='intel'>
      <driver intremap='on' caching_mode='on' aw_bits='48' eim='on' iotlb='on'/>
    </iommu>
`;
const QEMU = "    <ioapic driver='qemu'/>\n";
const features = (inner: string): string => `  <features>\n${inner}  </features>\n`;

describe('intel', () => {
  test.each([
    ['no features', '', features(QEMU)],
    ['features', features('    <acpi/>\n'), features(`    <acpi/>\n${QEMU}`)],
    [
      'another ioapic',
      features("    <ioapic driver='kvm'/> <!-- k -->\n"),
      features(QEMU.replace('\n', ' <!-- k -->\n')),
    ],
    ['its ioapic', features(QEMU), features(QEMU)],
  ])('with %s before', (_, before, after) => {
    expect(put(domain(before, ''), 'intel')).toBe(domain(after, INTEL));
  });

  test('takes the place of another model', () => {
    expect(put(domain(features(QEMU), "    <iommu model='virtio'/> <!-- v -->\n"), 'intel')).toBe(
      domain(features(QEMU), INTEL.replace(/\n$/, ' <!-- v -->\n')),
    );
  });

  test('takes the place of several', () => {
    const two = "    <iommu model='smmuv3'/>\n    <iommu model='smmuv3'/>\n";
    expect(put(domain(features(QEMU), two), 'intel')).toBe(domain(features(QEMU), INTEL));
  });

  test('leaves alone what has all of it and more', () => {
    const text = domain(features(QEMU), INTEL.replace("iotlb='on'", "iotlb='on' dma_translation='on'"));
    expect(put(text, 'intel')).toBe(text);
  });
});

test('none: every one is taken out, and what is beside stays', () => {
  const two = "    <iommu model='smmuv3'/>\n    <iommu model='smmuv3'/>\n";
  expect(removeViommu(readDomain(domain('', two), 'x')).text).toBe(domain('', ''));
  expect(removeViommu(readDomain(domain('', ''), 'x')).text).toBe(domain('', ''));
});

test('put in and taken out again: canonical XML is what it was, but for the features that it needs', () => {
  let judged = 0;
  for (const sample of allDomains()) {
    const text = decodeXml(sample.bytes, sample.name);
    const facts = readDomainFacts(readDomain(text, sample.name));
    const s = suggestViommu(facts, VERSIONS, null, 'auto');
    if (s.kind === 'refusal' || facts.iommus.length > 0) continue;
    const back = removeViommu(setViommu(readDomain(text, sample.name), { ...s, needs: [] })).text;
    expect(canonical(Buffer.from(back)), sample.name).toBe(canonical(Buffer.from(text)));
    judged += 1;
  }
  expect(judged).toBeGreaterThan(40);
});
