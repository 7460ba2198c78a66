/**
 * Python's `re.match` for the address fields of a device_spec. The pattern is text of a user and the subject at most
 * eight hex digits, so a pattern is run as sets of positions, a bit each: what a part can do from a set of positions is
 * again such a set. That takes time in proportion to the pattern whatever it is (no pattern is catastrophic), and
 * whether there is a match does not depend on greed. What cannot be said in this way (back references, conditions,
 * atomic groups, possessive repeats, lookbehind, verbose mode) is refused.
 */

/**
 * A compiled pattern: true when it matches at the start of `subject` (as `re.match`, so not necessarily up to its end).
 */
export type FieldPattern = (subject: string) => boolean;

/** A pattern that Python refuses, or that we do; the message says what and where. */
export class PatternError extends Error {}

const MAX_PATTERN = 512;
const MAX_DEPTH = 32;
/** Positions are bits of a 32 bit integer. */
const MAX_SUBJECT = 24;
const MAX_KNOWN = 4096;

/** From a set of positions in a subject to those after the part. */
type Matcher = (subject: string, positions: number) => number;
type CharTest = (char: string) => boolean;
/** `anchor`: takes no characters, and Python lets nothing repeat it. */
type Part = { step: Matcher; anchor?: boolean };

const isDigit: CharTest = (c) => c >= '0' && c <= '9';
const isSpace: CharTest = (c) => /\s/.test(c);
const isWord: CharTest = (c) => /\w/.test(c);
const CLASSES: Record<string, CharTest> = {
  d: isDigit,
  D: (c) => !isDigit(c),
  s: isSpace,
  S: (c) => !isSpace(c),
  w: isWord,
  W: (c) => !isWord(c),
};
const CONTROLS: Record<string, string> = { a: '\x07', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v', '\\': '\\' };

/** Every position at which `test` holds. */
const where = (subject: string, positions: number, test: (at: number) => boolean): number => {
  let out = 0;
  for (let at = 0; at <= subject.length; at += 1) if (positions & (1 << at) && test(at)) out |= 1 << at;
  return out;
};

const oneChar = (test: CharTest): Part => ({
  step: (s, from) => where(s, from, (at) => at < s.length && test(s[at] ?? '')) << 1,
});
const anchor = (test: (s: string, at: number) => boolean): Part => ({
  step: (s, from) => where(s, from, (at) => test(s, at)),
  anchor: true,
});
const isBoundary = (s: string, at: number): boolean =>
  (at > 0 && isWord(s[at - 1] ?? '')) !== (at < s.length && isWord(s[at] ?? ''));

const sequence =
  (parts: Part[]): Matcher =>
  (s, from) => {
    let at = from;
    for (const p of parts) {
      if (at === 0) return 0;
      at = p.step(s, at);
    }
    return at;
  };

/**
 * A step from a set is the union of those from its members; each is kept, so that repeats of repeats of repeats stay
 * cheap.
 */
function remembered(step: Matcher): Matcher {
  let subject: string | null = null;
  let known: (number | undefined)[] = [];
  return (s, from) => {
    if (s !== subject) [subject, known] = [s, []];
    let out = 0;
    for (let at = 0; at <= s.length; at += 1) {
      if ((from & (1 << at)) === 0) continue;
      const after = known[at] ?? step(s, 1 << at);
      known[at] = after;
      out |= after;
    }
    return out;
  };
}

/** After as many rounds as there are positions nothing new can come, so counts beyond that change nothing. */
function repeated(inner: Part, least: number, most: number): Part {
  const part = { step: remembered(inner.step) };
  const step: Matcher = (s, from) => {
    const cap = s.length + 1;
    let at = from;
    for (let n = 0; n < Math.min(least, cap) && at !== 0; n += 1) at = part.step(s, at);
    let all = at;
    for (let n = 0; n < Math.min(most - least, cap) && at !== 0; n += 1) {
      at = part.step(s, at);
      all |= at;
    }
    return all;
  };
  return { step };
}

class Parser {
  readonly #text: string;
  #at = 0;
  #depth = 0;
  #ignoreCase = false;
  readonly #names = new Set<string>();

  constructor(text: string) {
    this.#text = text;
  }

  pattern(): Matcher {
    this.#globalFlags();
    const step = this.#alternatives();
    if (this.#at < this.#text.length) this.#fail('unbalanced parenthesis');
    return step;
  }

  #fail(what: string): never {
    throw new PatternError(`${what} at position ${this.#at}`);
  }

  #peek(): string {
    return this.#text[this.#at] ?? '';
  }

  #take(literal: string): boolean {
    if (!this.#text.startsWith(literal, this.#at)) return false;
    this.#at += literal.length;
    return true;
  }

  #matching(pattern: RegExp): string | null {
    const m = pattern.exec(this.#text.slice(this.#at));
    if (m === null) return null;
    this.#at += m[0].length;
    return m[0];
  }

  /** `(?i)` and the like: Python takes them at the very start only. */
  #globalFlags(): void {
    for (let flags = this.#matching(/^\(\?[a-zA-Z]+\)/); flags !== null; flags = this.#matching(/^\(\?[a-zA-Z]+\)/)) {
      this.#setFlags(flags.slice(2, -1));
    }
  }

  /** m, s, a and u make no difference to a line of ASCII without an end of line. */
  #setFlags(flags: string): void {
    if (/[^imsaux]/.test(flags)) this.#fail('unknown flag');
    if (flags.includes('x')) this.#fail('verbose mode (?x) is not supported');
    if (flags.includes('i')) this.#ignoreCase = true;
  }

  #alternatives(): Matcher {
    this.#depth += 1;
    if (this.#depth > MAX_DEPTH) this.#fail('too many nested groups');
    const branches = [this.#branch()];
    while (this.#take('|')) branches.push(this.#branch());
    this.#depth -= 1;
    return (s, from) => branches.reduce((all, b) => all | b(s, from), 0);
  }

  #branch(): Matcher {
    const parts: Part[] = [];
    this.#skipComments();
    while (this.#at < this.#text.length && this.#peek() !== '|' && this.#peek() !== ')') {
      parts.push(this.#repeat(this.#part()));
      this.#skipComments();
    }
    return sequence(parts);
  }

  #skipComments(): void {
    while (this.#matching(/^\(\?#[^)]*\)/) !== null);
  }

  #repeat(part: Part): Part {
    this.#skipComments();
    const count = this.#count();
    if (count === null) return part;
    if (part.anchor) this.#fail('nothing to repeat');
    // Lazy or not: the same positions.
    if (!this.#take('?') && this.#take('+')) this.#fail('possessive repeats are not supported');
    if (this.#count() !== null) this.#fail('multiple repeat');
    return repeated(part, count[0], count[1]);
  }

  /** A `{` that begins no count is itself, in Python as elsewhere; `{,n}` counts from 0. */
  #count(): [number, number] | null {
    if (this.#take('*')) return [0, Number.MAX_SAFE_INTEGER];
    if (this.#take('+')) return [1, Number.MAX_SAFE_INTEGER];
    if (this.#take('?')) return [0, 1];
    const braces = this.#matching(/^\{(?:\d+,?\d*|,\d*)\}/);
    if (braces === null) return null;
    const [low = '', high = low] = braces.slice(1, -1).split(',');
    const least = low === '' ? 0 : Number(low);
    const most = high === '' ? Number.MAX_SAFE_INTEGER : Number(high);
    if (most < least) this.#fail('min repeat greater than max repeat');
    return [least, most];
  }

  /** One character, class, anchor or group. */
  #part(): Part {
    if (this.#peek() === '(') return this.#group();
    if (this.#count() !== null) this.#fail('nothing to repeat');
    if (this.#take('.')) return oneChar((c) => c !== '\n');
    if (this.#take('^')) return anchor((_, at) => at === 0);
    if (this.#take('$')) return anchor((s, at) => at === s.length);
    if (this.#take('[')) return this.#set();
    if (this.#take('\\')) return this.#escape();
    return this.#literal(this.#char());
  }

  #char(): string {
    const c = this.#peek();
    if (c === '') this.#fail('unexpected end of pattern');
    this.#at += 1;
    return c;
  }

  #literal(char: string): Part {
    return oneChar(this.#equals(char));
  }

  #equals(char: string): CharTest {
    if (!this.#ignoreCase) return (c) => c === char;
    const lower = char.toLowerCase();
    return (c) => c.toLowerCase() === lower;
  }

  #escape(): Part {
    if (this.#take('A')) return anchor((_, at) => at === 0);
    if (this.#take('Z')) return anchor((s, at) => at === s.length);
    if (this.#take('b')) return anchor(isBoundary);
    // In Python an empty text has neither.
    if (this.#take('B')) return anchor((s, at) => s !== '' && !isBoundary(s, at));
    const cls = CLASSES[this.#peek()];
    if (cls !== undefined) {
      this.#at += 1;
      return oneChar(cls);
    }
    if (/[1-9]/.test(this.#peek())) this.#fail('back references are not supported');
    return this.#literal(this.#escapedChar());
  }

  /** After the backslash, in a class or out of it: what stands for a single character. */
  #escapedChar(): string {
    const code = this.#matching(/^(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|0[0-7]{0,2})/);
    if (code !== null) {
      const value = code.startsWith('0') ? Number.parseInt(code, 8) : Number.parseInt(code.slice(1), 16);
      return String.fromCharCode(value);
    }
    const c = this.#char();
    const control = CONTROLS[c];
    if (control !== undefined) return control;
    if (/[a-zA-Z0-9]/.test(c)) this.#fail(`bad escape \\${c}`);
    return c;
  }

  #set(): Part {
    const isNegated = this.#take('^');
    const tests: CharTest[] = [];
    for (let first = true; first || this.#peek() !== ']'; first = false) {
      if (this.#at >= this.#text.length) this.#fail('unterminated character set');
      tests.push(this.#setItem());
    }
    this.#at += 1;
    return oneChar((c) => tests.some((t) => t(c)) !== isNegated);
  }

  #setItem(): CharTest {
    const low = this.#setMember();
    const isRange = this.#peek() === '-' && this.#text[this.#at + 1] !== ']' && this.#at + 1 < this.#text.length;
    if (!isRange) return typeof low === 'string' ? this.#equals(low) : low;
    this.#at += 1;
    const high = this.#setMember();
    if (typeof low !== 'string' || typeof high !== 'string' || high < low) this.#fail('bad character range');
    const inRange: CharTest = (c) => c >= low && c <= high;
    return this.#ignoreCase ? (c) => inRange(c.toLowerCase()) || inRange(c.toUpperCase()) : inRange;
  }

  #setMember(): string | CharTest {
    if (!this.#take('\\')) return this.#char();
    const cls = CLASSES[this.#peek()];
    if (cls !== undefined) {
      this.#at += 1;
      return cls;
    }
    if (this.#take('b')) return '\b';
    const octal = this.#matching(/^[0-3]?[0-7]{1,2}/);
    return octal === null ? this.#escapedChar() : String.fromCharCode(Number.parseInt(octal, 8));
  }

  #group(): Part {
    this.#at += 1;
    if (this.#take('?=')) return this.#look(true);
    if (this.#take('?!')) return this.#look(false);
    const flags = this.#matching(/^\?[imsaux]*(?:-[imsx]+)?:/);
    const before = this.#ignoreCase;
    if (flags !== null) {
      const [on = '', off = ''] = flags.slice(1, -1).split('-');
      this.#setFlags(on);
      if (off.includes('i')) this.#ignoreCase = false;
    } else if (this.#peek() === '?') this.#name();
    const step = this.#closed();
    this.#ignoreCase = before;
    return { step };
  }

  /** `(?P<name>`: the name is of no use here, but Python wants a good one. */
  #name(): void {
    const name = this.#matching(/^\?P<[A-Za-z_][A-Za-z0-9_]*>/);
    if (name === null) this.#fail('this kind of group is unknown or not supported');
    if (this.#names.has(name)) this.#fail('redefinition of a group name');
    this.#names.add(name);
  }

  #closed(): Matcher {
    const step = this.#alternatives();
    if (!this.#take(')')) this.#fail('missing ), unterminated subpattern');
    return step;
  }

  #look(wanted: boolean): Part {
    const step = this.#closed();
    const kept = remembered(step);
    return { step: (s, from) => where(s, from, (at) => (kept(s, 1 << at) !== 0) === wanted) };
  }
}

/**
 * Compiles a Python pattern for an address field. Raises {@link PatternError}: not a pattern, longer than 512
 * characters, or beyond what we take.
 */
export function compileField(pattern: string): FieldPattern {
  if (pattern.length > MAX_PATTERN) throw new PatternError(`longer than ${MAX_PATTERN} characters`);
  const step = new Parser(pattern).pattern();
  // A host has thousands of functions, but few different buses and slots.
  const known = new Map<string, boolean>();
  return (subject) => {
    if (subject.length > MAX_SUBJECT) return false;
    let matches = known.get(subject);
    if (matches === undefined) {
      matches = step(subject, 1) !== 0;
      if (known.size < MAX_KNOWN) known.set(subject, matches);
    }
    return matches;
  };
}
