/**
 * The one printer for people: quiet tables, colour by state only, nothing that another program's text could do to a
 * terminal.
 */
import { safeBlock } from '../text/safe.ts';

/** Rows as columns without rules; the last column is not padded. `header` is left out when there are no rows. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '';
  const all = [header, ...rows];
  const widths = header.map((_, i) => Math.max(...all.map((r) => visibleLength(r[i] ?? ''))));
  const line = (r: readonly string[]): string =>
    header
      .map((_, i) =>
        i === header.length - 1
          ? (r[i] ?? '')
          : (r[i] ?? '') + ' '.repeat((widths[i] ?? 0) - visibleLength(r[i] ?? '')),
      )
      .join('  ')
      .trimEnd();
  return all.map((r) => `${line(r)}\n`).join('');
}

/** Pairs, one a line, the values aligned. */
export function pairs(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([k]) => k.length)) + 2;
  return rows.map(([k, v]) => `${k.padEnd(width)}${v}\n`).join('');
}

// Looked for first: a list of thousands of rows has hardly a cell in colour.
const visibleLength = (text: string): number =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are our own colour codes
  text.includes('\x1b') ? text.replace(/\x1b\[\d+m/g, '').length : text.length;

/** Colours for a stream: none off a terminal or with NO_COLOR (https no-color convention: set and not empty). */
export function colours(stream: { isTTY?: boolean }): {
  bad: (t: string) => string;
  warn: (t: string) => string;
  good: (t: string) => string;
} {
  const on = stream.isTTY === true && !process.env.NO_COLOR;
  const paint = (code: number) => (t: string) => (on ? `\x1b[${code}m${safeBlock(t)}\x1b[0m` : safeBlock(t));
  return { bad: paint(31), warn: paint(33), good: paint(32) };
}
