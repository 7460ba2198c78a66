/**
 * The schema of the installed libvirt as a judge of `domain check`: what it sees, that it agrees with libvirt itself,
 * and that silence is never taken for a yes.
 */
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { checkDomainXml, type DomainCheck } from '../../../src/actions/domainCheck.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { readDomain } from '../../../src/domain/xml/domain.ts';
import { Host } from '../../../src/host/host.ts';
import { findCulprit } from '../../../src/libvirt/schemaCulprit.ts';
import { judgeBySchema, schemaCulprit, XMLLINT } from '../../../src/libvirt/schemaJudge.ts';
import { fuzzDomains } from '../../fuzz/generate.ts';
import { askLibvirt, TEST_DRIVER, virshVersion } from '../../fuzz/judge.ts';
import { nameOf, write } from '../../fuzz/tree.ts';
import { has, isLacking } from '../../lacking.ts';
import { EVER } from '../../patience.ts';

const host = new Host('/', loadNative());
const installed = virshVersion();
const noJudge = isLacking(
  existsSync('/usr/share/libvirt/schemas/domain.rng') && has('xmllint') && installed !== null
    ? null
    : 'no schema judges a domain: apt-get install libvirt-clients libxml2-utils',
);

const dir = mkdtempSync(join(tmpdir(), 'hostdev-judge-'));
afterAll(() => rmSync(dir, { recursive: true }));

const HOSTDEV =
  "<hostdev mode='subsystem' type='pci' managed='yes'><driver name='vfio'/><source><address domain='0' bus='1' slot='0' function='0'/></source></hostdev>";
const NIC =
  "<interface type='hostdev' managed='yes'><source><address type='pci' domain='0' bus='2' slot='0' function='0'/></source></interface>";
const BASE = `<domain type='test'>
<name>judged</name>
<memory unit='MiB'>64</memory>
<vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<features><acpi/><apic/></features>
<cpu mode='host-passthrough'/>
<clock offset='utc'/>
<devices>
<disk type='file' device='disk'><driver name='qemu'/><source file='/a'/><target dev='vda' bus='virtio'/></disk>
<controller type='usb' model='qemu-xhci'/>
<input type='tablet' bus='usb'/>
<graphics type='vnc'/>
<video><model type='virtio'/></video>
<sound model='ich9'/>
${HOSTDEV}
${NIC}
<iommu model='virtio'/>
<memballoon model='virtio'/>
</devices>
</domain>`;

/** Inserts into the base domain, at the first place where a text stands; `by` takes its place. */
const put = (at: string, by: string): string => {
  if (!BASE.includes(at)) throw new Error(`the base domain has no ${at}`);
  return BASE.replace(at, () => by);
};
const attribute = (tag: string): string => put(`<${tag}`, `<${tag}`.replace(/^<\w+/, "$& nosuch='1'"));
const inside = (open: string): string => put(open, `${open}<nosuch/>`);

/** Words that no schema knows, with who sees them: `ours` is seen by hostdev too. */
const WORDS: readonly [xml: string, ours: boolean, culprit: string][] = [
  ...[
    'memory',
    'vcpu',
    'type arch',
    'apic',
    'cpu',
    'clock',
    'driver name=',
    'target',
    'controller',
    'input',
    'graphics',
    'sound',
    'memballoon',
  ].map((tag) => [attribute(tag), false, tag.split(' ')[0]] as [string, boolean, string]),
  ...['<os>', '<features>', '<devices>', '<video>', "<disk type='file' device='disk'>", "bus='virtio'/>"].map(
    (open) => [inside(open), false, 'nosuch'] as [string, boolean, string],
  ),
  [put('</domain>', '<nosuch/></domain>'), false, 'nosuch'],
  [put("<sound model='ich9'/>", "<nosuch model='ich9'/>"), false, 'nosuch'],
  [put("<clock offset='utc'/>", "<clok offset='utc'/>"), false, 'clok'],
  [attribute('hostdev mode'), true, 'hostdev'],
  [attribute("driver name='vfio'"), true, 'driver'],
  [attribute("source><address domain='0' bus='1'"), true, 'source'],
  [attribute("address domain='0' bus='1'"), true, 'address'],
  [inside("<hostdev mode='subsystem' type='pci' managed='yes'>"), true, 'nosuch'],
  [attribute("interface type='hostdev'"), true, 'interface'],
  [attribute('iommu'), true, 'iommu'],
  [put("<iommu model='virtio'/>", "<iommu model='virtio'><nosuch/></iommu>"), true, 'nosuch'],
];

