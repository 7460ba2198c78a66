/**
 * The line that changes the kernel command line: a table of who may be in charge of it, known by what is there. The
 * first that is in charge gives the only fix; where none of them is, it is GRUB or systemd-boot. Beside it, where
 * cloud-init makes such machines, the same for the next one.
 */
import {
  bootcFix,
  inLines,
  KERNEL_CMDLINE,
  kernelInstall,
  nixosParams,
  oneLine,
  PATTERNS,
  proxmoxFix,
  shellVariable,
  systemdBootFix,
  toldDifference,
} from './bootFiles.ts';
import { grubUserData, oneLineUserData, userData } from './cloudInit.ts';
import { type Change, type CmdlineChange, difference, key, merged, withoutReplacing } from './cmdlineWords.ts';
import { anyOf, distribution } from './distribution.ts';
import { NIXOS, OSTREE, shellWord, TRANSACTIONAL } from './fix.ts';
import { GRUB, grubFix } from './grub.ts';
import type { Look } from './look.ts';
import type { Fix } from './table.ts';

const PROXMOX = ['etc/kernel/proxmox-boot-uuids', 'usr/sbin/proxmox-boot-tool', 'etc/pve'];
const SYSLINUX = 'boot/syslinux/syslinux.cfg';
const EXTLINUX = ['boot/extlinux/extlinux.conf', 'boot/extlinux.conf'];
const U_BOOT = 'etc/default/u-boot';
const ALPINE = 'etc/update-extlinux.conf';
const RASPI_EXTRA = 'etc/default/raspi-extra-cmdline';
const RASPI_CMDLINE = ['boot/firmware/cmdline.txt', 'boot/firmware/current/cmdline.txt', 'boot/cmdline.txt'];
const FLASH_KERNEL = 'etc/default/flash-kernel';
const ARMBIAN = 'boot/armbianEnv.txt';
const ZIPL = 'etc/zipl.conf';
const REFIND = 'boot/refind_linux.conf';
const LIMINE_DEFAULT = 'etc/default/limine';
const LIMINE = [
  'boot',
  'boot/limine',
  'boot/EFI/limine',
  'boot/EFI/BOOT',
  'boot/efi/limine',
  'boot/efi/EFI/limine',
  'efi/limine',
].map((folder) => `${folder}/limine.conf`);

/** Who is in charge of the command line: known by one of these files (and by `also`, where it takes more). */
type Loader = { files: readonly string[]; also?: (look: Look) => boolean; fix: (look: Look, change: Change) => Fix[] };

/** GRUB says which image it started. */
const byGrub = (look: Look): boolean => look.has(GRUB) && look.cmdline.some((w) => w.startsWith('BOOT_IMAGE='));
const notByGrub = (look: Look): boolean => !byGrub(look);
const noGrub = (look: Look): boolean => !look.has(GRUB);

