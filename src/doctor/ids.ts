/** Devices that are given to vfio-pci or pci-stub by their ids: what such an option takes, what it does not, and what the host loses. */
import { type Directive, idOf, optionIds, strayIds } from '../host/modprobe.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { bootDisplays, ofBootDisplay } from './bootDisplay.ts';
import { cmdlineFix, removeDirective } from './cmdline.ts';
import { commandFix, rebuild } from './fix.ts';
import type { Look } from './look.ts';
import { type Finding, type Fix, finding } from './table.ts';
import { addresses, place } from './words.ts';

/** Modules with an ids= option, and their drivers. */
export const STUBS: Readonly<Record<string, string>> = { vfio_pci: 'vfio-pci', pci_stub: 'pci-stub' };

/** How many devices a command names. */
const NAMED = 8;

export function checkIds(look: Look, directives: readonly Directive[]): Finding[] {
  return directives.flatMap((d): Finding[] => {
    const stub = d.kind === 'options' ? STUBS[d.module] : undefined;
    if (stub === undefined) return [];
    return [...cutOff(look, d, stub), ...taken(look, d, stub)];
  });
}

const havingIds = (look: Look, ids: readonly string[]): PciDevice[] =>
  look.inventory.devices.filter((p) => ids.includes(`${p.vendor_id}:${p.product_id}`));

function taken(look: Look, d: Directive, stub: string): Finding[] {
  const ids = optionIds(d.rest);
  if (ids.length === 0) return [];
  const devices = havingIds(look, ids);
  const fix = removeDirective(look, d);
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
      [...fix, ...bindFix(look, devices, 'once the line is gone')],
    ),
  ];
  const elsewhere = devices.filter((p) => p.driver !== stub && !isVfioDriver(look.host, p.address, p.driver));
  if (elsewhere.length > 0)
    found.push(
      finding(
        'ids-not-followed',
        addresses(elsewhere),
        `"${d.text}" in ${place(d)} wants ${stub}; ${onDrivers(elsewhere)}`,
        [
          ...fix,
          ...bindFix(look, elsewhere, 'once the line is gone: an address is not late, whichever driver comes first'),
        ],
      ),
    );
  return found;
}

/** What each device is on. */
const onDrivers = (devices: readonly PciDevice[]): string =>
  devices
    .slice(0, NAMED)
    .map((p) => `${p.address} is ${p.driver === null ? 'without a driver' : `on ${p.driver}`}`)
    .join(', ');

/** Binds those of the devices that the host can do without: never the boot display, nor what goes with it. */
function bindFix(look: Look, devices: readonly PciDevice[], after: string): Fix[] {
  const kept = ofBootDisplay(look, devices);
  const rest = devices.filter((p) => !kept.includes(p)).slice(0, NAMED);
  if (rest.length === 0) return [];
  return [
    commandFix(
      `hostdev bind ${rest.map((p) => p.address).join(' ')}`,
      kept.length > 0 ? `${after}; the boot display and what goes with it are left to the host` : after,
    ),
  ];
}

/** Ids behind a blank: the kernel takes each as an option of its own, which it does not know (kernel/params.c next_arg). */
function cutOff(look: Look, d: Directive, stub: string): Finding[] {
  const words = look.cmdline;
  const stray = d.file === look.host.cmdline ? cmdlineStray(words.slice(words.indexOf(d.text) + 1)) : strayIds(d.rest);
  const own = /(?:^|\s)ids\b/.test(d.rest);
  if (stray.length === 0 || !own) return [];
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
      joinedFix(look, d, stray),
    ),
  ];
}

/** Words right behind an option of the command line that are ids and nothing else. */
function cmdlineStray(words: readonly string[]): string[] {
  const end = words.findIndex((w) => strayIds(`ids= ${w}`).length === 0);
  return words.slice(0, end < 0 ? words.length : end);
}

/** The same option with all ids in one word. */
function joinedFix(look: Look, d: Directive, stray: readonly string[]): Fix[] {
  const given = /(?:^|\s)ids\s*="?([^\s"]*)/.exec(d.rest)?.[1] ?? '';
  const all = [given, ...stray].flatMap((w) => w.split(',')).filter((w) => w !== '');
  const joined = `ids=${all.join(',')}`;
  if (d.file === look.host.cmdline) {
    const head = d.text.slice(0, d.text.indexOf('.') + 1);
    return cmdlineFix(look, { remove: [d.text, ...stray], add: [`${head}${joined}`] });
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
  return [
    {
      tool: d.file.includes('modprobe.d')
        ? 'modprobe.d'
        : d.file.startsWith('etc/initramfs-tools')
          ? 'initramfs-tools'
          : 'file',
      where: `/${d.file}:${d.line}`,
      line: [prefix, joined, ...others].join(' '),
      present: true,
      after: `${rebuild(look)}; then reboot`,
    },
  ];
}
