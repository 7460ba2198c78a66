/**
 * Timing whole processes and functions, several times in turn so that a slow moment of the machine hits all of them
 * alike.
 */
import { spawnSync } from 'node:child_process';

export type Figure = { what: string; ms: number[] };

export const min = (f: Figure): number => Math.min(...f.ms);
const max = (f: Figure): number => Math.max(...f.ms);
export function median(f: Figure): number {
  const sorted = [...f.ms].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

/**
 * What `f` took above `floor`, round by round: where the machine is slow for a while, both are, and the difference
 * stays.
 */
export const above = (f: Figure, floor: Figure | undefined): Figure => ({
  what: f.what,
  ms: f.ms.map((ms, round) => ms - (floor?.ms[round] ?? Number.NaN)),
});

/**
 * Runs each command `runs` times, in turn, as a whole process with its output thrown away; the first round is not
 * counted.
 */
export function timeCommands(commands: Record<string, string[]>, runs: number): Figure[] {
  const figures = Object.keys(commands).map((what): Figure => ({ what, ms: [] }));
  for (let run = 0; run <= runs; run += 1) {
    for (const f of figures) {
      const [program = '', ...args] = commands[f.what] ?? [];
      const from = performance.now();
      const { status, error } = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'ignore'] });
      const ms = performance.now() - from;
      if (error || status !== 0) throw new Error(`${program} ${args.join(' ')}: ${error?.message ?? `exit ${status}`}`);
      if (run > 0) f.ms.push(ms);
    }
  }
  return figures;
}

/** The same for functions; `between` is what is measured in turn with them by other means. */
export function timeFunctions(functions: Record<string, () => void>, runs: number, between: () => void): Figure[] {
  const figures = Object.keys(functions).map((what): Figure => ({ what, ms: [] }));
  for (let run = 0; run <= runs; run += 1) {
    for (const f of figures) {
      const from = performance.now();
      functions[f.what]?.();
      if (run > 0) f.ms.push(performance.now() - from);
    }
    if (run > 0) between();
  }
  return figures;
}

/** Rows of a markdown table: what, least, median, most, and a remark. */
export function markdown(figures: readonly Figure[], remark: (f: Figure) => string): string {
  const rows = figures.map(
    (f) => `| ${f.what} | ${min(f).toFixed(1)} | ${median(f).toFixed(1)} | ${max(f).toFixed(1)} | ${remark(f)} |`,
  );
  return ['| | least ms | median ms | most ms | |', '| --- | ---: | ---: | ---: | --- |', ...rows].join('\n');
}
