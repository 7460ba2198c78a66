/**
 * Names of vendors, devices and classes out of pci.ids (https://pci-ids.ucw.cz/, format in its own head). The 1.4 MB
 * are searched as text and never indexed: a host has some thirty distinct ids, and an index of all forty thousand
 * costs more than they.
 */
import { withoutUnsafe } from '../text/safe.ts';

/** Twelve times today's file. The rest of a bigger one is not looked at. */
const MAX_TEXT = 16 * 1024 * 1024;

/** The longest real name has 130 characters. */
const MAX_NAME = 200;

const ID = /^[0-9a-f]{4}$/;
const CLASS = /^[0-9a-f]{6}$/;

/** A new vendor or class begins where a line begins with neither a tab nor a `#`. */
const NEXT_BLOCK = /\n[0-9A-Za-z]/g;

/** A new device or subclass, inside a block, is one tab deep. */
const NEXT_ENTRY = /\n\t[0-9A-Za-z]/g;

/** A piece of the file that begins with the line of a name, and the name. */
type Entry = { name: string | null; text: string };

/** The first entry of `text` at `key` (with its line start), up to where `next` finds another of the same level. */
function find(text: string, key: string, next: RegExp): Entry | null {
  // The first line has no line end before it, and to put one there would copy the whole text.
  const first = text.startsWith(key.slice(1));
  const at = first ? -1 : text.indexOf(key);
  if (at < 0 && !first) return null;
  const from = at + key.length;
  next.lastIndex = from;
  const body = text.slice(from, next.exec(text)?.index ?? text.length);
  const end = body.indexOf('\n');
  const line = body.slice(0, Math.min(end < 0 ? body.length : end, MAX_NAME * 2));
  const name = withoutUnsafe(line).trim().slice(0, MAX_NAME);
  return { name: name || null, text: end < 0 ? '' : body.slice(end) };
}

/**
 * Looks ids up in the text of a pci.ids file; whatever the text is (cut off, binary, empty), an id that isn't found in
 * it is null and nothing is raised. Ids are 4 lower-case hex digits as in the JSON answers; others are null too.
 */
export class PciNames {
  readonly #text: string;
  readonly #entries = new Map<string, Entry | null>();

  /** `text` is the file as latin1 or UTF-8 text; an empty one where there is no file. */
  constructor(text: string) {
    this.#text = text.slice(0, MAX_TEXT);
  }

  /** The vendor's name: `8086` gives `Intel Corporation`. */
  vendor(vendorId: string): string | null {
    return this.#vendor(vendorId)?.name ?? null;
  }

  /** The device's name without its vendor's: `8086`, `10c9` gives `82576 Gigabit Network Connection`. */
  device(vendorId: string, productId: string): string | null {
    return this.#device(vendorId, productId)?.name ?? null;
  }

  /** The name of the board that the chip is on; null when this very combination isn't listed, as for most. */
  subsystem(vendorId: string, productId: string, subVendorId: string, subDeviceId: string): string | null {
    if (!ID.test(subVendorId) || !ID.test(subDeviceId)) return null;
    const device = this.#device(vendorId, productId);
    const key = `\n\t\t${subVendorId} ${subDeviceId}  `;
    return (
      this.#cached(`${vendorId}:${productId}${key}`, () => device && find(device.text, key, NEXT_ENTRY))?.name ?? null
    );
  }

  /**
   * Class and subclass of 6 hex digits: `020000` gives `Ethernet controller`; the class's name when the subclass has
   * none.
   */
  className(classCode: string): string | null {
    if (!CLASS.test(classCode)) return null;
    const base = classCode.slice(0, 2);
    const sub = classCode.slice(2, 4);
    const block = this.#cached(`C ${base}`, () => find(this.#text, `\nC ${base}  `, NEXT_BLOCK));
    const entry = this.#cached(`C ${base}${sub}`, () => block && find(block.text, `\n\t${sub}  `, NEXT_ENTRY));
    return entry?.name ?? block?.name ?? null;
  }

  #vendor(vendorId: string): Entry | null {
    if (!ID.test(vendorId)) return null;
    return this.#cached(vendorId, () => find(this.#text, `\n${vendorId}  `, NEXT_BLOCK));
  }

  #device(vendorId: string, productId: string): Entry | null {
    if (!ID.test(productId)) return null;
    const vendor = this.#vendor(vendorId);
    return this.#cached(
      `${vendorId}:${productId}`,
      () => vendor && find(vendor.text, `\n\t${productId}  `, NEXT_ENTRY),
    );
  }

  #cached(key: string, look: () => Entry | null): Entry | null {
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    const entry = look();
    this.#entries.set(key, entry);
    return entry;
  }
}
