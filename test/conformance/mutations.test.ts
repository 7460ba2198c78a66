/**
 * Nova's scenarios with values replaced at random: a verdict or HOSTDEV_SCENARIO, never a fault, and no device given
 * twice.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { HostdevError } from '../../src/errors.ts';
import { parseScenario } from '../../src/simulate/scenario.ts';
import { simulate } from '../../src/simulate/simulate.ts';

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const cases = readFileSync(join(import.meta.dirname, 'nova-pci.jsonl'), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => (JSON.parse(line) as { case: Json }).case);

const WORDS: Json[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  '',
  ' ',
  '*',
  'true',
  '0000:81:00.0',
  '0000:81:10.1',
  'type-VF',
  'type-PF',
  [],
  {},
  [{}],
];
const value: fc.Arbitrary<Json> = fc.oneof(
  fc.constantFrom(...WORDS),
  fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<Json>,
);

/** Every place in a JSON value, as the keys on the way to it. */
function places(at: Json, way: string[] = []): string[][] {
  const inner = typeof at === 'object' && at !== null ? Object.entries(at) : [];
  return [way, ...inner.flatMap(([k, v]) => places(v, [...way, k]))];
}

function replaced(at: Json, [key, ...rest]: string[], by: Json): Json {
  if (key === undefined) return by;
  if (Array.isArray(at)) return at.map((v, i) => (`${i}` === key ? replaced(v, rest, by) : v));
  const object = (at ?? {}) as { [key: string]: Json };
  return { ...object, [key]: replaced(object[key] ?? null, rest, by) };
}

test('mutated scenarios', () => {
  let verdicts = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(...cases),
      fc.array(fc.tuple(fc.nat(), value), { minLength: 1, maxLength: 3 }),
      (scenario, changes) => {
        const mutated = changes.reduce<Json>((at, [n, by]) => {
          const all = places(at).slice(1);
          return all.length === 0 ? at : replaced(at, all[n % all.length] ?? [], by);
        }, scenario);
        try {
          const { verdict } = simulate(parseScenario(Buffer.from(JSON.stringify(mutated))));
          verdicts += 1;
          for (const step of verdict.steps ?? []) {
            const got = step.devices ?? [];
            expect(new Set(got).size).toBe(got.length);
          }
        } catch (e) {
          if (!(e instanceof HostdevError)) throw e;
          expect(e.code).toBe('HOSTDEV_SCENARIO');
        }
      },
    ),
    { numRuns: 20_000 },
  );
  expect(verdicts).toBeGreaterThan(3000);
});
