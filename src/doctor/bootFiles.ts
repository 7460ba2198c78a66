/**
 * Files and tools that hold the kernel command line for one boot loader each: their lines, with the change in them.
 * GRUB's are in grub.ts.
 */
import { BY_LOADER, type Change, changed, difference, key, ONCE, withoutReplacing } from './cmdlineWords.ts';
import { commandFix, NIXOS_AFTER, NIXOS_FILE, NIXOS_FOLDER, shellWord } from './fix.ts';
import { GRUB, grubFix } from './grub.ts';
import type { Look } from './look.ts';
import type { Fix } from './table.ts';

export const KERNEL_CMDLINE = 'etc/kernel/cmdline';
const LOADER_ENTRIES = ['boot/loader/entries', 'efi/loader/entries', 'boot/efi/loader/entries'];
const BOOTC_KARGS = 'usr/lib/bootc/kargs.d';

/** A file's lines are `pattern`s of three groups: what stands before the words, the words, and what stands after. */
export const PATTERNS = {
  /** Type 1 boot loader entries (BOOT.md of systemd). */
  entryOptions: /^(options\s+)(.*)$/,
  /** A label of Linux in syslinux.cfg: memtest has no initrd. */
  syslinuxAppend: /^(\s*append\s+)(.*\binitrd=.*?)\s*$/i,
  extlinuxAppend: /^(\s*append\s+)(.*?)\s*$/i,
  limineCmdline: /^(\s*(?:kernel_)?cmdline:\s*)(.*?)\s*$/i,
  /** limine-entry-tool's: the default, or one kernel's. */
  limineVariable: /^(\s*KERNEL_CMDLINE\[[^\]]*\]\+?=")([^"`$\\]*)(".*)$/,
  /** refind_linux.conf: a title and the options, both in quotes. */
  refindOptions: /^(\s*"[^"]*"\s+")([^"]*)(".*)$/,
  wholeLine: /^()(.*?)\s*$/,
} as const;

/** A shell variable of its own file: `NAME="words"`. */
const variable = (name: string): RegExp => new RegExp(`^(\\s*${name}=["']?)([^"'\`$\\\\]*?)(["']?\\s*(?:#.*)?)$`);

/** For a tool that is told what goes and what comes, from what the kernel was started with. */
export function toldDifference(
  tool: Fix['tool'],
  command: (d: { remove: string[]; add: string[] }) => string[],
): (look: Look, change: Change) => Fix[] {
  return (look, change) => {
    const d = difference(
      look.cmdline.filter((w) => !BY_LOADER.test(w)),
      change,
    );
    return [{ ...commandFix(command(d).join(' '), 'reboot'), tool }];
  };
}

/** Lines of files that are given back with the change in them. */
export function inLines(
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

/**
 * A file of one line, all of which is the command line; made from what the kernel was started with where it is not
 * there.
 */
export function oneLine(look: Look, tool: Fix['tool'], file: string, change: Change, after: string): Fix[] {
  const text = look.text(file);
  if (text === null) {
    const now = changed(
      look.cmdline.filter((w) => !BY_LOADER.test(w)),
      change,
    );
    return [{ tool, where: `/${file}`, line: now.join(' '), present: false, after }];
  }
  const words = text.split(/\s+/).filter(Boolean);
  const line = changed(words, change).join(' ');
  const already = line === words.join(' ') ? 'the line is so already: ' : '';
  return [{ tool, where: `/${file}:1`, line, present: true, after: `${already}${after}` }];
}

/**
 * A variable of a shell file; where it is not set, the line to add, which begins with what the tool would take without
 * it.
 */
export function shellVariable(
  look: Look,
  tool: Fix['tool'],
  file: string,
  name: string,
  change: Change,
  { after, otherwise }: { after: string; otherwise: readonly string[] },
): Fix[] {
  const text = look.text(file) ?? '';
  const pattern = variable(name);
  if (text.split('\n').some((l) => pattern.test(l))) {
    const lines = inLines(look, tool, [file], pattern, change, after);
    return lines.length > 0 ? lines : [{ ...commandFix(after.split(';')[0] ?? after, 'reboot'), tool }];
  }
  // Set to what only a shell can tell: ours are added behind it.
  const isSet = new RegExp(`^\\s*${name}=`, 'm').test(text);
  const words = isSet ? [`$${name}`, ...withoutReplacing(change).add] : changed(otherwise, change);
  return [{ tool, where: `/${file}`, line: `${name}="${words.join(' ')}"`, present: true, after }];
}

/** Entries in the folders that systemd-boot and GRUB read. */
const loaderEntries = (look: Look, change: Change): Fix[] => {
  const files = LOADER_ENTRIES.flatMap((folder) =>
    look
      .names(folder)
      .filter((n) => n.endsWith('.conf'))
      .map((n) => `${folder}/${n}`),
  );
  return files.slice(0, 16).flatMap((file) => {
    // The options of all of an entry's lines are put one after the other: what is to come goes into the last.
    const lines = (look.text(file) ?? '').split('\n');
    const last = lines.findLastIndex((l) => PATTERNS.entryOptions.test(l)) + 1;
    const less = inLines(look, 'systemd-boot', [file], PATTERNS.entryOptions, { ...change, add: [] }, 'reboot');
    const all = inLines(look, 'systemd-boot', [file], PATTERNS.entryOptions, change, 'reboot');
    const isLast = (f: Fix): boolean => f.where === `/${file}:${last}`;
    return [...less.filter((f) => !isLast(f)), ...all.filter(isLast)];
  });
};

/**
 * bootc merges the image's kargs.d into the entries and carries what else they have along; a word that is to go goes
 * from both.
 */
export function bootcFix(look: Look, change: Change): Fix[] {
  const { add, remove } = withoutReplacing(change);
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
    ...(remove.length > 0 ? loaderEntries(look, { add: [], remove, replace: [] }) : []),
  ];
}

/** A list of kernelParams, with what Nix may put before it; in a `boot = { … }` it stands without its `boot.`. */
const NIX_LIST = /^([ \t]*(?:boot\.)?kernelParams\s*=\s*(?:(?:lib\.)?mk\w+\s+)?)\[([^\]]{0,8192})\]/gm;

/**
 * boot.kernelParams of the files in etc/nixos: their lists with the change in them, or one to add. Lists of several
 * modules are joined.
 */
export function nixosParams(look: Look, change: Change): Fix[] {
  const names = look.names(NIXOS_FOLDER).filter((n) => n.endsWith('.nix'));
  const files = [NIXOS_FILE, ...names.map((n) => `${NIXOS_FOLDER}/${n}`).filter((f) => f !== NIXOS_FILE)];
  const lists = files.flatMap((file) => {
    const text = look.text(file) ?? '';
    return [...text.matchAll(NIX_LIST)].map(({ index, 1: head = '', 2: list = '' }) => {
      const items = [...list.replace(/#.*|\/\*[^*]*\*\//g, '').matchAll(/"([^"]*)"|([^\s"]+)/g)];
      return {
        where: `/${file}:${text.slice(0, index).split('\n').length}`,
        head,
        bare: new Set(items.flatMap(([, , word]) => word ?? [])),
        words: items.map(([, quoted, word = '']) => quoted ?? word),
      };
    });
  });
  const [target] = lists;
  const fix = (where: string, line: string): Fix => ({ tool: 'nixos', where, line, present: true, after: NIXOS_AFTER });
  if (target === undefined && change.add.length > 0)
    return [fix(`/${NIXOS_FILE}`, `boot.kernelParams = [ ${change.add.map((w) => `"${w}"`).join(' ')} ];`)];
  const fixes = lists.flatMap((l) => {
    // A word that any list has is there.
    const add =
      l === target
        ? change.add.filter((w) => ONCE.has(key(w)) || !lists.some((o) => o !== l && o.words.includes(w)))
        : [];
    const now = changed(l.words, { ...change, add });
    if (now.join(' ') === l.words.join(' ')) return [];
    return [fix(l.where, `${l.head}[ ${now.map((w) => (l.bare.has(w) ? w : `"${w}"`)).join(' ')} ];`)];
  });
  if (fixes.length > 0) return fixes;
  const { add, remove } = withoutReplacing(change);
  return [
    {
      ...commandFix(
        `grep -rnF ${[...remove, ...add].map((w) => `-e ${shellWord(w)}`).join(' ')} /${NIXOS_FOLDER}`,
        `/${NIXOS_FILE} needs no other line: see what else says so; then ${NIXOS_AFTER}`,
      ),
      tool: 'nixos',
    },
  ];
}

/**
 * Proxmox: systemd-boot where proxmox-boot-tool's own initrd was started, or where the root is ZFS; else GRUB. Both
 * where that cannot be told.
 */
export function proxmoxFix(look: Look, change: Change): Fix[] {
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

/** What makes systemd-boot's entries, or the unified kernel image, anew from etc/kernel/cmdline. */
export function kernelInstall(look: Look): string {
  const presets = look.names('etc/mkinitcpio.d').filter((n) => n.endsWith('.preset'));
  if (presets.some((n) => /^\s*\w+_uki=/m.test(look.text(`etc/mkinitcpio.d/${n}`) ?? ''))) return 'mkinitcpio -P';
  const release = look.quiet('kernel release', () => look.host.release);
  const images = release === null ? [] : [`boot/vmlinuz-${release}`, ...look.host.moduleFiles(release, 'vmlinuz')];
  const here = images.find((f) => look.has(f));
  return here === undefined
    ? 'kernel-install add-all (systemd 255), or reinstall the kernel package'
    : `kernel-install add ${shellWord(`${release}`)} ${shellWord(`/${here}`)}`;
}

/** Lines for systemd-boot; `command` is what brings etc/kernel/cmdline to it. */
export function systemdBootFix(look: Look, change: Change, command: string): Fix[] {
  const entries = look.has(KERNEL_CMDLINE) || look.has(GRUB) ? [] : loaderEntries(look, change);
  if (entries.length > 0) return entries;
  return oneLine(look, 'systemd-boot', KERNEL_CMDLINE, change, `${command}; then reboot`);
}