const IN_CHARGE: readonly Loader[] = [
  // bootc alone: arguments come with the image. Where rpm-ostree is, it keeps those of this host.
  {
    files: [OSTREE],
    also: (look) => look.has('usr/bin/bootc') && !look.has('usr/bin/rpm-ostree'),
    fix: bootcFix,
  },
  {
    files: [OSTREE],
    fix: toldDifference('ostree', ({ remove, add }) => [
      'rpm-ostree kargs',
      ...remove.map((w) => shellWord(`--delete=${w}`)),
      ...add.map((w) => shellWord(`--append=${w}`)),
    ]),
  },
  { files: [NIXOS], fix: nixosParams },
  { files: PROXMOX, fix: proxmoxFix },
  {
    files: ['etc/kernelstub/configuration'],
    fix: toldDifference('kernelstub', ({ remove, add }) => [
      'kernelstub',
      ...option('--delete-options', remove),
      ...option('--add-options', add),
    ]),
  },
  {
    files: [LIMINE_DEFAULT],
    fix: (look, change) => {
      const lines = inLines(
        look,
        'limine',
        [LIMINE_DEFAULT],
        PATTERNS.limineVariable,
        change,
        'limine-update; then reboot',
      );
      return lines.length > 0 ? lines : limineLine(withoutReplacing(change));
    },
  },
  { files: LIMINE, fix: (look, change) => inLines(look, 'limine', LIMINE, PATTERNS.limineCmdline, change, 'reboot') },
  // openSUSE with systemd-boot or GRUB's BLS: GRUB's own file is left there by neither.
  {
    files: ['usr/bin/sdbootutil'],
    also: (look) => look.has(KERNEL_CMDLINE) && notByGrub(look),
    fix: (look, change) => systemdBootFix(look, change, 'sdbootutil update-all-entries'),
  },
  {
    files: [SYSLINUX],
    also: noGrub,
    fix: (look, change) => inLines(look, 'syslinux', [SYSLINUX], PATTERNS.syslinuxAppend, change, 'reboot'),
  },
  {
    files: [ALPINE],
    also: noGrub,
    fix: (look, change) =>
      shellVariable(look, 'extlinux', ALPINE, 'default_kernel_opts', change, {
        after: 'update-extlinux; then reboot',
        otherwise: [],
      }),
  },
  // u-boot-update (u-boot-menu) writes extlinux.conf anew from its own file, or from etc/kernel/cmdline.
  { files: ['usr/sbin/u-boot-update', U_BOOT], also: notByGrub, fix: uBootFix },
  {
    files: EXTLINUX,
    also: notByGrub,
    fix: (look, change) => inLines(look, 'extlinux', EXTLINUX, PATTERNS.extlinuxAppend, change, 'reboot'),
  },
  // Debian's raspi-firmware writes cmdline.txt anew with each initramfs.
  { files: ['etc/default/raspi-firmware', RASPI_EXTRA], also: notByGrub, fix: raspiExtraFix },
  { files: RASPI_CMDLINE, also: notByGrub, fix: raspiFix },
  {
    files: [ARMBIAN],
    also: notByGrub,
    fix: (look, change) =>
      shellVariable(look, 'file', ARMBIAN, 'extraargs', change, { after: 'reboot', otherwise: [] }).map((f) => ({
        ...f,
        line: f.line.replaceAll('"', ''),
      })),
  },
  {
    files: [FLASH_KERNEL],
    also: notByGrub,
    fix: (look, change) =>
      shellVariable(look, 'file', FLASH_KERNEL, 'LINUX_KERNEL_CMDLINE', change, {
        after: 'flash-kernel; then reboot',
        otherwise: ['quiet'],
      }),
  },
  {
    files: [ZIPL],
    also: (look) => noGrub(look) && look.names('boot/loader/entries').length === 0,
    fix: (look, change) =>
      shellVariable(look, 'file', ZIPL, 'parameters', change, { after: 'zipl; then reboot', otherwise: [] }),
  },
  {
    files: [REFIND],
    also: noGrub,
    fix: (look, change) => inLines(look, 'refind', [REFIND], PATTERNS.refindOptions, change, 'reboot'),
  },
];

/** Lines that change the kernel command line. */
export function cmdlineFix(look: Look, wanted: CmdlineChange): Fix[] {
  const change = merged([wanted]);
  const loader = IN_CHARGE.find((l) => l.files.some((f) => look.has(f)) && l.also?.(look) !== false);
  if (loader !== undefined) return loader.fix(look, change);
  // A stub that the firmware started was told its initrd as a path of the ESP.
  const byStub = look.has(KERNEL_CMDLINE) && look.cmdline.some((w) => w.startsWith('initrd=\\'));
  const command = grubCommand(look, change);
  const install = kernelInstall(look);
  const either = [
    ...(byStub ? [] : grubFix(look, change, command)),
    ...(byGrub(look) ? [] : systemdBootFix(look, change, install)),
  ];
  const here = either.filter((f) => f.present);
  return [
    ...(here.length > 0 ? here : either),
    ...(byStub ? oneLineUserData(look, KERNEL_CMDLINE, change, install) : grubCloud(look, change, command)),
  ];
}

