/** `domain check` and `viommu suggest` as actions: on a simulated host, off it, and as commands. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkDomainXml } from '../../../src/actions/domainCheck.ts';
import { suggestForDomain } from '../../../src/actions/viommuSuggest.ts';
import type { NativeBinding } from '../../../src/addon/native.ts';
import { HostdevError } from '../../../src/errors.ts';
import { Host } from '../../../src/host/host.ts';
import { iommuAddressBits } from '../../../src/host/iommu.ts';
import { numaDistance } from '../../../src/host/numa.ts';
import { type SimulatedHost, simulatedHost } from '../../mock/hosts.ts';
import { StaticHost } from '../../mock/tree.ts';
import { EVER } from '../../patience.ts';

const OPTIONS = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false };
const NONE = { libvirt: null, qemu: null };
const VF = '0000:21:10.0';

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
});
afterEach(() => sim.remove());

const hostdev = (address: string, managed = 'no'): string => {
  const [, bus, rest = ''] = address.split(':');
  const [slot, func] = rest.split('.');
  return `<hostdev mode='subsystem' type='pci' managed='${managed}'><source><address domain='0' bus='0x${bus}' slot='0x${slot}' function='${func}'/></source></hostdev>`;
};

const xml = (devices: string, more = ''): Uint8Array =>
  Buffer.from(
    `<domain type='kvm'><name>d</name><memory unit='GiB'>1</memory>${more}<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>${devices}</devices></domain>`,
  );

const check = (devices: string, more = '') => checkDomainXml(sim.host, xml(devices, more), 'd.xml', NONE, OPTIONS);
const faults = (findings: { rule: string; stage: string }[]): string[] =>
  findings.filter((f) => f.stage !== 'advice').map((f) => f.rule);

describe('on this host', () => {
  test('a device that is there: its group, the driver that it will be on, memory to be locked', async () => {
    const c = await check(hostdev(VF));
    expect(c).toMatchObject({ valid: true, defines: true, memlock_kib: 2 * 1024 * 1024 });
    expect(c.versions).toEqual({ libvirt: null, qemu: null, source: 'installed' });
    expect(c.host?.devices).toMatchObject([
      { address: VF, iommu_group: 11, peers: [], driver: 'igbvf', will_be: 'tb_igbvf_vfio_pci', numa_node: 0 },
    ]);
    expect((await check(hostdev(VF, 'yes'))).host?.devices).toMatchObject([{ will_be: 'libvirt' }]);
  });

  test('one that is not there, a group that is not viable, a PF with VFs: all are said, none stops the others', async () => {
    const c = await check(hostdev('0000:77:00.0') + hostdev('0000:26:01.0') + hostdev('0000:21:00.0'));
    expect(c.valid).toBe(false);
    expect(c.defines).toBe(true);
    expect(faults(c.findings)).toEqual(['host-device', 'host-group', 'guard-vfs']);
    expect(c.findings.find((f) => f.rule === 'host-group')?.fix[0]?.line).toContain("<address type='unassigned'/>");
    expect(c.host?.devices.find((d) => d.address === '0000:26:01.0')?.peers).toEqual(['0000:26:02.0']);
  });

  test("NUMA: the distance from the device's node to those of the guest's memory", async () => {
    sim.kernel.files.set('sys/devices/system/node/node0/distance', '10 21\n');
    sim.kernel.files.set('sys/devices/system/node/node1/distance', '21 10\n');
    const tune = (nodes: string) => `<numatune><memory mode='strict' nodeset='${nodes}'/></numatune>`;
    const far = await check(hostdev(VF), tune('1'));
    expect(far.valid).toBe(true);
    expect(far.findings.find((f) => f.rule === 'host-numa')?.cause).toContain('node 1 (distance 21)');
    expect(far.host?.devices[0]?.numa).toEqual([{ cell: null, node: 1, distance: 21 }]);
    expect((await check(hostdev(VF), tune('0-1'))).findings.map((f) => f.rule)).not.toContain('host-numa');
    expect(numaDistance(sim.host, 0, 7)).toBeNull();
  });

  test("an intel-iommu wider than the host's", async () => {
    sim.kernel.files.set('sys/class/iommu/dmar0/intel-iommu/cap', 'd2008c22260206\n');
    // As on many a desktop.
    expect(iommuAddressBits(sim.host)).toBe(39);
    // SAGAW with 39 and 48 bits, MGAW 47; then with 39 bits and MGAW 39.
    sim.kernel.files.set('sys/class/iommu/dmar0/intel-iommu/cap', '2e0600\n');
    expect(iommuAddressBits(sim.host)).toBe(47);
    sim.kernel.files.set('sys/class/iommu/dmar1/intel-iommu/cap', '260200\n');
    expect(iommuAddressBits(sim.host)).toBe(39);
    const iommu = (bits: number) => `<iommu model='intel'><driver caching_mode='on' aw_bits='${bits}'/></iommu>`;
    expect(faults((await check(hostdev(VF) + iommu(48))).findings)).toEqual(['host-aw-bits']);
    expect(faults((await check(hostdev(VF) + iommu(39))).findings)).toEqual([]);
    expect(faults((await check(iommu(48))).findings)).toEqual([]);
    const s = await suggestForDomain(sim.host, xml(hostdev(VF)), 'd.xml', 'intel', NONE);
    expect(s.xml).toContain("aw_bits='39'");
  });

  test.each([
    ['AMD, 4 levels', { 'sys/class/iommu/ivhd0/amd-iommu/features': '25bf732fa2295afe:1d\n' }, 64],
    ['AMD, 48 bits', { 'sys/class/iommu/ivhd0/amd-iommu/features': '4f77ef22294000:0\n' }, 48],
    ['no unit', {}, null],
    ['a unit that does not say', { 'sys/class/iommu/smmu3.0x1/uevent': '' }, null],
    [
      'one that does and one that does not',
      { 'sys/class/iommu/dmar0/intel-iommu/cap': '2e0600', 'sys/class/iommu/virtio0/uevent': '' },
      null,
    ],
    ['no number', { 'sys/class/iommu/dmar0/intel-iommu/cap': 'zz\n' }, null],
  ])('address bits: %s', (_, files, bits) => {
    for (const [path, text] of Object.entries(files)) sim.kernel.files.set(path, text);
    expect(iommuAddressBits(sim.host)).toBe(bits);
  });

  test('what libvirt takes and the hook cannot read is said', async () => {
    const c = await check(
      "<hostdev mode='subsystem' type='pci'><source><address domain='0' slot='1' function='0'/></source></hostdev>",
    );
    expect(c.defines).toBe(true);
    expect(c.findings.map((f) => f.rule)).toEqual(['address-parts', 'hook-reads']);
  });
});

describe('with versions given', () => {
  /** Any look at it is a failure of the test. */
  const untouchable = new Proxy({} as NativeBinding, {
    get: (_, name) => {
      throw new Error(`the host was asked: ${String(name)}`);
    },
  });
  const nowhere = new Host('/nowhere', untouchable);
  const asked = { libvirt: '9.0.0', qemu: '7.2' };

  test('no fact of the host is consulted', async () => {
    const c = await checkDomainXml(nowhere, xml(hostdev('0000:77:00.0')), 'd.xml', asked, OPTIONS);
    expect(c).toMatchObject({
      valid: true,
      host: null,
      versions: { libvirt: '9.0.0', qemu: '7.2.0', source: 'given' },
      warnings: [],
    });
    expect((await suggestForDomain(nowhere, xml(hostdev(VF)), 'd.xml', 'auto', asked)).model).toBe('intel');
  });

  test('one alone: the other is not known, and that is said', async () => {
    const c = await checkDomainXml(nowhere, xml(''), 'd.xml', { libvirt: '11.10.0', qemu: null }, OPTIONS);
    expect(c.versions).toEqual({ libvirt: '11.10.0', qemu: null, source: 'given' });
    expect(c.warnings).toHaveLength(1);
  });

  test.each(['', 'x', '9', '9.0.0.1', '9.0.0; rm -rf /', '-1.0'])('%j is no version', async (word) => {
    const e = await checkDomainXml(nowhere, xml(''), 'd.xml', { libvirt: word, qemu: null }, OPTIONS).catch((x) => x);
    expect(e).toBeInstanceOf(HostdevError);
    expect(e.code).toBe('HOSTDEV_USAGE');
  });

  test('no vIOMMU for it: the rule, the reason, the way out', async () => {
    const e = await suggestForDomain(nowhere, xml(''), 'd.xml', 'smmuv3', asked).catch((x) => x);
    expect(e).toMatchObject({ code: 'HOSTDEV_DOMAIN_UNFIT', data: { rule: 'viommu-machine' } });
    expect((await suggestForDomain(nowhere, xml(''), 'd.xml', 'vtd', asked).catch((x) => x)).code).toBe(
      'HOSTDEV_USAGE',
    );
  });
});

