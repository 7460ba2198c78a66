/**
 * What real libvirts said of the fuzzer's domains, kept so that a machine without them can hold us against it:
 * test/data/fuzz/verdicts.json.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Target } from './domainVerdicts.ts';
import { fuzzDomains } from './generate.ts';
import { askLibvirt } from './judge.ts';
import { nameOf, write } from './tree.ts';

export type Recorded = {
  libvirt: string;
  qemu: string;
  driver: 'qemu' | 'test';
  seed: number;
  /** Of the domains' XML: a generator that changed needs new verdicts. */
  fingerprint: string;
  /** By domain: + defined, - refused, ? that machine could not judge it. */
  verdicts: string;
};

const RECORDS = join(import.meta.dirname, '../data/fuzz/verdicts.json');

export const readRecords = (file = RECORDS): Recorded[] =>
  existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Recorded[]) : [];

export const fingerprintOf = (xmls: string[]): string =>
  createHash('sha256').update(xmls.join('\n')).digest('hex').slice(0, 16);

/**
 * No verdict on the domain: an emulator that is not installed, a name that is there, the machine's own architecture
 * where the XML names none; and where libvirt puts controllers of its own, which hostdev does not judge.
 */
const NO_VERDICT =
  /No emulator found|already exists with uuid|No PCI buses available|index must be larger than bus|Cannot automatically add a new PCI bus|controllers are not supported with this machine/;

/** Asks and writes the answers beside those of other libvirts. */
export async function record(
  seed: number,
  count: number,
  target: Target,
  names: { libvirt: string; qemu: string },
  file = RECORDS,
): Promise<Recorded> {
  const domains = fuzzDomains(seed, count, target.type);
  const xmls = domains.map((d) => write(d.tree));
  const said = await askLibvirt(target.uri, domains.map(nameOf), xmls);
  const entry: Recorded = {
    ...names,
    driver: target.type === 'test' ? 'test' : 'qemu',
    seed,
    fingerprint: fingerprintOf(xmls),
    verdicts: said.map((s) => (s === null ? '+' : NO_VERDICT.test(s) ? '?' : '-')).join(''),
  };
  const others = readRecords(file).filter((r) => r.libvirt !== entry.libvirt || r.driver !== entry.driver);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify([...others, entry], null, 2)}\n`);
  return entry;
}
