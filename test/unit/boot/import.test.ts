/**
 * `import`: wishes from what real hosts have in these files (public ones, rewritten), what is to be taken out, and
 * nothing invented.
 */
import { afterEach, describe, expect, test } from 'vitest';
import { StaticHost } from '../../mock/tree.ts';

const GPU0 = '0000:83:00.0';
const GPU1 = '0000:84:00.0';
const AUDIO = '0000:83:00.1';
const NIC = '0000:21:00.0';
const PF = '0000:22:00.0';
const NVME = '0000:23:00.0';

let host: StaticHost | null = null;
afterEach(() => host?.remove());

const start = (files: Record<string, string>): StaticHost => {
  host = new StaticHost({
    devices: [
      { address: NIC, ids: '8086:10d3', group: 1, driver: 'e1000e' },
      { address: PF, ids: '8086:10c9', group: 2, driver: 'igb', totalVfs: 7 },
      { address: NVME, ids: '144d:a808', class: '010802', group: 3, driver: 'nvme' },
      { address: GPU0, ids: '10de:1bb0', class: '030000', group: 4, driver: 'nouveau' },
      { address: AUDIO, ids: '10de:10f0', class: '040300', group: 4, driver: 'snd_hda_intel' },
      { address: GPU1, ids: '10de:1bb0', class: '030000', group: 5, driver: 'nouveau' },
    ],
    drivers: { 'vfio-pci': 'vfio_pci' },
    net: { eth4: PF },
    files,
  });
  return host;
};

type Imported = {
  wishes: { kind: string; wished_address: string; driver: string | null; vfs: number | null; for: string | null }[];
  take_out: { where: string; line: string }[];
  left: { object: string; reason: string }[];
  files: string[];
  toml: string;
  changed: boolean;
};

function run(h: StaticHost, ...args: string[]): Imported & { exit: number | null } {
  const ran = h.run('import', ...args, '-j');
  return { ...(ran.json as unknown as Imported), exit: ran.exit };
}

const said = (i: Imported): string[] =>
  i.wishes.map((w) => `${w.wished_address} ${w.kind === 'pf' ? `${w.vfs} VFs for ${w.for}` : w.driver}`).sort();

const CHARM = `vfiobind() {
    dev="$1"
    vendor=$(cat /sys/bus/pci/devices/$dev/vendor)
    device=$(cat /sys/bus/pci/devices/$dev/device)
    if [ -e /sys/bus/pci/devices/$dev/driver ]; then
            echo $dev > /sys/bus/pci/devices/$dev/driver/unbind
    fi
    echo $vendor $device > /sys/bus/pci/drivers/vfio-pci/new_id
}
vfiobind 0000:83:00.0
vfiobind 0000:84:00.0
`;

