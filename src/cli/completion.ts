/**
 * `hostdev completion`: what a shell needs to complete words. One script a shell, and all of them ask `completion
 * words`: what may stand where the cursor is follows from the table of commands, and the devices, groups, domains and
 * aliases are those that are there now.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fullName, readNames, seenDevices } from '../actions/list.ts';
import { GUARDS, isAllowable } from '../binding/guards.ts';
import { readJournal } from '../binding/journal.ts';
import { HostdevError } from '../errors.ts';
import { Host } from '../host/host.ts';
import { readSetup } from '../nova/setup.ts';
import { safe } from '../text/safe.ts';
import type { Answer, Command, GlobalOption, Invocation, Option } from './command.ts';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;

/** A word that fits, and what it is. */
type Candidate = { word: string; text: string };

/** What the shell itself completes, beside the candidates. */
type Answerer = { candidates: Candidate[]; paths: 'files' | 'folders' | null };

/** Of what is completed: handed in, because this is one of the commands itself. */
export type Grammar = {
  commands: readonly Command[];
  globals: Record<GlobalOption, Option & { every?: true }>;
};

/**
 * `hostdev completion bash|zsh|fish`, or `words -- WORD…`: one candidate a line, a tab, what it is; `:files` or
 * `:folders` where the shell is to add its own.
 */
export async function completion(grammar: Grammar, { host, words: [what = '', ...line] }: Invocation): Promise<Answer> {
  if (what !== 'words') {
    if (!SHELLS.some((s) => s === what))
      throw new HostdevError('HOSTDEV_USAGE', `There is no completion for ${JSON.stringify(what)}`, {
        hint: `There are: ${SHELLS.join(', ')}.`,
      });
    const script = readFileSync(join(import.meta.dirname, `completion.${what}`), 'utf8');
    return { json: { script }, text: script };
  }
  const { candidates, paths } = await complete(grammar, line, host);
  // A name with a line break in it is completed by nobody.
  const whole = candidates.filter((c) => safe(c.word, Number.MAX_SAFE_INTEGER) === c.word);
  const lines = whole.map((c) => `${c.word}\t${safe(c.text)}\n`).join('');
  return { json: { candidates, paths }, text: `${lines}${paths === null ? '' : `:${paths}\n`}` };
}

/** The options that a command takes; before there is one, those that stand anywhere. */
function optionsOf({ globals }: Grammar, command: Command | null): Record<string, Option> {
  const names = (Object.keys(globals) as GlobalOption[]).filter(
    (name) => globals[name].every === true || command?.takes?.includes(name) === true,
  );
  return { ...Object.fromEntries(names.map((name) => [name, globals[name]])), ...command?.own };
}

/**
 * What fits in the place of the last word of a line (without "hostdev"). It never fails: what cannot be asked gives
 * nothing.
 */
export async function complete(grammar: Grammar, line: readonly string[], host: Host): Promise<Answerer> {
  const current = line.at(-1) ?? '';
  const { command, words, values, open } = understand(grammar, line.slice(0, -1));
  const live = new Live(values.get('root') ?? null, values.get('config') ?? null, host);
  const options = optionsOf(grammar, command);
  const [, given = '', value] = /^--([^=]+)=(.*)$/s.exec(current) ?? [];
  if (value !== undefined || open !== null) {
    const name = open ?? given;
    const { candidates, paths } = await live.valuesOf(name, options[name]);
    const prefix = open === null ? `--${name}=` : '';
    return {
      candidates: fitting(
        candidates.map((c) => ({ ...c, word: `${prefix}${c.word}` })),
        current,
      ),
      paths,
    };
  }
  if (current.startsWith('-') && !line.slice(0, -1).includes('--')) {
    const all = Object.entries(options).map(([name, o]) => ({ word: `--${name}`, text: o.text }));
    return { candidates: fitting(all, current), paths: null };
  }
  if (command === null) return { candidates: fitting(nextWords(grammar.commands, words), current), paths: null };
  const place = placeOf(command, words.length);
  const { candidates, paths } = place === null ? NOTHING : await live.of(place);
  const more = grammar.commands.some((c) => c.name.startsWith(`${command.name} `))
    ? nextWords(grammar.commands, [command.name])
    : [];
  return { candidates: fitting([...more, ...candidates.filter((c) => !words.includes(c.word))], current), paths };
}

const NOTHING: Answerer = { candidates: [], paths: null };

const fitting = (candidates: readonly Candidate[], current: string): Candidate[] =>
  candidates.filter((c) => c.word.startsWith(current));

/**
 * What the words before the current one are: a command, its words so far, options with their values, and an option that
 * waits for its value.
 */
function understand(
  grammar: Grammar,
  line: readonly string[],
): {
  command: Command | null;
  words: string[];
  values: Map<string, string>;
  open: string | null;
} {
  const values = new Map<string, string>();
  let command: Command | null = null;
  let words: string[] = [];
  let open: string | null = null;
  let ended = false;
  for (const word of line) {
    if (open !== null) {
      values.set(open, word);
      open = null;
      continue;
    }
    if (!ended && word.startsWith('-') && word !== '-') {
      ended = word === '--';
      const [, name = '', value] = /^--([^=]*)(?:=(.*))?$/s.exec(word) ?? [];
      if (value !== undefined) values.set(name, value);
      else if (optionsOf(grammar, command)[name]?.type === 'string') open = name;
      continue;
    }
    words.push(word);
    if (command !== null && !grammar.commands.some((c) => c.name === `${command?.name} ${word}`)) continue;
    const name: string = command === null ? words.join(' ') : `${command.name} ${word}`;
    const found = grammar.commands.find((c) => c.name === name);
    if (found === undefined) continue;
    command = found;
    words = [];
  }
  return { command, words, values, open };
}

