/** `group why` on static hosts: that the cause named is the one that is there. */
import { dirname, relative } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { explainDevice, type Why } from '../../../src/actions/groupWhy.ts';
import { loadNative } from '../../../src/addon/load.ts';
import type { CauseId } from '../../../src/doctor/table.ts';
import { Host } from '../../../src/host/host.ts';
import { ACS_ON, configBytes, type MockConfig } from '../../mock/config.ts';
import { loadDump, StaticHost, type Tree, type TreeDevice } from '../../mock/tree.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

const REMAPPED = ' 24:  0  0  IR-PCI-MSI-0000:00:01.0  0-edge  eth0\n';
const PLAIN = ' 24:  0  0  PCI-MSI-0000:00:01.0  0-edge  eth0\n';

type Device = TreeDevice & { config?: MockConfig | null; above?: string[] };

/** A host whose devices have a config space and hang below bridges. */
function tree(devices: Device[], more: Omit<Tree, 'devices'> = {}): StaticHost {
  const h = new StaticHost({ devices, ...more, files: { 'proc/interrupts': REMAPPED, ...more.files } });
  hosts.push(h);
  for (const d of devices) {
    if (d.config !== undefined && d.config !== null)
      h.file(`sys/bus/pci/devices/${d.address}/config`, configBytes(d.config));
    if (!d.above?.length) continue;
    const flat = `sys/devices/pci${d.address.slice(0, 7)}/${d.address}`;
    const nested = ['sys/devices/pci0000:00', ...d.above.toReversed(), d.address].join('/');
    h.link(nested, relative(dirname(nested), flat));
    h.link(`sys/bus/pci/devices/${d.address}`, relative('sys/bus/pci/devices', nested));
  }
  return h;
}

const why = async (h: StaticHost, word: string): Promise<Why> =>
  (await explainDevice(new Host(h.root, loadNative()), word)).why;
const ids = (w: Why): CauseId[] => w.causes.map((c) => c.id);

const PORT = '0000:00:1c.0';
const GPU = '0000:01:00.0';
const AUDIO = '0000:01:00.1';
const port = (more: MockConfig = {}): Device => ({
  address: PORT,
  ids: '8086:a298',
  class: '060400',
  group: 1,
  driver: 'pcieport',
  config: { pcie: 'root-port', buses: [1, 1], ...more },
});
const gpu: Device = {
  address: GPU,
  ids: '10de:2204',
  class: '030000',
  group: 1,
  driver: 'nouveau',
  above: [PORT],
  config: { multifunction: true },
};
const audio: Device = {
  address: AUDIO,
  ids: '10de:1aef',
  class: '040300',
  group: 1,
  driver: 'snd_hda_intel',
  above: [PORT],
  config: { multifunction: true },
};

describe('alone in its group', () => {
  test('nothing blocks, nothing needs a reason, and config space is not read', async () => {
    const h = tree([{ address: GPU, ids: '10de:2204', group: 1, driver: 'nouveau' }], { net: { eth5: GPU } });
    h.folder(`sys/bus/pci/devices/${GPU}/config`);
    expect(await why(h, GPU)).toMatchObject({
      assignable: true,
      causes: [],
      device: { driver: 'nouveau', netdevs: ['eth5'] },
      peers: [],
      iommu_group: 1,
      not_measured: [],
    });
  });
});

