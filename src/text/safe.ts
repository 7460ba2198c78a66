/**
 * Text of others (the kernel's, a file's, another program's, what was typed) for people: nothing in it commands a
 * terminal, ends a line, turns the reading direction or has no end. The one place that decides what is safe; what a
 * message quotes goes through {@link quote}, what it names through {@link safe}.
 */

/**
 * Control characters, invisible ones (those that turn the reading direction among them), lone surrogates and the line
 * ends of Unicode.
 */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu;

/** {@link UNSAFE} but for tabs and line ends. */
const UNSAFE_IN_BLOCK = /[^\P{Cc}\t\n]|[\p{Cf}\p{Cs}\u2028\u2029]/gu;

const NOT_ASCII = /[^ -~]/;

const cut = (text: string, max: number): string => (text.length > max ? `${text.slice(0, max)}…` : text);

/** A name or text in one line of a message: `max` characters at most, a question mark for each that is not safe. */
export const safe = (text: string, max = 96): string => cut(text, max).replace(UNSAFE, '?');

/** {@link safe} for a name that is shown by itself: what is not safe is left out. */
export const withoutUnsafe = (text: string): string => text.replace(UNSAFE, '');

/** A text of ours that others' texts are in, lines and tabs as they are. */
export const safeBlock = (text: string): string => text.replace(UNSAFE_IN_BLOCK, '?');

/** A value that a message is about, as JSON writes it, in one line of at most `max` characters: `"ab'c"`, `["a"]`. */
export const quote = (value: unknown, max = 80): string =>
  typeof value === 'string' ? safeJson(cut(value, max)) : cut(safeJson(value), max);

/**
 * JSON in one line of which even a terminal may be shown everything: JSON itself leaves DEL, the C1 controls and the
 * invisible as they are.
 */
export function safeJson(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return NOT_ASCII.test(text) ? text.replace(UNSAFE, escaped) : text;
}

/** {@link safeJson} for a reader that takes ASCII only. */
export const asciiJson = (value: unknown): string => JSON.stringify(value).replace(/[^ -~]/gu, escaped);

const escaped = (character: string): string =>
  Array.from({ length: character.length }, (_, i) => `\\u${hex4(character.charCodeAt(i))}`).join('');

const hex4 = (unit: number): string => unit.toString(16).padStart(4, '0');
