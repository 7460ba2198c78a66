/**
 * The door: words in, one answer out. Commands parse nothing and exit nowhere; what is global (contract 3), how errors look (contracts 4 to 6) and the exit code are
 * decided here alone. node:util's parseArgs instead of a CLI library: loading one costs more than a whole `list` (docs/decisions/0006-cli.md).
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { loadNative } from '../addon/load.ts';
import type { Guard } from '../binding/guards.ts';
import { now } from '../clock.ts';
import { asError, asLastError, ERRORS, EXIT, HostdevError } from '../errors.ts';
import { Host } from '../host/host.ts';
import { quote, safeBlock, safeJson } from '../text/safe.ts';
import { warning } from '../text/warning.ts';
import type { Answer, Command } from './command.ts';
import { COMMANDS } from './commands.ts';
import { err, out } from './output.ts';

const GLOBALS = {
  root: { type: 'string' },
  json: { type: 'boolean', short: 'j' },
  'dry-run': { type: 'boolean', short: 'n' },
  allow: { type: 'string', multiple: true },
  config: { type: 'string', multiple: true },
  inventory: { type: 'string' },
  connect: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
} as const;

/** Time for an admin's bind or unbind, waits for other hostdevs included. */
const COMMAND_MS = 30_000;

async function main(argv: string[]): Promise<number> {
  // libvirt takes what the hook prints for the domain's XML: not even an error may be there.
  const named = findCommand(argv);
  const json = wantsJson(argv) && named.command?.name !== 'hook run';
  try {
    const answer = await run(argv, named);
    for (const w of answer.warnings ?? []) err(`hostdev: ${safeBlock(w.text)}\n`);
    if (json) print({ schema: 1, ...answer.json, ...(answer.warnings?.length ? { warnings: answer.warnings } : {}) });
    else out(answer.text);
    return answer.exit ?? EXIT.done;
  } catch (e) {
    return report(e, json);
  }
}

const print = (document: object): void => out(`${safeJson(document)}\n`);

/** Errors too are one JSON document on stdout; people read stderr. */
function report(e: unknown, json: boolean): number {
  const { code, message, hint, data } = asLastError(e);
  err(`hostdev: ${safeBlock(message)}\n${hint ? `To go on: ${safeBlock(hint)}\n` : ''}`);
  if (code === 'HOSTDEV_INTERNAL' && e instanceof Error) err(`${e.stack}\n`);
  if (json) print({ schema: 1, error: { code, message, hint }, ...data });
  return ERRORS[code].exit;
}

/** Known before the words are understood, so that even their error is JSON. */
function wantsJson(argv: string[]): boolean {
  const end = argv.indexOf('--');
  return (end < 0 ? argv : argv.slice(0, end)).some((a) => a === '--json' || /^-[nh]*j[njh]*$/.test(a));
}

type Named = { command: Command | null; words: string[] };

/** The leading words, global options among them skipped, that name a command. */
function findCommand(argv: string[]): Named {
  const { positionals } = parseArgs({ args: argv, options: GLOBALS, allowPositionals: true, strict: false });
  const [first = '', second = ''] = positionals;
  const command =
    COMMANDS.find((c) => c.name === `${first} ${second}`) ?? COMMANDS.find((c) => c.name === first) ?? null;
  return { command, words: positionals };
}

