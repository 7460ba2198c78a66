/**
 * Nova's `[pci] alias`: a named request (nova/pci/request.py of 33.0.0). Unlike a device_spec it has a schema, and an
 * unknown key is an error. One name given several times means: any of these.
 */

import { keysOf, SCHEMA } from '../../config/schema.ts';
import { isObject, type JsonObject, type JsonValue, parseJson } from '../../text/json.ts';
import { nearestWord } from '../../text/nearestWord.ts';
import { quote } from '../../text/safe.ts';
import { NovaError } from './novaError.ts';
import { BOOL_WORDS, strictBool } from './values.ts';

const NUMA_POLICIES = SCHEMA.alias.keys.numa_policy.values;
export type NumaPolicy = (typeof NUMA_POLICIES)[number];

export const isNumaPolicy = (word: unknown): word is NumaPolicy => (NUMA_POLICIES as readonly unknown[]).includes(word);

/** What a pool must have: each key compared with the pool's; `resource_class` and `traits` are for Placement only. */
export type RequestSpec = JsonObject;

export type Alias = { numa_policy: NumaPolicy; specs: RequestSpec[] };

/** By name, in the order of the configuration. */
export type Aliases = ReadonlyMap<string, Alias>;

const KEYS = Object.keys(SCHEMA.alias.keys);

const MAX_NAME = 256;

const invalid = (message: string, key: string | null = null, hint?: string, cause?: unknown): NovaError =>
  new NovaError('PciInvalidAlias', message, { key, cause, ...(hint === undefined ? {} : { hint }) });

/**
 * One configuration value (a JSON text, or its value already parsed) as a name and what it asks for. Raises
 * PciInvalidAlias.
 */
export function parseAlias(value: unknown): { name: string; numaPolicy: NumaPolicy; spec: RequestSpec } {
  const entry = typeof value === 'string' ? fromText(value) : (value as JsonValue);
  if (!isObject(entry)) throw invalid(`An alias is one JSON object, not ${quote(entry)}`);
  checkKeys(entry);
  if (!Object.hasOwn(entry, 'name')) throw invalid('An alias needs a name', 'name');
  for (const [key, v] of Object.entries(entry)) checkValue(key, v);
  const { name, numa_policy: policy, device_type: devType, capability_type: _, live_migratable: live, ...rest } = entry;
  const spec: RequestSpec = {
    ...rest,
    ...(devType === undefined ? {} : { dev_type: devType }),
    ...(live === undefined ? {} : { live_migratable: readLive(live) }),
  };
  return { name: String(name).trim(), numaPolicy: isNumaPolicy(policy) ? policy : 'legacy', spec };
}

function fromText(text: string): JsonValue {
  try {
    return parseJson(text);
  } catch (e) {
    const hint = 'Write it as {"name": "gpu", "vendor_id": "10de", "product_id": "20b0"}.';
    throw invalid(`The alias ${quote(text)} is not JSON: ${(e as Error).message}`, null, hint, e);
  }
}

function checkKeys(entry: JsonObject): void {
  for (const key of Object.keys(entry)) {
    if (KEYS.includes(key)) continue;
    const meant = nearestWord(key, KEYS);
    throw invalid(
      `An alias has no key ${quote(key)}`,
      key,
      meant === null ? `It takes: ${KEYS.join(', ')}.` : `Did you mean ${meant}?`,
    );
  }
}

/** The schema; for Python's `$`, which lets an end of line pass after an id, ours does not. */
function checkValue(key: string, value: JsonValue): void {
  if (typeof value !== 'string') throw invalid(`The alias key ${key} is ${quote(value)}, not a text`, key);
  const length = key === 'name' ? [...value].length : 1;
  if (length === 0 || length > MAX_NAME) {
    throw invalid(`The name of an alias has 1 to ${MAX_NAME} characters, not ${length}`, key);
  }
  if ((key === 'vendor_id' || key === 'product_id') && !/^[0-9a-fA-F]{4}$/.test(value)) {
    const hint = 'An alias has no wildcards and no 0x.';
    throw invalid(`The alias key ${key} takes exactly 4 hex digits, not ${quote(value)}`, key, hint);
  }
  const words = keysOf('alias')[key]?.values;
  if (words !== undefined && !words.includes(value))
    throw invalid(`The alias key ${key} cannot be ${quote(value)}`, key, `It takes one of: ${words.join(', ')}.`);
}

function readLive(value: JsonValue): string {
  const read = strictBool(value);
  if (read !== null) return `${read}`;
  throw invalid(
    `The alias key live_migratable cannot be ${quote(value)}`,
    'live_migratable',
    `It takes one of: ${BOOL_WORDS}.`,
  );
}

/** All aliases of a configuration. `pciInPlacement` is [filter_scheduler]pci_in_placement. Raises PciInvalidAlias. */
export function parseAliases(values: readonly unknown[], pciInPlacement: boolean): Aliases {
  const aliases = new Map<string, Alias>();
  for (const value of values) {
    const { name, numaPolicy, spec } = parseAlias(value);
    const before = aliases.get(name);
    if (before === undefined) {
      aliases.set(name, { numa_policy: numaPolicy, specs: [spec] });
      continue;
    }
    if (before.numa_policy !== numaPolicy) {
      throw invalid(`The alias ${quote(name)} is given twice, with different numa_policy`, 'numa_policy');
    }
    if (before.specs[0]?.dev_type !== spec.dev_type) {
      throw invalid(`The alias ${quote(name)} is given twice, with different device_type`, 'device_type');
    }
    before.specs.push(spec);
  }
  checkAsked(aliases, pciInPlacement);
  return aliases;
}

/** That each alias can be satisfied in the way devices are asked for. */
function checkAsked(aliases: Aliases, pciInPlacement: boolean): void {
  const all = [...aliases];
  const hasIds = (s: RequestSpec): boolean => 'vendor_id' in s && 'product_id' in s;
  const isAsked = (s: RequestSpec): boolean => hasIds(s) || (pciInPlacement && 'resource_class' in s);
  const without = all.filter(([, a]) => !a.specs.every(isAsked)).map(([name]) => name);
  if (without.length > 0) {
    const what = `vendor_id and product_id${pciInPlacement ? ', or resource_class' : ''}`;
    throw invalid(`The alias ${without.sort().map(quote).join(', ')} needs ${what}`, 'vendor_id');
  }
  const several = all.filter(([, a]) => a.specs.length > 1).map(([name]) => name);
  if (pciInPlacement && several.length > 0) {
    throw invalid(
      `The alias ${several.map(quote).join(', ')} is given several times, which does not work with pci_in_placement`,
      'name',
      'Give the device_specs one resource_class, and one alias that asks for it.',
    );
  }
}

/** The aliases as contract 7 prints them. */
export const viewAliases = (aliases: Aliases): Record<string, Alias> => Object.fromEntries(aliases);
