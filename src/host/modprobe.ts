/**
 * What the admin and the distribution told modprobe, the initramfs and the kernel command line about modules:
 * blacklists, options, soft dependencies. Read as kmod reads them (libkmod/libkmod-config.c): *.conf of five folders by
 * name, a name in an earlier folder hides the same in later ones.
 */

import { orNull } from '../errors.ts';
import { safe } from '../text/safe.ts';
import { isBackupName } from './files.ts';
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

export type Directives = {
  directives: Directive[];
  /** The first line of each file that would count, had it a name that ends in .conf. */
  ignored: Directive[];
  unmeasured: string[];
};

const FOLDERS = [
  'etc/modprobe.d',
  'run/modprobe.d',
  'usr/local/lib/modprobe.d',
  'usr/lib/modprobe.d',
  'lib/modprobe.d',
];

/** Files whose lines are `module [options]`: what Debian loads at boot and in the initramfs. */
export const MODULE_LISTS = ['etc/modules', 'etc/initramfs-tools/modules'];

/** The folder that admins write to. */
const ADMINS = 'etc/modprobe.d';

const MAX_FILES = 512;
const MAX_OTHERS = 64;
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
  const others: string[] = [];
  for (const folder of FOLDERS) {
    for (const name of read(() => host.list(folder)) ?? []) {
      if (!name.endsWith('.conf')) {
        if (folder === ADMINS && !isBackupName(name)) others.push(`${folder}/${name}`);
      } else if (!files.has(name)) files.set(name, `${folder}/${name}`);
    }
  }
  const all: Directive[] = [];
  const sorted = [...files.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, file]) => file);
  if (sorted.length > MAX_FILES)
    unmeasured.push(`${sorted.length - MAX_FILES} files of modprobe.d: only ${MAX_FILES} are read`);
  for (const file of sorted.slice(0, MAX_FILES))
    all.push(...confLines(file, read(() => host.read(file, MAX_FILE)) ?? ''));
  for (const file of MODULE_LISTS) all.push(...listLines(file, read(() => host.read(file, MAX_FILE)) ?? ''));
  all.push(...cmdlineWords(host.cmdline, read(() => host.read(host.cmdline, MAX_FILE)) ?? ''));
  const ignored = others
    .slice(0, MAX_OTHERS)
    .flatMap((file) => confLines(file, looked(host, file)).slice(0, 1))
    .map((d) => ({ ...d, text: safe(d.text, MAX_FILE) }));
  return { directives: all.slice(0, MAX_DIRECTIVES), ignored, unmeasured };
}

/** The text of a file that counts for nothing: what cannot be read, a folder too, is no loss. */
const looked = (host: Host, file: string): string => orNull(() => host.read(file, MAX_FILE)) ?? '';

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

/**
 * `modprobe.blacklist=a,b` (kmod), `module_blacklist=a,b` (kernel), `rd.driver.blacklist=a` (dracut) and
 * `module.option=value`.
 */
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

/**
 * The words of module options as the kernel parts them: by blanks outside of double quotes, which it takes off
 * (kernel/params.c next_arg).
 */
const optionWords = (rest: string): string[] =>
  (rest.match(/(?:"[^"]*"?|[^\s"])+/g) ?? []).map((w) => w.replaceAll('"', ''));

/** "vvvv:dddd" of one id, in lower case; further fields (subsystem, class) are left out. Null for what is no id. */
export const idOf = (word: string): string | null =>
  /^([0-9a-f]{4}):([0-9a-f]{4})(?::|$)/i.exec(word.trim())?.slice(1, 3).join(':').toLowerCase() ?? null;

/** The words of an `ids=` option: of several the last counts. */
export const idsWords = (rest: string): string[] => optionWords(rest).filter((w) => w.startsWith('ids='));

/**
 * The ids of the `ids=` option that counts (vfio-pci, pci-stub), by commas; a blank ends them, but for one in quotes.
 */
export const optionIds = (rest: string): string[] =>
  (idsWords(rest).at(-1) ?? '')
    .slice('ids='.length)
    .split(',')
    .flatMap((id) => idOf(id) ?? [])
    .slice(0, 256);

/** Words among the options that are ids and belong to no option: the kernel ignores them as unknown parameters. */
export const strayIds = (rest: string): string[] =>
  optionWords(rest)
    .filter(
      (w) =>
        !w.includes('=') &&
        w.split(',').some((id) => id !== '') &&
        w.split(',').every((id) => id === '' || idOf(id) !== null),
    )
    .slice(0, 256);
