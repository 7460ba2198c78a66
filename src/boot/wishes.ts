/**
 * Wishes: what hostdev.toml and conf.d say that devices shall be at every boot (contract 10), as values with their
 * places.
 */

import { ALLOWABLE_GUARDS, type AllowableGuard } from '../config/allowable.ts';
import type { Config, Entry } from '../config/config.ts';
import { type Finding, mistake, type Place, plainValue } from '../config/place.ts';
import { DRIVER_NAME } from '../host/host.ts';
import { type Address, canonicalAddress } from '../pci/address.ts';
import { type Identity, SLOT_PATH } from '../pci/identity.ts';
import { quote } from '../text/safe.ts';

/**
 * What a device shall be on: the kernel's best VFIO driver, a VFIO driver by its name, a host driver that claims it, or
 * none.
 */
export type WishedDriver = 'vfio' | 'host' | 'none' | (string & {});

type Wished = {
  /** Where it stood when the wish was made; its identity counts. */
  address: Address;
  /** Of a VF, that of its PF. */
  identity: Identity;
  allow: AllowableGuard[];
  place: Place;
};

export type DeviceWish = Wished & {
  kind: 'device';
  /** The number of a VF below its PF; null for what is none. */
  vf: number | null;
  driver: WishedDriver;
  /** With all endpoints of its IOMMU group. */
  group: boolean;
};

/** VFs `first` to `last` on something of their own. `vgpu_type`: 0 for none, null where it is not wished. */
export type VfRange = { first: number; last: number; driver: WishedDriver | null; vgpu_type: number | null };

export type PfWish = Wished & { kind: 'pf'; vfs: number; for: 'vfio' | 'netdev'; ranges: VfRange[] };

export type Wish = DeviceWish | PfWish;

/** `all`: those too that do not count, because another one is about the same device. */
export type Wishes = { wishes: Wish[]; all: Wish[]; findings: Finding[] };

/**
 * What a wish is about, as one text: two wishes with the same are of one device. A PF's VFs are another matter than the
 * PF itself.
 */
export const subjectOf = (w: Wish): string =>
  `${w.identity.path}${w.kind === 'pf' ? ' vfs' : w.vf === null ? '' : ` vf ${w.vf}`}`;

/** For messages: where it is written. */
export const wishPlace = ({ place }: Pick<Wish, 'place'>): string => `${place.file}:${place.line}`;

/**
 * The wishes of a configuration. One that is wrong is left out, with its mistake; of several about one device the first
 * counts when they say the same, and none when they do not: which is meant is nobody's to guess.
 */
export function readWishes(config: Config): Wishes {
  const findings: Finding[] = [];
  const all = [
    ...config.pfs.flatMap((e) => (e.bad.size > 0 ? [] : (readPf(e, findings) ?? []))),
    ...config.devices.flatMap((e) => (e.bad.size > 0 ? [] : (readDevice(e, findings) ?? []))),
  ];
  const bySubject = new Map<string, Wish[]>();
  for (const w of all) bySubject.set(subjectOf(w), [...(bySubject.get(subjectOf(w)) ?? []), w]);
  const wishes = [...bySubject.values()].flatMap(([first, ...more]): Wish[] => {
    if (first === undefined) return [];
    const other = more.find((w) => saysOf(w) !== saysOf(first));
    for (const w of more)
      findings.push(
        mistake(
          w.place,
          `is about the same ${w.kind === 'pf' ? 'PF' : 'device'} as ${first.place.key} (${wishPlace(first)})${other === undefined ? ': the first one counts' : ', and says something else: none of them counts'}`,
          {
            hint: 'Remove one of them.',
          },
        ),
      );
    return other === undefined ? [first] : [];
  });
  return { wishes, all, findings };
}

/** All that a wish says, but where it is written. */
const saysOf = ({ place: _, ...says }: Wish): string => JSON.stringify(says);

type Reader = {
  text(key: string): string | null;
  number(key: string): number | null;
  texts(key: string): string[];
  wrong(key: string, message: string, hint?: string): null;
};

/** Types, and what must be there, were seen by config/. */
function readerOf({ table, place }: Pick<Entry, 'table' | 'place'>, findings: Finding[]): Reader {
  const value = (key: string): unknown => {
    const member = table.members.get(key);
    return member === undefined ? null : plainValue(member.value);
  };
  return {
    text: (key) => (typeof value(key) === 'string' ? (value(key) as string) : null),
    number: (key) => (typeof value(key) === 'number' ? (value(key) as number) : null),
    texts: (key) => {
      const list = value(key);
      return Array.isArray(list) ? list.filter((t): t is string => typeof t === 'string') : [];
    },
    wrong(key, message, hint) {
      const at = table.members.get(key)?.value ?? place;
      findings.push(
        mistake({ ...place, line: at.line, column: at.column, key: `${place.key}.${key}` }, message, {
          hint: hint ?? null,
        }),
      );
      return null;
    },
  };
}

const HEX4 = /^[0-9a-f]{4}$/;
const MAKE_IT = "'hostdev wish add DEV' writes a wish with all that tells the device.";

