/**
 * JSON as Nova takes it from nova.conf (Python's json.loads), with the place of every value, and all mistakes at once
 * instead of the first: what people write by habit (keys without quotes, single quotes, a comma too many, Python's
 * True) is understood well enough to print the text as it should read.
 */
import type { Located, Member } from './place.ts';

/**
 * A mistake at the offset `at`, on the `path` to it (`.address.bus`). A fix replaces `[from, end)`; without one there
 * is no corrected text.
 */
export type JsonFault = {
  at: number;
  path: string;
  message: string;
  /** The value is whole, and something comes after it: a file of one value a line, for instance. */
  isRest: boolean;
  fix: { from: number; end: number; text: string } | null;
};

export type JsonRead = {
  /** Null when nothing could be made of the text. */
  value: Located | null;
  faults: JsonFault[];
  /** Keys given twice in one object, of which the last counts: offset and name. */
  repeated: { at: number; name: string }[];
};

/** Tells line and column of an offset. */
export type PlaceOf = (at: number) => { line: number; column: number };

/** Deeper than any spec: an object in a list in an object. */
const MAX_DEPTH = 32;
const MAX_FAULTS = 50;

class Unreadable extends Error {}

/** Reads one JSON value. Never raises. */
export function readJson(text: string, placeOf: PlaceOf): JsonRead {
  const reader = new Reader(text, placeOf);
  return reader.read();
}

/** The text with every fix made; null when a fault has none. */
export function correctedJson(text: string, faults: readonly JsonFault[]): string | null {
  let result = '';
  let from = 0;
  const fixes = faults.map((f) => f.fix);
  for (const fix of fixes.toSorted((a, b) => (a?.from ?? 0) - (b?.from ?? 0))) {
    if (fix === null || fix.from < from) return null;
    result += text.slice(from, fix.from) + fix.text;
    from = fix.end;
  }
  return result + text.slice(from);
}