/** Each was called valid once. */
const ELEMENTS: readonly (readonly [good: string, bad: string])[] = [
  ["<sound model='ich9'/>", "<sound model='nosuch'/>"],
  ["<input type='tablet' bus='usb'/>", "<input type='nosuch' bus='usb'/>"],
  ["<graphics type='vnc'/>", "<graphics type='nosuch'/>"],
  ["<video><model type='virtio'/></video>", "<video><model type='nosuch'/></video>"],
  ...[
    "<rng model='nosuch'><backend model='random'>/dev/random</backend></rng>",
    "<tpm model='nosuch'><backend type='emulator'/></tpm>",
    "<filesystem type='nosuch'><source dir='/a'/><target dir='b'/></filesystem>",
    "<watchdog model='nosuch'/>",
    "<redirdev bus='nosuch' type='spicevmc'/>",
    "<panic model='nosuch'/>",
  ].map((bad) => ['</devices>', `${bad}</devices>`] as const),
];

const check = (xml: string, libvirt: string | null = installed): Promise<DomainCheck> =>
  checkDomainXml(host, Buffer.from(xml), 'd.xml', { libvirt, qemu: null }, OPTIONS);
const OPTIONS = { allowed: new Set<never>(), deadlineMs: 30_000, dryRun: false };
const said = (c: DomainCheck): Record<string, string> => Object.fromEntries(c.judges.map((j) => [j.judge, j.verdict]));
const refusedBy = (c: DomainCheck): string[] => [
  ...new Set(c.findings.filter((f) => f.stage === 'define').map((f) => f.judge)),
];

test('there are thirty words and ten elements', () => {
  expect(WORDS).toHaveLength(30);
  expect(ELEMENTS).toHaveLength(10);
  expect(new Set(WORDS.map(([xml]) => xml)).size).toBe(30);
});

describe.skipIf(noJudge)('of the installed libvirt', () => {
  test('the base domain passes, and libvirt takes it', async () => {
    const c = await check(BASE);
    expect(c.findings.filter((f) => f.stage === 'define')).toEqual([]);
    expect(said(c)).toEqual({ hostdev: 'passed', schema: 'passed', libvirt: 'not_judged' });
    expect(c.judges.find((j) => j.judge === 'schema')?.libvirt).toBe(installed);
    expect(await askLibvirt(TEST_DRIVER, ['judged'], [BASE])).toEqual([null]);
  });

  test('thirty unknown words are refused, each by the judges that see it, at its place', {
    timeout: EVER,
  }, async () => {
    const rows: unknown[] = [];
    for (const [xml, ours, culprit] of WORDS) {
      const c = await check(xml);
      const seen = refusedBy(c).sort().join(' ');
      const place = c.findings.find((f) => f.judge === 'schema')?.where.replace(/ \(line \d+\)/, '');
      if (c.valid || seen !== (ours ? 'hostdev schema' : 'schema') || place !== culprit)
        rows.push({ xml, seen, place });
    }
    expect(rows).toEqual([]);
  });

  test('ten elements outside ours are refused by the schema, and by libvirt', { timeout: EVER }, async () => {
    const xmls = ELEMENTS.map(([good, bad]) => put(good, bad));
    for (const xml of xmls) {
      const c = await check(xml);
      expect({ valid: c.valid, defines: c.defines, by: refusedBy(c) }, xml).toEqual({
        valid: false,
        defines: false,
        by: ['schema'],
      });
    }
    const libvirt = await askLibvirt(
      TEST_DRIVER,
      xmls.map(() => 'judged'),
      xmls,
    );
    expect(libvirt.filter((e) => e === null)).toEqual([]);
  });

  test('with another libvirt named, nobody judges them, and that is said', async () => {
    for (const [good, bad] of ELEMENTS) {
      const c = await check(put(good, bad), '11.3.0');
      expect(said(c)).toEqual({ hostdev: 'passed', schema: 'not_judged', libvirt: 'not_judged' });
      expect(c.judges.find((j) => j.judge === 'schema')?.text).toContain('11.3.0');
    }
  });

  test('twenty good domains with host devices: no false no', { timeout: EVER }, async () => {
    const xmls = goodDomains();
    expect(xmls.length).toBeGreaterThanOrEqual(20);
    const libvirt = await askLibvirt(
      TEST_DRIVER,
      xmls.map(() => 'judged'),
      xmls,
    );
    for (const [i, xml] of xmls.entries()) {
      const c = await check(xml);
      expect({ libvirt: libvirt[i], refused: c.findings.filter((f) => f.stage === 'define') }, xml).toEqual({
        libvirt: null,
        refused: [],
      });
      expect(said(c)).toMatchObject({ schema: 'passed' });
    }
  });

  test("on domains by chance its verdict is that of libvirt's own schema check", { timeout: EVER }, async () => {
    const domains = fuzzDomains(31, 120, 'test');
    const xmls = domains.map((d) => write(d.tree));
    const libvirt = await askLibvirt(TEST_DRIVER, domains.map(nameOf), xmls);
    const rows: unknown[] = [];
    let refused = 0;
    for (const [i, xml] of xmls.entries()) {
      const ours = (await judgeBySchema(host, readDomain(xml, 'fuzz'), XMLLINT)).verdict;
      const theirs = /Unable to validate doc|failed to validate against schema/.test(libvirt[i] ?? '')
        ? 'refused'
        : 'passed';
      if (theirs === 'refused') refused += 1;
      if (ours !== theirs) rows.push({ ours, libvirt: libvirt[i], xml });
    }
    expect(rows).toEqual([]);
    expect(refused).toBeGreaterThan(20);
  });

  test('several things at once: no single one is blamed', async () => {
    const domain = readDomain(put("<sound model='ich9'/>", "<sound model='a'/><input type='b'/>"), 'd.xml');
    const c = await schemaCulprit(host, domain, XMLLINT);
    expect(c?.element.nodeName ?? null).toBe('devices');
  });
});