async function run(argv: string[], { command, words }: Named): Promise<Answer> {
  if (command === null) {
    const global = parse(argv, null);
    if (global.values.version) return { json: { version: await version() }, text: `hostdev ${await version()}\n` };
    const isNoun = words.length === 0 || COMMANDS.some((c) => c.name === words[0] || c.name.startsWith(`${words[0]} `));
    if (global.values.help && isNoun) return help(null);
    if (argv.length === 0) return { ...(await help(null)), exit: EXIT.usage };
    throw unknownCommand(words);
  }
  const { values, positionals } = parse(argv, command);
  if (values.help) return help(command);
  const own = positionals.slice(command.name.split(' ').length);
  const allowed = await guards(values.allow);
  checkWords(command, own);
  const host = new Host(rootFolder(values.root), loadNative());
  const interrupt = command.changes || command.name === 'hook run' ? interruptible() : null;
  const options = {
    deadlineMs: COMMAND_MS,
    verb: command.name,
    dryRun: values['dry-run'] === true,
    allowed,
    ...(interrupt ? { signal: interrupt } : {}),
    ...(command.changes ? { onStep: progress() } : {}),
  };
  const named = Object.entries(command.own ?? {});
  const ownValues = Object.fromEntries(
    named.filter(([, o]) => !o.multiple).map(([k]) => [k, values[k] as string | boolean | undefined]),
  );
  const lists = Object.fromEntries(
    named.filter(([, o]) => o.multiple).map(([k]) => [k, (values[k] ?? []) as string[]]),
  );
  const answer = await (await command.load())({
    words: own,
    own: ownValues,
    lists,
    json: values.json === true,
    options,
    config: (values.config as string[] | undefined) ?? [],
    inventory: (values.inventory as string | undefined) ?? null,
    host,
  });
  const looks = command.changesWith !== undefined && ownValues[command.changesWith] !== true;
  if (command.changes && !looks) return options.dryRun ? dryRunAnswer(command, answer, host) : answer;
  return host.unread.length > 0 && command.name !== 'hook run' ? notWhole(answer) : answer;
}

/** What could not be read is in the warnings already; a program that reads only the list must not take it for all there is. */
const notWhole = (answer: Answer): Answer => ({ ...answer, exit: answer.exit || EXIT.failed });

/** A dry run shows the plan to anybody, but its exit code is the real run's, which needs the addon, on the machine itself root, and a state that is ours. */
async function dryRunAnswer(command: Command, answer: Answer, host: Host): Promise<Answer> {
  if (host.native.kind === 'fs') {
    return {
      ...answer,
      exit: EXIT.failed,
      warnings: [...(answer.warnings ?? []), warning('dry-run', `the real run would refuse: ${host.native.missing}`)],
    };
  }
  if (host.isReal && process.geteuid?.() !== 0)
    return {
      ...answer,
      exit: EXIT.notPermitted,
      warnings: [...(answer.warnings ?? []), warning('dry-run', 'the real run needs root')],
    };
  if (command.name.startsWith('hook ')) return answer;
  const why = (await import('../binding/session.ts')).refusal(host);
  if (why === null) return answer;
  return {
    ...answer,
    exit: why.exit,
    warnings: [...(answer.warnings ?? []), warning('dry-run', `the real run would refuse: ${why.message}`)],
  };
}

/** Looked at here, because below a root that is not there everything would merely be absent. */
function rootFolder(value: Values[string]): string {
  const root = typeof value === 'string' ? value : '/';
  try {
    if (statSync(root).isDirectory()) return root;
  } catch (e) {
    throw asError(`--root ${root}`, e, 'HOSTDEV_FILE_ABSENT');
  }
  throw new HostdevError('HOSTDEV_FILE_ABSENT', `--root ${root}: ENOTDIR: not a folder`);
}

type Values = Record<string, string | boolean | (string | boolean)[] | undefined>;

function parse(argv: string[], command: Command | null): { values: Values; positionals: string[] } {
  const own = Object.fromEntries(
    Object.entries(command?.own ?? {}).map(([k, o]) => [k, { type: o.type, multiple: o.multiple === true }]),
  );
  try {
    const { values, positionals } = parseArgs({
      args: argv,
      options: { ...GLOBALS, ...own },
      allowPositionals: true,
      strict: true,
    });
    for (const some of ['config', 'inventory', 'connect'] as const) {
      if (values[some] !== undefined && !command?.takes?.includes(some))
        throw new HostdevError('HOSTDEV_USAGE', `--${some} is not taken by ${command?.name ?? 'this command'}`);
    }
    for (const [word, name] of [
      ['dry-run', '--dry-run'],
      ['allow', '--allow'],
    ] as const) {
      if (values[word] === undefined || command === null || command.changes || command.name === 'hook test') continue;
      if (word === 'dry-run' && command.dryRun) continue;
      throw new HostdevError(
        'HOSTDEV_USAGE',
        command.name === 'hook run'
          ? `${name} is not taken by 'hook run': 'hook test' shows what it would do`
          : `${name} means nothing for '${command.name}', which changes nothing`,
      );
    }
    return { values, positionals };
  } catch (e) {
    if (e instanceof HostdevError) throw e;
    const hint = `Run 'hostdev ${command === null ? '' : `${command.name} `}--help'.`;
    throw new HostdevError('HOSTDEV_USAGE', (e as Error).message.split('. ')[0] ?? '', { hint, cause: e });
  }
}

