/** The PCI options of nova.conf and its older names, in the order in which Nova gets them. */

import { nearestWord } from '../text/nearestWord.ts';
import { quote } from '../text/safe.ts';
import { type OsloOption, optionText, osloBoolean, placesInOption, readOslo, substitute } from './oslo.ts';
import { type Finding, fatal, mistake, type Place, remark } from './place.ts';
import { NOVA_OPTIONS } from './schema.ts';

/** One value of device_spec or alias: the text that Nova gives to json.loads. */
export type NovaText = { kind: 'device_spec' | 'alias'; option: OsloOption; text: string };

export type NovaOptions = {
  texts: NovaText[];
  switches: { report_in_placement: boolean; pci_in_placement: boolean };
  findings: Finding[];
};

/** Where people put an option, and what it is called by other tools and in Nova's own guide. */
const OTHER_OPTIONS: Record<string, string> = {
  dev_spec: 'device_spec',
  whitelist: 'device_spec',
  pci_whitelist: 'device_spec',
  aliases: 'alias',
};

/** Sections in which an option of ours that is mistyped or misplaced is looked for. */
const PCI_SECTIONS = new Set(['DEFAULT', 'default', 'pci', 'filter_scheduler']);

/** Reads the files of one nova-compute, first to last as oslo.config reads them. */
export function readNovaOptions(files: readonly { file: string; text: string }[]): NovaOptions {
  const read = files.map(({ file, text }) => readOslo(file, text));
  const all = read.flatMap((r) => r.options);
  const result: NovaOptions = {
    texts: [],
    switches: { report_in_placement: false, pci_in_placement: false },
    findings: read.flatMap((r) => r.findings),
  };
  const said = new Set<string>();
  for (const o of all) {
    const finding = nameFinding(o);
    // An old name is told once a file, a mistake wherever it stands.
    const once = `${o.file}\0${o.section}\0${o.name}`;
    if (finding === null || (finding.severity === 'warning' && said.has(once))) continue;
    said.add(once);
    result.findings.push(finding);
  }
  const lookup = lookupIn(all);
  for (const r of read) {
    // cfg.py _get_file_value: of one file the values under the older names come first.
    for (const known of [...NOVA_OPTIONS].reverse()) {
      for (const option of r.options) {
        if (option.section !== known.section || option.name !== known.name) continue;
        const text = substituted(option, lookup, result.findings);
        if (known.is === 'device_spec' || known.is === 'alias') result.texts.push({ kind: known.is, option, text });
        else
          setSwitch(
            result,
            known.is,
            option,
            text,
            option === all.findLast((o) => o.section === known.section && o.name === known.name),
          );
      }
    }
  }
  return result;
}

type Lookup = (section: string, name: string) => string | null;

/** The value that oslo finds for an option that is not multi-valued: the last in the last file. */
function lookupIn(options: readonly OsloOption[]): Lookup {
  const values = new Map<string, OsloOption>();
  for (const o of options) values.set(`${o.section}\0${o.name}`, o);
  return (section, name) => {
    const o = values.get(`${section}\0${name}`);
    return o === undefined ? null : optionText(o);
  };
}

export const placeOf = (o: OsloOption, key: string, at = 0): Place => ({ file: o.file, ...placesInOption(o)(at), key });

function substituted(o: OsloOption, lookup: Lookup, findings: Finding[]): string {
  const written = optionText(o);
  const told = new Set<string>();
  return substitute(written, o.section, {
    lookup,
    unknown: (reference, isEndless) => {
      if (told.has(reference)) return;
      told.add(reference);
      const place = placeOf(o, o.name, Math.max(0, written.indexOf(reference)));
      findings.push(
        isEndless
          ? fatal(place, `refers to itself, or to more than can be: ${reference}`, { hint: 'Write the value itself.' })
          : fatal(place, `refers to an option that no file sets: ${reference}`, {
              hint: 'Set it in the file (the defaults of Nova are not known here); for a dollar sign itself write $$.',
            }),
      );
    },
  });
}

/** A value that a later one replaces is never looked at by oslo. */
function setSwitch(
  { switches, findings }: NovaOptions,
  name: keyof NovaOptions['switches'],
  o: OsloOption,
  text: string,
  counts: boolean,
): void {
  const value = osloBoolean(text);
  if (value !== null) switches[name] = value;
  else
    findings.push(
      (counts ? fatal : mistake)(placeOf(o, name), `is ${quote(text)}: true or false is expected`, {
        hint: 'oslo takes true 1 on yes, and false 0 off no.',
      }),
    );
}

/**
 * Options that Nova would read over without a word: ours mistyped, or in the wrong section; and ours under their old
 * names.
 */
function nameFinding(o: OsloOption): Finding | null {
  const known = NOVA_OPTIONS.find((k) => k.section === o.section && k.name === o.name);
  const place: Place = { file: o.file, line: o.line, column: 1, key: o.name };
  const full = (k: { section: string; name: string }): string => `[${k.section}] ${k.name}`;
  if (known !== undefined) {
    const newest = NOVA_OPTIONS.find((k) => k.is === known.is) ?? known;
    return newest === known ? null : remark(place, `is the old name of ${full(newest)}, and Nova will drop it`);
  }
  const names = [...new Set(NOVA_OPTIONS.map((k) => k.name))];
  // "alias" may be an option of anybody's: ours is meant only in sections that are Nova's for PCI, or look like them.
  const isOurs = PCI_SECTIONS.has(o.section) || nearestWord(o.section, PCI_SECTIONS) !== null;
  const exact = names.find((n) => n === o.name && (n !== 'alias' || isOurs));
  const meant = exact ?? (o.section === 'pci' ? (OTHER_OPTIONS[o.name] ?? nearestWord(o.name, names)) : null);
  const right =
    NOVA_OPTIONS.find((k) => k.name === meant && k.section === o.section) ?? NOVA_OPTIONS.find((k) => k.name === meant);
  if (right !== undefined)
    return mistake(place, `is no option of [${o.section}], and Nova reads over it`, {
      hint: `Did you mean ${full(right)}?`,
    });
  return o.section === 'pci' ? remark(place, 'is no option of [pci] that hostdev knows, and is not looked at') : null;
}
