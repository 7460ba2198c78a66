/**
 * doctor on hosts as distributions make them: each fix line is the one for that host. Each tree is built from what the
 * distribution's own package or document says, which `source` names; the fixes are then made on the tree, and what the
 * boot loader would hand the kernel is read back as that loader reads it.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { type Diagnosis, diagnose } from '../../../src/actions/doctor.ts';
import { loadNative } from '../../../src/addon/load.ts';
import type { Fix } from '../../../src/doctor/table.ts';
import { Host } from '../../../src/host/host.ts';
import { RELEASE, StaticHost } from '../../mock/tree.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

/**
 * What the kernel was started with: words that several findings want out (an override of ACS, blacklists), and one that
 * is missing (iommu=pt).
 */
const BEFORE = 'quiet intel_iommu=on pcie_acs_override=downstream modprobe.blacklist=nvidiafb,nouveau';
const AFTER = 'quiet intel_iommu=on iommu=pt';
const ASKING = ['acs-override', 'blacklist-gpu', 'blacklist-unneeded', 'iommu-translated-host'];

type Row = {
  name: string;
  source: string;
  /** What the loader puts before BEFORE. */
  loader: string;
  files: Record<string, string>;
  /** `[where, what makes it take effect]` of the kernel line; a command where nothing is to be edited. */
  kernel: [string, string];
  /** Where the words are afterwards, as the loader reads them; null where the command is all there is. */
  read: ((h: StaticHost) => string) | null;
  /** What follows a change in etc/modprobe.d, and where that change is to be made. */
  modules: [string, string];
  /** Tools of the fixes that this host is shown for vfio-not-loaded. */
  load: string[];
};

const sourced =
  (file: string, variable: string) =>
  (h: StaticHost): string =>
    spawnSync('sh', ['-c', `. "$1"; printf %s "$${variable}"`, 'sh', h.path(file)], { encoding: 'utf8' }).stdout;
const text =
  (file: string, pattern = /^(.*)$/m) =>
  (h: StaticHost): string =>
    pattern.exec(readFileSync(h.path(file), 'utf8'))?.[1] ?? '';

const MODPROBE = '/etc/modprobe.d/vfio.conf:1';

