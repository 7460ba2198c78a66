/**
 * Nova's `[pci] device_spec`: which devices may be given out, and with which tags (nova/pci/devspec.py, whitelist.py of
 * 33.0.0). There is no schema: every key that does not match devices is a tag and becomes part of the pool; slips are
 * only noted.
 */

import { SCHEMA } from '../../config/schema.ts';
import { isObject, type JsonObject, type JsonValue, parseJson } from '../../text/json.ts';
import { nearestWord } from '../../text/nearestWord.ts';
import { quote } from '../../text/safe.ts';
import {
  type AddressFields,
  type AddressMatcher,
  type AddressSpec,
  addressMatcher,
  addressText,
  deviceFields,
  isAnyAddress,
  parseAddressSpec,
} from './addressSpec.ts';
import { canonicalJson } from './json.ts';
import { type Note, NovaError, note } from './novaError.ts';
import { BOOL_WORDS, hexField, looseBool, strictBool } from './values.ts';

/** What a spec asks of the host while it is read (PFs, netdevs). Addresses are canonical texts. */
export type HostFacts = {
  /** The PCI address behind a network interface, null when there is none. */
  netdev(name: string): string | null;
  /** sriov_totalvfs above 0. */
  isPf(address: string): boolean;
  /** Vendor and product of a device, 4 lower-case hex digits; null when not known. */
  ids(address: string): { vendor_id: string; product_id: string } | null;
  /** The product id of a PF's VFs (sriov_vf_device), 4 lower-case hex digits; null when not known. */
  vfProductId(address: string): string | null;
};

/** A host of which nothing is known: no PFs, no netdevs. */
export const NO_FACTS: HostFacts = {
  netdev: () => null,
  isPf: () => false,
  ids: () => null,
  vfProductId: () => null,
};

export type SpecContext = {
  facts: HostFacts;
  /** [pci]report_in_placement: one_time_use needs it. */
  reportInPlacement: boolean;
};

export const SPEC_CONTEXT: SpecContext = { facts: NO_FACTS, reportInPlacement: false };

/** A parsed spec. Ids are 4 lower-case hex digits or "*"; `address` is null for a devname. The tags are normalised. */
export type DeviceSpec = {
  vendor_id: string;
  product_id: string;
  address: AddressSpec | null;
  devname: string | null;
  remote_managed: boolean;
  tags: JsonObject;
};

/** What matching needs of a device; {@link fromInventory} in pool/ makes it of `list -j`. */
export type SpecDevice = {
  address: string;
  vendor_id: string | null;
  product_id: string | null;
  parent_addr: string | null;
  /** VPD's card serial number; null when there is none. */
  card_serial_number: string | null;
};

const MATCH_KEYS = ['vendor_id', 'product_id', 'address', 'devname'] as const;
/** Tags that Nova normalises to "true" or "false". */
const BOOL_TAGS = ['managed', 'live_migratable', 'one_time_use'] as const;
/** Every key of a spec that means something to Nova. */
const SPEC_KEYS = Object.keys(SCHEMA.device_spec.keys);

const ANY = '*';
const MAX_ID = 0xffff;
/** No configuration has more; bounds the work on a hostile file. */
const MAX_SPECS = 4096;

const invalid = (message: string, key: string | null = null, hint?: string): NovaError =>
  new NovaError('PciConfigInvalidSpec', message, { key, ...(hint === undefined ? {} : { hint }) });

/**
 * One configuration value (a JSON text, or its value already parsed): one object or a list of them. Raises {@link
 * NovaError}.
 */
export function parseDeviceSpec(
  value: unknown,
  context: SpecContext = SPEC_CONTEXT,
): { specs: DeviceSpec[]; notes: Note[] } {
  const given = typeof value === 'string' ? fromText(value) : (value as JsonValue);
  if (!Array.isArray(given) && !isObject(given)) {
    throw invalid(`A device_spec is one JSON object or a list of them, not ${quote(given)}`);
  }
  const list = Array.isArray(given) ? given : [given];
  if (list.length > MAX_SPECS) throw invalid(`A list of ${list.length} specs; at most ${MAX_SPECS} are taken`);
  const notes: Note[] = [];
  const specs = list.map((entry) => {
    if (!isObject(entry)) throw invalid(`A device_spec in a list is a JSON object, not ${quote(entry)}`);
    return parseOne(entry, context, notes);
  });
  return { specs, notes };
}

