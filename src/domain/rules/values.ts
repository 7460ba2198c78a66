/** Values of attributes that both libvirt's schema and its parser take: the two do not read numbers alike. */
import type { Element } from '@xmldom/xmldom';

/** Whether a text is a value; a RegExp is one. */
export type Value = { test: (text: string) => boolean };

export const ON_OFF = /^(on|off)$/;
export const YES_NO = /^(yes|no)$/;
/** `managed` of a host device: its parser passes over what it does not know, so the schema alone judges. */
export const MANAGED = /^[ \t\r\n]*(yes|no)[ \t\r\n]*$/;
export const ANY = /^/;
/** The schema's UUID, device name, and path of a file. */
export const ALIAS_NAME = /^[a-zA-Z0-9_\-.]+$/;
export const FILE = /^(\/|[a-zA-Z]:\\)./;
export const DEVICE_NAME = /^[a-zA-Z0-9_.\-\\:/]+$/;

/** Digits that say a number from `min` to `max`, behind what `lead` takes: blanks, a sign. */
export const digits = (min: number, max: number, lead = ''): Value => {
  const pattern = new RegExp(`^${lead}(\\d+)$`);
  return {
    test: (text) => {
      const n = Number(pattern.exec(text)?.[1] ?? Number.NaN);
      return n >= min && n <= max;
    },
  };
};

/** From 1 to 4294967295 with digits alone: the schema's positiveInteger, the parser's unsigned int. */
export const POSITIVE = digits(1, 0xffffffff);
/** xsd:int, and virStrToLong_uip to base 10: blanks may precede the digits and not follow them. */
export const UINT8 = digits(0, 0xff, '\\s*\\+?');
export const UINT32 = /^\s*\+?\d{1,10}$/;

/**
 * A number up to `max` that both take: the schema's hex pattern (`hex` digits) or xsd:int (of a domain xsd:unsignedInt,
 * which has no sign), and virStrToLong_uip to base 0, for which a leading 0 means octal: what is 255 to the schema may
 * be 173 to the parser. Blanks before it are taken, behind it not.
 */
const number = (max: number, hex: number, sign: '\\+?' | ''): Value => {
  const decimal = digits(0, max, `[ \\t\\r\\n]*${sign}`);
  const hexadecimal = new RegExp(`^0x[0-9a-fA-F]{1,${hex}}$`);
  return {
    test: (text) =>
      hexadecimal.test(text) ? Number(text) <= max : decimal.test(text) && !/^\s*\+?0\d*[89]/.test(text),
  };
};

export const PCI_ADDRESS: Record<string, Value> = {
  domain: number(0xffffffff, 8, ''),
  bus: number(0xff, 2, '\\+?'),
  slot: number(0x1f, 2, '\\+?'),
  function: number(7, 1, '\\+?'),
  multifunction: ON_OFF,
};

/** A part of a PCI address as libvirt reads it; 0 when it is left out, null for what {@link PCI_ADDRESS} refuses. */
export function addressPart(e: Element, name: 'domain' | 'bus' | 'slot' | 'function'): number | null {
  const text = e.getAttribute(name) ?? '0';
  if (!PCI_ADDRESS[name]?.test(text)) return null;
  return /^\s*\+?0[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number(text);
}
