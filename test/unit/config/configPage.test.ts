/** docs/reference/config.md says what src/config/schema.ts says; UPDATE_DOCS=1 writes it anew. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { KeyRule, Section } from '../../../src/config/keyRule.ts';
import { keysOf, NOVA_OPTIONS, SCHEMA, type SectionName } from '../../../src/config/schema.ts';

const PAGE = 'docs/reference/config.md';
const MADE =
  '<!-- Made from src/config/schema.ts by test/unit/config/configPage.test.ts; to change it: UPDATE_DOCS=1 npx vitest run configPage -->';

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '\\<');
const row = (...cells: string[]): string => `| ${cells.map(cell).join(' | ')} |\n`;

function keyRow(name: string, rule: KeyRule): string {
  const type = rule.types.join(' or ');
  const nova = rule.nova === null ? "hostdev's own" : rule.nova === '' ? 'the same' : rule.nova;
  return row(`\`${name}\``, type, rule.required ? 'must be given' : rule.otherwise, rule.rule, nova);
}

function section(name: SectionName): string {
  const s: Section = SCHEMA[name];
  return [
    `## \`${s.list ? `[[${name}]]` : `[${name}]`}\`\n\n${s.text}\n`,
    s.novaName === null ? '' : `\nIn nova.conf: ${s.novaName}.\n`,
    s.open
      ? '\nA key that is not listed is a tag of your own: it becomes part of the pool, as in Nova. One that looks like a listed key mistyped is a mistake.\n'
      : '',
    `\n${row('Key', 'Type', 'When left out', 'Rule', "Differs from Nova's, and why")}${row('---', '---', '---', '---', '---')}`,
    ...Object.entries(keysOf(name)).map(([k, r]) => keyRow(k, r)),
  ].join('');
}

function page(): string {
  const options = NOVA_OPTIONS.map((o) => row(`\`[${o.section}] ${o.name}\``, `\`${o.is}\``));
  return `# Configuration

${MADE}

hostdev reads \`/etc/hostdev/hostdev.toml\` and then \`/etc/hostdev/conf.d/*.toml\` in the order of their names: \`[[…]]\` add up, of the other settings the last
counts. \`--config FILE|DIR\` takes other files instead, and may be given several times: a file whose name ends in \`.toml\` is hostdev's, any other is
Nova's; of a folder, \`hostdev.toml\` with \`conf.d\`, or its \`*.toml\`, or its \`*.conf\`. Of both kinds, Nova's go
first, and hostdev's add what nova.conf has no place for. \`hostdev config check\` tells every mistake with file, line,
column and key. What specs,
aliases and requests mean in every detail: [device-spec.md](device-spec.md).

${(Object.keys(SCHEMA) as SectionName[]).map(section).join('\n')}
## nova.conf

These options are read, and nothing else:

${row('Option', 'Here')}${row('---', '---')}${options.join('')}
The rules are oslo.config's: an option may be given several times; a line that begins with a blank continues the value above it, an empty line or a comment
ends it; a comment begins with \`#\` or \`;\` at the first column; quotes around the whole first line of a value are taken off; \`$name\` and \`\${name}\` stand
for another option, \`$$\` for a dollar sign. Sections may be in any case, but for DEFAULT. Each value of \`device_spec\` is a JSON object or a list of them,
each value of \`alias\` one JSON object.

Where hostdev differs: it tells all mistakes of a file, where oslo stops at the first; an option of ours that is mistyped or stands in the wrong section,
which Nova reads over, is a mistake; a \`$name\` that no file sets is one too, because Nova's defaults are not known here. Of the files of nova-compute you
name each: \`--config /etc/nova/nova.conf --config /etc/nova/nova.conf.d\`.

## What is printed with -j

\`config check\`: \`form\` (hostdev, nova, both, none), \`files\`, \`mistakes\` and \`remarks\`, each
\`{file, line, column, key, severity, fatal, message, hint, corrected}\` (line and column from 1; \`fatal\`: nova-compute would not start, and no command of
hostdev's uses the configuration; \`corrected\`: the line as it should read, or null), \`specs\` \`[{index, key, file, line, devices, hidden}]\` (\`hidden\`: what
an earlier spec takes) and \`aliases\` \`[{name, file, line, devices}]\` (how many devices it could get, null where a mistake keeps it from being counted)
and \`wishes\` \`[{key, file, line, address, met, reason}]\` (\`address\`: the device that is meant, null for none).

\`pool list\`: \`pools\` \`[{keys, physical_network, resource_classes, total, free, claimed, unavailable, devices}]\` in Nova's order, each device
\`{address, state, reason, consumer, resource_class, wish}\`; \`networks\` \`[{physical_network, total, free, claimed, unavailable}]\`; \`left_out\` \`[{address, reason}]\`.

\`claim -n\`: \`changed\` (false) and \`requests\` \`[{alias_name, count, numa_policy, devices}]\` in the order of the request, each device
\`{address, vendor_id, product_id, dev_type, numa_node, provider}\` in the order of picking. Without capacity (exit 3) \`requests\` is
\`[{alias_name, wanted, offered, free}]\`, beside \`error\`.

\`wish list\`, \`wish check\`: \`wishes\` \`[{kind, wished_address, vf, path, vendor_id, …, driver, group, vfs, for, ranges, allow, file, line, address,
driver_now, met, reason}]\` (check also \`refused\`), \`mistakes\` as above. \`wish add|remove\`, and \`--persist\`: \`kept\` \`{file, added, removed, already}\`, each a list
of wishes. \`boot apply\`, \`boot status\`: \`off\`, \`at\`, \`wishes\` \`[{subject, kind, wished_address, file, line, address, met, stage, at, reason}]\` (\`stage\`: early,
apply, pf, added, before), \`mistakes\`; \`boot apply\` also \`early\` \`{at, table, problem, devices}\`, null without a part in the initramfs; the same is
in \`/run/hostdev/boot.json\`. \`boot status\` and \`status\`: \`initramfs_vital\` \`[{address, reason}]\`, devices of the initramfs's table that the host has come to stand on, null where that is not
to be told. \`boot install|refresh|remove\`: \`changed\`, \`table\` \`{file, hash, devices}\`, \`left\` \`[{address, guard, reason}]\`, \`images\`
\`[{file, release, maker, made, seconds}]\`.

\`placement show\`: \`hypervisor_hostname\`, \`providers\` \`{name: {inventory, traits, devices}}\`, \`not_reported\` (addresses).
`;
}

test(`${PAGE} is up to date`, () => {
  if (process.env.UPDATE_DOCS) writeFileSync(PAGE, page());
  expect(readFileSync(PAGE, 'utf8')).toBe(page());
});

test('every key has a rule in words', () => {
  for (const name of Object.keys(SCHEMA) as SectionName[])
    for (const [key, rule] of Object.entries(keysOf(name))) {
      expect([name, key, rule.rule.length > 5, rule.otherwise.length > 0]).toEqual([name, key, true, true]);
      for (const value of rule.values ?? []) expect(rule.rule).toContain(value);
    }
});
