/** The guide's commands print what the guide says; UPDATE_DOCS=1 writes it anew. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { CLI, runCommand } from '../../mock/tree.ts';

const GUIDE = 'docs/guide/nova-on-one-host.md';
const FOLDER = 'docs/guide/nova-on-one-host';
const BLOCK = /(<!-- run: exit (\d) -->\n```\n\$ hostdev ([^\n]*)\n)([^`]*)(```)/g;

/** Words as a shell would split these: blanks, and single quotes. */
const words = (line: string): string[] =>
  [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '');

test(`${GUIDE} is what its commands print`, () => {
  const text = readFileSync(GUIDE, 'utf8');
  const exits: string[] = [];
  const made = text.replace(BLOCK, (_, head: string, exit: string, line: string, __, end: string) => {
    const ran = runCommand(process.execPath, [CLI, ...words(line)], { cwd: FOLDER });
    exits.push(`${line}: ${ran.exit === Number(exit) ? 'as said' : ran.exit}`);
    return `${head}${ran.out}${ran.err}${end}`;
  });
  if (process.env.UPDATE_DOCS) writeFileSync(GUIDE, made);
  expect(exits.length).toBe(9);
  expect(exits.filter((e) => !e.endsWith('as said'))).toEqual([]);
  expect(readFileSync(GUIDE, 'utf8')).toBe(made);
});
