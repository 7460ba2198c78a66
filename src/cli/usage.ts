/** How a command is written, as its help and its errors say it. */
import type { Argument, Command, Option } from './command.ts';
import { GLOBALS } from './commands.ts';

const argumentText = ({ name, optional, many }: Argument): string => {
  const text = many ? `${name}…` : name;
  return optional ? `[${text}]` : text;
};

/** "--count N". */
export const optionText = (name: string, { value }: Option): string =>
  `--${name}${value === undefined ? '' : ` ${value}`}`;

/** "PF", "[DEV]"; empty for a command that takes no words. */
export const argumentsText = ({ args }: Command): string => args.map(argumentText).join(' ');

/** "vf create PF --count N": what must be given stands there by name. */
export function synopsis(command: Command): string {
  const own = Object.entries(command.own ?? {});
  const must = [
    ...own.filter(([, o]) => o.required).map(([name, o]) => optionText(name, o)),
    ...(command.needs ?? []).map((name) => optionText(name, GLOBALS[name])),
  ];
  return [command.name, argumentsText(command), ...must].filter(Boolean).join(' ');
}

/** "hostdev vf create PF --count N [options]" */
export const usageOf = (command: Command): string => `hostdev ${synopsis(command)} [options]`;
