/**
 * The flat table that the initramfs carries: which functions shall be on which driver before udev's coldplug, and what
 * the host stands on. Text, a line each, with a version at its head and a hash at its end; native/boot_table.cc reads
 * it there. Pure: text to values and back.
 */
import type { Address } from '../pci/address.ts';

export type TableDevice = {
  /** Slots from the root bus: identity.ts. */
  path: string;
  /** Where it was when the table was written: for people. */
  address: Address;
  vendor_id: string;
  product_id: string;
  subsystem_vendor_id: string | null;
  subsystem_device_id: string | null;
  class: string;
  serial: string | null;
  /** Functions with the same number move together or not at all. */
  group: number;
  /** "none": a name that no driver has. */
  driver: string;
  /** Loaded where the driver is not there; null for what is built in. */
  module: string | null;
  /** Guards that its wish lifts. */
  allow: readonly string[];
};

export type BootTable = {
  /** Of the kernel command line that it was written under; empty where there was none. */
  root: string;
  resume: string;
  /** Paths of what the host stands on, and of the display that the firmware booted. */
  vital: readonly string[];
  displays: readonly string[];
  devices: readonly TableDevice[];
};

const HEAD = 'hostdev boot table';
const VERSION = 1;
/** As native/boot_table.h. */
const MAX_BYTES = 2 * 1024 * 1024;

/** FNV-1a, 64 bits, in two halves: no BigInt for each byte of a table. As native/boot_table.cc. */
export function fnv1a(text: string): string {
  let [high, low] = [0xcbf29ce4, 0x84222325];
  for (let n = 0; n < text.length; n += 1) {
    low = (low ^ text.charCodeAt(n)) >>> 0;
    // Times 2^40 + 0x1b3.
    const product = low * 0x1b3;
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0;
    low = product >>> 0;
  }
  return [high, low].map((half) => half.toString(16).padStart(8, '0')).join('');
}

/** A word that the table may have: printable, no space. */
export const isTableWord = (text: string): boolean => /^[\x21-\x7e]{1,512}$/.test(text);

const orDash = (text: string | null): string => text ?? '-';

const deviceLine = (d: TableDevice): string =>
  [
    'device',
    d.path,
    d.address,
    d.vendor_id,
    d.product_id,
    orDash(d.subsystem_vendor_id),
    orDash(d.subsystem_device_id),
    d.class,
    orDash(d.serial),
    d.group,
    d.driver,
    orDash(d.module),
    d.allow.length === 0 ? '-' : d.allow.join(','),
  ].join(' ');

const valueLines = (key: string, value: string): string[] => (value === '' ? [] : [`${key} ${value}`]);

/** The lines that say what shall be done; what the host stands on besides is of the moment when it was written. */
const wishedLines = (t: BootTable): string[] => [
  ...valueLines('root', t.root),
  ...valueLines('resume', t.resume),
  ...t.devices.map(deviceLine),
];

/** The text of a table. Every value is a word of it ({@link isTableWord}): the caller has seen to that. */
export function tableText(table: BootTable): string {
  const body = [
    `${HEAD} ${VERSION}`,
    "# Made from the wishes by 'hostdev boot install'; the initramfs has a copy. Not to be edited.",
    ...wishedLines(table),
    ...table.displays.map((p) => `display ${p}`),
    ...table.vital.map((p) => `vital ${p}`),
    '',
  ].join('\n');
  return `${body}end ${fnv1a(body)}\n`;
}

/** What is read of a table: its hash, the devices by path and address, and the lines that count. */
export type ReadTable = { hash: string; devices: ReadDevice[]; wished: string };

type ReadDevice = { path: string; address: Address; driver: string };

/** Reads a table's text; a text in place of it says why it is none. */
export function readTable(text: string): ReadTable | string {
  if (text === '') return 'is empty';
  if (text.length > MAX_BYTES) return 'is larger than any table of ours';
  if (!text.startsWith(`${HEAD} `)) return "is no table of hostdev's";
  if (!text.startsWith(`${HEAD} ${VERSION}\n`)) return 'was written by another version of hostdev';
  const m = /\nend ([0-9a-f]{16})\n$/.exec(text);
  if (m === null) return 'was cut short';
  const body = text.slice(0, m.index + 1);
  if (fnv1a(body) !== m[1]) return 'is not as it was written';
  const lines = body.split('\n').filter((l) => /^(?:root|resume|device) /.test(l));
  const devices = lines.flatMap((l) => {
    const [key, path = '', address = ''] = l.split(' ');
    return key === 'device' ? [{ path, address, driver: l.split(' ')[10] ?? '' }] : [];
  });
  return { hash: m[1] ?? '', devices, wished: lines.join('\n') };
}

/** Whether a table says the same as one that was read, but for what the host stood on when it was written. */
export const saysTheSame = (table: BootTable, read: ReadTable): boolean =>
  wishedLines(table).join('\n') === read.wished;