describe('rc.local', () => {
  test.each<[string, string, string[]]>([
    ['the charm guide', CHARM, [`${GPU0} vfio`, `${GPU1} vfio`]],
    [
      'one device of two twins',
      `#!/bin/sh -e\nmodprobe vfio-pci\necho ${GPU1} > /sys/bus/pci/devices/${GPU1}/driver/unbind\necho vfio-pci > /sys/bus/pci/devices/${GPU1}/driver_override\necho ${GPU1} > /sys/bus/pci/drivers_probe\nexit 0\n`,
      [`${GPU1} vfio`],
    ],
    [
      'new_id takes every device of the ids',
      'modprobe vfio-pci\necho 10de 1bb0 > /sys/bus/pci/drivers/vfio-pci/new_id\n',
      [`${GPU0} vfio`, `${GPU1} vfio`],
    ],
    [
      'a loop',
      `for d in ${GPU0} ${AUDIO}; do\n  echo vfio-pci > /sys/bus/pci/devices/$d/driver_override\n  echo $d > /sys/bus/pci/drivers_probe\ndone\n`,
      [`${GPU0} vfio`, `${AUDIO} vfio`],
    ],
    ['libvirt', 'virsh nodedev-detach pci_0000_21_00_0\n', [`${NIC} vfio`]],
    ['driverctl', `driverctl --nosave set-override ${NIC} vfio-pci\n`, [`${NIC} vfio`]],
    ['VFs by address', `echo 4 > /sys/bus/pci/devices/${PF}/sriov_numvfs\n`, [`${PF} 4 VFs for netdev`]],
    [
      'VFs by interface, through 0',
      'echo 0 > /sys/class/net/eth4/device/sriov_numvfs\necho 7 > /sys/class/net/eth4/device/sriov_numvfs\n',
      [`${PF} 7 VFs for netdev`],
    ],
    [
      'VFs and a device beside other work',
      `ip link set eth0 up\necho "2" > /sys/class/net/eth4/device/sriov_numvfs\necho vfio-pci > /sys/bus/pci/devices/${NVME}/driver_override\necho ${NVME} > /sys/bus/pci/drivers_probe\n/usr/local/bin/other ${NIC}\n`,
      [`${PF} 2 VFs for netdev`, `${NVME} vfio`],
    ],
    [
      'comments',
      `# echo vfio-pci > /sys/bus/pci/devices/${GPU0}/driver_override\n# echo 4 > /sys/class/net/eth4/device/sriov_numvfs\nexit 0\n`,
      [],
    ],
    ['nothing of ours', `#!/bin/sh\nethtool -K eth4 tso off # ${NIC}\nexit 0\n`, []],
    ['a device that is not here', 'echo vfio-pci > /sys/bus/pci/devices/0000:99:00.0/driver_override\n', []],
    ['VFs of what is no PF', 'echo 4 > /sys/class/net/eth9/device/sriov_numvfs\n', []],
  ])('%s', (_, text, wishes) => {
    const found = run(start({ 'etc/rc.local': text }), 'rc.local');
    expect([found.exit, said(found)]).toEqual([0, wishes.sort()]);
    expect(found.take_out.length > 0).toBe(wishes.length > 0 || /99:00/.test(text));
  });

  test('what is not to be told is left and said', () => {
    const found = run(
      start({
        'etc/rc.local': `echo ${NIC} > /sys/bus/pci/devices/${NIC}/driver/unbind\necho 3 > /sys/class/net/eth9/device/sriov_numvfs\n`,
      }),
      'rc.local',
    );
    expect(said(found)).toEqual([]);
    expect(found.left.map((l) => l.object)).toEqual([NIC, '/etc/rc.local:2']);
  });

  test('another file by name; one that is not there', () => {
    const h = start({ 'opt/boot.sh': CHARM });
    expect(said(run(h, 'rc.local', h.path('opt/boot.sh')))).toHaveLength(2);
    expect(h.run('import', 'rc.local', '/opt/no.sh').exit).toBe(4);
    expect(h.run('import', 'grub').exit).toBe(2);
  });
});

describe('modprobe.d, /etc/modules, the initramfs and the kernel line', () => {
  const ALIASES = { 'proc/cmdline': 'root=/dev/sda1 intel_iommu=on\n' };
  test.each<[string, Record<string, string>, string[]]>([
    [
      'ids in modprobe.d',
      { 'etc/modprobe.d/vfio.conf': 'options vfio-pci ids=10de:1bb0,10de:10f0\n' },
      [`${GPU0} vfio`, `${AUDIO} vfio`, `${GPU1} vfio`],
    ],
    [
      "pci_stub of the charm guide in the initramfs' list",
      {
        'etc/initramfs-tools/modules': 'pci_stub ids=10de:1bb0\n',
        'etc/modules': 'pci_stub\nvfio\nvfio_iommu_type1\nvfio_pci\n',
      },
      [`${GPU0} vfio`, `${GPU1} vfio`],
    ],
    [
      'the kernel line',
      { 'proc/cmdline': 'root=/dev/sda1 vfio-pci.ids=144d:a808 modprobe.blacklist=nouveau\n' },
      [`${NVME} vfio`],
    ],
    [
      'of several the last',
      {
        'etc/modprobe.d/a.conf': 'options vfio-pci ids=144d:a808\n',
        'etc/modprobe.d/b.conf': 'options vfio-pci ids=8086:10d3\n',
      },
      [`${NIC} vfio`],
    ],
    [
      'upper case and subsystems',
      { 'etc/modprobe.d/vfio.conf': 'options vfio-pci ids=8086:10D3:ffff:ffff disable_vga=1\n' },
      [`${NIC} vfio`],
    ],
    ['no ids', { 'etc/modprobe.d/vfio.conf': 'options vfio-pci disable_vga=1\n' }, []],
    ['ids of no device', { 'etc/modprobe.d/vfio.conf': 'options vfio-pci ids=1002:67df\n' }, []],
    ['a comment', { 'etc/modprobe.d/vfio.conf': '# options vfio-pci ids=10de:1bb0\n' }, []],
    ['another module', { 'etc/modprobe.d/kvm.conf': 'options kvm ignore_msrs=1\n' }, []],
  ])('%s', (_, files, wishes) => {
    const found = run(start({ ...ALIASES, ...files }), 'modprobe.d');
    expect([found.exit, said(found)]).toEqual([0, wishes.sort()]);
    if (wishes.length > 0) expect(found.take_out.length).toBeGreaterThan(0);
    expect(found.take_out.some((f) => f.line.includes('hostdev bind'))).toBe(false);
    // Two cards of the same ids: the admin is told that both were meant.
    const twins = [GPU0, GPU1].every((gpu) => wishes.includes(`${gpu} vfio`));
    const { warnings = [] } = found as { warnings?: { id: string; text: string }[] };
    expect(warnings).toEqual(
      twins
        ? [{ address: null, id: 'twins', text: expect.stringContaining(`10de:1bb0 is ${GPU0} and ${GPU1}: `) }]
        : [],
    );
  });
});

