/**
 * The `address` of a device_spec: a glob in a text or a pattern a field in an object (nova/pci/devspec.py,
 * PciAddress*Spec).
 */

import { isObject, type JsonValue } from '../../text/json.ts';
import { nearestWord } from '../../text/nearestWord.ts';
import { quote } from '../../text/safe.ts';
import { type Note, NovaError, note } from './novaError.ts';
import { compileField, type FieldPattern, PatternError } from './regex.ts';
import { hexField } from './values.ts';

/** The four fields as text: canonical lower-case hex, "*", or a pattern. */
export type AddressFields = { domain: string; bus: string; slot: string; function: string };

/** `is_pf`: the address is one PF's of this host, so that the spec takes its VFs too. */
export type AddressSpec = AddressFields & { kind: 'glob' | 'regex'; is_pf: boolean };

export type AddressMatcher = (address: AddressFields) => boolean;

const ANY = '*';
const ANY_PATTERN = '.*';
const FIELDS = ['domain', 'bus', 'slot', 'function'] as const;
/** Field, greatest value, digits. Nova's property for the function is "func", in messages only. */
const LIMITS = {
  domain: [0xffff, 4],
  bus: [0xff, 2],
  slot: [0x1f, 2],
  function: [0x7, 1],
} as const;

const MAX_GLOB = 256;

const field = (name: (typeof FIELDS)[number], text: string, key: string): string => {
  const [most, width] = LIMITS[name];
  const property = name === 'function' ? 'func' : name;
  return text === ANY ? ANY : hexField(`property ${property}`, text, most, width, key);
};

/**
 * Parses an address as lspci's -s writes it, with wildcards: the part behind the first "." is the function, the at most
 * three before it are domain, bus and slot from the right ("0000:" is bus 0000). Raises PciConfigInvalidSpec or
 * PciDeviceWrongAddressFormat.
 */
function parseGlob(text: string): AddressFields {
  const dot = text.indexOf('.');
  const before = dot < 0 ? text : text.slice(0, dot);
  const after = dot < 0 ? '' : text.slice(dot + 1);
  const func = after === '' ? ANY : field('function', after.trim(), 'address');
  const parts = before === '' ? [] : before.split(':', 4);
  if (parts.length > 3 || text.length > MAX_GLOB) {
    throw new NovaError('PciDeviceWrongAddressFormat', `The PCI address ${quote(text)} has too many fields`, {
      key: 'address',
      hint: 'Write it as domain:bus:slot.function, for example 0000:0a:00.*',
    });
  }
  const [domain = ANY, bus = ANY, slot = ANY] = [ANY, ANY, ANY, ...parts].slice(-3).map((p) => p.trim() || ANY);
  return {
    domain: field('domain', domain, 'address'),
    bus: field('bus', bus, 'address'),
    slot: field('slot', slot, 'address'),
    function: func,
  };
}

/** The pattern object; keys that Nova ignores are noted. Raises PciDeviceWrongAddressFormat. */
function parsePatterns(value: { [key: string]: JsonValue }, notes: Note[]): AddressFields {
  for (const key of Object.keys(value)) {
    if ((FIELDS as readonly string[]).includes(key)) continue;
    const meant = key === 'func' ? 'function' : nearestWord(key, FIELDS);
    notes.push(note(`address has no field ${quote(key)}: Nova ignores it, so every value matches`, 'address', meant));
  }
  const pattern = (name: (typeof FIELDS)[number]): string => {
    const text = Object.hasOwn(value, name) ? value[name] : ANY_PATTERN;
    if (typeof text === 'string') return text;
    throw new NovaError(
      'PciDeviceWrongAddressFormat',
      `The pattern of the address field ${name} is ${quote(text)}, not a text`,
      { key: 'address', hint: `Write it in quotes: "${name}": "${text}".` },
    );
  };
  const fields = {
    domain: pattern('domain'),
    bus: pattern('bus'),
    slot: pattern('slot'),
    function: pattern('function'),
  };
  for (const name of FIELDS) {
    if (/[A-F]/.test(fields[name]) && !fields[name].startsWith('(?i)') && !fields[name].includes('\\')) {
      notes.push(
        note(`the pattern ${quote(fields[name])} has capital letters: it is matched with lower-case digits`, 'address'),
      );
    }
  }
  return fields;
}

