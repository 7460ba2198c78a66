/** The text of a scenario as JSON, or an error that tells line and column. */
import { readJson } from '../config/jsonText.ts';
import { HostdevError } from '../errors.ts';
import { type JsonValue, parseJson } from '../text/json.ts';

/** Beyond this a text that JSON.parse refuses is not read a second time for the place of the mistake. */
const MAX_SEARCHED = 1024 * 1024;

const bad = (message: string, cause: unknown, hint?: string): HostdevError =>
  new HostdevError('HOSTDEV_SCENARIO', message, { cause, ...(hint === undefined ? {} : { hint }) });

/** Raises HOSTDEV_SCENARIO for what is not UTF-8 or not JSON. */
export function decodeScenario(bytes: Uint8Array): JsonValue {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (e) {
    throw bad('The scenario is not UTF-8', e, 'Save it as UTF-8 (iconv -t utf-8).');
  }
  try {
    return parseJson(text);
  } catch (e) {
    throw faultOf(text, e as Error);
  }
}

function faultOf(text: string, e: Error): HostdevError {
  if (text.trim() === '') return bad('The scenario is empty, not JSON', e);
  const placeOf = (at: number): { line: number; column: number } => {
    const before = text.slice(0, at).split('\n');
    return { line: before.length, column: (before.at(-1) ?? '').length + 1 };
  };
  // Only the place of the mistake is wanted, not those of the values.
  const [fault] = text.length > MAX_SEARCHED ? [] : readJson(text, () => ({ line: 0, column: 0 })).faults;
  if (fault === undefined) return bad(`The scenario is not JSON: ${e.message}`, e);
  const { line, column } = placeOf(fault.at);
  const hint = fault.isRest ? 'simulate takes one scenario: of a file with one a line, give one line.' : undefined;
  const what = fault.isRest ? 'a second value begins here' : fault.message;
  return bad(`The scenario is not JSON: line ${line}, column ${column}: ${what}`, e, hint);
}
