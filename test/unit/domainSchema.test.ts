/** What `domain plan` writes passes libvirt's own schema, and its test driver keeps all of it. The same for a later libvirt is in test/vm/plan.vm.test.ts. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readNic } from '../../src/actions/domainNic.ts';
import { planDomain } from '../../src/actions/domainPlan.ts';
import { loadNative } from '../../src/addon/load.ts';
import { readDomainDevices } from '../../src/domain/hostDevices.ts';
import { decodeXml } from '../../src/domain/xml.ts';
import { HostdevError } from '../../src/errors.ts';
import { Host } from '../../src/host/host.ts';
import { allDomains } from '../mock/domains.ts';
import { droppedFromDomain } from '../mock/stored.ts';
import { StaticHost } from '../mock/tree.ts';

const SCHEMA = '/usr/share/libvirt/schemas/domain.rng';
const has = (command: string): boolean => spawnSync(command, ['--version']).error === undefined;
const noSchema = !existsSync(SCHEMA) || !has('xmllint');
const noVirsh = !has('virsh');
if (noSchema)
  console.warn(
    `SKIPPED: ${SCHEMA} (package libvirt0) or xmllint is not here, so no XML of ours meets libvirt's schema`,
  );
if (noVirsh) console.warn('SKIPPED: virsh (package libvirt-clients) is not here, so no libvirt takes XML of ours');

const GPU = '0000:71:00.0';
const PEER = '0000:71:00.1';
const PF = '0000:72:00.0';
const VF = '0000:72:10.0';
const NONE = { managed: null, model: null, rom: null, boot: null, nic: null, unassignedPeers: false, viommu: null };
const VERSIONS = { libvirt: '9.0.0', qemu: '7.2.0' };
const MAC = '52:54:00:ab:cd:ef';

/** What libvirt 9 knows; `driver model=` is of 10.0.0. */
const WISHES = {
  hostdev: { ...NONE, add: [GPU, PEER] },
  'unassigned peers': { ...NONE, add: [GPU], unassignedPeers: true, managed: false },
  'rom file': { ...NONE, add: [VF], rom: { file: '/usr/share/a "b" & <c>é.rom' } },
  'rom off': { ...NONE, add: [VF], rom: { bar: 'off' as const } },
  'no rom, boot': { ...NONE, add: [VF], rom: { enabled: 'no' as const }, boot: 9 },
  direct: { ...NONE, add: [VF], nic: readNic({ vnic: 'direct', mac: MAC, vlan: '4094' }), boot: 9 },
  '802.1Qbh': { ...NONE, add: [VF], nic: readNic({ vnic: '802.1qbh', mac: MAC, profile: 'port-profile 7' }) },
  macvtap: { ...NONE, add: [VF], nic: readNic({ vnic: 'macvtap', mac: MAC, vlan: '1' }) },
  vdpa: { ...NONE, add: [PF], nic: readNic({ vnic: 'vdpa', mac: MAC }) },
  'direct-physical': { ...NONE, add: [PF], nic: readNic({ vnic: 'direct-physical' }) },
  'viommu auto': { ...NONE, add: [VF], viommu: 'auto' },
  'viommu intel': { ...NONE, add: [VF], viommu: 'intel' },
  'viommu virtio': { ...NONE, add: [], viommu: 'virtio' },
  'viommu none': { ...NONE, add: [VF], viommu: 'none' },
};

let tree: StaticHost;
let dir: string;
/** Every XML that came out. */
const written: { name: string; file: string; xml: string }[] = [];

