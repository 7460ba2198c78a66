/**
 * What `domain plan` writes passes libvirt's own schema, and its test driver keeps all of it. The same for a later
 * libvirt is in test/vm/plan.vm.test.ts.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { has, isLacking } from '../../lacking.ts';
import { Plans, WISHES } from '../../mock/plans.ts';
import { droppedFromDomain } from '../../mock/stored.ts';

const SCHEMA = '/usr/share/libvirt/schemas/domain.rng';
const noSchema = isLacking(
  existsSync(SCHEMA) && has('xmllint')
    ? null
    : `no XML of ours meets libvirt's schema: apt-get install libvirt0 libxml2-utils`,
);
const noVirsh = isLacking(has('virsh') ? null : 'no libvirt takes XML of ours: apt-get install libvirt-clients');

const plans = new Plans();
beforeAll(() => plans.write(WISHES, { libvirt: '9.0.0', qemu: '7.2.0' }));
afterAll(() => plans.remove());

test('there is much to judge, of every wish', () => {
  expect(plans.written.length).toBeGreaterThan(300);
  for (const wish of Object.keys(WISHES))
    expect(
      plans.written.some((w) => w.name.endsWith(`: ${wish}`)),
      wish,
    ).toBe(true);
});

describe.skipIf(noSchema)("libvirt's RelaxNG", () => {
  test('is passed by whatever passed it before', () => {
    const r = spawnSync(
      'xmllint',
      ['--noout', '--relaxng', SCHEMA, ...plans.written.map((w) => join(plans.dir, w.file))],
      {
        encoding: 'utf8',
        maxBuffer: 1 << 28,
      },
    );
    const failed = plans.written.filter((w) => !r.stderr.includes(`${join(plans.dir, w.file)} validates\n`));
    expect(failed.map((w) => w.name)).toEqual([]);
  });

  test('would refuse what is no device', () => {
    const file = join(plans.dir, 'bad.xml');
    writeFileSync(file, plans.written[0]?.xml.replace("<driver name='vfio'/>", "<driver nome='vfio'/>") ?? '');
    expect(spawnSync('xmllint', ['--noout', '--relaxng', SCHEMA, file]).status).not.toBe(0);
  });
});

describe.skipIf(noVirsh)("libvirt's test driver", () => {
  test('takes all with VALIDATE, and keeps what was asked for', async () => {
    const virsh = (commands: string) =>
      spawnSync('virsh', ['-q', '-c', 'test:///default', commands], { encoding: 'utf8', maxBuffer: 1 << 28 });
    expect(await plans.refusedOrDropped(plans.dir, virsh)).toEqual([]);
  });
});

test('a thing that was dropped is seen', () => {
  const asked =
    "<domain><devices><hostdev type='pci'><rom bar='on'/></hostdev></devices><features><acpi/></features></domain>";
  expect(droppedFromDomain(asked, "<domain><devices><hostdev type='pci'><rom/></hostdev></devices></domain>")).toEqual([
    "<hostdev><rom> bar='on'",
    '<features>',
  ]);
  expect(droppedFromDomain(asked, asked)).toEqual([]);
});