/** The words that go on towards a command: nouns and verbs first, a noun's verbs after it. */
function nextWords(commands: readonly Command[], words: readonly string[]): Candidate[] {
  const depth = words.length;
  const found = new Map<string, string>();
  for (const { name, text } of commands) {
    const parts = name.split(' ');
    const next = parts[depth];
    if (next === undefined || words.some((w, i) => parts[i] !== w)) continue;
    const more = parts.length > depth + 1;
    if (!found.has(next)) found.set(next, more ? verbsOf(commands, [...words, next]) : text);
  }
  return [...found].map(([word, text]) => ({ word, text }));
}

const verbsOf = (commands: readonly Command[], words: readonly string[]): string =>
  commands
    .filter((c) => c.name.startsWith(`${words.join(' ')} `))
    .map((c) => c.name.split(' ')[words.length])
    .join(', ');

/**
 * The kind of word that stands at a place; the last of them again where there may be many; null where there is none.
 */
function placeOf({ args }: Command, index: number): string | null {
  const last = args.at(-1);
  return (args[index] ?? (last?.many ? last : undefined))?.name ?? null;
}

/** What is there now, asked for when a place needs it. */
class Live {
  readonly #root: string | null;
  readonly #config: string | null;
  readonly #host: Host;

  constructor(root: string | null, config: string | null, host: Host) {
    this.#root = root;
    this.#config = config;
    this.#host = host;
  }

  /** The value of an option, by its place in the help: "DEV", "yes|no", "on|off|none|FILE". */
  async valuesOf(name: string, option: Option | undefined): Promise<Answerer> {
    if (name === 'alias') return this.of('REQUEST');
    if (name === 'root') return { candidates: [], paths: 'folders' };
    return option?.value === undefined ? NOTHING : this.of(option.value.replace('…', ''));
  }

  /** A place may be several kinds of word, with `|` between them; those in lower case are themselves. */
  async of(place: string): Promise<Answerer> {
    const answers = await Promise.all(place.split('|').map((kind) => this.#kind(kind)));
    return {
      candidates: answers.flatMap((a) => a.candidates),
      paths: answers.find((a) => a.paths !== null)?.paths ?? null,
    };
  }

  async #kind(kind: string): Promise<Answerer> {
    if (/^[a-z][a-z0-9-]*$/.test(kind)) return { candidates: [{ word: kind, text: '' }], paths: null };
    try {
      const candidates = await this.#candidates(kind);
      return { candidates, paths: kind === 'FILE' || kind === 'DIR' ? 'files' : null };
    } catch {
      // Whoever then runs the command is told.
      return NOTHING;
    }
  }

  async #candidates(kind: string): Promise<Candidate[]> {
    const host = this.#root === null ? this.#host : new Host(this.#root, this.#host.native);
    if (kind === 'DEV' || kind === 'PF') return devices(host, kind === 'PF');
    if (kind === 'N') return groups(host);
    if (kind === 'FILE' || kind === 'NAME') return domains(host, kind === 'NAME');
    if (kind === 'ID') return readJournal(host).entries.map((e) => ({ word: e.id, text: `${e.kind} for ${e.owner}` }));
    if (kind === 'GUARD')
      return Object.entries(GUARDS).flatMap(([word, g]) => (isAllowable(word) ? [{ word, text: g.text }] : []));
    if (kind === 'REQUEST') {
      const config = this.#config === null ? [] : [this.#config];
      const { aliases } = await readSetup(host, { config, inventory: null, traitBlanks: null });
      return [...aliases.keys()].map((name) => ({ word: `${name}:1`, text: 'alias' }));
    }
    return [];
  }
}

async function devices(host: Host, onlyPfs: boolean): Promise<Candidate[]> {
  const names = readNames(host);
  const all = (await seenDevices(host)).devices.filter((d) => !onlyPfs || d.dev_type === 'type-PF');
  return all.map((d) => ({
    word: d.address,
    text: `${d.driver ?? 'no driver'}: ${fullName(names, d) ?? `${d.vendor_id}:${d.product_id}`}`,
  }));
}

async function groups(host: Host): Promise<Candidate[]> {
  const of = new Map<number, string[]>();
  for (const { iommu_group: group, address } of (await seenDevices(host)).devices)
    if (group !== null) of.set(group, [...(of.get(group) ?? []), address]);
  return [...of].sort(([a], [b]) => a - b).map(([group, all]) => ({ word: `${group}`, text: all.join(' ') }));
}

/** Domains by name, or the file of each that libvirt keeps. */
function domains(host: Host, names: boolean): Candidate[] {
  const files = (host.list(host.definitions) ?? []).filter((n) => n.endsWith('.xml'));
  return files.map((n) =>
    names
      ? { word: n.slice(0, -4), text: 'domain' }
      : { word: host.absolute(`${host.definitions}/${n}`), text: `domain ${n.slice(0, -4)}` },
  );
}
