/**
 * The line to change, for each tool that may own it. Lines are made from the files as they are: an existing line is given back with the change in it; where the host has
 * no such file, the line to add. Nothing is written.
 */
import type { Look } from './look.ts';
import type { Fix } from './table.ts';

const MODPROBE = 'etc/modprobe.d';
const MODULES_LOAD = 'etc/modules-load.d';
const INITRAMFS_TOOLS = 'etc/initramfs-tools/modules';
const DRACUT = 'etc/dracut.conf.d';
const MKINITCPIO = 'etc/mkinitcpio.conf.d';
const CLOUD = 'etc/cloud/cloud.cfg';

/** There when the host runs an image that ostree deployed. */
export const OSTREE = 'run/ostree-booted';
/** There when the host is NixOS, whose files are all made from one. */
export const NIXOS = 'etc/NIXOS';
export const NIXOS_FILE = 'etc/nixos/configuration.nix';
export const NIXOS_AFTER = 'nixos-rebuild boot; then reboot';

/** What makes an initramfs, and by what it is known to be here. `sole`: no other tool's would be used. */
const INITRAMFS: readonly { command: string; files: readonly string[]; sole?: true }[] = [
  { command: 'rpm-ostree initramfs --enable', files: [OSTREE], sole: true },
  { command: 'nixos-rebuild boot', files: [NIXOS], sole: true },
  { command: 'update-initramfs -u', files: ['etc/initramfs-tools', 'usr/sbin/update-initramfs'] },
  { command: 'dracut -f', files: ['etc/dracut.conf.d', 'etc/dracut.conf', 'usr/bin/dracut', 'usr/sbin/dracut'] },
  { command: 'mkinitcpio -P', files: ['etc/mkinitcpio.conf', 'etc/mkinitcpio.d', 'usr/bin/mkinitcpio'] },
];

/** What the initramfs must be made anew with after a change to modules or their options; all ways where none is known to be here. */
export function rebuild(look: Look): string {
  const here = INITRAMFS.filter((i) => i.files.some((f) => look.has(f)));
  const sole = here.find((i) => i.sole);
  if (sole !== undefined) return sole.command;
  return (here.length > 0 ? here : INITRAMFS.filter((i) => !i.sole)).map((i) => i.command).join(', or ');
}

/** A word that a shell reads as it is. */
export const shellWord = (word: string): string =>
  /^[\w.,:=@/+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

/** User-data for machines that are made by cloud-init. */
export const cloud = (look: Look, lines: readonly string[], after: string): Fix => ({
  tool: 'cloud-init',
  where: 'user-data (Juju: model-config cloudinit-userdata)',
  line: lines.join('\n'),
  present: look.has(CLOUD),
  after,
});

const nixos = (line: string): Fix => ({
  tool: 'nixos',
  where: `/${NIXOS_FILE}`,
  line,
  present: true,
  after: NIXOS_AFTER,
});

/** A line for modprobe.d, and the same for cloud-init. */
export function modprobeFix(look: Look, line: string, file = 'hostdev.conf'): Fix[] {
  if (look.has(NIXOS)) return [nixos(`boot.extraModprobeConfig = "${line}";`)];
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
  if (look.has(NIXOS)) return [nixos(`boot.initrd.kernelModules = [ ${modules.map((m) => `"${m}"`).join(' ')} ];`)];
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
      after: look.has(OSTREE) ? rebuild(look) : 'dracut -f',
    },
    {
      tool: 'mkinitcpio',
      where: `/${MKINITCPIO}/hostdev.conf`,
      line: `MODULES+=(${modules.join(' ')})`,
      present: look.has(MKINITCPIO) || look.has('etc/mkinitcpio.conf'),
      after: 'mkinitcpio -P',
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
