/**
 * Our verdict on domains by chance beside that of libvirt: as recorded, and of the libvirt of this machine where there
 * is one. More: node test/fuzz/run.mjs.
 */
import { describe, expect, test } from 'vitest';
import { parseVersion } from '../../../src/domain/version.ts';
import { disagreements, kindOf, ourFaults } from '../../fuzz/domainVerdicts.ts';
import { fuzzDomains } from '../../fuzz/generate.ts';
import { TEST_DRIVER, virshVersion } from '../../fuzz/judge.ts';
import { fingerprintOf, readRecords } from '../../fuzz/record.ts';
import { nodesOf, shrunk, write } from '../../fuzz/tree.ts';
import { isLacking } from '../../lacking.ts';

const records = readRecords();
const virsh = virshVersion();

const keyOf = (r: { libvirt: string; driver: string }): string => `${r.libvirt} ${r.driver}`;

/** Of the domains that each refused, those that our rules refuse. */
const REFUSED_BY_US: Record<string, number> = { '9.0.0 test': 312, '9.0.0 qemu': 371, '11.3.0 qemu': 317 };

test('there are records of two libvirts, of the driver that all share and of QEMU', () => {
  expect(records.map(keyOf)).toEqual(expect.arrayContaining(['9.0.0 test', '9.0.0 qemu', '11.3.0 qemu']));
});

describe.each(records)('libvirt $libvirt, $driver driver, seed $seed', (r) => {
  const xmls = fuzzDomains(r.seed, r.verdicts.length, r.driver).map((d) => write(d.tree));

  test('was asked about these domains, took some and refused some', () => {
    expect(fingerprintOf(xmls)).toBe(r.fingerprint);
    expect(r.verdicts.split('+').length).toBeGreaterThan(100);
    expect(r.verdicts.split('-').length).toBeGreaterThan(100);
    expect(r.verdicts.split('?').length).toBeLessThan(r.verdicts.length / 3);
  });

  test('takes none that we refuse, and what is ours of those that it refuses is refused by us', () => {
    const versions = { libvirt: parseVersion(r.libvirt), qemu: parseVersion(r.qemu) };
    const judged = xmls.map((xml, i) => ({ said: r.verdicts[i], ours: ourFaults(xml, versions), xml }));
    expect(judged.filter((j) => j.said === '+' && j.ours.length > 0)).toEqual([]);
    // The rest is the schema's and the parser's to refuse. Whoever changes a rule sees what it costs.
    expect(judged.filter((j) => j.said === '-' && j.ours.length > 0)).toHaveLength(REFUSED_BY_US[keyOf(r)] ?? -1);
  });
});

const why = 'our verdicts are held against recorded ones only: apt-get install libvirt-clients';

test.skipIf(isLacking(virsh === null ? why : null))(
  'the libvirt of this machine takes no domain by chance that we refuse',
  async () => {
    const seed = Number(process.env.HOSTDEV_FUZZ_SEED ?? 7);
    const count = Number(process.env.HOSTDEV_FUZZ_COUNT ?? 200);
    const versions = { libvirt: parseVersion(virsh ?? ''), qemu: null };
    const found = await disagreements(seed, count, { uri: TEST_DRIVER, type: 'test', versions });
    const falseNos = found.filter((d) => d.libvirt === null);
    expect(falseNos.map((d) => `${kindOf(d)}\n${write(d.tree)}`)).toEqual([]);
  },
);

test('the same seed makes the same domains, and a tree shrinks by one thing at a time', () => {
  const [a] = fuzzDomains(3, 1, 'test');
  const [b] = fuzzDomains(3, 1, 'test');
  expect(a).toEqual(b);
  const tree = a?.tree ?? expect.fail('no domain');
  const things = nodesOf(tree).reduce((n, e) => n + e.children.length + e.attributes.length, 0);
  expect(shrunk(tree)).toHaveLength(things);
  expect(new Set(shrunk(tree).map(write)).has(write(tree))).toBe(false);
});
