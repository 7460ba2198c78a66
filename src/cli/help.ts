/** The help texts, made from the command table. */
import { GUARDS, isAllowable } from '../binding/guards.ts';
import type { Command, GlobalOption, Option } from './command.ts';
import { COMMANDS, GLOBALS } from './commands.ts';
import { takes } from './parse.ts';
import { optionText, synopsis, usageOf } from './usage.ts';

const columns = (rows: readonly (readonly [string, string])[]): string => {
  const width = Math.max(...rows.map(([a]) => a.length)) + 2;
  return rows.map(([a, b]) => `  ${a.padEnd(width)}${b}\n`).join('');
};

const optionRow = ([name, o]: [string, Option]): [string, string] => {
  const text = optionText(name, o);
  return [o.short === undefined ? text : `-${o.short}, ${text}`, o.text];
};

const globals = (shown: (name: GlobalOption) => boolean, way = ''): [string, string][] =>
  (Object.keys(GLOBALS) as GlobalOption[]).filter(shown).map((name) => {
    const [option, text] = optionRow([name, GLOBALS[name]]);
    return [option, GLOBALS[name].every ? text : `${way}${text}`];
  });

/** The text of `hostdev --help` (no command), of one command, or of several (those of a noun). */
export function helpText(commands: readonly Command[]): string {
  const [only, ...more] = commands;
  if (only === undefined) return `${GENERAL}${generalOptions()}\n${DEVICES}`;
  if (more.length > 0) {
    const usages = commands.map(usageOf).join('\n       ');
    const noun = only.name.split(' ')[0];
    return `Usage: ${usages}\n\n${commandList(commands)}\n'hostdev ${noun} COMMAND --help' says more of one.\n`;
  }
  const options = [
    ...Object.entries(only.own ?? {}).map(optionRow),
    // What libvirt's hook calls prints nothing on stdout.
    ...globals(
      (name) => takes(only, name) && !(only.isHook && name === 'json'),
      only.changesWith === undefined ? '' : `with --${only.changesWith}: `,
    ),
  ];
  const guards = only.takes?.includes('allow')
    ? `\nGuards:\n${columns(Object.entries(GUARDS).map(([name, g]) => [name, `${g.text}${isAllowable(name) ? '' : ' (not to be lifted)'}`] as const))}`
    : '';
  const further = only.more === undefined ? '' : `\n${only.more}\n`;
  return `Usage: ${usageOf(only)}\n\n${only.text}\n${further}\nOptions:\n${columns(options)}${guards}`;
}

const commandList = (commands: readonly Command[]): string =>
  `Commands:\n${columns(commands.map((c) => [synopsis(c), c.text] as const))}`;

const GENERAL = `Usage: hostdev [options] COMMAND …

Hands PCI devices to libvirt guests and takes them back. 'hostdev COMMAND --help' says which options a command takes.

${commandList(COMMANDS)}
Options:
`;

const generalOptions = (): string =>
  columns(globals((name) => name === 'version' || COMMANDS.some((c) => takes(c, name))));

const DEVICES = 'A device is 0000:01:00.0, 01:00.0, pci_0000_01_00_0, vvvv:dddd, /dev/nvme0n1, nvme0n1 or eth0.\n';
