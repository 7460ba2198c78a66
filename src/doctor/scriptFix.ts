/** The fix of a script that moves devices: all of its work as comments, and the devices that it meant. */
import type { Address } from '../pci/address.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { commandFix, shellWord } from './fix.ts';
import type { Look } from './look.ts';
import { workOf } from './shellWork.ts';
import type { Fix } from './table.ts';

/** No script is longer. */
export const MAX_SCRIPT = 256 * 1024;

/** What names no interpreter is started by a shell (rc.local) or read by one. */
const isShell = (text: string): boolean => !text.startsWith('#!') || /^#!.*\b(?:ba|da|k|mk|z|a)?sh\b/.test(text);

/**
 * The lines to take out of a script. One that is no shell's, or whose blocks cannot be told, is switched off as a
 * whole.
 * @param shown The path as the finding shows it.
 * @param after What makes it take effect.
 */
export function workFix(look: Look, file: string, shown: string, after: string | null): Fix[] {
  const text = look.text(file, MAX_SCRIPT) ?? '';
  const taken = isShell(text) ? workOf(text) : null;
  if (taken === null || taken.length === 0)
    return [
      commandFix(
        `chmod a-x ${shellWord(look.host.absolute(file))}`,
        'its lines cannot be told apart, so all of it is off: put elsewhere what else it does',
      ),
    ];
  return taken.map(({ first, last, lines }) => ({
    tool: 'file',
    where: `${shown}:${last > first ? `${first}-${last}` : first}`,
    line: lines.map((l) => l.replace(/[^\t\P{C}]/gu, '?')).join('\n'),
    present: true,
    after,
  }));
}

/** Devices here that a script's text names, by address, by libvirt's name, or by the ids that it writes to new_id. */
export function devicesNamed(look: Look, text: string): PciDevice[] {
  const named = new Set<Address | string>();
  for (const [, domain = '0000', bus, slot, fn] of text.matchAll(
    /(?<![\w.:])(?:pci_)?(?:([0-9a-f]{4,8})[:_])?([0-9a-f]{2})[:_]([0-1][0-9a-f])[._]([0-7])(?![\w:])/gi,
  ))
    named.add(`${domain}:${bus}:${slot}.${fn}`.toLowerCase());
  for (const line of text.split('\n').filter((l) => /\bnew_id\b/.test(l)))
    for (const [, vendor, product] of line.matchAll(/\b(?:0x)?([0-9a-f]{4})[ :](?:0x)?([0-9a-f]{4})\b/gi))
      named.add(`${vendor}:${product}`.toLowerCase());
  return look.inventory.devices.filter((d) => named.has(d.address) || named.has(`${d.vendor_id}:${d.product_id}`));
}