describe('driverctl', () => {
  test('a file a device: VFIO drivers and none; others are told', () => {
    const found = run(
      start({
        [`etc/driverctl.d/pci-${NIC}`]: 'vfio-pci\n',
        [`etc/driverctl.d/pci-${NVME}`]: 'none\n',
        [`etc/driverctl.d/pci-${PF}`]: 'uio_pci_generic\n',
        'etc/driverctl.d/pci-0000:99:00.0': 'vfio-pci\n',
        'etc/driverctl.d/vmbus-f8b3781a': 'uio_hv_generic\n',
      }),
      'driverctl',
    );
    expect(said(found)).toEqual([`${NIC} vfio-pci`, `${NVME} none`]);
    expect(found.left.map((l) => l.object).sort()).toEqual([
      `/etc/driverctl.d/pci-${PF}`,
      '/etc/driverctl.d/pci-0000:99:00.0',
      '/etc/driverctl.d/vmbus-f8b3781a',
    ]);
    expect(found.take_out.map((f) => f.line)).toEqual([
      `rm ${host?.root}/etc/driverctl.d/pci-${NIC}`,
      `rm ${host?.root}/etc/driverctl.d/pci-${NVME}`,
    ]);
  });

  // Folders and files as guides and issue threads have them, with this host's devices.
  test.each<[string, Record<string, string>, string[], number]>([
    [
      'a GPU with its audio function, of a desktop guide',
      { [`pci-${GPU0}`]: 'vfio-pci\n', [`pci-${AUDIO}`]: 'vfio-pci\n' },
      [`${GPU0} vfio-pci`, `${AUDIO} vfio-pci`],
      0,
    ],
    ['one of two twins', { [`pci-${GPU1}`]: 'vfio-pci\n' }, [`${GPU1} vfio-pci`], 0],
    ['no line end, as printf writes it', { [`pci-${NIC}`]: 'vfio-pci' }, [`${NIC} vfio-pci`], 0],
    ['an NVMe drive taken from every driver', { [`pci-${NVME}`]: 'none\n' }, [`${NVME} none`], 0],
    ['ports for DPDK on UIO', { [`pci-${NIC}`]: 'uio_pci_generic\n', [`pci-${PF}`]: 'igb_uio\n' }, [], 2],
    [
      'a port for DPDK on VFIO, the next on UIO',
      { [`pci-${NIC}`]: 'vfio-pci\n', [`pci-${PF}`]: 'igb_uio\n' },
      [`${NIC} vfio-pci`],
      1,
    ],
    ['a card back on its host driver', { [`pci-${NIC}`]: 'e1000e\n' }, [], 1],
    [
      'of a card that was taken out',
      { 'pci-0000:af:00.0': 'vfio-pci\n', [`pci-${NIC}`]: 'vfio-pci\n' },
      [`${NIC} vfio-pci`],
      1,
    ],
    ['a synthetic NIC of Hyper-V', { 'vmbus-f8b3781a-1e82-4818-a1c3-63d806ec15bb': 'uio_hv_generic\n' }, [], 1],
    ['a file that an editor left, and an empty one', { [`pci-${NIC}~`]: 'vfio-pci\n', [`pci-${PF}`]: '' }, [], 2],
    ["the kernel's variant driver", { [`pci-${NIC}`]: 'mlx5_vfio_pci\n' }, [`${NIC} mlx5_vfio_pci`], 0],
  ])('%s', (_, folder, wishes, left) => {
    const files = Object.fromEntries(Object.entries(folder).map(([name, text]) => [`etc/driverctl.d/${name}`, text]));
    const found = run(start(files), 'driverctl');
    expect([said(found), found.left.length, found.take_out.length]).toEqual([wishes.sort(), left, wishes.length]);
  });

  // The words of `driverctl set-override` where scripts and units have them.
  test.each<[string, string, string[]]>([
    ['plain', `driverctl set-override ${NIC} vfio-pci\n`, [`${NIC} vfio`]],
    [
      'not kept',
      `/usr/sbin/driverctl --nosave set-override ${GPU0} vfio-pci\ndriverctl --nosave set-override ${AUDIO} vfio-pci\n`,
      [`${GPU0} vfio`, `${AUDIO} vfio`],
    ],
    ['with its bus', `driverctl -v -b pci set-override ${NVME} vfio-pci || true\n`, [`${NVME} vfio`]],
    [
      'a loop',
      `for d in ${GPU0} ${AUDIO}; do\n  driverctl set-override "$d" vfio-pci\ndone\n`,
      [`${GPU0} vfio`, `${AUDIO} vfio`],
    ],
    ['taken back', `driverctl unset-override ${NIC}\n`, []],
    ['listed only', 'driverctl list-overrides\n', []],
    ['in a comment', `# driverctl set-override ${NIC} vfio-pci\n`, []],
  ])('set-override, %s', (_, text, wishes) => {
    expect(said(run(start({ 'etc/rc.local': `#!/bin/bash\n${text}exit 0\n` }), 'rc.local'))).toEqual(wishes.sort());
  });

  test('set-override in a unit', () => {
    const unit = `[Unit]\nDescription=Override\n[Service]\nType=oneshot\nExecStart=/usr/sbin/driverctl --nosave set-override ${NIC} vfio-pci\n[Install]\nWantedBy=multi-user.target\n`;
    const h = start({ 'etc/systemd/system/vfio-nic.service': unit });
    expect(said(run(h, 'rc.local', '/etc/systemd/system/vfio-nic.service'))).toEqual([`${NIC} vfio`]);
  });

  test('nothing there', () => {
    expect(run(start({}), 'driverctl')).toMatchObject({ exit: 0, wishes: [], take_out: [], left: [] });
  });
});