function fromText(text: string): JsonValue {
  try {
    return parseJson(text);
  } catch (e) {
    const quotes = /^[^"]*'/.test(text) ? ' JSON wants double quotes.' : '';
    throw new NovaError('PciConfigInvalidSpec', `The device_spec ${quote(text)} is not JSON: ${(e as Error).message}`, {
      hint: `Write it as {"vendor_id": "8086", "product_id": "10ca"}.${quotes}`,
      cause: e,
    });
  }
}

function parseOne(entry: JsonObject, context: SpecContext, notes: Note[]): DeviceSpec {
  const { facts } = context;
  const own = (key: string, absent: JsonValue): JsonValue =>
    Object.hasOwn(entry, key) ? (entry[key] as JsonValue) : absent;
  const vendorId = parseId('vendor_id', own('vendor_id', ANY));
  const productId = parseId('product_id', own('product_id', ANY));
  const devname = parseDevname(own('devname', null));
  const address = own('address', null);
  if (!isAnyAddress(address) && devname) {
    throw new NovaError('PciDeviceInvalidDeviceName', 'A device_spec has an address or a devname, not both', {
      key: 'devname',
    });
  }
  const parsed = devname ? null : parseAddressSpec(address, (a) => facts.isPf(a), notes);
  const spec = {
    vendor_id: vendorId,
    product_id: productId,
    address: parsed,
    devname,
    remote_managed: looseBool(own('remote_managed', null)),
    tags: {},
  };
  // In Nova's order, which decides what error is told of several.
  if (spec.remote_managed) checkRemoteManaged(spec, facts);
  return { ...spec, tags: parseTags(entry, context, notes) };
}

/** vendor_id is trimmed before it is compared with "*", product_id is not: as in Nova. */
function parseId(key: 'vendor_id' | 'product_id', value: JsonValue): string {
  if (typeof value !== 'string') {
    throw invalid(`${key} is ${quote(value)}, not a text`, key, `Write it in quotes: "${key}": "8086".`);
  }
  const text = key === 'vendor_id' ? value.trim() : value;
  return text === ANY ? ANY : hexField(key, text, MAX_ID, 4);
}

function parseDevname(value: JsonValue): string | null {
  if (value === null || typeof value === 'string') return value;
  throw invalid(`devname is ${quote(value)}, not a text`, 'devname', 'Give the name of a network interface.');
}

function parseTags(given: JsonObject, context: SpecContext, notes: Note[]): JsonObject {
  const entries = Object.entries(given).filter(([k]) => !(MATCH_KEYS as readonly string[]).includes(k));
  return Object.fromEntries(
    entries.map(([key, value]): [string, JsonValue] => {
      noteTag(key, value, notes);
      const isBool = (BOOL_TAGS as readonly string[]).includes(key);
      if (!isBool || value === null) return [key, value];
      const read = strictBool(value);
      if (read === null) {
        throw invalid(`The tag ${key} cannot be ${quote(value)}`, key, `It takes one of: ${BOOL_WORDS}.`);
      }
      if (key === 'one_time_use' && read && !context.reportInPlacement) {
        const hint = 'Set [pci]report_in_placement = true, or leave the tag out.';
        throw invalid('one_time_use needs [pci]report_in_placement', key, hint);
      }
      return [key, `${read}`];
    }),
  );
}

function noteTag(key: string, value: JsonValue, notes: Note[]): void {
  if (SPEC_KEYS.includes(key)) {
    if (key === 'remote_managed' && value !== null && strictBool(value) === null) {
      notes.push(note(`remote_managed is ${quote(value)}, which Nova takes for false`, key));
    }
    return;
  }
  const meant = key === 'device_id' ? 'vendor_id' : nearestWord(key, SPEC_KEYS);
  const or = meant === null ? '' : `; did you mean ${meant}?`;
  notes.push(note(`${quote(key)} is no key of Nova's: it is kept as a tag and splits pools${or}`, key, meant));
}

/** The PF that a spec names by address or devname, null when it names none. */
function namedPf(spec: DeviceSpec, facts: HostFacts): string | null {
  if (spec.address !== null) return spec.address.is_pf ? addressText(spec.address) : null;
  const address = spec.devname === null ? null : facts.netdev(spec.devname);
  return address !== null && facts.isPf(address) ? address : null;
}

/**
 * A PF cannot be remote_managed, only its VFs (docs of Nova's DPU support). As Nova means it: its own check dies on
 * every real host (it reads a file that the kernel does not have).
 */
function checkRemoteManaged(spec: DeviceSpec, facts: HostFacts): void {
  const key = 'remote_managed';
  if (spec.devname && facts.netdev(spec.devname) === null) {
    throw new NovaError('PciDeviceRemoteManagedNotPresent', `There is no network interface ${quote(spec.devname)}`, {
      key,
    });
  }
  const pf = namedPf(spec, facts);
  if (pf === null) return;
  const ids = facts.ids(pf);
  const vfProductId = facts.vfProductId(pf);
  if (ids === null || vfProductId === null) {
    throw new NovaError('PciDeviceNotFoundById', `The ids of the PF ${pf} and of its VFs are not known`, { key });
  }
  const isVendor = spec.vendor_id === ANY || spec.vendor_id === ids.vendor_id;
  if (isVendor && spec.product_id === vfProductId) return;
  if (isVendor && (spec.product_id === ANY || spec.product_id === ids.product_id)) {
    throw new NovaError('PciDeviceInvalidPFRemoteManaged', `${pf} is a PF, and only VFs can be remote_managed`, {
      key,
      hint: `To take its VFs only, add "product_id": "${vfProductId}".`,
    });
  }
  throw invalid(
    `vendor_id ${spec.vendor_id} and product_id ${spec.product_id} are not those of the VFs of ${pf} (${ids.vendor_id}, ${vfProductId})`,
    key,
  );
}

/**
 * All values of a configuration in order, flattened; a spec equal to an earlier one is noted (it is kept, and never
 * reached). Raises {@link NovaError}.
 */
export function parseDeviceSpecs(
  values: readonly unknown[],
  context: SpecContext = SPEC_CONTEXT,
): { specs: DeviceSpec[]; notes: Note[] } {
  const specs: DeviceSpec[] = [];
  const notes: Note[] = [];
  for (const value of values) {
    const one = parseDeviceSpec(value, context);
    if (specs.length + one.specs.length > MAX_SPECS) throw invalid(`More than ${MAX_SPECS} specs are not taken`);
    specs.push(...one.specs);
    for (const n of one.notes) notes.push(n);
  }
  for (const { index, first } of duplicateSpecs(specs)) {
    notes.push(
      note(`device_spec ${index + 1} says the same as ${first + 1}: the first is kept, this one is never reached`),
    );
  }
  return { specs, notes };
}

/** Specs that match the same devices as an earlier one, by index; whatever their tags are, they are never reached. */
export function duplicateSpecs(specs: readonly DeviceSpec[]): { index: number; first: number }[] {
  const seen = new Map<string, number>();
  const found: { index: number; first: number }[] = [];
  specs.forEach((s, index) => {
    const { vendor_id, product_id, address, devname, remote_managed } = s;
    const key = canonicalJson({ vendor_id, product_id, address, devname, remote_managed });
    const first = seen.get(key);
    if (first === undefined) seen.set(key, index);
    else found.push({ index, first });
  });
  return found;
}

/** The spec as JSON text: parsing it again with the same context gives an equal spec. */
export function printSpec(spec: DeviceSpec): string {
  const out: [string, JsonValue][] = [];
  if (spec.vendor_id !== ANY) out.push(['vendor_id', spec.vendor_id]);
  if (spec.product_id !== ANY) out.push(['product_id', spec.product_id]);
  if (spec.address !== null) {
    const { kind, is_pf, ...fields } = spec.address;
    const isAny = kind === 'glob' && addressText(fields) === '*:*:*.*';
    if (!isAny) out.push(['address', kind === 'glob' ? addressText(fields) : fields]);
  }
  if (spec.devname !== null) out.push(['devname', spec.devname]);
  return JSON.stringify(Object.fromEntries([...out, ...Object.entries(spec.tags)]));
}

/** What the specs say of a device: the first that matches and its tags, or why the device is left out. */
export type SpecMatch = { index: number | null; tags: JsonObject | null; error: NovaError | null };

type Compiled = { spec: DeviceSpec; matches: AddressMatcher; isPf: boolean } | null;

/** Specs ready to be asked about thousands of devices. */
export class SpecMatcher {
  readonly specs: readonly DeviceSpec[];
  readonly #compiled: Compiled[];

  /** `facts` resolves devnames, as Nova does at every match. */
  constructor(specs: readonly DeviceSpec[], facts: HostFacts = NO_FACTS) {
    this.specs = specs;
    this.#compiled = specs.map((spec) => compile(spec, facts));
  }

  /**
   * The first spec that matches; `error` is set for a device whose address Nova does not take, which is then left out.
   */
  match(device: SpecDevice): SpecMatch {
    try {
      const index = this.#find(device);
      return { index, tags: index === null ? null : (this.specs[index]?.tags ?? null), error: null };
    } catch (e) {
      if (!(e instanceof NovaError)) throw e;
      return { index: null, tags: null, error: e };
    }
  }

  /**
   * Nova parses the addresses for every spec it tries, whatever the ids are: so an address that is none shows up even
   * where another key would not match.
   */
  #find(device: SpecDevice): number | null {
    let own: AddressFields | null = null;
    let parent: AddressFields | null = null;
    for (let index = 0; index < this.#compiled.length; index += 1) {
      const c = this.#compiled[index];
      if (!c) continue;
      let isThere = false;
      if (c.isPf && device.parent_addr) {
        parent ??= deviceFields(device.parent_addr);
        isThere = c.matches(parent);
      }
      if (!isThere) {
        own ??= deviceFields(device.address);
        isThere = c.matches(own);
      }
      const { spec } = c;
      if (!isThere) continue;
      if (spec.vendor_id !== ANY && spec.vendor_id !== device.vendor_id) continue;
      if (spec.product_id !== ANY && spec.product_id !== device.product_id) continue;
      if (spec.remote_managed && !device.card_serial_number) continue;
      return index;
    }
    return null;
  }
}

/** A devname stands for the address behind it; one that is not there matches nothing. */
function compile(spec: DeviceSpec, facts: HostFacts): Compiled {
  if (spec.address !== null) return { spec, matches: addressMatcher(spec.address), isPf: spec.address.is_pf };
  const address = spec.devname === null ? null : facts.netdev(spec.devname);
  const fields = address === null ? null : fieldsOf(address);
  if (address === null || fields === null) return null;
  const isPf = facts.isPf(address);
  return { spec, matches: addressMatcher({ kind: 'glob', ...fields, is_pf: isPf }), isPf };
}

/** {@link deviceFields}, or null for what is no address of Nova's: an interface behind it can be matched by nothing. */
function fieldsOf(address: string): AddressFields | null {
  try {
    return deviceFields(address);
  } catch (e) {
    if (e instanceof NovaError) return null;
    throw e;
  }
}

/** {@link SpecMatcher.match} for one device. */
export const matchSpec = (specs: readonly DeviceSpec[], device: SpecDevice, facts: HostFacts = NO_FACTS): SpecMatch =>
  new SpecMatcher(specs, facts).match(device);