/** grubby writes the entries itself; GRUB's file is for those that come later. */
const grubCloud = (look: Look, change: Change, command: string): Fix[] =>
  command.startsWith('grubby ')
    ? userData(look, { commands: [command] })
    : grubUserData(look, change, command === ANY_GRUB ? 'update-grub' : command);

const ANY_GRUB = anyOf((d) => d.grub);

function grubCommand(look: Look, change: Change): string {
  if (look.has(TRANSACTIONAL)) return 'transactional-update grub.cfg';
  const here = distribution(look);
  const says = /^\s*GRUB_ENABLE_BLSCFG=["']?(\w+)/m.exec(look.text(GRUB) ?? '')?.[1];
  const entries = (here === null || here.entries === true) && look.names('boot/loader/entries').length > 0;
  if (says === 'true' || (says === undefined && entries)) return grubby(look, change);
  // Where GRUB of the firmware reads another file, a link in etc says which (CentOS 7).
  if (here?.entries && look.has('etc/grub2-efi.cfg')) return 'grub2-mkconfig -o /etc/grub2-efi.cfg';
  return here?.grub ?? ANY_GRUB;
}

/**
 * An argument that is given takes the place of all that have its key (grubby-bls): the others of that key are given
 * again.
 */
function grubby(look: Look, change: Change): string {
  const { remove, add, all } = difference(look.cmdline, change);
  const flat = withoutReplacing(change);
  const keys = new Set(add.map(key));
  return [
    'grubby --update-kernel=ALL',
    ...option('--remove-args', remove.length > 0 ? remove : flat.remove),
    ...option('--args', add.length > 0 ? all.filter((w) => keys.has(key(w))) : flat.add),
  ].join(' ');
}

const option = (name: string, words: readonly string[]): string[] =>
  words.length === 0 ? [] : [`${name}=${shellWord(words.join(' '))}`];

const limineLine = ({ add }: Change): Fix[] =>
  add.length === 0
    ? []
    : [
        {
          tool: 'limine',
          where: `/${LIMINE_DEFAULT}`,
          line: `KERNEL_CMDLINE[default]+=" ${add.join(' ')}"`,
          present: true,
          after: 'limine-update; then reboot',
        },
      ];

/** u-boot-update takes U_BOOT_PARAMETERS; without it etc/kernel/cmdline, and without that "ro quiet". */
function uBootFix(look: Look, change: Change): Fix[] {
  const after = 'u-boot-update; then reboot';
  const set = /^\s*U_BOOT_PARAMETERS=/m.test(look.text(U_BOOT) ?? '');
  if (!set && look.has(KERNEL_CMDLINE)) return oneLine(look, 'extlinux', KERNEL_CMDLINE, change, after);
  return shellVariable(look, 'extlinux', U_BOOT, 'U_BOOT_PARAMETERS', change, { after, otherwise: ['ro', 'quiet'] });
}

function raspiExtraFix(look: Look, change: Change): Fix[] {
  const after = 'update-initramfs -u; then reboot';
  const { add } = withoutReplacing(change);
  return look.has(RASPI_EXTRA)
    ? oneLine(look, 'file', RASPI_EXTRA, change, after)
    : [{ tool: 'file', where: `/${RASPI_EXTRA}`, line: add.join(' '), present: true, after }];
}

/** Raspberry Pi's firmware reads the line itself. */
function raspiFix(look: Look, change: Change): Fix[] {
  const file = RASPI_CMDLINE.find((f) => look.has(f)) ?? RASPI_CMDLINE[0] ?? '';
  return [...oneLine(look, 'file', file, change, 'reboot'), ...oneLineUserData(look, file, change, null)];
}
