import { callingLibvirt, processRuns } from '../addon/process.ts';
import { HOOK_DEFAULTS } from '../config/hookDefaults.ts';
import { asLastError, EXIT, HostdevError } from '../errors.ts';
import { HOOK_OPERATIONS, runHook } from '../hook/run.ts';
import { quote, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { readInput } from './input.ts';
import { err } from './output.ts';

/**
 * libvirt is answered in its time by the hook client; a release goes on behind it, for as long as a prepare may take.
 */
const deadlineOf = (operation: string): number =>
  1000 * (operation === 'start' ? HOOK_DEFAULTS.start_seconds : HOOK_DEFAULTS.prepare_seconds);

/**
 * `hostdev hook run NAME OP SUBOP EXTRA`: stdout stays empty, whatever -j says (for migrate and restore it would
 * replace the XML). Only prepare and start fail.
 */
export async function hookRun({ host, words, own, options }: Invocation): Promise<Answer> {
  const [name = '', operation = ''] = words;
  const silent: Answer = { json: {}, text: '' };
  if (!HOOK_OPERATIONS.includes(operation)) return silent;
  try {
    const deadlineMs = own['deadline-ms'] === undefined ? deadlineOf(operation) : milliseconds(own['deadline-ms']);
    const xml = await readInput('-');
    await runHook(
      host,
      { name, operation, xml },
      {
        ...options,
        signal: untilCallerEnds(operation, options.signal),
        deadlineMs,
        verb: `hook ${operation}`,
        lockedUuid: process.env.HOSTDEV_HOOK_UUID ?? null,
        libvirt: callingLibvirt(),
      },
    );
    return silent;
  } catch (e) {
    const { code, message, hint, exit } = asLastError(e);
    const text =
      code === 'HOSTDEV_INTERNAL'
        ? `a fault of hostdev: ${(e as Error).stack ?? e}`
        : `${message}${hint ? `. ${hint}` : ''}`;
    // libvirt appends stderr to its own error: one line, with the cause and the way out.
    err(`hostdev: ${safeBlock(text.replace(/\s*\n\s*/g, ' '))}\n`);
    return { ...silent, exit: operation === 'prepare' || operation === 'start' ? exit : EXIT.done };
  }
}

/**
 * A prepare that nobody waits for any more must not bind behind libvirt's back: it stops when its hook client, or the
 * libvirtd that called that one, is gone. A release goes on after both.
 */
function untilCallerEnds(operation: string, signal: { readonly aborted: boolean } = { aborted: false }) {
  if (operation !== 'prepare' && operation !== 'start') return signal;
  const client = process.ppid;
  const libvirt = callingLibvirt();
  return {
    get aborted(): boolean {
      return signal.aborted || process.ppid !== client || !processRuns(libvirt);
    },
  };
}

function milliseconds(text: string | boolean): number {
  const ms = Number(text);
  if (!Number.isFinite(ms) || ms < 0)
    throw new HostdevError('HOSTDEV_USAGE', `--deadline-ms ${quote(text)} is no number of milliseconds`);
  return ms;
}