/** What a domain may take, in many ways: all of it good. */
function goodDomains(): string[] {
  const more = (hostdev: string): string => put('</devices>', `${hostdev}</devices>`);
  const pci = (bus: number, inner = '', attributes = ''): string =>
    `<hostdev mode='subsystem' type='pci' managed='no'${attributes}><source><address domain='0x0000' bus='0x${bus.toString(16)}' slot='0x00' function='0x0'/></source>${inner}</hostdev>`.replace(
      '<source>',
      "<driver name='vfio'/><source>",
    );
  const nic = (inner: string): string =>
    `<interface type='hostdev' managed='no'><mac address='52:54:00:00:00:07'/><source><address type='pci' domain='0' bus='0x30' slot='0' function='1'/></source>${inner}</interface>`;
  const nvme = (attributes: string): string =>
    `<disk type='nvme' device='disk'><source type='pci' ${attributes} namespace='1'><address domain='0' bus='0x40' slot='0' function='0'/></source><target dev='vdb' bus='virtio'/></disk>`;
  return [
    pci(3),
    pci(3) + pci(4),
    pci(3, "<boot order='1'/>"),
    pci(3, "<rom bar='off'/>"),
    pci(3, "<rom file='/usr/share/a.rom'/>"),
    pci(3, "<rom enabled='no'/>"),
    pci(3, "<alias name='ua-hostdev-0000-03-00-0'/>"),
    pci(3, "<address type='unassigned'/>"),
    pci(3, "<address type='pci' domain='0x0000' bus='0x00' slot='0x07' function='0x0'/>"),
    pci(3, "<address type='pci' domain='0x0000' bus='0x00' slot='0x07' function='0x0' multifunction='on'/>"),
    pci(3, "<acpi index='3'/>"),
    pci(3).replace('</driver>', '') + pci(5, '<readonly/>'),
    pci(3, '<shareable/>'),
    nic(''),
    nic("<vlan><tag id='42'/></vlan>"),
    nic("<virtualport type='802.1Qbh'><parameters profileid='p'/></virtualport>"),
    nic("<boot order='2'/><rom bar='on'/>"),
    nic("<alias name='ua-nic'/>"),
    nvme(''),
    nvme("managed='yes'"),
    nvme("managed='no'").replace('<source', "<driver name='qemu' type='raw'/><source"),
    `${pci(3)}${nic('')}${nvme("managed='yes'")}`,
    "<controller type='pci' index='0' model='pcie-root'/><controller type='pci' index='1' model='pcie-root-port'/>" +
      pci(3, "<address type='pci' domain='0' bus='1' slot='0' function='0'/>"),
    "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>" +
      pci(3),
  ].map(more);
}

