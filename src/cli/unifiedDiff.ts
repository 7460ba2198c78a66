/** Two texts as `diff -u` shows them, for people and for patch(1): Myers' shortest edit (An O(ND) Difference Algorithm, 1986), with the same three lines around. */

const CONTEXT = 3;

/** Above it the middle is shown as replaced: its cost grows with the square. */
const MAX_EDITS = 2000;

type Line = { sign: ' ' | '-' | '+'; text: string };

/** Lines with their ends; the last may have none. */
const linesOf = (text: string): string[] => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];

/** The edits from `a` to `b`, whose first and last lines differ. */
function middle(a: readonly string[], b: readonly string[]): Line[] {
  const whole = [...a.map((text): Line => ({ sign: '-', text })), ...b.map((text): Line => ({ sign: '+', text }))];
  const most = Math.min(a.length + b.length, MAX_EDITS);
  /** How far each diagonal reaches, one step of the search after the other. */
  const steps: Map<number, number>[] = [];
  let reach = new Map([[1, 0]]);
  for (let d = 0; d <= most; d += 1) {
    const next = new Map<number, number>();
    for (let k = -d; k <= d; k += 2) {
      const [down, right] = [reach.get(k + 1) ?? -1, reach.get(k - 1) ?? -1];
      let x = k === -d || (k !== d && right < down) ? down : right + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      next.set(k, x);
      if (x >= a.length && x - k >= b.length) return walkBack(a, b, [...steps, reach]);
    }
    steps.push(reach);
    reach = next;
  }
  return whole;
}

function walkBack(a: readonly string[], b: readonly string[], steps: readonly Map<number, number>[]): Line[] {
  const lines: Line[] = [];
  let [x, y] = [a.length, b.length];
  for (let d = steps.length - 1; d >= 0; d -= 1) {
    const reach = steps[d] ?? new Map<number, number>();
    const k = x - y;
    const [down, right] = [reach.get(k + 1) ?? -1, reach.get(k - 1) ?? -1];
    const inserts = k === -d || (k !== d && right < down);
    const fromX = inserts ? down : right;
    const fromY = fromX - (inserts ? k + 1 : k - 1);
    while (x > fromX && y > fromY && x > 0 && y > 0) {
      x -= 1;
      y -= 1;
      lines.push({ sign: ' ', text: a[x] ?? '' });
    }
    if (d === 0) break;
    if (inserts) lines.push({ sign: '+', text: b[fromY] ?? '' });
    else lines.push({ sign: '-', text: a[fromX] ?? '' });
    [x, y] = [fromX, fromY];
  }
  return lines.reverse();
}

function edits(a: readonly string[], b: readonly string[]): Line[] {
  const least = Math.min(a.length, b.length);
  let head = 0;
  while (head < least && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < least - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const same = (text: string): Line => ({ sign: ' ', text });
  return [
    ...a.slice(0, head).map(same),
    ...middle(a.slice(head, a.length - tail), b.slice(head, b.length - tail)),
    ...a.slice(a.length - tail).map(same),
  ];
}

const range = (start: number, count: number): string =>
  count === 1 ? `${start + 1}` : `${count === 0 ? start : start + 1},${count}`;

const printed = ({ sign, text }: Line): string =>
  text.endsWith('\n') ? sign + text : `${sign}${text}\n\\ No newline at end of file\n`;

/** The unified diff of two texts, '' when they are the same. `name` stands for both files. */
export function unifiedDiff(before: string, after: string, name: string): string {
  const lines = edits(linesOf(before), linesOf(after));
  const changed = lines.flatMap((l, i) => (l.sign === ' ' ? [] : [i]));
  if (changed.length === 0) return '';
  let text = `--- ${name}\n+++ ${name}\n`;
  // How many lines of either text stand before line i of the edits.
  const old = [0];
  const now = [0];
  for (const { sign } of lines) {
    old.push((old.at(-1) ?? 0) + (sign === '+' ? 0 : 1));
    now.push((now.at(-1) ?? 0) + (sign === '-' ? 0 : 1));
  }
  for (let i = 0; i < changed.length; ) {
    const from = Math.max(0, (changed[i] ?? 0) - CONTEXT);
    while ((changed[i + 1] ?? Number.POSITIVE_INFINITY) - (changed[i] ?? 0) <= 2 * CONTEXT) i += 1;
    const to = Math.min(lines.length, (changed[i] ?? 0) + 1 + CONTEXT);
    i += 1;
    const span = (counts: readonly number[]): string =>
      range(counts[from] ?? 0, (counts[to] ?? 0) - (counts[from] ?? 0));
    text += `@@ -${span(old)} +${span(now)} @@\n${lines.slice(from, to).map(printed).join('')}`;
  }
  return text;
}
