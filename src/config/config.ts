/** What a configuration says, whatever file it came from. */
import { hostname } from 'node:os';
import type { AllowableGuard } from './allowable.ts';
import { HOOK_DEFAULTS, type HookSettings } from './hookDefaults.ts';
import type { Finding, Place, Table } from './place.ts';
import type { TRAIT_BLANKS } from './schema.ts';

/** One device_spec or alias as it was written: its own meaning is src/nova/grammar's. */
export type Entry = {
  place: Place;
  table: Table;
  /** Keys of it that were found wrong already. */
  bad: ReadonlySet<string>;
  /** Not even a table: it only keeps its number, which Nova's own messages count by. */
  unreadable: boolean;
};

export type PciSettings = {
  report_in_placement: boolean;
  pci_in_placement: boolean;
  trait_blanks: (typeof TRAIT_BLANKS)[number];
  starlingx_default_aliases: boolean;
  hypervisor_hostname: string;
};

/** `device` is a canonical address; `domain` a name, a UUID in lower case, or `*`. */
export type Allowance = { device: string; guard: AllowableGuard; domain: string; place: Place };

export type Config = {
  /** The files that were read, in order. */
  files: string[];
  /** Whose grammar: our own, Nova's, of each some files, or that there is no file at all. */
  form: 'hostdev' | 'nova' | 'both' | 'none';
  specs: Entry[];
  aliases: Entry[];
  pci: PciSettings;
  hook: HookSettings;
  allow: Allowance[];
  /** Wishes as they are written: what they mean is src/boot/wishes.ts'. */
  devices: Entry[];
  pfs: Entry[];
  findings: Finding[];
};

/** A configuration that says nothing. */
export const emptyConfig = (form: Config['form']): Config => ({
  files: [],
  form,
  specs: [],
  aliases: [],
  pci: {
    report_in_placement: false,
    pci_in_placement: false,
    trait_blanks: 'trim',
    starlingx_default_aliases: false,
    hypervisor_hostname: hostname(),
  },
  hook: { ...HOOK_DEFAULTS },
  allow: [],
  devices: [],
  pfs: [],
  findings: [],
});
