/**
 * Processes by name, for `doctor`: when they began and what they may lock. A process that ends meanwhile is left out.
 */

import { orNull } from '../errors.ts';
import type { Host } from './host.ts';

export type ProcessFacts = {
  pid: number;
  command: string;
  /** Milliseconds since the epoch, to 10 ms; null when not measured. */
  startedMs: number | null;
  /** The hard limit of locked memory in bytes; Infinity for none, null when not measured. */
  memlock: number | null;
  /** True when it may raise limits by itself (CAP_SYS_RESOURCE in effect); null when not measured. */
  mayRaiseLimits: boolean | null;
};

/** USER_HZ, what /proc counts time in, is 100 on every architecture that has libvirt (include/asm-generic/param.h). */
const TICKS = 100;
const CAP_SYS_RESOURCE = 24n;
const MAX_STATUS = 65536;

/** The processes that call themselves one of `commands` (at most 15 bytes each, as the kernel keeps them). */
export function processesNamed(host: Host, commands: readonly string[]): ProcessFacts[] {
  const pids = (host.list('proc') ?? []).filter((n) => /^[1-9]\d{0,8}$/.test(n)).map(Number);
  const bootMs = bootTime(host);
  return pids.flatMap((pid) => {
    const command = orNull(() => host.read(host.process(pid, 'comm'), 64))?.trim() ?? '';
    if (!commands.includes(command)) return [];
    const limits = orNull(() => host.read(host.process(pid, 'limits'), MAX_STATUS));
    const status = orNull(() => host.read(host.process(pid, 'status'), MAX_STATUS));
    const caps = /^CapEff:\s*([0-9a-f]{1,16})$/m.exec(status ?? '')?.[1];
    return [
      {
        pid,
        command,
        startedMs: startTime(
          orNull(() => host.read(host.process(pid, 'stat'), MAX_STATUS)),
          bootMs,
        ),
        memlock: memlock(limits),
        mayRaiseLimits: caps === undefined ? null : ((BigInt(`0x${caps}`) >> CAP_SYS_RESOURCE) & 1n) === 1n,
      },
    ];
  });
}

function bootTime(host: Host): number | null {
  const seconds = /^btime (\d{1,12})$/m.exec(orNull(() => host.read(host.procStat, 16 * 1024 * 1024)) ?? '')?.[1];
  return seconds === undefined ? null : Number(seconds) * 1000;
}

/**
 * Field 22 of proc/PID/stat; the name in field 2 may hold spaces and brackets, so fields are counted from its last
 * bracket.
 */
function startTime(stat: string | null, bootMs: number | null): number | null {
  if (stat === null || bootMs === null) return null;
  const ticks = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  return ticks !== undefined && /^\d{1,15}$/.test(ticks) ? bootMs + (Number(ticks) * 1000) / TICKS : null;
}

function memlock(limits: string | null): number | null {
  const hard = /^Max locked memory\s+(?:\d+|unlimited)\s+(\d{1,20}|unlimited)/m.exec(limits ?? '')?.[1];
  return hard === undefined ? null : hard === 'unlimited' ? Number.POSITIVE_INFINITY : Number(hard);
}