describe('nova.conf', () => {
  test.each<[string, string, string[]]>([
    [
      'the whitelist of the charm guide',
      '[DEFAULT]\npci_passthrough_whitelist = { "vendor_id": "10de", "product_id": "1bb0" }\n',
      [`${GPU0} vfio`, `${GPU1} vfio`],
    ],
    ['an address', `[pci]\ndevice_spec = {"address": "${NVME}"}\n`, [`${NVME} vfio`]],
    [
      'several',
      '[pci]\ndevice_spec = {"vendor_id": "8086", "product_id": "10d3"}\ndevice_spec = {"vendor_id": "144d"}\n',
      [`${NIC} vfio`, `${NVME} vfio`],
    ],
    [
      "kolla's overlay with its alias",
      '[pci]\nalias={"vendor_id": "8086", "product_id":"10d3", "device_type":"type-PCI", "name":"testing"}\npassthrough_whitelist={"vendor_id":"8086","product_id":"10d3"}\n',
      [`${NIC} vfio`],
    ],
    [
      "SUSE's two GPUs, a list of addresses",
      `[pci]\npassthrough_whitelist = [{"address": "${GPU0}"}, {"address": "${GPU1}"}]\nalias = {"vendor_id": "10de", "name": "a1", "device_type": "type-PCI", "product_id": "1bb0"}\n`,
      [`${GPU0} vfio`, `${GPU1} vfio`],
    ],
    [
      "kayobe's GPUs by ids, an alias a kind",
      '[pci]\ndevice_spec = { "vendor_id": "10de", "product_id": "1bb0" }\nalias = { "name": "p4000", "vendor_id": "10de", "product_id": "1bb0", "device_type": "type-PCI", "numa_policy": "preferred" }\n[filter_scheduler]\nenabled_filters = ComputeFilter,PciPassthroughFilter\n',
      [`${GPU0} vfio`, `${GPU1} vfio`],
    ],
    [
      "TripleO's port by its interface: of its VFs, or itself?",
      '[pci]\npassthrough_whitelist={"devname":"eth4","physical_network":"tenant","trusted":"true"}\n',
      [],
    ],
    [
      "Sunbeam's list: whole, with every id as text",
      `[pci]\ndevice_spec = [{"vendor_id": "144d", "product_id": "a808", "address": "${NVME}", "physical_network": null}]\n`,
      [`${NVME} vfio`],
    ],
    [
      'StarlingX: an address, beside what is its own',
      `[pci]\ndevice_spec = {"address": "${NIC}", "class_id": "020000"}\nreport_in_placement = false\n`,
      [`${NIC} vfio`],
    ],
    ['a slot by a pattern', '[pci]\ndevice_spec = {"address": "*:83:00.*"}\n', [`${GPU0} vfio`, `${AUDIO} vfio`]],
    [
      'a slot by regular expressions',
      '[pci]\ndevice_spec = {"address": {"domain": ".*", "bus": "8[34]", "slot": "00", "function": "[0]"}}\n',
      [`${GPU0} vfio`, `${GPU1} vfio`],
    ],
    [
      'managed by the host (2025.1), with traits',
      '[pci]\ndevice_spec = {"vendor_id": "10de", "product_id": "1bb0", "managed": "no", "traits": "CUSTOM_P4000", "resource_class": "gpu"}\nreport_in_placement = true\n',
      [`${GPU0} vfio`, `${GPU1} vfio`],
    ],
    [
      'a list over several lines, of an Ansible role',
      `[pci]\ndevice_spec = [{"address": "${NVME}"},\n  {"address": "${NIC}"}]\n`,
      [`${NIC} vfio`, `${NVME} vfio`],
    ],
    [
      'VFs that are not here: nothing of their PF',
      '[pci]\ndevice_spec = {"vendor_id": "8086", "product_id": "10ca", "physical_network": "physnet2"}\n',
      [],
    ],
    [
      'a PF by its own ids',
      '[pci]\ndevice_spec = {"vendor_id": "8086", "product_id": "10c9", "physical_network": "physnet1"}\n',
      [`${PF} vfio`],
    ],
    ['an alias alone', '[pci]\nalias = {"vendor_id": "10de", "product_id": "1bb0", "name": "gpu"}\n', []],
    ['none', '[DEFAULT]\ndebug = true\n', []],
  ])('%s', (_, text, wishes) => {
    expect(said(run(start({ 'etc/nova/nova.conf': text }), 'nova.conf'))).toEqual(wishes.sort());
  });
});

