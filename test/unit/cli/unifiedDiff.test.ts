import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { unifiedDiff } from '../../../src/cli/unifiedDiff.ts';

const lines = (n: number, from = 0): string => Array.from({ length: n }, (_, i) => `line ${i + from}\n`).join('');

/** What patch(1) makes of a diff: every line of the hunks is checked against the text, and every count against the lines. */
function patched(before: string, diff: string): string {
  const old = before.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  const out: string[] = [];
  let at = 0;
  for (const [, head = '', body = ''] of diff.matchAll(/^@@ (.*) @@\n((?:[ +\\-].*\n)*)/gm)) {
    const [, start, count, start2, count2] = /^-(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))?$/.exec(head) ?? [];
    const [n, m] = [Number(count ?? 1), Number(count2 ?? 1)];
    const from = n === 0 ? Number(start) : Number(start) - 1;
    out.push(...old.slice(at, from));
    expect(out.length).toBe(m === 0 ? Number(start2) : Number(start2) - 1);
    const rows = body.replaceAll('\n\\ No newline at end of file\n', '\0').match(/[^\n\0]*[\n\0]/g) ?? [];
    const text = (r: string): string => r.slice(1).replace('\0', '');
    const gone = rows.filter((r) => !r.startsWith('+')).map(text);
    const come = rows.filter((r) => !r.startsWith('-')).map(text);
    expect([gone.length, come.length]).toEqual([n, m]);
    expect(old.slice(from, from + n)).toEqual(gone);
    out.push(...come);
    at = from + n;
  }
  return [...out, ...old.slice(at)].join('');
}

test('equal texts have none', () => {
  expect(unifiedDiff(lines(3), lines(3), 'f')).toBe('');
  expect(unifiedDiff('', '', 'f')).toBe('');
});

test('three lines around, and what is near is one hunk', () => {
  const a = lines(40);
  const b = a.replace('line 10\n', 'line 10\nnew\n').replace('line 15\n', '').replace('line 30\n', 'thirty\n');
  const diff = unifiedDiff(a, b, 'guest.xml');
  expect(diff.split('\n').slice(0, 7)).toEqual([
    '--- guest.xml',
    '+++ guest.xml',
    '@@ -9,11 +9,11 @@',
    ' line 8',
    ' line 9',
    ' line 10',
    '+new',
  ]);
  expect(diff.match(/^@@/gm)).toHaveLength(2);
  expect(patched(a, diff)).toBe(b);
});

test('a last line without an end', () => {
  expect(unifiedDiff('a\nb', 'a\nb\n', 'f')).toBe(
    '--- f\n+++ f\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+b\n',
  );
});

test('whatever changes, patch gets from the one text to the other', () => {
  const text = fc.array(fc.constantFrom('a\n', 'b\n', 'c\n', '\n', 'd'), { maxLength: 40 }).map((l) => l.join(''));
  fc.assert(
    fc.property(text, text, (a, b) => {
      expect(patched(a, unifiedDiff(a, b, 'f'))).toBe(b);
    }),
  );
});

test('as short as diff makes it', () => {
  const dir = mkdtempSync(join(tmpdir(), 'hostdev-diff-'));
  const line = fc.constantFrom('a\n', 'b\n', 'c\n', 'd\n', 'e\n');
  const text = fc.array(line, { minLength: 1, maxLength: 30 }).map((l) => l.join(''));
  const edits = (diff: string): number =>
    diff.split('\n').filter((l) => /^[+-]/.test(l) && !/^(---|\+\+\+) /.test(l)).length;
  fc.assert(
    fc.property(text, text, (a, b) => {
      writeFileSync(join(dir, 'a'), a);
      writeFileSync(join(dir, 'b'), b);
      const r = spawnSync('diff', ['-u', '-d', 'a', 'b'], { cwd: dir, encoding: 'utf8' });
      expect(r.error).toBeUndefined();
      expect(edits(unifiedDiff(a, b, 'f'))).toBe(edits(r.stdout));
    }),
    { numRuns: 60 },
  );
  rmSync(dir, { recursive: true });
});

test('texts with nothing in common are replaced, in no time', () => {
  const [a, b] = [lines(20_000), lines(20_000, 1_000_000)];
  const from = performance.now();
  const diff = unifiedDiff(a, b, 'f');
  expect(performance.now() - from).toBeLessThan(5000);
  expect(diff.split('\n')).toHaveLength(40_004);
});
