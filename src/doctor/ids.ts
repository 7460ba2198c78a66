/**
 * Devices that are given to vfio-pci or pci-stub by their ids: what such an option takes, what it does not, and what
 * the host loses.
 */
import { type Directive, idOf, idsWords, optionIds, strayIds } from '../host/modprobe.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { bootDisplays } from './bootDisplay.ts';
import { replaceLine } from './initramfs.ts';
import { kernelWords, removeDirective } from './kernelLine.ts';
import type { Look } from './look.ts';
import { type Draft, finding } from './table.ts';
import { addresses, place } from './words.ts';

/** Modules with an ids= option, and their drivers. */
export const STUBS: Readonly<Record<string, string>> = { vfio_pci: 'vfio-pci', pci_stub: 'pci-stub' };

/** When a device is bound by address instead. */
const ONCE_GONE = 'once the option is gone';

/** How many devices a command names. */
const NAMED = 8;

export function checkIds(look: Look, directives: readonly Directive[]): Draft[] {
  const options = directives.filter((d) => d.kind === 'options' && d.module in STUBS);
  return options.flatMap((d): Draft[] => {
    const stub = STUBS[d.module] ?? d.module;
    const last = counting(look, options, d);
    const stray = strayBehind(look, d);
    // All that is found of one option has one fix: two would undo each other.
    const fix = stray.length > 0 && last === d ? joinedFix(look, d, stray) : removeDirective(look, d);
    return [
      ...cutOff(look, d, stub, stray, fix),
      ...overridden(look, d, last, stub, fix),
      ...(last === d ? taken(look, d, stub, fix) : []),
    ];
  });
}

/**
 * Which of a module's ids= is the one that counts. modprobe puts the options of all its files one after the other, then
 * those of the command line (libkmod-config.c), then those that a list gives with the module; the kernel's parameter
 * holds one text, the last (module_param_string in vfio_pci.c and pci-stub.c).
 */
function counting(look: Look, options: readonly Directive[], d: Directive): Directive {
  if (idsWords(d.rest).length === 0) return d;
  const rivals = options.filter((o) => o.module === d.module && idsWords(o.rest).length > 0);
  const rank = (o: Directive): number =>
    o.file.startsWith('etc/initramfs-tools') ? 2 : o.file === look.host.cmdline ? 1 : 0;
  // What etc/modules loads is loaded already where any other of them counts.
  const joined = rivals.filter((o) => o.file !== 'etc/modules');
  if (!joined.includes(d)) return d;
  return joined.reduce((best, o) => (rank(o) >= rank(best) ? o : best), d);
}

const havingIds = (look: Look, ids: readonly string[]): PciDevice[] =>
  look.inventory.devices.filter((p) => ids.includes(`${p.vendor_id}:${p.product_id}`));

/** On another driver than ids= wants, and on no other VFIO driver. */
const elsewhere = (look: Look, devices: readonly PciDevice[], stub: string): PciDevice[] =>
  devices.filter((p) => p.driver !== stub && !isVfioDriver(look.host, p.address, p.driver));

/** Ids that another ids= behind them makes ineffective: of the same module in another line, or in the same line. */
function overridden(look: Look, d: Directive, last: Directive, stub: string, fix: Draft['fix']): Draft[] {
  const words = idsWords(d.rest);
  const lost = (last === d ? words.slice(0, -1) : words).flatMap((w) => optionIds(w));
  const kept = optionIds(last.rest);
  const ids = lost.filter((id) => !kept.includes(id));
  if (words.length === 0 || (last === d && words.length < 2)) return [];
  const where = last === d ? 'the last of that line' : `that of ${place(last)} ("${last.text}")`;
  const left = elsewhere(look, havingIds(look, ids), stub);
  const not = ids.length > 0 ? `; ${ids.join(', ')} is not taken${left.length > 0 ? `: ${onDrivers(left)}` : ''}` : '';
  return [
    finding(
      'ids-overridden',
      place(d),
      `"${d.text}": of several ids= for ${stub} the kernel takes one, ${where}${not}`,
      [...fix, { bind: left, when: ONCE_GONE }],
    ),
  ];
}

