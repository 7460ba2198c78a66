/** Whether a process of this machine still runs. These are our own helpers, so it is the machine's own proc that is asked, whatever --root says. */
import { readFileSync } from 'node:fs';

/** Field 22 of proc/[pid]/stat (proc(5)); the command before it is in parentheses and may hold anything. Null when there is no such process. */
function startTime(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A zombie has done all that it will do.
    return fields[0] === 'Z' ? null : (fields[19] ?? null);
  } catch {
    return null;
  }
}

/** `<pid>:<start time>`, which names no later process of the same id; null when it has ended. */
export function processName(pid: number): string | null {
  const started = pid > 0 ? startTime(pid) : null;
  return started === null ? null : `${pid}:${started}`;
}

/** True while the process of that name runs. */
export function processRuns(name: string): boolean {
  const [pid = '', started] = name.split(':');
  return /^\d{1,10}$/.test(pid) && started !== undefined && startTime(Number(pid)) === started;
}