/** The part that both kinds of wish have; null when something of it is wrong. */
function readWished(entry: Entry, r: Reader): Wished | null {
  const given = r.text('address') ?? '';
  const address = /^\s*\S+:\S+:\S+\s*$/.test(given) ? canonicalAddress(given.trim()) : null;
  let right = address !== null;
  const no = (key: string, message: string, hint?: string): void => {
    r.wrong(key, message, hint);
    right = false;
  };
  if (address === null)
    r.wrong('address', `is ${quote(given)}: no full address`, "Write it as 'hostdev list' does: 0000:01:00.0.");
  const path = r.text('path')?.trim().toLowerCase() ?? '';
  if (!SLOT_PATH.test(path)) no('path', `is ${quote(path)}: no path of slots such as pci0000:20/04.0/00.0`, MAKE_IT);
  const id = (key: string): string | null => {
    const text = r.text(key)?.trim().toLowerCase().replace(/^0x/, '') ?? null;
    if (text === null || HEX4.test(text)) return text;
    no(key, `is ${quote(text)}: 4 hex digits are expected`);
    return null;
  };
  const mark = (key: string, is: RegExp, what: string): string | null => {
    const text = r.text(key)?.trim() ?? null;
    if (text === null || is.test(text)) return text;
    no(key, `is ${quote(text)}: ${what} is expected`);
    return null;
  };
  const identity: Identity = {
    path,
    vendor_id: id('vendor_id') ?? '',
    product_id: id('product_id') ?? '',
    subsystem_vendor_id: id('subsystem_vendor_id'),
    subsystem_device_id: id('subsystem_device_id'),
    serial: mark('serial', /^[0-9a-f]{2}(?:-[0-9a-f]{2}){7}$/i, '00-1b-21-ff-ff-3c-4d-5e')?.toLowerCase() ?? null,
    nvme_serial: mark('nvme_serial', /^[\x20-\x7e]{1,32}$/, 'a serial number'),
    mac: mark('mac', /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i, '52:54:00:12:34:56')?.toLowerCase() ?? null,
  };
  const allow: AllowableGuard[] = [];
  for (const word of r.texts('allow')) {
    const guard = ALLOWABLE_GUARDS.find((g) => g === word);
    if (guard !== undefined) allow.push(guard);
    else no('allow', `has ${quote(word)}: no guard that can be lifted`, `There are: ${ALLOWABLE_GUARDS.join(', ')}.`);
  }
  return right && address !== null ? { address, identity, allow, place: entry.place } : null;
}

/** True for what a wish may name as a driver. */
const isWishedDriver = (text: string): boolean => DRIVER_NAME.test(text) && text.trim() === text;

function readDevice(entry: Entry, findings: Finding[]): DeviceWish | null {
  const r = readerOf(entry, findings);
  const wished = readWished(entry, r);
  const driver = r.text('driver') ?? '';
  if (!isWishedDriver(driver)) return r.wrong('driver', `is ${quote(driver)}: no driver's name`);
  const vf = r.number('vf');
  if (vf !== null && !Number.isInteger(vf)) return r.wrong('vf', `is ${vf}: a whole number is expected`);
  const group = r.text('group') === 'endpoints';
  if (group && (driver === 'host' || driver === 'none'))
    return r.wrong('group', `goes with a VFIO driver only, and driver is ${quote(driver)}`);
  return wished === null ? null : { kind: 'device', ...wished, vf, driver, group };
}

function readPf(entry: Entry, findings: Finding[]): PfWish | null {
  const r = readerOf(entry, findings);
  const wished = readWished(entry, r);
  const vfs = r.number('vfs') ?? 0;
  if (!Number.isInteger(vfs)) return r.wrong('vfs', `is ${vfs}: a whole number is expected`);
  const ranges: VfRange[] = [];
  const list = entry.table.members.get('range')?.value;
  for (const [n, item] of (list?.kind === 'list' ? list.items : []).entries()) {
    if (item.kind !== 'table') continue;
    const { line, column } = item;
    const one = readerOf(
      { table: item, place: { ...entry.place, line, column, key: `${entry.place.key}.range[${n}]` } },
      findings,
    );
    const text = one.text('vfs') ?? '';
    const [, from = '', to = from] = /^\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*$/.exec(text) ?? [];
    const [first, last] = [Number(from), Number(to)];
    const driver = one.text('driver');
    if (from === '' || last < first) return one.wrong('vfs', `is ${quote(text)}: VFs are written "3" or "0-3"`);
    if (last >= vfs) return one.wrong('vfs', `is ${quote(text)}, and there are to be ${vfs} VFs: 0 to ${vfs - 1}`);
    const twice = ranges.find((o) => first <= o.last && o.first <= last);
    if (twice !== undefined)
      return one.wrong('vfs', `is ${quote(text)}, and has VFs of a range before it: ${twice.first}-${twice.last}`);
    if (driver !== null && !isWishedDriver(driver)) return one.wrong('driver', `is ${quote(driver)}: no driver's name`);
    const vgpu_type = one.number('vgpu_type');
    if (vgpu_type !== null && !Number.isInteger(vgpu_type))
      return one.wrong('vgpu_type', `is ${vgpu_type}: a whole number is expected`);
    if (vgpu_type !== null && driver !== null && driver !== 'vfio' && driver !== 'host')
      return one.wrong(
        'vgpu_type',
        `goes with the VF's own driver, and driver is ${quote(driver)}`,
        'Leave out driver: a vGPU stays on the driver that makes it one.',
      );
    ranges.push({ first, last, driver, vgpu_type });
  }
  if (wished === null) return null;
  return { kind: 'pf', ...wished, vfs, for: r.text('for') === 'netdev' ? 'netdev' : 'vfio', ranges };
}
