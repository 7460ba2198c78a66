/** What a command of the CLI is. The table in commands.ts declares each; parsing, help and the exit live in main.ts, once for all. */

import type { ActionOptions } from '../actions/options.ts';
import type { Host } from '../host/host.ts';
import type { Warning } from '../text/warning.ts';

/** What a command is run with: the words after its name, its own options, and the global ones. */
export type Invocation = {
  words: string[];
  /** Own options: a text, or true for a flag; absent when not given. */
  own: Record<string, string | boolean | undefined>;
  /** Own options that may be given several times. */
  lists: Record<string, string[]>;
  json: boolean;
  options: ActionOptions;
  /** The files and folders of --config, in order; none: etc/hostdev. */
  config: string[];
  /** The file of --inventory (- is stdin); null: the devices of this host. */
  inventory: string | null;
  /** Opened on first use: `--help` needs no host. */
  host: Host;
};

/** What a command answers: the JSON document (without `schema`), the text for people, the exit code. Warnings go to stderr, and into the JSON. */
export type Answer = { json: object; text: string; exit?: number; warnings?: Warning[] };

/** `multiple`: may be given several times, and is found in `lists`. */
type OwnOption = { type: 'string' | 'boolean'; value?: string; text: string; multiple?: true };

export type Command = {
  /** "group list" */
  name: string;
  /** "DEV…" as shown in help; how many words: least, most. */
  args: string;
  words: [number, number];
  text: string;
  own?: Record<string, OwnOption>;
  /** True for what changes something: it takes --dry-run and --allow, and Ctrl-C undoes. */
  changes?: boolean;
  /** The own option without which it only looks. */
  changesWith?: string;
  /** True for what changes nothing yet but can be asked what it would. */
  dryRun?: boolean;
  /** The global options beside -j and --root that it takes. */
  takes?: readonly ('config' | 'inventory' | 'connect')[];
  /** The hook: libvirt reads its last line, and its deadline and signals are its own. */
  load: () => Promise<(i: Invocation) => Promise<Answer> | Answer>;
};
