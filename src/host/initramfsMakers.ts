/** What makes the initramfs of a host: one table, known by what is there. */

type InitramfsMaker = {
  name: string;
  /** Makes it anew. */
  command: string;
  files: readonly string[];
  /** No other tool's would be used. */
  sole?: true;
};

/** There when the host runs an image that ostree deployed. */
export const OSTREE = 'run/ostree-booted';
/** There when the host is NixOS, whose files are all made from one. */
export const NIXOS = 'etc/NIXOS';
/** There when the host's root is read-only and changed by snapshots (SUSE's MicroOS and kin). */
export const TRANSACTIONAL = 'usr/sbin/transactional-update';
export const MKINITCPIO = 'etc/mkinitcpio.conf';

const MAKERS: readonly InitramfsMaker[] = [
  { name: 'rpm-ostree', command: 'rpm-ostree initramfs --enable', files: [OSTREE], sole: true },
  { name: 'NixOS', command: 'nixos-rebuild boot', files: [NIXOS], sole: true },
  { name: 'transactional-update', command: 'transactional-update initrd', files: [TRANSACTIONAL], sole: true },
  {
    name: 'initramfs-tools',
    command: 'update-initramfs -u',
    files: ['etc/initramfs-tools', 'usr/sbin/update-initramfs'],
  },
  {
    name: 'dracut',
    command: 'dracut -f',
    files: ['etc/dracut.conf.d', 'etc/dracut.conf', 'usr/bin/dracut', 'usr/sbin/dracut'],
  },
  {
    name: 'mkinitcpio',
    command: 'mkinitcpio -P',
    files: [MKINITCPIO, 'etc/mkinitcpio.d', 'usr/bin/mkinitcpio'],
  },
  { name: 'mkinitfs', command: 'mkinitfs', files: ['etc/mkinitfs', 'sbin/mkinitfs', 'usr/sbin/mkinitfs'] },
  {
    name: 'booster',
    command: '/usr/lib/booster/regenerate_images',
    files: ['etc/booster.yaml', 'usr/lib/booster/regenerate_images'],
  },
];

/** Those that are here; one alone where no other's image would be used. */
export function initramfsMakers(has: (file: string) => boolean): readonly InitramfsMaker[] {
  const here = MAKERS.filter((m) => m.files.some(has));
  const sole = here.find((m) => m.sole);
  return sole === undefined ? here : [sole];
}
