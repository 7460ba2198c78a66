/**
 * The line that changes the kernel command line: a table of who may be in charge of it, known by what is there. The first that is in charge gives the only fix; where none
 * of them is, it is GRUB or systemd-boot, and cloud-init on machines that are made by it.
 */
import type { Directive } from '../host/modprobe.ts';
import { BY_LOADER, type CmdlineChange, changed, difference, key, WORD } from './cmdlineWords.ts';
import { cloud, commandFix, NIXOS, NIXOS_AFTER, NIXOS_FILE, OSTREE, removeLine, shellWord } from './fix.ts';
import { GRUB, GRUB_DROPINS, grubFix } from './grub.ts';
import type { Look } from './look.ts';
import type { Fix } from './table.ts';

const KERNEL_CMDLINE = 'etc/kernel/cmdline';
const LOADER_ENTRIES = ['boot/loader/entries', 'efi/loader/entries', 'boot/efi/loader/entries'];
const PROXMOX = ['etc/kernel/proxmox-boot-uuids', 'usr/sbin/proxmox-boot-tool', 'etc/pve'];
const SYSLINUX = 'boot/syslinux/syslinux.cfg';
const BOOTC_KARGS = 'usr/lib/bootc/kargs.d';
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

type Change = Required<CmdlineChange>;

/** Who is in charge of the command line: known by one of these files (and by `also`, where it takes more). */
type Loader = { files: readonly string[]; also?: (look: Look) => boolean; fix: (look: Look, change: Change) => Fix[] };

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
  { files: [NIXOS], fix: nixosFix },
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
      const lines = inLines(look, 'limine', [LIMINE_DEFAULT], LIMINE_VARIABLE, change, 'limine-update; then reboot');
      return lines.length > 0 ? lines : limineLine(change);
    },
  },
  { files: LIMINE, fix: (look, change) => inLines(look, 'limine', LIMINE, LIMINE_CMDLINE, change, 'reboot') },
  {
    files: [SYSLINUX],
    also: (look) => !look.has(GRUB),
    fix: (look, change) => inLines(look, 'syslinux', [SYSLINUX], SYSLINUX_APPEND, change, 'reboot'),
  },
];

/** How GRUB is made to follow its files, by distribution; where none of them is known to be here, the commands one after the other. */
const GRUB_COMMANDS: readonly { command: string; ids: readonly string[]; files: readonly string[] }[] = [
  { command: 'update-grub', ids: ['debian', 'ubuntu'], files: ['etc/debian_version', 'usr/sbin/update-grub'] },
  {
    command: 'grub2-mkconfig -o /boot/grub2/grub.cfg',
    ids: ['fedora', 'rhel', 'centos', 'suse', 'opensuse'],
    files: ['etc/redhat-release', 'boot/grub2', 'usr/sbin/grub2-mkconfig'],
  },
  {
    command: 'grub-mkconfig -o /boot/grub/grub.cfg',
    ids: ['arch', 'gentoo', 'void', 'alpine'],
    files: ['etc/arch-release', 'usr/bin/grub-mkconfig', 'boot/grub'],
  },
];
const GRUB2 = GRUB_COMMANDS[1];

/** Lines that change the kernel command line. */
export function cmdlineFix(look: Look, change: CmdlineChange): Fix[] {
  const clean = {
    add: (change.add ?? []).filter((w) => WORD.test(w)),
    remove: (change.remove ?? []).filter((w) => WORD.test(w)),
  };
  const loader = IN_CHARGE.find((l) => l.files.some((f) => look.has(f)) && l.also?.(look) !== false);
  if (loader !== undefined) return loader.fix(look, clean);
  // GRUB says which image it started; a stub that the firmware started was told its initrd as a path of the ESP.
  const byGrub = look.has(GRUB) && look.cmdline.some((w) => w.startsWith('BOOT_IMAGE='));
  const byStub = look.has(KERNEL_CMDLINE) && look.cmdline.some((w) => w.startsWith('initrd=\\'));
  return [
    ...(byStub ? [] : grubFix(look, clean, grubCommand(look, clean))),
    ...(byGrub ? [] : systemdBootFix(look, clean, KERNEL_INSTALL)),
    ...cloudCmdline(look, clean),
  ];
}

