/**
 * docs/man says what the program's own tables say; UPDATE_DOCS=1 writes it anew. groff and mandoc find nothing wrong
 * with it.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { COMMANDS } from '../../../src/cli/commands.ts';
import { optionText, synopsis } from '../../../src/cli/usage.ts';
import { keysOf, SCHEMA, type SectionName } from '../../../src/config/schema.ts';
import { EXIT } from '../../../src/errors.ts';
import { has, isLacking } from '../../lacking.ts';
import { manual } from './manual.ts';

const PAGES = Object.entries(manual());
const file = (name: string): string => `docs/man/${name}`;

test('the pages are those of the tables', () => {
  if (process.env.UPDATE_DOCS) {
    mkdirSync('docs/man', { recursive: true });
    for (const [name, text] of PAGES) writeFileSync(file(name), text);
  }
  expect(readdirSync('docs/man').sort()).toEqual(PAGES.map(([name]) => name).sort());
  for (const [name, text] of PAGES) expect(readFileSync(file(name), 'utf8')).toBe(text);
});

const groffIsHere = isLacking(has('groff') ? null : 'groff is not here: apt-get install groff-base');
const mandocIsHere = isLacking(
  has('mandoc') || spawnSync('mandoc').error === undefined ? null : 'mandoc is not here: apt-get install mandoc',
);

/** As a reader sees it, without bold and underlines. */
const shown = (name: string): string =>
  spawnSync('groff', ['-man', '-Tascii', '-P-c', '-rLL=100n', file(name)], { encoding: 'utf8' })
    .stdout.replace(/.[\b]/g, '')
    .replace(/\s+/g, ' ');

test.skipIf(groffIsHere)('groff warns of nothing, and shows every command, option, key and exit code', () => {
  for (const [name] of PAGES) {
    const { status, stderr } = spawnSync('groff', ['-man', '-Tutf8', '-ww', '-z', file(name)], { encoding: 'utf8' });
    expect([name, status, stderr]).toEqual([name, 0, '']);
  }
  const page = shown('hostdev.1');
  for (const c of COMMANDS) {
    expect(page).toContain(synopsis(c).replaceAll('…', '...'));
    for (const [name, o] of Object.entries(c.own ?? {}))
      expect(page).toContain(optionText(name, o).replaceAll('…', '...'));
  }
  const config = shown('hostdev.toml.5');
  for (const section of Object.keys(SCHEMA) as SectionName[]) {
    expect(config).toContain(SCHEMA[section].list ? `[[${section}]]` : `[${section}]`);
    for (const key of Object.keys(keysOf(section))) expect(config).toContain(key);
  }
  for (const code of Object.values(EXIT)) expect(shown('hostdev.7')).toMatch(new RegExp(` ${code} [A-Za-z]`));
});

test.skipIf(mandocIsHere)('mandoc warns of nothing', () => {
  for (const [name] of PAGES) {
    const { stdout } = spawnSync('mandoc', ['-T', 'lint', '-W', 'warning', file(name)], { encoding: 'utf8' });
    expect([name, stdout]).toEqual([name, '']);
  }
});
