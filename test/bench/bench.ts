/**
 * `npm run bench [-- host|start|bind|engine|vm|pools|early] [--write]`: prints the tables; with --write they go into
 * docs/benchmarks.md.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { benchBind } from './bindTime.ts';
import { benchEarly } from './early.ts';
import { benchEngine } from './engine.ts';
import { benchMachine } from './inMachine.ts';
import { benchHost } from './onHost.ts';
import { benchPools } from './pools.ts';
import { benchStart } from './start.ts';

const PAGE = 'docs/benchmarks.md';

async function main(words: string[]): Promise<void> {
  const all = !['host', 'start', 'bind', 'engine', 'vm', 'pools', 'early'].some((w) => words.includes(w));
  const machine = `Measured on ${new Date().toISOString().slice(0, 10)}, node ${process.versions.node}, Linux ${release()}, ${cpus().length} x ${cpus()[0]?.model ?? 'unknown CPU'}.`;
  for (const [name, measure] of [
    ['host', benchHost],
    ['start', benchStart],
    ['bind', benchBind],
    ['engine', benchEngine],
    ['vm', benchMachine],
    ['pools', benchPools],
    ['early', benchEarly],
  ] as const) {
    if (!all && !words.includes(name)) continue;
    const text = `${machine}\n\n${await measure()}`;
    process.stdout.write(`${text}\n`);
    if (words.includes('--write')) replaceSection(name, text);
  }
}

function replaceSection(name: string, text: string): void {
  const page = readFileSync(PAGE, 'utf8');
  const [begin, end] = [`<!-- ${name}: npm run bench -- ${name} --write -->`, `<!-- end ${name} -->`];
  const from = page.indexOf(begin);
  const to = page.indexOf(end);
  if (from < 0 || to < 0) throw new Error(`${PAGE} has no section ${name}`);
  writeFileSync(PAGE, `${page.slice(0, from + begin.length)}\n\n${text}\n${page.slice(to)}`);
}

await main(process.argv.slice(2));
