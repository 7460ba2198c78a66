/**
 * The suggestion, and the rules that the matrix cannot break: those of the devices that a domain takes, and of the
 * host.
 */
import { describe, expect, test } from 'vitest';
import { checkDomain } from '../../../src/domain/checkDomain.ts';
import { freePorts } from '../../../src/domain/device/hotplug.ts';
import { memlockNeeded } from '../../../src/domain/device/memlock.ts';
import { nodeSet, readDomainFacts } from '../../../src/domain/domainFacts.ts';
import { formatVersion, parseVersion, type Versions } from '../../../src/domain/version.ts';
import { suggestViommu, type ViommuWish } from '../../../src/domain/viommu/suggest.ts';
import { readDomain } from '../../../src/domain/xml/domain.ts';
import { elementXml } from '../../matrix/suggestedDomains.ts';

const VF =
  "<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0' bus='0x41' slot='0x10' function='0'/></source></hostdev>";

const target = (libvirt: string | null, qemu: string | null): Versions => ({
  libvirt: libvirt === null ? null : parseVersion(libvirt),
  qemu: qemu === null ? null : parseVersion(qemu),
});

type Shape = {
  type?: string;
  arch?: string;
  machine?: string;
  vcpus?: number;
  features?: string;
  devices?: string;
  more?: string;
};

const xml = (s: Shape = {}): string =>
  `<domain type='${s.type ?? 'kvm'}'><name>d</name><memory unit='GiB'>2</memory><vcpu>${s.vcpus ?? 2}</vcpu>${s.more ?? ''}<os><type${
    s.arch === '' ? '' : ` arch='${s.arch ?? 'x86_64'}'`
  }${s.machine === '' ? '' : ` machine='${s.machine ?? 'q35'}'`}>hvm</type></os><features>${s.features ?? '<acpi/>'}</features><devices>${s.devices ?? ''}</devices></domain>`;

const facts = (s: Shape = {}) => readDomainFacts(readDomain(xml(s), 'd.xml'));
const ARM: Shape = { arch: 'aarch64', machine: 'virt' };

function suggested(s: Shape, v: Versions, wish: ViommuWish = 'auto', bits: number | null = null): string {
  const r = suggestViommu(facts(s), v, bits === null ? null : { addressBits: bits }, wish);
  if (r.kind === 'refusal') return `refused: ${r.rule}`;
  return [elementXml(r.element), ...r.needs.map((n) => `${n.path.join('/')}: ${elementXml(n.element)}`)].join(' ');
}

const rules = (s: Shape, v: Versions = target('11.3.0', '10.0.0')) => checkDomain(facts(s), v).map((f) => f.rule);

