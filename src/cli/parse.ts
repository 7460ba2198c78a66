/**
 * From words to a command and its options. node:util's parseArgs instead of a CLI library: loading one costs more than
 * a whole `list` (docs/decisions/0006-cli.md); what is wrong with an option is said here, because only we know what the
 * command takes.
 */
import { parseArgs } from 'node:util';
import { HostdevError } from '../errors.ts';
import { nearestWord } from '../text/nearestWord.ts';
import { quote, safe } from '../text/safe.ts';
import type { Command, GlobalOption, Option } from './command.ts';
import { COMMANDS, GLOBALS } from './commands.ts';
import { argumentsText, optionText, usageOf } from './usage.ts';

export type Values = Record<string, string | boolean | (string | boolean)[] | undefined>;

/**
 * `command` null: none is named; `words` are all words then, and `values` the global options as far as they are
 * understood.
 */
export type Named = { command: Command | null; words: string[]; values: Values };

/** The leading words, global options among them skipped, that name a command. */
export function findCommand(argv: string[]): Named {
  const { positionals, values } = parseArgs({ args: argv, options: GLOBALS, allowPositionals: true, strict: false });
  const [first = '', second = ''] = positionals;
  const command =
    COMMANDS.find((c) => c.name === `${first} ${second}`) ?? COMMANDS.find((c) => c.name === first) ?? null;
  return { command, words: positionals, values };
}

/** The commands of a noun: "vf" has three. */
export const commandsOf = (noun: string | undefined): Command[] =>
  COMMANDS.filter((c) => c.name.split(' ')[0] === noun);

/**
 * The options given, and the words after the command's name. Raises HOSTDEV_USAGE for an option that there is not, and
 * without --help for one that the command does not take.
 */
export function parse(argv: string[], command: Command | null): { values: Values; words: string[] } {
  const options: Record<string, Option> = { ...GLOBALS, ...command?.own };
  const { values, positionals, tokens } = parseArgs({
    args: argv,
    options,
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  for (const t of tokens) if (t.kind === 'option') checkOption(options, command, t);
  const words = positionals.slice(command?.name.split(' ').length ?? 0);
  if (command === null || values.help === true) return { values, words };
  for (const name of Object.keys(GLOBALS) as GlobalOption[])
    if (values[name] !== undefined && command.own?.[name] === undefined) checkTaken(command, name, values);
  return { values, words };
}

type Given = { name: string; rawName: string; value?: string | undefined; inlineValue?: boolean | undefined };

function checkOption(options: Record<string, Option>, command: Command | null, given: Given): void {
  const { name, rawName, value, inlineValue } = given;
  const option = Object.hasOwn(options, name) ? options[name] : undefined;
  if (option === undefined) {
    const taken = Object.keys(options).filter(
      (o) => !Object.hasOwn(GLOBALS, o) || command === null || takes(command, o as GlobalOption),
    );
    const near = rawName.startsWith('--') ? nearestWord(name, taken) : null;
    const hint =
      name === 'force' && command?.takes?.includes('allow') === true
        ? 'Nothing lifts all guards: --allow=GUARD lifts the one that a refusal names.'
        : near !== null && `Did you mean --${near}?`;
    throw new HostdevError('HOSTDEV_USAGE', `Unknown option '${safe(rawName)}'`, hint === false ? {} : { hint });
  }
  if (option.type === 'boolean' && value !== undefined)
    throw new HostdevError('HOSTDEV_USAGE', `--${name} takes no value`);
  // What begins with - is another option, unless it is written as one word with this one; - alone is stdin.
  if (option.type === 'string' && (value === undefined || (!inlineValue && /^-./.test(value))))
    throw new HostdevError('HOSTDEV_USAGE', `--${name} needs a value: ${optionText(name, option)}`);
}

/** True for a global option that means something to a command. */
export const takes = (command: Command, name: GlobalOption): boolean =>
  GLOBALS[name].every === true || command.takes?.includes(name) === true;

function checkTaken(command: Command, name: GlobalOption, values: Values): void {
  const { changesWith: way } = command;
  const ofChange = name === 'dry-run' || name === 'allow';
  if (takes(command, name)) {
    if (ofChange && way !== undefined && values[way] !== true)
      throw new HostdevError('HOSTDEV_USAGE', `--${name} means nothing for '${command.name}' without --${way}`);
    return;
  }
  const why = command.isHook
    ? `is not taken by '${command.name}': 'hook test' shows what it would do`
    : ofChange && !command.changes
      ? `means nothing for '${command.name}', which changes nothing`
      : `is not taken by '${command.name}'`;
  throw new HostdevError('HOSTDEV_USAGE', `--${name} ${why}`);
}

/** Raises HOSTDEV_USAGE for words too few or too many, and where an option is missing that must be given. */
export function checkWhole(command: Command, { values, words }: { values: Values; words: string[] }): void {
  const least = command.args.filter((a) => !a.optional).length;
  const most = command.args.some((a) => a.many) ? Number.MAX_SAFE_INTEGER : command.args.length;
  const known = argumentsText(command);
  if (words.length < least) throw usageError(command, `needs ${known}`);
  if (words.length > most) throw usageError(command, `takes ${known || 'no words'}`);
  for (const [name, o] of Object.entries(command.own ?? {}))
    if (o.required && values[name] === undefined) throw usageError(command, `needs ${optionText(name, o)}`);
}

const usageError = (command: Command, what: string): HostdevError =>
  new HostdevError('HOSTDEV_USAGE', `'${command.name}' ${what}`, {
    hint: `Usage: ${usageOf(command)}; 'hostdev ${command.name} --help' says more.`,
  });

/** The error for words that name no command, with the one that may have been meant. */
export function unknownCommand(words: string[]): HostdevError {
  if (words.length === 0) return new HostdevError('HOSTDEV_USAGE', 'A command is missing');
  const near = nearestCommand(words);
  const below = commandsOf(words[0]).map((c) => c.name);
  const hint = near !== null ? `Did you mean '${near}'? ` : below.length > 0 ? `There are: ${below.join(', ')}. ` : '';
  const noun = words.length === 1 && below.length > 0;
  const what = noun ? `'${words[0]}' needs a command` : `There is no command ${quote(words.slice(0, 2).join(' '))}`;
  return new HostdevError('HOSTDEV_USAGE', what, {
    hint: `${hint}'hostdev ${below.length > 0 ? `${words[0]} ` : ''}--help' shows all.`,
  });
}

/** Word by word: "viomu sugest" is far from all commands, and each word near to one of theirs. Also "group-list". */
function nearestCommand([first = '', second = '']: string[]): string | null {
  const noun = nearestOrSame(first, new Set(COMMANDS.map((c) => c.name.split(' ')[0] ?? '')));
  if (noun === null) {
    return nearestWord(
      first,
      COMMANDS.map((c) => c.name),
    );
  }
  const verbs = commandsOf(noun).map((c) => c.name.slice(noun.length + 1));
  const verb = nearestOrSame(second, verbs);
  if (verb !== null) return `${noun} ${verb}`.trim();
  return noun === first ? null : noun;
}

function nearestOrSame(typed: string, known: Iterable<string>): string | null {
  const all = [...known];
  return all.includes(typed) ? typed : nearestWord(typed, all);
}
