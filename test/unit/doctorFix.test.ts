/** The line to change, made from the files as they are. */
import { afterEach, describe, expect, test } from 'vitest';
import { loadNative } from '../../src/addon/load.ts';
import { type CmdlineChange, cmdlineFix, loadFix, modprobeFix, removeDirective } from '../../src/doctor/fix.ts';
import { Look } from '../../src/doctor/look.ts';
import type { Fix } from '../../src/doctor/table.ts';
import { Host } from '../../src/host/host.ts';
import { readDirectives } from '../../src/host/modprobe.ts';
import { scanInventory } from '../../src/pci/inventory.ts';
import { StaticHost } from '../mock/tree.ts';

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
    expect(fix?.after).toBe('grubby --update-kernel=ALL --args="iommu=pt" --remove-args="a"');
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
    const [first, , third] = readDirectives(l.host).directives;
    expect(first && of('systemd-boot', removeDirective(l, first))[0]?.line).toBe('a modprobe.blacklist=nvidiafb,snd-x');
    expect(third && of('systemd-boot', removeDirective(l, third))[0]?.line).toBe(
      'a modprobe.blacklist=nouveau,nvidiafb',
    );
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
    expect(boot({ 'proc/cmdline': 'initrd=\\x root=/dev/sda1 a\n' }, { remove: ['a'] })).toEqual([
      { where: '/etc/kernel/cmdline', line: 'root=/dev/sda1' },
    ]);
    // Entries beside GRUB are GRUB's.
    expect(
      boot({ [GRUB]: 'A=1\n', 'boot/loader/entries/a.conf': 'options x\n', 'proc/cmdline': 'x\n' })[0]?.where,
    ).toBe('/etc/kernel/cmdline');
  });
});

describe('cloud-init', () => {
  const cloud = (fixes: Fix[]) => of('cloud-init', fixes)[0]?.line;

  test('files and commands as user-data', () => {
    expect(cloud(cmdlineFix(look({}), ON))).toBe(
      [
        'write_files:',
        '  - path: /etc/default/grub.d/90-hostdev.cfg',
        `    content: 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=on iommu=pt"'`,
        'runcmd: [update-grub]',
      ].join('\n'),
    );
    expect(cloud(cmdlineFix(look({}), { remove: ['vfio-pci.ids=10de:1bb0'] }))).toBe(
      `runcmd: ["sed -i 's#\\\\bvfio-pci[.]ids=10de:1bb0\\\\b##' /etc/default/grub", update-grub]`,
    );
    expect(cloud(modprobeFix(look({}), 'options a b=1'))).toContain("content: 'options a b=1'");
    expect(cloud(loadFix(look({}), ['vfio', 'vfio_pci']))).toContain('content: "vfio\\nvfio_pci\\n"');
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
    ['cloud-init', false],
  ]);
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