describe('suggest', () => {
  const NOVA =
    "<iommu model='intel'><driver intremap='on' caching_mode='on' aw_bits='48' eim='on' iotlb='on'/></iommu>";
  const IOAPIC = "features: <ioapic driver='qemu'/>";

  test("auto has Nova's meaning, and writes only what the model takes", () => {
    expect(suggested({}, target('9.0.0', '7.2.0'))).toBe("<iommu model='virtio'/>");
    expect(suggested({}, target('8.2.0', '7.2.0'))).toBe(`${NOVA} ${IOAPIC}`);
    expect(suggested(ARM, target('9.0.0', '7.2.0'))).toBe("<iommu model='virtio'/>");
    expect(suggested(ARM, target('8.0.0', '6.2.0'))).toBe("<iommu model='smmuv3'/>");
    expect(suggested({}, target(null, null))).toBe("<iommu model='virtio'/>");
  });

  test('auto is intel where virtio could not work: many vCPUs, devices of the host on an older QEMU', () => {
    expect(suggested({ vcpus: 256 }, target('11.3.0', '10.0.0'))).toBe(`${NOVA} ${IOAPIC}`);
    expect(suggested({ devices: VF }, target('9.0.0', '7.2.0'))).toBe(`${NOVA} ${IOAPIC}`);
    expect(suggested({ devices: VF }, target('9.0.0', null))).toBe(`${NOVA} ${IOAPIC}`);
    expect(suggested({ devices: VF }, target('11.3.0', '10.0.0'))).toBe("<iommu model='virtio'/>");
  });

  test('aw_bits is no more than the host has', () => {
    const intel = (bits: number) => suggested({ devices: VF }, target('11.3.0', '10.0.0'), 'intel', bits);
    expect(intel(39)).toContain("aw_bits='39'");
    expect(intel(46)).toContain("aw_bits='39'");
    expect(intel(48)).toContain("aw_bits='48'");
    expect(intel(57)).toContain("aw_bits='48'");
    expect(intel(36)).toBe('refused: intel-aw-bits');
  });

  test('what the domain has already is not asked for again', () => {
    expect(suggested({ features: "<acpi/><ioapic driver='qemu'/>" }, target('9.0.0', '7.2.0'), 'intel')).toBe(NOVA);
    expect(suggested({ features: '' }, target('9.0.0', '7.2.0'), 'virtio')).toBe(
      "<iommu model='virtio'/> features: <acpi/>",
    );
    expect(suggested({ features: "<ioapic driver='kvm'/>" }, target('9.0.0', '7.2.0'), 'intel')).toContain(IOAPIC);
  });

  test('eim is left out without KVM on an older QEMU', () => {
    expect(suggested({ type: 'qemu' }, target('9.0.0', '7.2.0'), 'intel')).not.toContain('eim');
    expect(suggested({ type: 'qemu' }, target('11.3.0', '10.0.0'), 'intel')).toContain("eim='on'");
    expect(suggested({ type: 'qemu', vcpus: 300 }, target('9.0.0', '7.2.0'))).toBe('refused: intel-eim-tcg');
  });

  test.each<[string, Shape, Versions, ViommuWish, string]>([
    ['another kind of domain', { type: 'xen' }, target('9.0.0', null), 'auto', 'viommu-driver'],
    ['i440FX', { machine: 'pc-i440fx-7.2' }, target('9.0.0', null), 'auto', 'viommu-machine'],
    ['no machine', { machine: '' }, target('9.0.0', null), 'auto', 'viommu-machine'],
    [
      'another architecture',
      { arch: 's390x', machine: 's390-ccw-virtio' },
      target('9.0.0', null),
      'auto',
      'viommu-machine',
    ],
    ['smmuv3 on x86', {}, target('9.0.0', null), 'smmuv3', 'viommu-machine'],
    ['intel on Arm', ARM, target('9.0.0', null), 'intel', 'viommu-machine'],
    ['virtio on libvirt 8.2', {}, target('8.2.0', null), 'virtio', 'viommu-model'],
    ['virtio on QEMU 6.2', {}, target('9.0.0', '6.2.0'), 'virtio', 'viommu-qemu'],
    ['amd on libvirt 11.4', {}, target('11.4.0', null), 'amd', 'viommu-model'],
    ['virtio with many vCPUs', { vcpus: 300 }, target('11.3.0', '10.0.0'), 'virtio', 'vcpus-eim'],
    ['amd with many vCPUs on libvirt 12.1', { vcpus: 300 }, target('12.1.0', '10.2.0'), 'amd', 'vcpus-eim'],
    ['amd on QEMU 10.0', {}, target('12.1.0', '10.0.0'), 'amd', 'viommu-qemu'],
    ['smmuv3 with devices', { ...ARM, devices: VF }, target('12.8.0', '11.1.0'), 'smmuv3', 'smmuv3-vfio'],
    ['amd with devices', { devices: VF }, target('12.8.0', '11.1.0'), 'amd', 'amd-vfio'],
  ])('refuses %s', (_, shape, v, wish, rule) => {
    expect(suggested(shape, v, wish)).toBe(`refused: ${rule}`);
  });
});

