/**
 * libvirt 11.3 and QEMU 10 judge our rules of a domain: every definition of the matrix, and starts with a VF behind
 * each vIOMMU.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { checkDomain } from '../../src/domain/checkDomain.ts';
import { readDomainFacts } from '../../src/domain/domainFacts.ts';
import { parseVersion } from '../../src/domain/version.ts';
import { readDomain } from '../../src/domain/xml/domain.ts';
import { allDomains } from '../matrix/allDomains.ts';
import { isOthers } from '../matrix/verdicts.ts';
import type { MatrixDomain } from '../matrix/viommuDomains.ts';
import { createVfs, domainXml, installHostdev, virsh } from './guest.ts';
import { skipped, useMachine } from './suite.ts';

const vm = useMachine('intel');

const IGB = '0000:21:00.0';
const VF = '0000:21:10.0';

/** How many domains one virsh is given: it begins once and not a thousand times, and its command line stays short. */
const BATCH = 100;

let versions: { libvirt: string; qemu: string };

beforeAll(async () => {
  if (skipped) return;
  await installHostdev(vm());
  await createVfs(vm(), IGB, 2);
  const told = await vm().ok('LC_ALL=C virsh version');
  versions = {
    libvirt: /Using library: libvirt (\S+)/.exec(told)?.[1] ?? '',
    qemu: /Running hypervisor: QEMU (\S+)/.exec(told)?.[1] ?? '',
  };
});

