/**
 * XML text to a DOM, strictly: what is not well-formed is an error with its line and column, never a guess. The text
 * comes from libvirt on the hook's stdin, or from a file that anybody may have written.
 */

import { type Attr, DOMParser, type Document, type Element } from '@xmldom/xmldom';
import { HostdevError } from '../../errors.ts';
import { safe } from '../../text/safe.ts';
import { findXmlFault, unixLines } from './scan.ts';

/** Far above libvirt's own limit for a domain on the wire (VIR_NET_MESSAGE_STRING_MAX is 4 MiB). */
const MAX_CHARS = 16 * 1024 * 1024;

/** libxml2's own default bound on depth (xmlParserMaxDepth), which libvirt's parser therefore keeps too. */
const MAX_DEPTH = 256;

/** A domain element has a dozen at most. */
const MAX_ATTRIBUTES = 256;

const DECLARED_ENCODING = /^<\?xml[ \t\n][^>]*?[ \t\n]encoding[ \t\n]*=[ \t\n]*["']([^"'>]*)["']/;

/** Where something stands in a document; both count from 1, columns in UTF-16 units. */
export type XmlPlace = { line: number; column: number };

/** Where an element or attribute begins. */
export const placeOf = (node: Attr | Element): XmlPlace => ({
  line: node.lineNumber ?? 1,
  column: node.columnNumber ?? 1,
});

/** The error for a place in a document, in the one form of ours: `WHAT: line 3, column 7: REASON`. */
export function xmlError(what: string, place: XmlPlace, reason: string, cause?: unknown): HostdevError {
  return new HostdevError('HOSTDEV_XML', `${what}: line ${place.line}, column ${place.column}: ${reason}`, {
    cause,
    data: { line: place.line, column: place.column, reason },
  });
}

const place = (text: string, offset: number): XmlPlace => {
  const before = text.slice(0, offset);
  return { line: before.split('\n').length, column: offset - before.lastIndexOf('\n') };
};

const tooBig = (what: string): HostdevError =>
  new HostdevError('HOSTDEV_XML', `${what}: more than ${MAX_CHARS} characters of XML are not read`, {
    hint: "A domain has some thousand; 'virsh dumpxml' prints it.",
  });

const START: XmlPlace = { line: 1, column: 1 };

/** Raises HOSTDEV_XML when the document says that it is in another encoding than the one that it was read in. */
function refuseEncoding(text: string, what: string): void {
  const declared = DECLARED_ENCODING.exec(text)?.[1];
  if (declared === undefined || /^(?:utf-?8|us-ascii|ascii)$/i.test(declared)) return;
  throw xmlError(what, START, `the encoding '${safe(declared)}' is declared; only UTF-8 and US-ASCII are read`);
}

/**
 * Bytes of a file or of stdin to text: UTF-8 with or without its byte order mark. `what` names the input in messages.
 * Raises HOSTDEV_XML for UTF-16 and UTF-32, for bytes that are no UTF-8, for another encoding in the XML declaration,
 * and above 16 Mi characters. libvirt itself hands out UTF-8 only (virXMLParse reads by the declaration, the formatter
 * writes none).
 */
export function decodeXml(bytes: Uint8Array, what: string): string {
  if (bytes.length > 3 * MAX_CHARS) throw tooBig(what);
  const [a, b] = bytes;
  if ((a === 0xff && b === 0xfe) || (a === 0xfe && b === 0xff) || (bytes.length > 1 && (a === 0 || b === 0))) {
    throw xmlError(what, START, 'this is UTF-16 or UTF-32; only UTF-8 is read');
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw xmlError(what, firstBadByte(bytes), 'bytes that are no UTF-8', cause);
  }
  if (text.length > MAX_CHARS) throw tooBig(what);
  refuseEncoding(text, what);
  return text;
}

/**
 * The decoder doesn't say where it stopped; a lenient one puts U+FFFD there, and so may the text itself, at the worst
 * earlier.
 */
function firstBadByte(bytes: Uint8Array): XmlPlace {
  const text = new TextDecoder('utf-8').decode(bytes);
  return place(text, Math.max(0, text.indexOf('\uFFFD')));
}

/**
 * Parses a document. `text` is decoded already ({@link decodeXml}); `what` names it in messages, e.g. `domain XML on
 * stdin`. Nodes carry lineNumber and columnNumber. Raises HOSTDEV_XML, with the line and column, for anything not
 * well-formed, for every DOCTYPE (so no entity is ever expanded), above 16 Mi characters, 256 levels or 256 attributes
 * of an element, and for whatever xmldom reports at all, down to its warnings. `seen` is told where each piece of
 * markup begins and ends, in their order, in the text of {@link unixLines}.
 */
export function parseXml(text: string, what: string, seen?: (start: number, end: number) => void): Document {
  if (text.length > MAX_CHARS) throw tooBig(what);
  const source = unixLines(text);
  refuseEncoding(source, what);
  if (source.startsWith('\uFEFF')) throw xmlError(what, START, 'a byte order mark where the XML should begin');
  const fault = findXmlFault(source, { depth: MAX_DEPTH, attributes: MAX_ATTRIBUTES }, seen);
  if (fault) throw xmlError(what, place(source, fault.offset), fault.reason);
  return build(source, what);
}

function build(source: string, what: string): Document {
  // xmldom wraps what its callback throws into words of its own, so ours is kept here.
  let refused: HostdevError | null = null;
  const parser = new DOMParser({
    normalizeLineEndings: (input: string) => input,
    onError: (_level, message, context) => {
      // Its guess at a wrong decoding. decodeXml has settled that, and U+FFFD is a character like others in a title.
      if (message.startsWith('Unicode replacement character')) return;
      const { lineNumber, columnNumber } = context.locator ?? {};
      refused ??= xmlError(what, { line: lineNumber || 1, column: columnNumber || 1 }, safe(message, 200));
      throw refused;
    },
  });
  try {
    return parser.parseFromString(source, 'text/xml');
  } catch (cause) {
    if (refused) throw refused;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new HostdevError('HOSTDEV_XML', `${what}: cannot be parsed: ${safe(message, 200)}`, { cause });
  }
}
