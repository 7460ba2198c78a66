/** Lists of modules to load, at boot and in the initramfs, that name what this kernel does not have. */
import { MODULE_LISTS } from '../host/modprobe.ts';
import { replaceLine } from './initramfs.ts';
import { kernelHas } from './kernelModules.ts';
import type { Look } from './look.ts';
import { type Draft, finding } from './table.ts';

/** Modules that later kernels have as part of another: since when, and where it went. */
const GONE: Readonly<Record<string, { since: [number, number]; where: string }>> = {
  // drivers/vfio/Makefile: "vfio: Fold vfio_virqfd.ko into vfio.ko".
  vfio_virqfd: { since: [6, 2], where: 'vfio has it since 6.2' },
};

type Named = { file: string; line: number; text: string; module: string };

const LISTS = ['etc/modules-load.d', 'etc/dracut.conf.d', 'etc/mkinitcpio.conf.d'];
const FILES = [...MODULE_LISTS, 'etc/dracut.conf', 'etc/mkinitcpio.conf'];
const MAX_LINES = 4096;

/** Lists of dracut (force_drivers+=" a b ") and mkinitcpio (MODULES=(a b)). */
const IN_LIST = /^\s*(?:(?:force_|add_)?drivers|MODULES)\+?=\s*["'(]([^"')]*)/;

function namedIn(look: Look, file: string): Named[] {
  const shell = /dracut|mkinitcpio/.test(file);
  return (look.text(file) ?? '')
    .split('\n')
    .slice(0, MAX_LINES)
    .flatMap((raw, i): Named[] => {
      const text = raw.trim();
      if (text.length > 1024 || /^[#;]/.test(text)) return [];
      const words = shell ? (IN_LIST.exec(text)?.[1] ?? '').split(/\s+/) : text.split(/\s+/).slice(0, 1);
      return words
        .map((w) => w.replaceAll('-', '_'))
        .filter((m) => /^(?:vfio\w*|pci_stub)$/.test(m))
        .map((module) => ({ file, line: i + 1, text, module }));
    });
}

/**
 * VFIO modules on these lists that the running kernel no longer has; where its modules are not to be seen, its version
 * decides.
 */
export function checkModuleLists(look: Look): Draft[] {
  const files = [
    ...FILES,
    ...LISTS.flatMap((f) =>
      look
        .names(f)
        .filter((n) => n.endsWith('.conf'))
        .map((n) => `${f}/${n}`),
    ),
  ];
  const named = files.flatMap((f) => namedIn(look, f));
  if (named.length === 0) return [];
  const has = kernelHas(look);
  const [major = 0, minor = 0] =
    /^(\d+)\.(\d+)/
      .exec(look.host.release ?? '')
      ?.slice(1)
      .map(Number) ?? [];
  return named
    .filter(({ module }) => {
      const gone = GONE[module];
      if (gone === undefined) return false;
      const later = major > gone.since[0] || (major === gone.since[0] && minor >= gone.since[1]);
      return later && has?.(module) !== true;
    })
    .map((n) =>
      finding(
        'module-gone',
        `/${n.file}:${n.line}`,
        `"${n.text.slice(0, 200)}" names ${n.module}: ${GONE[n.module]?.where}`,
        [replaceLine(look, n, without(n))],
      ),
    );
}

/** The line without the module; one that names nothing else becomes a comment. */
function without({ text, module }: Named): string {
  if (text.replaceAll('-', '_') === module) return `# ${text}`;
  return text
    .replace(new RegExp(`([\\s"'(])${module.replaceAll('_', '[-_]')}(?=[\\s"')])`, 'g'), '$1')
    .replace(/(\S)[ \t]{2,}(?=\S)/g, '$1 ');
}