const QUOTES: Record<string, string> = { '"': '"', "'": "'", '“': '”', '”': '”', '‘': '’', '’': '’', '„': '“' };
const WORDS: Record<string, boolean | null> = { true: true, false: false, null: null };
const PYTHON: Record<string, string> = { True: 'true', False: 'false', None: 'null', TRUE: 'true', FALSE: 'false' };
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?/y;
/** A word without quotes: up to what may follow a value or a key. */
const BARE = /[^\s,;:{}[\]"'“”‘’„]+/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

class Reader {
  readonly #text: string;
  readonly #placeOf: PlaceOf;
  #at = 0;
  #depth = 0;
  readonly #path: string[] = [];
  readonly #faults: JsonFault[] = [];
  readonly #repeated: { at: number; name: string }[] = [];

  constructor(text: string, placeOf: PlaceOf) {
    this.#text = text;
    this.#placeOf = placeOf;
  }

  read(): JsonRead {
    let value: Located | null = null;
    try {
      this.#blanks();
      if (this.#at >= this.#text.length)
        this.#stop('is empty: a JSON object is expected, such as {"vendor_id": "8086"}');
      value = this.#value();
      this.#blanks();
      if (this.#at < this.#text.length) this.#stop(`has more after its end: ${this.#next()}`, true);
    } catch (e) {
      if (!(e instanceof Unreadable)) throw e;
      value = null;
    }
    return { value, faults: this.#faults, repeated: this.#repeated };
  }

  #stop(message: string, isRest = false): never {
    this.#faults.push({ at: this.#at, path: this.#path.join(''), message, isRest, fix: null });
    throw new Unreadable();
  }

  #fault(from: number, end: number, text: string, message: string, at = from): void {
    this.#faults.push({ at, path: this.#path.join(''), message, isRest: false, fix: { from, end, text } });
    if (this.#faults.length >= MAX_FAULTS) this.#stop('has more mistakes than are worth listing');
  }

  /** JSON's four blanks; the others that look like one (a no-break space from a web page) are faults. */
  #blanks(): void {
    for (; this.#at < this.#text.length; this.#at += 1) {
      const c = this.#text[this.#at] ?? '';
      if (c === ' ' || c === '\t' || c === '\n' || c === '\r') continue;
      if (c === '#' || this.#text.startsWith('//', this.#at)) {
        this.#comment();
        continue;
      }
      if (!/\s/.test(c)) return;
      this.#fault(this.#at, this.#at + 1, ' ', `a blank that JSON does not know (U+${hex4(c)})`);
    }
  }

  /** Taken out with its line where it is alone on it: an empty line would end oslo's value. */
  #comment(): void {
    const before = this.#text.slice(0, this.#at).replace(/[ \t]+$/, '');
    const from = before.endsWith('\n') ? before.length - 1 : before.length;
    const end = this.#text.indexOf('\n', this.#at);
    const to = end < 0 ? this.#text.length : end;
    this.#fault(from, to, '', 'a comment, which JSON does not have', this.#at);
    this.#at = to - 1;
  }

  #next(): string {
    const rest = this.#text.slice(this.#at, this.#at + 16).split(/\s/)[0] ?? '';
    return rest === '' ? 'nothing' : `'${rest}'`;
  }

  #value(): Located {
    const c = this.#text[this.#at] ?? '';
    if (c === '{') return this.#nested(() => this.#object());
    if (c === '[') return this.#nested(() => this.#list());
    const from = this.#at;
    if (QUOTES[c] !== undefined) return this.#scalar(from, this.#string());
    return this.#scalar(from, this.#word());
  }

  #nested(read: () => Located): Located {
    this.#depth += 1;
    if (this.#depth > MAX_DEPTH) this.#stop(`is nested more than ${MAX_DEPTH} deep`);
    const value = read();
    this.#depth -= 1;
    return value;
  }

  #scalar(from: number, value: string | number | boolean | null): Located {
    return { kind: 'scalar', ...this.#placeOf(from), value, raw: this.#text.slice(from, this.#at) };
  }

  #object(): Located {
    const place = this.#placeOf(this.#at);
    const members = new Map<string, Member>();
    this.#sequence('}', () => {
      const at = this.#at;
      const name = this.#key();
      this.#path.push(`.${name}`);
      this.#blanks();
      if (this.#text[this.#at] === ':') this.#at += 1;
      else if (this.#text[this.#at] === '=') {
        this.#fault(this.#at, this.#at + 1, ':', `'=' after the key ${quoted(name)}: JSON writes ':'`);
        this.#at += 1;
      } else this.#stop(`no ':' after the key ${quoted(name)}, but ${this.#next()}`);
      this.#blanks();
      if (this.#at >= this.#text.length || ',}'.includes(this.#text[this.#at] ?? ''))
        this.#stop(`no value for the key ${quoted(name)}`);
      const value = this.#value();
      this.#path.pop();
      if (members.has(name)) this.#repeated.push({ at, name });
      // Python's dict keeps the place of the first, with the value of the last.
      members.set(name, { ...this.#placeOf(at), value });
    });
    return { kind: 'table', ...place, members };
  }

  #list(): Located {
    const place = this.#placeOf(this.#at);
    const items: Located[] = [];
    this.#sequence(']', () => {
      this.#path.push(`[${items.length}]`);
      items.push(this.#value());
      this.#path.pop();
    });
    return { kind: 'list', ...place, items };
  }

  /** `open item , item … close`: a comma missing or too many is a fault, and so is a text that ends before `close`. */
  #sequence(close: '}' | ']', item: () => void): void {
    this.#at += 1;
    let comma: number | null = null;
    let any = false;
    for (;;) {
      this.#blanks();
      const c = this.#text[this.#at];
      if (c === close) {
        if (comma !== null) this.#fault(comma, comma + 1, '', `a comma before the closing '${close}'`);
        this.#at += 1;
        return;
      }
      if (c === undefined) {
        // Written where the text ends, after its last word.
        const end = this.#text.trimEnd().length;
        if (comma !== null) this.#fault(comma, comma + 1, '', `a comma before the closing '${close}'`);
        this.#fault(
          Math.max(end, comma === null ? 0 : comma + 1),
          this.#text.length,
          close,
          `the closing '${close}' is missing`,
        );
        return;
      }
      if (c === ',') {
        this.#fault(this.#at, this.#at + 1, '', 'a comma too many');
        this.#at += 1;
        continue;
      }
      if (c === '}' || c === ']') this.#stop(`'${c}' where '${close}' was to close`);
      if (any && comma === null) {
        const end = this.#text.slice(0, this.#at).trimEnd().length;
        this.#fault(end, end, ',', `no comma before ${this.#next()}`);
      }
      item();
      any = true;
      this.#blanks();
      comma = null;
      if (this.#text[this.#at] === ',') {
        comma = this.#at;
        this.#at += 1;
      } else if (this.#text[this.#at] === ';') {
        this.#fault(this.#at, this.#at + 1, ',', "';' where JSON writes ','");
        comma = this.#at;
        this.#at += 1;
      }
    }
  }

  #key(): string {
    const c = this.#text[this.#at] ?? '';
    if (QUOTES[c] !== undefined) return this.#string();
    const at = this.#at;
    const word = this.#take(BARE);
    if (word === null) this.#stop(`a key was expected, not ${this.#next()}`);
    this.#path.push(`.${word}`);
    this.#fault(at, this.#at, quoted(word), `the key ${word} has no quotes`);
    this.#path.pop();
    return word;
  }

  #string(): string {
    const open = this.#at;
    const quote = this.#text[open] ?? '';
    // People close a curly quote with whichever is at hand.
    const closes = quote === '"' || quote === "'" ? quote : `${QUOTES[quote]}"“”’`;
    let value = '';
    this.#at += 1;
    for (;;) {
      const c = this.#text[this.#at];
      if (c === undefined || c === '\n') {
        this.#at = open;
        this.#stop(`the text that begins here has no closing ${quote}`);
      }
      if (closes.includes(c)) break;
      if (c === '\\') value += this.#escape();
      else {
        if (c < ' ')
          this.#fault(this.#at, this.#at + 1, `\\u${hex4(c)}`, `a control character (U+${hex4(c)}) in a text`);
        value += c;
        this.#at += 1;
      }
    }
    this.#at += 1;
    if (quote !== '"') {
      const what = quote === "'" ? 'single quotes' : 'curly quotes';
      // Its parts have their own fixes, which this one replaces.
      while ((this.#faults.at(-1)?.at ?? -1) > open) this.#faults.pop();
      this.#fault(open, this.#at, quoted(value), `a text in ${what}: JSON takes "`);
    }
    return value;
  }

  #escape(): string {
    const known = this.#take(ESCAPE);
    if (known !== null) return JSON.parse(`"${known}"`) as string;
    const c = this.#text[this.#at + 1] ?? '';
    this.#fault(this.#at, this.#at + 1, '\\\\', `'\\${c}' is no escape of JSON: a backslash is written twice`);
    this.#at += 1;
    return '\\';
  }

  #word(): string | number | boolean | null {
    const at = this.#at;
    const word = this.#take(BARE);
    if (word === null) this.#stop(`a value was expected, not ${this.#next()}`);
    if (Object.hasOwn(WORDS, word)) return WORDS[word] ?? null;
    NUMBER.lastIndex = 0;
    if (NUMBER.exec(word)?.[0] === word) return Number(word);
    const python = Object.hasOwn(PYTHON, word) ? PYTHON[word] : undefined;
    if (python !== undefined) {
      this.#fault(at, this.#at, python, `${word}: JSON writes ${python}`);
      return WORDS[python] ?? null;
    }
    this.#fault(at, this.#at, quoted(word), `the text ${word} has no quotes`);
    return word;
  }

  #take(pattern: RegExp): string | null {
    pattern.lastIndex = this.#at;
    const word = pattern.exec(this.#text)?.[0] ?? null;
    if (word !== null) this.#at += word.length;
    return word;
  }
}

const quoted = (text: string): string => JSON.stringify(text);
const hex4 = (c: string): string => c.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0');
