/**
 * The configuration and the devices that the commands over pools work on: read, parsed, every mistake with its place.
 */
import type { Config, Entry, PciSettings } from '../config/config.ts';
import { loadConfig } from '../config/load.ts';
import { type Finding, fatal, type Place, placeText, plainValue, remark, sortFindings } from '../config/place.ts';
import { keysOf } from '../config/schema.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type PciFacts, pciFacts } from '../pci/facts.ts';
import { type Inventory, scanInventory } from '../pci/inventory.ts';
import { readSavedInventory } from '../pci/savedInventory.ts';
import type { JsonObject } from '../text/json.ts';
import { nearestWord } from '../text/nearestWord.ts';
import { quote } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import { type Aliases, parseAliases } from './grammar/alias.ts';
import { type DeviceSpec, duplicateSpecs, parseDeviceSpec, type SpecContext } from './grammar/deviceSpec.ts';
import { type Note, NovaError } from './grammar/novaError.ts';
import { starlingxAliases } from './grammar/starlingx.ts';

/** The bytes of `--inventory`, and the name of the file for messages. */
type SavedInventory = { bytes: Uint8Array; file: string; maxBytes: number };

/** `traitBlanks` goes before the configured one. */
export type SetupOptions = {
  config: readonly string[];
  inventory: SavedInventory | null;
  traitBlanks?: PciSettings['trait_blanks'] | null;
};

/** A spec or alias that could be read, and where it stands. */
type Placed<T> = { value: T; place: Place };

export type PciSetup = {
  config: Config;
  inventory: Inventory;
  facts: PciFacts;
  specs: Placed<DeviceSpec>[];
  aliases: Aliases;
  /** Where each alias stands, in order; those of StarlingX stand nowhere. */
  aliasPlaces: { name: string; place: Place }[];
  /** Those of the files and those of the values in them, in order of place. */
  findings: Finding[];
};

/**
 * Reads all of it; nothing is refused yet but files that cannot be read (see loadConfig) and a wrong inventory
 * (HOSTDEV_INVENTORY).
 */
export async function readSetup(host: Host, options: SetupOptions): Promise<PciSetup> {
  const config = await loadConfig(host, options.config);
  config.pci.trait_blanks = options.traitBlanks ?? config.pci.trait_blanks;
  const saved = options.inventory;
  const inventory = saved === null ? scanInventory(host) : readSavedInventory(saved.bytes, saved.file, saved.maxBytes);
  const facts = pciFacts(inventory, saved === null ? host : null);
  const findings = [...config.findings];
  const specs = readSpecs(config, facts, findings);
  const { aliases, aliasPlaces } = readAliases(config, findings);
  sortFindings(findings, config.files);
  return { config, inventory, facts, specs, aliases, aliasPlaces, findings };
}

/** How many remarks about the configuration a command over pools repeats. */
const MAX_TOLD = 8;

/**
 * The setup for a command that uses it: raises HOSTDEV_CONFIG at the first mistake with which Nova would not start; the
 * others are warnings.
 */
export async function usableSetup(host: Host, options: SetupOptions): Promise<PciSetup & { warnings: Warning[] }> {
  const setup = await readSetup(host, options);
  const wrong = setup.findings.filter((f) => f.fatal);
  const [first] = wrong;
  if (first !== undefined) {
    const more = wrong.length > 1 ? ` (and ${wrong.length - 1} more)` : '';
    const hint = [
      first.corrected && `Write: ${first.corrected}`,
      first.hint,
      wrong.length > 1 && "'hostdev config check' tells all.",
    ];
    throw new HostdevError('HOSTDEV_CONFIG', `${placeText(first)} ${first.message}${more}`, {
      ...(hint.some(Boolean) ? { hint: hint.filter(Boolean).join(' ') } : {}),
      data: { mistakes: wrong },
    });
  }
  const told = setup.findings.slice(0, MAX_TOLD);
  const warnings = told.map((f) =>
    warning('config', `${placeText(f)} ${f.message}${f.hint === null ? '' : `. ${f.hint}`}`),
  );
  const untold = setup.findings.length - told.length;
  if (untold > 0) warnings.push(warning('config', `and ${untold} more: 'hostdev config check' tells all`));
  if (setup.specs.length === 0) {
    const where =
      setup.config.files.length === 0
        ? `there is no ${host.absolute(host.config)}/hostdev.toml`
        : 'it has no device_spec';
    warnings.unshift(warning('nothing-offered', `nothing may be given out: ${where}`));
  }
  return { ...setup, warnings: [...setup.inventory.warnings, ...warnings] };
}