const ROWS: Row[] = [
  {
    name: 'Debian 12 with GRUB and initramfs-tools',
    source: 'packages grub2-common 2.06-13+deb12u2 (usr/share/grub/default/grub), initramfs-tools 0.142+deb12u3',
    loader: 'BOOT_IMAGE=/boot/vmlinuz-6.1.0 root=UUID=a ro',
    files: {
      'etc/debian_version': '12.9\n',
      'etc/default/grub': `GRUB_DEFAULT=0\nGRUB_TIMEOUT=5\nGRUB_DISTRIBUTOR=\`lsb_release -i -s 2> /dev/null || echo Debian\`\nGRUB_CMDLINE_LINUX_DEFAULT="${BEFORE}"\nGRUB_CMDLINE_LINUX=""\n`,
      'etc/initramfs-tools/modules': '# List of modules that you want to include in your initramfs.\n',
      'etc/modules-load.d/modules.conf': '',
    },
    kernel: ['/etc/default/grub:4', 'update-grub; then reboot'],
    read: sourced('etc/default/grub', 'GRUB_CMDLINE_LINUX_DEFAULT'),
    modules: [MODPROBE, 'update-initramfs -u; then reboot'],
    load: ['modules-load.d', 'initramfs-tools'],
  },
  {
    name: 'Debian arm64 by u-boot, its parameters never set',
    source: 'package u-boot-menu 4.2.2 (usr/sbin/u-boot-update, etc/default/u-boot)',
    loader: 'root=/dev/mmcblk0p2 ro',
    files: {
      'etc/debian_version': '12.9\n',
      'usr/sbin/u-boot-update': '#!/bin/sh\n',
      'etc/default/u-boot': '#U_BOOT_PARAMETERS="ro quiet"\nU_BOOT_TIMEOUT="50"\n',
      'boot/extlinux/extlinux.conf': `label l0\n\tlinux /boot/vmlinuz\n\tappend root=/dev/mmcblk0p2 ro ${BEFORE}\n`,
      'etc/initramfs-tools/modules': '',
    },
    kernel: ['/etc/default/u-boot', 'u-boot-update; then reboot'],
    read: (h) => sourced('etc/default/u-boot', 'U_BOOT_PARAMETERS')(h).replace('ro quiet', 'quiet intel_iommu=on'),
    modules: [MODPROBE, 'update-initramfs -u; then reboot'],
    load: ['initramfs-tools'],
  },
  {
    name: 'Debian arm64 by u-boot, its parameters in etc/kernel/cmdline',
    source: 'package u-boot-menu 4.2.2 (README.Debian, u-boot-update(8))',
    loader: 'root=/dev/mmcblk0p2',
    files: {
      'usr/sbin/u-boot-update': '#!/bin/sh\n',
      'etc/kernel/cmdline': `root=/dev/mmcblk0p2 ${BEFORE}\n`,
      'etc/initramfs-tools/modules': '',
    },
    kernel: ['/etc/kernel/cmdline:1', 'u-boot-update; then reboot'],
    read: text('etc/kernel/cmdline', /^root=\S+ (.*)$/m),
    modules: [MODPROBE, 'update-initramfs -u; then reboot'],
    load: ['initramfs-tools'],
  },
  {
    name: 'a board whose extlinux.conf is written by hand',
    source: 'U-Boot, doc/README.distro ("Boot Configuration Files"); package extlinux 3:6.04',
    loader: 'root=/dev/mmcblk0p2',
    files: { 'boot/extlinux/extlinux.conf': `label l0\n\tkernel /Image\n\tappend root=/dev/mmcblk0p2 ${BEFORE}\n` },
    kernel: ['/boot/extlinux/extlinux.conf:3', 'reboot'],
    read: text('boot/extlinux/extlinux.conf', /append root=\S+ (.*)$/m),
    modules: [MODPROBE, 'update-initramfs -u, or dracut -f, or mkinitcpio -P; then reboot'],
    load: ['modules-load.d', 'initramfs-tools', 'dracut', 'mkinitcpio', 'cloud-init', 'juju'],
  },
  {
    name: 'Raspberry Pi OS',
    source: 'Raspberry Pi documentation, "Kernel command line (cmdline.txt)"',
    loader: 'console=tty1 root=PARTUUID=a rootwait',
    files: {
      'etc/debian_version': '12.9\n',
      'boot/firmware/cmdline.txt': `console=tty1 root=PARTUUID=a rootwait ${BEFORE}\n`,
      'etc/initramfs-tools/modules': '',
    },
    kernel: ['/boot/firmware/cmdline.txt:1', 'reboot'],
    read: text('boot/firmware/cmdline.txt', /rootwait (.*)$/m),
    modules: [MODPROBE, 'update-initramfs -u; then reboot'],
    load: ['initramfs-tools'],
  },
  {
    name: 'Debian on a Raspberry Pi, which writes cmdline.txt anew with each initramfs',
    source:
      'package raspi-firmware of Debian (etc/kernel/postinst.d/z50-raspi-firmware: etc/default/raspi-extra-cmdline)',
    loader: 'root=LABEL=RASPIROOT',
    files: {
      'etc/debian_version': '13.1\n',
      'etc/default/raspi-firmware': 'ROOTPART=LABEL=RASPIROOT\n',
      'etc/default/raspi-extra-cmdline': `${BEFORE}\n`,
      'boot/firmware/cmdline.txt': `root=LABEL=RASPIROOT ${BEFORE}\n`,
      'etc/initramfs-tools/modules': '',
    },
    kernel: ['/etc/default/raspi-extra-cmdline:1', 'update-initramfs -u; then reboot'],
    read: text('etc/default/raspi-extra-cmdline'),
    modules: [MODPROBE, 'update-initramfs -u; then reboot'],
    load: ['initramfs-tools'],
  },
  {
    name: 'Fedora 43 with BLS entries',
    source: 'package grubby 8.40-85.fc43 (grubby(8), grubby-bls); dracut.conf(5)',
    loader: 'BOOT_IMAGE=(hd0,gpt2)/vmlinuz-6.17 root=UUID=a ro rhgb',
    files: {
      'etc/os-release': 'ID=fedora\n',
      'etc/default/grub': `GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX="rhgb ${BEFORE}"\nGRUB_ENABLE_BLSCFG=true\n`,
      'boot/loader/entries/x.conf': `title Fedora\noptions root=UUID=a ro rhgb ${BEFORE}\n`,
      'etc/dracut.conf.d/x.conf': '',
      'etc/modules-load.d/x.conf': '',
    },
    kernel: [
      '/etc/default/grub:2',
      "grubby --update-kernel=ALL --remove-args='pcie_acs_override=downstream modprobe.blacklist=nvidiafb,nouveau' --args=iommu=pt; then reboot",
    ],
    read: (h) => sourced('etc/default/grub', 'GRUB_CMDLINE_LINUX')(h).replace(/^rhgb /, ''),
    modules: [MODPROBE, 'dracut -f; then reboot'],
    load: ['modules-load.d', 'dracut'],
  },
  {
    name: 'Fedora Silverblue',
    source: 'rpm-ostree(1), "kargs"',
    loader: 'BOOT_IMAGE=(hd0,gpt2)/ostree/fedora/vmlinuz ostree=/ostree/boot.1/fedora/a/0',
    files: {
      'run/ostree-booted': '',
      'usr/bin/rpm-ostree': '',
      'etc/default/grub': 'GRUB_CMDLINE_LINUX="rhgb quiet"\n',
      'etc/dracut.conf.d/x.conf': '',
    },
    kernel: [
      'rpm-ostree kargs --delete=pcie_acs_override=downstream --delete=modprobe.blacklist=nvidiafb,nouveau --append=iommu=pt',
      'reboot',
    ],
    read: null,
    modules: [MODPROBE, 'rpm-ostree initramfs --enable; then reboot'],
    load: ['dracut'],
  },
  {
    name: 'Proxmox VE on ZFS by systemd-boot',
    source: 'Proxmox VE Administration Guide, "Host Bootloader", "Editing the Kernel Commandline"',
    loader: 'initrd=\\EFI\\proxmox\\6.8.12-4-pve\\initrd.img-6.8.12-4-pve root=ZFS=rpool/ROOT/pve-1 boot=zfs',
    files: {
      'etc/debian_version': '12.9\n',
      'etc/kernel/proxmox-boot-uuids': 'ABCD-1234\n',
      'etc/kernel/cmdline': `root=ZFS=rpool/ROOT/pve-1 boot=zfs ${BEFORE}\n`,
      'etc/default/grub': 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n',
      'etc/initramfs-tools/modules': '',
    },
    kernel: ['/etc/kernel/cmdline:1', 'proxmox-boot-tool refresh; then reboot'],
    read: text('etc/kernel/cmdline', /boot=zfs (.*)$/m),
    modules: [MODPROBE, 'update-initramfs -u; then reboot'],
    load: ['initramfs-tools'],
  },
  {
    name: 'Arch with systemd-boot and mkinitcpio',
    source: 'mkinitcpio.conf(5) of mkinitcpio 39 (drop-ins since 38); systemd, BOOT.md (Type #1 entries)',
    loader: 'initrd=\\initramfs-linux.img root=UUID=a rw',
    files: {
      'etc/arch-release': '',
      'boot/loader/entries/arch.conf': `title Arch\nlinux /vmlinuz-linux\ninitrd /initramfs-linux.img\noptions root=UUID=a rw ${BEFORE}\n`,
      'etc/mkinitcpio.conf': '# MODULES\nMODULES=(btrfs)\nHOOKS=(base udev)\n',
      'etc/mkinitcpio.d/linux.preset':
        'default_image="/boot/initramfs-linux.img"\n#default_uki="/efi/EFI/Linux/arch.efi"\n',
      'etc/modules-load.d/x.conf': '',
    },
    kernel: ['/boot/loader/entries/arch.conf:4', 'reboot'],
    read: text('boot/loader/entries/arch.conf', /rw (.*)$/m),
    modules: [MODPROBE, 'mkinitcpio -P; then reboot'],
    load: ['modules-load.d', 'mkinitcpio'],
  },
  {
    name: 'Arch with a unified kernel image',
    source: 'mkinitcpio(8) of mkinitcpio 39, "ABOUT PRESETS" and --uki; etc/kernel/cmdline',
    loader: 'root=UUID=a rw',
    files: {
      'etc/arch-release': '',
      'etc/kernel/cmdline': `root=UUID=a rw ${BEFORE}\n`,
      'etc/mkinitcpio.d/linux.preset': 'default_uki="/efi/EFI/Linux/arch-linux.efi"\n',
      'etc/mkinitcpio.conf.d/x.conf': '',
    },
    kernel: ['/etc/kernel/cmdline:1', 'mkinitcpio -P; then reboot'],
    read: text('etc/kernel/cmdline', /rw (.*)$/m),
    modules: [MODPROBE, 'mkinitcpio -P; then reboot'],
    load: ['mkinitcpio'],
  },
  {
    name: 'NixOS, its parameters in another file and in an attribute set',
    source: 'NixOS manual, options boot.kernelParams, boot.extraModprobeConfig, boot.initrd.kernelModules',
    loader: 'init=/nix/store/a/init',
    files: {
      'etc/NIXOS': '',
      'etc/nixos/configuration.nix': '{\n  imports = [ ./vm.nix ];\n}\n',
      'etc/nixos/vm.nix': `{\n  boot = {\n    kernelParams = [\n      # passthrough\n${BEFORE.split(' ')
        .map((w) => `      "${w}"\n`)
        .join('')}    ];\n  };\n}\n`,
    },
    kernel: ['/etc/nixos/vm.nix:3', 'nixos-rebuild boot; then reboot'],
    read: (h) => text('etc/nixos/vm.nix', /kernelParams = \[ (.*) \];$/m)(h).replaceAll('"', ''),
    modules: ['as root', 'take it out there; then nixos-rebuild boot; then reboot'],
    load: ['nixos'],
  },
  {
    name: 'openSUSE Leap with GRUB and dracut',
    source: 'openSUSE Leap Reference, "The boot loader GRUB 2" (grub2-mkconfig -o /boot/grub2/grub.cfg); dracut(8)',
    loader: 'BOOT_IMAGE=/boot/vmlinuz-6.4 root=UUID=a',
    files: {
      'etc/os-release': 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n',
      'etc/default/grub': `GRUB_CMDLINE_LINUX_DEFAULT="splash=silent ${BEFORE}"\n`,
      'etc/dracut.conf.d/x.conf': '',
    },
    kernel: ['/etc/default/grub:1', 'grub2-mkconfig -o /boot/grub2/grub.cfg; then reboot'],
    read: (h) => sourced('etc/default/grub', 'GRUB_CMDLINE_LINUX_DEFAULT')(h).replace(/^splash=silent /, ''),
    modules: [MODPROBE, 'dracut -f; then reboot'],
    load: ['dracut'],
  },
  {
    name: 'openSUSE Tumbleweed with sdbootutil',
    source:
      'sdbootutil\'s documentation, "Adjusting kernel boot parameters" (etc/kernel/cmdline, sdbootutil update-all-entries)',
    loader: 'root=UUID=a',
    files: {
      'etc/os-release': 'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n',
      'usr/bin/sdbootutil': '',
      'etc/kernel/cmdline': `root=UUID=a ${BEFORE}\n`,
      'etc/default/grub': 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n',
      'etc/dracut.conf.d/x.conf': '',
    },
    kernel: ['/etc/kernel/cmdline:1', 'sdbootutil update-all-entries; then reboot'],
    read: text('etc/kernel/cmdline', /root=\S+ (.*)$/m),
    modules: [MODPROBE, 'dracut -f; then reboot'],
    load: ['dracut'],
  },
  {
    name: 'SUSE MicroOS, whose root is read-only',
    source: 'transactional-update(8), commands "grub.cfg" and "initrd"',
    loader: 'BOOT_IMAGE=/boot/vmlinuz-6.4 root=UUID=a',
    files: {
      'etc/os-release': 'ID="opensuse-microos"\nID_LIKE="suse opensuse"\n',
      'usr/sbin/transactional-update': '',
      'etc/default/grub': `GRUB_CMDLINE_LINUX_DEFAULT="${BEFORE}"\n`,
      'etc/dracut.conf.d/x.conf': '',
    },
    kernel: ['/etc/default/grub:1', 'transactional-update grub.cfg; then reboot'],
    read: sourced('etc/default/grub', 'GRUB_CMDLINE_LINUX_DEFAULT'),
    modules: [MODPROBE, 'transactional-update initrd; then reboot'],
    load: ['dracut'],
  },
  {
    name: 'Unraid 7',
    source:
      'Unraid documentation, "Flash drive" (syslinux.cfg; /boot/config/modprobe.d is copied to /etc/modprobe.d at boot)',
    loader: 'BOOT_IMAGE=/bzimage initrd=/bzroot',
    files: {
      'etc/unraid-version': 'version="7.1.4"\n',
      'boot/config/go': '#!/bin/bash\n/usr/local/sbin/emhttp\n',
      'boot/config/modprobe.d/vfio.conf': 'options vfio-pci ids=dead:beef\n',
      'boot/syslinux/syslinux.cfg': `label Unraid OS\n  menu default\n  kernel /bzimage\n  append initrd=/bzroot ${BEFORE}\n`,
    },
    kernel: ['/boot/syslinux/syslinux.cfg:4', 'reboot'],
    read: text('boot/syslinux/syslinux.cfg', /bzroot (.*)$/m),
    modules: ['/boot/config/modprobe.d/vfio.conf:1', 'reboot'],
    load: ['file'],
  },
  {
    name: 'Alpine with extlinux and mkinitfs',
    source: 'Alpine wiki, "Bootloaders" (update-extlinux.conf, update-extlinux); package mkinitfs',
    loader: 'BOOT_IMAGE=vmlinuz-lts root=UUID=a initrd=initramfs-lts',
    files: {
      'etc/os-release': 'ID=alpine\n',
      'etc/update-extlinux.conf': `overwrite=1\ndefault_kernel_opts="${BEFORE}"\nroot=UUID=a\n`,
      'boot/extlinux.conf': `LABEL lts\n  APPEND root=UUID=a ${BEFORE}\n`,
      'etc/mkinitfs/mkinitfs.conf': 'features="base"\n',
      'etc/modules-load.d/x.conf': '',
    },
    kernel: ['/etc/update-extlinux.conf:2', 'update-extlinux; then reboot'],
    read: sourced('etc/update-extlinux.conf', 'default_kernel_opts'),
    modules: [MODPROBE, 'mkinitfs; then reboot'],
    load: ['modules-load.d'],
  },
];

