/**
 * The kit that JSON of ours and of others is checked with: every type of value at every kind of key, and the place of
 * what is wrong.
 */
import { expect, test } from 'vitest';
import { isListOf, isText, isTextOrNull, JsonReader, type JsonValue, parseJson } from '../../../src/text/json.ts';

const VALUES: JsonValue[] = [null, true, false, 0, 7, 1.5, '', 'a', [], [1], {}, { a: 1 }];
const wrong = (what: string): Error => new Error(what);
const read = (value: JsonValue): JsonReader => JsonReader.of({ in: { key: value } }, '', wrong).object('in');

const KINDS: [
  name: keyof JsonReader & ('text' | 'whole' | 'flag' | 'list'),
  what: string,
  ok: (v: JsonValue) => boolean,
][] = [
  ['text', 'not a text', (v) => typeof v === 'string'],
  ['whole', 'not a whole number', (v) => Number.isSafeInteger(v)],
  ['flag', 'neither true nor false', (v) => typeof v === 'boolean'],
  ['list', 'not a list', (v) => Array.isArray(v)],
];

test.each(KINDS)('%s takes its own type, null for none, and names the place of everything else', (kind, what, ok) => {
  for (const v of VALUES) {
    const take = () => read(v)[kind]('key');
    if (v === null) expect(take()).toBe(kind === 'flag' ? false : null);
    else if (ok(v)) expect(take()).toEqual(v);
    else expect(take).toThrow(`in.key is ${JSON.stringify(v)}, ${what}`);
  }
});

test('what must be there and is not is missing, and what is inherited is not there', () => {
  expect(() => read(null).neededText('key')).toThrow('in.key is missing');
  expect(() => read(null).neededWhole('key')).toThrow('in.key is missing');
  expect(read('a').neededText('key')).toBe('a');
  expect(read(7).neededWhole('key')).toBe(7);
  expect([read(1).get('toString'), read(1).text('constructor')]).toEqual([null, null]);
});

test('lists of objects, with the place of the one that is none', () => {
  expect(
    read([{ a: 'x' }])
      .objects('key')
      .map((r) => r.text('a')),
  ).toEqual(['x']);
  expect(read(null).objects('key')).toEqual([]);
  expect(() => read([{}, 3]).objects('key')).toThrow('in.key[1] is 3, not an object');
  expect(() => JsonReader.of([1], 'devices[4]', wrong)).toThrow('devices[4] is [1], not an object');
});

test('texts of files of ours are bounded; a list is one of its kind', () => {
  expect([isText('a'.repeat(4096)), isText('a'.repeat(4097)), isText(null), isTextOrNull(null)]).toEqual([
    true,
    false,
    false,
    true,
  ]);
  expect([isListOf(['a'], isText), isListOf(['a', 1], isText), isListOf('a', isText), isListOf([], isText)]).toEqual([
    true,
    false,
    false,
    true,
  ]);
});

test('JSON that is none is said in one bounded line, and nesting has an end', () => {
  for (const text of ['{\n"a":\n]', `[\n${'x\n'.repeat(500)}`]) {
    let said = '';
    try {
      parseJson(text);
    } catch (e) {
      said = (e as Error).message;
    }
    expect(said).toMatch(/^[^\n]{1,200}$/);
  }
  const deep = (n: number): string => `${'['.repeat(n)}${']'.repeat(n)}`;
  expect(() => parseJson(deep(32))).not.toThrow();
  expect(() => parseJson(deep(40))).toThrow('nested deeper');
});
