/**
 * `domain plan` as it is met on the command line: what is written, what is refused, and that nothing on the host
 * changes.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DomainPlan } from '../../../src/actions/domainPlan.ts';
import { readDomainDevices } from '../../../src/domain/hostDevices.ts';
import { readDomain } from '../../../src/domain/xml/domain.ts';
import { hostdev, type Ran, StaticHost, type Tree } from '../../mock/tree.ts';
import { texts } from '../../mock/warnings.ts';

const BRIDGE = '0000:00:01.0';
const GPU = '0000:01:00.0';
const SOUND = '0000:01:00.1';
const PF = '0000:02:00.0';
const VF = '0000:02:10.0';
const VF2 = '0000:02:10.2';
const VDPA = '0000:02:10.4';
const NVME = '0000:03:00.0';
const PEER_DISK = '0000:04:00.1';
const BEHIND = '0000:05:00.0';
const VGPU = '0000:25:00.4';

const TREE: Tree = {
  devices: [
    { address: BRIDGE, ids: '8086:1901', class: '060400', group: 1, driver: 'pcieport' },
    { address: GPU, ids: '10de:2204', class: '030000', group: 1, driver: 'nouveau', attributes: { boot_vga: '0\n' } },
    { address: SOUND, ids: '10de:1aef', class: '040300', group: 1, driver: 'snd_hda_intel' },
    { address: PF, ids: '8086:10c9', group: 2, numa: 0, driver: 'igb', totalVfs: 7 },
    { address: VF, ids: '8086:10ca', group: 3, driver: 'igbvf', physfn: PF },
    { address: VF2, ids: '8086:10ca', group: 4, driver: 'igbvf', physfn: PF },
    { address: VDPA, ids: '15b3:101e', group: 5, driver: 'mlx5_core', physfn: PF },
    { address: NVME, ids: '1b36:0010', class: '010802', group: 6, driver: 'nvme' },
    { address: '0000:04:00.0', ids: '8086:100e', group: 7, driver: 'e1000' },
    { address: PEER_DISK, ids: '1b36:0010', class: '010802', group: 7, driver: 'nvme' },
    { address: BEHIND, ids: '8086:100e', group: 8, driver: 'e1000' },
    { address: '0000:06:00.0', ids: '1b36:000e', class: '060400', group: 8, driver: 'shpchp' },
    { address: '0000:07:00.0', ids: '8086:1521' },
    { address: VGPU, ids: '10de:25b6', class: '030200', group: 9, driver: 'nvidia', vfio: true },
  ],
  drivers: { 'vfio-pci': 'vfio_pci' },
  net: { eth0: PF, ens2v0: VF, lo: null },
  block: { nvme0n1: NVME, nvme1n1: PEER_DISK },
  files: {
    'sys/module/vdpa/refcnt': '1\n',
    'proc/self/mountinfo': '21 1 259:1 / / rw - ext4 /dev/nvme1n1 rw\n',
  },
};

const EMPTY =
  "<domain type='kvm'>\n  <name>g</name>\n  <devices>\n    <memballoon model='none'/>\n  </devices>\n</domain>\n";

let host: StaticHost;
let dir: string;
let before: string;
beforeAll(() => {
  host = new StaticHost(TREE);
  host.folder(`sys/bus/pci/devices/${VDPA}/vdpa0/vhost-vdpa-3`);
  host.file('sys/class/block/nvme1n1/dev', '259:1\n');
  dir = mkdtempSync(join(tmpdir(), 'hostdev-plan-'));
  before = host.hash();
});
afterAll(() => {
  expect(host.hash(), 'planning changed the host').toBe(before);
  host.remove();
  rmSync(dir, { recursive: true });
});

type Planned = Ran & { plan: DomainPlan & { diff?: string } };

function plan(xml: string, ...args: string[]): Planned {
  const ran = hostdev(['--root', host.root, 'domain', 'plan', '-', ...args, '-j'], { input: xml });
  return { ...ran, plan: ran.json as unknown as Planned['plan'] };
}

const element = (p: Planned, name = 'hostdev'): string =>
  new RegExp(`<${name}[^]*</${name}>`).exec(p.plan.xml)?.[0].replace(/\n\s*/g, '') ?? '';