function built(row: Row): StaticHost {
  const h = new StaticHost({
    devices: [
      { address: '0000:01:00.0', ids: '10de:1bb0', class: '030000', group: 1, driver: 'nouveau' },
      { address: '0000:03:00.0', ids: '8086:1521', group: 3, driver: 'igb' },
    ],
    aliases: ['alias pci:v000010DEd*sv*sd*bc03sc*i* nouveau'],
    files: {
      'proc/interrupts': ' 24: 0 IR-PCI-MSI-0000:03:00.0 0-edge eth0\n',
      'proc/cmdline': `${row.loader} ${BEFORE}\n`,
      'sys/kernel/iommu_groups/3/type': 'DMA-FQ\n',
      'sys/firmware/acpi/tables/DMAR': new Uint8Array(48).fill(1),
      [`lib/modules/${RELEASE}/modules.dep`]: ['vfio', 'vfio_iommu_type1', 'pci/vfio-pci']
        .map((m) => `kernel/drivers/vfio/${m}.ko:\n`)
        .join(''),
      'etc/modprobe.d/vfio.conf': 'options vfio-pci ids=dead:beef\n',
      ...row.files,
    },
  });
  hosts.push(h);
  return h;
}

const diagnosed = (h: StaticHost): Promise<Diagnosis> => {
  const native = h.path('native');
  return diagnose(new Host(h.root, loadNative()), { native, nodes: [native], cli: native });
};

