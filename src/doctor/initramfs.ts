/**
 * Lines about modules: their options, what is loaded at boot and from the initramfs, lines that are to go; with what
 * makes them take effect on this host, by one table of what makes initramfs images.
 */
import { initramfsMakers, MKINITCPIO } from '../host/initramfsMakers.ts';
import { userData } from './cloudInit.ts';
import { commandFix, NIXOS, NIXOS_AFTER, NIXOS_FOLDER, nixosFix, OSTREE, shellWord, TRANSACTIONAL } from './fix.ts';
import type { Look } from './look.ts';
import type { Fix } from './table.ts';

const MODPROBE = 'etc/modprobe.d';
const MODULES_LOAD = 'etc/modules-load.d';
const INITRAMFS_TOOLS = 'etc/initramfs-tools/modules';
const DRACUT = 'etc/dracut.conf.d';

/** Unraid's root is in memory: what lasts is on the stick, and is copied to etc/modprobe.d at boot. */
const UNRAID = ['etc/unraid-version', 'boot/config/go'];
const UNRAID_MODPROBE = 'boot/config/modprobe.d';
const UNRAID_GO = 'boot/config/go';
const isUnraid = (look: Look): boolean => UNRAID.some((f) => look.has(f));

const USUAL = ['update-initramfs -u', 'dracut -f', 'mkinitcpio -P'];

/**
 * What the initramfs must be made anew with after a change to modules or their options; null where there is none to
 * make; all ways where none is known.
 */
export function rebuild(look: Look): string | null {
  if (isUnraid(look)) return null;
  const here = initramfsMakers((f) => look.has(f));
  return (here.length > 0 ? here.map((i) => i.command) : USUAL).join(', or ');
}

/** {@link rebuild}, and what comes after it. */
export const rebuildThen = (look: Look, then: string): string => {
  const command = rebuild(look);
  return command === null ? then : `${command}; then ${then}`;
};

/** The one that a machine which is made like this one has; Debian's where that is not known. */
const cloudRebuild = (look: Look): string => {
  const command = rebuild(look);
  return command === null || command.includes(', or ') ? 'update-initramfs -u' : command;
};

/** A line for modprobe.d, and the same for machines that cloud-init makes. */
export function modprobeFix(look: Look, line: string, file = 'hostdev.conf'): Fix[] {
  if (look.has(NIXOS)) return [nixosFix(`boot.extraModprobeConfig = "${line}";`)];
  const folder = isUnraid(look) ? UNRAID_MODPROBE : MODPROBE;
  return [
    {
      tool: 'modprobe.d',
      where: `/${folder}/${file}`,
      line,
      present: folder === UNRAID_MODPROBE || look.has(MODPROBE),
      after: rebuildThen(look, 'reload the module or reboot'),
    },
    ...userData(look, { files: [{ path: `${MODPROBE}/${file}`, content: line }], commands: [cloudRebuild(look)] }),
  ];
}

/** Lines that load modules at boot, and early from the initramfs. */
export function loadFix(look: Look, modules: readonly string[]): Fix[] {
  if (look.has(NIXOS)) return [nixosFix(`boot.initrd.kernelModules = [ ${modules.map((m) => `"${m}"`).join(' ')} ];`)];
  if (isUnraid(look))
    return [
      {
        tool: 'file',
        where: `/${UNRAID_GO}`,
        line: `modprobe -a ${modules.join(' ')}`,
        present: true,
        after: 'reboot, or run it now',
      },
    ];
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
      after: look.has(OSTREE) || look.has(TRANSACTIONAL) ? rebuild(look) : 'dracut -f',
    },
    mkinitcpio(look, modules),
    ...userData(look, {
      files: [{ path: `${MODULES_LOAD}/hostdev.conf`, content: modules.map((m) => `${m}\n`).join('') }],
    }),
  ];
}

/** A drop-in, which mkinitcpio reads since 38; its own file's line where there is no folder for them. */
function mkinitcpio(look: Look, modules: readonly string[]): Fix {
  const lines = look.has(`${MKINITCPIO}.d`) ? [] : (look.text(MKINITCPIO) ?? '').split('\n');
  const at = lines.findIndex((l) => /^MODULES=\([^()]*\)\s*$/.test(l));
  const words = (/\(([^()]*)\)/.exec(lines[at] ?? '')?.[1] ?? '').split(/\s+/).filter(Boolean);
  const all = [...words, ...modules.filter((m) => !words.includes(m))];
  return {
    tool: 'mkinitcpio',
    where: at < 0 ? `/${MKINITCPIO}.d/hostdev.conf` : `/${MKINITCPIO}:${at + 1}`,
    line: at < 0 ? `MODULES+=(${modules.join(' ')})` : `MODULES=(${all.join(' ')})`,
    present: look.has(`${MKINITCPIO}.d`) || look.has(MKINITCPIO),
    after: 'mkinitcpio -P',
  };
}

/** The tool whose file it is. */
const toolOf = (file: string): Fix['tool'] =>
  file.startsWith('etc/initramfs-tools')
    ? 'initramfs-tools'
    : file.includes('modprobe.d')
      ? 'modprobe.d'
      : file.includes('dracut')
        ? 'dracut'
        : file.includes('mkinitcpio')
          ? 'mkinitcpio'
          : file.includes('modules-load')
            ? 'modules-load.d'
            : 'file';

/** Where a line of modprobe.d lasts: on Unraid in the file that etc/modprobe.d's is a copy of. */
const lasting = (look: Look, file: string): string => {
  const kept = file.replace(/^etc\/modprobe\.d/, UNRAID_MODPROBE);
  return kept !== file && isUnraid(look) && look.has(kept) ? kept : file;
};

/** Files of theirs are made into the initramfs. */
const IN_INITRAMFS: readonly Fix['tool'][] = ['initramfs-tools', 'modprobe.d', 'dracut', 'mkinitcpio'];

type Place = { file: string; line: number; text: string };

/** A line that is to go: given as a comment, so that the file keeps what it said. */
export const removeLine = (look: Look, where: Place): Fix => inPlace(look, where, null);

/** One line of a file in the place of another. */
export const replaceLine = (look: Look, where: Place, line: string): Fix => inPlace(look, where, line);

function inPlace(look: Look, where: Place, line: string | null): Fix {
  const tool = toolOf(where.file);
  // Its files in etc are made from others: there it is to be looked for.
  if (look.has(NIXOS) && IN_INITRAMFS.includes(tool))
    return {
      ...commandFix(
        `grep -rnF -e ${shellWord(where.text)} /${NIXOS_FOLDER}`,
        `${line === null ? 'take it out there' : `make it "${line}" there`}; then ${NIXOS_AFTER}`,
      ),
      tool: 'nixos',
    };
  return {
    tool,
    where: `/${lasting(look, where.file)}:${where.line}`,
    line: line ?? `# ${where.text}`,
    present: true,
    after: IN_INITRAMFS.includes(tool) ? rebuildThen(look, 'reboot') : 'reboot',
  };
}
