/** How the findings about modules name devices and places. */
import type { Directive } from '../host/modprobe.ts';
import type { PciDevice } from '../pci/inventory.ts';

/** How many addresses a line names. */
const SHOWN = 8;

/** The first addresses, and how many there are when those are not all. */
export const addresses = (devices: readonly PciDevice[]): string =>
  devices
    .slice(0, SHOWN)
    .map((d) => d.address)
    .join(', ') + (devices.length > SHOWN ? `, … (${devices.length})` : '');

/** File and line of a directive; a word of the command line has no line. */
export const place = (d: Pick<Directive, 'file' | 'line'>): string =>
  d.line === 0 ? `/${d.file}` : `/${d.file}:${d.line}`;
