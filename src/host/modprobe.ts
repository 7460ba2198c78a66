/**
 * What the admin and the distribution told modprobe, the initramfs and the kernel command line about modules: blacklists, options, soft dependencies. Read as kmod reads
 * them (libkmod/libkmod-config.c): *.conf of five folders by name, a name in an earlier folder hides the same in later ones.
 */
import type { Host } from './host.ts';

export type Directive = {
  kind: 'blacklist' | 'options' | 'softdep' | 'install';
  /** With `_` for `-`, as the kernel counts them the same. */
  module: string;
  /** What stands behind the module's name. */
  rest: string;
  /** Below the root; `proc/cmdline` for the command line. */
  file: string;
  /** Counted from 1; 0 on the command line. */
  line: number;
  /** The line as it stands, or the word of the command line. */
  text: string;
};

export type Directives = { directives: Directive[]; unmeasured: string[] };

const FOLDERS = [
  'etc/modprobe.d',
  'run/modprobe.d',
  'usr/local/lib/modprobe.d',
  'usr/lib/modprobe.d',
  'lib/modprobe.d',
];

/** Files whose lines are `module [options]`: what Debian loads at boot and in the initramfs. */
export const MODULE_LISTS = ['etc/modules', 'etc/initramfs-tools/modules'];

const MAX_FILES = 512;
const MAX_FILE = 256 * 1024;
const MAX_DIRECTIVES = 4096;

const MODULE = /^[\w.*?[\]-]{1,64}$/;

const underscored = (name: string): string => name.replaceAll('-', '_');

/** Every directive that is in force. What could not be read is in `unmeasured`. */
export function readDirectives(host: Host): Directives {
  const unmeasured: string[] = [];
  const read = <T>(what: () => T | null): T | null => {
    try {
      return what();
    } catch (e) {
      unmeasured.push((e as Error).message);
      return null;
    }
  };
  const files = new Map<string, string>();
  for (const folder of FOLDERS) {
    for (const name of (read(() => host.list(folder)) ?? []).filter((n) => n.endsWith('.conf')))
      if (!files.has(name)) files.set(name, `${folder}/${name}`);
  }
  const all: Directive[] = [];
  const sorted = [...files.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, file]) => file);
  if (sorted.length > MAX_FILES)
    unmeasured.push(`${sorted.length - MAX_FILES} files of modprobe.d: only ${MAX_FILES} are read`);
  for (const file of sorted.slice(0, MAX_FILES))
    all.push(...confLines(file, read(() => host.read(file, MAX_FILE)) ?? ''));
  for (const file of MODULE_LISTS) all.push(...listLines(file, read(() => host.read(file, MAX_FILE)) ?? ''));
  all.push(...cmdlineWords(host.cmdline, read(() => host.read(host.cmdline, MAX_FILE)) ?? ''));
  return { directives: all.slice(0, MAX_DIRECTIVES), unmeasured };
}

/** Lines of a modprobe.d file; a backslash at the end joins the next. */
function confLines(file: string, text: string): Directive[] {
  const found: Directive[] = [];
  let joined = '';
  let from = 0;
  for (const [i, raw] of text.split('\n').entries()) {
    if (joined === '') from = i + 1;
    if (raw.endsWith('\\')) {
      joined += `${raw.slice(0, -1)} `;
      continue;
    }
    const text = (joined + raw).trim();
    joined = '';
    const [kind = '', module = '', ...rest] = text.split(/\s+/);
    if (kind !== 'blacklist' && kind !== 'options' && kind !== 'softdep' && kind !== 'install') continue;
    if (!MODULE.test(module)) continue;
    found.push({ kind, module: underscored(module), rest: rest.join(' '), file, line: from, text });
  }
  return found;
}

function listLines(file: string, text: string): Directive[] {
  return text.split('\n').flatMap((raw, i): Directive[] => {
    const [module = '', ...rest] = raw.trim().split(/\s+/);
    if (!MODULE.test(module) || rest.length === 0) return [];
    return [
      { kind: 'options', module: underscored(module), rest: rest.join(' '), file, line: i + 1, text: raw.trim() },
    ];
  });
}

/** `modprobe.blacklist=a,b` (kmod), `module_blacklist=a,b` (kernel), `rd.driver.blacklist=a` (dracut) and `module.option=value`. */
function cmdlineWords(file: string, text: string): Directive[] {
  return text.split(/\s+/).flatMap((word): Directive[] => {
    const lists = /^(?:modprobe\.blacklist|module_blacklist|rd\.driver\.blacklist)=(.*)$/.exec(word)?.[1];
    if (lists !== undefined)
      return lists
        .split(',')
        .filter((m) => MODULE.test(m))
        .map((m) => ({ kind: 'blacklist', module: underscored(m), rest: '', file, line: 0, text: word }));
    const [, module, rest] = /^([\w-]{1,64})\.(\w+=.*)$/.exec(word) ?? [];
    if (module === undefined || rest === undefined) return [];
    return [{ kind: 'options', module: underscored(module), rest, file, line: 0, text: word }];
  });
}

/** The ids of an `ids=` option (vfio-pci, pci-stub): "vvvv:dddd" in lower case; further fields (subsystem, class) are left out. */
export function optionIds(rest: string): string[] {
  return [...rest.matchAll(/(?:^|\s)ids="?([^\s"]*)/g)]
    .flatMap(([, list = '']) => list.split(','))
    .flatMap((id) => /^([0-9a-f]{4}):([0-9a-f]{4})(?::|$)/i.exec(id)?.slice(1, 3).join(':').toLowerCase() ?? [])
    .slice(0, 256);
}
