/**
 * Our verdict on every domain of the matrix beside that of real libvirts (test/data/viommu; how they were asked:
 * test/matrix/judge.sh).
 */
import { describe, expect, test } from 'vitest';
import { checkDomain } from '../../../src/domain/checkDomain.ts';
import { readDomainFacts } from '../../../src/domain/domainFacts.ts';
import { parseVersion, type Versions } from '../../../src/domain/version.ts';
import { VIOMMU_DEFINE_RULES } from '../../../src/domain/viommu/defineRules.ts';
import { VIOMMU_START_RULES } from '../../../src/domain/viommu/startRules.ts';
import { readDomain } from '../../../src/domain/xml/domain.ts';
import { allDomains, fingerprint } from '../../matrix/allDomains.ts';
import { suggestedDomains, TARGETS } from '../../matrix/suggestedDomains.ts';
import { isOthers, recordedVerdicts } from '../../matrix/verdicts.ts';
import { viommuDomains } from '../../matrix/viommuDomains.ts';

const domains = allDomains();
const judges = recordedVerdicts();
const facts = new Map(domains.map((d) => [d.id, readDomainFacts(readDomain(d.xml, d.id))]));
const factsOf = (id: string) => facts.get(id) ?? expect.fail(`no domain ${id}`);
const versionsOf = (j: { libvirt: string; qemu: string }): Versions => ({
  libvirt: parseVersion(j.libvirt),
  qemu: parseVersion(j.qemu),
});

test('the matrix is large enough, and no domain is there twice', () => {
  expect(viommuDomains().length).toBeGreaterThanOrEqual(150);
  expect(new Set(domains.map((d) => d.id)).size).toBe(domains.length);
  expect(judges.map((j) => j.libvirt)).toEqual(expect.arrayContaining(['9.0.0', '11.3.0', '12.8.0']));
});

describe.each(judges)('libvirt $libvirt with QEMU $qemu', (judge) => {
  test('was asked about every domain as it is now, took some and refused some', () => {
    const stale = domains.filter((d) => judge.verdicts[d.id]?.[0] !== fingerprint(d)).map((d) => d.id);
    expect(stale).toEqual([]);
    const said = Object.values(judge.verdicts).map(([, error]) => error === null);
    expect(said.filter(Boolean).length).toBeGreaterThan(100);
    expect(said.filter((ok) => !ok).length).toBeGreaterThan(100);
  });

  test('agrees with us row by row, but for what is not ours to judge', () => {
    const rows = domains.flatMap((d) => {
      const error = judge.verdicts[d.id]?.[1] ?? null;
      const why = checkDomain(factsOf(d.id), versionsOf(judge))
        .filter((f) => f.stage === 'define')
        .map((f) => `${f.rule}: ${f.cause}`);
      return (why.length === 0) === (error === null) || isOthers(error)
        ? []
        : [{ id: d.id, libvirt: error ?? 'ok', ours: why }];
    });
    expect(rows).toEqual([]);
  });
});

test('what an older libvirt refuses and a newer takes: the finding names the version that is needed', () => {
  const rows: string[] = [];
  for (const [n, old] of judges.entries()) {
    for (const d of domains) {
      const later = judges.slice(n + 1).find((j) => j.verdicts[d.id]?.[1] === null);
      if (old.verdicts[d.id]?.[1] === null || !later) continue;
      const findings = checkDomain(factsOf(d.id), versionsOf(old));
      const named = findings.filter((f) => f.stage === 'define').some((f) => /\d+\.\d+\.\d+/.test(f.since ?? ''));
      if (!named && !isOthers(old.verdicts[d.id]?.[1] ?? null))
        rows.push(`${old.libvirt} ${d.id}: ${findings.map((f) => f.rule).join(' ')}`);
    }
  }
  expect(rows).toEqual([]);
});

test('every rule of the vIOMMU is broken by a domain of the matrix, on some version', () => {
  const targets: Versions[] = [
    ...TARGETS.map(versionsOf),
    { libvirt: parseVersion('8.0.0'), qemu: parseVersion('6.2.0') },
    { libvirt: parseVersion('11.10.0'), qemu: parseVersion('10.1.0') },
  ];
  const broken = new Set(
    domains.flatMap((d) => targets.flatMap((t) => checkDomain(factsOf(d.id), t).map((f) => f.rule))),
  );
  // These need a domain type, an element or a device that the matrix has none of; viommu.test.ts breaks them.
  const elsewhere = ['viommu-driver', 'viommu-virtio-devices', 'amd-vfio'];
  expect(
    [...VIOMMU_DEFINE_RULES, ...VIOMMU_START_RULES]
      .map((r) => r.id)
      .filter((id) => !broken.has(id) && !elsewhere.includes(id)),
  ).toEqual([]);
});

describe('what is suggested', () => {
  test.each(TARGETS)('libvirt $libvirt takes it, and nothing of ours stands against it', (target) => {
    const mine = suggestedDomains().filter((d) => d.id.startsWith(`suggested-${target.libvirt}-`));
    expect(mine.length).toBeGreaterThan(10);
    const judge = judges.find((j) => j.libvirt === target.libvirt);
    const rows = mine.flatMap((d) => {
      const findings = checkDomain(factsOf(d.id), versionsOf(target));
      const against = findings.filter((f) => f.stage !== 'advice').map((f) => f.rule);
      const error = judge?.verdicts[d.id]?.[1] ?? null;
      return error === null && against.length === 0 ? [] : [{ id: d.id, error, against }];
    });
    expect(rows).toEqual([]);
  });
});