describe('a group of several', () => {
  test('a root port without ACS, two functions without it: each named, and the peer that blocks', async () => {
    const w = await why(
      tree([port(), gpu, audio], { drm: { card0: AUDIO }, net: { eth7: AUDIO }, block: { sdz: AUDIO } }),
      GPU,
    );
    expect(w.assignable).toBe(false);
    expect(ids(w).sort()).toEqual(['functions-acs', 'peer-driver', 'port-acs']);
    expect(w.causes[0]).toMatchObject({ id: 'peer-driver', object: AUDIO, blocks: true });
    expect(w.causes[0]?.change).toContain(`hostdev bind ${AUDIO} (the host loses eth7, sdz, card0)`);
    const acs = w.causes.find((c) => c.id === 'port-acs');
    expect(acs?.cause).toContain(`root port ${PORT} has no ACS capability`);
    expect(w.peers).toEqual([
      { address: PORT, class: '060400', driver: 'pcieport', blocks: false, netdevs: [], disks: [], displays: [] },
      {
        address: AUDIO,
        class: '040300',
        driver: 'snd_hda_intel',
        blocks: true,
        netdevs: ['eth7'],
        disks: ['sdz'],
        displays: ['card0'],
      },
    ]);
  });

  test('bits that are off are named', async () => {
    const w = await why(tree([port({ acs: { cap: 0x1d, ctrl: 0x11 } }), { ...gpu, config: {} }]), GPU);
    expect(w.assignable).toBe(true);
    expect(w.causes).toEqual([expect.objectContaining({ id: 'port-acs', blocks: false })]);
    expect(w.causes[0]?.cause).toContain('request redirect (RR), completion redirect (CR) switched off');
  });

  test('with ACS on at the port, only the functions are the reason', async () => {
    const devices = [gpu, { ...audio, driver: 'vfio-pci' }];
    const w = await why(tree(devices), GPU);
    expect(w).toMatchObject({ assignable: true });
    expect(ids(w)).toEqual(['functions-acs']);
  });

  test.each([
    ['pcie-to-pci-bridge', 'PCIe-to-PCI bridge'],
    [null, 'conventional PCI bridge'],
  ] as const)('behind a %s', async (pcie, text) => {
    const B = '0000:25:00.0';
    const w = await why(
      tree([
        {
          address: B,
          ids: '1b36:000e',
          class: '060400',
          group: 9,
          driver: 'shpchp',
          config: { pcie, buses: [0x26, 0x26] },
        },
        { address: '0000:26:01.0', ids: '1234:11e8', group: 9, above: [B], config: { pcie: null } },
        { address: '0000:26:02.0', ids: '8086:100e', group: 9, driver: 'e1000', above: [B], config: { pcie: null } },
      ]),
      '0000:26:01.0',
    );
    expect(w.causes.find((c) => c.id === 'conventional-bridge')).toMatchObject({
      object: B,
      cause: expect.stringContaining(`is a ${text}`),
    });
    expect(w.causes.filter((c) => c.id === 'peer-driver').map((c) => c.object)).toEqual([B, '0000:26:02.0']);
    expect(w.causes[0]?.change).toContain(`echo ${B} >`);
  });

  test('config space that cannot be read is not measured, and said', async () => {
    const w = await why(tree([port({ size: 64 }), { ...gpu, config: { size: 64 } }]), GPU);
    expect(ids(w)).toEqual(['join-unmeasured']);
    expect(w.not_measured.map((u) => u.object).filter((o) => o.endsWith('config'))).toEqual([
      `/sys/bus/pci/devices/${PORT}/config`,
      `/sys/bus/pci/devices/${GPU}/config`,
    ]);
    const none = await why(
      tree([
        { ...port(), config: null },
        { ...gpu, config: null },
      ]),
      GPU,
    );
    expect(none.not_measured.find((u) => u.object.endsWith('config'))?.reason).toContain('not there');
  });

  test('hostile config space: huge, looping, a link out of the root', async () => {
    const h = tree([port(), gpu, audio]);
    h.file(`sys/bus/pci/devices/${PORT}/config`, new Uint8Array(1024 * 1024));
    h.link(`sys/bus/pci/devices/${GPU}/config`, '/../../../../../../etc/passwd');
    const loop = configBytes({ multifunction: true });
    new DataView(loop.buffer).setUint32(0x100, 0x0001 | (0x100 << 20), true);
    h.file(`sys/bus/pci/devices/${AUDIO}/config`, loop);
    const w = await why(h, GPU);
    expect(ids(w)).toContain('join-unmeasured');
    expect(w.not_measured.map((u) => u.reason).join('\n')).toMatch(/EFBIG[\s\S]*not there[\s\S]*circle/);
  });

  test('an ACS override is said', async () => {
    const h = tree([gpu]);
    h.file('proc/cmdline', 'intel_iommu=on pcie_acs_override=downstream,multifunction\n');
    expect(ids(await why(h, GPU))).toContain('acs-override');
  });
});