describe('rules of what a domain takes', () => {
  const iommu = (model: string, driver = '') =>
    `<iommu model='${model}'>${driver ? `<driver ${driver}/>` : ''}</iommu>`;

  test.each<[string, Shape, string]>([
    ['intel without caching_mode', { devices: VF + iommu('intel') }, 'intel-caching-mode'],
    ['intel with caching_mode off', { devices: VF + iommu('intel', "caching_mode='off'") }, 'intel-caching-mode'],
    ['smmuv3', { ...ARM, features: '', devices: VF + iommu('smmuv3') }, 'smmuv3-vfio'],
    [
      'the driver of another hypervisor',
      { devices: VF.replace('<source>', "<driver name='xen'/><source>") },
      'hostdev-vfio',
    ],
    [
      'a trunk of VLANs',
      {
        devices:
          "<interface type='hostdev'><source><address type='pci' domain='0' bus='1' slot='0' function='0'/></source><vlan trunk='yes'><tag id='1'/><tag id='2'/></vlan></interface>",
      },
      'interface-vlan',
    ],
    [
      '802.1Qbg',
      {
        devices:
          "<interface type='hostdev'><source><address type='pci' domain='0' bus='1' slot='0' function='0'/></source><virtualport type='802.1Qbg'><parameters managerid='11' typeid='1193047' typeidversion='2'/></virtualport></interface>",
      },
      'interface-virtualport',
    ],
  ])('%s: defined, and not valid', (_, shape, rule) => {
    const found = checkDomain(facts(shape), target('11.3.0', '10.0.0'));
    expect(found.filter((f) => f.stage === 'define')).toEqual([]);
    expect(found.find((f) => f.rule === rule)?.stage).toBe('assign');
  });

  test('amd takes no devices, and another hypervisor no vIOMMU', () => {
    expect(rules({ devices: VF + iommu('amd') }, target('12.8.0', '11.1.0'))).toContain('amd-vfio');
    expect(rules({ type: 'xen', devices: iommu('intel') })).toContain('viommu-driver');
  });

  test('without devices of the host none of this is found', () => {
    expect(rules({ devices: iommu('intel') })).toEqual([]);
    expect(rules({ ...ARM, features: '', devices: iommu('smmuv3') })).toEqual([]);
  });

  test('advice: virtio devices outside, addresses in part, unmanaged peers, a hard limit, no port left', () => {
    const disk = "<disk type='file' device='disk'><source file='/d'/><target dev='vda' bus='virtio'/></disk>";
    expect(rules({ devices: iommu('virtio') + disk })).toContain('viommu-virtio-devices');
    expect(rules({ devices: iommu('virtio') + disk.replace('<source', "<driver iommu='on'/><source") })).not.toContain(
      'viommu-virtio-devices',
    );
    expect(rules({ devices: VF.replace(" bus='0x41'", '') })).toContain('address-parts');
    const peer = VF.replace('</source>', "</source><address type='unassigned'/>");
    expect(rules({ devices: peer.replace("managed='yes'", "managed='no'") })).toContain('unassigned-managed');
    expect(rules({ devices: peer })).not.toContain('unassigned-managed');
    expect(rules({ devices: VF, more: "<memtune><hard_limit unit='GiB'>2</hard_limit></memtune>" })).toContain(
      'memlock-hard-limit',
    );
    const port = "<controller type='pci' index='1' model='pcie-root-port'/>";
    expect(rules({ devices: port + VF })).toContain('hotplug-ports');
  });

  test('libvirt 8.2 knows no address of an <iommu>, 8.3 does', () => {
    const devices = "<iommu model='intel'><alias name='ua-x'/></iommu>";
    expect(rules({ devices }, target('8.2.0', '6.2.0'))).toEqual(['viommu-schema']);
    expect(rules({ devices }, target('8.3.0', '6.2.0'))).toEqual([]);
  });

  test('a finding names rule, place, cause, version, fix and source', () => {
    const findings = checkDomain(facts({ devices: `\n  ${iommu('amd')}` }), target('9.0.0', null));
    expect(findings).toMatchObject([
      {
        rule: 'viommu-model',
        stage: 'define',
        line: 2,
        column: 3,
        since: 'libvirt 11.5.0',
        cause: 'model amd needs libvirt 11.5.0',
      },
    ]);
    for (const f of findings) expect(Object.values(f).every((v) => v !== '')).toBe(true);
  });
});

