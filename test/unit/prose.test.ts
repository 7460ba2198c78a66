/** The form of what is written for people: comments that fit a screen, decisions that can be counted. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const WIDTH = 120;

const code = ['native', 'src', 'test', 'tools'].flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((file) => /\.(ts|mjs|cc|h)$/.test(file)),
);

test('comments wrap at 120', () => {
  const wide = code.flatMap((file) =>
    readFileSync(file, 'utf8')
      .split('\n')
      .flatMap((line, n) => (/^\s*(\/\*|\*|\/\/)/.test(line) && line.length > WIDTH ? [`${file}:${n + 1}`] : [])),
  );
  expect(code.length).toBeGreaterThan(300);
  expect(wide).toEqual([]);
});

test('decisions are numbered without holes, by their titles too', () => {
  const files = readdirSync('docs/decisions').sort();
  const numbers = files.map((_, i) => `${i + 1}`.padStart(4, '0'));
  expect(files.map((f) => f.slice(0, 4))).toEqual(numbers);
  const titles = files.map((f) => readFileSync(join('docs/decisions', f), 'utf8').split('\n')[0]?.slice(0, 7));
  expect(titles).toEqual(numbers.map((n) => `# ${n}:`));
});