/** Where a key of an entry stands: its value, or the entry where the key is not there. */
function placeOfKey(entry: Entry, key: string | null): Place {
  const member = key === null ? undefined : entry.table.members.get(key);
  if (key === null || member === undefined) return entry.place;
  return { ...entry.place, line: member.value.line, column: member.value.column, key: `${entry.place.key}.${key}` };
}

function ofError(entry: Entry, kind: 'device_spec' | 'alias', e: NovaError): Finding {
  const value = e.key === null ? undefined : entry.table.members.get(e.key)?.value;
  const words = e.key === null ? undefined : keysOf(kind)[e.key]?.values;
  const isText = value?.kind === 'scalar' && typeof value.value === 'string';
  const meant = isText && words !== undefined ? nearestWord(value.value as string, words) : null;
  const asked =
    kind === 'alias' && e.key === 'vendor_id' && value === undefined && entry.table.members.has('resource_class');
  const hint =
    meant !== null
      ? `Did you mean ${meant}?`
      : asked
        ? 'To ask by resource_class alone, set pci_in_placement = true ([filter_scheduler] in nova.conf, [pci] in hostdev.toml).'
        : e.hint;
  return fatal(placeOfKey(entry, e.key), e.message, { hint });
}

/** Slips in keys are told by config/, with their places and in one way for both grammars. */
function ofNotes(entry: Entry, kind: 'device_spec' | 'alias', notes: readonly Note[]): Finding[] {
  return notes
    .filter((n) => n.key === null || Object.hasOwn(keysOf(kind), n.key) || !entry.table.members.has(n.key))
    .map((n) =>
      remark(placeOfKey(entry, n.key), n.text, {
        hint: n.suggestion === null ? null : `Did you mean ${n.suggestion}?`,
      }),
    );
}

/** All mistakes of one entry: each key that is wrong is taken out, and the rest is read again. */
function readEntry<T>(
  entry: Entry,
  kind: 'device_spec' | 'alias',
  findings: Finding[],
  parse: (value: JsonObject) => T,
): T | null {
  const value = plainValue(entry.table) as JsonObject;
  for (const key of entry.bad) delete value[key];
  for (let wrong = entry.bad.size > 0; ; wrong = true) {
    try {
      const result = parse(value);
      return wrong ? null : result;
    } catch (e) {
      if (!(e instanceof NovaError)) throw e;
      const { key } = e;
      // That a key is missing which was taken out is our own doing.
      if (key === null || Object.hasOwn(value, key) || !entry.table.members.has(key))
        findings.push(ofError(entry, kind, e));
      if (key === null || !Object.hasOwn(value, key)) return null;
      delete value[key];
    }
  }
}

function readSpecs(config: Config, facts: PciFacts, findings: Finding[]): Placed<DeviceSpec>[] {
  const context: SpecContext = { facts, reportInPlacement: config.pci.report_in_placement };
  const specs: Placed<DeviceSpec>[] = [];
  const entries: Entry[] = [];
  for (const entry of config.specs.filter((e) => !e.unreadable)) {
    const read = readEntry(entry, 'device_spec', findings, (value) => parseDeviceSpec(value, context));
    if (read === null) continue;
    findings.push(...ofNotes(entry, 'device_spec', read.notes));
    findings.push(...tagRemarks(entry, config.pci.trait_blanks === 'nova'));
    for (const value of read.specs) {
      specs.push({ value, place: entry.place });
      entries.push(entry);
    }
    if (config.pci.report_in_placement && entry.table.members.has('devname'))
      findings.push(
        fatal(placeOfKey(entry, 'devname'), 'names an interface, which report_in_placement does not allow', {
          hint: "Write the address: 'hostdev show INTERFACE' tells it.",
        }),
      );
  }
  for (const { index, first } of duplicateSpecs(specs.map((s) => s.value))) {
    const [entry, before] = [entries[index], specs[first]?.place];
    if (entry === undefined || before === undefined) continue;
    findings.push(
      remark(
        entry.place,
        `matches the same as ${before.key} (${before.file}:${before.line}), which goes first: this one is never reached`,
        {
          hint: 'Remove one of them.',
        },
      ),
    );
  }
  return specs;
}

