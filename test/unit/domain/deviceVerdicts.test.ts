/**
 * Small cases that domains by chance (test/fuzz) found, with libvirt's verdict, and whether it is ours to give; asked
 * again of the libvirt that is here.
 */
import { expect, test } from 'vitest';
import { parseVersion } from '../../../src/domain/version.ts';
import { ourFaults } from '../../fuzz/domainVerdicts.ts';
import { askLibvirt, TEST_DRIVER, virshVersion } from '../../fuzz/judge.ts';
import { isLacking } from '../../lacking.ts';

const UUID = '9f2f8c1e-2cd4-4b43-a9a4-1c0bcd5c1a77';
const hostdev = (address: string, inside = ''): string =>
  `<hostdev type='pci'><source><address ${address}>${inside}</address></source></hostdev>`;
const nic = (inside: string, attributes = "type='hostdev'"): string =>
  `<interface ${attributes}><source><address type='pci' bus='1'/></source>${inside}</interface>`;
const nvme = (namespace: string, inside = ''): string =>
  `<disk type='nvme'><source type='pci' namespace='${namespace}'><address bus='1'/></source>${inside}<target dev='sda'/></disk>`;
const qbg = (parameters: string): string =>
  nic(`<virtualport type='802.1Qbg'><parameters managerid='${parameters}'/></virtualport>`);
const port = (type: string, more: string): string => {
  const source = { direct: "dev='e' mode='vepa'", bridge: "bridge='b'" }[type];
  return `<interface type='${type}'>${source ? `<source ${source}/>` : ''}<virtualport type='${more}</interface>`;
};
const bridge = (inside: string): string => `<interface type='bridge'><source bridge='b'/>${inside}</interface>`;
const disk = (target: string): string => `<disk><source file='/a'/><target dev='${target}'/></disk>`;
const mdev = (attributes: string, inside = ''): string =>
  `<hostdev type='mdev' ${attributes}><source><address uuid='${UUID}'/></source>${inside}</hostdev>`;

/** `+` defined, `-` refused, and by our rules too; `~` refused, and not ours to judge. */
type Verdict = '+' | '-' | '~';
type Row = readonly [verdict: Verdict, devices: string];

