/**
 * Files of oslo.config (oslo_config/iniparser.py and cfg.py, 9.x), with the place of every value: sections, several
 * values of one name, continuation lines, comments at the start of a line, quotes around the whole first line of a
 * value, `$name` and `${name}`. Where oslo stops at the first mistake, all are told here.
 */

import { quote } from '../text/safe.ts';
import { type Finding, fatal, remark } from './place.ts';

/** One line of a value: its text, and where it stands. */
type ValueLine = { line: number; column: number; text: string };

export type OsloOption = {
  file: string;
  /** As oslo compares it: lower case, but DEFAULT as it is. */
  section: string;
  name: string;
  line: number;
  lines: ValueLine[];
};

export type OsloFile = { options: OsloOption[]; findings: Finding[] };

/** Reads the text of one file. Never raises: what oslo would refuse is a fatal finding. */
export function readOslo(file: string, text: string): OsloFile {
  const options: OsloOption[] = [];
  const findings: Finding[] = [];
  let section: string | null = null;
  let open: OsloOption | null = null;
  const wrong = (line: number, message: string, hint: string): void => {
    findings.push(fatal({ file, line, column: 1, key: '' }, message, { hint }));
  };
  // Python's universal newlines: a lone \r ends a line too.
  const lines = text.split(/\r\n|\r|\n/);
  for (const [index, whole] of lines.entries()) {
    const line = index + 1;
    const content = whole.trimEnd();
    if (content === '') {
      open = null;
    } else if (/^[ \t]/.test(content)) {
      const rest = content.trimStart();
      if (open === null) {
        wrong(
          line,
          'a line that begins with a blank continues nothing',
          'Remove the blanks at its start; an empty line or a comment ends a value.',
        );
        continue;
      }
      if (/^[#;]/.test(rest))
        findings.push(
          remark(
            { file, line, column: content.length - rest.length + 1, key: open.name },
            'is no comment: an indented line is part of the value above',
            {
              hint: 'There are no comments inside a value: put it above the option, at the first column.',
            },
          ),
        );
      open.lines.push({ line, column: content.length - rest.length + 1, text: rest });
    } else if (content.startsWith('[')) {
      open = null;
      if (!content.endsWith(']'))
        wrong(line, `the section ${quote(content)} has no ']' at its end`, 'Write [pci] alone on the line.');
      else if (content.length <= 2) wrong(line, 'a section without a name', 'Write [pci].');
      else section = sectionName(content.slice(1, -1));
    } else if (/^[#;]/.test(content)) {
      open = null;
    } else {
      open = readAssignment(file, section, line, content, wrong);
      if (open !== null) options.push(open);
    }
  }
  return { options, findings };
}

/** oslo_config/cfg.py _normalize_group_name. */
const sectionName = (name: string): string => (name === 'DEFAULT' ? name : name.toLowerCase());

function readAssignment(
  file: string,
  section: string | null,
  line: number,
  content: string,
  wrong: (line: number, message: string, hint: string) => void,
): OsloOption | null {
  // Whichever of the two comes first.
  const at = content.search(/[:=]/);
  if (at < 0) {
    wrong(
      line,
      `no '=' in ${quote(content)}`,
      'Write option = value; a line that continues a value begins with a blank.',
    );
    return null;
  }
  const name = content.slice(0, at).trim();
  if (name === '') {
    wrong(line, `no option's name before '${content[at]}'`, 'Write option = value.');
    return null;
  }
  if (section === null) {
    wrong(line, `the option ${quote(name)} stands before any section`, 'Put a section such as [pci] above it.');
    return null;
  }
  const rest = content.slice(at + 1);
  let value = rest.trim();
  let column = at + 1 + (rest.length - rest.trimStart().length) + 1;
  const mark = value[0];
  if ((mark === '"' || mark === "'") && value.at(-1) === mark) {
    value = value.slice(1, -1);
    column += 1;
  }
  return { file, section, name, line, lines: [{ line, column, text: value }] };
}

/** The value as oslo gives it to JSON: its lines joined. */
export const optionText = (o: OsloOption): string => o.lines.map((l) => l.text).join('\n');

/** Tells line and column of an offset in the text of {@link optionText}; a value may have as many lines as its file. */
export function placesInOption(o: OsloOption): (at: number) => { line: number; column: number } {
  const starts: number[] = [];
  let next = 0;
  for (const l of o.lines) {
    starts.push(next);
    next += l.text.length + 1;
  }
  return (at) => {
    let [low, high] = [0, starts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((starts[middle] ?? 0) <= at) low = middle;
      else high = middle - 1;
    }
    const { line, column, text } = o.lines[low] ?? { line: o.line, column: 1, text: '' };
    // Behind the end where a reference became longer than it was written.
    return { line, column: column + Math.min(at - (starts[low] ?? 0), text.length) };
  };
}

/** string.Template with oslo's names: `$$`, `$name`, `${name}`; any other dollar sign stays. */
const TEMPLATE = /\$(?:(\$)|([_a-z][._a-z0-9]*)|\{([_a-z][._a-z0-9]*)\})/gi;

/** What references may come to: one that refers to itself many times over must fill neither the memory nor the time. */
const MAX_EXPANDED = 1024 * 1024;
const MAX_REFERENCES = 10_000;
const MAX_DEPTH = 8;

export type Substitution = {
  /** The value of an option by section and name, null when no file sets it. */
  lookup: (section: string, name: string) => string | null;
  /**
   * Gets the references that stay, and whether that is because they come back to themselves or grow beyond bounds. Nova
   * stops at one that is no option of its.
   */
  unknown: (reference: string, isEndless: boolean) => void;
};

/** The text with its references replaced. */
export function substitute(text: string, section: string, { lookup, unknown }: Substitution): string {
  // DEFAULT is no group to oslo: its options are named without one.
  const inGroup = (group: string, name: string): string | null =>
    group === 'DEFAULT' ? null : lookup(sectionName(group), name);
  let references = 0;
  let expanded = 0;
  let isFull = false;
  const expand = (value: string, depth: number): string => {
    if (!value.includes('$')) return value;
    return value.replaceAll('\\$', '$$$$').replace(TEMPLATE, (whole, dollar, plain, braced) => {
      if (dollar !== undefined) return '$';
      const name = `${plain ?? braced}`;
      const dot = name.indexOf('.');
      const found =
        (dot > 0 ? inGroup(name.slice(0, dot), name.slice(dot + 1)) : lookup(section, name)) ?? lookup('DEFAULT', name);
      references += 1;
      expanded += found?.length ?? 0;
      if (references > MAX_REFERENCES || expanded > MAX_EXPANDED) {
        if (!isFull) unknown(whole, true);
        isFull = true;
        return '';
      }
      if (found !== null && depth < MAX_DEPTH) return expand(found, depth + 1);
      unknown(whole, found !== null);
      return whole;
    });
  };
  return expand(text, 0);
}

/** oslo_config/types.py Boolean; null when it is neither. */
export function osloBoolean(text: string): boolean | null {
  const word = text.trim().toLowerCase();
  if (['true', '1', 'on', 'yes'].includes(word)) return true;
  return ['false', '0', 'off', 'no'].includes(word) ? false : null;
}
