/**
 * The line to change, for each tool that may own it. Lines are made from the files as they are: an existing line is given back with the change in it; where the host has
 * no such file, the line to add. Nothing is written.
 */
import type { Directive } from '../host/modprobe.ts';
import type { Look } from './look.ts';
import type { Fix } from './table.ts';

const GRUB = 'etc/default/grub';
const GRUB_DROPINS = 'etc/default/grub.d';
const KERNEL_CMDLINE = 'etc/kernel/cmdline';
const LOADER_ENTRIES = ['boot/loader/entries', 'efi/loader/entries', 'boot/efi/loader/entries'];
const MODPROBE = 'etc/modprobe.d';
const MODULES_LOAD = 'etc/modules-load.d';
const INITRAMFS_TOOLS = 'etc/initramfs-tools/modules';
const DRACUT = 'etc/dracut.conf.d';
const CLOUD = 'etc/cloud/cloud.cfg';

/** What makes an initramfs, and by what it is known to be here. */
const INITRAMFS: readonly { command: string; files: readonly string[] }[] = [
  { command: 'update-initramfs -u', files: ['etc/initramfs-tools', 'usr/sbin/update-initramfs'] },
  { command: 'dracut -f', files: ['etc/dracut.conf.d', 'etc/dracut.conf', 'usr/bin/dracut', 'usr/sbin/dracut'] },
  { command: 'mkinitcpio -P', files: ['etc/mkinitcpio.conf', 'etc/mkinitcpio.d', 'usr/bin/mkinitcpio'] },
];

/** What the initramfs must be made anew with after a change to modules or their options; all ways where none is known to be here. */
export function rebuild(look: Look): string {
  const here = INITRAMFS.filter((i) => i.files.some((f) => look.has(f)));
  return (here.length > 0 ? here : INITRAMFS).map((i) => i.command).join(', or ');
}

/** A word that a shell reads as it is. */
export const shellWord = (word: string): string =>
  /^[\w.,:=@/+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

/** What is to be on the kernel command line: words to add (one that has the same key is replaced) and words to take out. */
export type CmdlineChange = { add?: readonly string[]; remove?: readonly string[] };

/** Only such words are put into lines that a shell or YAML reads. */
const WORD = /^[\w.,:=@/+-]{1,256}$/;

const key = (word: string): string => word.split('=', 1)[0] ?? word;

/**
 * Options of which one word counts, its value a list by commas (drivers/iommu/intel/iommu.c, drivers/iommu/amd/init.c, arch/x86/kernel/pci-dma.c): ours takes the place of
 * the word that is there, whose other values stay. All others may be said several times, and theirs are left alone.
 */
const ONCE = new Set(['intel_iommu', 'amd_iommu', 'iommu']);

/** The words of a command line with the change made, each in the place of the word that it replaces. */
function changed(words: readonly string[], { add = [], remove = [] }: CmdlineChange): string[] {
  const left = new Set(add);
  const kept = words.flatMap((w) => {
    const wanted = ONCE.has(key(w)) ? add.find((a) => key(a) === key(w)) : add.find((a) => a === w);
    if (wanted === undefined) return remove.includes(w) ? [] : [w];
    // Said twice is once too often: the first place is kept.
    if (!left.delete(wanted)) return [];
    if (w === wanted) return [w];
    const value = wanted.slice(key(wanted).length + 1);
    const others = w
      .slice(key(w).length + 1)
      .split(',')
      // A word that is to go loses what switches off (igfx_off too), and keeps the rest.
      .filter((v) => !['', 'on', 'off', value].includes(v) && !(remove.includes(w) && v.endsWith('_off')));
    return [`${key(wanted)}=${[value, ...others].join(',')}`];
  });
  return [...kept, ...left];
}

/** Lines for GRUB, systemd-boot and cloud-init that change the kernel command line. */
export function cmdlineFix(look: Look, change: CmdlineChange): Fix[] {
  const clean = {
    add: (change.add ?? []).filter((w) => WORD.test(w)),
    remove: (change.remove ?? []).filter((w) => WORD.test(w)),
  };
  return [...grubFix(look, clean), ...systemdBootFix(look, clean), ...cloudCmdline(look, clean)];
}

/** A shell assignment without commands in it: what GRUB's files usually hold. In double quotes a variable, its own above all, is one of the words. */
const GRUB_LINE =
  /^(\s*(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)=)(?:"((?:[^"`$\\]|\$\w)*)"|'([^'"`$\\]*)'|([\w.,:=@/+-]*))\s*(?:#.*)?$/;