const address = (bus: string, slot: string, fn: number, type = ''): string =>
  `<address ${type}domain='0x0000' bus='0x${bus}' slot='0x${slot}' function='0x${fn}'/>`;

describe('a hostdev', () => {
  test("the specification's own example comes out as it stands there", () => {
    const p = plan(EMPTY, '--device', VGPU, '--managed', 'no');
    expect(p.exit).toBe(0);
    expect(p.plan.fragments).toEqual([
      {
        address: VGPU,
        kind: 'hostdev',
        unassigned: false,
        xml: [
          "<hostdev mode='subsystem' type='pci' managed='no'>",
          "  <driver name='vfio'/>",
          '  <source>',
          "    <address domain='0x0000' bus='0x25' slot='0x00' function='0x4'/>",
          '  </source>',
          '</hostdev>',
          '',
        ].join('\n'),
      },
    ]);
    expect(p.plan.xml).toContain((p.plan.fragments[0]?.xml ?? '').trimEnd().replace(/^/gm, '    '));
    expect(p.plan.domain).toEqual({ name: 'g', uuid: null });
    expect(p.plan.warnings).toBeUndefined();
  });

  test('without -j it is the XML, byte for byte the file but for the device', () => {
    const file = join(dir, 'g.xml');
    writeFileSync(file, `\uFEFF${EMPTY.replaceAll('\n', '\r\n')}`);
    const ran = host.run('domain', 'plan', file, VF, '--managed=no');
    expect(ran.exit, ran.err).toBe(0);
    const [head = '', tail = ''] = readFileSync(file, 'utf8').split("<memballoon model='none'/>");
    expect(ran.out.startsWith(head)).toBe(true);
    expect(ran.out.endsWith(tail)).toBe(true);
    expect(ran.out).toContain('\r\n    <hostdev');
  });

  test('every option has its element', () => {
    const p = plan(EMPTY, '--device', NVME, '--driver=tb_nvme_vfio_pci', '--rom', '/rom/a&b.rom', '--boot', '2');
    expect(element(p)).toBe(
      `<hostdev mode='subsystem' type='pci' managed='yes'><driver name='vfio' model='tb_nvme_vfio_pci'/><source>${address('03', '00', 0)}</source><boot order='2'/><rom file='/rom/a&amp;b.rom'/></hostdev>`,
    );
    expect(element(plan(EMPTY, NVME, '--rom=off'))).toContain("<rom bar='off'/>");
    expect(element(plan(EMPTY, NVME, '--rom=none'))).toContain("<rom enabled='no'/>");
    expect(element(plan(EMPTY, NVME, '--driver=auto'))).toContain("<driver name='vfio'/>");
  });

  test('a disk of the NVMe driver, under the first name that is free; no disk of what is no NVMe controller', () => {
    const p = plan(EMPTY, NVME, '--nvme', '2', '--boot', '1');
    expect(element(p, 'disk')).toBe(
      `<disk type='nvme' device='disk'><driver name='qemu' type='raw'/><source type='pci' managed='yes' namespace='2'>${address('03', '00', 0)}</source><target dev='vda' bus='virtio'/><boot order='1'/></disk>`,
    );
    const had = EMPTY.replace('<devices>', "<devices>\n    <disk type='file' device='disk'><target dev='vda'/></disk>");
    expect(plan(had, NVME, '--nvme', '1').plan.xml).toContain("<target dev='vdb' bus='virtio'/>");
    expect(plan(EMPTY, VF, '--nvme', '1').exit).toBe(3);
    for (const wrong of ['0', 'x', '4294967295']) expect(plan(EMPTY, NVME, '--nvme', wrong).exit).toBe(2);
    expect(plan(EMPTY, NVME, '--nvme', '1', '--rom', 'off').exit).toBe(2);
  });

  test('functions of one card on one slot: each at its number, function 0 last', () => {
    const ports = [1, 2].map((n) => `<controller type='pci' index='${n}' model='pcie-root-port'/>`).join('\n    ');
    const q35 = EMPTY.replace(
      '  <devices>',
      `  <os><type arch='x86_64' machine='q35'>hvm</type></os>\n  <devices>\n    ${ports}`,
    );
    const p = plan(q35, GPU, SOUND, '--one-slot');
    expect(p.exit, p.err).toBe(0);
    expect(p.plan.fragments.map((f) => f.address)).toEqual([SOUND, GPU]);
    expect(p.plan.fragments[0]?.xml).toContain(
      "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x1'/>",
    );
    expect(p.plan.fragments[1]?.xml).toContain("function='0x0' multifunction='on'/>");
    expect(plan(q35, GPU, VF, '--one-slot').exit).toBe(3);
    expect(plan(q35, SOUND, '--one-slot', '--unassigned-peers').exit).toBe(3);
    expect(plan(EMPTY, GPU, SOUND, '--one-slot').exit).toBe(3);
  });

  test('devices go by all their names', () => {
    const p = plan(EMPTY, '--device', 'ens2v0', '--device', '/dev/nvme0n1', '10de:25b6');
    expect(p.plan.fragments.map((f) => f.address)).toEqual([VF, NVME, VGPU]);
    expect(plan(EMPTY, 'eth7').json.error.code).toBe('HOSTDEV_DEVICE_ABSENT');
    expect(plan(EMPTY, '8086:10ca').exit).toBe(4);
  });

  test("a device whose own driver is its VFIO provider is taken with managed='no', unless told otherwise", () => {
    const p = plan(EMPTY, VGPU).plan;
    expect(p.xml).toMatch(/<hostdev [^>]*managed='no'/);
    expect(texts(p.warnings)).toEqual([expect.stringContaining("managed='no', for it stays on nvidia")]);
    const refused = plan(EMPTY, VGPU, '--managed', 'yes');
    expect([refused.exit, refused.json.error.code]).toEqual([5, 'HOSTDEV_GUARD']);
    expect(refused.json.error.message).toMatch(/the hook would refuse the guest, and none runs here$/);
    expect(refused.json.error.hint).toContain('guard = "vendor-vfio"');
    const allowed = plan(EMPTY, VGPU, '--managed', 'yes', '--allow=vendor-vfio');
    expect(allowed.exit).toBe(0);
    expect(texts(allowed.plan.warnings)).toContainEqual(
      expect.stringContaining('--allow=vendor-vfio counts here only; for the hook write an [[allow]]'),
    );
  });

  test('--diff and --fragments', () => {
    const diff = hostdev(['--root', host.root, 'domain', 'plan', '-', VF, '--diff'], { input: EMPTY });
    expect(diff.out).toMatch(/^--- stdin\n\+\+\+ stdin\n@@ -2,5 \+2,11 @@\n {3}<name>g/);
    expect(diff.out.match(/^[+-] /gm)).toHaveLength(6);
    expect(plan(EMPTY, VF, '--diff').plan.diff).toBe(diff.out);
    const fragments = hostdev(['--root', host.root, 'domain', 'plan', '-', VF, VGPU, '--fragments'], { input: EMPTY });
    expect(fragments.out.match(/^<hostdev/gm)).toHaveLength(2);
  });

  test.each([
    ['many lines', EMPTY],
    ['one line without an end', EMPTY.replace(/\n */g, '')],
    ['a last line without an end', EMPTY.trimEnd()],
    ['line ends of Windows', EMPTY.replaceAll('\n', '\r\n')],
    ['a byte order mark', `\uFEFF${EMPTY}`],
    ['separators that end no line', EMPTY.replace('<devices>', '<!-- a\u2028b\u0085c -->\n  <devices>')],
    ['far from each other', EMPTY.replace('<devices>', `<devices>\n${'    <!-- - + @@ -->\n'.repeat(20)}`)],
  ])('patch makes of the domain and its diff the planned domain: %s', (_what, xml) => {
    for (const name of ['guest.xml', 'a b\t"é\\.xml']) {
      const file = join(dir, name);
      writeFileSync(file, xml);
      const args = ['--root', host.root, 'domain', 'plan', name, VF, VF2];
      const planned = hostdev(args, { cwd: dir });
      const diff = hostdev([...args, '--diff'], { cwd: dir });
      expect([planned.exit, diff.exit]).toEqual([0, 0]);
      expect(diff.out.length).toBeLessThan(planned.out.length * 2 + 200);
      const patch = spawnSync('patch', ['-p0', '--binary', '--posix'], { cwd: dir, input: diff.out, encoding: 'utf8' });
      expect([patch.error, patch.status, patch.stdout], diff.out).toEqual([undefined, 0, expect.any(String)]);
      expect(readFileSync(file, 'utf8')).toBe(planned.out);
    }
  });

  test('nothing to change has no diff', () => {
    const ran = hostdev(['--root', host.root, 'domain', 'plan', '-', '--diff', '--viommu', 'none'], { input: EMPTY });
    expect(ran).toMatchObject({ exit: 0, out: '' });
  });
});

