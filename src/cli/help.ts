/** The help texts, made from the command table. */
import { GUARDS } from '../binding/guards.ts';
import type { Command } from './command.ts';
import { COMMANDS } from './commands.ts';

const GLOBAL_OPTIONS: [string, string][] = [
  ['--root DIR', 'work on the host below DIR instead of /'],
  ['-j, --json', 'one JSON document on stdout, errors too'],
  ['-n, --dry-run', "show the plan, change nothing; the exit code is the real run's"],
  ['--allow GUARD', 'go on where this guard refuses (may be given several times)'],
  ['--config FILE|DIR', "hostdev's or Nova's configuration instead of /etc/hostdev (may be given several times)"],
  ['--inventory FILE', "the devices that 'hostdev list -j' printed on any host, instead of this one's (- is stdin)"],
  ['-h, --help', 'this text; after a command, its own'],
  ['--version', 'the version'],
];

const columns = (rows: readonly (readonly [string, string])[]): string => {
  const width = Math.max(...rows.map(([a]) => a.length)) + 2;
  return rows.map(([a, b]) => `  ${a.padEnd(width)}${b}\n`).join('');
};

/** The text of `hostdev --help`, or of one command. */
export function helpText(command: Command | null): string {
  if (command === null) {
    return `Usage: hostdev [options] COMMAND …\n\nHands PCI devices to libvirt guests and takes them back.\n\nCommands:\n${columns(
      COMMANDS.map((c) => [`${c.name} ${c.args}`.trim(), c.text] as const),
    )}\nOptions:\n${columns(GLOBAL_OPTIONS)}\nA device is 0000:01:00.0, 01:00.0, pci_0000_01_00_0, vvvv:dddd, /dev/nvme0n1 or eth0.\n`;
  }
  const own = Object.entries(command.own ?? {}).map(
    ([k, o]) => [`--${k}${o.value === undefined ? '' : ` ${o.value}`}`, o.text] as const,
  );
  const guards = command.changes
    ? `\nGuards:\n${columns(Object.entries(GUARDS).map(([name, g]) => [name, `${g.text}${g.allowable ? '' : ' (not to be lifted)'}`] as const))}`
    : '';
  return `Usage: hostdev ${command.name} ${command.args}\n\n${command.text}\n\nOptions:\n${columns([...own, ...GLOBAL_OPTIONS])}${guards}`;
}