/** All four fields of hex digits only: Nova then looks whether it is a PF's address (an empty pattern counts). */
const isSingle = (a: AddressFields): boolean => FIELDS.every((f) => /^[0-9a-fA-F]*$/.test(a[f]));

export const addressText = (a: AddressFields): string => `${a.domain}:${a.bus}:${a.slot}.${a.function}`;

/** What Python takes for false: no address is given, so any will do. */
export const isAnyAddress = (value: JsonValue): boolean =>
  !value || (typeof value === 'object' && Object.keys(value).length === 0);

/**
 * Parses a spec's address; null, "", {} and the like are any address. `isPf` tells whether an address is a PF of this
 * host. Raises PciConfigInvalidSpec or PciDeviceWrongAddressFormat.
 */
export function parseAddressSpec(value: JsonValue, isPf: (address: string) => boolean, notes: Note[]): AddressSpec {
  const given = isAnyAddress(value) ? '*:*:*.*' : value;
  if (typeof given !== 'string' && !isObject(given)) {
    throw new NovaError(
      'PciDeviceWrongAddressFormat',
      `The PCI address ${quote(value)} is neither a text nor an object`,
      {
        key: 'address',
        hint: 'Write it as "0000:0a:00.*" or as {"bus": "0a", "slot": "00"}.',
      },
    );
  }
  const kind = typeof given === 'string' ? 'glob' : 'regex';
  const fields = typeof given === 'string' ? parseGlob(given) : parsePatterns(given, notes);
  const spec: AddressSpec = { kind, ...fields, is_pf: false };
  // Before the host is asked: a pattern that does not compile is an error on every host.
  addressMatcher(spec);
  return { ...spec, is_pf: isSingle(fields) && isPf(addressText(fields)) };
}

/**
 * The test that a spec's address makes of a device's. Raises PciDeviceWrongAddressFormat for a pattern that does not
 * compile.
 */
export function addressMatcher(spec: AddressSpec): AddressMatcher {
  if (spec.kind === 'regex') {
    const [domain, bus, slot, func] = FIELDS.map((f) => compile(f, spec[f])) as [
      FieldPattern,
      FieldPattern,
      FieldPattern,
      FieldPattern,
    ];
    return (a) => domain(a.domain) && bus(a.bus) && slot(a.slot) && func(a.function);
  }
  const equal = (wanted: string, is: string): boolean => wanted === ANY || wanted === is;
  return (a) =>
    equal(spec.bus, a.bus) &&
    equal(spec.slot, a.slot) &&
    equal(spec.function, a.function) &&
    equal(spec.domain, a.domain);
}

function compile(name: string, pattern: string): FieldPattern {
  try {
    return compileField(pattern);
  } catch (e) {
    if (!(e instanceof PatternError)) throw e;
    throw new NovaError(
      'PciDeviceWrongAddressFormat',
      `The pattern ${quote(pattern)} of the address field ${name} cannot be used: ${e.message}`,
      { key: 'address', hint: 'Patterns are Python regular expressions; "*" alone is none, write ".*".', cause: e },
    );
  }
}

const PLAIN = /^([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/;

/**
 * The fields of a device's own address, canonical. Raises PciConfigInvalidSpec when one is beyond Nova's limits (a
 * domain above ffff, as Intel VMD makes them: bug 1897528) and PciDeviceWrongAddressFormat when it is no address at
 * all.
 */
export function deviceFields(address: string): AddressFields {
  const m = PLAIN.exec(address);
  if (m !== null) return { domain: m[1] ?? '', bus: m[2] ?? '', slot: m[3] ?? '', function: m[4] ?? '' };
  const dot = address.indexOf('.');
  const parts = (dot < 0 ? address : address.slice(0, dot)).split(':', 4);
  const [domain = '', bus = '', slot = ''] = parts;
  if (parts.length !== 3) {
    throw new NovaError('PciDeviceWrongAddressFormat', `The device address ${quote(address)} is no PCI address`, {
      key: 'address',
    });
  }
  // Without a function Nova has an empty one, which is no number.
  const func = field('function', dot < 0 ? '' : address.slice(dot + 1), 'address');
  return {
    domain: field('domain', domain, 'address'),
    bus: field('bus', bus, 'address'),
    slot: field('slot', slot, 'address'),
    function: func,
  };
}
