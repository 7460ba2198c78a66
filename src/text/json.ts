/**
 * JSON that comes from outside or back from disk: untrusted, of any shape. Files of ours are checked by predicates
 * (what does not pass is no file of ours); documents that people write are read by {@link JsonReader}, which names the
 * place of what is wrong.
 */
import { quote } from './safe.ts';

export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
export type JsonObject = { [key: string]: JsonValue };

/** True for a JSON object: neither null nor a list. */
export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A text of a length that files of ours have. */
export const isText = (v: unknown): v is string => typeof v === 'string' && v.length <= 4096;
export const isTextOrNull = (v: unknown): v is string | null => v === null || isText(v);

/** A list of which each value passes. */
export const isListOf = <T>(v: unknown, is: (item: unknown) => item is T): v is T[] => Array.isArray(v) && v.every(is);

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

/** JSON.parse, with a nesting that is bounded. Raises SyntaxError, whose words are on one line. */
export function parseJson(text: string): JsonValue {
  let value: JsonValue;
  try {
    value = JSON.parse(text) as JsonValue;
  } catch (e) {
    // V8 quotes the text around the fault, with its line ends.
    throw new SyntaxError((e as Error).message.replace(/\s+/g, ' ').slice(0, 200), { cause: e });
  }
  if (isTooDeep(value)) throw new SyntaxError(`lists and objects are nested deeper than ${MAX_DEPTH}`);
  return value;
}

/**
 * The keys of one object; absent and null are the same. What is of another type raises what `wrong` makes of the words.
 */
export class JsonReader {
  readonly #object: JsonObject;
  readonly #place: string;
  readonly #wrong: (what: string) => Error;

  /** `place` is how messages name the object, empty for the document itself. */
  constructor(object: JsonObject, place: string, wrong: (what: string) => Error) {
    this.#object = object;
    this.#place = place;
    this.#wrong = wrong;
  }

  /** A reader of a value that must be an object. */
  static of(value: JsonValue | undefined, place: string, wrong: (what: string) => Error): JsonReader {
    if (isObject(value)) return new JsonReader(value, place, wrong);
    throw wrong(`${place} is ${quote(value)}, not an object`);
  }

  at(key: string): string {
    return this.#place === '' ? key : `${this.#place}.${key}`;
  }

  get(key: string): JsonValue {
    return Object.hasOwn(this.#object, key) ? (this.#object[key] ?? null) : null;
  }

  /**
   * The value of a key, null when there is none; raises when it is there and does not pass. `what` is said of it then:
   * "not a text".
   */
  take<T extends JsonValue>(key: string, what: string, ok: (v: JsonValue) => v is T): T | null {
    const value = this.get(key);
    // The place is spelled only for an error: there are thousands of devices.
    return value === null || ok(value) ? value : this.fail(key, what);
  }

  /** {@link take} of a key that must be there. */
  need<T extends JsonValue>(key: string, what: string, ok: (v: JsonValue) => v is T): T {
    return this.take(key, what, ok) ?? this.fail(key, what);
  }

  text(key: string): string | null {
    return this.take(key, 'not a text', isString);
  }

  neededText(key: string): string {
    return this.need(key, 'not a text', isString);
  }

  whole(key: string): number | null {
    return this.take(key, 'not a whole number', isWhole);
  }

  neededWhole(key: string): number {
    return this.need(key, 'not a whole number', isWhole);
  }

  flag(key: string, absent = false): boolean {
    return this.take(key, 'neither true nor false', isFlag) ?? absent;
  }

  list(key: string): JsonValue[] | null {
    return this.take(key, 'not a list', isList);
  }

  /** The object at a key; none is an empty one. */
  object(key: string): JsonReader {
    return new JsonReader(this.take(key, 'not an object', isObject) ?? {}, this.at(key), this.#wrong);
  }

  /** The objects of a list; no list is none. */
  objects(key: string): JsonReader[] {
    return (this.list(key) ?? []).map((v, i) => JsonReader.of(v, `${this.at(key)}[${i}]`, this.#wrong));
  }

  /** The object itself. */
  get values(): JsonObject {
    return this.#object;
  }

  fail(key: string, what: string): never {
    const value = this.get(key);
    throw this.#wrong(value === null ? `${this.at(key)} is missing` : `${this.at(key)} is ${quote(value)}, ${what}`);
  }
}

const isString = (v: unknown): v is string => typeof v === 'string';
export const isWhole = (v: unknown): v is number => Number.isSafeInteger(v);
const isFlag = (v: unknown): v is boolean => typeof v === 'boolean';
const isList = (v: unknown): v is JsonValue[] => Array.isArray(v);
