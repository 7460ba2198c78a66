/** Tables of the reference pages that tests make from the code. */

type Cells = (string | number)[];

/** A table as biome formats one; a number is set to the right. */
export function pageTable(head: string[], rows: Cells[]): string {
  const text = [head, ...rows].map((r) => r.map((c) => `${c}`.replaceAll('|', '\\|').replaceAll('<', '\\<')));
  const isRight = head.map((_, i) => typeof rows[0]?.[i] === 'number');
  const width = head.map((_, i) => Math.max(3, ...text.map((r) => r[i]?.length ?? 0)));
  const pad = (cell: string, i: number): string =>
    isRight[i] ? cell.padStart(width[i] ?? 0) : cell.padEnd(width[i] ?? 0);
  const rule = width.map((w, i) => (isRight[i] ? `${'-'.repeat(w - 1)}:` : '-'.repeat(w)));
  const lines = text.map((r, n) => (n === 0 ? r.map((c, i) => c.padEnd(width[i] ?? 0)) : r.map(pad)));
  return [...lines.slice(0, 1), rule, ...lines.slice(1)].map((r) => `| ${r.join(' | ')} |\n`).join('');
}
