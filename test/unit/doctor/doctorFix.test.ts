/** The line to change, made from the files as they are. */
import { afterEach, describe, expect, test } from 'vitest';
import { loadNative } from '../../../src/addon/load.ts';
import { cmdlineFix } from '../../../src/doctor/cmdline.ts';
import { type CmdlineChange, merged } from '../../../src/doctor/cmdlineWords.ts';
import { loadFix, modprobeFix, rebuild } from '../../../src/doctor/initramfs.ts';
import { removeDirective } from '../../../src/doctor/kernelLine.ts';
import { Look } from '../../../src/doctor/look.ts';
import type { Fix } from '../../../src/doctor/table.ts';
import { Host } from '../../../src/host/host.ts';
import { type Directive, readDirectives } from '../../../src/host/modprobe.ts';
import { scanInventory } from '../../../src/pci/inventory.ts';
import { StaticHost } from '../../mock/tree.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

function look(files: Record<string, string>): Look {
  const h = new StaticHost();
  hosts.push(h);
  for (const [name, text] of Object.entries(files)) h.file(name, text);
  const host = new Host(h.root, loadNative());
  return new Look(host, scanInventory(host));
}

const ON: CmdlineChange = { add: ['intel_iommu=on', 'iommu=pt'] };
const of = (tool: Fix['tool'], fixes: Fix[]): Pick<Fix, 'where' | 'line'>[] =>
  fixes.filter((f) => f.tool === tool).map(({ where, line }) => ({ where, line }));
const GRUB = 'etc/default/grub';