const ROWS: readonly Row[] = [
  // A sign where the schema says int (bus, slot, function), none where it says unsignedInt (domain); a leading 0 is
  // octal behind it too.
  ...(["bus='+1'", "bus=' +010'", "slot='+31'", "slot='&#13;1'", "function='+07'"] as const).map(
    (a): Row => ['+', hostdev(a)],
  ),
  ...(
    ["domain='+1'", "bus='+0x1'", "bus='++1'", "slot='+32'", "slot='+08'", "function='-0'", "function='1 '"] as const
  ).map((a): Row => ['-', hostdev(a)]),
  ['-', `${hostdev("bus='+010'")}${hostdev("bus='8'")}`],
  // 255 to the schema, 173 to the parser; 377 to the schema.
  ['+', hostdev("bus='0255'")],
  ['-', hostdev("bus='0377'")],
  ['+', hostdev("domain='4294967295'")],
  ['-', hostdev("domain='037777777777'")],
  // <zpci> is for the guest's own address.
  ['-', hostdev("bus='1'", '<zpci/>')],
  ['-', "<interface type='hostdev'><source><address type='pci' bus='1'><zpci uid='1'/></address></source></interface>"],
  ['+', nvme('&#9;01')],
  ['+', nvme('00000000001')],
  ['-', nvme('4294967296')],
  ['-', nvme('+1')],
  ['-', nvme('1 ')],
  // What only virtio devices may be told.
  ['-', nic("<driver iommu='on'/>")],
  ['-', nic("<driver name='vfio' ats='on'/>")],
  ['+', nic("<model type='virtio'/><driver ats='on'/>")],
  ['~', bridge("<driver packed='off'/>")],
  ['~', bridge("<driver nonsense='1'/>")],
  ['+', bridge("<model type='virtio'/><driver name='vhost' queues='4'><host csum='off'/></driver>")],
  ['-', nvme('1', "<driver page_per_vq='on'/>")],
  ['-', nvme('1', "<driver queues='2'/>")],
  ['~', "<disk><source file='/a'/><driver event_idx='on'/><target dev='hda'/></disk>"],
  ['+', "<disk><source file='/a'/><driver event_idx='on' queues='2'/><target dev='vda'/></disk>"],
  ['+', "<disk><source file='/a'/><driver ioeventfd='on'/><target dev='sda' bus='virtio'/></disk>"],
  // A ROM that is off and tuned.
  ['-', nic("<rom enabled='no' bar='on'/>")],
  ['-', "<hostdev type='pci'><source><address bus='1'/></source><rom enabled='no' file='/r'/></hostdev>"],
  ['+', nic("<rom enabled='no'/>")],
  // Passed over by its parser, so the schema alone judges.
  ['+', nic('', "type='hostdev' managed='yes '")],
  ['-', nic('', "type='hostdev' managed='maybe'")],
  // USB behind an interface.
  ['+', "<interface type='hostdev'><source><address type='usb' bus='1' device='0x2'/></source></interface>"],
  ['~', "<interface type='hostdev'><source><address type='usb' bus='1'/></source></interface>"],
  ['+', "<interface type='hostdev'><source><vendor id='0x1'/><product id='2'/></source></interface>"],
  // Teaming by its side.
  ['+', bridge("<model type='virtio'/><teaming type='transient' persistent='ua-x'/>")],
  ['~', bridge("<model type='virtio'/><teaming type='transient'/>")],
  ['~', bridge("<model type='virtio'/><teaming type='persistent' persistent='ua-x'/>")],
  ['+', nic("<teaming type='persistent'/>")],
  ['-', nic("<teaming type='transient'/>")],
  ['-', "<hostdev type='pci'><source><address bus='1'/></source><teaming type='persistent'/></hostdev>"],
  // Numbers of a virtualport: virStrToLong_ui takes a minus.
  ['+', qbg(" +1' typeid='16777215' typeidversion='-0")],
  ['~', qbg("08' typeid='1' typeidversion='1")],
  ['~', qbg("1' typeid='16777216' typeidversion='1")],
  // What a network adds need not be there; macvtap needs it.
  ['+', port('direct', "802.1Qbh'><parameters profileid='a'/></virtualport>")],
  ['~', port('direct', "802.1Qbh'/>")],
  ['~', port('bridge', "bogus'/>")],
  ['~', port('user', "openvswitch'/>")],
  ['+', "<interface type='network'><source network='n'/><virtualport type='802.1Qbg'/></interface>"],
  ['+', "<interface type='network'><source network='n'/><virtualport/></interface>"],
  ['~', "<interface type='bridge'><source bridge='b'/><virtualport/></interface>"],
  // Host devices of other kinds.
  ['+', mdev("model='vfio-pci' display='on'")],
  ['~', mdev('')],
  ['~', mdev("model='vfio-pci'", "<driver name='vfio'/>")],
  ['~', "<hostdev type='mdev' model='vfio-pci'><source/></hostdev>"],
  ['~', "<hostdev type='usb'/>"],
  ['~', "<hostdev type='usb'><source/></hostdev>"],
  ['+', "<hostdev type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>"],
  ['~', "<hostdev type='usb'><source><address bus='1'/></source></hostdev>"],
  ['+', "<hostdev type='scsi_host'><source protocol='vhost' wwpn='naa.5123456789abcde0'/></hostdev>"],
  ['~', "<hostdev type='scsi_host'><source protocol='vhost'/></hostdev>"],
  ['+', "<hostdev mode='capabilities' type='misc'><source><char>/dev/x</char></source></hostdev>"],
  ['~', "<hostdev mode='capabilities' type='misc' managed='yes'><source><char>/dev/x</char></source></hostdev>"],
  ['~', "<hostdev mode='capabilities' type='pci'><source/></hostdev>"],
  ['~', "<controller type='pci' model='pcie-root-port'><driver nonsense='1'/></controller>"],
  ['+', "<controller type='pci' model='pcie-root-port'><driver iommu='on' queues='2'/></controller>"],
  ['~', "<controller type='scsi'><driver iothread='1'/></controller>"],
  ['+', "<controller type='scsi' model='virtio-scsi'><driver queues='2' ioeventfd='on'/></controller>"],
  ['~', mdev("model='vfio-pci'", "<address type='drive'/>")],
  [
    '~',
    `${mdev("model='vfio-pci' ramfb='on'")}${mdev("model='vfio-pci' ramfb='on'").replace(UUID, UUID.replace('9', '8'))}`,
  ],
  ['~', "<hostdev type='scsi'><source/></hostdev>"],
  [
    '+',
    "<hostdev type='scsi'><source><adapter name='scsi_host0'/><address bus='0' target='0' unit='0'/></source></hostdev>",
  ],
  ['+', "<hostdev type='scsi'><source protocol='iscsi' name='iqn'><host name='a'/></source></hostdev>"],
  ['~', "<hostdev type='scsi'><source protocol='iscsi' name='iqn'/></hostdev>"],
  ['-', nic("<vlan><tag id='2' nativeMode='tagged'/><tag id='3' nativeMode='tagged'/></vlan>")],
  // And beside them.
  ['~', `${disk('vda')}${disk('ioemu:vda')}`],
  ['+', `${disk('vda')}${disk('vdb')}`],
  ['~', "<memballoon model='none'><acpi nonsense='1'/></memballoon>"],
  ['~', bridge("<bandwidth><inbound nonsense='1'/></bandwidth>")],
  ['~', bridge('<bandwidth><inbound/></bandwidth>')],
  ['~', bridge("<bandwidth><inbound floor='1'/></bandwidth>")],
  ['~', bridge("<bandwidth classID='1'><inbound average='1'/></bandwidth>")],
  ['+', "<interface type='network'><source network='n'/><bandwidth><inbound floor='1'/></bandwidth></interface>"],
  ['+', bridge("<bandwidth><inbound average='10' peak='20'/><outbound average='5'/></bandwidth>")],
];

