/**
 * docs/hostdev.toml is the sample that the schema gives (UPDATE_DOCS=1 writes it anew), and it holds with every line in
 * force.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { keysOf, SCHEMA, type SectionName } from '../../../src/config/schema.ts';
import { hostdev, StaticHost } from '../../mock/tree.ts';
import { sample, uncommented } from './sample.ts';

const PAGE = 'docs/hostdev.toml';

test('the sample is up to date, and has every table and key', () => {
  if (process.env.UPDATE_DOCS) writeFileSync(PAGE, sample());
  const text = readFileSync(PAGE, 'utf8');
  expect(text).toBe(sample());
  for (const name of Object.keys(SCHEMA) as SectionName[]) {
    expect(text).toContain(`${SCHEMA[name].list ? `[[${name}]]` : `[${name}]`}\n`);
    for (const key of Object.keys(keysOf(name)))
      expect([name, key, text.includes(`\n#${key} = `)]).toEqual([name, key, true]);
  }
});

test('as it is it says nothing, and with every line in force that may stand together it has no mistake', () => {
  const host = new StaticHost({ devices: [{ address: '0000:21:00.0', ids: '8086:10c9', group: 1 }] });
  const folder = mkdtempSync(join(tmpdir(), 'hostdev-sample-'));
  // devname and what Placement is told exclude each other.
  const all = uncommented(sample());
  const reported = all.replace(/^devname = .*\n/m, '');
  const named = all
    .replace(/^one_time_use = .*\n/m, '')
    .replace('report_in_placement = true', 'report_in_placement = false');
  expect(new Set([all, reported, named, sample()]).size).toBe(4);
  for (const text of [sample(), reported, named]) {
    const file = join(folder, 'hostdev.toml');
    writeFileSync(file, text);
    const { exit, json } = hostdev(['--root', host.root, 'config', 'check', '--config', file, '-j']);
    expect([exit, (json as { mistakes?: unknown }).mistakes]).toEqual([0, []]);
  }
  host.remove();
  rmSync(folder, { recursive: true });
});
