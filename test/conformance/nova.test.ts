/**
 * Nova's own verdicts (README.md here; produced by running Nova 33.0.0+373), compared in full with what `simulate` answers: everything but the texts of errors, whose class
 * must agree. Where a row is marked nova_bug, Nova crashed or was wrong: BETTER says what is answered instead, and why.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseScenario } from '../../src/actions/scenario.ts';
import { simulate, type Verdict } from '../../src/actions/simulate.ts';
import { NOVA_CODES } from '../../src/spec/novaError.ts';
import { BETTER, LEAKING } from './better.ts';

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Row = { case: { [key: string]: Json; id: string }; expected: { [key: string]: Json }; nova_bug: boolean };

const rows = readFileSync(join(import.meta.dirname, 'nova-pci.jsonl'), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as Row);

/** As printed: through JSON. */
const answer = (row: Row): Verdict =>
  JSON.parse(JSON.stringify(simulate(parseScenario(Buffer.from(JSON.stringify(row.case)))).verdict)) as Verdict;

const find = (id: string): Row => {
  const row = rows.find((r) => r.case.id === id);
  if (row === undefined) throw new Error(`no row ${id}`);
  return row;
};

/** Errors as their class: Nova's texts are not ours. Each of ours also has the code of its class. */
function comparable(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(comparable);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([k, v]): [string, unknown] => [k, comparable(v)]);
  const keys = Object.keys(value);
  if (!keys.includes('class') || !keys.includes('message')) return Object.fromEntries(entries);
  const error = value as { class: string; code?: string; message: string };
  if (error.code !== undefined) {
    expect(error.code).toBe((NOVA_CODES as Record<string, string>)[error.class]);
    expect(error.message).not.toBe('');
  }
  return { class: error.class };
}

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
