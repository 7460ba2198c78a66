/** JSON with places: the values are JSON.parse's, the mistakes of people are understood, nothing makes it raise. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { correctedJson, readJson } from '../../../src/config/jsonText.ts';
import { plainValue } from '../../../src/config/place.ts';

const placeOf = (at: number) => ({ line: 1, column: at + 1 });
const read = (text: string) => readJson(text, placeOf);

describe('what is JSON', () => {
  test('is read as JSON.parse reads it', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 6 }), fc.constantFrom(undefined, 1, '\t'), (text, indent) => {
        const spaced = JSON.stringify(JSON.parse(text), null, indent);
        const r = read(spaced);
        expect(r.faults).toEqual([]);
        expect(r.value === null ? undefined : plainValue(r.value)).toEqual(JSON.parse(spaced));
      }),
      { numRuns: 2000 },
    );
  });

  test.each(['1', '-0.5e3', '"\\u00e9\\n\\/"', ' [ ] ', '{"__proto__": {"a": 1}}', '"\u{1f600}"'])('%s', (text) => {
    const r = read(text);
    expect(r.faults).toEqual([]);
    expect(JSON.stringify(r.value && plainValue(r.value))).toBe(JSON.stringify(JSON.parse(text)));
  });

  test('of a key given twice the last counts, and it is told', () => {
    const r = read('{"a": 1, "b": 2, "a": 3}');
    expect(r.value && plainValue(r.value)).toEqual({ a: 3, b: 2 });
    expect(r.repeated).toEqual([{ at: 17, name: 'a' }]);
  });

  test('places', () => {
    const r = read('{"a": [1, {"b": "x"}]}');
    expect(r.value).toMatchObject({ kind: 'table', column: 1 });
    const a = r.value?.kind === 'table' ? r.value.members.get('a') : undefined;
    expect(a).toMatchObject({ column: 2, value: { kind: 'list', column: 7, items: [{ column: 8 }, { column: 11 }] } });
  });
});

describe('what people write', () => {
  test.each([
    ['{a: 1}', '{"a": 1}'],
    ['{ "vendor_id": "10de", managed: "no" }', '{ "vendor_id": "10de", "managed": "no" }'],
    ["{'a': 'it'}", '{"a": "it"}'],
    ["{'a': 'x\"y'}", '{"a": "x\\"y"}'],
    ["{'a': 'x\\y'}", '{"a": "x\\\\y"}'],
    ['{“a”: “b”}', '{"a": "b"}'],
    ['{"a": 1,}', '{"a": 1}'],
    ['[1, 2,]', '[1, 2]'],
    ['{"a": 1,, "b": 2}', '{"a": 1, "b": 2}'],
    ['{"a": 1 "b": 2}', '{"a": 1, "b": 2}'],
    ['{"a" = 1; "b": 2}', '{"a" : 1, "b": 2}'],
    ['{"a": True, "b": False, "c": None}', '{"a": true, "b": false, "c": null}'],
    ['{"a": 0x8086}', '{"a": "0x8086"}'],
    ['{"a": type-VF}', '{"a": "type-VF"}'],
    ['{"a": 010}', '{"a": "010"}'],
    ['{"a": {"b": 1}', '{"a": {"b": 1}}'],
    ['{"a": 1, ', '{"a": 1}'],
    ['[{"a": 1}, ', '[{"a": 1}]'],
    ['{"a":\u00a01}', '{"a": 1}'],
    ['{"a": 1, # one\n"b": 2}', '{"a": 1,\n"b": 2}'],
    ['{"a": 1,\n  # one\n  // two\n"b": 2}', '{"a": 1,\n"b": 2}'],
    ['{"a": 1} # end', '{"a": 1}'],
    ['{"a": "x\ty"}', '{"a": "x\\u0009y"}'],
    ['{"a": "C:\\x"}', '{"a": "C:\\\\x"}'],
  ])('%s', (text, corrected) => {
    const { faults } = read(text);
    expect(faults.length).toBeGreaterThan(0);
    expect(correctedJson(text, faults)).toBe(corrected);
    expect(() => JSON.parse(corrected)).not.toThrow();
  });

  test.each([
    '',
    '   ',
    '{',
    '"abc',
    "{'a",
    '{"a"}',
    '{"a": }',
    '{"a" 1}',
    '{,}',
    '[}',
    '{]',
    '{} {}',
    '{:1}',
    '[1] x',
    '{<entry>}',
    '{"a": "x\ny"}',
  ])('%j has no obvious meaning, or just one', (text) => {
    const { faults } = read(text);
    expect(faults.length).toBeGreaterThan(0);
    const corrected = correctedJson(text, faults);
    if (corrected !== null) expect(() => JSON.parse(corrected)).not.toThrow();
  });

  test('a comment is told where it stands, not where its fix begins', () => {
    expect(read('{"a": 1,\n  # one\n"b": 2}').faults.map((f) => f.at)).toEqual([11]);
  });

  test('every mistake is told, with the way to it', () => {
    const { faults } = read('{a: 1, "b": {\'c\': 2, d: True}}');
    expect(faults.map((f) => [f.path, f.at])).toEqual([
      ['.a', 1],
      ['.b', 13],
      ['.b.d', 21],
      ['.b.d', 24],
    ]);
  });

  test('whatever the text is, it is answered, and a corrected text is JSON with one meaning', () => {
    const piece = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"a"',
      "'b'",
      'c',
      '"',
      "'",
      '\\',
      ' ',
      '\n',
      '1',
      '-',
      'True',
      'null',
      '“',
      '#',
      '//',
      '=',
      ';',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        const text = pieces.join('');
        const { faults, value } = read(text);
        if (faults.length === 0) {
          expect(JSON.stringify(value && plainValue(value))).toBe(JSON.stringify(JSON.parse(text)));
          return;
        }
        expect(() => JSON.parse(text)).toThrow();
        const corrected = correctedJson(text, faults);
        if (corrected === null) return;
        expect(read(corrected).faults).toEqual([]);
        JSON.parse(corrected);
      }),
      { numRuns: 20_000 },
    );
  });

  test('deep nesting and a million mistakes cost nothing', () => {
    expect(read('['.repeat(1_000_000)).faults.length).toBeGreaterThan(0);
    expect(read(`{${'a: b, '.repeat(100_000)}}`).faults.length).toBeLessThan(100);
  });
});
