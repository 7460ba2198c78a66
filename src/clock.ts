/**
 * Milliseconds of a clock that nobody sets, for deadlines. process.hrtime, because the first use of `performance` loads
 * eight modules of node (1 ms).
 */
export function now(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
}

/** Waits `ms` milliseconds. Not node:timers/promises, whose loading takes longer than most waits here. */
export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
