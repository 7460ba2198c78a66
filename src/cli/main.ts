/**
 * The door: words in, one answer out. Commands exit nowhere: how errors look (contracts 4 to 6) and the exit code are
 * decided here alone.
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { loadNative } from '../addon/load.ts';
import type { Guard } from '../binding/guards.ts';
import { now } from '../clock.ts';
import { asError, asLastError, ERRORS, EXIT, HostdevError } from '../errors.ts';
import { Host } from '../host/host.ts';
import { quote, safeBlock, safeJson } from '../text/safe.ts';
import { warning } from '../text/warning.ts';
import type { Answer, Command, Invocation } from './command.ts';
import { err, out } from './output.ts';
import { checkWhole, commandsOf, findCommand, type Named, parse, unknownCommand, type Values } from './parse.ts';

/** Time for an admin's bind or unbind, waits for other hostdevs included. */
const COMMAND_MS = 30_000;

async function main(argv: string[]): Promise<number> {
  // libvirt takes what the hook prints for the domain's XML: not even an error may be there.
  const named = findCommand(argv);
  const json = wantsJson(argv) && !named.command?.isHook;
  try {
    const answer = await run(argv, named);
    for (const w of answer.warnings ?? []) err(`hostdev: ${safeBlock(w.text)}\n`);
    if (json) print({ schema: 1, ...answer.json, ...(answer.warnings?.length ? { warnings: answer.warnings } : {}) });
    else out(answer.text || (answer.none ?? ''));
    return answer.exit ?? EXIT.done;
  } catch (e) {
    return report(e, named.command, json);
  }
}

const print = (document: object): void => out(`${safeJson(document)}\n`);

/** Errors too are one JSON document on stdout; people read stderr. */
function report(e: unknown, command: Command | null, json: boolean): number {
  const fault = asLastError(e);
  const { code, message, data } = fault;
  const isGeneral = code === 'HOSTDEV_USAGE' && fault.isGeneralHint && command !== null;
  const hint = isGeneral ? `Run 'hostdev ${command.name} --help'.` : fault.hint;
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

async function run(argv: string[], named: Named): Promise<Answer> {
  const { command } = named;
  if (command === null) return withoutCommand(argv, named);
  const given = parse(argv, command);
  const { values, words } = given;
  if (values.help) return help([command]);
  const allowed = await guards(values.allow);
  checkWhole(command, given);
  const host = new Host(rootFolder(values.root), loadNative());
  const own = command.own ?? {};
  // libvirt takes no text for "choose one", and would go by its environment and the sockets of this machine.
  if (values.connect === '') throw new HostdevError('HOSTDEV_USAGE', '--connect: a URI is expected, as qemu:///system');
  const changes =
    command.changesWith === undefined || values[command.changesWith] === true ? command.changes : undefined;
  const refused = changes === 'devices' ? (await import('../binding/session.ts')).refusal(host) : null;
  const dryRun = values['dry-run'] === true;
  const options = {
    deadlineMs: COMMAND_MS,
    verb: command.name,
    dryRun: dryRun || refused !== null,
    allowed,
    ...(command.changes || command.isHook ? { signal: interruptible() } : {}),
    ...(command.changes ? { onStep: progress() } : {}),
  };
  const one = Object.keys(own).filter((k) => !own[k]?.multiple);
  const many = Object.keys(own).filter((k) => own[k]?.multiple);
  const invocation: Invocation = {
    words,
    own: Object.fromEntries(one.map((k) => [k, values[k] as string | boolean | undefined])),
    lists: Object.fromEntries(many.map((k) => [k, (values[k] ?? []) as string[]])),
    json: values.json === true,
    options,
    // `attach --config` is another: the half of a guest.
    config: Array.isArray(values.config) ? (values.config as string[]) : [],
    inventory: (values.inventory as string | undefined) ?? null,
    connect: (values.connect as string | undefined) ?? null,
    host,
  };
  const act = async (): Promise<Answer> => (await command.load())(invocation);
  if (changes === undefined) {
    const answer = await act();
    return host.unread.length > 0 && !command.isHook ? notWhole(answer) : answer;
  }
  return asPermitted(refused, dryRun, act);
}

/** Help, or the version, or what is wrong with the words. */
async function withoutCommand(argv: string[], { words, values }: Named): Promise<Answer> {
  if (words.length === 0) parse(argv, null);
  if (values.version && words.length === 0)
    return { json: { version: await version() }, text: `hostdev ${await version()}\n` };
  const noun = words.length === 1 ? commandsOf(words[0]) : [];
  if (values.help && (words.length === 0 || noun.length > 0)) return help(noun);
  if (argv.length === 0) return { ...(await help([])), exit: EXIT.usage };
  throw unknownCommand(words);
}

/**
 * What could not be read is in the warnings already; a program that reads only the list must not take it for all there
 * is.
 */
const notWhole = (answer: Answer): Answer => ({ ...answer, none: '', exit: answer.exit || EXIT.failed });

/** What counts before a missing permission (contract 5). */
const BEFORE: readonly number[] = [EXIT.usage, EXIT.absent, EXIT.internal, EXIT.interrupted];

/**
 * Of a command that changes something. Who may not (`refused`) gets the plan of a dry run, or the refusal; both are
 * found on the same way, so that a dry run has the exit code of the real one.
 */
async function asPermitted(refused: HostdevError | null, dryRun: boolean, act: () => Promise<Answer>): Promise<Answer> {
  let answer: Answer;
  try {
    answer = await act();
  } catch (e) {
    const { exit, data } = asLastError(e);
    if (refused === null || BEFORE.includes(exit)) throw e;
    throw new HostdevError(refused.code, refused.message, { hint: refused.hint, data });
  }
  if (refused !== null && !dryRun) throw refused;
  const why = refused ?? answer.refused ?? null;
  if (why === null) return answer;
  const warnings = [...(answer.warnings ?? []), warning('dry-run', `the real run would refuse: ${why.message}`)];
  return { ...answer, exit: why.exit, warnings };
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

async function guards(words: Values[string]): Promise<ReadonlySet<Guard>> {
  const set = new Set<Guard>();
  if (words === undefined) return set;
  const { GUARDS, isAllowable, isGuard } = await import('../binding/guards.ts');
  for (const word of [words].flat()) {
    if (typeof word !== 'string' || !isGuard(word)) {
      throw new HostdevError('HOSTDEV_USAGE', `--allow=${quote(word)}: there is no such guard`, {
        hint: `There are: ${Object.keys(GUARDS).filter(isAllowable).join(', ')}.`,
      });
    }
    if (!isAllowable(word))
      throw new HostdevError('HOSTDEV_USAGE', `--allow=${word}: this guard cannot be lifted (${GUARDS[word].text})`);
    set.add(word);
  }
  return set;
}

/**
 * Ctrl-C and SIGTERM stop a transaction before its next write, and it undoes; a second one changes nothing about that.
 */
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

/** Of one command, of a noun's, or of all (none named). */
async function help(commands: readonly Command[]): Promise<Answer> {
  const { helpText } = await import('./help.ts');
  const text = helpText(commands);
  return { json: { help: text }, text };
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