/** Makes the fixes: a line in the place of another, or behind the others. */
function make(h: StaticHost, fixes: readonly Fix[]): void {
  for (const { where, line } of fixes) {
    const [, file = '', at] = /^\/(.*?)(?::(\d+))?$/.exec(where) ?? [];
    const lines = readFileSync(h.path(file), 'utf8').split('\n');
    // A list that goes over several lines is given back as one.
    const end = line.endsWith('];')
      ? lines.findIndex((l, i) => i >= Number(at) - 1 && l.includes(']'))
      : Number(at) - 1;
    if (at === undefined) lines.push(line, '');
    else lines.splice(Number(at) - 1, end - Number(at) + 2, line);
    h.file(file, lines.join('\n'));
  }
}

const LOADERS: readonly Fix['tool'][] = ['modprobe.d', 'cloud-init', 'juju', 'shell'];

describe.each(ROWS)('$name ($source)', (row) => {
  test('the kernel line is the one for this host, the same in each finding, and holds all changes', async () => {
    const h = built(row);
    const { findings } = await diagnosed(h);
    const asking = findings.filter((f) => ASKING.includes(f.id));
    expect([...new Set(asking.map((f) => f.id))].sort()).toEqual(ASKING);
    for (const f of asking) {
      const fixes = f.fix.filter((x) => !LOADERS.includes(x.tool));
      expect(fixes.every((x) => x.present)).toBe(true);
      expect(fixes).toHaveLength(1);
      const [fix] = fixes;
      const [where, after] = row.kernel;
      expect(row.read === null ? fix?.line : fix?.where).toBe(where);
      expect(fix?.after?.startsWith(after)).toBe(true);
      expect(fix?.after).toContain(
        `all changes of the kernel command line: ${asking
          .map((a) => a.id)
          .filter((a, i, all) => all.indexOf(a) === i)
          .join(', ')}`,
      );
    }
    if (row.read === null) return;
    make(h, asking[0]?.fix.filter((x) => !LOADERS.includes(x.tool)) ?? []);
    const words = row.read(h).split(/\s+/).filter(Boolean).sort();
    expect(words).toEqual(AFTER.split(' ').sort());
  });

  test('changes to modules end with what makes the initramfs here', async () => {
    const { findings } = await diagnosed(built(row));
    const stale = findings.find((f) => f.id === 'ids-stale')?.fix[0];
    expect([stale?.where, stale?.after]).toEqual(row.modules);
    const load = findings.find((f) => f.id === 'vfio-not-loaded')?.fix ?? [];
    const here = load.filter((x) => x.present);
    expect((here.length > 0 ? here : load).map((x) => x.tool)).toEqual(row.load);
  });
});

