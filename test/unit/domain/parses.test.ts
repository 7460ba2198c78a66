/** How often a command reads a domain's XML: once, and once more for each edit. Every DOM is built behind one scan. */
import { DOMParser } from '@xmldom/xmldom';
import { afterAll, beforeEach, expect, test, vi } from 'vitest';
import { checkDomainXml } from '../../../src/actions/domainCheck.ts';
import { readNic } from '../../../src/actions/domainNic.ts';
import { type DomainPlanRequest, planDomain } from '../../../src/actions/domainPlan.ts';
import { suggestForDomain } from '../../../src/actions/viommuSuggest.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { findXmlFault } from '../../../src/domain/xml/scan.ts';
import { Host } from '../../../src/host/host.ts';
import { StaticHost } from '../../mock/tree.ts';

vi.mock('../../../src/domain/xml/scan.ts', async (original) => {
  const scan = await original<typeof import('../../../src/domain/xml/scan.ts')>();
  return { ...scan, findXmlFault: vi.fn(scan.findXmlFault) };
});
const doms = vi.spyOn(DOMParser.prototype, 'parseFromString');
const scans = vi.mocked(findXmlFault);

const VF = '0000:72:10.0';
const VF2 = '0000:72:10.1';
const HAS = '0000:72:10.2';
const PF = '0000:72:00.0';
const vf = (address: string, group: number) => ({ address, ids: '8086:10ca', group, driver: 'igbvf', physfn: PF });
const tree = new StaticHost({
  devices: [{ address: PF, ids: '8086:10c9', group: 1, driver: 'igb', totalVfs: 7 }, vf(VF, 2), vf(VF2, 3), vf(HAS, 4)],
});
const host = new Host(tree.root, loadNative());
afterAll(() => tree.remove());
beforeEach(() => {
  doms.mockClear();
  scans.mockClear();
});

const XML = Buffer.from(
  `<domain type='kvm'>\n<name>d</name>\n<memory>65536</memory>\n<os><type arch='x86_64' machine='q35'>hvm</type></os>\n<devices>\n<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0' bus='0x72' slot='0x10' function='2'/></source></hostdev>\n</devices>\n</domain>\n`,
);
const OPTIONS = { allowed: new Set<never>(), deadlineMs: 30_000, dryRun: false };
const VERSIONS = { libvirt: '9.0.0', qemu: '7.2.0' };

const plan = (request: Partial<DomainPlanRequest>) =>
  planDomain(
    host,
    XML,
    'd.xml',
    {
      add: [],
      remove: [],
      managed: null,
      model: null,
      rom: null,
      boot: null,
      nic: null,
      unassignedPeers: false,
      namespace: null,
      oneSlot: false,
      viommu: null,
      pick: null,
      connect: null,
      setup: { config: [], inventory: null },
      ...VERSIONS,
      ...request,
    },
    OPTIONS,
  );

const nic = readNic({ vnic: 'direct' });

test.each<[string, () => Promise<unknown>, number]>([
  ['domain check', () => checkDomainXml(host, XML, 'd.xml', VERSIONS, OPTIONS), 1],
  ['domain check on the host', () => checkDomainXml(host, XML, 'd.xml', { libvirt: null, qemu: null }, OPTIONS), 1],
  ['viommu suggest', () => suggestForDomain(host, XML, 'd.xml', 'auto', VERSIONS), 1],
  ['domain plan of what is so already', () => plan({ viommu: 'none' }), 1],
  ['domain plan with a device', () => plan({ add: [VF] }), 2],
  ['domain plan with two devices', () => plan({ add: [VF, VF2] }), 2],
  ['domain plan with an interface', () => plan({ add: [VF], nic }), 2],
  ['domain plan without a device', () => plan({ remove: [HAS] }), 2],
  ['domain plan with one and without another', () => plan({ add: [VF], remove: [HAS] }), 3],
  // The element, and the I/O APIC that it needs.
  ['domain plan with a device and a vIOMMU', () => plan({ add: [VF], viommu: 'intel' }), 4],
])('%s', async (_, run, times) => {
  await run();
  expect({ doms: doms.mock.calls.length, scans: scans.mock.calls.length }).toEqual({ doms: times, scans: times });
});
