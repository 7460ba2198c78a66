/** What is known of a key of a configuration, and of a section: the form of config/schema.ts. */

export type ValueType = 'text' | 'boolean' | 'number' | 'table' | 'list of texts' | 'list of tables';

export type KeyRule = {
  types: readonly ValueType[];
  required?: boolean;
  /** Of a text: one of these. */
  values?: readonly string[];
  /** Of a number: least, most. */
  range?: readonly [number, number];
  /** What counts when the key is not given, in words. */
  otherwise: string;
  /** The rule, for the page. */
  rule: string;
  /** Where hostdev differs from Nova, and why; '' where it does not, null where Nova has no such key. */
  nova: string | null;
};

export type Section = {
  /** `[[name]]`, any number of them, or `[name]`, once. */
  list: boolean;
  text: string;
  /** Where Nova keeps the same; null where it has no such thing. */
  novaName: string | null;
  /** Keys that are not listed are tags of the user's own. */
  open: boolean;
  keys: Record<string, KeyRule>;
};
