/**
 * Files of oslo.config (oslo_config/iniparser.py and cfg.py, 9.x), with the place of every value: sections, several values of one name, continuation lines, comments at
 * the start of a line, quotes around the whole first line of a value, `$name` and `${name}`. Where oslo stops at the first mistake, all are told here.
 */
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
              hint: 'Begin the comment at the first column.',
            },
          ),
        );
      open.lines.push({ line, column: content.length - rest.length + 1, text: rest });
    } else if (content.startsWith('[')) {
      open = null;
      if (!content.endsWith(']'))
        wrong(
          line,
          `the section ${JSON.stringify(content.slice(0, 40))} has no ']' at its end`,
          'Write [pci] alone on the line.',
        );
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
      `no '=' in ${JSON.stringify(content.slice(0, 40))}`,
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
    wrong(
      line,
      `the option ${JSON.stringify(name.slice(0, 40))} stands before any section`,
      'Put a section such as [pci] above it.',
    );
    return null;
  }
  const rest = content.slice(at + 1);
  let value = rest.trim();
  let column = at + 1 + (rest.length - rest.trimStart().length) + 1;
  const quote = value[0];
  if ((quote === '"' || quote === "'") && value.at(-1) === quote) {
    value = value.slice(1, -1);
    column += 1;
  }
  return { file, section, name, line, lines: [{ line, column, text: value }] };
}

/** The value as oslo gives it to JSON: its lines joined. */
export const optionText = (o: OsloOption): string => o.lines.map((l) => l.text).join('\n');

/** Line and column of an offset in the text of {@link optionText}. */
export function placeInOption(o: OsloOption, at: number): { line: number; column: number } {
  let rest = at;
  for (const l of o.lines) {
    if (rest <= l.text.length) return { line: l.line, column: l.column + rest };
    rest -= l.text.length + 1;
  }
  const last = o.lines.at(-1);
  return { line: last?.line ?? o.line, column: (last?.column ?? 1) + (last?.text.length ?? 0) };
}

/** string.Template with oslo's names: `$$`, `$name`, `${name}`; any other dollar sign stays. */
const TEMPLATE = /\$(?:(\$)|([_a-z][._a-z0-9]*)|\{([_a-z][._a-z0-9]*)\})/gi;

/** Longer than any value of ours: what refers to itself many times over must not fill the memory. */
const MAX_TEXT = 1024 * 1024;

/**
 * The text with its references replaced: `lookup` gives the value of an option by section and name, null when no file sets it. `unknown` gets the references that stay
 * (Nova stops at one that is no option of its; an option that has only its default is not known here).
 */
export function substitute(
  text: string,
  section: string,
  lookup: (section: string, name: string) => string | null,
  unknown: (reference: string) => void,
  depth = 0,
): string {
  if (!text.includes('$')) return text;
  // DEFAULT is no group to oslo: its options are named without one.
  const inGroup = (group: string, name: string): string | null =>
    group === 'DEFAULT' ? null : lookup(sectionName(group), name);
  const replaced = text.replaceAll('\\$', '$$$$').replace(TEMPLATE, (whole, dollar, plain, braced) => {
    if (dollar !== undefined) return '$';
    const name = `${plain ?? braced}`;
    const dot = name.indexOf('.');
    const found =
      (dot > 0 ? inGroup(name.slice(0, dot), name.slice(dot + 1)) : lookup(section, name)) ?? lookup('DEFAULT', name);
    if (found === null || depth > 8) {
      unknown(whole);
      return whole;
    }
    return substitute(found, section, lookup, unknown, depth + 1);
  });
  return replaced.slice(0, MAX_TEXT);
}

/** oslo_config/types.py Boolean; null when it is neither. */
export function osloBoolean(text: string): boolean | null {
  const word = text.trim().toLowerCase();
  if (['true', '1', 'on', 'yes'].includes(word)) return true;
  return ['false', '0', 'off', 'no'].includes(word) ? false : null;
}