/** libvirt's error for each domain, null where it was defined; none stays defined. */
async function judged(domains: readonly MatrixDomain[]): Promise<Map<string, string | null>> {
  const dir = mkdtempSync(join(tmpdir(), 'hostdev-matrix-'));
  try {
    for (const d of domains) writeFileSync(join(dir, `${d.id}.xml`), d.xml);
    await vm().pushTar(['-C', dir, '.'], '/tmp/matrix');
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  const verdicts = new Map<string, string | null>();
  for (let from = 0; from < domains.length; from += BATCH) {
    const commands = domains
      .slice(from, from + BATCH)
      .map((d) => `echo "@@${d.id}@@"; define --validate /tmp/matrix/${d.id}.xml; undefine --nvram ${d.id}`)
      .join('; ');
    const out = await vm().ok(`LC_ALL=C virsh -q '${commands}' 2>&1 || :`, { timeoutMs: 170_000 });
    for (const [, id = '', said = ''] of out.matchAll(/@@([\w.-]+)@@([^@]*)/g)) {
      verdicts.set(id, /Failed to define/.test(said) ? said.replace(/\s+/g, ' ').trim() : null);
    }
  }
  return verdicts;
}

test('every x86 definition of the matrix: libvirt and we agree, row by row, but for what is not ours', async () => {
  // The machine has no QEMU for Arm; test/data/viommu has what such libvirts say.
  const domains = allDomains().filter((d) => !d.xml.includes("arch='aarch64'"));
  expect(domains.length).toBeGreaterThan(400);
  const verdicts = await judged(domains);
  expect(verdicts.size).toBe(domains.length);
  expect([...verdicts.values()].filter((v) => v === null).length).toBeGreaterThan(100);
  const target = { libvirt: parseVersion(versions.libvirt), qemu: parseVersion(versions.qemu) };
  const rows = domains.flatMap((d) => {
    const error = verdicts.get(d.id) ?? null;
    const why = checkDomain(readDomainFacts(readDomain(d.xml, d.id)), target)
      .filter((f) => f.stage === 'define')
      .map((f) => `${f.rule}: ${f.cause}`);
    return (why.length === 0) === (error === null) || isOthers(error)
      ? []
      : [{ id: d.id, libvirt: error ?? 'ok', ours: why }];
  });
  expect(rows).toEqual([]);
}, 900_000);

/** A q35 guest with a VF and an <iommu>; features as needed. */
const guest = (name: string, iommu: string, features = '<acpi/>'): string =>
  domainXml({ name, hostdevs: [{ address: VF, managed: true }] })
    .replace('<features><acpi/></features>', `<features>${features}</features>`)
    .replace('<memballoon', `${iommu}<memballoon`);

async function check(name: string, xml: string, words = ''): Promise<{ code: number; json: Record<string, unknown> }> {
  await vm().write(`/tmp/${name}.xml`, xml);
  const r = await vm().sh(`hostdev domain check /tmp/${name}.xml ${words} -j`);
  return { code: r.code, json: JSON.parse(r.stdout) };
}

async function start(name: string): Promise<{ code: number; stderr: string }> {
  await vm().ok(`virsh define --validate /tmp/${name}.xml`);
  const r = await virsh(vm(), ['start', name], { timeoutMs: 160_000 });
  await vm().sh(`virsh destroy ${name}; virsh undefine ${name}`);
  return r;
}

const rulesOf = (json: Record<string, unknown>): string[] =>
  (json.findings as { rule: string; stage: string }[]).filter((f) => f.stage !== 'advice').map((f) => f.rule);

describe('a q35 guest with a VF', () => {
  test.each(['intel', 'virtio', 'auto'])('starts behind the vIOMMU suggested for %s', async (model) => {
    const name = `viommu-${model}`;
    await vm().write(`/tmp/${name}.xml`, guest(name, ''));
    const s = JSON.parse(await vm().ok(`hostdev viommu suggest /tmp/${name}.xml --model ${model} -j`));
    expect(s.versions).toMatchObject({ libvirt: versions.libvirt, source: 'installed' });
    const features = ['<acpi/>', ...s.needs.map((n: { xml: string }) => n.xml)].join('');
    const checked = await check(name, guest(name, s.xml, features));
    expect({ code: checked.code, rules: rulesOf(checked.json) }).toEqual({ code: 0, rules: [] });
    const r = await start(name);
    expect(r.stderr).toBe('');
    expect(r.code).toBe(0);
  });

  test('behind intel without caching_mode does not start, and the rule says so', async () => {
    const name = 'viommu-no-caching';
    const iommu = "<iommu model='intel'><driver intremap='on'/></iommu>";
    const checked = await check(name, guest(name, iommu, "<acpi/><ioapic driver='qemu'/>"));
    expect({ code: checked.code, rules: rulesOf(checked.json) }).toEqual({ code: 3, rules: ['intel-caching-mode'] });
    const r = await start(name);
    expect(r.code).not.toBe(0);
    expect(r.stderr).toContain('caching-mode=on');
  });

  test('with more address bits than QEMU has does not start, and the rule says so', async () => {
    const name = 'viommu-bits';
    const iommu = "<iommu model='intel'><driver caching_mode='on' aw_bits='57'/></iommu>";
    const checked = await check(name, guest(name, iommu));
    expect(rulesOf(checked.json)).toContain('intel-aw-bits');
    const r = await start(name);
    expect(r.code).not.toBe(0);
    expect(r.stderr).toContain('aw-bits');
  });

  test('amd is not for this libvirt', async () => {
    await vm().write('/tmp/viommu-amd.xml', guest('viommu-amd', ''));
    const r = await vm().sh('hostdev viommu suggest /tmp/viommu-amd.xml --model amd');
    expect(r.code).toBe(3);
    expect(r.stderr).toContain('11.5.0');
  });
});

describe('on this host', () => {
  test('groups, drivers and what is not there', async () => {
    const peer = domainXml({ name: 'peer', hostdevs: [{ address: '0000:26:01.0', managed: true }] });
    const checked = await check('peer', peer);
    expect(checked.code).toBe(3);
    expect(rulesOf(checked.json)).toContain('host-group');
    expect(JSON.stringify(checked.json.findings)).toContain('0000:26:02.0 is on the host driver e1000');

    const gone = await check(
      'gone',
      domainXml({ name: 'gone', hostdevs: [{ address: '0000:77:00.0', managed: true }] }),
    );
    expect(rulesOf(gone.json)).toContain('host-device');

    // With versions given, nothing of this host is looked at.
    const offline = await check(
      'gone',
      domainXml({ name: 'gone', hostdevs: [{ address: '0000:77:00.0', managed: true }] }),
      '--libvirt 11.3.0 --qemu 10.0.0',
    );
    expect({ code: offline.code, host: offline.json.host }).toEqual({ code: 0, host: null });
  });

  test("NUMA: a VF of node 0 and a guest's memory on node 1", async () => {
    const near = domainXml({ name: 'numa', hostdevs: [{ address: VF, managed: true }] });
    const far = near.replace('<os>', "<numatune><memory mode='strict' nodeset='1'/></numatune><os>");
    const checked = await check('numa', far);
    const found = (checked.json.findings as { rule: string; cause: string }[]).find((f) => f.rule === 'host-numa');
    expect(found?.cause).toMatch(/host node 0, .* node 1 \(distance \d+\)/);
    expect((checked.json.host as { devices: unknown[] }).devices).toMatchObject([
      { address: VF, driver: 'igbvf', will_be: 'libvirt', numa_node: 0 },
    ]);
  });
});