describe('what keeps it from a guest', () => {
  const nic = (more: Partial<Device> = {}): Device => ({
    address: GPU,
    ids: '8086:1521',
    group: 3,
    driver: 'igb',
    ...more,
  });

  test('no IOMMU: the reason is that of the host', async () => {
    const h = tree([nic({ group: undefined as unknown as number })], {
      files: { 'sys/firmware/acpi/tables/DMAR': 'x' },
    });
    h.file('proc/cmdline', 'root=/dev/sda1\n');
    expect(await why(h, GPU)).toMatchObject({
      assignable: false,
      iommu_group: null,
      causes: [{ id: 'iommu-off', blocks: true, cause: expect.stringContaining('intel_iommu=on') }],
    });
  });

  test('no group of its own although there are groups', async () => {
    const lost = nic({ address: '0000:02:00.0' });
    delete lost.group;
    expect(ids(await why(tree([nic(), lost]), '02:00.0'))).toEqual(['no-group']);
  });

  test('with virtio-iommu a group comes with the driver', async () => {
    const lost = nic({ address: '0000:02:00.0' });
    delete lost.group;
    const h = tree([nic(), lost, { address: '0000:00:01.0', ids: '1af4:1057', class: '080600', driver: 'virtio-pci' }]);
    h.folder('sys/class/iommu/0000:00:01.0');
    expect(await why(h, '02:00.0')).toMatchObject({
      assignable: true,
      causes: [{ id: 'group-at-probe', blocks: false }],
    });
  });

  test('interrupts that are not remapped, unless VFIO was told to do without', async () => {
    const h = tree([nic()], { files: { 'proc/interrupts': PLAIN } });
    expect(await why(h, GPU)).toMatchObject({ assignable: false, causes: [{ id: 'interrupt-remapping' }] });
    h.file('sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts', 'Y\n');
    expect(await why(h, GPU)).toMatchObject({ assignable: true, causes: [{ id: 'unsafe-interrupts' }] });
    h.file('proc/interrupts', '');
    const blind = await why(h, GPU);
    expect(blind).toMatchObject({ assignable: true, causes: [] });
    expect(blind.not_measured[0]?.object).toBe('interrupt remapping');
  });

  test('a direct reserved region; relaxable and msi ones do not matter', async () => {
    const h = tree([nic()]);
    const set = (text: string) => h.file('sys/kernel/iommu_groups/3/reserved_regions', text);
    set('0x00000000000e0000 0x00000000000fffff direct-relaxable\n0x00000000fee00000 0x00000000feefffff msi\n');
    expect(await why(h, GPU)).toMatchObject({
      assignable: true,
      reserved_regions: [{ type: 'direct-relaxable' }, { type: 'msi' }],
    });
    set('0x00000000bdf6f000 0x00000000bdf7efff direct\n');
    expect(await why(h, GPU)).toMatchObject({ assignable: false, causes: [{ id: 'reserved-direct' }] });
  });

  test('a bridge', async () => {
    expect(await why(tree([port({ acs: ACS_ON })]), PORT)).toMatchObject({
      assignable: false,
      causes: [{ id: 'not-endpoint' }],
    });
  });

  test('what the host itself uses', async () => {
    const h = tree([nic()], { net: { eth0: GPU } });
    h.file(
      'proc/net/route',
      'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\neth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n',
    );
    expect(await why(h, 'eth0')).toMatchObject({
      assignable: false,
      causes: [{ id: 'host-use', cause: expect.stringContaining('default route') }],
    });
  });

  test('sys/class/net has a file among its links where the bonding module is loaded', async () => {
    const h = tree([nic()], { net: { eth0: GPU }, files: { 'sys/class/net/bonding_masters': 'bond0\n' } });
    const w = await why(h, GPU);
    expect(w).toMatchObject({ assignable: true, device: { netdevs: ['eth0'] } });
    expect(w.not_measured.map((u) => u.object).filter((o) => o.includes('class'))).toEqual([]);
  });

  test('a device on the denylist of vfio-pci, unless that is off', async () => {
    const h = tree([nic({ ids: '8086:37c8', driver: 'c6xx' })], { drivers: { 'vfio-pci': 'vfio_pci' } });
    expect(await why(h, GPU)).toMatchObject({ assignable: false, causes: [{ id: 'denylist' }] });
    h.file('sys/module/vfio_pci/parameters/disable_denylist', 'Y\n');
    expect(await why(h, GPU)).toMatchObject({ assignable: true, causes: [] });
  });

  test('a PF with VFs', async () => {
    const h = tree([nic({ totalVfs: 7 }), { address: '0000:01:10.0', ids: '8086:1520', group: 4, physfn: GPU }]);
    expect(ids(await why(h, GPU))).toEqual(['vfs']);
    expect((await why(h, '01:10.0')).assignable).toBe(true);
  });
});

