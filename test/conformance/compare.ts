/** Verdicts compared in full: as printed, and errors as their class. */
import { expect } from 'vitest';
import { NOVA_CODES } from '../../src/nova/grammar/novaError.ts';
import { parseScenario } from '../../src/simulate/scenario.ts';
import { simulate, type Verdict } from '../../src/simulate/simulate.ts';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Row = { case: { [key: string]: Json; id: string }; expected: { [key: string]: Json } };

/** As printed: through JSON. */
export const answerTo = (scenario: Json): Verdict =>
  JSON.parse(JSON.stringify(simulate(parseScenario(Buffer.from(JSON.stringify(scenario)))).verdict)) as Verdict;

/** Errors as their class: Nova's texts are not ours. Each of ours also has the code of its class. */
export function comparable(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(comparable);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([k, v]): [string, unknown] => [k, comparable(v)]);
  if (!('class' in value) || !('message' in value)) return Object.fromEntries(entries);
  const error = value as { class: string; code?: string; message: string };
  if (error.code !== undefined) {
    expect(error.code).toBe((NOVA_CODES as Record<string, string>)[error.class]);
    expect(error.message).not.toBe('');
  }
  return { class: error.class };
}
