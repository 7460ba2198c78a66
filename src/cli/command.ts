/**
 * What a command of the CLI is. The table in commands.ts declares each; parsing, help and the exit live in main.ts,
 * once for all.
 */

import type { ActionOptions } from '../actions/options.ts';
import type { HostdevError } from '../errors.ts';
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
  /** The URI of --connect; null: the libvirt of this machine, if there is one. */
  connect: string | null;
  /** Opened on first use: `--help` needs no host. */
  host: Host;
};

/**
 * What a command answers: the JSON document (without `schema`), the text for people, the exit code. Warnings go to
 * stderr, and into the JSON.
 */
export type Answer = {
  json: object;
  text: string;
  /** Said in place of an empty `text`: there is nothing. Not where something could not be read. */
  none?: string;
  exit?: number;
  warnings?: Warning[];
  /** Of a dry run: what would refuse the real one. */
  refused?: HostdevError | null;
};

/** A word after a command's name, as help shows it. */
export type Argument = { name: string; optional?: true; many?: true };

/** `value`: what a text option's is called in help. `multiple`: may be given several times, and is found in `lists`. */
export type Option = {
  type: 'string' | 'boolean';
  short?: string;
  value?: string;
  text: string;
  multiple?: true;
  required?: true;
};

export type GlobalOption =
  | 'root'
  | 'json'
  | 'dry-run'
  | 'allow'
  | 'config'
  | 'inventory'
  | 'connect'
  | 'help'
  | 'version';

export type Command = {
  /** "group list" */
  name: string;
  args: readonly Argument[];
  text: string;
  /** What else its own help says. */
  more?: string;
  own?: Record<string, Option>;
  /** The global options that not every command takes. */
  takes?: readonly GlobalOption[];
  /** Those without which it does nothing. */
  needs?: readonly GlobalOption[];
  /** What it changes: devices (needs the locks, as the table of the initramfs does), or only files. Ctrl-C undoes. */
  changes?: 'devices' | 'files';
  /** The own option without which it only looks, and takes neither --dry-run nor --allow. */
  changesWith?: string;
  /** What libvirt's hook calls: it takes stdout for the domain's XML, and reads the last line of stderr. */
  isHook?: true;
  load: () => Promise<(i: Invocation) => Promise<Answer> | Answer>;
};
