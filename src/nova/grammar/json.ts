/** JSON values as configuration hands them to us: untrusted, of any shape. */

export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
export type JsonObject = { [key: string]: JsonValue };

/** True for a JSON object: neither null nor a list. */
export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Deeper than any configuration; what walks a value may then recurse. */
const MAX_DEPTH = 32;

/** True when lists and objects are nested deeper than `most`, which bounds the recursion too. */
function isTooDeep(value: JsonValue, most = MAX_DEPTH): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (most < 0) return true;
  if (Array.isArray(value)) return value.some((v) => isTooDeep(v, most - 1));
  // for-in: a document of megabytes is walked without a list for each object in it.
  for (const key in value) if (isTooDeep(value[key] ?? null, most - 1)) return true;
  return false;
}

/** JSON.parse, with a nesting that is bounded. Raises SyntaxError. */
export function parseJson(text: string): JsonValue {
  const value = JSON.parse(text) as JsonValue;
  if (isTooDeep(value)) throw new SyntaxError(`lists and objects are nested deeper than ${MAX_DEPTH}`);
  return value;
}

/** Two JSON values are equal: key order in objects does not count. */
export function sameJson(a: JsonValue | undefined, b: JsonValue | undefined): boolean {
  if (a === b) return true;
  if (Array.isArray(a) || Array.isArray(b)) {
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((v, i) => sameJson(v, b[i]));
  }
  if (!isObject(a) || !isObject(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((k) => Object.hasOwn(b, k) && sameJson(a[k], b[k]));
}

/** JSON with the keys of every object sorted, so that equal values have equal texts. */
export function canonicalJson(value: JsonValue): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (!isObject(value)) return JSON.stringify(value);
  const keys = Object.keys(value).sort();
  return `{${keys.map((k) => `${JSON.stringify(k)}:${canonicalJson(value[k] ?? null)}`).join(',')}}`;
}
