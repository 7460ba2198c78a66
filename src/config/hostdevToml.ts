/**
 * hostdev.toml and conf.d: sections after the schema; specs and aliases add up over the files, of the others the last
 * file counts.
 */

import { nearestWord } from '../text/nearestWord.ts';
import { quote } from '../text/safe.ts';
import { ALLOWABLE_GUARDS } from './allowable.ts';
import { checkKeys, checkTypes, checkValues, fatalKeys } from './check.ts';
import type { Config, Entry } from './config.ts';
import {
  type Finding,
  fatal,
  kindText,
  type Located,
  mistake,
  type Place,
  plainValue,
  remark,
  type Table,
} from './place.ts';
import { SCHEMA, type SectionName } from './schema.ts';
import { readToml } from './tomlText.ts';

/** The files in their order, added to `config`. */
export function addTomlFiles(config: Config, files: readonly { file: string; text: string }[]): void {
  const seen = new Map<string, Place>();
  for (const { file, text } of files) {
    const read = readToml(file, text.replace(/^\uFEFF/, ''));
    if ('finding' in read) config.findings.push(read.finding);
    else addFile(config, file, read.root, seen);
  }
}

/** `[[pf.range]]` is a key of `[[pf]]`. */
const isSection = (name: string): name is SectionName => Object.hasOwn(SCHEMA, name) && !name.includes('.');

function addFile(config: Config, file: string, root: Table, seen: Map<string, Place>): void {
  for (const [name, member] of root.members) {
    const place: Place = { file, line: member.line, column: member.column, key: name };
    if (!isSection(name)) {
      const sections = Object.entries(SCHEMA).filter(([n]) => isSection(n));
      const meant = nearestWord(
        name,
        sections.map(([n]) => n),
      );
      config.findings.push(
        fatal(place, 'is no section', {
          hint:
            meant === null
              ? `There are: ${sections.map(([n, s]) => header(n, s.list)).join(', ')}.`
              : `Did you mean ${header(meant, isSection(meant) && SCHEMA[meant].list)}?`,
        }),
      );
    } else if (SCHEMA[name].list) addList(config, name, place, member.value);
    else if (member.value.kind === 'table') addSettings(config, name, place, member.value, seen);
    else
      config.findings.push(
        fatal(place, `is ${kindText(member.value)}: a table is expected`, {
          hint: `Write ${header(name, false)}, and its keys below.`,
        }),
      );
  }
}

const header = (name: string, list: boolean): string => (list ? `[[${name}]]` : `[${name}]`);

function addList(config: Config, name: SectionName, place: Place, value: Located): void {
  const items = value.kind === 'list' ? value.items : [value];
  const lists: Partial<Record<SectionName, Entry[]>> = {
    device_spec: config.specs,
    alias: config.aliases,
    device: config.devices,
    pf: config.pfs,
  };
  const list = lists[name];
  // A wish that is wrong is not fulfilled, and keeps nothing else from the configuration.
  const isWish = name === 'device' || name === 'pf';
  for (const item of items) {
    const count = (list ?? config.allow).length;
    const here: Place = { ...place, line: item.line, column: item.column, key: `${name}[${count}]` };
    if (value.kind !== 'list' || item.kind !== 'table') {
      config.findings.push(
        (isWish ? mistake : fatal)(here, `is ${kindText(item)}: a list of tables is expected`, {
          hint: `Write ${header(name, true)}, with two brackets, and its keys below.`,
        }),
      );
      continue;
    }
    const values = name === 'allow' || isWish ? checkValues : checkTypes;
    const wrong = [
      ...checkKeys(name, item, here),
      ...values(name, item, here),
      ...(name === 'pf' ? checkRanges(item, here) : []),
    ];
    config.findings.push(...(isWish ? wrong.map((f) => mistake(f, f.message, f)) : wrong));
    const entry: Entry = { place: here, table: item, bad: fatalKeys(wrong, here), unreadable: false };
    if (list !== undefined) list.push(entry);
    else if (entry.bad.size === 0) addAllowance(config, entry);
  }
}

function checkRanges(pf: Table, place: Place): Finding[] {
  const ranges = pf.members.get('range')?.value;
  if (ranges?.kind !== 'list') return [];
  return ranges.items.flatMap((item, n) => {
    const { line, column } = item;
    const here: Place = { ...place, line, column, key: `${place.key}.range[${n}]` };
    return item.kind === 'table' ? [...checkKeys('pf.range', item, here), ...checkValues('pf.range', item, here)] : [];
  });
}

function addAllowance(config: Config, { place, table }: Entry): void {
  const text = (key: string): { value: string; place: Place } => {
    const member = table.members.get(key);
    const value = member === undefined ? '' : String(plainValue(member.value));
    const { line, column } = member?.value ?? place;
    return { value, place: { ...place, line, column, key: `${place.key}.${key}` } };
  };
  const device = text('device');
  const domain = text('domain');
  const address = device.value.trim().toLowerCase();
  // checkValues has seen that it is one of them.
  const guard = ALLOWABLE_GUARDS.find((g) => g === text('guard').value);
  if (!/^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/.test(address))
    config.findings.push(
      fatal(device.place, `is ${quote(device.value)}: no full address`, {
        hint: "Write it as 'hostdev list' does: 0000:01:00.0.",
      }),
    );
  else if (domain.value.trim() === '')
    config.findings.push(
      fatal(domain.place, 'is empty', { hint: 'Write the domain\'s name or UUID, or "*" for any.' }),
    );
  else if (guard !== undefined) config.allow.push({ device: address, guard, domain: domain.value.trim(), place });
}

function addSettings(config: Config, name: SectionName, place: Place, table: Table, seen: Map<string, Place>): void {
  const wrong = [...checkKeys(name, table, place), ...checkValues(name, table, place)];
  config.findings.push(...wrong);
  const bad = new Set(wrong.map((f) => f.key));
  const settings: Record<string, unknown> = name === 'hook' ? config.hook : config.pci;
  for (const [key, member] of table.members) {
    const here: Place = { ...place, line: member.line, column: member.column, key: `${name}.${key}` };
    if (bad.has(here.key)) continue;
    const before = seen.get(here.key);
    if (before !== undefined)
      config.findings.push(remark(here, `was set in ${before.file}:${before.line}: this one counts`));
    seen.set(here.key, here);
    settings[key] = plainValue(member.value);
  }
  const { hypervisor_hostname: host } = config.pci;
  // Placement takes 200 characters for a provider's name, and 13 are "_dddd:bb:ss.f".
  if (name === 'pci' && !bad.has('pci.hypervisor_hostname') && (host.length < 1 || host.length > 187))
    config.findings.push(
      fatal({ ...place, key: 'pci.hypervisor_hostname' }, `has ${host.length} characters, and may have 1 to 187`),
    );
}