describe('refused, with the way out', () => {
  test.each([
    ['a device that it has', [VF], 3, /takes 0000:02:10.0 already: hostdev 1 \(line 4\)/, /--remove 0000:02:10.0/],
    ['a bridge', [BRIDGE], 5, /is a bridge \(class 060400\)/, /In its group: 0000:01:00.0, 0000:01:00.1/],
    [
      'a group on host drivers',
      [GPU],
      3,
      /group 1 .*0000:01:00.1 is on the host driver snd_hda_intel/,
      /--unassigned-peers.*0000:01:00.1/,
    ],
    ['a bridge in its group', [BEHIND], 3, /0000:06:00.0 is a bridge, bound to shpchp/, /drivers\/shpchp\/unbind/],
    ['a bridge in its group, peers or not', [BEHIND, '--unassigned-peers'], 3, /shpchp/, /^Unbind the bridge/],
    [
      'a peer that the host needs',
      ['0000:04:00.0', '--unassigned-peers'],
      5,
      /The host needs a peer: 0000:04:00.1: .*nvme1n1/,
      /--device 0000:04:00.1/,
    ],
    ['a boot order that is taken', [VF2, '--boot', '1'], 3, /Boot order 1 is taken by disk \(line 10\)/, /Free is 2/],
    ['twice the same', [VF2, VF2], 2, /named twice/, /once/],
    ['an interface of no VF', [PF, '--vnic', 'direct'], 3, /no VF/, /--vnic direct-physical/],
    ['an interface of a disk', [NVME, '--vnic', 'direct'], 3, /no network device/, /--vnic/],
    ['macvtap without an interface', [VF2, '--vnic', 'macvtap'], 3, /no network interface/, /host driver/],
    ['vdpa without a device', [VF2, '--vnic', 'vdpa'], 3, /no vDPA device/, /vdpa dev add/],
    ['a VF with vDPA as itself', [VDPA, '--vnic', 'direct'], 3, /vDPA/, /--vnic vdpa/],
    ['nothing to remove', ['--remove', VF2], 3, /does not take 0000:02:10.2/, /hostdev 1 \(line 4\)/],
  ])('%s', (_, args, exit, message, hint) => {
    const taken = `<domain type='kvm'>
  <name>g</name>
  <devices>
    <hostdev mode='subsystem' type='pci' managed='no'>
      <source>
        <address bus='0x02' slot='0x10' function='0x0'/>
      </source>
    </hostdev>
    <!-- x -->
    <disk type='file'><boot order='1'/><target dev='vda'/></disk>
  </devices>
</domain>`;
    const p = plan(taken, ...args);
    expect([p.exit, p.json.error.message]).toEqual([exit, expect.stringMatching(message)]);
    expect(p.json.error.hint).toMatch(hint);
    expect(Object.keys(p.json)).not.toContain('xml');
  });

  test.each([
    [['--managed', 'maybe']],
    [['--driver', '../x']],
    [['--rom', 'relative.rom']],
    [['--boot', '0']],
    [['--boot', '1', VF2]],
    [['--mac', '52:54:00:00:00:01']],
    [['--vnic', 'virtio-forwarder']],
    [['--vnic', 'toString']],
    [['--vnic', 'direct', '--mac', '53:54:00:00:00:01']],
    [['--vnic', 'direct', '--mac', '52-54-00-00-00-01']],
    [['--vnic', 'direct', '--vlan', '4095']],
    [['--vnic', 'direct', '--vlan', '7', '--profile-id', 'p']],
    [['--vnic', '802.1qbh']],
    [['--vnic', 'direct', '--profile-id', 'p'.repeat(40)]],
    [['--vnic', 'direct', '--profile-id', "it's"]],
    [['--vnic', 'direct-physical', '--mac', '52:54:00:00:00:01']],
    [['--vnic', 'vdpa', '--vlan', '7']],
    [['--vnic', 'macvtap', '--managed', 'yes']],
    [['--vnic', 'direct', '--mac', '52:54:00:00:00:01', VF2]],
    [['--diff', '--fragments']],
  ])('words that mean nothing: %j', (args) => {
    const p = plan(EMPTY, '--device', VF, ...args);
    expect([p.exit, p.json.error.code]).toEqual([2, 'HOSTDEV_USAGE']);
    expect(p.json.error.hint.length).toBeGreaterThan(5);
  });

  test('options about a device without one, and nothing to do', () => {
    expect(plan(EMPTY).exit).toBe(2);
    expect(plan(EMPTY, '--remove', VF, '--managed', 'no').exit).toBe(2);
  });

  test('<os><boot dev> beside a boot order', () => {
    const p = plan(EMPTY.replace('<devices>', "<os><type>hvm</type><boot dev='hd'/></os><devices>"), VF, '--boot', '1');
    expect([p.exit, p.json.error.hint]).toEqual([3, expect.stringContaining('leave --boot out')]);
  });

  test('a container', () => {
    expect(plan(EMPTY.replace('kvm', 'lxc'), VF).json.error.message).toContain("type is 'lxc'");
  });

  test.each([
    ['<domain', 1, 8],
    ["<domain type='kvm'>\n  <name>g</name>\n  <devices>\n    <hostdev>\n  </devices>\n</domain>", 5, 3],
    ["<domain type='kvm'>\n<name>g</name><devices><hostdev type='pci'/></devices></domain>", 2, 24],
  ])('%j is refused at its line and column', (xml, line, column) => {
    const p = plan(xml, VF);
    expect([p.exit, p.json.error.code]).toEqual([3, 'HOSTDEV_XML']);
    expect(p.json).toMatchObject({ line, column });
    expect(p.json.error.message).toContain(`stdin: line ${line}, column ${column}: `);
  });
});

