/** docs/reference/viommu.md says what the tables of models, attributes and rules say; UPDATE_DOCS=1 writes it anew. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { DOMAIN_RULES } from '../../../src/domain/checkDomain.ts';
import { formatVersion } from '../../../src/domain/version.ts';
import { ATTRIBUTES, GRANULE, MODELS, VIOMMU_MODELS } from '../../../src/domain/viommu/models.ts';
import { recordedVerdicts } from '../../matrix/verdicts.ts';

const PAGE = 'docs/reference/viommu.md';

const MADE =
  '<!-- Made from src/domain by test/unit/domain/viommuPage.test.ts; to change it: UPDATE_DOCS=1 npx vitest run viommuPage -->';

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '\\<').replaceAll('*', '\\*');

const table = (head: string[], rows: string[][]): string =>
  [head, head.map(() => '---'), ...rows.map((r) => r.map(cell))].map((r) => `| ${r.join(' | ')} |\n`).join('');

const STAGES: Record<string, string> = {
  define:
    'libvirt refuses the definition (VIR_DOMAIN_DEFINE_VALIDATE); so is what its schema refuses (rule `schema`): exit 3',
  assign: 'it is defined, and does not start with the devices that it takes: exit 3',
  start: 'QEMU will refuse it at start, or the hook cannot read it: said, exit 0',
  advice: 'it works, and not as meant: said, exit 0',
};

function page(): string {
  const attributes = [
    ...Object.entries(ATTRIBUTES),
    ['granule (element)', { ...GRANULE, text: 'page size: mode or size' }] as const,
  ];
  return [
    `# vIOMMU and domain rules\n\n${MADE}\n\n`,
    'What hostdev itself judges of a domain: PCI hostdevs, interfaces of type hostdev, NVMe disks, vIOMMUs, and what these need. For every other word of a domain `hostdev domain check` asks the schema of the installed libvirt (domain.rng, by xmllint), and names who judged and who did not ([decision 0014](../decisions/0014-domain-check.md)).\n\n',
    '`hostdev viommu suggest` and `hostdev domain check` follow these tables. A version is that of libvirt unless QEMU is named; what holds in all versions has none.\n',
    `Judged by real libvirts, domain by domain: ${recordedVerdicts()
      .map((v) => `libvirt ${v.libvirt} with QEMU ${v.qemu}`)
      .join(', ')} (test/data/viommu).\n\n`,
    '## Models\n\n',
    table(
      ['Model', 'libvirt', 'QEMU', 'Machine', 'Guest address', 'Source'],
      VIOMMU_MODELS.map((m) => {
        const r = MODELS[m];
        return [
          `\`${m}\``,
          formatVersion(r.libvirt),
          formatVersion(r.qemu),
          r.machine,
          r.pci ? 'PCI, bus 0' : 'none',
          r.source,
        ];
      }),
    ),
    '\n## Attributes of `<driver>`\n\n',
    'The version from which each model takes it; before the first of them the schema does not know it.\n\n',
    table(
      ['Attribute', ...VIOMMU_MODELS, 'What it is'],
      attributes.map(([name, row]) => [
        `\`${name}\``,
        ...VIOMMU_MODELS.map((m) => (row.models[m] === undefined ? '–' : formatVersion(row.models[m]))),
        row.text,
      ]),
    ),
    '\n## Rules\n\n',
    ...Object.entries(STAGES).map(([stage, text]) => `- \`${stage}\`: ${text}\n`),
    '\n',
    table(
      ['Rule', 'Stage', 'What must hold', 'Since', 'What to do', 'Source'],
      DOMAIN_RULES.map((r) => [`\`${r.id}\``, r.stage, r.holds, r.since ?? '', r.fix, r.source]),
    ),
  ].join('');
}

test(`${PAGE} is up to date`, () => {
  const text = page();
  if (process.env.UPDATE_DOCS) writeFileSync(PAGE, text);
  expect(readFileSync(PAGE, 'utf8')).toBe(text);
});

test('every rule has an id of its own, one sentence, a fix and a source', () => {
  expect(new Set(DOMAIN_RULES.map((r) => r.id)).size).toBe(DOMAIN_RULES.length);
  for (const r of DOMAIN_RULES) {
    expect(r.id).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/);
    for (const text of [r.holds, r.fix, r.source]) expect(text).toMatch(/^\S.*[^.\s]$/);
    expect(Object.keys(STAGES)).toContain(r.stage);
  }
});
