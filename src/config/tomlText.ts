/** TOML 1.0 as values with their places. The only module that knows the parser (docs/decisions/0010-toml.md). */
import { type AST, ParseError, parseTOML } from 'toml-eslint-parser';
import { type Finding, fatal, type Located, type Table } from './place.ts';

/** Reads the text of one file: its root table, or the mistake at which the parser stops. */
export function readToml(file: string, text: string): { root: Table } | { finding: Finding } {
  try {
    return { root: rootTable(parseTOML(text, { tomlVersion: '1.0' })) };
  } catch (e) {
    if (!(e instanceof ParseError)) throw e;
    const line = text.split('\n')[e.lineNumber - 1] ?? '';
    return {
      finding: fatal({ file, line: e.lineNumber, column: e.column + 1, key: '' }, `is no TOML: ${e.message}`, {
        hint: tomlHint(line),
      }),
    };
  }
}

/**
 * A `[[table]]` as it stands in a file: its lines, from its header to the last line of its last key, or of the last
 * table below it. Counted from 1.
 */
export type TableLines = { name: string; first: number; last: number };

/**
 * Where each `[[name]]` stands in the text of a file. Raises the parser's error for what is no TOML: {@link readToml}
 * has read it before.
 */
export function tableLines(text: string, names: readonly string[]): TableLines[] {
  const tables: TableLines[] = [];
  for (const node of parseTOML(text, { tomlVersion: '1.0' }).body[0].body) {
    if (node.type !== 'TOMLTable') continue;
    const [head, ...below] = node.key.keys.map(keyText);
    const { start, end } = node.loc;
    const last = tables.at(-1);
    if (last !== undefined && below.length > 0 && last.name === head) last.last = end.line;
    else if (below.length > 0 || node.kind !== 'array') continue;
    else if (head !== undefined && names.includes(head)) tables.push({ name: head, first: start.line, last: end.line });
  }
  return tables;
}

/** What is most often meant by a line that is no TOML. */
function tomlHint(line: string): string {
  if (/^\s*(device_spec|alias|passthrough_whitelist)\s*=\s*[[{]/.test(line))
    return "Is this Nova's file? Then give it a name that does not end in .toml; here it is [[device_spec]], and a line for each key.";
  if (/=\s*[^\s"'[{\d+-]/.test(line) && !/=\s*(true|false)\b/.test(line))
    return 'A text stands in quotes: key = "text".';
  return 'See https://toml.io; the line and column are where the parser could not go on.';
}

const at = (node: { loc: AST.SourceLocation }): { line: number; column: number } => ({
  line: node.loc.start.line,
  column: node.loc.start.column + 1,
});

const emptyTable = (place: { line: number; column: number }): Table => ({
  kind: 'table',
  ...place,
  members: new Map(),
});

function rootTable(program: AST.TOMLProgram): Table {
  const root = emptyTable({ line: 1, column: 1 });
  for (const node of program.body[0].body) {
    if (node.type === 'TOMLKeyValue') {
      addPair(root, node);
      continue;
    }
    const table = openTable(root, node);
    for (const pair of node.body) addPair(table, pair);
  }
  return root;
}

/** The table that a header `[a.b]` or `[[a.b]]` opens; the parser has made sure that nothing is defined twice. */
function openTable(root: Table, node: AST.TOMLTable): Table {
  let table = root;
  const path = node.key.keys;
  for (const [n, key] of path.entries()) {
    const isLast = n === path.length - 1;
    const name = keyText(key);
    let member = table.members.get(name);
    if (member === undefined) {
      const list = isLast && node.kind === 'array';
      member = { ...at(key), value: list ? { kind: 'list', ...at(node), items: [] } : emptyTable(at(node)) };
      table.members.set(name, member);
    }
    let { value } = member;
    if (value.kind === 'list') {
      if (isLast && node.kind === 'array') value.items.push(emptyTable(at(node)));
      value = value.items.at(-1) ?? value;
    }
    if (value.kind !== 'table') return emptyTable(at(node));
    table = value;
  }
  return table;
}

function addPair(table: Table, pair: AST.TOMLKeyValue): void {
  let into = table;
  const path = pair.key.keys;
  for (const key of path.slice(0, -1)) {
    const name = keyText(key);
    const member = into.members.get(name) ?? { ...at(key), value: emptyTable(at(key)) };
    into.members.set(name, member);
    if (member.value.kind !== 'table') return;
    into = member.value;
  }
  const last = path.at(-1);
  if (last !== undefined) into.members.set(keyText(last), { ...at(last), value: content(pair.value) });
}

const keyText = (key: AST.TOMLBare | AST.TOMLQuoted): string => (key.type === 'TOMLBare' ? key.name : key.value);

const DATE_TEXT: Record<string, string> = {
  'offset-date-time': 'a date',
  'local-date-time': 'a date',
  'local-date': 'a date',
  'local-time': 'a time',
};

function content(node: AST.TOMLContentNode): Located {
  const place = at(node);
  if (node.type === 'TOMLArray') return { kind: 'list', ...place, items: node.elements.map(content) };
  if (node.type === 'TOMLInlineTable') {
    const table = emptyTable(place);
    for (const pair of node.body) addPair(table, pair);
    return table;
  }
  switch (node.kind) {
    case 'string':
      return { kind: 'scalar', ...place, value: node.value, raw: node.value };
    case 'integer':
    case 'float':
      return { kind: 'scalar', ...place, value: Number(node.value), raw: node.number };
    case 'boolean':
      return { kind: 'scalar', ...place, value: node.value, raw: String(node.value) };
    default:
      return { kind: 'other', ...place, what: DATE_TEXT[node.kind] ?? 'a date', raw: node.datetime };
  }
}