function taken(look: Look, d: Directive, stub: string, fix: Draft['fix']): Draft[] {
  const ids = optionIds(d.rest);
  if (ids.length === 0) return [];
  const devices = havingIds(look, ids);
  if (devices.length === 0) return [finding('ids-stale', place(d), `"${d.text}" names no device of this host`, fix)];
  const twice = ids.filter((id) => devices.filter((p) => `${p.vendor_id}:${p.product_id}` === id).length > 1);
  const why = twice.length > 0 ? `; of ${twice.join(', ')} there are several, which ids cannot tell apart` : '';
  const boot = bootDisplays(look).filter((b) => devices.includes(b));
  const loses = boot.length > 0 ? `; ${addresses(boot)} is the boot display, which the host loses so` : '';
  const found = [
    finding(
      'ids-option',
      place(d),
      `"${d.text}" takes ${addresses(devices)}${why}${loses}. Name them by address instead`,
      [...fix, { bind: devices, when: ONCE_GONE }],
    ),
  ];
  const others = elsewhere(look, devices, stub);
  if (others.length > 0)
    found.push(
      finding('ids-not-followed', addresses(others), `"${d.text}" in ${place(d)} wants ${stub}; ${onDrivers(others)}`, [
        ...fix,
        { bind: others, when: `${ONCE_GONE}: an address is not late, whichever driver comes first` },
      ]),
    );
  return found;
}

/** What each device is on. */
const onDrivers = (devices: readonly PciDevice[]): string =>
  devices
    .slice(0, NAMED)
    .map((p) => `${p.address} is ${p.driver === null ? 'without a driver' : `on ${p.driver}`}`)
    .join(', ');

/**
 * Ids behind a blank: the kernel takes each as an option of its own, which it does not know (kernel/params.c next_arg).
 */
function cutOff(look: Look, d: Directive, stub: string, stray: readonly string[], fix: Draft['fix']): Draft[] {
  if (stray.length === 0) return [];
  const devices = havingIds(
    look,
    stray.flatMap((w) => w.split(',').flatMap((id) => idOf(id) ?? [])),
  );
  const left = devices.length > 0 ? `; ${onDrivers(devices)}` : '';
  return [
    finding(
      'ids-cut-off',
      place(d),
      `"${d.text}": ${stray.join(' ')} stands behind a blank, is so no part of ids= for ${stub}, and is ignored as an unknown parameter${left}`,
      fix,
    ),
  ];
}

function strayBehind(look: Look, d: Directive): string[] {
  if (!/(?:^|\s)ids\b/.test(d.rest)) return [];
  const words = look.cmdline;
  return d.file === look.host.cmdline ? cmdlineStray(words.slice(words.indexOf(d.text) + 1)) : strayIds(d.rest);
}

/** Words right behind an option of the command line that are ids and nothing else. */
function cmdlineStray(words: readonly string[]): string[] {
  const end = words.findIndex((w) => strayIds(`ids= ${w}`).length === 0);
  return words.slice(0, end < 0 ? words.length : end);
}

/** The same option with all ids in one word. */
function joinedFix(look: Look, d: Directive, stray: readonly string[]): Draft['fix'] {
  const given = /(?:^|\s)ids\s*="?([^\s"]*)/.exec(d.rest)?.[1] ?? '';
  const all = [given, ...stray].flatMap((w) => w.split(',')).filter((w) => w !== '');
  const joined = `ids=${all.join(',')}`;
  if (d.file === look.host.cmdline) {
    const head = d.text.slice(0, d.text.indexOf('.') + 1);
    return kernelWords({ remove: stray, replace: [{ word: d.text, by: `${head}${joined}` }] });
  }
  const others = d.rest.split(/\s+/).filter((w) => !/^ids\b/.test(w) && w !== '=' && w !== ',' && !stray.includes(w));
  const head = d.text
    .slice(0, d.text.length - d.rest.length)
    .trim()
    .split(/\s+/)
    .join(' ');
  const prefix = d.file.includes('modprobe.d')
    ? `options ${head.split(' ')[1] ?? d.module}`
    : (head.split(' ')[0] ?? d.module);
  return [replaceLine(look, d, [prefix, joined, ...others].join(' '))];
}
