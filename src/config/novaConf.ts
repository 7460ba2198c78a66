/** Nova's own configuration as it is: each device_spec and alias of nova.conf as a table with places. */
import { checkKeys, fatalKeys } from './check.ts';
import type { Config, Entry } from './config.ts';
import { correctedJson, readJson } from './jsonText.ts';
import { type NovaText, placeOf, readNovaOptions } from './novaOptions.ts';
import { type OsloOption, placesInOption } from './oslo.ts';
import { fatal, kindText, type Located, mistake, type Place, type Table } from './place.ts';

/** The files of one nova-compute, first to last as oslo.config reads them, added to `config`. */
export function addNovaFiles(config: Config, files: readonly { file: string; text: string }[]): void {
  const { texts, switches, findings } = readNovaOptions(files);
  config.findings.push(...findings);
  Object.assign(config.pci, switches);
  for (const text of texts) addJson(config, text);
}

/** Stands for what could not be read. */
const NOTHING: Table = { kind: 'table', line: 0, column: 0, members: new Map() };

function addJson(config: Config, { kind, option: o, text }: NovaText): void {
  const list = kind === 'alias' ? config.aliases : config.specs;
  const { findings } = config;
  const key = `${kind}[${list.length}]`;
  const { value, faults, repeated } = readJson(text, placesInOption(o));
  if (faults.length > 0) {
    const fixed = correctedJson(text, faults);
    const corrected = fixed === null ? null : `${o.name} = ${fixed.replace(/\n/g, '\n  ')}`;
    for (const [n, f] of faults.entries()) {
      findings.push(
        fatal(placeOf(o, `${key}${f.path}`, f.at), `is no JSON: ${f.message}`, {
          hint: f.fix === null ? jsonHint(o, text) : null,
          // Once, with the last of them.
          corrected: n === faults.length - 1 ? corrected : null,
        }),
      );
    }
    list.push({ place: placeOf(o, key), table: NOTHING, bad: new Set(), unreadable: true });
    return;
  }
  for (const r of repeated)
    findings.push(
      mistake(placeOf(o, `${key}.${r.name}`, r.at), 'is given twice in one object: the last one counts', {
        hint: 'Remove one of them.',
      }),
    );
  if (value === null) return;
  const items = kind === 'device_spec' && value.kind === 'list' ? value.items : [value];
  for (const item of items) addEntry(config, kind, o, list, item);
}

/** A closing brace at the first column ends oslo's value. */
function jsonHint(o: OsloOption, text: string): string {
  return /^\s*[[{]/.test(text) && !/[\]}]\s*$/.test(text)
    ? 'Every line of a value after its first begins with a blank, the closing bracket too.'
    : `Write ${o.name} = {"vendor_id": "8086", …}.`;
}

function addEntry(config: Config, kind: 'device_spec' | 'alias', o: OsloOption, list: Entry[], item: Located): void {
  const place: Place = { file: o.file, line: item.line, column: item.column, key: `${kind}[${list.length}]` };
  if (item.kind !== 'table') {
    const what =
      kind === 'alias' ? 'one JSON object a line is expected' : 'a JSON object, or a list of them, is expected';
    config.findings.push(
      fatal(place, `is ${kindText(item)}: ${what}`, { hint: `Write ${o.name} = {"vendor_id": "8086", …}.` }),
    );
    list.push({ place, table: NOTHING, bad: new Set(), unreadable: true });
    return;
  }
  const wrong = checkKeys(kind, item, place);
  config.findings.push(...wrong);
  list.push({ place, table: item, bad: fatalKeys(wrong, place), unreadable: false });
}