describe('--unassigned-peers', () => {
  test('peers on host drivers leave the host too; they are plugged in first', () => {
    const p = plan(EMPTY, GPU, '--unassigned-peers', '--managed=no', '--boot=1', '--driver=vfio-pci');
    expect(p.exit, p.err).toBe(0);
    expect(p.plan.fragments.map((f) => [f.address, f.unassigned])).toEqual([
      [SOUND, true],
      [GPU, false],
    ]);
    expect(readDomainDevices(readDomain(p.plan.xml, 'x')).devices).toMatchObject([
      { address: GPU, unassigned: false, model: 'vfio-pci' },
      { address: SOUND, unassigned: true, managed: false, model: null },
    ]);
    expect(p.plan.fragments[0]?.xml).not.toContain('boot');
  });

  test('named peers are devices like others', () => {
    const p = plan(EMPTY, GPU, SOUND);
    expect(p.exit).toBe(0);
    expect(p.plan.xml).not.toContain('unassigned');
  });
});

describe('--viommu', () => {
  const Q35 =
    "<domain type='kvm'>\n  <name>g</name>\n  <os><type arch='x86_64' machine='q35'>hvm</type></os>\n  <devices>\n  </devices>\n</domain>\n";
  const HERE = ['--libvirt', '9.0.0', '--qemu', '7.2.0'];

  test('the suggestion and its reasons, with what it needs', () => {
    const p = plan(Q35, VF, '--viommu', 'auto', ...HERE);
    expect(p.exit, p.err).toBe(0);
    expect(p.plan.viommu).toMatchObject({
      model: 'intel',
      reasons: expect.arrayContaining([expect.stringContaining('auto is intel')]),
    });
    expect(p.plan.xml).toContain("<ioapic driver='qemu'/>");
    expect(p.plan.xml).toMatch(/<iommu model='intel'><driver intremap='on' caching_mode='on'/);
    expect(p.plan.versions).toEqual({ libvirt: '9.0.0', qemu: '7.2.0', source: 'given' });
  });

  test('alone, and out again', () => {
    const p = plan(Q35, '--viommu', 'virtio', '--libvirt', '11.3.0');
    expect(p.plan.xml).toContain("<iommu model='virtio'/>");
    expect(p.plan.fragments).toEqual([]);
    expect(plan(p.plan.xml, '--viommu', 'none').plan.xml).toBe(
      Q35.replace('  <devices>', '  <features>\n    <acpi/>\n  </features>\n  <devices>'),
    );
  });

  test.each([
    ['i440FX has none', [VF, '--viommu', 'auto'], 3, /No vIOMMU auto for this domain: .*i440FX/],
    ['an old libvirt', ['--viommu', 'amd', '--libvirt', '9.0.0'], 3, /./],
    ['no model', ['--viommu', 'vtd'], 2, /no such model/],
    ['no version', [VF, '--libvirt', 'new'], 2, /wants a version/],
    [
      'a driver before libvirt 10',
      [VF, '--driver=vfio-pci', '--libvirt=9.10.0'],
      3,
      /needs libvirt 10.0.0, and this is 9.10.0/,
    ],
    ['peers before libvirt 6', [GPU, '--unassigned-peers', '--libvirt=5.10.0'], 3, /unassigned.* needs libvirt 6.0.0/],
  ])('%s', (_, args, exit, message) => {
    const p = plan(EMPTY, ...args);
    expect([p.exit, p.json.error.message]).toEqual([exit, expect.stringMatching(message)]);
  });

  test('a vIOMMU that keeps the guest from starting with the device is told of', () => {
    const p = plan(Q35.replace('>\n  </devices>', "><iommu model='intel'/></devices>"), VF);
    expect(p.exit).toBe(0);
    expect(texts(p.plan.warnings)).toEqual([expect.stringMatching(/^iommu .*will not start: .*caching_mode/)]);
  });
});