function checkWords(command: Command, words: string[]): void {
  const [least, most] = command.words;
  if (words.length >= least && words.length <= most) return;
  const usage = `hostdev ${command.name} ${command.args}`.trim();
  throw new HostdevError(
    'HOSTDEV_USAGE',
    words.length < least
      ? `'${command.name}' needs ${command.args}`
      : `'${command.name}' takes ${command.args || 'no words'}`,
    { hint: `Usage: ${usage}` },
  );
}

function unknownCommand(words: string[]): HostdevError {
  if (words.length === 0) return new HostdevError('HOSTDEV_USAGE', 'A command is missing');
  const typed = words.slice(0, 2).join(' ');
  const below = COMMANDS.map((c) => c.name).filter((n) => n.startsWith(`${words[0]} `));
  const near = nearestCommand(typed);
  const hint = below.length > 0 ? `There are: ${below.join(', ')}.` : near && `Did you mean '${near}'?`;
  return new HostdevError(
    'HOSTDEV_USAGE',
    `There is no command ${quote(typed)}`,
    hint ? { hint: `${hint} 'hostdev --help' shows all.` } : {},
  );
}

/** The command from which what was typed differs by one letter too many, missing or wrong, or by two that changed places. */
function nearestCommand(typed: string): string | undefined {
  const near = (a: string, b: string): boolean => {
    let same = 0;
    while (same < a.length && a[same] === b[same]) same += 1;
    const [x, y] = [a.slice(same), b.slice(same)];
    const swapped = x[0] === y[1] && x[1] === y[0] && x.slice(2) === y.slice(2);
    return x.slice(1) === y || x === y.slice(1) || x.slice(1) === y.slice(1) || swapped;
  };
  const [first = ''] = typed.split(' ');
  return COMMANDS.find(({ name }) => [typed, first.replace('-', ' '), first].some((t) => near(t, name)))?.name;
}

async function guards(words: Values[string]): Promise<ReadonlySet<Guard>> {
  const set = new Set<Guard>();
  if (words === undefined) return set;
  const { GUARDS, isGuard } = await import('../binding/guards.ts');
  for (const word of [words].flat()) {
    if (typeof word !== 'string' || !isGuard(word)) {
      throw new HostdevError('HOSTDEV_USAGE', `--allow=${quote(word)}: there is no such guard`, {
        hint: `There are: ${Object.entries(GUARDS)
          .flatMap(([name, g]) => (g.allowable ? name : []))
          .join(', ')}.`,
      });
    }
    if (!GUARDS[word].allowable)
      throw new HostdevError('HOSTDEV_USAGE', `--allow=${word}: this guard cannot be lifted (${GUARDS[word].text})`);
    set.add(word);
  }
  return set;
}

/** Ctrl-C and SIGTERM stop a transaction before its next write, and it undoes; a second one changes nothing about that. */
function interruptible(): { aborted: boolean } {
  const stop = { aborted: false };
  for (const s of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(s, () => {
      stop.aborted = true;
    });
  return stop;
}

/** After a second of work, a line for each step on a terminal. */
function progress(): (step: { kind: string; address: string }) => void {
  const from = now();
  return (step) => {
    if (now() - from > 1000 && process.stderr.isTTY) err(`hostdev: ${step.address}: ${step.kind} done\n`);
  };
}

async function help(command: Command | null): Promise<Answer> {
  const { helpText } = await import('./help.ts');
  return { json: { help: helpText(command) }, text: helpText(command) };
}

async function version(): Promise<string> {
  const { readFileSync } = await import('node:fs');
  for (const up of ['../package.json', '../../package.json']) {
    try {
      const { name, version: v } = JSON.parse(readFileSync(join(import.meta.dirname, up), 'utf8')) as {
        name: string;
        version: string;
      };
      if (name === 'hostdev') return v;
    } catch {
      // The next one up.
    }
  }
  return 'unknown';
}

/** Runs what the command line says and sets the exit code; main raises nothing. */
export function start(): void {
  main(process.argv.slice(2)).then((exit) => {
    process.exitCode = exit || process.exitCode;
  });
}
