/**
 * Whether a process of this machine still runs. These are our own helpers, so it is the machine's own proc that is
 * asked, whatever --root says.
 */
import { readFileSync } from 'node:fs';
import { orNull } from '../errors.ts';

/** Daemons that call the qemu hook. */
const LIBVIRT = /^(libvirtd|virtqemud)$/;
/** Between libvirt and us: the hook client, and whatever script calls it. */
const MAX_ANCESTORS = 16;

/** What proc says of a process; null when there is none of that id. */
const statOf = (pid: number): string | null => orNull(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));

/** Name and parent of a process; null when there is none of that id. */
function parentOf(pid: number): { command: string; parent: number } | null {
  const stat = statOf(pid);
  if (stat === null) return null;
  const command = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
  return { command, parent: Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) };
}

let libvirt: string | undefined;

/**
 * The libvirtd for which this process runs, by the ancestors of whoever called us or our hook client
 * (HOSTDEV_HOOK_CALLER); where none of them is one (a hook that is called by hand), that caller itself. Looked for
 * once, while all of them are there; one that has ended already has a name that runs no more.
 */
export function callingLibvirt(): string {
  if (libvirt !== undefined) return libvirt;
  const told = process.env.HOSTDEV_HOOK_CALLER ?? '';
  const caller = /^[1-9]\d{0,9}$/.test(told) ? Number(told) : process.ppid;
  let found = caller;
  for (let n = 0, pid = caller; n < MAX_ANCESTORS && pid > 1; n += 1) {
    const seen = parentOf(pid);
    if (seen === null) break;
    if (LIBVIRT.test(seen.command)) {
      found = pid;
      break;
    }
    pid = seen.parent;
  }
  libvirt = processName(found) ?? `${found}:0`;
  return libvirt;
}

/**
 * Field 22 of proc/[pid]/stat (proc(5)); the command before it is in parentheses and may hold anything. Null when there
 * is no such process.
 */
function startTime(pid: number): string | null {
  const stat = statOf(pid);
  if (stat === null) return null;
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // A zombie has done all that it will do.
  return fields[0] === 'Z' ? null : (fields[19] ?? null);
}

/** `<pid>:<start time>`, which names no later process of the same id; null when it has ended. */
export function processName(pid: number): string | null {
  const started = pid > 0 ? startTime(pid) : null;
  return started === null ? null : `${pid}:${started}`;
}

let own: string | null = null;

/** The name of this process. */
export function ownName(): string {
  own ??= processName(process.pid) ?? `${process.pid}:0`;
  return own;
}

/** True while the process of that name runs. */
export function processRuns(name: string): boolean {
  const [pid = '', started] = name.split(':');
  return /^\d{1,10}$/.test(pid) && started !== undefined && startTime(Number(pid)) === started;
}

/** Of a process that nobody has logged in for (include/uapi/linux/audit.h AUDIT_UID_UNSET). */
const UNSET = 4294967295;

/**
 * Who asks: our user, the user who had logged in (proc(5), loginuid; null for a daemon's child), and who became root by
 * sudo.
 */
export function whoAsks(): { uid: number | null; loginuid: number | null; sudo_uid: number | null } {
  const number = (text: string | undefined): number | null =>
    text !== undefined && /^\d{1,10}$/.test(text) && Number(text) !== UNSET ? Number(text) : null;
  return { uid: process.getuid?.() ?? null, loginuid: number(loginuid()), sudo_uid: number(process.env.SUDO_UID) };
}

function loginuid(): string | undefined {
  // A kernel without audit has none.
  return orNull(() => readFileSync('/proc/self/loginuid', 'latin1').trim()) ?? undefined;
}