function grubFix(look: Look, change: Required<CmdlineChange>): Fix[] {
  const main = look.text(GRUB);
  const bls = main !== null && /^\s*GRUB_ENABLE_BLSCFG=["']?true/m.test(main);
  const after = bls
    ? `grubby --update-kernel=ALL${argument('args', change.add)}${argument('remove-args', change.remove)}`
    : 'update-grub (Debian, Ubuntu) or grub2-mkconfig -o /boot/grub2/grub.cfg, then reboot';
  const files = [
    GRUB,
    ...look
      .names(GRUB_DROPINS)
      .filter((n) => n.endsWith('.cfg'))
      .map((n) => `${GRUB_DROPINS}/${n}`),
  ];
  const lines = files.flatMap((file) => assignments(file, look.text(file) ?? ''));
  const fixes: Fix[] = [];
  // What is to go may stand in several lines; what is to come goes into the one that counts last.
  const target = lines.findLast((l) => l.variable === 'GRUB_CMDLINE_LINUX_DEFAULT') ?? lines.at(-1);
  for (const l of lines) {
    // Elsewhere a word of the same key would come after ours, or before it: it goes.
    const same =
      l === target ? [] : l.words.filter((w) => ONCE.has(key(w)) && change.add.some((a) => key(a) === key(w)));
    const add = l === target ? change.add.filter((a) => ONCE.has(key(a)) || !isElsewhere(lines, l, a)) : [];
    const words = changed(l.words, { add, remove: [...change.remove, ...same] });
    if (words.join(' ') === l.words.join(' ')) continue;
    fixes.push({
      tool: 'grub',
      where: `/${l.file}:${l.line}`,
      line: `${l.head}"${words.join(' ')}"`,
      present: true,
      after,
    });
  }
  if (fixes.length > 0) return fixes;
  if (main !== null) return [nothingToChange(lines, change, after)];
  // Nobody knows what the file would say: what the kernel was started with, less what GRUB adds by itself.
  const words = changed(
    look.cmdline.filter((w) => !BY_LOADER.test(w) && !/^(?:root=.*|ro|rw)$/.test(w)),
    change,
  );
  const line = `GRUB_CMDLINE_LINUX_DEFAULT="${words.filter((w) => WORD.test(w)).join(' ')}"`;
  return [{ tool: 'grub', where: `/${GRUB}`, line, present: false, after }];
}

const isElsewhere = (lines: readonly Assignment[], here: Assignment, word: string): boolean =>
  lines.some((l) => l !== here && l.words.includes(word));

/** What a boot loader puts on the command line by itself. */
const BY_LOADER = /^(?:BOOT_IMAGE|initrd)=/;

/** GRUB's files need no other line, and yet the kernel was not started so; or they hold none that can be given back changed. */
function nothingToChange(lines: readonly Assignment[], { add }: Required<CmdlineChange>, after: string): Fix {
  if (add.length === 0)
    return {
      ...commandFix(
        'update-grub || grub2-mkconfig -o /boot/grub2/grub.cfg',
        "GRUB's files do not have the word any more; then reboot",
      ),
      tool: 'grub',
    };
  const l = lines.find((o) => add.some((a) => o.words.includes(a)));
  if (l !== undefined && add.every((a) => lines.some((o) => o.words.includes(a))))
    return {
      tool: 'grub',
      where: `/${l.file}:${l.line}`,
      line: `${l.head}"${l.words.join(' ')}"`,
      present: true,
      after: `the line is so already: ${after}`,
    };
  return {
    tool: 'grub',
    where: `/${GRUB}`,
    line: `GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT ${add.join(' ')}"`,
    present: true,
    after,
  };
}

const argument = (name: string, words: readonly string[]): string =>
  words.length === 0 ? '' : ` --${name}="${words.join(' ')}"`;

type Assignment = { file: string; line: number; head: string; variable: string; words: string[] };

function assignments(file: string, text: string): Assignment[] {
  return text
    .split('\n')
    .slice(0, 4096)
    .flatMap((raw, i): Assignment[] => {
      const [, head, variable, double, single, bare] = raw.length > 8192 ? [] : (GRUB_LINE.exec(raw) ?? []);
      if (head === undefined || variable === undefined) return [];
      const value = double ?? single ?? bare ?? '';
      return [{ file, line: i + 1, head, variable, words: value.split(/\s+/).filter(Boolean) }];
    });
}

function systemdBootFix(look: Look, change: Required<CmdlineChange>): Fix[] {
  const after = 'kernel-install add-all (systemd 255), or reinstall the kernel package; then reboot';
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

/** `options` lines of the entries that systemd-boot reads; files of a type 1 boot loader entry (BOOT.md of systemd). */
function loaderEntries(look: Look, change: Required<CmdlineChange>): Fix[] {
  const files = LOADER_ENTRIES.flatMap((folder) =>
    look
      .names(folder)
      .filter((n) => n.endsWith('.conf'))
      .map((n) => `${folder}/${n}`),
  ).slice(0, 16);
  return files.flatMap((file) =>
    (look.text(file) ?? '')
      .split('\n')
      .slice(0, 256)
      .flatMap((raw, i): Fix[] => {
        const words = /^options\s+(.*)$/.exec(raw)?.[1]?.split(/\s+/).filter(Boolean);
        if (words === undefined) return [];
        const line = changed(words, change);
        if (line.join(' ') === words.join(' ')) return [];
        return [
          {
            tool: 'systemd-boot',
            where: `/${file}:${i + 1}`,
            line: `options ${line.join(' ')}`,
            present: true,
            after: 'reboot',
          },
        ];
      }),
  );
}

/** A drop-in of GRUB for machines that are made by cloud-init (MAAS, Juju's cloudinit-userdata): the file is read after /etc/default/grub. */
function cloudCmdline(look: Look, change: Required<CmdlineChange>): Fix[] {
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

const cloud = (look: Look, lines: readonly string[], after: string): Fix => ({
  tool: 'cloud-init',
  where: 'user-data (Juju: model-config cloudinit-userdata)',
  line: lines.join('\n'),
  present: look.has(CLOUD),
  after,
});

/** A line for modprobe.d, and the same for cloud-init. */
export function modprobeFix(look: Look, line: string, file = 'hostdev.conf'): Fix[] {
  return [
    {
      tool: 'modprobe.d',
      where: `/${MODPROBE}/${file}`,
      line,
      present: look.has(MODPROBE),
      after: `${rebuild(look)}; then reload the module or reboot`,
    },
    cloud(
      look,
      ['write_files:', `  - path: /${MODPROBE}/${file}`, `    content: '${line}'`, 'runcmd: [update-initramfs -u]'],
      'deploy the machine again',
    ),
  ];
}

/** Lines that load modules at boot, and early from the initramfs. */
export function loadFix(look: Look, modules: readonly string[]): Fix[] {
  return [
    {
      tool: 'modules-load.d',
      where: `/${MODULES_LOAD}/hostdev.conf`,
      line: modules.join('\n'),
      present: look.has(MODULES_LOAD),
      after: 'systemctl restart systemd-modules-load',
    },
    {
      tool: 'initramfs-tools',
      where: `/${INITRAMFS_TOOLS}`,
      line: modules.join('\n'),
      present: look.has(INITRAMFS_TOOLS),
      after: 'update-initramfs -u',
    },
    {
      tool: 'dracut',
      where: `/${DRACUT}/90-hostdev.conf`,
      line: `force_drivers+=" ${modules.join(' ')} "`,
      present: look.has(DRACUT),
      after: 'dracut -f',
    },
    cloud(
      look,
      ['write_files:', `  - path: /${MODULES_LOAD}/hostdev.conf`, `    content: "${modules.join('\\n')}\\n"`],
      'deploy the machine again',
    ),
  ];
}

/** A line that is to go: given as a comment, so that the file keeps what it said. */
export function removeLine(look: Look, where: { file: string; line: number; text: string }): Fix {
  const tool = where.file.startsWith('etc/initramfs-tools')
    ? 'initramfs-tools'
    : where.file.includes('modprobe.d')
      ? 'modprobe.d'
      : 'file';
  return {
    tool,
    where: `/${where.file}:${where.line}`,
    line: `# ${where.text}`,
    present: true,
    after: tool === 'file' ? 'reboot' : `${rebuild(look)}; then reboot`,
  };
}

/** Takes a directive out, from wherever it stands; of a list on the command line only what it is about. */
export function removeDirective(look: Look, d: Directive): Fix[] {
  if (d.file !== look.host.cmdline) return [removeLine(look, d)];
  const [, head = '', list = ''] = d.kind === 'blacklist' ? (/^([^=]*=)(.*)$/.exec(d.text) ?? []) : [];
  const others = list.split(',').filter((m) => m !== '' && m.replaceAll('-', '_') !== d.module);
  return cmdlineFix(look, { remove: [d.text], add: others.length > 0 ? [head + others.join(',')] : [] });
}

/** A setting of the firmware: no file holds it. */
export const firmwareFix = (line: string): Fix => ({
  tool: 'firmware',
  where: 'firmware settings',
  line,
  present: true,
  after: 'power the machine off and on',
});

/** A command to run. */
export const commandFix = (line: string, after: string | null = null): Fix => ({
  tool: 'shell',
  where: 'as root',
  line,
  present: true,
  after,
});