test('a PF that a device_spec takes with its VFs is told, and left', () => {
  const h = start({ 'etc/nova/nova.conf': `[pci]\ndevice_spec = {"address": "${PF}", "physical_network": "p"}\n` });
  expect(run(h, 'nova.conf').left).toMatchObject([
    { object: PF, reason: expect.stringContaining('takes it and its VFs') },
  ]);
});

test('--write keeps them, -n does not; a second import has nothing to add', () => {
  const h = start({ 'etc/rc.local': CHARM });
  const { changed, toml } = run(h, 'rc.local');
  expect([changed, h.names('etc/hostdev')]).toEqual([false, []]);
  expect(run(h, 'rc.local', '--write', '-n').changed).toBe(false);
  expect(h.names('etc/hostdev')).toEqual([]);
  expect(run(h, 'rc.local', '--write').changed).toBe(true);
  expect(h.bytes('etc/hostdev/conf.d/90-kept.toml')).toContain(toml);
  const before = h.bytes('etc/hostdev/conf.d/90-kept.toml');
  run(h, 'rc.local', '--write');
  expect(h.bytes('etc/hostdev/conf.d/90-kept.toml')).toBe(before);
});

test('what the host stands on is left, whatever the file says', () => {
  const h = start({
    [`etc/driverctl.d/pci-${NVME}`]: 'vfio-pci\n',
    'proc/self/mountinfo': '21 1 259:1 / / rw - ext4 /dev/nvme0n1 rw\n',
    [`sys/devices/pci0000:23/${NVME}/nvme/nvme0/nvme0n1/dev`]: '259:1\n',
  });
  h.link('sys/class/block/nvme0n1', `../../devices/pci0000:23/${NVME}/nvme/nvme0/nvme0n1`);
  const found = run(h, 'driverctl');
  expect(said(found)).toEqual([]);
  expect(found.left).toMatchObject([{ object: NVME, reason: expect.stringContaining('mounted') }]);
});
