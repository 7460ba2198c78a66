/**
 * Time in tests. No verdict depends on how busy the machine is: what is counted is a process's own work, and a limit on
 * the clock only ends what would never end.
 */

/** Milliseconds: nothing that ends by itself takes as long. */
export const EVER = 300_000;

/** Milliseconds of processor time that this process has used; others do not add to it. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