/** What stands beside <devices>. */
const AROUND: readonly Row[] = [
  ['~', '<os><type>hvm</type><loader/></os>'],
  ['+', "<os><type>hvm</type><acpi><table type='slic'>/x</table></acpi></os>"],
  ['~', '<os><type>hvm</type><acpi><table>/x</table></acpi></os>'],
  ['~', "<os><type>hvm</type></os><vcpu current='3'>2</vcpu>"],
  ['+', "<os><type>hvm</type></os><vcpu current='02'>2</vcpu>"],
  ['~', '<os><type>hvm</type></os><vcpu> 2</vcpu>'],
];

const domain = (inside: string, i: number): string =>
  `<domain type='test'><name>small-${i}</name><memory>64</memory>${inside}</domain>`;
const ALL = [
  ...ROWS.map(([v, devices]): Row => [v, `<os><type>hvm</type></os><devices>${devices}</devices>`]),
  ...AROUND,
];
const XMLS = ALL.map(([, inside], i) => domain(inside, i));
const VERDICTS = ALL.map(([verdict]) => verdict);
const shown = (verdicts: readonly string[]): string[] => verdicts.map((v, i) => `${v} ${XMLS[i]}`);

test('our rules refuse what is ours of it, and nothing else', () => {
  const versions = { libvirt: parseVersion('9.0.0'), qemu: null };
  expect(shown(XMLS.map((xml) => (ourFaults(xml, versions).length === 0 ? '+' : '-')))).toEqual(
    shown(VERDICTS.map((v) => (v === '~' ? '+' : v))),
  );
});

const noVirsh = isLacking(
  virshVersion() === null ? 'no libvirt judges small cases: apt-get install libvirt-clients' : null,
);

test.skipIf(noVirsh)('the libvirt of this machine refuses these and no others', async () => {
  const said = await askLibvirt(
    TEST_DRIVER,
    XMLS.map((_, i) => `small-${i}`),
    XMLS,
  );
  expect(shown(said.map((e) => (e === null ? '+' : '-')))).toEqual(shown(VERDICTS.map((v) => (v === '~' ? '-' : v))));
});

const GRAPHICS = "<graphics type='vnc'/>";
const pci = (attributes: string, bus: string, more = ''): string =>
  `<hostdev type='pci' ${attributes}><source><address bus='${bus}'/></source>${more}</hostdev>`;

/** As libvirt 11.3.0 with QEMU 10.0 said in the machine of test/vm. */
const MACHINES: readonly [verdict: Verdict, machine: string, devices: string][] = [
  ['~', 'microvm', ''],
  ['~', 'microvm', "<memballoon model='none'/>"],
  ['+', 'microvm', "<memballoon model='none'/><controller type='usb' model='none'/>"],
  ['-', 'microvm', `<memballoon model='none'/><controller type='usb' model='none'/>${hostdev("bus='1'")}`],
  ['~', 'isapc', ''],
  ['+', 'isapc', "<memballoon model='none'/>"],
  ['-', 'isapc', `<memballoon model='none'/>${hostdev("bus='1'")}`],
  ['+', 'q35', hostdev("bus='1'")],
  ['~', 'q35', mdev("model='vfio-pci' display='on'")],
  ['+', 'q35', `${mdev("model='vfio-pci' display='on' ramfb='on'")}${GRAPHICS}`],
  ['-', 'q35', pci("display='on'", '1')],
  ['+', 'q35', `${pci("display='on' ramfb='on'", '1')}${GRAPHICS}`],
  ['-', 'q35', `${pci("display='on' ramfb='on'", '1')}${pci("display='on' ramfb='on'", '2')}${GRAPHICS}`],
  ['-', 'q35', pci('', '1', "<acpi index='1'/><address type='unassigned'/>")],
  ['+', 'q35', pci('', '1', "<acpi index='1'/>")],
  ['~', 'q35', mdev("model='vfio-ap'")],
  ['~', 'q35', mdev("model='vfio-ccw'")],
  ['~', 'q35', mdev("model='vfio-pci'", "<address type='drive'/>")],
  ['-', 'q35', pci('', '1', "<address type='pci'><zpci uid='1'/></address>")],
  ['+', 'q35', pci('', '1', "<address type='pci'><zpci/></address>")],
  ['~', 'q35', mdev("model='vfio-pci'") + mdev("model='vfio-pci'")],
];

test.each(MACHINES)('%s %s %s', (verdict, machine, devices) => {
  const xml = `<domain type='qemu'><name>m</name><memory>64</memory><os><type machine='${machine}'>hvm</type></os><devices>${devices}</devices></domain>`;
  const faults = ourFaults(xml, { libvirt: parseVersion('11.3.0'), qemu: parseVersion('10.0.0') });
  expect(faults.length === 0 ? '+' : '-', faults.join()).toBe(verdict === '~' ? '+' : verdict);
});