describe('as commands', () => {
  const tree = new StaticHost({ devices: [{ address: VF, ids: '8086:10ca', group: 3, driver: 'igbvf' }] });
  const file = join(tree.root, 'd.xml');
  afterEach(() => tree.remove('d.xml'));
  const ran = (text: string | Uint8Array, ...words: string[]) => {
    writeFileSync(file, text);
    return tree.run(...words.slice(0, 2), file, ...words.slice(2));
  };

  test('0 and 3, and the document', () => {
    const intel = xml("<iommu model='intel'><driver intremap='on'/></iommu>");
    const old = ran(intel, 'domain', 'check', '--libvirt', '9.0.0', '-j');
    expect(old.exit).toBe(3);
    expect(old.json).toMatchObject({
      schema: 1,
      valid: false,
      defines: false,
      findings: [{ rule: 'intremap-ioapic' }],
    });
    expect(ran(intel, 'domain', 'check', '--libvirt', '10.10.0').exit).toBe(0);
    const text = ran(intel, 'domain', 'check', '--libvirt', '9.0.0').out;
    expect(text).toContain('intremap-ioapic');
    expect(text).toContain("<ioapic driver='qemu'/>");
    const s = ran(xml(''), 'viommu', 'suggest', '--libvirt', '9.0.0', '-j');
    expect(s.json).toMatchObject({ schema: 1, model: 'virtio', xml: "<iommu model='virtio'/>" });
    expect(ran(xml(''), 'viommu', 'suggest', '--model', 'amd', '--libvirt', '9.0.0').exit).toBe(3);
    expect(ran(xml(''), 'viommu', 'suggest', '--model', 'foo').exit).toBe(2);
    expect(ran(xml(''), 'domain', 'check', '--qemu', 'new').exit).toBe(2);
  });

  test('the verdict in words is that of the judges and findings below it, and never a bare "valid"', () => {
    const check = (text: Uint8Array, ...words: string[]): string => ran(text, 'domain', 'check', ...words).out;
    const iommu = (bits: number) => `<iommu model='intel'><driver intremap='on' aw_bits='${bits}'/></iommu>`;
    const versions = ['--libvirt', '10.10.0', '--qemu', '9.0.0'];
    for (const [text, verdict] of [
      [xml(''), 'nothing found wrong'],
      [xml(iommu(48)), 'nothing found wrong'],
      [xml(iommu(57)), 'not refused, and does not start'],
      [xml(iommu(48) + hostdev(VF)), 'does not start'],
      [xml("<iommu model='nosuch'/>"), 'refused'],
    ] as const) {
      const out = check(text, ...versions);
      expect(out).toMatch(new RegExp(`^Verdict +${verdict}$`, 'm'));
      expect(out).toMatch(/^Judges +hostdev: (nothing found|refused) \(.*\n +libvirt's schema: not judged \(/m);
      expect(out).not.toMatch(/\bvalid\b/);
    }
  });

  test('bad XML: exit 3 with line and column, and a file that is not there: exit 4', () => {
    for (const [text, place] of [
      ["<domain type='kvm'>\n <devices>\n</domain>", 'line 3, column 1'],
      ["<!DOCTYPE d SYSTEM 'file:///etc/passwd'><domain/>", 'line 1, column 1'],
      ['<domain/>\n<domain/>', 'line 2, column 1'],
      [Buffer.from([0x3c, 0x61, 0xff, 0x2f, 0x3e]), 'line 1, column 3'],
    ] as const) {
      const r = ran(text, 'domain', 'check', '-j');
      expect({ exit: r.exit, code: r.json.error?.code }).toEqual({ exit: 3, code: 'HOSTDEV_XML' });
      expect(r.json.error?.message).toContain(place);
    }
    expect(tree.run('domain', 'check', '/nowhere/d.xml').exit).toBe(4);
  });

  test('what a domain holds cannot move a terminal', () => {
    const evil = xml("<iommu model='&#x9b;31m'><driver x='\u009b'/></iommu>");
    expect(ran(evil, 'domain', 'check', '--libvirt', '9.0.0').out).not.toMatch(/[^\P{Cc}\n]/u);
  });
});