function grubCommand(look: Look, change: Change): string {
  const release = look.text('etc/os-release') ?? look.text('usr/lib/os-release') ?? '';
  const ids = [...release.matchAll(/^ID(?:_LIKE)?=["']?([\w .-]*)/gm)].flatMap(([, words = '']) => words.split(' '));
  const here =
    GRUB_COMMANDS.find((g) => g.ids.some((id) => ids.includes(id))) ??
    GRUB_COMMANDS.find((g) => g.files.some((f) => look.has(f)));
  const says = /^\s*GRUB_ENABLE_BLSCFG=["']?(\w+)/m.exec(look.text(GRUB) ?? '')?.[1];
  const entries = (here === undefined || here === GRUB2) && look.names('boot/loader/entries').length > 0;
  if (says === 'true' || (says === undefined && entries)) return grubby(look, change);
  return here?.command ?? GRUB_COMMANDS.map((g) => g.command).join(' || ');
}

/** An argument that is given takes the place of all that have its key (grubby-bls): the others of that key are given again. */
function grubby(look: Look, change: Change): string {
  const { remove, add, all } = difference(look.cmdline, change);
  const keys = new Set(add.map(key));
  return [
    'grubby --update-kernel=ALL',
    ...option('--remove-args', remove.length > 0 ? remove : change.remove),
    ...option('--args', add.length > 0 ? all.filter((w) => keys.has(key(w))) : change.add),
  ].join(' ');
}

const option = (name: string, words: readonly string[]): string[] =>
  words.length === 0 ? [] : [`${name}=${shellWord(words.join(' '))}`];

/** For a tool that is told what goes and what comes, from what the kernel was started with. */
function toldDifference(
  tool: Fix['tool'],
  command: (d: { remove: string[]; add: string[] }) => string[],
): Loader['fix'] {
  return (look, change) => {
    const d = difference(
      look.cmdline.filter((w) => !BY_LOADER.test(w)),
      change,
    );
    return [{ ...commandFix(command(d).join(' '), 'reboot'), tool }];
  };
}

/** Lines of files that are given back with the change in them; `pattern` is what stands before the words, the words, and what stands after. */
function inLines(
  look: Look,
  tool: Fix['tool'],
  files: readonly string[],
  pattern: RegExp,
  change: Change,
  after: string,
): Fix[] {
  return files.flatMap((file) =>
    (look.text(file) ?? '')
      .split('\n')
      .slice(0, 1024)
      .flatMap((raw, i): Fix[] => {
        const [, head = '', text, tail = ''] = raw.length > 8192 ? [] : (pattern.exec(raw) ?? []);
        if (text === undefined) return [];
        const words = text.split(/\s+/).filter(Boolean);
        const line = changed(words, change).join(' ');
        if (line === words.join(' ')) return [];
        return [{ tool, where: `/${file}:${i + 1}`, line: `${head}${line}${tail}`, present: true, after }];
      }),
  );
}

/** Type 1 boot loader entries (BOOT.md of systemd). */
const ENTRY_OPTIONS = /^(options\s+)(.*)$/;
/** A label of Linux: memtest has no initrd. */
const SYSLINUX_APPEND = /^(\s*append\s+)(.*\binitrd=.*?)\s*$/i;
const LIMINE_CMDLINE = /^(\s*(?:kernel_)?cmdline:\s*)(.*?)\s*$/i;
/** limine-entry-tool's: the default, or one kernel's. */
const LIMINE_VARIABLE = /^(\s*KERNEL_CMDLINE\[[^\]]*\]\+?=")([^"`$\\]*)(".*)$/;

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

/** Entries in the folders that systemd-boot and GRUB read. */
const loaderEntries = (look: Look, change: Change): Fix[] => {
  const files = LOADER_ENTRIES.flatMap((folder) =>
    look
      .names(folder)
      .filter((n) => n.endsWith('.conf'))
      .map((n) => `${folder}/${n}`),
  );
  return inLines(look, 'systemd-boot', files.slice(0, 16), ENTRY_OPTIONS, change, 'reboot');
};

/** bootc merges the image's kargs.d into the entries and carries what else they have along; a word that is to go goes from both. */
function bootcFix(look: Look, { add, remove }: Change): Fix[] {
  const after = 'build the image, bootc upgrade; then reboot';
  const files = look.names(BOOTC_KARGS).filter((n) => n.endsWith('.toml'));
  const gone = files.flatMap((n) =>
    (look.text(`${BOOTC_KARGS}/${n}`) ?? '').split('\n').flatMap((raw, i): Fix[] => {
      const line = remove.reduce((l, w) => l.replaceAll(`"${w}"`, ''), raw);
      if (line === raw || raw.length > 8192) return [];
      const tidy = line.replace(/(?:,\s*)+(?=[,\]])|(?<=\[)\s*(?:,\s*)+/g, '');
      return [{ tool: 'bootc', where: `/${BOOTC_KARGS}/${n}:${i + 1}`, line: tidy, present: true, after }];
    }),
  );
  const line = `kargs = [${add.map((w) => `"${w}"`).join(', ')}]`;
  const come: Fix = { tool: 'bootc', where: `/${BOOTC_KARGS}/90-hostdev.toml`, line, present: true, after };
  return [
    ...gone,
    ...(add.length > 0 ? [come] : []),
    ...(remove.length > 0 ? loaderEntries(look, { add: [], remove }) : []),
  ];
}

/** boot.kernelParams of configuration.nix: its list with the change in it, or one to add. Lists of several modules are joined. */
function nixosFix(look: Look, change: Change): Fix[] {
  const text = look.text(NIXOS_FILE) ?? '';
  const found = /^([ \t]*boot\.kernelParams\s*=\s*)\[([^\]]{0,8192})\]\s*;/m.exec(text);
  const items = [...(found?.[2] ?? '').matchAll(/"([^"]*)"|([^\s"]+)/g)];
  const bare = new Set(items.flatMap(([, , word]) => word ?? []));
  const words = items.map(([, quoted, word = '']) => quoted ?? word);
  const now = changed(words, change);
  if (now.join(' ') === words.join(' '))
    return [
      {
        ...commandFix(
          `grep -rnF ${[...change.remove, ...change.add].map((w) => `-e ${shellWord(w)}`).join(' ')} /etc/nixos`,
          `/${NIXOS_FILE} needs no other line: see what else says so; then ${NIXOS_AFTER}`,
        ),
        tool: 'nixos',
      },
    ];
  const list = now.map((w) => (bare.has(w) ? w : `"${w}"`)).join(' ');
  const at = found === null ? '' : `:${text.slice(0, found.index).split('\n').length}`;
  const line = `${found?.[1] ?? 'boot.kernelParams = '}[ ${list} ];`;
  return [{ tool: 'nixos', where: `/${NIXOS_FILE}${at}`, line, present: true, after: NIXOS_AFTER }];
}

/** Proxmox: systemd-boot where proxmox-boot-tool's own initrd was started, or where the root is ZFS; else GRUB. Both where that cannot be told. */
function proxmoxFix(look: Look, change: Change): Fix[] {
  const refresh = 'proxmox-boot-tool refresh';
  const words = look.cmdline;
  const stub = words.some((w) => w.startsWith('initrd=\\EFI\\proxmox'));
  const zfs = words.some((w) => w.startsWith('root=ZFS'));
  const grub = !stub && (!zfs || (look.has(GRUB) && words.some((w) => w.startsWith('BOOT_IMAGE='))));
  return [
    ...(stub || zfs ? systemdBootFix(look, change, refresh) : []),
    // GRUB on the ESPs, or on the disk as anywhere: each command passes over what is the other's.
    ...(grub ? grubFix(look, change, `update-grub && ${refresh}`) : []),
  ];
}

const KERNEL_INSTALL = 'kernel-install add-all (systemd 255), or reinstall the kernel package';

function systemdBootFix(look: Look, change: Change, command: string): Fix[] {
  const after = `${command}; then reboot`;
  const text = look.text(KERNEL_CMDLINE);
  if (text !== null) {
    const words = text.split(/\s+/).filter(Boolean);
    const line = changed(words, change).join(' ');
    const already = line === words.join(' ') ? 'the line is so already: ' : '';
    return [{ tool: 'systemd-boot', where: `/${KERNEL_CMDLINE}:1`, line, present: true, after: `${already}${after}` }];
  }
  const entries = look.has(GRUB) ? [] : loaderEntries(look, change);
  if (entries.length > 0) return entries;
  const now = changed(
    look.cmdline.filter((w) => !BY_LOADER.test(w)),
    change,
  );
  return [{ tool: 'systemd-boot', where: `/${KERNEL_CMDLINE}`, line: now.join(' '), present: false, after }];
}

/** A drop-in of GRUB for machines that are made by cloud-init (MAAS, Juju's cloudinit-userdata): the file is read after /etc/default/grub. */
function cloudCmdline(look: Look, change: Change): Fix[] {
  const steps = [
    ...change.remove.map((w) => `"sed -i 's#\\\\b${w.replace(/[.+]/g, '[$&]')}\\\\b##' /${GRUB}"`),
    'update-grub',
  ];
  const files =
    change.add.length === 0
      ? []
      : [
          'write_files:',
          `  - path: /${GRUB_DROPINS}/90-hostdev.cfg`,
          `    content: 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT ${change.add.join(' ')}"'`,
        ];
  if (files.length === 0 && change.remove.length === 0) return [];
  return [cloud(look, [...files, `runcmd: [${steps.join(', ')}]`], 'deploy the machine again, or reboot after runcmd')];
}

/** Takes a directive out, from wherever it stands; of a list on the command line only what it is about. */
export function removeDirective(look: Look, d: Directive): Fix[] {
  if (d.file !== look.host.cmdline) return [removeLine(look, d)];
  const [, head = '', list = ''] = d.kind === 'blacklist' ? (/^([^=]*=)(.*)$/.exec(d.text) ?? []) : [];
  const others = list.split(',').filter((m) => m !== '' && m.replaceAll('-', '_') !== d.module);
  return cmdlineFix(look, { remove: [d.text], add: others.length > 0 ? [head + others.join(',')] : [] });
}