describe('the culprit', () => {
  const many = (bad: string): string =>
    put('</devices>', `${"<input type='mouse' bus='ps2'/>\r\n".repeat(3000)}${bad}</devices>`);
  /** A schema that takes everything but a word, and counts how often it is asked. */
  const search = async (xml: string, word: string) => {
    let asked = 0;
    const found = await findCulprit(readDomain(xml, 'd.xml'), async (text) => {
      asked += 1;
      readDomain(text, 'asked');
      return !text.includes(word);
    });
    return { found: found && [found.element.nodeName, found.attribute, found.element.lineNumber], asked };
  };

  test('is found among thousands by halves, whatever the line ends and quotes', async () => {
    const { found, asked } = await search(many("<x\r\n\tb='>' bad\n= \"1 a='2'\"/>"), 'bad');
    expect(found?.slice(0, 2)).toEqual(['x', 'bad']);
    expect(asked).toBeLessThan(40);
  });

  test('is none where there are several or where nothing helps, and the questions end', async () => {
    expect(await search(`<!-- bad -->${many('')}`, 'bad')).toEqual({ found: null, asked: 64 });
    expect((await search(many("<a bad='1'/>").replace('<name>judged', '<name>bad'), 'bad')).found).toBeNull();
  });
});

describe('what is no verdict is said to be none', () => {
  const domain = readDomain(BASE, 'd.xml');
  const ask = (script: string, limitMs = 10_000) => {
    const program = join(dir, 'xmllint');
    writeFileSync(program, `#!/bin/sh\n${script}\n`);
    chmodSync(program, 0o755);
    return judgeBySchema(host, domain, { program, limitMs });
  };
  const why = async (script: string, limitMs?: number): Promise<string> => {
    const v = await ask(script, limitMs);
    expect(v.verdict).toBe('not judged');
    return v.verdict === 'not judged' ? v.why : '';
  };

  test.skipIf(noJudge)('127 and all others but 0 and 3', async () => {
    for (const status of [1, 2, 4, 5, 6, 9, 126, 127]) expect(await why(`exit ${status}`)).toContain(`${status}`);
    expect((await ask('cat > /dev/null; exit 0')).verdict).toBe('passed');
    expect((await ask('exit 3')).verdict).toBe('refused');
  });

  test.skipIf(noJudge)('no such program, one that hangs, one that is killed', async () => {
    expect((await judgeBySchema(host, domain, { program: join(dir, 'none'), limitMs: 10_000 })).verdict).toBe(
      'not judged',
    );
    expect(await why('exec sleep 60', 100)).toContain('no answer in 0.1 s');
    expect(await why('kill -9 $$')).toContain('SIGKILL');
  });

  test.skipIf(noJudge)('it is asked without the network, on stdin, with no setting of ours', async () => {
    const asked = await why('echo "$@ $HOME $XML_CATALOG_FILES." >&2; exit 1');
    expect(asked).toContain('--nonet --noout --relaxng /usr/share/libvirt/schemas/domain.rng -  .');
  });

  test.skipIf(noJudge)('messages are cut, and command no terminal', async () => {
    const flood = await ask(
      "i=0; while [ $i -lt 3000 ]; do printf -- '-:%d: element a: Relax-NG validity error : \\033[31m%0300d\\n' $i 7; i=$((i+1)); done >&2; exit 3",
    );
    if (flood.verdict !== 'refused') throw new Error(flood.verdict);
    expect(flood.faults).toHaveLength(4);
    expect(JSON.stringify(flood.faults).length).toBeLessThan(2000);
    expect(flood.faults.map((f) => f.text).join('')).not.toMatch(/\p{Cc}/u);
  });

  test('below another root nothing of this machine is asked', async () => {
    const there = new Host(dir, loadNative());
    const v = await judgeBySchema(there, domain, { program: '/nowhere', limitMs: 1 });
    expect(v.verdict).toBe('not judged');
    const c = await checkDomainXml(there, Buffer.from(BASE), 'd.xml', { libvirt: null, qemu: null }, OPTIONS);
    expect(said(c).schema).toBe('not_judged');
  });
});