describe('hostile and odd input', () => {
  test.each<[string, string]>([
    ['a DOCTYPE', "<!DOCTYPE d [<!ENTITY a 'b'>]><domain/>"],
    ['two roots', '<domain/><domain/>'],
    ['an attribute twice', "<domain type='kvm' type='qemu'/>"],
    ['another root', '<network/>'],
    ['a root in a namespace', "<domain xmlns='urn:x'/>"],
    ['nothing', ''],
    ['depth', '<a>'.repeat(300)],
  ])('%s is an error with line and column', (_, text) => {
    expect(() => readDomainFacts(readDomain(text, 'f.xml'))).toThrow(/^f\.xml: line \d+, column \d+: /);
  });

  test('an empty domain, names of prototypes and endless lists of attributes are judged', () => {
    expect(() => checkDomain(readDomainFacts(readDomain('<domain/>', 'd')), target(null, null))).not.toThrow();
    const odd = "<iommu model='constructor'><driver constructor='on' __proto__='x' toString='y'/></iommu>";
    expect(rules({ devices: odd })).toEqual(expect.arrayContaining(['viommu-schema', 'viommu-model']));
    const many = Array.from({ length: 200 }, (_, i) => `a${i}='1'`).join(' ');
    expect(rules({ devices: `<iommu model='intel'><driver ${many}/></iommu>` }).length).toBeLessThan(20);
  });

  test('versions and node sets', () => {
    expect(['11.10.0', '9.0.0-4+deb12u2', '7.2', '1', 'x', '1.2.3.4', '1000.0.0'].map(parseVersion)).toEqual([
      11_010_000,
      9_000_000,
      7_002_000,
      null,
      null,
      null,
      null,
    ]);
    expect(formatVersion(11_010_000)).toBe('11.10.0');
    expect(nodeSet('0-2,5,^1')).toEqual([0, 2, 5]);
    expect(nodeSet('0-99999999,x,-1')).toEqual([]);
    expect(nodeSet(null)).toEqual([]);
  });
});

describe('memory to be locked (qemuDomainGetMemLockLimitBytes)', () => {
  const GIB = 1024 * 1024;
  const two = VF + VF.replace("slot='0x10'", "slot='0x11'");
  test.each<[string, Shape, number | null]>([
    ['nothing taken', {}, null],
    ['one device', { devices: VF }, 3 * GIB],
    ['two devices', { devices: two }, 3 * GIB],
    ['two devices behind a vIOMMU', { devices: `${two}<iommu model='virtio'/>` }, 5 * GIB],
    ['locked', { devices: VF, more: '<memoryBacking><locked/></memoryBacking>' }, null],
    [
      'guest cells',
      {
        devices: VF,
        more: "<cpu><numa><cell id='0' memory='1' unit='GiB'/><cell id='1' memory='3' unit='GiB'/></numa></cpu>",
      },
      5 * GIB,
    ],
    [
      'an NVMe disk and a device',
      {
        devices: `${VF}<disk type='nvme'><source type='pci' namespace='1'><address bus='1' slot='0' function='0'/></source><target dev='vda'/></disk>`,
      },
      5 * GIB,
    ],
  ])('%s', (_, shape, kib) => {
    expect(memlockNeeded(facts(shape)).kib).toBe(kib);
  });
});

test('free root ports: declared, less those in use and those that will be', () => {
  const ports = [1, 2, 3].map((i) => `<controller type='pci' index='${i}' model='pcie-root-port'/>`).join('');
  const at = VF.replace('</source>', "</source><address type='pci' domain='0' bus='1' slot='0' function='0'/>");
  expect(freePorts(facts({ devices: ports }))).toBe(3);
  expect(freePorts(facts({ devices: ports + at }))).toBe(2);
  expect(freePorts(facts({ devices: ports + at + VF.replace('0x41', '0x42') }))).toBe(1);
  expect(freePorts(facts({ devices: '' }))).toBeNull();
  expect(freePorts(facts({ machine: 'pc', devices: ports }))).toBeNull();
});
