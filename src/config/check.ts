/**
 * A section against the schema: unknown keys with what they may have meant, keys that are missing, values of a wrong
 * type.
 */

import { nearestWord } from '../text/nearestWord.ts';
import { quote } from '../text/safe.ts';
import type { KeyRule, ValueType } from './keyRule.ts';
import {
  type Finding,
  type FindingExtra,
  fatal,
  kindText,
  type Located,
  mistake,
  type Place,
  remark,
  type Table,
} from './place.ts';
import { keysOf, OTHER_NAMES, SCHEMA, type SectionName } from './schema.ts';

/**
 * Keys of a section that the schema does not know. In an open section those are the user's own tags, unless they look
 * like a known key mistyped.
 */
export function checkKeys(section: SectionName, table: Table, place: Place): Finding[] {
  const keys = keysOf(section);
  const findings: Finding[] = [];
  for (const [name, member] of table.members) {
    if (Object.hasOwn(keys, name)) continue;
    const at = { ...place, line: member.line, column: member.column, key: `${place.key}.${name}` };
    const others = OTHER_NAMES[section] ?? {};
    const near = nearestWord(name, Object.keys(keys));
    const meant = Object.hasOwn(others, name) ? (others[name] ?? []) : near === null ? [] : [near];
    const free = meant.find((k) => !table.members.has(k));
    const hint =
      free !== undefined ? `Did you mean ${free}?` : meant.length > 0 ? `${meant[0]} is there too: remove one.` : null;
    if (!SCHEMA[section].open)
      findings.push(
        fatal(at, `is no key of ${section}`, { hint: hint ?? `There are: ${Object.keys(keys).join(', ')}.` }),
      );
    else if (hint !== null)
      findings.push(
        mistake(at, `is no key of ${section}, and Nova would take it as a tag without a meaning`, { hint }),
      );
    else
      findings.push(
        remark(at, `is no key of ${section}: it is taken as a tag, and devices with it are in pools of their own`),
      );
  }
  return findings;
}

/** The names of the keys with which the section at `place` cannot be used. */
export const fatalKeys = (findings: readonly Finding[], place: Place): Set<string> =>
  new Set(findings.filter((f) => f.fatal).map((f) => f.key.slice(place.key.length + 1)));

/** Types only: what the values of specs and aliases mean is told by src/nova/grammar. */
export function checkTypes(section: SectionName, table: Table, place: Place): Finding[] {
  const findings: Finding[] = [];
  for (const [name, member] of table.members) {
    const rule = Object.hasOwn(keysOf(section), name) ? keysOf(section)[name] : undefined;
    const { line, column } = member.value;
    const at = { ...place, line, column, key: `${place.key}.${name}` };
    if (rule !== undefined) checkType(rule, member.value, (message, extra) => findings.push(fatal(at, message, extra)));
  }
  return findings;
}

/** The known keys of a section: missing, of a wrong type, not one of the values, out of range. */
export function checkValues(section: SectionName, table: Table, place: Place): Finding[] {
  const findings: Finding[] = [];
  for (const [name, rule] of Object.entries(keysOf(section))) {
    const member = table.members.get(name);
    if (member === undefined) {
      if (rule.required) findings.push(fatal(place, `has no ${name}`, { hint: `${name} is ${rule.rule}.` }));
      continue;
    }
    const { line, column } = member.value;
    const wrong = (message: string, extra: FindingExtra = {}): number =>
      findings.push(fatal({ ...place, line, column, key: `${place.key}.${name}` }, message, extra));
    checkValue(rule, member.value, wrong);
  }
  return findings;
}

type Wrong = (message: string, extra?: FindingExtra) => void;

function checkType(rule: KeyRule, value: Located, wrong: Wrong): boolean {
  if (rule.types.some((t) => isOf(t, value))) return true;
  wrong(`is ${kindText(value)}: ${typesText(rule.types)} is expected`, { hint: typeHint(rule, value) });
  return false;
}

function checkValue(rule: KeyRule, value: Located, wrong: Wrong): void {
  if (!checkType(rule, value, wrong)) return;
  if (value.kind !== 'scalar') return;
  if (rule.values !== undefined && typeof value.value === 'string' && !rule.values.includes(value.value)) {
    const meant = nearestWord(value.value, rule.values);
    wrong(`is ${quote(value.value)}, and may be ${rule.values.join(', ')}`, {
      hint: meant === null ? null : `Did you mean ${meant}?`,
    });
  }
  if (rule.range !== undefined && typeof value.value === 'number') {
    const [least, most] = rule.range;
    // Also false for NaN.
    if (!(value.value >= least && value.value <= most)) wrong(`is ${value.raw}, and may be ${least} to ${most}`);
  }
}

function typeHint(rule: KeyRule, value: Located): string | null {
  if (value.kind !== 'scalar' && value.kind !== 'other') return null;
  if (rule.types.includes('text')) return `Write it in quotes: ${JSON.stringify(value.raw)}.`;
  if (rule.types.includes('boolean')) return 'Write true or false, without quotes.';
  return rule.types.includes('number') ? 'Write a number, without quotes.' : null;
}

function isOf(type: ValueType, value: Located): boolean {
  if (type === 'table') return value.kind === 'table';
  if (type === 'list of texts') return value.kind === 'list' && value.items.every((i) => isOf('text', i));
  if (type === 'list of tables') return value.kind === 'list' && value.items.every((i) => isOf('table', i));
  if (value.kind !== 'scalar') return false;
  return typeof value.value === (type === 'text' ? 'string' : type);
}

const TYPE_TEXT: Record<ValueType, string> = {
  text: 'a text',
  boolean: 'true or false',
  number: 'a number',
  table: 'a table',
  'list of texts': 'a list of texts',
  'list of tables': 'a list of tables',
};
const typesText = (types: readonly ValueType[]): string => types.map((t) => TYPE_TEXT[t]).join(' or ');
