/**
 * Warnings are data: `{address, id, text}`, of ids that the page lists, and of a device by its address and by nothing
 * in their words.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { GUARDS } from '../../../src/binding/guards.ts';
import { about, WARNINGS, warning } from '../../../src/text/warning.ts';
import { pageTable } from '../../mock/pages.ts';
import { StaticHost } from '../../mock/tree.ts';

const PAGE = 'docs/reference/warnings.md';

function page(): string {
  const guards = Object.keys(GUARDS).map((g) => [
    `\`guard-${g}\``,
    `The guard [${g}](guards.md), where it does not refuse.`,
  ]);
  return [
    '# Warnings\n\n',
    '<!-- Made from src/text/warning.ts by test/unit/text/warnings.test.ts; to change it: UPDATE_DOCS=1 npx vitest run warnings -->\n\n',
    'What is worth saying beside an answer goes to stderr, a line each, and with `-j` into `warnings`, a list of\n',
    '`{"address", "id", "text"}` that is left out when it is empty. `address` is the device that it is about, null where that\n',
    'is none or several. `id` is one of these; `text` is for people, and its words may change.\n\n',
    pageTable(
      ['Id', 'What it says'],
      [...Object.entries(WARNINGS).map(([id, text]) => [`\`${id}\``, text]), ...guards],
    ),
  ].join('');
}

test(`${PAGE} is up to date`, () => {
  if (process.env.UPDATE_DOCS) writeFileSync(PAGE, page());
  expect(readFileSync(PAGE, 'utf8')).toBe(page());
});

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

/** A function whose numa_node the kernel never wrote. */
function withNonsense(...addresses: string[]): StaticHost {
  const h = new StaticHost();
  hosts.push(h);
  for (const a of addresses) {
    const device = `sys/bus/pci/devices/${a}`;
    h.file(`${device}/modalias`, 'pci:v00008086d000010C9sv00000000sd00000000bc02sc00i00\n');
    h.file(`${device}/numa_node`, 'nowhere\n');
    h.file(`${device}/sriov_totalvfs`, 'many\n');
  }
  return h;
}

const [NEAR, FAR] = ['0000:01:00.0', '10000:01:00.0'];

test('a device gets its own warnings, and not those of one whose address ends like its own', () => {
  expect(about([warning('malformed', `${FAR}: x`, FAR), warning('nova', `of ${NEAR}`)], NEAR)).toEqual([]);
  const h = withNonsense(NEAR, FAR);
  const all = h.run('-j', 'list').json.warnings;
  expect(all.map((w) => [w.address, w.id])).toEqual([NEAR, NEAR, FAR, FAR].map((a) => [a, 'malformed']));
  for (const args of [
    ['show', NEAR],
    ['group', 'why', NEAR],
  ])
    expect(
      h
        .run('-j', ...args)
        .json.warnings.filter((w) => w.id === 'malformed')
        .map((w) => w.address),
    ).toEqual([NEAR, NEAR]);
});

test('why a device is no PF is known by what could not be read of it, and not by words', () => {
  const h = withNonsense(NEAR, FAR);
  h.file(`sys/bus/pci/devices/${NEAR}/sriov_totalvfs`, '0\n');
  expect(h.run('-j', 'vf', 'list', NEAR).json.error.message).toBe(
    `${NEAR} is no PF: it has no SR-IOV, or can have no VFs`,
  );
  expect(h.run('-j', 'vf', 'list', FAR).json.error.message).toContain(`${FAR}: ignored sriov_totalvfs "many`);
  h.remove(`sys/bus/pci/devices/${FAR}/sriov_totalvfs`);
  h.folder(`sys/bus/pci/devices/${FAR}/sriov_totalvfs`);
  expect(h.run('-j', 'vf', 'list', FAR).json.error.message).toMatch(/Failed to read .*sriov_totalvfs: EISDIR/);
});

test('each has these three keys and no other, whatever warns', () => {
  const h = withNonsense(NEAR);
  h.file('etc/hostdev/hostdev.toml', '[[device_spec]]\nproduct_id = "10c9"\nmanged = "no"\n');
  h.file('domain.xml', '<domain type="kvm"><name>a</name></domain>');
  const seen = new Set<string>();
  for (const args of [
    ['list'],
    ['show', NEAR],
    ['group', 'list'],
    ['pool', 'list'],
    ['claim', 'x:1', '-n'],
    ['config', 'check'],
    ['placement', 'show'],
    ['status'],
    ['doctor'],
    ['domain', 'check', h.path('domain.xml'), '--libvirt', '9.0.0'],
    ['bind', '-n', NEAR],
  ])
    for (const w of h.run('-j', ...args).json.warnings ?? []) {
      expect(Object.keys(w)).toEqual(['address', 'id', 'text']);
      expect(w.id in WARNINGS || w.id.startsWith('guard-')).toBe(true);
      seen.add(w.id);
    }
  expect([...seen].sort()).toEqual(expect.arrayContaining(['config', 'malformed', 'no-iommu', 'not-measured']));
});
