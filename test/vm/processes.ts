/** Processes of machines, that must not outlive the one that started them. */
import { type ChildProcess, spawn } from 'node:child_process';

// The kernel ends them too if it is killed (see `spawnTied`).
const running = new Set<() => void>();
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const killAll = () => {
  for (const kill of running) kill();
};
const onSignal = (signal: NodeJS.Signals) => {
  killAll();
  for (const one of signals) process.removeListener(one, onSignal);
  process.kill(process.pid, signal);
};
let guarded = false;
/** Has `kill` called when this process ends, however that comes about. */
export function guard(kill: () => void): void {
  running.add(kill);
  if (guarded) return;
  guarded = true;
  process.once('exit', killAll);
  for (const one of signals) process.on(one, onSignal);
  // vitest killed by a signal leaves its worker running the file to the end.
  process.once('disconnect', () => {
    if (running.size > 0) process.exit(1);
  });
}

/** Starts a process that the kernel ends when the thread that started it is gone, however that came about. */
export function spawnTied(
  file: string,
  args: readonly string[],
  stdio: 'ignore' | ['ignore', number, number],
): ChildProcess {
  return spawn('setpriv', ['--pdeathsig', 'KILL', '--', file, ...args], { stdio });
}

/** Whether a process is over. */
export const ended = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;

export function killNow(child: ChildProcess | undefined): void {
  if (child?.pid !== undefined && !ended(child)) child.kill('SIGKILL');
}

/** A process whose `kill` need not be called any more. */
export function unguard(kill: () => void): void {
  running.delete(kill);
}