/** Values that Nova takes and that do not do what they look like. */
function tagRemarks(entry: Entry, asNova: boolean): Finding[] {
  const findings: Finding[] = [];
  const text = (key: string): string | null => {
    const value = entry.table.members.get(key)?.value;
    return value?.kind === 'scalar' && typeof value.value === 'string' ? value.value : null;
  };
  const trusted = entry.table.members.get('trusted')?.value;
  if (trusted?.kind === 'scalar' && typeof trusted.value === 'boolean')
    findings.push(
      remark(placeOfKey(entry, 'trusted'), 'is a boolean, and no port that asks for a trusted device finds it', {
        hint: `Write "trusted": "${trusted.value}".`,
      }),
    );
  const given = text('resource_class')?.toUpperCase();
  if (given?.startsWith('CUSTOM_') && !/^CUSTOM_[A-Z0-9_]{1,248}$/.test(given))
    findings.push(
      remark(placeOfKey(entry, 'resource_class'), `is sent by Nova as ${quote(given)}, which Placement refuses`, {
        hint: 'Use A to Z, 0 to 9 and _, at most 255 characters.',
      }),
    );
  if (
    text('traits')
      ?.split(',')
      .some((t) => t !== t.trim())
  )
    findings.push(
      remark(
        placeOfKey(entry, 'traits'),
        asNova
          ? 'has blanks at its commas, which become part of the names: "blue, big" is CUSTOM_BLUE and CUSTOM__BIG'
          : 'has blanks at its commas, which Nova makes part of the names (CUSTOM__BIG for "blue, big"), and hostdev does not',
        { hint: 'Leave the blanks out.' },
      ),
    );
  return findings;
}

type ReadAliases = { aliases: Aliases; aliasPlaces: { name: string; place: Place }[] };

function readAliases(config: Config, findings: Finding[]): ReadAliases {
  const { pci_in_placement: inPlacement, starlingx_default_aliases: starlingx } = config.pci;
  const byName = new Map<string, JsonObject[]>();
  const values: JsonObject[] = [];
  const aliasPlaces: ReadAliases['aliasPlaces'] = [];
  for (const entry of config.aliases.filter((e) => !e.unreadable)) {
    const read = readEntry(entry, 'alias', findings, (value) => parseAliases([value], inPlacement));
    const name = read === null ? undefined : [...read.keys()][0];
    if (name === undefined) continue;
    const value = plainValue(entry.table) as JsonObject;
    // Several of one name have to agree: judged with those before it.
    const same = [...(byName.get(name) ?? []), value];
    try {
      parseAliases(same, inPlacement);
    } catch (e) {
      if (!(e instanceof NovaError)) throw e;
      findings.push(ofError(entry, 'alias', e));
      continue;
    }
    if (/[:,]/.test(name))
      findings.push(
        remark(placeOfKey(entry, 'name'), "has a ':' or ',' in it, and can never be asked for", {
          hint: 'Leave them out.',
        }),
      );
    byName.set(name, same);
    values.push(value);
    aliasPlaces.push({ name, place: entry.place });
  }
  const own = parseAliases(values, inPlacement);
  if (!starlingx) return { aliases: own, aliasPlaces };
  const more = starlingxAliases(own, inPlacement);
  const nowhere: Place = { file: config.files[0] ?? '', line: 0, column: 0, key: 'pci.starlingx_default_aliases' };
  findings.push(...more.notes.map((n) => remark(nowhere, n.text)));
  return { aliases: parseAliases([...values, ...more.values], inPlacement), aliasPlaces };
}
