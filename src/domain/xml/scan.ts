/**
 * The check of XML before a DOM is built of it: one walk over the text without recursion, every step forward, so that
 * its cost grows with the length and nothing else. xmldom alone won't do: it takes a bare `&`, `]]>` in text and
 * references to control characters, builds any depth, and reports an unclosed tag at the line where some earlier tag
 * began. Names are left to xmldom, which knows the grammar of QNames and of namespaces.
 */
import { safe } from '../../text/safe.ts';

/**
 * A text with `\n` for every line end: XML 1.0 section 2.11; xmldom's own way is that of XML 1.1, which turns U+2028 in
 * a name into a line end.
 */
export const unixLines = (text: string): string => (text.includes('\r') ? text.replace(/\r\n?/g, '\n') : text);

/** The first thing wrong: `offset` into the text, `reason` as a clause without a full stop. */
export type XmlFault = { offset: number; reason: string };

export type XmlLimits = {
  /** Elements within elements. */
  depth: number;
  /** Attributes of one element: xmldom searches them in a list for each that it adds. */
  attributes: number;
};

type Scanned = number | XmlFault;

/**
 * xmldom matches comments and instructions by one pattern, which overflows V8's stack for patterns at about 8 million
 * characters.
 */
const MAX_ASIDE = 1024 * 1024;

