/** Text of others in our messages: whatever it is, it stays in its line, commands no terminal, and has an end. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { asciiJson, quote, safe, safeBlock, safeJson, withoutUnsafe } from '../../../src/text/safe.ts';

/**
 * One of each kind: C0, DEL, C1 (CSI), turns the reading direction, is invisible, ends a line, half a character, above
 * the BMP.
 */
const HOSTILE = ['\x1b', '\n', '\x7f', '\x9b', '\u202e', '\u200b', '\u2028', '\ud800', '\u{e0001}'];
const unsafe = /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u;
const anyText = fc.string({ unit: 'binary', maxLength: 300 });

test.each(HOSTILE)('%j gets nowhere', (c) => {
  const text = `a${c}b`;
  expect([safe(text), withoutUnsafe(text)]).toEqual(['a?b', 'ab']);
  expect(safeBlock(text)).toBe(c === '\n' ? 'a\nb' : 'a?b');
  for (const said of [quote(text), quote([text]), safeJson({ text }), asciiJson(text)])
    expect(said).not.toMatch(unsafe);
  expect(JSON.parse(safeJson({ [text]: text }))).toEqual({ [text]: text });
});

test('letters of every script stay, but where only ASCII is taken', () => {
  expect([safe('Zürich 東京'), quote('ä'), asciiJson('ä')]).toEqual(['Zürich 東京', '"ä"', '"\\u00e4"']);
  expect(safeBlock('a\tb\n')).toBe('a\tb\n');
});

test('a quote is told from what is in it, and what is not there is nothing', () => {
  expect([quote(`ab'c`), quote('a"b'), quote(undefined), quote(null)]).toEqual([
    `"ab'c"`,
    '"a\\"b"',
    'nothing',
    'null',
  ]);
  expect(quote('x'.repeat(100), 3)).toBe('"xxx…"');
  expect(quote(['x'.repeat(100)], 3)).toBe('["x…');
});

test('any text: bounded, in one line, and JSON reads back as it was', () => {
  fc.assert(
    fc.property(anyText, (text) => {
      expect(safe(text, 40).length).toBeLessThanOrEqual(41);
      expect(quote(text, 40).length).toBeLessThanOrEqual(40 * 6 + 3);
      for (const said of [safe(text), quote(text), quote({ text }), safeJson(text)]) expect(said).not.toMatch(unsafe);
      expect(JSON.parse(safeJson(text))).toBe(text);
      expect(JSON.parse(asciiJson(text))).toBe(text);
    }),
  );
});
