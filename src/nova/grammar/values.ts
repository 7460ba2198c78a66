/** Numbers and booleans as Nova reads them from text: Python's int(text, 16) and oslo.utils' bool_from_string. */

import type { JsonValue } from '../../text/json.ts';
import { quote } from '../../text/safe.ts';
import { NovaError } from './novaError.ts';

/** What int(text, 16) takes: blanks around, a sign, 0x, single underscores between digits. */
const PYTHON_HEX = /^\s*([+-]?)(?:0x_?)?([0-9a-f]+(?:_[0-9a-f]+)*)\s*$/i;

/** Longer than any sensible spelling; keeps messages and patterns bounded. */
const MAX_TEXT = 256;

/**
 * Nova's _set_pci_dev_info: `text` as a hex number of at most `max`, printed again with `width` lower-case digits.
 * A negative number passes, as in Nova ("-1" gives "-001", which no device has). Raises PciConfigInvalidSpec.
 */
export function hexField(property: string, text: string, max: number, width: number, key: string = property): string {
  const m = text.length > MAX_TEXT ? null : PYTHON_HEX.exec(text);
  if (m === null) {
    throw new NovaError('PciConfigInvalidSpec', `${property} (${quote(text)}) does not parse as a hex number`, { key });
  }
  const digits = (m[2] ?? '')
    .replaceAll('_', '')
    .replace(/^0+(?=.)/, '')
    .toLowerCase();
  const isNegative = m[1] === '-' && digits !== '0';
  if (isNegative) return `-${digits.padStart(width - 1, '0')}`;
  if (digits.length > 8 || Number.parseInt(digits, 16) > max) {
    const most = max.toString(16).toUpperCase();
    throw new NovaError(
      'PciConfigInvalidSpec',
      `${property} (${quote(text)}) is greater than the maximum allowable value (${most})`,
      { key },
    );
  }
  return digits.padStart(width, '0');
}

const TRUE = ['1', 't', 'true', 'on', 'y', 'yes'];
const FALSE = ['0', 'f', 'false', 'off', 'n', 'no'];

/** The text Python's str() makes of a JSON value, as far as a boolean could be read from it. */
const pythonText = (value: JsonValue): string => (typeof value === 'string' ? value : JSON.stringify(value));

/** bool_from_string(strict=True): true, false, or null when the value is neither; blanks and case do not count. */
export function strictBool(value: JsonValue): boolean | null {
  const word = pythonText(value).trim().toLowerCase();
  return TRUE.includes(word) ? true : FALSE.includes(word) ? false : null;
}

/** bool_from_string(): whatever is not a word for true is false, an absent value too. */
export const looseBool = (value: JsonValue | undefined): boolean => value !== undefined && strictBool(value) === true;

export const BOOL_WORDS = [...TRUE, ...FALSE].sort().join(', ');