const OPEN = /<([^\s<>/=&'"!?]+)/y;
const ATTRIBUTE = /[ \t\n]+([^\s<>/=&'"!?]+)[ \t\n]*=[ \t\n]*(?:"([^<"]*)"|'([^<']*)')/y;
const END_OF_TAG = /[ \t\n]*(\/?)>/y;
const CLOSE = /<\/([^\s<>/=&'"!?]+)[ \t\n]*>/y;
const PI = /<\?([^\s<>/=&'"!?]+)(?=[ \t\n]|\?>)/y;
const REFERENCE = /&(?:(?:amp|lt|gt|quot|apos)|#(\d+)|#x([0-9a-fA-F]+));/y;
/** Anything that is no Char of XML 1.0: control characters, lone surrogates, U+FFFE and U+FFFF. */
const NOT_A_CHAR = /[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/u;

const at = (pattern: RegExp, text: string, offset: number): RegExpExecArray | null => {
  pattern.lastIndex = offset;
  return pattern.exec(text);
};

const isChar = (code: number): boolean => code <= 0x10ffff && !NOT_A_CHAR.test(String.fromCodePoint(code));

/** `part` is what stands at `offset`; looking for `&` in the whole text instead would be quadratic. */
function referenceFault(part: string, offset: number): XmlFault | null {
  for (let i = part.indexOf('&'); i >= 0; i = part.indexOf('&', i + 1)) {
    const m = at(REFERENCE, part, i);
    if (!m) return { offset: offset + i, reason: 'a bare & or an entity other than amp, lt, gt, quot and apos' };
    const code = m[1] ? Number.parseInt(m[1], 10) : m[2] ? Number.parseInt(m[2], 16) : 0x20;
    if (!isChar(code)) return { offset: offset + i, reason: 'a reference to a character that XML does not allow' };
  }
  return null;
}

/** From the `<` of a start tag to behind its `>`; `open` gets the name unless the tag closes itself. */
function startTag(text: string, start: number, open: string[], limits: XmlLimits): Scanned {
  const tag = at(OPEN, text, start);
  if (!tag) return { offset: start, reason: 'a < that begins no tag' };
  const seen = new Set<string>();
  let offset = OPEN.lastIndex;
  for (let m = at(ATTRIBUTE, text, offset); m; m = at(ATTRIBUTE, text, offset)) {
    const name = m[1] ?? '';
    const value = m[2] ?? m[3] ?? '';
    if (seen.has(name)) return { offset, reason: `the attribute '${safe(name)}' is there twice` };
    if (seen.size === limits.attributes) return { offset, reason: `more than ${limits.attributes} attributes` };
    seen.add(name);
    offset = ATTRIBUTE.lastIndex;
    const fault = referenceFault(value, offset - 1 - value.length);
    if (fault) return fault;
  }
  const end = at(END_OF_TAG, text, offset);
  if (!end) return { offset, reason: `the tag <${safe(tag[1] ?? '')}> is not well-formed here` };
  if (open.length === limits.depth) return { offset: start, reason: `more than ${limits.depth} elements deep` };
  if (!end[1]) open.push(tag[1] ?? '');
  return END_OF_TAG.lastIndex;
}

function endTag(text: string, start: number, open: string[]): Scanned {
  const m = at(CLOSE, text, start);
  if (!m) return { offset: start, reason: 'an end tag that is not well-formed' };
  const last = open.pop();
  if (last === m[1]) return CLOSE.lastIndex;
  const wanted = last === undefined ? 'nothing is open' : `<${safe(last)}> is open`;
  return { offset: start, reason: `the end tag of ${safe(m[1] ?? '')} while ${wanted}` };
}

function comment(text: string, start: number): Scanned {
  const dashes = text.indexOf('--', start + 4);
  if (dashes < 0) return { offset: start, reason: 'a comment without an end' };
  if (dashes - start > MAX_ASIDE) return { offset: start, reason: `a comment of more than ${MAX_ASIDE} characters` };
  return text[dashes + 2] === '>' ? dashes + 3 : { offset: dashes, reason: '-- inside a comment' };
}

function cdata(text: string, start: number, open: string[]): Scanned {
  if (open.length === 0) return { offset: start, reason: 'text outside the root element' };
  const end = text.indexOf(']]>', start + 9);
  return end < 0 ? { offset: start, reason: 'a CDATA section without an end' } : end + 3;
}

function instruction(text: string, start: number): Scanned {
  const m = at(PI, text, start);
  const end = text.indexOf('?>', start + 2);
  if (!m || end < 0) return { offset: start, reason: 'a processing instruction that is not well-formed' };
  if (end - start > MAX_ASIDE) return { offset: start, reason: `an instruction of more than ${MAX_ASIDE} characters` };
  const misplaced = start > 0 && (m[1] ?? '').toLowerCase() === 'xml';
  return misplaced ? { offset: start, reason: 'an XML declaration that is not at the very start' } : end + 2;
}

/** What begins at the `<` at `start`: the offset behind it. */
function markup(text: string, start: number, open: string[], limits: XmlLimits): Scanned {
  if (text[start + 1] === '/') return endTag(text, start, open);
  if (text[start + 1] === '?') return instruction(text, start);
  if (text[start + 1] !== '!') return startTag(text, start, open, limits);
  if (text.startsWith('<!--', start)) return comment(text, start);
  if (text.startsWith('<![CDATA[', start)) return cdata(text, start, open);
  // Entities can only come from a DOCTYPE: refusing it here means that no expansion is ever begun.
  return { offset: start, reason: 'a DOCTYPE or entity declaration, which is not accepted' };
}

function textFault(part: string, offset: number, inside: boolean): XmlFault | null {
  if (!inside) {
    const word = part.search(/[^ \t\n]/);
    return word < 0 ? null : { offset: offset + word, reason: 'text outside the root element' };
  }
  const bracket = part.indexOf(']]>');
  return bracket < 0 ? referenceFault(part, offset) : { offset: offset + bracket, reason: ']]> in text' };
}

/**
 * Looks for the first fault of `text`, whose line ends are `\n` already: tags that don't match or end, a second root,
 * text outside it, an attribute twice, references, characters that XML 1.0 doesn't know, any DOCTYPE, and the `limits`.
 * Returns null for text that may be given to xmldom. `seen` is told where each piece of markup begins and ends, in
 * their order.
 */
export function findXmlFault(
  text: string,
  limits: XmlLimits,
  seen?: (start: number, end: number) => void,
): XmlFault | null {
  const bad = NOT_A_CHAR.exec(text);
  if (bad) {
    const code = (bad[0].codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0');
    return { offset: bad.index, reason: `the character U+${code}, which XML does not allow` };
  }
  const open: string[] = [];
  let roots = 0;
  let offset = 0;
  while (offset < text.length) {
    const found = text.indexOf('<', offset);
    const start = found < 0 ? text.length : found;
    const fault = textFault(text.slice(offset, start), offset, open.length > 0);
    if (fault) return fault;
    if (found < 0) break;
    const element = !'/?!'.includes(text[start + 1] ?? ' ');
    if (element && open.length === 0 && ++roots > 1) return { offset: start, reason: 'a second root element' };
    const next = markup(text, start, open, limits);
    if (typeof next !== 'number') return next;
    seen?.(start, next);
    offset = next;
  }
  const unclosed = open.at(-1);
  if (unclosed !== undefined) return { offset: text.length, reason: `the text ends while <${safe(unclosed)}> is open` };
  return roots === 0 ? { offset: text.length, reason: 'there is no element' } : null;
}
