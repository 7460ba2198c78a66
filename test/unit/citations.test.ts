/** What documents and comments name is in the repository: files, folders, the tests and scripts to run. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';

const FOLDERS = ['debian', 'docs', 'hooks', 'native', 'src', 'systemd', 'test', 'tools'];

const paths = [
  ...readdirSync('.'),
  ...FOLDERS.flatMap((f) => [f, ...readdirSync(f, { recursive: true, encoding: 'utf8' }).map((n) => join(f, n))]),
];
const files = paths.filter((p) => statSync(p).isFile());
const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> };

/** A document whole; of code, its comments. Nothing of data that tests read. */
function prose(file: string): string {
  if (file.startsWith('test/data/')) return '';
  // Where a link leads is what counts, not its words.
  if (file.endsWith('.md')) return readFileSync(file, 'utf8').replace(/\[[^\]]*\](?=\()/g, '');
  if (!/\.(ts|mjs|cc|h)$/.test(file)) return '';
  return [...readFileSync(file, 'utf8').matchAll(/^\s*(?:\/?\*|\/\/).*$|\s\/\/ .*$/gm)].join('\n');
}

/**
 * True where a path is the one named, or ends in it (`binding/bind.ts`); documents are many of one name, and named in
 * full or from beside.
 */
const isHere = (named: string, from: string): boolean =>
  paths.includes(named) ||
  existsSync(join(dirname(from), named)) ||
  (!named.endsWith('.md') && paths.some((p) => p.endsWith(`/${named}`)));

/** A file of ours by its ending; .cc and .h only below a folder of ours, because the kernel's are cited too. */
const FILE =
  /(?<![\w/.$}~<-])((?:\.\.?\/)*(?:[\w-]+\/)*[\w][\w.-]*\.(?:ts|mjs|md)|(?:native|test)\/[\w/.-]+\.(?:cc|h))\b(?![\w/])/g;
const FOLDER = /(?<![\w/.$}~<-])((?:src|test|native|tools)\/[\w/-]*\w)(?![\w.*…-])/g;

/** Others' documents and sources, what a command makes, and a word that stands for any. */
const NOT_OURS = /BOOT\.md$|^src\/(util|qemu)$|^\.cache\/|\bFILE$/;

function* citations(file: string): Generator<string> {
  const text = prose(file);
  for (const [, named = ''] of text.matchAll(FILE)) if (!NOT_OURS.test(named) && !isHere(named, file)) yield named;
  for (const [, named = ''] of text.matchAll(FOLDER)) if (!NOT_OURS.test(named) && !isHere(named, file)) yield named;
  for (const [, words = ''] of text.matchAll(/vitest run ((?:[\w./]+(?: |`|$))+)/gm))
    for (const word of words.split(/[ `]/))
      if (!NOT_OURS.test(word) && !files.some((f) => f.endsWith('.test.ts') && f.includes(word)))
        yield `vitest run ${word}`;
  for (const [, name = ''] of text.matchAll(/npm run ([\w:]+)/g)) if (!(name in scripts)) yield `npm run ${name}`;
}

test('what documents and comments name is in the repository', () => {
  const wrong = files.flatMap((f) => [...citations(f)].map((named) => `${f}: ${named}`));
  expect(files.length).toBeGreaterThan(300);
  expect(wrong).toEqual([]);
});