describe('GRUB', () => {
  const grub = (files: Record<string, string>, change = ON) => of('grub', cmdlineFix(look(files), change));

  test.each([
    ['GRUB_CMDLINE_LINUX_DEFAULT="quiet"', 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on iommu=pt"'],
    ["GRUB_CMDLINE_LINUX_DEFAULT='quiet'", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on iommu=pt"'],
    ['GRUB_CMDLINE_LINUX_DEFAULT=quiet', 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on iommu=pt"'],
    ['GRUB_CMDLINE_LINUX_DEFAULT=""', 'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=on iommu=pt"'],
    [
      '  export GRUB_CMDLINE_LINUX_DEFAULT="a=b" # mine',
      '  export GRUB_CMDLINE_LINUX_DEFAULT="a=b intel_iommu=on iommu=pt"',
    ],
    ['GRUB_CMDLINE_LINUX_DEFAULT=quiet # mine', 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on iommu=pt"'],
    [
      'GRUB_CMDLINE_LINUX_DEFAULT="acpi_osi=\'Linux\'"',
      'GRUB_CMDLINE_LINUX_DEFAULT="acpi_osi=\'Linux\' intel_iommu=on iommu=pt"',
    ],
    ['GRUB_CMDLINE_LINUX="rhgb quiet"', 'GRUB_CMDLINE_LINUX="rhgb quiet intel_iommu=on iommu=pt"'],
    [
      'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=off quiet"',
      'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=on quiet iommu=pt"',
    ],
    [
      'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=sm_on,off iommu=pt"',
      'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=on,sm_on iommu=pt"',
    ],
  ])('%s', (line, wanted) => {
    expect(grub({ [GRUB]: `GRUB_DEFAULT=0\n${line}\n` })).toEqual([{ where: '/etc/default/grub:2', line: wanted }]);
  });

  test('the line of the default entries is the one; a drop-in comes after the file; a rival in another line goes', () => {
    expect(
      grub({
        [GRUB]: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="intel_iommu=off x=y"\n',
        'etc/default/grub.d/50-cloud.cfg': 'GRUB_CMDLINE_LINUX_DEFAULT="console=ttyS0"\n',
        'etc/default/grub.d/readme': 'GRUB_CMDLINE_LINUX_DEFAULT="not read"\n',
      }),
    ).toEqual([
      { where: '/etc/default/grub:2', line: 'GRUB_CMDLINE_LINUX="x=y"' },
      {
        where: '/etc/default/grub.d/50-cloud.cfg:1',
        line: 'GRUB_CMDLINE_LINUX_DEFAULT="console=ttyS0 intel_iommu=on iommu=pt"',
      },
    ]);
  });

  test('a line with expansions is left alone and another added; one that has it all needs nothing', () => {
    const text = 'GRUB_CMDLINE_LINUX_DEFAULT="$(cat /x) quiet"\n';
    expect(grub({ [GRUB]: text })).toEqual([
      {
        where: '/etc/default/grub',
        line: 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=on iommu=pt"',
      },
    ]);
    expect(grub({ [GRUB]: "GRUB_CMDLINE_LINUX_DEFAULT='$X'\n" })[0]?.where).toBe('/etc/default/grub');
  });

  test('a variable is a word of the line', () => {
    expect(
      grub(
        { [GRUB]: 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT quiet"\n' },
        { add: ['iommu=pt'], remove: ['quiet'] },
      ),
    ).toEqual([
      { where: '/etc/default/grub:1', line: 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT iommu=pt"' },
    ]);
  });

  test('files that are right already: only what makes them take effect is left', () => {
    const [fix] = cmdlineFix(look({ [GRUB]: 'GRUB_CMDLINE_LINUX="intel_iommu=on iommu=pt"\n' }), ON);
    expect(fix).toMatchObject({
      where: '/etc/default/grub:1',
      after: expect.stringContaining('so already: update-grub'),
    });
  });

  test('words to take out, wherever they are', () => {
    const text = 'GRUB_CMDLINE_LINUX="intremap=off a"\nGRUB_CMDLINE_LINUX_DEFAULT="b intremap=off"\n';
    expect(grub({ [GRUB]: text }, { remove: ['intremap=off'] })).toEqual([
      { where: '/etc/default/grub:1', line: 'GRUB_CMDLINE_LINUX="a"' },
      { where: '/etc/default/grub:2', line: 'GRUB_CMDLINE_LINUX_DEFAULT="b"' },
    ]);
    expect(grub({ [GRUB]: 'A=1\n' }, { remove: ['intremap=off'] })).toEqual([
      { where: 'as root', line: expect.stringMatching(/^update-grub/) },
    ]);
  });

  test('no file: what the kernel was started with', () => {
    const fixes = cmdlineFix(look({ 'proc/cmdline': 'BOOT_IMAGE=/v root=UUID=1 ro quiet `x` iommu=off\n' }), ON);
    expect(of('grub', fixes)).toEqual([
      { where: '/etc/default/grub', line: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt intel_iommu=on"' },
    ]);
    expect(fixes.some((f) => f.present)).toBe(false);
  });

  test('where entries are made by kernel-install (Fedora) grubby does it', () => {
    const [fix] = cmdlineFix(look({ [GRUB]: 'GRUB_ENABLE_BLSCFG=true\nGRUB_CMDLINE_LINUX="a"\n' }), {
      add: ['iommu=pt'],
      remove: ['a'],
    });
    expect(fix?.after).toBe('grubby --update-kernel=ALL --remove-args=a --args=iommu=pt; then reboot');
  });
});

const NIX = '/etc/nixos/configuration.nix';
const CMD = 'etc/kernel/cmdline';
const OFF: CmdlineChange = { add: ['intel_iommu=on'], remove: ['intel_iommu=off'] };

/** Who is in charge, what is there, the change, and the fixes: tool, place, line, what makes it take effect. */
const ROWS: [string, Record<string, string>, CmdlineChange, [Fix['tool'], string, string, string][]][] = [
  [
    'ostree: neither GRUB nor its entries',
    {
      'run/ostree-booted': '',
      [GRUB]: 'GRUB_CMDLINE_LINUX="x"\nGRUB_ENABLE_BLSCFG=true\n',
      'proc/cmdline': 'BOOT_IMAGE=(hd0)/v ostree=/o intel_iommu=off,sm_on',
    },
    { add: ['intel_iommu=on', 'iommu=pt'] },
    [
      [
        'ostree',
        'as root',
        'rpm-ostree kargs --delete=intel_iommu=off,sm_on --append=intel_iommu=on,sm_on --append=iommu=pt',
        'reboot',
      ],
    ],
  ],
  [
    'bootc without rpm-ostree: the image and the entries',
    {
      'run/ostree-booted': '',
      'usr/bin/bootc': '',
      'usr/lib/bootc/kargs.d/10.toml': 'match-architectures = ["x86_64"]\nkargs = ["a", "intel_iommu=off", "b"]\n',
      'boot/loader/entries/ostree-1.conf': 'title x\noptions a intel_iommu=off b\n',
    },
    OFF,
    [
      [
        'bootc',
        '/usr/lib/bootc/kargs.d/10.toml:2',
        'kargs = ["a", "b"]',
        'build the image, bootc upgrade; then reboot',
      ],
      [
        'bootc',
        '/usr/lib/bootc/kargs.d/90-hostdev.toml',
        'kargs = ["intel_iommu=on"]',
        'build the image, bootc upgrade; then reboot',
      ],
      ['systemd-boot', '/boot/loader/entries/ostree-1.conf:2', 'options a b', 'reboot'],
    ],
  ],
  [
    'NixOS: a list over several lines, with a name in it',
    {
      'etc/NIXOS': '',
      'etc/nixos/configuration.nix': '{\n  boot.kernelParams = [\n    "quiet" "intel_iommu=off"\n    mine\n  ];\n}\n',
    },
    OFF,
    [
      [
        'nixos',
        `${NIX}:2`,
        '  boot.kernelParams = [ "quiet" "intel_iommu=on" mine ];',
        'nixos-rebuild boot; then reboot',
      ],
    ],
  ],
  [
    'NixOS: no list yet',
    { 'etc/NIXOS': '' },
    ON,
    [['nixos', NIX, 'boot.kernelParams = [ "intel_iommu=on" "iommu=pt" ];', 'nixos-rebuild boot; then reboot']],
  ],
  [
    'NixOS: the word comes from elsewhere',
    { 'etc/NIXOS': '' },
    { remove: ['intremap=off'] },
    [
      [
        'nixos',
        'as root',
        'grep -rnF -e intremap=off /etc/nixos',
        `${NIX} needs no other line: see what else says so; then nixos-rebuild boot; then reboot`,
      ],
    ],
  ],
  [
    'Unraid: every label of Linux',
    {
      'boot/syslinux/syslinux.cfg':
        'label Unraid OS\n  kernel /bzimage\n  append initrd=/bzroot\nlabel Memtest\n  append x\n',
    },
    ON,
    [['syslinux', '/boot/syslinux/syslinux.cfg:3', '  append initrd=/bzroot intel_iommu=on iommu=pt', 'reboot']],
  ],
  [
    'Proxmox by systemd-boot',
    {
      'etc/kernel/proxmox-boot-uuids': 'A\n',
      [GRUB]: 'GRUB_CMDLINE_LINUX="x"\n',
      [CMD]: 'root=ZFS=r boot=zfs\n',
      'proc/cmdline': 'initrd=\\EFI\\proxmox\\6.8\\initrd.img root=ZFS=r boot=zfs',
    },
    ON,
    [
      [
        'systemd-boot',
        '/etc/kernel/cmdline:1',
        'root=ZFS=r boot=zfs intel_iommu=on iommu=pt',
        'proxmox-boot-tool refresh; then reboot',
      ],
    ],
  ],
  [
    'Proxmox by GRUB',
    {
      'etc/pve/.version': '{}',
      [GRUB]: 'GRUB_CMDLINE_LINUX="x"\n',
      [CMD]: 'left over\n',
      'proc/cmdline': 'BOOT_IMAGE=/v root=/dev/mapper/pve-root',
    },
    { add: ['iommu=pt'] },
    [
      [
        'grub',
        '/etc/default/grub:1',
        'GRUB_CMDLINE_LINUX="x iommu=pt"',
        'update-grub && proxmox-boot-tool refresh; then reboot',
      ],
    ],
  ],
  [
    'Proxmox on ZFS by GRUB: both, either may be next',
    {
      'etc/kernel/proxmox-boot-uuids': 'A\n',
      [GRUB]: 'GRUB_CMDLINE_LINUX="x"\n',
      [CMD]: 'root=ZFS=r\n',
      'proc/cmdline': 'BOOT_IMAGE=/v root=ZFS=r',
    },
    { add: ['iommu=pt'] },
    [
      ['systemd-boot', '/etc/kernel/cmdline:1', 'root=ZFS=r iommu=pt', 'proxmox-boot-tool refresh; then reboot'],
      [
        'grub',
        '/etc/default/grub:1',
        'GRUB_CMDLINE_LINUX="x iommu=pt"',
        'update-grub && proxmox-boot-tool refresh; then reboot',
      ],
    ],
  ],
  [
    'kernelstub',
    {
      'etc/kernelstub/configuration': '{}',
      'boot/efi/loader/entries/Pop.conf': 'options x\n',
      'proc/cmdline': 'initrd=\\EFI\\Pop\\initrd.img quiet intel_iommu=off',
    },
    { ...OFF, add: ['intel_iommu=on', 'iommu=pt'] },
    [
      [
        'kernelstub',
        'as root',
        "kernelstub --delete-options=intel_iommu=off --add-options='intel_iommu=on iommu=pt'",
        'reboot',
      ],
    ],
  ],
  [
    'limine: each entry',
    { 'boot/limine.conf': 'timeout: 3\n/Arch\n    protocol: linux\n    cmdline: root=/x intel_iommu=off\n' },
    OFF,
    [['limine', '/boot/limine.conf:4', '    cmdline: root=/x intel_iommu=on', 'reboot']],
  ],
  [
    'limine by limine-entry-tool',
    {
      'boot/limine.conf': '    cmdline: root=/x\n',
      'etc/default/limine': 'ESP_PATH=/boot\nKERNEL_CMDLINE[default]+="quiet root=/x"\n',
    },
    ON,
    [
      [
        'limine',
        '/etc/default/limine:2',
        'KERNEL_CMDLINE[default]+="quiet root=/x intel_iommu=on iommu=pt"',
        'limine-update; then reboot',
      ],
    ],
  ],
  [
    'limine by limine-entry-tool, no line yet',
    { 'etc/default/limine': 'ESP_PATH=/boot\n' },
    ON,
    [
      [
        'limine',
        '/etc/default/limine',
        'KERNEL_CMDLINE[default]+=" intel_iommu=on iommu=pt"',
        'limine-update; then reboot',
      ],
    ],
  ],
];

describe('the one in charge gives the only fix', () => {
  test.each(ROWS)('%s', (_name, files, change, wanted) => {
    const fixes = cmdlineFix(look(files), change);
    expect(fixes.map((f) => [f.tool, f.where, f.line, f.after])).toEqual(wanted);
    expect(fixes.every((f) => f.present)).toBe(true);
  });

  test.each<[string, Record<string, string>, string]>([
    ['Debian', { 'etc/debian_version': '13', 'boot/loader/entries/a.conf': 'options x\n' }, 'update-grub'],
    ['by os-release', { 'etc/os-release': 'NAME=x\nID=linuxmint\nID_LIKE="ubuntu debian"\n' }, 'update-grub'],
    ['Fedora', { 'etc/os-release': 'ID=fedora\n', 'boot/loader/entries/a.conf': 'options x\n' }, 'grubby'],
    ['CentOS 7', { 'etc/redhat-release': '7' }, 'grub2-mkconfig -o /boot/grub2/grub.cfg'],
    [
      'CentOS 7 by UEFI',
      { 'etc/redhat-release': '7', 'etc/grub2-efi.cfg': '' },
      'grub2-mkconfig -o /etc/grub2-efi.cfg',
    ],
    ['openSUSE', { 'usr/lib/os-release': 'ID_LIKE="suse opensuse"\n' }, 'grub2-mkconfig -o /boot/grub2/grub.cfg'],
    ['Arch', { 'etc/arch-release': '' }, 'grub-mkconfig -o /boot/grub/grub.cfg'],
    ['unknown', {}, 'update-grub || grub2-mkconfig -o /boot/grub2/grub.cfg || grub-mkconfig -o /boot/grub/grub.cfg'],
  ])('GRUB of %s', (_name, files, command) => {
    const proc = 'BOOT_IMAGE=/v console=tty0 quiet';
    const fixes = cmdlineFix(look({ [GRUB]: 'GRUB_CMDLINE_LINUX="quiet"\n', 'proc/cmdline': proc, ...files }), {
      add: ['console=ttyS0'],
      remove: ['quiet'],
    });
    // grubby replaces all arguments of a key: those that stay are said again.
    const grubby = "grubby --update-kernel=ALL --remove-args=quiet --args='console=tty0 console=ttyS0'";
    expect(fixes.filter((f) => f.present).map((f) => [f.where, f.line, f.after])).toEqual([
      [
        '/etc/default/grub:1',
        'GRUB_CMDLINE_LINUX="console=ttyS0"',
        `${command === 'grubby' ? grubby : command}; then reboot`,
      ],
    ]);
    expect(fixes.map((f) => f.tool)).not.toContain('systemd-boot');
  });

  test('a kernel that the firmware was told the initrd of was not started by GRUB', () => {
    const files = { [GRUB]: 'A=1\n', [CMD]: 'root=/x\n', 'proc/cmdline': 'initrd=\\abc\\initrd root=/x' };
    expect(cmdlineFix(look(files), ON).map((f) => f.tool)).toEqual(['systemd-boot', 'cloud-init', 'juju']);
  });

  test('a shell reads hostile words of the command line as words', () => {
    const [fix] = cmdlineFix(look({ 'run/ostree-booted': '', 'proc/cmdline': 'intel_iommu=$(reboot)' }), OFF);
    expect(fix?.line).toBe("rpm-ostree kargs '--delete=intel_iommu=$(reboot)' '--append=intel_iommu=on,$(reboot)'");
  });
});

describe('words that may be said several times', () => {
  test('one of them is taken out or added, the others stay', () => {
    const files = { 'etc/kernel/cmdline': 'video=HDMI-1:d console=tty0 console=ttyS0\n' };
    const line = (change: CmdlineChange) => of('systemd-boot', cmdlineFix(look(files), change))[0]?.line;
    expect(line({ add: ['video=efifb:off', 'console=tty0'] })).toBe(
      'video=HDMI-1:d console=tty0 console=ttyS0 video=efifb:off',
    );
    expect(line({ remove: ['console=tty0'] })).toBe('video=HDMI-1:d console=ttyS0');
  });

  test('of a blacklist on the command line only the module in question', () => {
    const l = look({
      'proc/cmdline': 'modprobe.blacklist=nouveau,nvidiafb,snd-x a\n',
      'etc/kernel/cmdline': 'modprobe.blacklist=nouveau,nvidiafb,snd-x a\n',
    });
    const [first, second, third] = readDirectives(l.host).directives;
    const line = (...of: (Directive | undefined)[]) =>
      of
        .flatMap((d) => (d === undefined ? [] : removeDirective(l, d)))
        .flatMap((f) => ('cmdline' in f ? [f.cmdline] : []));
    expect(of('systemd-boot', cmdlineFix(l, merged(line(first))))[0]?.line).toBe('modprobe.blacklist=nvidiafb,snd-x a');
    expect(of('systemd-boot', cmdlineFix(l, merged(line(third))))[0]?.line).toBe(
      'modprobe.blacklist=nouveau,nvidiafb a',
    );
    // Each leaves two of three; together they leave one, and all three none.
    expect(of('systemd-boot', cmdlineFix(l, merged(line(first, third))))[0]?.line).toBe(
      'modprobe.blacklist=nvidiafb a',
    );
    expect(of('systemd-boot', cmdlineFix(l, merged(line(first, second, third))))[0]?.line).toBe('a');
  });
});

describe('systemd-boot', () => {
  const boot = (files: Record<string, string>, change = ON) => of('systemd-boot', cmdlineFix(look(files), change));

  test('the line of etc/kernel/cmdline', () => {
    expect(boot({ 'etc/kernel/cmdline': 'root=/dev/sda1   quiet\n' })).toEqual([
      { where: '/etc/kernel/cmdline:1', line: 'root=/dev/sda1 quiet intel_iommu=on iommu=pt' },
    ]);
    const [right] = cmdlineFix(look({ 'etc/kernel/cmdline': 'iommu=pt intel_iommu=on\n' }), ON).filter(
      (f) => f.present,
    );
    expect(right?.after).toContain('so already');
  });

  test('without it, the options of each entry, or what the kernel was started with', () => {
    expect(
      boot({
        'boot/loader/entries/a.conf': 'title A\nlinux /v\noptions root=/dev/sda1 quiet\n',
        'boot/loader/entries/b.txt': 'options x\n',
      }),
    ).toEqual([
      { where: '/boot/loader/entries/a.conf:3', line: 'options root=/dev/sda1 quiet intel_iommu=on iommu=pt' },
    ]);
    // Options of several lines are one list.
    expect(
      boot({ 'boot/loader/entries/a.conf': 'options root=/x intel_iommu=off\noptions quiet\n' }, { ...OFF, ...ON }),
    ).toEqual([
      { where: '/boot/loader/entries/a.conf:1', line: 'options root=/x' },
      { where: '/boot/loader/entries/a.conf:2', line: 'options quiet intel_iommu=on iommu=pt' },
    ]);
    expect(boot({ 'proc/cmdline': 'initrd=\\x root=/dev/sda1 a\n' }, { remove: ['a'] })).toEqual([
      { where: '/etc/kernel/cmdline', line: 'root=/dev/sda1' },
    ]);
    // Entries beside GRUB are GRUB's.
    expect(boot({ [GRUB]: 'A=1\n', 'boot/loader/entries/a.conf': 'options x\n', 'proc/cmdline': 'x\n' })).toEqual([]);
  });
});

describe('cloud-init', () => {
  const cloud = (fixes: Fix[]) => of('cloud-init', fixes)[0]?.line;

  test('files and commands as user-data', () => {
    expect(cloud(cmdlineFix(look({}), ON))).toBe(
      [
        'runcmd:',
        `  - ${JSON.stringify(
          `systemd-detect-virt --quiet --container || { mkdir -p /etc/default/grub.d && printf '%s\\n' 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=on iommu=pt"' > /etc/default/grub.d/90-hostdev.cfg; }`,
        )}`,
        "  - 'systemd-detect-virt --quiet --container || update-grub'",
      ].join('\n'),
    );
    expect(cloud(cmdlineFix(look({}), { remove: ['vfio-pci.ids=10de:1bb0'] }))).toBe(
      [
        'runcmd:',
        `  - "systemd-detect-virt --quiet --container || sed -i 's#\\\\bvfio-pci[.]ids=10de:1bb0\\\\b##' /etc/default/grub"`,
        "  - 'systemd-detect-virt --quiet --container || update-grub'",
      ].join('\n'),
    );
    expect(cloud(modprobeFix(look({}), 'options a b=1'))).toContain(" 'options a b=1' > /etc/modprobe.d/");
    expect(cloud(loadFix(look({}), ['vfio', 'vfio_pci']))).toContain(" 'vfio\\nvfio_pci' > /etc/modules-load.d/");
  });

  test('a word that a shell or YAML would read otherwise is put into none of them', () => {
    const fixes = cmdlineFix(look({ 'proc/cmdline': 'a\n' }), { remove: ["x';reboot;'", 'y=$(z)'] });
    expect(JSON.stringify(fixes)).not.toMatch(/reboot;|\$\(/);
  });
});

test('what is there is told from what is not', () => {
  const fixes = loadFix(look({ 'etc/initramfs-tools/modules': '', 'etc/modules-load.d/x.conf': '' }), ['vfio']);
  expect(fixes.map((f) => [f.tool, f.present])).toEqual([
    ['modules-load.d', true],
    ['initramfs-tools', true],
    ['dracut', false],
    ['mkinitcpio', false],
    ['cloud-init', false],
    ['juju', false],
  ]);
  const arch = loadFix(look({ 'etc/mkinitcpio.conf': '' }), ['vfio', 'vfio_pci']);
  expect(arch.find((f) => f.tool === 'mkinitcpio')).toMatchObject({
    where: '/etc/mkinitcpio.conf.d/hostdev.conf',
    line: 'MODULES+=(vfio vfio_pci)',
    present: true,
    after: 'mkinitcpio -P',
  });
});

test('modules on NixOS and ostree: what makes their initramfs', () => {
  const nixos = look({ 'etc/NIXOS': '', 'usr/bin/dracut': '' });
  expect(loadFix(nixos, ['vfio', 'vfio_pci']).map((f) => [f.where, f.line, f.after])).toEqual([
    [NIX, 'boot.initrd.kernelModules = [ "vfio" "vfio_pci" ];', 'nixos-rebuild boot; then reboot'],
  ]);
  expect(of('nixos', modprobeFix(nixos, 'options a b=1'))).toEqual([
    { where: NIX, line: 'boot.extraModprobeConfig = "options a b=1";' },
  ]);
  expect(rebuild(nixos)).toBe('nixos-rebuild boot');
  expect(rebuild(look({ 'run/ostree-booted': '', 'usr/bin/dracut': '' }))).toBe('rpm-ostree initramfs --enable');
  expect(rebuild(look({}))).toBe('update-initramfs -u, or dracut -f, or mkinitcpio -P');
});

describe('directives of modprobe.d', () => {
  test('read as kmod reads them', () => {
    const l = look({
      'etc/modprobe.d/b.conf':
        '# blacklist no\n\tblacklist  i2c-x # not a comment to kmod\noptions vfio-pci \\\n  ids=1:2\nalias a b\n',
      'etc/modprobe.d/c.txt': 'blacklist other\n',
      'usr/lib/modprobe.d/b.conf': 'blacklist hidden\n',
      'lib/modprobe.d/a.conf': 'softdep nouveau pre: vfio-pci',
      'proc/cmdline': 'modprobe.blacklist=a,b-c vfio_pci.ids=1:2 module_blacklist=d "x y" rd.driver.blacklist=e\n',
    });
    const { directives } = readDirectives(l.host);
    expect(directives.map((d) => `${d.kind} ${d.module} ${d.file}:${d.line}`)).toEqual([
      'softdep nouveau lib/modprobe.d/a.conf:1',
      'blacklist i2c_x etc/modprobe.d/b.conf:2',
      'options vfio_pci etc/modprobe.d/b.conf:3',
      'blacklist a proc/cmdline:0',
      'blacklist b_c proc/cmdline:0',
      'options vfio_pci proc/cmdline:0',
      'blacklist d proc/cmdline:0',
      'blacklist e proc/cmdline:0',
    ]);
    const [, first] = directives;
    expect(first && removeDirective(l, first)[0]).toMatchObject({
      tool: 'modprobe.d',
      where: '/etc/modprobe.d/b.conf:2',
      line: '# blacklist  i2c-x # not a comment to kmod',
    });
  });
});
