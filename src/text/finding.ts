/**
 * What doctor, `group why`, `config check` and `domain check` find: one type, to which each adds keys of its own. With
 * a finding of severity `error` the command exits 3, with none it does not.
 */

/** `error`: it does not work as it is. `warning`: it works, with a risk or a trap. `note`: good to know. */
export type Severity = 'error' | 'warning' | 'note';

export type Finding = {
  /** The kind of finding, for scripts. */
  id: string;
  severity: Severity;
  /** The device, file, process or element that it is about. */
  object: string;
  /** What was seen, for people. */
  cause: string;
  /** What to do; none where nothing has to be done, or nobody knows. */
  fix: Fix[];
};

/** One line to change, for one tool; of `advice` words instead of a line. */
export type Fix = {
  tool:
    | 'advice'
    | 'firmware'
    | 'grub'
    | 'systemd-boot'
    | 'ostree'
    | 'bootc'
    | 'nixos'
    | 'syslinux'
    | 'kernelstub'
    | 'limine'
    | 'extlinux'
    | 'refind'
    | 'dracut'
    | 'initramfs-tools'
    | 'mkinitcpio'
    | 'modprobe.d'
    | 'modules-load.d'
    | 'cloud-init'
    | 'juju'
    | 'systemd'
    | 'libvirt'
    | 'shell'
    | 'file';
  /** "/etc/default/grub:6": file and line as they are now; without a number the line is to be added. */
  where: string;
  /** The line as it must be. */
  line: string;
  /** True when this host has the tool: its file or folder is there. */
  present: boolean;
  /** What makes it take effect. */
  after: string | null;
};

/** What to do, in words. */
export const advice = (where: string, line: string): Fix => ({
  tool: 'advice',
  where,
  line,
  present: true,
  after: null,
});

/** What to do, in one line. */
export const fixText = ({ fix }: Pick<Finding, 'fix'>): string => fix.map((f) => f.line).join('; ');
