/** Reads what judge.sh prints, and writes and reads the recorded verdicts in test/data/viommu. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { allDomains, fingerprint } from './allDomains.ts';

/** What one libvirt said: per domain its fingerprint, and null or the error. */
export type Verdicts = {
  libvirt: string;
  qemu: string;
  /** "qemu" runs libvirt's parser, its validators and those of its QEMU driver; "test" has no QEMU. */
  driver: 'qemu' | 'test';
  verdicts: Record<string, [fingerprint: string, error: string | null]>;
};

export const VERDICTS_DIR = join(import.meta.dirname, '../data/viommu');

/** The judges whose verdicts are recorded, in order of their files. */
export const recordedVerdicts = (): Verdicts[] =>
  readdirSync(VERDICTS_DIR)
    .filter((f) => /^verdicts-.*\.json$/.test(f))
    .sort()
    .map((f) => JSON.parse(readFileSync(join(VERDICTS_DIR, f), 'utf8')) as Verdicts);

/** What is neither of a vIOMMU nor of a host device: the number of vCPUs, the machine, features; and words of elements that are not ours. */
const OTHERS =
  /Maximum CPUs greater than|does not support machine type|feature is not supported for architecture|Extra element (features|vcpu) in interleave/;
export const isOthers = (error: string | null): boolean => error !== null && OTHERS.test(error);

/** A path of that machine's schema says nothing. */
const short = (error: string): string =>
  error
    .replace(/^error: /, '')
    .replace(/Unable to validate doc against \S+\s*/, '')
    .trim()
    .slice(0, 160);

/** The output of judge.sh as verdicts. */
export function parseVerdicts(output: string, driver: Verdicts['driver']): Verdicts {
  const prints = new Map(allDomains().map((d) => [d.id, fingerprint(d)]));
  const result: Verdicts = { libvirt: '', qemu: '', driver, verdicts: {} };
  for (const line of output.trim().split('\n')) {
    const [id = '', said = ''] = line.split('\t');
    if (id.startsWith('#libvirt ')) result.libvirt = id.slice(9).trim();
    else if (id.startsWith('#qemu ')) result.qemu = id.slice(6).trim();
    else result.verdicts[id] = [prints.get(id) ?? '', said.trim() === 'ok' ? null : short(said)];
  }
  return result;
}

/** The file's text: one line a domain, so that a change shows which. */
export const printVerdicts = (v: Verdicts): string =>
  `{\n  "libvirt": ${JSON.stringify(v.libvirt)},\n  "qemu": ${JSON.stringify(v.qemu)},\n  "driver": ${JSON.stringify(v.driver)},\n  "verdicts": {\n${Object.entries(
    v.verdicts,
  )
    .map(([id, row]) => `    ${JSON.stringify(id)}: ${JSON.stringify(row)}`)
    .join(',\n')}\n  }\n}\n`;
