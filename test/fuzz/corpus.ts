/**
 * Our verdict on domains of a folder beside libvirt's: `node test/fuzz/run.mjs --corpus DIR` (files that are no domain
 * are left out).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ourFaults, type Target } from './domainVerdicts.ts';
import { askLibvirt } from './judge.ts';

const isDomain = (xml: string): boolean => /<domain[\s>]/.test(xml) && xml.length < 1_000_000;

/** One line for each domain about which the two do not agree, and how many were asked about. */
export async function corpusDisagreements(dir: string, target: Target): Promise<{ count: number; lines: string[] }> {
  const files = readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((f) => f.endsWith('.xml'))
    .sort();
  const domains = files
    .map((file) => ({ file, xml: readFileSync(join(dir, file), 'utf8') }))
    .filter((d) => isDomain(d.xml))
    // A name and a UUID of another would be redefined.
    .map((d, i) => ({
      file: d.file,
      xml: d.xml.replace(/<name>[^<]*<\/name>/, `<name>corpus-${i}</name>`).replace(/<uuid>[^<]*<\/uuid>/, ''),
    }));
  const said = await askLibvirt(
    target.uri,
    domains.map((_, i) => `corpus-${i}`),
    domains.map((d) => d.xml),
  );
  const lines = domains.flatMap(({ file, xml }, i) => {
    const ours = ourFaults(xml, target.versions);
    const libvirt = said[i] ?? null;
    if ((libvirt === null) === (ours.length === 0)) return [];
    return [`${file}\n    libvirt: ${libvirt ?? 'ok'}\n    ours: ${ours.join(' | ') || 'ok'}`];
  });
  return { count: domains.length, lines };
}