beforeAll(async () => {
  tree = new StaticHost({
    devices: [
      { address: GPU, ids: '10de:2204', class: '030000', group: 1, driver: 'nouveau' },
      { address: PEER, ids: '10de:1aef', class: '040300', group: 1, driver: 'snd_hda_intel' },
      { address: PF, ids: '15b3:101d', group: 2, driver: 'mlx5_core', totalVfs: 4 },
      { address: VF, ids: '15b3:101e', group: 3, driver: 'mlx5_core', physfn: PF },
    ],
    net: { eth7: VF },
  });
  tree.folder(`sys/bus/pci/devices/${PF}/vdpa0/vhost-vdpa-0`);
  dir = mkdtempSync(join(tmpdir(), 'hostdev-schema-'));
  const host = new Host(tree.root, loadNative());
  const options = { allowed: new Set<never>(), deadlineMs: 5000, dryRun: false };
  for (const [n, sample] of allDomains().entries()) {
    for (const [k, [wish, request]] of Object.entries(WISHES).entries()) {
      // All wishes with the domains written by hand, a few with each of the generator's.
      if (sample.name.startsWith('generated') && (n + k) % 4 !== 0) continue;
      const name = `${sample.name}: ${wish}`;
      const file = join(dir, `${written.length}.xml`);
      const xml = await planDomain(host, sample.bytes, name, { ...request, ...VERSIONS, remove: [] }, options).then(
        (p) => p.xml,
        (e: unknown) => {
          // i440FX has no vIOMMU, and <os><boot> excludes boot orders.
          if (e instanceof HostdevError && e.code === 'HOSTDEV_DOMAIN_UNFIT') return null;
          throw e;
        },
      );
      if (xml === null) continue;
      writeFileSync(file, xml);
      written.push({ name, file, xml: decodeXml(Buffer.from(xml), name) });
    }
  }
}, 120_000);
afterAll(() => {
  tree.remove();
  rmSync(dir, { recursive: true });
});

test('there is much to judge, of every wish', () => {
  expect(written.length).toBeGreaterThan(300);
  for (const wish of Object.keys(WISHES))
    expect(
      written.some((w) => w.name.endsWith(`: ${wish}`)),
      wish,
    ).toBe(true);
});

describe.skipIf(noSchema)("libvirt's RelaxNG", () => {
  test('is passed by whatever passed it before', () => {
    const r = spawnSync('xmllint', ['--noout', '--relaxng', SCHEMA, ...written.map((w) => w.file)], {
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
    const failed = written.filter((w) => !r.stderr.includes(`${w.file} validates\n`));
    expect(failed.map((w) => w.name)).toEqual([]);
  });

  test('would refuse what is no device', () => {
    const file = join(dir, 'bad.xml');
    writeFileSync(file, written[0]?.xml.replace("<driver name='vfio'/>", "<driver nome='vfio'/>") ?? '');
    expect(spawnSync('xmllint', ['--noout', '--relaxng', SCHEMA, file]).status).not.toBe(0);
  });
});

describe.skipIf(noVirsh)("libvirt's test driver", () => {
  /** Defines, dumps and undefines each in one run: the stored XML, or libvirt's refusal. */
  function stored(files: { name: string; file: string }[]): string[] {
    const commands = files.map(
      ({ name, file }) =>
        `define --validate '${file}'; dumpxml --inactive '${name}'; undefine '${name}'; echo '\u0001'`,
    );
    const r = spawnSync('virsh', ['-q', '-c', 'test:///default', commands.join(';')], {
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
    const outputs = r.stdout.split('\u0001').map((o) => /<domain.*<\/domain>/s.exec(o)?.[0]);
    return files.map((_, i) => outputs[i] ?? `refused: ${r.stderr}`);
  }

  test('takes all with VALIDATE, and keeps what was asked for', () => {
    const files = written.map((w) => ({ ...w, name: readDomainDevices(w.xml, w.name).name }));
    const lost: string[] = [];
    for (let i = 0; i < files.length; i += 100) {
      const part = files.slice(i, i + 100);
      for (const [k, answer] of stored(part).entries()) {
        const { file, xml } = part[k] ?? { file: '', xml: '' };
        const name = written.find((w) => w.file === file)?.name ?? '';
        if (answer.startsWith('refused')) lost.push(`${name}: ${answer.slice(0, 300)}`);
        else lost.push(...droppedFromDomain(xml, answer).map((d) => `${name}: ${d}`));
      }
    }
    expect(lost).toEqual([]);
  }, 120_000);

  test('a thing that was dropped is seen', () => {
    const asked =
      "<domain><devices><hostdev type='pci'><rom bar='on'/></hostdev></devices><features><acpi/></features></domain>";
    expect(
      droppedFromDomain(asked, "<domain><devices><hostdev type='pci'><rom/></hostdev></devices></domain>"),
    ).toEqual(["<hostdev><rom> bar='on'", '<features>']);
    expect(droppedFromDomain(asked, asked)).toEqual([]);
  });
});