describe("the charm guide's host: rc.local, ids in the initramfs, kernel words, Juju's user-data", () => {
  const GUIDE = 'intel_iommu=on vfio_iommu_type1.allow_unsafe_interrupts=1 modprobe.blacklist=nvidiafb,nouveau';
  const RC_LOCAL = `vfiobind() {
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
  const gpu = { ids: '10de:1bb0', class: '030000', driver: 'vfio-pci', vfio: true } as const;

  function host(more: Record<string, string>): StaticHost {
    const h = new StaticHost({
      devices: [
        { ...gpu, address: '0000:83:00.0', group: 40 },
        { ...gpu, address: '0000:84:00.0', group: 41 },
        { address: '0000:03:00.0', ids: '8086:1521', group: 3, driver: 'igb' },
      ],
      aliases: ['alias pci:v000010DEd*sv*sd*bc03sc*i* nouveau'],
      files: {
        'proc/interrupts': ' 24: 0 IR-PCI-MSI-0000:03:00.0 0-edge eth0\n',
        'proc/cmdline': `BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro ${GUIDE}\n`,
        'sys/kernel/iommu_groups/3/type': 'DMA-FQ\n',
        'sys/firmware/acpi/tables/DMAR': new Uint8Array(48).fill(1),
        'etc/debian_version': 'bookworm/sid\n',
        'etc/default/grub': `GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="${GUIDE}"\nGRUB_CMDLINE_LINUX=""\n`,
        'etc/initramfs-tools/modules': 'pci_stub ids=10de:1bb0',
        'etc/modules': 'pci_stub\nvfio\nvfio_iommu_type1\nvfio_pci\n',
        'etc/rc.local': RC_LOCAL,
        'etc/cloud/cloud.cfg': '',
        ...more,
      },
    });
    hosts.push(h);
    return h;
  }

  test('all of the work of rc.local goes, and the devices that it meant are named', async () => {
    const { findings } = await diagnosed(host({}));
    const f = findings.find((x) => x.id === 'new-id-script');
    expect(f?.fix.map((x) => x.where)).toEqual(['/etc/rc.local:1-11', 'as root']);
    expect(f?.fix[0]?.line.split('\n').every((l) => l.startsWith('# '))).toBe(true);
    expect(f?.fix[1]).toMatchObject({
      line: 'hostdev bind 0000:83:00.0 0000:84:00.0',
      after: expect.stringContaining('a reboot undoes it'),
    });
  });

  test("the guide's page shows Juju's user-data as doctor prints it, and the kernel line has all changes", async () => {
    const { findings } = await diagnosed(host({ 'var/lib/juju/agents/machine-0/agent.conf': '' }));
    const asking = findings.filter((f) => f.fix.some((x) => x.tool === 'grub'));
    expect(new Set(asking.map((f) => f.id))).toEqual(
      new Set(['unsafe-interrupts-needless', 'iommu-translated-host', 'blacklist-gpu', 'blacklist-unneeded']),
    );
    const page = readFileSync('docs/guide/from-the-charm-guide.md', 'utf8');
    for (const f of asking) {
      expect(f.fix.find((x) => x.tool === 'grub')?.line).toBe('GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=on iommu=pt"');
      expect(f.fix.filter((x) => x.present).map((x) => x.tool)).toEqual(['grub', 'juju']);
      expect(page).toContain(`\`\`\`yaml\n${f.fix.find((x) => x.tool === 'juju')?.line}\n\`\`\``);
    }
    // Without Juju the same comes as plain user-data.
    const plain = (await diagnosed(host({}))).findings.find((f) => f.id === 'blacklist-gpu');
    expect(plain?.fix.filter((x) => x.present).map((x) => x.tool)).toEqual(['grub', 'cloud-init']);
  });
});

