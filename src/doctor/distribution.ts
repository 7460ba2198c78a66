/**
 * Which distribution the host is, and what it calls what others call otherwise: one table, known by os-release, else by
 * what is there.
 */
import type { Look } from './look.ts';

type Distribution = {
  /** `ID` and `ID_LIKE` of os-release(5). */
  ids: readonly string[];
  files: readonly string[];
  /** What makes GRUB follow etc/default/grub. */
  grub: string;
  /** Where GRUB may have entries of its own (BootLoaderSpec), which grubby changes. */
  entries?: true;
  /** What brings the modules that its smaller kernels lack; `release` is the running kernel's. */
  modules: (release: string) => string;
};

const GRUB2 = 'grub2-mkconfig -o /boot/grub2/grub.cfg';
const GRUB = 'grub-mkconfig -o /boot/grub/grub.cfg';

const DISTRIBUTIONS: readonly Distribution[] = [
  {
    ids: ['ubuntu'],
    files: [],
    grub: 'update-grub',
    modules: (release) => `apt-get install linux-modules-extra-${release}`,
  },
  {
    ids: ['debian'],
    files: ['etc/debian_version', 'usr/sbin/update-grub'],
    grub: 'update-grub',
    modules: () => 'apt-get install linux-image-$(dpkg --print-architecture)',
  },
  {
    ids: ['suse', 'opensuse'],
    files: ['etc/SUSE-brand'],
    grub: GRUB2,
    entries: true,
    modules: () => 'zypper install kernel-default',
  },
  {
    ids: ['fedora', 'rhel', 'centos'],
    files: ['etc/redhat-release', 'boot/grub2', 'usr/sbin/grub2-mkconfig'],
    grub: GRUB2,
    entries: true,
    modules: (release) => `dnf install kernel-modules-${release}`,
  },
  { ids: ['alpine'], files: ['etc/alpine-release'], grub: GRUB, modules: () => 'apk add linux-lts' },
  {
    ids: ['arch', 'gentoo', 'void'],
    files: ['etc/arch-release', 'usr/bin/grub-mkconfig', 'boot/grub'],
    grub: GRUB,
    modules: () => 'pacman -S linux',
  },
];

/** The distribution, by what os-release says first; null where nothing says. */
export function distribution(look: Look): Distribution | null {
  const release = look.text('etc/os-release') ?? look.text('usr/lib/os-release') ?? '';
  const said = (key: string): string[] =>
    (new RegExp(`^${key}=["']?([\\w .-]*)`, 'm').exec(release)?.[1] ?? '').split(' ');
  for (const id of [...said('ID'), ...said('ID_LIKE')]) {
    const known = DISTRIBUTIONS.find((d) => d.ids.some((i) => id === i || id.startsWith(`${i}-`)));
    if (known !== undefined) return known;
  }
  return DISTRIBUTIONS.find((d) => d.files.some((f) => look.has(f))) ?? null;
}

/** Of all distributions, one after the other until one works. */
export const anyOf = (command: (d: Distribution) => string): string =>
  [...new Set(DISTRIBUTIONS.map(command))].join(' || ');
