/**
 * `hook remove --uninstall`: what comes before the program itself goes. Once it is gone nobody gives a device back any
 * more, so it refuses while the books or the journal hold one; and it takes out no hook that starts another hostdev
 * (one of npm's beside the package's).
 */
import { isGuest, ownerText } from '../binding/books.ts';
import { badFileText } from '../binding/session.ts';
import { HostdevError } from '../errors.ts';
import { type HookChange, type HookProgram, installedCli, removeHook } from '../hook/install.ts';
import type { Host } from '../host/host.ts';
import { warning } from '../text/warning.ts';
import { NOT_ASKED } from './inGuest.ts';
import { type BindingStatus, readStatus, type Status } from './status.ts';

/**
 * Removes the hook as {@link removeHook} does; a file that is not hostdev's stays. Raises HOSTDEV_IN_USE, with every
 * device and the way out, and what that raises.
 */
export async function uninstall(host: Host, program: HookProgram, dryRun: boolean): Promise<HookChange> {
  const kept = whatIsKept(await readStatus(host, NOT_ASKED));
  if (kept.length > 0)
    throw new HostdevError('HOSTDEV_IN_USE', `hostdev is still needed: ${kept.map((k) => k.text).join('; ')}`, {
      hint: `${[...new Set(kept.map((k) => k.way))].join('; ')}. Then remove it again.`,
    });
  const cli = installedCli(host);
  if (cli !== null && cli !== program.cli)
    return {
      changed: false,
      path: cli,
      notes: [warning('foreign-hook', `the installed hook starts another hostdev, ${cli}: it stays`)],
      refused: null,
    };
  return removeHook(host, dryRun, 'stays');
}

type Kept = { text: string; way: string };

function whatIsKept({ bindings, journal, bad_files }: Status): Kept[] {
  return [
    ...bindings.map(keptDevice),
    ...(journal === null
      ? [{ text: 'what the journal holds is not known: it may not be read', way: 'run it as root' }]
      : []),
    ...(journal ?? []).map((j) => ({
      text: `an unfinished ${j.kind} ${j.id} for ${j.owner}`,
      way: "'hostdev status --fix' finishes what was not finished",
    })),
    ...bad_files.map((f) => ({ text: badFileText(f), way: 'see the file, then remove it' })),
  ];
}

function keptDevice({ address, holds, driver, drift, advice }: BindingStatus): Kept {
  const whose = holds.map(ownerText).join(' and ');
  const text = `${address} is on ${driver ?? 'no driver'}${whose === '' ? ', and was not given back' : ` for ${whose}`}`;
  if (drift !== null) return { text: `${text} (${drift})`, way: advice ?? "see 'hostdev status'" };
  const guests = holds.filter(isGuest).map((h) => h.name ?? h.owner);
  return { text, way: guests.length > 0 ? `shut down ${guests.join(', ')}` : `hostdev unbind ${address}` };
}
