/** `doctor` on static hosts: every finding of the table is there where it should be, and only there. */
import { chmodSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { type Diagnosis, diagnose } from '../../../src/actions/doctor.ts';
import { explainDevice } from '../../../src/actions/groupWhy.ts';
import { FsReader } from '../../../src/addon/fsReader.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { HOOK_DEFAULTS } from '../../../src/config/hookDefaults.ts';
import { notSeen } from '../../../src/doctor/hooks.ts';
import { Look } from '../../../src/doctor/look.ts';
import { FINDINGS, type Finding, type FindingId } from '../../../src/doctor/table.ts';
import { installHook } from '../../../src/hook/install.ts';
import { Host } from '../../../src/host/host.ts';
import { scanInventory } from '../../../src/pci/inventory.ts';
import { book, holdOf } from '../../mock/booked.ts';
import { loadDump, RELEASE, StaticHost, type Tree, type TreeDevice } from '../../mock/tree.ts';
import { cpuMs } from '../../patience.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

const GPU: TreeDevice = { address: '0000:01:00.0', ids: '10de:1bb0', class: '030000', group: 1, driver: 'nouveau' };
const GPU2: TreeDevice = { ...GPU, address: '0000:02:00.0', group: 2 };
const NIC: TreeDevice = { address: '0000:03:00.0', ids: '8086:1521', group: 3, driver: 'igb' };
const VF: TreeDevice = { address: '0000:03:10.0', ids: '15b3:101e', group: 4 };

const NOUVEAU = 'alias pci:v000010DEd*sv*sd*bc03sc*i* nouveau';
const IGB = 'alias pci:v00008086d00001521sv*sd*bc*sc*i* igb';
const IXGBE = 'alias pci:v00008086d000010FBsv*sd*bc*sc*i* ixgbe';
const MLX5 = 'alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci';

const program = (h: StaticHost) => ({ native: h.path('native'), nodes: [h.path('native')], cli: h.path('native') });

/** A host where everything is well. */
function healthy(more: Partial<Tree> = {}): StaticHost {
  const h = new StaticHost({
    devices: [GPU, NIC],
    aliases: [NOUVEAU, IGB, IXGBE, MLX5],
    ...more,
    files: {
      'proc/interrupts': ' 24: 0 IR-PCI-MSI-0000:03:00.0 0-edge eth0\n',
      'proc/cmdline': 'root=/dev/sda1 intel_iommu=on iommu=pt\n',
      'proc/iomem': '00000000-ffffffff : PCI Bus 0000:00\n',
      'proc/stat': 'cpu 1\nbtime 1700000000\n',
      'sys/kernel/security/lockdown': '[none] integrity confidentiality\n',
      'sys/firmware/acpi/tables/DMAR': new Uint8Array(48).fill(1),
      ...Object.fromEntries(['vfio', 'vfio_iommu_type1', 'vfio_pci'].map((m) => [`sys/module/${m}/refcnt`, '0\n'])),
      native: 'usage: hostdev-native hook',
      ...more.files,
    },
  });
  hosts.push(h);
  // It stands for node too, and libvirt's hook starts programs only.
  chmodSync(h.path('native'), 0o755);
  installHook(new Host(h.root, loadNative()), program(h), false, HOOK_DEFAULTS, null);
  libvirtd(h, Math.floor(Date.now() / 1000) - 1700000000 + 3600);
  return h;
}

/** libvirtd runs; begun so many seconds after boot. */
function libvirtd(h: StaticHost, seconds: number, caps = '000001ffffffffff', memlock = '8388608'): void {
  h.file('proc/123/comm', 'libvirtd\n');
  h.file('proc/123/stat', `123 (libvirtd) S ${'0 '.repeat(18)}${seconds * 100} 0 0\n`);
  h.file('proc/123/status', `Name:\tlibvirtd\nCapEff:\t${caps}\n`);
  h.file(
    'proc/123/limits',
    `Limit                     Soft Limit           Hard Limit           Units     \nMax locked memory         ${memlock}              ${memlock}              bytes     \n`,
  );
}

const seen = new Set<FindingId>();

async function ill(h: StaticHost): Promise<Diagnosis> {
  const d = await diagnose(new Host(h.root, loadNative()), program(h));
  for (const f of d.findings) {
    seen.add(f.id);
    expect(f.severity).toBe(FINDINGS[f.id].severity);
    expect(f.object).not.toBe('');
    expect(f.cause).not.toBe('');
    for (const x of f.fix)
      expect(x).toEqual({
        tool: expect.any(String),
        where: expect.stringMatching(/./),
        line: expect.stringMatching(/./),
        present: expect.any(Boolean),
        after: x.after,
      });
  }
  return d;
}

const ids = (d: Diagnosis): FindingId[] => d.findings.map((f) => f.id);
const only = (d: Diagnosis, id: FindingId): Finding => {
  const found = d.findings.filter((f) => f.id === id);
  expect(ids(d)).toContain(id);
  return found[0] as Finding;
};
const lines = (f: Finding): string => f.fix.map((x) => `${x.tool} ${x.where} ${x.line}`).join('\n');

test('a host where all is well: nothing found, all measured, exit 0', async () => {
  const h = healthy();
  const before = h.hash();
  const d = await ill(h);
  expect(d).toMatchObject({ findings: [], not_measured: [] });
  expect(h.hash()).toBe(before);
});

describe('IOMMU', () => {
  const without = (cmdline: string, files: Tree['files'] = {}): StaticHost => {
    const h = healthy({ devices: [{ address: '0000:01:00.0', ids: '10de:1bb0', class: '030000' }], files });
    h.file('proc/cmdline', `${cmdline}\n`);
    return h;
  };

  test('the firmware shows none', async () => {
    const h = without('root=/dev/sda1 intel_iommu=on');
    h.remove('sys/firmware/acpi/tables/DMAR');
    const f = only(await ill(h), 'iommu-firmware');
    expect(f.cause).toContain('DMAR, IVRS, IORT and VIOT');
    expect(lines(f)).toContain('VT-d');
    h.remove('sys/firmware');
    expect((await ill(h)).not_measured).toContainEqual({
      object: '/sys/firmware/acpi/tables',
      reason: expect.stringContaining('not measured'),
    });
  });

  test('the kernel does not use it: intel_iommu=on, in the files that are there', async () => {
    const f = only(
      await ill(without('root=/dev/sda1', { 'etc/default/grub': 'A=1\nGRUB_CMDLINE_LINUX_DEFAULT="quiet splash"\n' })),
      'iommu-kernel',
    );
    expect(f.cause).toContain('DMAR (Intel VT-d)');
    expect(f.fix[0]).toMatchObject({
      tool: 'grub',
      where: '/etc/default/grub:2',
      line: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet splash intel_iommu=on iommu=pt"',
      present: true,
    });
    const amd = without('root=/dev/sda1', { 'sys/firmware/acpi/tables/IVRS': 'x' });
    amd.remove('sys/firmware/acpi/tables/DMAR');
    expect(only(await ill(amd), 'iommu-kernel').cause).toContain('IVRS (AMD-Vi)');
  });

  test.each(['intel_iommu=off', 'iommu=off', 'amd_iommu=off', 'intel_iommu=sm_on,off'])('%s', async (word) => {
    const d = await ill(without(`root=/dev/sda1 ${word}`, { 'etc/kernel/cmdline': `root=/dev/sda1 ${word} quiet\n` }));
    const f = only(d, 'iommu-cmdline');
    expect(f.cause).toContain(word);
    const line = f.fix.find((x) => x.tool === 'systemd-boot')?.line ?? '';
    expect(line).toMatch(/^root=\/dev\/sda1 .*\bquiet/);
    expect(line).not.toMatch(/off/);
    expect(line).toContain('intel_iommu=on');
  });

  test('groups of platform devices only: no PCI device can be given out', async () => {
    const h = healthy({
      devices: [
        { address: NIC.address, ids: NIC.ids, driver: 'igb' },
        { address: GPU.address, ids: GPU.ids, class: '030000', driver: 'nouveau' },
      ],
    });
    h.file('sys/devices/platform/soc/1000800000.codec/uevent', '');
    h.link('sys/kernel/iommu_groups/0/devices/1000800000.codec', '../../../../devices/platform/soc/1000800000.codec');
    h.folder('sys/class/iommu/1000005100.iommu');
    const f = only(await ill(h), 'iommu-no-pci-group');
    expect(f.severity).toBe('error');
    expect(f.cause).toMatch(
      /no PCI device is in one: they hold 1000800000\.codec; none of the units 1000005100\.iommu/,
    );
    h.folder('sys/class/iommu/virtio0');
    expect(ids(await ill(h))).not.toContain('iommu-no-pci-group');
  });

  test('one device in no group: igfx_off, or what the units leave out', async () => {
    const igpu: TreeDevice = { address: '0000:00:02.0', ids: '8086:9bc5', class: '030000', driver: 'i915' };
    const h = healthy({ devices: [NIC, igpu] });
    expect(only(await ill(h), 'device-no-group')).toMatchObject({
      object: igpu.address,
      cause: expect.stringContaining('none of the units'),
    });
    h.file('proc/cmdline', 'root=/dev/sda1 intel_iommu=on,sm_on,igfx_off iommu=pt\n');
    const f = only(await ill(h), 'device-no-group');
    expect(f.cause).toContain('intel_iommu=on,sm_on,igfx_off');
    expect(f.fix.find((x) => x.tool === 'systemd-boot')?.line).toBe('root=/dev/sda1 intel_iommu=on,sm_on iommu=pt');
  });

  test('no-IOMMU groups', async () => {
    const h = without('root=/dev/sda1');
    h.file('sys/kernel/iommu_groups/0/name', 'vfio-noiommu\n');
    expect(ids(await ill(h))).toContain('iommu-noiommu');
  });

  test('words that do nothing, and an override that does too much', async () => {
    const h = healthy();
    h.file('proc/cmdline', 'amd_iommu=on intel_iommu=on iommu=pt pcie_acs_override=downstream\n');
    h.folder('sys/class/iommu/ivhd0');
    const d = await ill(h);
    expect(d.findings.filter((f) => f.id === 'iommu-unknown-option').map((f) => f.cause.split(' ')[0])).toEqual([
      'amd_iommu=on',
      'intel_iommu=on',
    ]);
    expect(lines(only(d, 'acs-override'))).toContain('systemd-boot /etc/kernel/cmdline');
  });

  test('translated host DMA, which iommu=pt spares', async () => {
    const h = healthy();
    h.file('proc/cmdline', 'intel_iommu=on\n');
    expect(only(await ill(h), 'iommu-translated-host').cause).toContain('2 devices');
    for (const g of [1, 3]) h.file(`sys/kernel/iommu_groups/${g}/type`, 'identity\n');
    expect(ids(await ill(h))).toEqual([]);
  });

  test('a direct reserved region', async () => {
    const h = healthy();
    h.file('sys/kernel/iommu_groups/3/reserved_regions', '0x00000000bdf6f000 0x00000000bdf7efff direct\n');
    expect(only(await ill(h), 'reserved-direct')).toMatchObject({
      object: 'IOMMU group 3',
      cause: expect.stringContaining(NIC.address),
    });
  });
});

describe('interrupts', () => {
  const PLAIN = ' 24: 0 PCI-MSI-0000:03:00.0 0-edge eth0\n';

  test('not remapped: the word that does it, or the firmware', async () => {
    const h = healthy({ files: { 'proc/interrupts': PLAIN } });
    h.file('proc/cmdline', 'intel_iommu=on iommu=pt intremap=off\n');
    const f = only(await ill(h), 'interrupt-remapping');
    expect(f.cause).toContain('intremap=off');
    expect(f.fix.find((x) => x.tool === 'modprobe.d')).toMatchObject({
      line: 'options vfio_iommu_type1 allow_unsafe_interrupts=1',
      after: expect.stringContaining('trusted'),
    });
    h.file('proc/cmdline', 'intel_iommu=on iommu=pt\n');
    h.file('sys/firmware/acpi/tables/DMAR', new Uint8Array(48));
    expect(only(await ill(h), 'interrupt-remapping').cause).toContain('DMAR table');
  });

  test('a virtio-iommu has none', async () => {
    const h = healthy({
      devices: [NIC, { address: '0000:00:01.0', ids: '1af4:1057', class: '080600', driver: 'virtio-pci' }],
      files: { 'proc/interrupts': PLAIN },
    });
    h.folder('sys/class/iommu/0000:00:01.0');
    const f = only(await ill(h), 'interrupt-remapping');
    expect(f.cause).toContain('virtio-iommu');
    expect(lines(f)).toContain("intremap='on'");
  });

  test('allow_unsafe_interrupts: a risk where needed, a needless one elsewhere', async () => {
    const h = healthy({
      files: { 'proc/interrupts': PLAIN, 'sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts': 'Y\n' },
    });
    expect(only(await ill(h), 'unsafe-interrupts').cause).toContain('trusted');
    h.file('proc/interrupts', ' 9: 0 IR-IO-APIC 9-fasteoi acpi\n');
    h.file('proc/cmdline', 'intel_iommu=on iommu=pt vfio_iommu_type1.allow_unsafe_interrupts=1\n');
    const f = only(await ill(h), 'unsafe-interrupts-needless');
    expect(f.fix.find((x) => x.tool === 'systemd-boot')?.line).toBe('intel_iommu=on iommu=pt');
  });

  test('set by hand it is taken back by an option, and by the line that set it where there is one', async () => {
    const h = healthy({ files: { 'sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts': 'Y\n' } });
    expect(lines(only(await ill(h), 'unsafe-interrupts-needless'))).toContain(
      'options vfio_iommu_type1 allow_unsafe_interrupts=0',
    );
    h.remove('sys/module/vfio_iommu_type1/parameters');
    h.file('etc/modprobe.d/v.conf', '\noptions vfio_iommu_type1 allow_unsafe_interrupts=1\n');
    expect(only(await ill(h), 'unsafe-interrupts-needless')).toMatchObject({
      object: '/etc/modprobe.d/v.conf:2',
      fix: [
        {
          tool: 'modprobe.d',
          where: '/etc/modprobe.d/v.conf:2',
          line: '# options vfio_iommu_type1 allow_unsafe_interrupts=1',
        },
      ],
    });
    h.file('etc/modprobe.d/v.conf', 'options vfio_iommu_type1 allow_unsafe_interrupts=0\n');
    expect(ids(await ill(h))).toEqual([]);
  });

  test('without proc/interrupts: what must be off for another reason', async () => {
    const h = healthy();
    h.remove('proc/interrupts');
    h.file('sys/class/iommu/dmar0/intel-iommu/ecap', 'f00f42\n');
    expect(only(await ill(h), 'interrupt-remapping').cause).toContain('dmar0 can remap no interrupts');
    h.file('sys/class/iommu/dmar1/intel-iommu/ecap', 'f00f4a\n');
    expect(ids(await ill(h))).toEqual([]);
    h.file('proc/cmdline', 'iommu=pt nointremap\n');
    expect(only(await ill(h), 'interrupt-remapping').cause).toContain('nointremap');
  });

  test("a driver's own text behind the chip proves nothing", async () => {
    const h = healthy({ files: { 'proc/interrupts': ' 24: 0 PCI-MSI-0000:03:00.0 0-edge   IR-eth ITS-x\n' } });
    expect(ids(await ill(h))).toEqual(['interrupt-remapping']);
  });

  test('what cannot be told is not measured', async () => {
    const h = healthy();
    h.remove('proc/interrupts');
    const d = await ill(h);
    expect(d.findings).toEqual([]);
    expect(d.not_measured).toEqual([
      { object: 'interrupt remapping', reason: expect.stringContaining('proc/interrupts') },
    ]);
  });
});

describe('modules', () => {
  test.each([
    ['ID=ubuntu\nID_LIKE=debian\n', /^apt-get install linux-modules-extra-6\.12\.0-static$/],
    ['ID=debian\n', /^apt-get install linux-image-/],
    ['ID="rocky"\nID_LIKE="rhel centos fedora"\n', /^dnf install kernel-modules-6\.12\.0-static$/],
    ['ID="opensuse-leap"\n', /^zypper install kernel-default$/],
    ['ID=alpine\n', /^apk add linux-lts$/],
    ['ID=endeavouros\nID_LIKE=arch\n', /^pacman -S linux$/],
    ['ID=unheard-of\n', / \|\| /],
  ])('modules that a small kernel lacks: %j', async (release, command) => {
    const h = healthy({ files: { 'etc/os-release': release } });
    h.remove('sys/module/vfio_pci');
    h.file(`lib/modules/${RELEASE}/modules.dep`, 'kernel/drivers/vfio/vfio.ko:\n');
    expect(only(await ill(h), 'vfio-missing').fix[0]?.line).toMatch(command);
  });

  test('missing, or there and not loaded; built in counts as there', async () => {
    const h = healthy();
    h.remove('sys/module/vfio_pci');
    h.remove('sys/module/vfio');
    expect((await ill(h)).not_measured.map((u) => u.object)).toContain('VFIO modules');
    h.file(`lib/modules/${RELEASE}/modules.dep`, 'kernel/drivers/vfio/vfio-mdev.ko.xz:\n');
    expect(only(await ill(h), 'vfio-missing').cause).toContain('vfio, vfio_pci');
    h.file(`lib/modules/${RELEASE}/modules.builtin`, 'kernel/drivers/vfio/vfio.ko\n');
    h.file(
      `lib/modules/${RELEASE}/modules.dep`,
      'kernel/drivers/vfio/pci/vfio-pci.ko.zst: kernel/drivers/vfio/vfio.ko\n',
    );
    const f = only(await ill(h), 'vfio-not-loaded');
    expect(lines(f)).toContain(
      'dracut /etc/dracut.conf.d/90-hostdev.conf force_drivers+=" vfio vfio_iommu_type1 vfio_pci "',
    );
    expect(lines(f)).toContain('initramfs-tools /etc/initramfs-tools/modules vfio\nvfio_iommu_type1\nvfio_pci');
  });

  test.each([
    ['etc/modprobe.d/a.conf', 'blacklist vfio-pci\n'],
    ['etc/modprobe.d/a.conf', '# x\ninstall vfio_pci /bin/false\n'],
    ['usr/lib/modprobe.d/a.conf', 'install \\\n vfio_pci :\n'],
  ])('blacklisted in %s', async (file, text) => {
    const h = healthy({ files: { [file]: text, [`lib/modules/${RELEASE}/modules.dep`]: 'k/vfio-pci.ko:\n' } });
    h.remove('sys/module/vfio_pci');
    const f = only(await ill(h), 'vfio-blacklisted');
    expect(f.object).toMatch(new RegExp(`^/${file}:\\d+$`));
    expect(f.fix[0]?.line).toMatch(/^# (?:blacklist|install)/);
    // A file of the same name in an earlier folder hides it, as an empty one does to switch it off.
    if (file.startsWith('usr/')) {
      h.file('etc/modprobe.d/a.conf', '');
      expect(ids(await ill(h))).not.toContain('vfio-blacklisted');
    }
  });

  test('an install command that does something is none of our business', async () => {
    const h = healthy({
      files: {
        'etc/modprobe.d/a.conf': 'install vfio_pci /sbin/modprobe --ignore-install vfio_pci\n',
        [`lib/modules/${RELEASE}/modules.dep`]: 'k/vfio-pci.ko:\n',
      },
    });
    h.remove('sys/module/vfio_pci');
    expect(ids(await ill(h))).toEqual(['vfio-not-loaded']);
  });

  test('variant drivers: present, unused, blacklisted', async () => {
    const h = healthy({
      devices: [
        NIC,
        VF,
        { ...VF, address: '0000:03:10.1', group: 5, driver: 'vfio-pci', vfio: true, override: 'vfio-pci\n' },
      ],
    });
    h.file('etc/driverctl.d/pci-0000:03:10.1', 'vfio-pci\n');
    h.file('proc/cmdline', 'intel_iommu=on iommu=pt modprobe.blacklist=mlx5_vfio_pci\n');
    const d = await ill(h);
    expect(ids(d).sort()).toEqual(['override-pinned', 'variant-blacklisted', 'variant-present', 'variant-unused']);
    expect(only(d, 'variant-present')).toMatchObject({
      object: 'mlx5_vfio_pci',
      cause: expect.stringContaining('0000:03:10.0, 0000:03:10.1'),
    });
    expect(only(d, 'variant-unused').object).toBe('0000:03:10.1');
  });

  test('the denylist', async () => {
    const h = healthy({ devices: [{ ...NIC, ids: '8086:37c8' }] });
    expect(only(await ill(h), 'denylist').cause).toContain('QuickAssist');
    h.file('sys/module/vfio_pci/parameters/disable_denylist', 'Y\n');
    expect(ids(await ill(h))).toEqual([]);
  });

  test('ids=: two alike, a stale one, one that is not followed', async () => {
    const h = healthy({
      devices: [GPU, { ...GPU2, driver: 'vfio-pci', vfio: true, override: 'vfio-pci\n' }, NIC],
      files: {
        'etc/initramfs-tools/modules': '# early\npci_stub ids=10de:1bb0\n',
        'etc/modprobe.d/vfio.conf': 'options vfio-pci ids=1002:67df,1002:AAF0 disable_vga=1\n',
        'etc/driverctl.d/pci-0000:02:00.0': 'vfio-pci\n',
      },
    });
    const d = await ill(h);
    const f = only(d, 'ids-option');
    expect(f.object).toBe('/etc/initramfs-tools/modules:2');
    expect(f.cause).toMatch(/0000:01:00\.0, 0000:02:00\.0; of 10de:1bb0 there are several/);
    expect(f.fix[0]).toMatchObject({ tool: 'initramfs-tools', line: '# pci_stub ids=10de:1bb0' });
    expect(only(d, 'ids-stale').object).toBe('/etc/modprobe.d/vfio.conf:1');
    expect(only(d, 'ids-not-followed')).toMatchObject({
      object: GPU.address,
      cause: expect.stringContaining('on nouveau'),
    });
  });

  test.each([
    [
      'etc/modprobe.d/v.conf',
      'options vfio-pci ids=10de:1bb0, 8086:1521 disable_vga=1',
      'options vfio-pci ids=10de:1bb0,8086:1521 disable_vga=1',
    ],
    ['etc/initramfs-tools/modules', 'vfio_pci ids=10de:1bb0 8086:1521', 'vfio_pci ids=10de:1bb0,8086:1521'],
    ['etc/modprobe.d/v.conf', 'options vfio-pci ids= 10de:1bb0,8086:1521', 'options vfio-pci ids=10de:1bb0,8086:1521'],
  ])('ids= with a blank in it: %s: %s', async (file, text, fixed) => {
    const h = healthy({ files: { [file]: `# x\n${text}\n` } });
    const f = only(await ill(h), 'ids-cut-off');
    expect(f.object).toBe(`/${file}:2`);
    expect(f.cause).toMatch(/8086:1521 stands behind a blank, .*ignored/);
    expect(f.cause).toContain('0000:03:00.0 is on igb');
    expect(f.fix).toEqual([expect.objectContaining({ where: `/${file}:2`, line: fixed })]);
    h.file(file, `${fixed}\n`);
    expect(ids(await ill(h))).not.toContain('ids-cut-off');
  });

  test('ids= with a blank on the command line; in quotes it is whole', async () => {
    const h = healthy({ files: { 'etc/modprobe.d/q.conf': 'options vfio-pci ids="10de:1bb0, 8086:1521"\n' } });
    const quoted = await ill(h);
    expect(ids(quoted)).not.toContain('ids-cut-off');
    expect(only(quoted, 'ids-option').cause).toContain(NIC.address);
    h.remove('etc/modprobe.d/q.conf');
    h.file('proc/cmdline', 'iommu=pt vfio-pci.ids=10de:1bb0, 8086:1521 quiet\n');
    const line = only(await ill(h), 'ids-cut-off').fix.find((x) => x.tool === 'systemd-boot')?.line;
    expect(line).toBe('iommu=pt vfio-pci.ids=10de:1bb0,8086:1521 quiet');
  });

  test.each<[string, Record<string, string>, string, string]>([
    [
      'two files: the later name',
      {
        'etc/modprobe.d/a.conf': 'options vfio-pci ids=10de:1bb0\n',
        'etc/modprobe.d/b.conf': 'options vfio_pci ids=8086:1521\n',
      },
      '/etc/modprobe.d/a.conf:1',
      '/etc/modprobe.d/b.conf:1',
    ],
    [
      'two lines of one file',
      { 'etc/modprobe.d/a.conf': 'options vfio-pci ids=10de:1bb0\noptions vfio-pci ids=8086:1521 disable_vga=1\n' },
      '/etc/modprobe.d/a.conf:1',
      '/etc/modprobe.d/a.conf:2',
    ],
    [
      'a file and the command line',
      {
        'etc/modprobe.d/z.conf': 'options vfio-pci ids=10de:1bb0\n',
        'proc/cmdline': 'vfio-pci.ids=8086:1521 iommu=pt\n',
      },
      '/etc/modprobe.d/z.conf:1',
      '/proc/cmdline',
    ],
    [
      'a file and what the initramfs loads first',
      {
        'etc/modprobe.d/z.conf': 'options pci-stub ids=10de:1bb0\n',
        'etc/initramfs-tools/modules': 'pci_stub ids=8086:1521\n',
      },
      '/etc/modprobe.d/z.conf:1',
      '/etc/initramfs-tools/modules:1',
    ],
  ])('several ids= for one module count as one, the last: %s', async (_name, files, lost, counts) => {
    const d = await ill(healthy({ files }));
    const f = only(d, 'ids-overridden');
    expect(f.object).toBe(lost);
    expect(f.cause).toContain(counts);
    expect(f.cause).toContain('10de:1bb0 is not taken: 0000:01:00.0 is on nouveau');
    // What is lost is told once, and not as if it counted.
    expect(d.findings.filter((x) => x.id === 'ids-option').map((x) => x.object)).toEqual([counts]);
    expect(d.findings.filter((x) => x.id === 'ids-not-followed').map((x) => x.object)).toEqual(['0000:03:00.0']);
  });

  test('ids= twice in one line, the same ids twice, and two modules', async () => {
    const twice = healthy({ files: { 'etc/modprobe.d/a.conf': 'options vfio-pci ids=10de:1bb0 ids=8086:1521\n' } });
    expect(only(await ill(twice), 'ids-overridden').cause).toContain('10de:1bb0 is not taken');
    const same = 'options vfio-pci ids=10de:1bb0\n';
    const both = await ill(healthy({ files: { 'etc/modprobe.d/a.conf': same, 'etc/modprobe.d/b.conf': same } }));
    expect(only(both, 'ids-overridden').cause).not.toContain('not taken');
    const two = healthy({
      files: { 'etc/modprobe.d/a.conf': 'options vfio-pci ids=10de:1bb0\noptions pci-stub ids=8086:1521\n' },
    });
    expect(ids(await ill(two))).not.toContain('ids-overridden');
  });

  test('the boot display among two alike: named, and never bound by the advice', async () => {
    const boot = { ...GPU, driver: 'vfio-pci', vfio: true, attributes: { boot_vga: '1\n' } };
    const sound = { ...boot, address: '0000:01:00.1', ids: '10de:10f0', class: '040300', attributes: {} };
    const h = healthy({
      devices: [boot, sound, { ...boot, address: GPU2.address, group: 2, attributes: { boot_vga: '0\n' } }, NIC],
      files: { 'etc/modprobe.d/v.conf': 'options vfio-pci ids=10de:1bb0,10de:10f0\n' },
    });
    const d = await ill(h);
    const f = only(d, 'ids-option');
    expect(f.cause).toContain(`${boot.address} is the boot display`);
    expect(lines(f)).toContain(`hostdev bind ${GPU2.address}`);
    for (const one of d.findings) expect(lines(one)).not.toMatch(/hostdev bind [^\n]*0000:01:00/);
    const byId = d.findings.find((o) => o.id === 'bound-by-id' && o.object === boot.address);
    expect(lines(byId as Finding)).toContain(`hostdev unbind --to-host ${boot.address}`);
  });

  test('the advice binds nothing that a guard keeps for the host', async () => {
    const h = healthy({
      net: { eth0: NIC.address },
      files: { 'etc/modprobe.d/v.conf': 'options vfio-pci ids=10de:1bb0,8086:1521\n' },
    });
    h.file(
      'proc/net/route',
      'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n',
    );
    const bind = only(await ill(h), 'ids-option').fix.find((x) => x.line.startsWith('hostdev bind'));
    expect(bind).toMatchObject({
      line: 'hostdev bind 0000:01:00.0',
      after: expect.stringMatching(/0000:03:00\.0 is left to the host: .*default route/),
    });
  });

  test('ids that came too late: each device with its driver, and the way on', async () => {
    const h = healthy({ files: { 'etc/modprobe.d/v.conf': 'options vfio-pci ids=10de:1bb0,8086:1521\n' } });
    const f = only(await ill(h), 'ids-not-followed');
    expect(f.cause).toMatch(/0000:01:00\.0 is on nouveau, 0000:03:00\.0 is on igb/);
    expect(lines(f)).toContain('hostdev bind 0000:01:00.0 0000:03:00.0');
  });

  test('files in modprobe.d without .conf, where they are configuration and no backup', async () => {
    const h = healthy({
      files: {
        'etc/modprobe.d/vfio': '# mine\noptions vfio-pci ids=10de:1bb0\n',
        'etc/modprobe.d/README': 'See modprobe.d(5).\n',
        'etc/modprobe.d/old.conf.bak': 'blacklist igb\n',
        'etc/dracut.conf.d/x.conf': '',
        'usr/lib/modprobe.d/other': 'blacklist igb\n',
      },
    });
    h.folder('etc/modprobe.d/folder');
    const d = await ill(h);
    expect(ids(d)).toEqual(['modprobe-ignored']);
    expect(only(d, 'modprobe-ignored')).toMatchObject({
      object: '/etc/modprobe.d/vfio',
      cause: expect.stringContaining('"options vfio-pci ids=10de:1bb0" in line 2'),
      fix: [{ line: expect.stringMatching(/^mv .*vfio .*vfio\.conf$/), after: 'then dracut -f; then reboot' }],
    });
  });

  test.each([
    ['etc/modules-load.d/v.conf', 'vfio_virqfd', '# vfio_virqfd'],
    ['etc/initramfs-tools/modules', 'vfio-virqfd', '# vfio-virqfd'],
    ['etc/dracut.conf.d/v.conf', 'force_drivers+=" vfio vfio_virqfd vfio_pci "', 'force_drivers+=" vfio vfio_pci "'],
    ['etc/mkinitcpio.conf', 'MODULES=(vfio_pci vfio_virqfd)', 'MODULES=(vfio_pci )'],
  ])('a module that this kernel has no more: %s', async (file, text, fixed) => {
    const h = healthy({ files: { [file]: `${text}\nvfio\n` } });
    const f = only(await ill(h), 'module-gone');
    expect(f.object).toBe(`/${file}:1`);
    expect(f.fix[0]?.line).toBe(fixed);
    h.file('proc/sys/kernel/osrelease', '6.1.0-13-amd64\n');
    h.file('lib/modules/6.1.0-13-amd64/modules.alias', '');
    expect(ids(await ill(h))).not.toContain('module-gone');
  });

  test('blacklists: of no use, of a GPU, of a host driver; what drives no PCI device is passed over', async () => {
    const h = healthy({
      files: {
        'etc/modprobe.d/b.conf': 'blacklist ixgbe\nblacklist igb\nblacklist pcspkr\nblacklist nvidiafb\n',
        'usr/lib/modprobe.d/dist.conf': 'blacklist ixgbe\n',
      },
    });
    h.file('proc/cmdline', 'intel_iommu=on iommu=pt modprobe.blacklist=nouveau\n');
    const d = await ill(h);
    expect(only(d, 'blacklist-host-driver')).toMatchObject({
      object: '/etc/modprobe.d/b.conf:2',
      cause: expect.stringContaining(NIC.address),
    });
    expect(only(d, 'blacklist-gpu')).toMatchObject({
      object: '/proc/cmdline',
      cause: expect.stringContaining(GPU.address),
    });
    expect(d.findings.filter((f) => f.id === 'blacklist-unneeded').map((f) => f.object)).toEqual([
      '/etc/modprobe.d/b.conf:1',
      '/etc/modprobe.d/b.conf:4',
    ]);
    expect(ids(d)).toHaveLength(4);
  });

  test('a softdep is of use with ids= only', async () => {
    const h = healthy({ files: { 'etc/modprobe.d/s.conf': 'softdep nouveau pre: vfio-pci\n' } });
    expect(only(await ill(h), 'softdep-unneeded').object).toBe('/etc/modprobe.d/s.conf:1');
    h.file('etc/modprobe.d/i.conf', 'options vfio-pci ids=dead:beef\n');
    expect(ids(await ill(h))).toEqual(['ids-stale']);
    // The script of an install line binds what it wants, and must come before the host driver.
    h.file('etc/modprobe.d/i.conf', 'install vfio-pci /usr/local/bin/override.sh\n');
    expect(ids(await ill(h))).toEqual([]);
  });
});

describe('leftovers', () => {
  test("the charm guide's rc.local", async () => {
    const h = healthy();
    h.file(
      'etc/rc.local',
      'vfiobind() {\n    dev="$1"\n# not this new_id\n    echo $vendor $device > /sys/bus/pci/drivers/vfio-pci/new_id\n}\nvfiobind 0000:83:00.0\n',
    );
    chmodSync(h.path('etc/rc.local'), 0o755);
    const f = only(await ill(h), 'new-id-script');
    expect(f.object).toBe('/etc/rc.local:4');
    expect(f.fix[0]).toMatchObject({ where: '/etc/rc.local:1-2', line: '# vfiobind() {\n#     dev="$1"' });
    expect(f.fix[1]).toMatchObject({
      where: '/etc/rc.local:4-6',
      line: '#     echo $vendor $device > /sys/bus/pci/drivers/vfio-pci/new_id\n# }\n# vfiobind 0000:83:00.0',
    });
    // Its devices are not of this host.
    expect(f.fix[2]).toMatchObject({
      line: 'hostdev bind ADDRESS…',
      after: expect.stringContaining('a reboot undoes it'),
    });
    expect(f.cause).not.toContain('not executable');
    chmodSync(h.path('etc/rc.local'), 0o644);
    expect(only(await ill(h), 'new-id-script').cause).toContain('not executable');
  });

  test.each([
    ['its addresses', 'bindit 0000:01:00.0\nbindit 03:00.0\n', '0000:01:00.0 0000:03:00.0'],
    ['the ids that it writes', 'echo 8086 1521 > /sys/bus/pci/drivers/vfio-pci/new_id\n', '0000:03:00.0'],
    ["libvirt's name", 'virsh nodedev-detach pci_0000_03_00_0\n', '0000:03:00.0'],
  ])('the devices that a script meant are named by %s', async (_name, line, wanted) => {
    const h = healthy();
    h.file('etc/rc.local', `#!/bin/sh\nbindit() {\n  echo "$1" > /sys/bus/pci/drivers/vfio-pci/new_id\n}\n${line}`);
    const { fix } = only(await ill(h), 'new-id-script');
    expect(fix.at(-1)?.line).toBe(`hostdev bind ${wanted}`);
  });

  test.each([
    ['etc/local.d/vfio.start', '#!/bin/sh\n'],
    ['etc/cron.d/vfio', '@reboot root '],
    ['var/spool/cron/crontabs/root', '@reboot '],
    ['boot/config/go', '#!/bin/bash\n/usr/local/sbin/emhttp\n'],
    ['etc/init.d/boot.local', '#!/bin/sh\n'],
  ])('what runs at boot in other places: %s', async (file, before) => {
    const h = healthy();
    h.file(file, `${before}echo 10de 1bb0 > /sys/bus/pci/drivers/vfio-pci/new_id\n`);
    const f = only(await ill(h), 'new-id-script');
    expect(f.object).toMatch(new RegExp(`^/${file}:\\d$`));
    expect(f.cause).not.toContain('not executable');
    expect(f.fix[0]?.line).toMatch(/^# .*new_id$/);
    expect(f.fix[1]?.line).toBe('hostdev bind 0000:01:00.0');
  });

  test('an override that a script sets at boot is nobody’s leftover, unless the script means other devices', async () => {
    const override = (): StaticHost =>
      healthy({ devices: [NIC, { ...GPU, driver: 'vfio-pci', override: 'vfio-pci\n', vfio: true }] });
    const loop = '#!/bin/sh\nfor i in /sys/bus/pci/devices/*; do echo vfio-pci > "$i/driver_override"; done\n';
    const installed = override();
    installed.file('etc/modprobe.d/v.conf', 'install vfio-pci /sbin/vfio-pci-override.sh\n');
    installed.file('sbin/vfio-pci-override.sh', loop);
    expect(only(await ill(installed), 'override-pinned').cause).toContain('/sbin/vfio-pci-override.sh:2');
    const named = override();
    named.file('etc/rc.local', '#!/bin/sh\necho vfio-pci > /sys/bus/pci/devices/0000:03:00.0/driver_override\n');
    expect(ids(await ill(named))).toContain('override-leftover');
    named.file('etc/rc.local', '#!/bin/sh\necho vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override\n');
    expect(ids(await ill(named))).toContain('override-pinned');
    // A command that nothing starts at boot keeps no override.
    const tool = override();
    tool.file('usr/local/sbin/driverctl', loop);
    expect(ids(await ill(tool))).toContain('override-leftover');
    tool.file('etc/systemd/system/gpu.service', '[Service]\nExecStart=/usr/local/sbin/driverctl load\n');
    expect(ids(await ill(tool))).toContain('override-pinned');
  });

  test('a script of another language, or that cannot be told apart, is switched off as a whole', async () => {
    const h = healthy();
    for (const text of ['#!/usr/bin/python3\nopen("new_id", "w")\n', '#!/bin/sh\nif x\necho > new_id\n']) {
      h.file('usr/local/bin/bind', text);
      const [fix] = only(await ill(h), 'new-id-script').fix;
      expect(fix?.line).toBe(`chmod a-x ${h.path('usr/local/bin/bind')}`);
    }
  });

  test('in udev rules, units and initramfs scripts too; not in a program', async () => {
    const h = healthy();
    h.file(
      'etc/udev/rules.d/10.rules',
      'ACTION=="add", RUN+="/bin/sh -c \'echo 10de 1bb0 > /sys/bus/pci/drivers/vfio-pci/new_id\'"\n',
    );
    h.file(
      'etc/systemd/system/v.service',
      '[Service]\nExecStart=/bin/sh -c "echo x > /sys/bus/pci/drivers/vfio-pci/new_id"\n',
    );
    h.file('usr/local/sbin/tool', '\x7fELF\0 new_id\n');
    expect((await ill(h)).findings.map((f) => f.object)).toEqual([
      '/etc/udev/rules.d/10.rules:1',
      '/etc/systemd/system/v.service:2',
    ]);
  });

  test('bound by a dynamic id', async () => {
    const h = healthy({ devices: [NIC, { ...GPU, driver: 'vfio-pci', vfio: true }, { ...GPU2, driver: 'pci-stub' }] });
    const d = await ill(h);
    expect(d.findings.map((f) => [f.id, f.object])).toEqual([
      ['bound-by-id', GPU.address],
      ['bound-by-id', GPU2.address],
    ]);
    expect(lines(d.findings[0] as Finding)).toContain(
      `echo 10de 1bb0 > ${h.path('sys/bus/pci/drivers/vfio-pci/remove_id')}`,
    );
  });

  test('overrides: nobody owns one; the books, driverctl or udev own others', async () => {
    const h = healthy({ devices: [{ ...NIC, override: 'vfio-pci\n' }] });
    const f = only(await ill(h), 'override-leftover');
    expect(f.cause).toMatch(/"vfio-pci", it is on igb; the next probe/);
    h.file('etc/udev/rules.d/1.rules', 'ATTR{driver_override}="vfio-pci"\n');
    expect(ids(await ill(h))).toEqual(['override-pinned']);
    h.remove('etc/udev');
    const host = new Host(h.root, loadNative());
    const [igb, vfio] = [
      { driver: 'igb', override: null },
      { driver: 'vfio-pci', override: 'vfio-pci' },
    ];
    book(host, NIC.address, 3, holdOf('admin'), igb, vfio);
    expect(ids(await ill(h))).toEqual([]);
    h.file(`run/hostdev/bindings/${NIC.address}.json`, '{');
    expect(only(await ill(h), 'books-unreadable').cause).toContain(NIC.address);
    h.remove(`run/hostdev/bindings/${NIC.address}.json`);
    chmodSync(h.path('run/hostdev/bindings'), 0o775);
    const ours = only(await ill(h), 'run-not-ours');
    expect(ours).toMatchObject({ object: h.path('run/hostdev/bindings'), cause: expect.stringContaining('775') });
  });

  test('a running guest owns what its process has open', async () => {
    const h = healthy({ devices: [{ ...NIC, driver: 'vfio-pci', vfio: true, override: 'vfio-pci\n' }] });
    expect(ids(await ill(h))).toEqual(['override-leftover']);
    h.file('proc/77/comm', 'qemu-system-x86\n');
    const own = h.names(`sys/bus/pci/devices/${NIC.address}/vfio-dev`).map((n) => `devices/${n}`);
    expect(own).toHaveLength(1);
    for (const node of ['3', 'noiommu-3', ...own]) {
      h.link('proc/77/fd/20', `/dev/vfio/${node}`);
      expect(ids(await ill(h)), node).toEqual([]);
    }
  });
});

describe('hooks', () => {
  const D = 'etc/libvirt/hooks/qemu.d';
  const script = (h: StaticHost, name: string, text: string, mode = 0o755): void => {
    h.file(name, text);
    chmodSync(h.path(name), mode);
  };
  const sh = (h: StaticHost): void => script(h, 'bin/sh', '\x7fELF');

  test('not installed; broken; no libvirt at all', async () => {
    const h = healthy();
    chmodSync(h.path(`${D}/90-hostdev`), 0o644);
    expect(lines(only(await ill(h), 'hook-broken'))).toContain('chmod 755');
    chmodSync(h.path(`${D}/90-hostdev`), 0o755);
    h.file('native', 'a newer hostdev-native hook');
    expect(ids(await ill(h))).toEqual(['hook-outdated']);
    script(h, `${D}/90-hostdev`, 'mine\n');
    const foreign = await ill(h);
    expect(ids(foreign)).toEqual(['hook-no-interpreter', 'hook-missing']);
    expect(foreign.findings[1]?.cause).toContain("not hostdev's");
    h.remove(`${D}/90-hostdev`);
    expect(ids(await ill(h))).toEqual(['hook-missing']);
    h.remove('etc/libvirt');
    h.remove('proc/123');
    expect((await ill(h)).not_measured.map((u) => u.object)).toEqual(['libvirt hooks', 'memlock']);
  });

  test('libvirt began before its first hook was there', async () => {
    const h = healthy();
    libvirtd(h, Math.floor(Date.now() / 1000) - 1700000000 - 600);
    const f = only(await ill(h), 'hook-not-seen');
    expect(f).toMatchObject({ object: 'libvirtd (pid 123)', severity: 'error' });
    expect(lines(f)).toContain('systemctl restart libvirtd');
    h.remove('proc/stat');
    const blind = await ill(h);
    expect(ids(blind)).toEqual([]);
    expect(blind.not_measured).toEqual([{ object: 'libvirtd (pid 123)', reason: 'when it was started' }]);
  });

  test('a hook that replaced an older one is no proof: its folder was there before libvirt', () => {
    const look = new Look(new Host('/nowhere', loadNative()), {
      devices: [],
      byAddress: new Map(),
      warnings: [],
      failures: [],
      malformed: [],
    });
    const file = { path: `${D}/90-hostdev`, name: '90-hostdev', executable: true, ctimeMs: 5_000_000 };
    const libvirt = { pid: 1, command: 'virtqemud', startedMs: 2_000_000, memlock: null, mayRaiseLimits: null };
    const found = (bornMs: number | null, f = file) => notSeen(look, [f], [libvirt], bornMs).map((x) => x.id);
    expect(found(1_000_000)).toEqual(['hook-maybe-not-seen']);
    expect(found(4_000_000)).toEqual(['hook-not-seen']);
    expect(found(null)).toEqual(['hook-not-seen']);
    expect(found(null, { ...file, ctimeMs: 1_000_000 })).toEqual([]);
    expect(found(null, { ...file, executable: false })).toEqual([]);
    seen.add('hook-maybe-not-seen');
  });

  test('stray files, files without a mode, sub-folders', async () => {
    const h = healthy();
    sh(h);
    for (const name of ['.hidden', '10-mine~', '10-mine.bak', '20-x.dpkg-old'])
      script(h, `${D}/${name}`, '#!/bin/sh\n');
    script(h, `${D}/30-good`, '#!/bin/sh\n');
    script(h, `${D}/40-idle`, '#!/bin/sh\n', 0o644);
    script(h, `${D}/50-old.bak`, '', 0o644);
    script(h, `${D}/vm/prepare/begin/start.sh`, 'nothing');
    const d = await ill(h);
    expect(d.findings.filter((f) => f.id === 'hook-stray').map((f) => f.object.split('/').at(-1))).toEqual([
      '.hidden',
      '10-mine.bak',
      '10-mine~',
      '20-x.dpkg-old',
    ]);
    expect(only(d, 'hook-not-executable').object).toContain('40-idle');
    expect(ids(d)).toHaveLength(5);
  });

  test.each([
    ['echo no first line\n', /no first line/],
    ['', /empty/],
    ['#!/bin/sh\r\necho\r\n', /carriage return/],
    ['#!/usr/bin/gone\n', /\/usr\/bin\/gone is not there/],
    ['#!/usr/bin/env python3\n', /\/usr\/bin\/env is not there/],
    ['#!sh\n', /no absolute path/],
    ['#!\n', /names no interpreter/],
  ])('a hook that cannot be started: %j', async (text, why) => {
    const h = healthy();
    sh(h);
    script(h, 'etc/libvirt/hooks/qemu', text);
    expect(only(await ill(h), 'hook-no-interpreter').cause).toMatch(why);
  });

  test('an interpreter behind a link, in the root, is found; env looks through PATH', async () => {
    const h = healthy();
    script(h, 'usr/bin/dash', '\x7fELF');
    h.link('bin', '/usr/bin');
    h.link('usr/bin/sh', 'dash');
    script(h, 'etc/libvirt/hooks/qemu', '#! /bin/sh -e\n');
    expect(ids(await ill(h))).toEqual([]);
    script(h, 'usr/bin/env', '\x7fELF');
    script(h, 'etc/libvirt/hooks/qemu', '#!/usr/bin/env python3\n');
    expect(only(await ill(h), 'hook-no-interpreter').cause).toContain('python3');
    h.link('usr/bin/sh', '/usr/bin/sh');
    script(h, 'etc/libvirt/hooks/qemu', '#!/bin/sh\n');
    expect(ids(await ill(h))).toEqual(['hook-no-interpreter']);
  });

  test('another hook that moves devices', async () => {
    const h = healthy();
    sh(h);
    script(h, 'etc/libvirt/hooks/qemu', '#!/bin/sh\n# nodedev-detach\nvirsh nodedev-detach pci_0000_01_00_0\n');
    expect(only(await ill(h), 'hook-writes-driver')).toMatchObject({
      object: expect.stringMatching(/qemu:3$/),
      cause: expect.stringContaining('wait for ever'),
    });
  });

  const MOVES = '#!/bin/sh\necho 0000:01:00.0 > /sys/bus/pci/drivers/nvidia/unbind\n';

  test.each([
    [
      'by the name of the guest',
      'etc/libvirt/hooks/qemu.d/win11/prepare/begin/bind.sh',
      'for f in "$0.d/$1/$2/$3"/*; do "$f"; done',
    ],
    [
      'by an absolute path',
      'usr/local/bin/vfio-startup.sh',
      '[ "$2" = prepare ] && /usr/local/bin/vfio-startup.sh "$1"',
    ],
    ['by an interpreter, in quotes', 'opt/vm/start.sh', 'bash "/opt/vm/start.sh"'],
    ['by a variable', 'etc/libvirt/scripts/a.sh', 'DIR=/etc/libvirt/scripts\n"$DIR/a.sh"'],
    ['beside it', 'etc/libvirt/hooks/stop.sh', 'exec "$(dirname "$0")/stop.sh"'],
    ['through another', 'opt/b.sh', '/opt/a.sh'],
    ['beside where a link leads', 'etc/libvirt/hooks/s/a.sh', '"$(dirname "$(readlink -f "$0")")/s/a.sh"'],
    [
      'by the folder that bash says',
      'etc/libvirt/hooks/a.sh',
      `D="$( cd -- "$( dirname -- "\${BASH_SOURCE[0]}" )" &> /dev/null && pwd )"\n$D/a.sh`,
    ],
    ['from its own folder', 'etc/libvirt/hooks/s/a.sh', 'cd "$(dirname "$0")"\n./s/a.sh'],
    ['as part of itself', 'etc/libvirt/hooks/lib/f.sh', `source "\${0%/*}/lib/f.sh"\nbind_gpu`],
    ['by a variable with a default, and one by way of it', 'opt/vm/x/a.sh', `S="\${S:-/opt/vm}"\nT=$S/x\n"$T/a.sh"`],
    ['by its name alone', 'usr/local/sbin/vfio-startup', 'vfio-startup'],
  ])('a script that another hook starts %s', async (_how, path, text) => {
    const h = healthy();
    sh(h);
    script(h, path, MOVES);
    script(h, 'opt/a.sh', '#!/bin/sh\n/opt/b.sh\n/opt/a.sh\n');
    expect(ids(await ill(h))).toEqual([]);
    script(h, 'etc/libvirt/hooks/qemu', `#!/bin/sh\n${text}\n`);
    const f = only(await ill(h), 'hook-writes-driver');
    expect(f.object).toContain(`/${path}:2`);
    expect(f.cause).toContain('started by ');
  });

  test.each([
    ['gpu-bind', 'etc/systemd/system/gpu-bind.service'],
    ['gpu-bind@win11.service', 'etc/systemd/system/gpu-bind@.service'],
    ['--no-block libvirt-nosleep.service "gpu-bind@$1"', 'usr/lib/systemd/system/gpu-bind@.service'],
  ])('a unit that another hook starts: systemctl start %s', async (name, unit) => {
    const h = healthy();
    sh(h);
    script(h, 'opt/a.sh', MOVES);
    h.file(unit, '[Service]\nType=oneshot\nExecStart=-/opt/a.sh %i\n');
    script(h, 'etc/libvirt/hooks/qemu', `#!/bin/sh\n[ "$2" = prepare ] && systemctl start ${name}\n`);
    const f = only(await ill(h), 'hook-writes-driver');
    expect(f.object).toContain('/opt/a.sh:2');
    expect(f.cause).toContain(unit);
  });

  test('all of the work of a hook script is taken out, and the rest of it stays', async () => {
    const h = healthy();
    sh(h);
    const text = [
      '#!/bin/sh',
      'systemctl stop display-manager',
      'for d in 01_00_0 01_00_1; do',
      '  virsh nodedev-detach pci_0000_$d',
      'done',
      'modprobe vfio-pci',
      'systemctl start other',
      'virsh nodedev-reattach pci_0000_01_00_0',
    ];
    script(h, 'etc/libvirt/hooks/qemu', `${text.join('\n')}\n`);
    const f = only(await ill(h), 'hook-writes-driver');
    expect(f.fix.map((x) => [x.where.replace(/^.*\/qemu/, ''), x.line.split('\n').length])).toEqual([
      [':3-6', 4],
      [':8', 1],
    ]);
  });

  test('what moves no PCI device, what is a comment, a program, or leads out of the root, is none', async () => {
    const h = healthy();
    sh(h);
    script(
      h,
      'usr/local/bin/fb.sh',
      '#!/bin/sh\necho efi-framebuffer.0 > /sys/bus/platform/drivers/efi-framebuffer/unbind\n',
    );
    script(h, 'usr/local/bin/program', '\x7fELF nodedev-detach');
    h.link('usr/local/bin/out.sh', '../../../../../../../../etc/passwd');
    script(
      h,
      'etc/libvirt/hooks/qemu',
      '#!/bin/sh\n/usr/local/bin/fb.sh; /usr/local/bin/program; /usr/local/bin/out.sh; /no/such.sh\n# /opt/moves.sh\n/../../etc/x\n',
    );
    script(h, 'opt/moves.sh', MOVES);
    expect(ids(await ill(h))).toEqual([]);
  });
});

describe('the rest of the host', () => {
  test('a native part that does not load says why', async () => {
    const h = healthy();
    const why = '/x/hostdev.node does not load (file too short)';
    const d = await diagnose(new Host(h.root, new FsReader(why)), program(h));
    const f = only(d, 'native-missing');
    seen.add(f.id);
    expect(f.cause).toContain(why);
  });

  test('memlock: a daemon that may not raise its limit', async () => {
    const h = healthy();
    const later = Math.floor(Date.now() / 1000) - 1700000000 + 3600;
    libvirtd(h, later, '0000000000000000');
    const f = only(await ill(h), 'memlock');
    expect(f.cause).toContain('8388608');
    expect(lines(f)).toContain('LimitMEMLOCK=infinity');
    libvirtd(h, later, '0000000000000000', 'unlimited');
    expect(ids(await ill(h))).toEqual([]);
    h.remove('proc/123/limits');
    expect((await ill(h)).not_measured.map((u) => u.object)).toEqual(['memlock']);
  });

  test('lockdown and secure boot', async () => {
    const h = healthy();
    const boot = new Host(h.root, loadNative()).secureBoot;
    h.file(boot, new Uint8Array([6, 0, 0, 0, 1]));
    expect(ids(await ill(h))).toEqual(['secure-boot']);
    h.file('sys/kernel/security/lockdown', 'none [integrity] confidentiality\n');
    expect(only(await ill(h), 'lockdown-integrity').cause).toContain('secure boot is on');
    h.file('sys/kernel/security/lockdown', 'none integrity [confidentiality]\n');
    h.file('proc/cmdline', 'intel_iommu=on iommu=pt lockdown=confidentiality\n');
    expect(only(await ill(h), 'lockdown-confidentiality').fix.find((x) => x.tool === 'systemd-boot')?.line).toBe(
      'intel_iommu=on iommu=pt',
    );
    h.file(boot, new Uint8Array([6, 0]));
    h.file('sys/kernel/security/lockdown', '[none]\n');
    expect(ids(await ill(h))).toEqual([]);
  });

  const IOMEM = [
    'c0000000-fdffffff : PCI Bus 0000:00',
    '  c0000000-d1ffffff : PCI Bus 0000:01',
    '    c0000000-cfffffff : 0000:01:00.0',
    '      c0000000-c02fffff : BOOTFB',
    '  d2000000-d2ffffff : 0000:03:00.0',
    'fe000000-fe0fffff : BOOTFB',
  ].join('\n');

  test('the firmware framebuffer, by the region it lies in', async () => {
    const h = healthy({ files: { 'proc/iomem': IOMEM } });
    expect(only(await ill(h), 'firmware-framebuffer-evicted').object).toBe(GPU.address);
    // Without root every address is zero; the order and depth of lines stay.
    h.file('proc/iomem', IOMEM.replace(/[0-9a-f]{8}-[0-9a-f]{8}/g, '00000000-00000000'));
    expect(only(await ill(h), 'firmware-framebuffer-evicted').object).toBe(GPU.address);
    h.file('proc/sys/kernel/osrelease', '5.15.0-91-generic\n');
    h.file('lib/modules/5.15.0-91-generic/modules.alias', '');
    expect(lines(only(await ill(h), 'firmware-framebuffer'))).toContain('initcall_blacklist=sysfb_init');
  });

  test('a console on the boot display', async () => {
    const h = healthy({ devices: [{ ...GPU, attributes: { boot_vga: '1\n' } }, NIC] });
    h.file('sys/class/vtconsole/vtcon0/name', '(S) dummy device\n');
    h.file('sys/class/vtconsole/vtcon0/bind', '1\n');
    h.file('sys/class/vtconsole/vtcon1/name', '(M) frame buffer device\n');
    h.file('sys/class/vtconsole/vtcon1/bind', '1\n');
    const f = only(await ill(h), 'console-on-gpu');
    expect(f.cause).toContain('vtcon1');
    h.file('sys/class/vtconsole/vtcon1/bind', '0\n');
    expect(ids(await ill(h))).toEqual([]);
  });
});

describe('resets', () => {
  const CARD: TreeDevice = {
    address: '0000:0e:00.0',
    ids: '1002:731f',
    class: '030000',
    group: 5,
    driver: 'amdgpu',
    attributes: { reset_method: 'bus\n' },
  };
  const audio: TreeDevice = { ...CARD, address: '0000:0e:00.1', ids: '1002:ab38', class: '040300', group: 6 };

  test('a card with a known reset bug, and no module that gets around it', async () => {
    const h = healthy({ devices: [NIC, CARD, audio] });
    const d = await ill(h);
    expect(d.findings.filter((f) => f.id === 'reset-bug').map((f) => f.object)).toEqual([CARD.address]);
    expect(only(d, 'reset-bug').cause).toContain('AMD Navi 10');
    expect(lines(only(d, 'reset-bug'))).toContain('modprobe vendor-reset');
    h.folder('sys/module/vendor_reset');
    expect(ids(await ill(h))).not.toContain('reset-bug');
  });

  test.each([
    ['flr bus', '1002:731f'],
    ['device_specific bus', '1002:731f'],
    // Navi 21 comes back; the ids of another vendor are no ids of AMD.
    ['bus', '1002:73bf'],
    ['bus', '10de:731f'],
  ])('nothing is said with %s of %s', async (methods, of) => {
    const h = healthy({ devices: [{ ...CARD, ids: of, attributes: { reset_method: `${methods}\n` } }] });
    expect(ids(await ill(h))).toEqual([]);
  });

  test('a power-state reset helps such a card no more than the bus', async () => {
    const h = healthy({ devices: [{ ...CARD, ids: '1002:67df', attributes: { reset_method: 'pm bus\n' } }] });
    expect(only(await ill(h), 'reset-bug').cause).toMatch(/AMD Polaris 10 .*pm bus does not/);
    const old = healthy({ devices: [{ ...CARD, attributes: { reset_method: null, reset: '' } }] });
    expect(ids(await ill(old))).toEqual([]);
  });

  test('group why says it beside whom the bus reset hits', async () => {
    const host = new Host(healthy({ devices: [NIC, CARD, audio] }).root, loadNative());
    const { why } = await explainDevice(host, CARD.address);
    expect(why.causes.find((c) => c.id === 'reset-bug')).toMatchObject({
      blocks: false,
      cause: expect.stringContaining('Navi 10'),
      change: expect.stringContaining('vendor-reset'),
    });
  });
});

describe('vGPUs', () => {
  const PF: TreeDevice = {
    address: '0000:41:00.0',
    ids: '10de:2236',
    class: '030200',
    group: 20,
    driver: 'nvidia',
    totalVfs: 4,
  };
  const vf = (n: number, more: Partial<TreeDevice>): TreeDevice => ({
    address: `0000:41:00.${n + 1}`,
    ids: '10de:2236',
    class: '030200',
    group: 21 + n,
    driver: 'nvidia',
    physfn: PF.address,
    ...more,
  });
  const typed = (id: string): Partial<TreeDevice> => ({
    attributes: {
      'nvidia/current_vgpu_type': `${id}\n`,
      'nvidia/creatable_vgpu_types': 'ID : vGPU Name\n592 : NVIDIA A10-6Q\n',
    },
  });

  test('VFs without a type are told once, with the command; those with one are well', async () => {
    const h = healthy({ devices: [PF, vf(0, typed('592')), vf(1, typed('0')), vf(2, typed('0'))] });
    const d = await ill(h);
    expect(ids(d)).toEqual(['vgpu-untyped']);
    expect(d.findings[0]).toMatchObject({ severity: 'note', object: '0000:41:00.2, 0000:41:00.3' });
    expect(d.findings[0]?.fix[0]).toMatchObject({
      line: `echo 592 > ${h.path('sys/bus/pci/devices/0000:41:00.2/nvidia/current_vgpu_type')}`,
      after: expect.stringContaining('a reboot clears it'),
    });
    const full = healthy({
      devices: [
        PF,
        vf(0, { attributes: { 'nvidia/current_vgpu_type': '0\n', 'nvidia/creatable_vgpu_types': 'ID : Name\n' } }),
      ],
    });
    expect(only(await ill(full), 'vgpu-untyped').fix[0]?.line).toMatch(/^cat .*creatable_vgpu_types$/);
  });

  test('VFs that something took from their driver', async () => {
    const off = { driver: 'vfio-pci', override: 'vfio-pci\n', vfio: true };
    const d = await ill(healthy({ devices: [PF, vf(0, typed('592')), vf(1, off)] }));
    expect(only(d, 'vgpu-off-driver')).toMatchObject({
      object: '0000:41:00.2',
      fix: [{ line: 'hostdev unbind --to-host 0000:41:00.2' }],
    });
    // The whole card on vfio-pci is no vGPU setup, nor are the VFs of a NIC.
    const nic = { ...vf(0, off), ids: '8086:1520', class: '020000' };
    const whole = await ill(healthy({ devices: [{ ...PF, ...off }, vf(0, off)] }));
    expect(ids(whole)).not.toContain('vgpu-off-driver');
    expect(ids(await ill(healthy({ devices: [{ ...NIC, address: PF.address }, nic] })))).not.toContain(
      'vgpu-off-driver',
    );
  });
});

describe('the configuration', () => {
  test('a mistake that stops the hook is an error, with its place; no files are no mistake', async () => {
    const h = healthy();
    h.file('etc/hostdev/hostdev.toml', '# ours\n[hook]\nunmanaged = "chek"\n');
    expect(only(await ill(h), 'config-invalid')).toMatchObject({
      object: `${h.path('etc/hostdev/hostdev.toml')}:3:13`,
      cause: expect.stringMatching(/^hook\.unmanaged is "chek"/),
      fix: [{ line: 'hostdev config check', after: 'Did you mean check?' }],
    });
    h.file('etc/hostdev/hostdev.toml', '[hook]\nunmanaged = "check"\n');
    expect(ids(await ill(h))).toEqual([]);
    h.file('etc/hostdev/conf.d/10.toml', '[hook\n');
    expect(only(await ill(h), 'config-invalid').object).toMatch(/conf\.d\/10\.toml:\d/);
  });

  test('one that only does not do what it looks like is a warning', async () => {
    const h = healthy();
    h.file('etc/hostdev/hostdev.toml', '[[device_spec]]\naddress = "03:00.0"\nresource_clas = "X"\n');
    expect(only(await ill(h), 'config-mistake').object).toContain('hostdev.toml:3');
  });

  test('wishes: not met, set by another tool too, switched off', async () => {
    const h = healthy();
    const wish = (path: string, address = '0000:99:00.0'): string =>
      `[[device]]\naddress = "${address}"\npath = "${path}"\nvendor_id = "8086"\nproduct_id = "10c9"\ndriver = "vfio"\n`;
    h.file('etc/hostdev/hostdev.toml', wish('pci0000:99/00.0'));
    expect(only(await ill(h), 'wish-not-met')).toMatchObject({
      object: `${h.path('etc/hostdev/hostdev.toml')}:1`,
      cause: '0000:99:00.0: no device is in its slot (pci0000:99/00.0)',
      fix: [{ line: 'hostdev wish remove 0000:99:00.0' }],
    });
    h.file('proc/cmdline', `${h.bytes('proc/cmdline').trim()} hostdev.off=1\n`);
    expect(ids(await ill(h))).toContain('boot-off');
    const [nic] = scanInventory(new Host(h.root, loadNative())).devices.filter((d) => !d.bridge);
    const address = nic?.address ?? '';
    h.file(
      'etc/hostdev/hostdev.toml',
      wish(`pci${address.slice(0, 7)}/${address.slice(8)}`, address)
        .replace('8086', nic?.vendor_id ?? '')
        .replace('10c9', nic?.product_id ?? ''),
    );
    h.file(`etc/driverctl.d/pci-${address}`, 'uio_pci_generic\n');
    expect(ids(await ill(h))).toContain('wish-contested');
  });

  test('a folder in the place of the file', async () => {
    const h = healthy();
    h.folder('etc/hostdev/hostdev.toml');
    expect(only(await ill(h), 'config-invalid').severity).toBe('error');
  });
});

describe('one kernel line with all changes', () => {
  const CMDLINE = 'BOOT_IMAGE=/v quiet amd_iommu=on pcie_acs_override=downstream modprobe.blacklist=nouveau,ixgbe';

  const lineOf = (f: Finding): string[] => f.fix.filter((x) => x.tool === 'grub').map((x) => x.line);

  test('every finding about the command line has the same line, which says whose changes it has', async () => {
    const h = healthy({
      files: {
        'proc/cmdline': `${CMDLINE} vfio-pci.ids=10de:1bb0,8086:1521\n`,
        'etc/default/grub': `GRUB_CMDLINE_LINUX_DEFAULT="${CMDLINE.slice(14)} vfio-pci.ids=10de:1bb0,8086:1521"\n`,
        'sys/kernel/iommu_groups/3/type': 'DMA-FQ\n',
      },
    });
    const d = await ill(h);
    const asking = d.findings.filter((f) => lineOf(f).length > 0);
    expect(new Set(asking.map((f) => f.id))).toEqual(
      new Set([
        'iommu-unknown-option',
        'acs-override',
        'ids-option',
        'ids-not-followed',
        'iommu-translated-host',
        'blacklist-gpu',
        'blacklist-unneeded',
      ]),
    );
    for (const f of asking) {
      expect(lineOf(f)).toEqual(['GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"']);
      const after = f.fix.find((x) => x.tool === 'grub')?.after ?? '';
      for (const g of asking) expect(after).toContain(g.id);
      expect(after).toMatch(/what is for [^;]*acs-override[^;]* you may leave as it is/);
      expect(after).not.toMatch(/what is for [^;]*ids-option/);
    }
  });

  test('of a list stays what no finding takes out, and one finding alone says nothing of others', async () => {
    const h = healthy({
      files: {
        'proc/cmdline': 'iommu=pt modprobe.blacklist=nouveau,some_usb_driver\n',
        'etc/default/grub': 'GRUB_CMDLINE_LINUX_DEFAULT="iommu=pt modprobe.blacklist=nouveau,some_usb_driver"\n',
      },
    });
    const f = only(await ill(h), 'blacklist-gpu');
    expect(lineOf(f)).toEqual(['GRUB_CMDLINE_LINUX_DEFAULT="iommu=pt modprobe.blacklist=some_usb_driver"']);
    expect(f.fix.find((x) => x.tool === 'grub')?.after).not.toContain('all changes');
  });
});

describe('the command', () => {
  test('exit 0 without an error, 3 with one; JSON; nothing is changed', () => {
    const h = healthy();
    h.remove('etc/libvirt');
    h.remove('proc/123');
    const before = h.hash();
    const good = h.run('doctor', '-j');
    expect(good.exit).toBe(0);
    expect(good.json).toMatchObject({
      schema: 1,
      findings: [],
      not_measured: [{ object: 'libvirt hooks' }, { object: 'memlock' }],
    });
    expect(h.run('doctor').out).toContain('no error found');
    h.file('proc/interrupts', ' 24: 0 PCI-MSI 0-edge eth0\n');
    const bad = h.run('doctor', '-j');
    expect(bad.exit).toBe(3);
    expect(bad.json).toMatchObject({
      findings: [
        {
          id: 'interrupt-remapping',
          severity: 'error',
          object: expect.any(String),
          cause: expect.any(String),
          fix: expect.arrayContaining([
            expect.objectContaining({ where: expect.any(String), line: expect.any(String) }),
          ]),
        },
      ],
    });
    const text = h.run('doctor').out;
    expect(text).toContain('error: interrupt-remapping');
    h.file('proc/interrupts', ' 24: 0 IR-PCI-MSI-0000:03:00.0 0-edge eth0\n');
    expect(h.hash()).toBe(before);
    expect(h.run('doctor', 'more').exit).toBe(2);
  });

  test('a host that shows nothing at all: said, no fault of ours', () => {
    const h = new StaticHost();
    hosts.push(h);
    const ran = h.run('doctor', '-j');
    expect(ran.exit).toBe(3);
    expect(ran.json).toMatchObject({ findings: [{ id: 'iommu-firmware' }] });
  });
});

describe('hostile files', () => {
  const BAD: [string, string | Uint8Array][] = [
    ['etc/default/grub', `GRUB_CMDLINE_LINUX_DEFAULT="${'x '.repeat(100_000)}"\n`],
    ['etc/default/grub', 'GRUB_CMDLINE_LINUX_DEFAULT="$(rm -rf /)"\n'],
    ['etc/modprobe.d/x.conf', new Uint8Array(300_000).fill(0x5c)],
    ['etc/modprobe.d/x.conf', `blacklist ${'a'.repeat(5000)}\n${'blacklist igb\n'.repeat(20_000)}`],
    ['etc/rc.local', 'new_id\n'.repeat(30_000)],
    ['etc/rc.local', new Uint8Array(10_000).map((_, i) => i % 256)],
    ['proc/iomem', `${' '.repeat(5000)}0-0 : BOOTFB\n`.repeat(100)],
    ['proc/interrupts', new Uint8Array(100_000).fill(0xff)],
    ['proc/123/stat', '123 (lib) virt)d'],
    ['proc/stat', 'btime 99999999999999999999\n'],
    ['sys/kernel/security/lockdown', '[[[['],
    ['sys/firmware/acpi/tables/DMAR', ''],
    ['etc/libvirt/hooks/qemu', new Uint8Array(5000).fill(0x23)],
    ['lib/modules/6.12.0-static/modules.dep', new Uint8Array(100).fill(0)],
  ];

  test.each(BAD)('%s', async (file, bytes) => {
    const h = healthy();
    h.file(file, bytes);
    const began = cpuMs();
    await ill(h);
    expect(cpuMs() - began).toBeLessThan(2000);
    expect(h.run('doctor').exit).toBeLessThanOrEqual(3);
  });

  test('folders where files should be, links that lead nowhere or out, a FIFO cannot be met: all said', async () => {
    const h = healthy();
    for (const f of ['etc/rc.local', 'etc/default/grub', 'etc/modules', 'proc/iomem']) {
      h.remove(f);
      h.folder(f);
    }
    h.link('etc/libvirt/hooks/qemu.d/10-out', '/../../../../../../bin/sh');
    h.link('etc/libvirt/hooks/qemu.d/20-loop', '20-loop');
    h.link('etc/modprobe.d', '/etc/modprobe.d');
    const d = await ill(h);
    expect(d.findings).toEqual([]);
    expect(d.not_measured.length).toBeGreaterThan(0);
  });
});

test('a real host, dumped: its overrides are found, and nothing else is claimed', async () => {
  const h = loadDump('intel-6.12');
  hosts.push(h);
  const d = await ill(h);
  expect(new Set(ids(d))).toEqual(new Set(['override-leftover']));
  expect(d.findings.map((f) => f.object)).toContain('0000:21:10.2');
  expect(d.not_measured.map((u) => u.object)).toContain('interrupt remapping');
});

// Found in test/unit/boot/images.test.ts, where there is an initramfs to look into, and in
// test/unit/libvirt/versions.test.ts, where there are programs to ask.
const ELSEWHERE: readonly string[] = [
  ...['initramfs-vital', 'initramfs-stale', 'initramfs-other', 'initramfs-failed'],
  'libvirt-old',
];

test('each finding of the table was found once above', () => {
  expect(Object.keys(FINDINGS).filter((id) => !seen.has(id as FindingId) && !ELSEWHERE.includes(id))).toEqual([]);
});
