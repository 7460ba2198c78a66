/** The page of commands says what the table of commands says; UPDATE_DOCS=1 writes it anew. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { COMMANDS } from '../../../src/cli/commands.ts';
import { helpText } from '../../../src/cli/help.ts';

const PAGE = 'docs/reference/commands.md';
const MADE =
  '<!-- Made from src/cli/commands.ts by test/unit/cli/commandsPage.test.ts; to change it: UPDATE_DOCS=1 npx vitest run commandsPage -->';

/** The guards have a page of their own. */
const block = (help: string): string => `\`\`\`text\n${help.split('\nGuards:\n')[0]?.trimEnd()}\n\`\`\`\n`;

const page = (): string =>
  [
    `# Commands\n\n${MADE}\n\n`,
    'What `hostdev --help` and `hostdev COMMAND --help` print. What `--allow` takes is in [guards.md](guards.md), what a command ends with\n',
    'in [exit-codes.md](exit-codes.md).\n\n',
    block(helpText([])),
    ...COMMANDS.map((c) => `\n## ${c.name}\n\n${block(helpText([c]))}`),
  ].join('');

test('docs/reference/commands.md is up to date', () => {
  if (process.env.UPDATE_DOCS) writeFileSync(PAGE, page());
  expect(readFileSync(PAGE, 'utf8')).toBe(page());
});