describe('reset', () => {
  const one = (address: string, reset: string | null, more: Partial<Device> = {}): Device => ({
    address,
    ids: '1002:73bf',
    group: 3,
    above: [PORT],
    config: {},
    attributes: { reset_method: reset },
    ...more,
  });

  test('a method of its own reaches nobody else', async () => {
    const w = await why(tree([port(), one(GPU, 'pm bus\n', { group: 3 })]), GPU);
    expect(w.reset).toEqual({ methods: ['pm', 'bus'], scope: [] });
    expect(w.causes).toEqual([]);
  });

  test('only the bus: all that is on it is hit', async () => {
    const w = await why(
      tree([
        { ...port(), group: 8 },
        one(GPU, 'bus\n'),
        one(AUDIO, '\n'),
        one('0000:05:00.0', 'flr\n', { group: 6, above: [] }),
      ]),
      GPU,
    );
    expect(w.reset).toEqual({ methods: ['bus'], scope: [AUDIO] });
    expect(w.causes.find((c) => c.id === 'reset-bus')?.cause).toContain(AUDIO);
  });

  test('none at all; on a root bus nothing can be reset for it', async () => {
    const below = await why(tree([{ ...port(), group: 8 }, one(GPU, '\n'), one(AUDIO, '\n')]), GPU);
    expect(below.causes.find((c) => c.id === 'reset-none')?.cause).toContain(
      `the bus below ${PORT}: that hits ${AUDIO}`,
    );
    const root = await why(
      tree([one('0000:00:05.0', '\n', { above: [] }), one('0000:00:06.0', '\n', { above: [], group: 4 })]),
      '00:05.0',
    );
    expect(root.reset).toEqual({ methods: [], scope: [] });
    expect(ids(root)).toEqual(['reset-none']);
  });

  test('a kernel that shows only that there is one: not measured', async () => {
    const h = tree([one(GPU, null, { attributes: { reset_method: null, reset: '' } })]);
    expect(await why(h, GPU)).toMatchObject({
      assignable: true,
      reset: { methods: null },
      not_measured: [{ reason: expect.stringContaining('5.15') }],
    });
  });
});

describe('the command', () => {
  test('text, JSON, exit codes', async () => {
    const h = tree([port(), gpu, audio]);
    const no = h.run('group', 'why', '01:00.0', '-j');
    expect(no.exit).toBe(3);
    expect(no.json.schema).toBe(1);
    expect(no.json).toMatchObject({ why: { address: GPU, assignable: false } });
    const text = h.run('group', 'why', GPU);
    expect(text.out).toContain('not assignable');
    expect(text.out).toContain('blocked: peer-driver');
    const solo = tree([{ address: GPU, ids: '10de:2204', group: 1 }]);
    expect(solo.run('group', 'why', GPU)).toMatchObject({ exit: 0, out: expect.stringContaining(': assignable') });
    expect(solo.run('group', 'why', '77:00.0', '-j').exit).toBe(4);
    expect(solo.run('group', 'why').exit).toBe(2);
  });

  test("another program's text cannot move the terminal", async () => {
    const h = tree([{ address: GPU, ids: '10de:2204', group: 1, driver: 'nouveau' }]);
    h.file('proc/cmdline', 'pcie_acs_override=\x1b[2J\n');
    expect(h.run('group', 'why', GPU).out).not.toContain('\x1b');
  });
});

test('a real host, dumped without root: the bridge that blocks is named', async () => {
  const h = loadDump('intel-6.12');
  hosts.push(h);
  const w = await why(h, '0000:26:02.0');
  expect(w).toMatchObject({ assignable: false, iommu_group: 32 });
  expect(w.causes[0]).toMatchObject({
    id: 'peer-driver',
    object: '0000:25:00.0',
    cause: expect.stringContaining('shpchp'),
  });
  expect(w.reset).toEqual({ methods: [], scope: ['0000:26:01.0'] });
  expect(await why(h, '0000:23:00.0')).toMatchObject({ assignable: true, causes: [] });
  expect((await why(h, '0000:21:00.0')).causes).toEqual([expect.objectContaining({ id: 'vfs' })]);
});