test.each(ROWS.filter((r) => r.read !== null))("Juju's form of user-data: $name", async (row) => {
  const h = built({ ...row, files: { ...row.files, 'var/lib/juju/x': '' } });
  const fixes = (await diagnosed(h)).findings.flatMap((f) => f.fix.filter((x) => x.tool === 'juju'));
  for (const { line, present, after } of fixes) {
    expect(present).toBe(true);
    expect(after).toContain('juju model-config --file cloudinit-userdata.yaml');
    const [head, ...rest] = line.split('\n');
    expect(head).toBe('cloudinit-userdata: |');
    expect(rest.every((l) => l.startsWith('  '))).toBe(true);
    // Juju refuses runcmd, bootcmd and users; only this key is ever given.
    const keys = rest.flatMap((l) => /^ {2}(\w+):/.exec(l)?.[1] ?? []);
    expect(keys.filter((k) => k !== 'postruncmd')).toEqual([]);
    // A model gives it to its containers too.
    for (const c of rest.filter((l) => /^ {4}- ["']/.test(l)))
      expect(c).toMatch(/^ {4}- ["']systemd-detect-virt --quiet --container \|\| /);
    // The loader is this host's: nobody else's command is called.
    const [, command = ''] = row.kernel;
    const own = command.replace(/; then reboot$/, '');
    if (rest.some((l) => l.includes('update-grub'))) expect(own).toContain('update-grub');
    if (rest.some((l) => l.includes('update-initramfs'))) expect(row.modules[1]).toContain('update-initramfs');
  }
});
