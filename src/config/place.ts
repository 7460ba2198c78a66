/** Where a value stands in a configuration file, the values with their places, and what is said about them. */

import { advice, type Finding as Told } from '../text/finding.ts';

/**
 * Line and column count from 1, as editors do. `key` is the way to the value: `device_spec[2].managed`,
 * `hook.unmanaged`; '' is the file as a whole.
 */
export type Place = { file: string; line: number; column: number; key: string };

/** A value that knows where it stands. `raw` of a scalar is its own text, for a hint that repeats it. */
export type Located =
  | { kind: 'table'; line: number; column: number; members: Map<string, Member> }
  | { kind: 'list'; line: number; column: number; items: Located[] }
  | { kind: 'scalar'; line: number; column: number; value: Scalar; raw: string }
  /** What has no counterpart in JSON: dates and times of TOML. */
  | { kind: 'other'; line: number; column: number; what: string; raw: string };

type Scalar = string | number | boolean | null;
export type Table = Extract<Located, { kind: 'table' }>;

/** A key of a table, and where the key itself stands. */
export type Member = { line: number; column: number; value: Located };

/**
 * An `error` is a mistake (exit 3 of `config check`); `fatal` ones keep every command from using the configuration, as
 * they keep nova-compute from starting.
 */
export type Finding = Told &
  Place & {
    fatal: boolean;
    /** What is wrong with the key; `cause` has it with the key. */
    message: string;
    hint: string | null;
    /** The line as it should read, where that is known. */
    corrected: string | null;
  };

export type FindingExtra = { hint?: string | null; corrected?: string | null };

const finding =
  (id: string, severity: Finding['severity'], fatal: boolean) =>
  ({ file, line, column, key }: Place, message: string, extra: FindingExtra = {}): Finding => {
    const { hint = null, corrected = null } = extra;
    const object = placeText({ file, line, column, key: '' });
    return {
      id,
      severity,
      object,
      cause: key === '' ? message : `${key} ${message}`,
      fix:
        corrected !== null
          ? [{ tool: 'file', where: `${file}:${line}`, line: corrected, present: true, after: hint }]
          : hint !== null
            ? [advice(object, hint)]
            : [],
      file,
      line,
      column,
      key,
      fatal,
      message,
      hint,
      corrected,
    };
  };

/** A mistake with which the configuration cannot be used. */
export const fatal = finding('config-invalid', 'error', true);
/** A mistake that Nova would take without a word, such as a mistyped tag. */
export const mistake = finding('config-mistake', 'error', false);
/** Worth knowing; exit 0. */
export const remark = finding('config-remark', 'warning', false);

/** In the order of the files and of the places in them; what stands in no file comes last. */
export function sortFindings(findings: Finding[], files: readonly string[]): void {
  const order = new Map(files.map((f, n) => [f, n]));
  const rank = (f: Finding): number => order.get(f.file) ?? files.length;
  findings.sort((a, b) => rank(a) - rank(b) || a.line - b.line || a.column - b.column);
}

/** `file:line:column: key`, as compilers write it. */
export const placeText = (p: Place): string =>
  [p.file === '' ? [] : p.line > 0 ? `${p.file}:${p.line}:${p.column}` : p.file, p.key === '' ? [] : p.key]
    .flat()
    .join(': ');

/** The value without its places. Members keep their order; `__proto__` is a key like any other. */
export function plainValue(node: Located): unknown {
  switch (node.kind) {
    case 'table': {
      const entries = [...node.members].map(([k, m]) => [k, plainValue(m.value)] as const);
      return Object.fromEntries(entries);
    }
    case 'list':
      return node.items.map(plainValue);
    case 'scalar':
      return node.value;
    case 'other':
      return node.raw;
  }
}

/** The kind of a value in words: "a text", "a number". */
export function kindText(node: Located): string {
  if (node.kind === 'table') return 'a table';
  if (node.kind === 'list') return 'a list';
  if (node.kind === 'other') return node.what;
  if (node.value === null) return 'null';
  return { string: 'a text', number: 'a number', boolean: 'true or false' }[
    typeof node.value as 'string' | 'number' | 'boolean'
  ];
}