describe('network interfaces', () => {
  const MAC = ['--mac', 'FA:16:3E:00:11:22'];
  const mac = "<mac address='fa:16:3e:00:11:22'/>";
  const source = `<source>${address('02', '10', 0, "type='pci' ")}</source>`;
  const vlan = "<vlan><tag id='7'/></vlan>";
  const port = "<virtualport type='802.1Qbh'><parameters profileid='p1'/></virtualport>";
  const tap = "<model type='virtio'/><driver name='vhost'/><source dev='ens2v0' mode='passthrough'/>";

  test.each([
    ['direct', [...MAC, '--vlan', '7'], `<interface type='hostdev' managed='yes'>${mac}${source}${vlan}</interface>`],
    ['hw_veb', [...MAC, '--vlan', '0'], `<interface type='hostdev' managed='yes'>${mac}${source}</interface>`],
    ['accelerator-direct', ['--managed=no'], `<interface type='hostdev' managed='no'>${source}</interface>`],
    [
      '802.1Qbh',
      [...MAC, '--profile-id', 'p1'],
      `<interface type='hostdev' managed='yes'>${mac}${source}${port}</interface>`,
    ],
    ['macvtap', [...MAC, '--vlan', '7'], `<interface type='direct'>${mac}${tap}${vlan}</interface>`],
    ['macvtap', [...MAC, '--profile-id', 'p1'], `<interface type='direct'>${mac}${tap}${port}</interface>`],
  ])('%s %j', (vnic, args, xml) => {
    const p = plan(EMPTY, VF, '--vnic', vnic, ...args);
    expect(p.exit, p.err).toBe(0);
    expect(element(p, 'interface')).toBe(xml);
  });

  test('a function that one of its interfaces sits on is not taken again', () => {
    const { xml } = plan(plan(EMPTY, VF, '--vnic', 'macvtap').plan.xml, VDPA, '--vnic', 'vdpa').plan;
    for (const [device, where] of [
      [VF, 'interface 1'],
      [VDPA, 'interface 2'],
    ] as const) {
      const p = plan(xml, device);
      expect([p.exit, p.json.error.code]).toEqual([3, 'HOSTDEV_DOMAIN_UNFIT']);
      expect(p.json.error.message).toContain(`uses ${device} already: ${where}`);
    }
    expect(plan(xml, VF2).exit).toBe(0);
    const onPf = EMPTY.replace('<devices>', "<devices><interface type='direct'><source dev='eth0'/></interface>");
    expect(plan(onPf, VF).exit).toBe(0);
    const odd = EMPTY.replace('<devices>', "<devices><interface type='direct'><source dev='../x'/></interface>");
    expect(plan(odd, VF).exit).toBe(0);
  });

  test('nor given to it from the pools', () => {
    const config = join(dir, 'h.toml');
    writeFileSync(
      config,
      '[[device_spec]]\nproduct_id = "10ca"\n[[alias]]\nname = "nic"\nvendor_id = "8086"\nproduct_id = "10ca"\n',
    );
    const alias = (xml: string, n: number): Planned => plan(xml, '--alias', `nic:${n}`, '--config', config);
    expect(alias(EMPTY, 2).plan.fragments.map((f) => f.address)).toEqual([VF2, VF]);
    const { xml } = plan(EMPTY, VF, '--vnic', 'macvtap').plan;
    expect(alias(xml, 1).plan.fragments.map((f) => f.address)).toEqual([VF2]);
    expect(alias(xml, 2).json.error.hint).toContain(`${VF} (domain g has it)`);
  });

  test('direct-physical is a plain hostdev', () => {
    expect(element(plan(EMPTY, VF, '--vnic', 'direct-physical'))).toBe(element(plan(EMPTY, VF)));
  });

  test('vdpa', () => {
    expect(element(plan(EMPTY, VDPA, '--vnic', 'vdpa', ...MAC), 'interface')).toBe(
      `<interface type='vdpa'>${mac}<model type='virtio'/><source dev='/dev/vhost-vdpa-3'/></interface>`,
    );
  });
});

describe('--remove', () => {
  test('takes out what was put in, to the last byte', () => {
    const added = plan(EMPTY, GPU, '--unassigned-peers').plan.xml;
    const nic = plan(added, VF, '--vnic', 'direct').plan.xml;
    const p = plan(nic, '--remove', SOUND, '--remove', VF, '--remove', 'pci_0000_01_00_0');
    expect(p.plan.xml).toBe(EMPTY);
    expect(p.plan.removed).toEqual([
      { address: SOUND, kind: 'hostdev' },
      { address: VF, kind: 'interface' },
      { address: GPU, kind: 'hostdev' },
    ]);
  });

  test('a device that left the host can leave the domain', () => {
    const gone = plan(EMPTY, VF).plan.xml.replace("bus='0x02'", "bus='0x7f'");
    expect(plan(gone, '--remove', '0000:7f:10.0').plan.xml).toBe(EMPTY);
  });

  test('one out, another in', () => {
    const p = plan(plan(EMPTY, VF).plan.xml, '--remove', VF, '--device', VF2);
    expect(p.plan.xml).toBe(plan(EMPTY, VF2).plan.xml);
  });
});
