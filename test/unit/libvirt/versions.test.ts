/**
 * Which libvirt and QEMU are here is what their programs say: older ones than passthrough wants are told of, without
 * one being installed.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { checkVersions } from '../../../src/actions/doctor.ts';
import { checkDomainXml } from '../../../src/actions/domainCheck.ts';
import { testHook } from '../../../src/actions/hookTest.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { tooOld, version } from '../../../src/domain/version.ts';
import { Host } from '../../../src/host/host.ts';
import { installedVersions } from '../../../src/libvirt/versions.ts';
import { virshVersion } from '../../fuzz/judge.ts';
import { isLacking } from '../../lacking.ts';
import { EVER } from '../../patience.ts';

const OPTIONS = { deadlineMs: EVER, verb: 'test', dryRun: true, allowed: new Set<never>() };
const dirs: string[] = [];
afterAll(() => {
  for (const d of dirs) rmSync(d, { recursive: true });
});

/** This machine, with programs that say these versions; null: there is no such program. */
function machine(libvirt: string | null, qemu: string | null): Host {
  const dir = mkdtempSync(join(tmpdir(), 'hostdev-programs-'));
  dirs.push(dir);
  const says = (name: string, text: string): void =>
    writeFileSync(join(dir, name), `#!/bin/sh\necho '${text}'\n`, { mode: 0o755 });
  if (libvirt !== null) says('libvirtd', `libvirtd (libvirt) ${libvirt}`);
  if (qemu !== null) says('qemu-system-x86_64', `QEMU emulator version ${qemu} (Debian)`);
  return Object.assign(new Host('/', loadNative()), { programs: dir });
}

const XML = Buffer.from(
  `<domain type='kvm'><name>g</name><memory>65536</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices><hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x7fff' bus='0' slot='0' function='0'/>
</source></hostdev></devices></domain>`,
);

describe.each([
  ['5.10.0', '4.1.1', ['libvirt', 'QEMU']],
  ['5.10.0', '4.2.0', ['libvirt']],
  ['6.0.0', '4.1.0', ['QEMU']],
  ['6.0.0', '4.2.0', []],
  ['4.0.0', null, ['libvirt']],
  [null, null, []],
])('libvirt %s, QEMU %s', (libvirt, qemu, old) => {
  const host = machine(libvirt, qemu);

  test('the finder has what the programs say', async () => {
    const found = await installedVersions(host, 'x86_64');
    expect(found).toEqual({ libvirt: libvirt && version(libvirt), qemu: qemu && version(qemu) });
    expect(tooOld(found).map((v) => v.program)).toEqual(old);
  });

  test('doctor and domain check say which is too old', async () => {
    expect((await checkVersions(host)).map((d) => [d.id, d.object])).toEqual(old.map((o) => ['libvirt-old', o]));
    const { findings } = await checkDomainXml(host, XML, 'g.xml', { libvirt: null, qemu: null }, OPTIONS);
    const causes = findings.filter((f) => f.rule === 'libvirt-old').map((f) => f.cause);
    expect(causes).toEqual(old.map((o) => expect.stringContaining(`this is ${o} `)));
  });
});

test('domain check says it of versions that were named too', async () => {
  const asked = { libvirt: '5.0.0', qemu: '4.0.0' };
  const { findings, valid } = await checkDomainXml(machine(null, null), XML, 'g.xml', asked, OPTIONS);
  expect(findings.filter((f) => f.rule === 'libvirt-old')).toHaveLength(2);
  expect(valid).toBe(true);
});

const lacks = isLacking(virshVersion() === null ? 'no libvirt to call: apt-get install libvirt-clients' : null);

test.skipIf(lacks)('hook test says it of a domain that takes devices, here by a network, and of no other', async () => {
  const host = machine('5.0.0', '4.0.0');
  const node = join(dirs[0] ?? '', 'node.xml');
  writeFileSync(
    node,
    `<node><network><name>n</name><forward mode='hostdev'><address type='pci' domain='0' bus='0x21' slot='0x10'
function='0x2'/></forward></network></node>`,
  );
  const said = async (network: string): Promise<string[]> => {
    const devices = `<interface type='network'><source network='${network}'/></interface>`;
    const xml = Buffer.from(`<domain type='kvm'><name>g</name><devices>${devices}</devices></domain>`);
    const { warnings } = await testHook(host, xml, 'g.xml', OPTIONS, `test://${node}`);
    return warnings.filter((w) => w.id === 'libvirt-old').map((w) => w.text);
  };
  expect(await said('n')).toEqual([expect.stringContaining('libvirt 5.0.0'), expect.stringContaining('QEMU 4.0.0')]);
  expect(await said('other')).toEqual([]);
});
