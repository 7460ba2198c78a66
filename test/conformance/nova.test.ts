/**
 * Nova's own verdicts (README.md here; produced by running Nova 33.0.0+373), compared in full with what `simulate`
 * answers: everything but the texts of errors, whose class must agree. Where a row is marked nova_bug, Nova crashed or
 * was wrong: BETTER says what is answered instead, and why.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Verdict } from '../../src/simulate/simulate.ts';
import { BETTER, LEAKING } from './better.ts';
import { answerTo, type Row as BaseRow, comparable } from './compare.ts';

type Row = BaseRow & { nova_bug: boolean };

const rows = readFileSync(join(import.meta.dirname, 'nova-pci.jsonl'), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as Row);

const answer = (row: Row): Verdict => answerTo(row.case);

const find = (id: string): Row => {
  const row = rows.find((r) => r.case.id === id);
  if (row === undefined) throw new Error(`no row ${id}`);
  return row;
};

describe('299 verdicts of Nova', () => {
  test('all rows are here', () => {
    expect(rows).toHaveLength(299);
    expect(
      rows
        .filter((r) => r.nova_bug)
        .map((r) => r.case.id)
        .sort(),
    ).toEqual(Object.keys(BETTER).sort());
  });

  test.each(rows.filter((r) => !r.nova_bug && !(r.case.id in LEAKING)).map((r) => [r.case.id, r] as const))(
    '%s',
    (_, row) => {
      expect(comparable(answer(row))).toEqual(comparable(row.expected));
    },
  );

  test.each(Object.entries(BETTER))('%s, better than Nova', (id, { check }) => {
    const row = find(id);
    check(answer(row), row.expected as unknown as Verdict);
  });

  test.each(Object.entries(LEAKING))('%s, up to the leak', (id, { check, from }) => {
    const row = find(id);
    const until = ({ steps, ...rest }: Verdict): unknown => comparable({ ...rest, steps: steps?.slice(0, from) });
    const [ours, novas] = [answer(row), row.expected as unknown as Verdict];
    expect(until(ours)).toEqual(until(novas));
    check(ours, novas);
  });
});
