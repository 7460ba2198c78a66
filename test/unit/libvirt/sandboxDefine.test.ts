/**
 * `domain define` and `domain check --ask-libvirt` on a real libvirtd with the qemu driver, in a sandbox of the test's
 * own: 20 domains come back as they were given, what this libvirt drops in silence is refused by name, and libvirtd is
 * the same process after each.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { checkDomainXml } from '../../../src/actions/domainCheck.ts';
import { defineDomain } from '../../../src/actions/domainDefine.ts';
import { loadNative } from '../../../src/addon/load.ts';
import type { HostdevError } from '../../../src/errors.ts';
import { Host } from '../../../src/host/host.ts';
import { isLacking } from '../../lacking.ts';
import { LibvirtSandbox, sandboxLacks } from '../../libvirtd/sandbox.ts';
import { StaticHost } from '../../mock/tree.ts';
import { EVER } from '../../patience.ts';

const OPTIONS = { deadlineMs: EVER, verb: 'domain define', dryRun: false, allowed: new Set<never>() };
const address = (fn: number, type = ''): string =>
  `<address${type} domain='0x0000' bus='0x21' slot='0x10' function='0x${fn}'/>`;
const hostdev = (fn: number, more = '', driver = ''): string =>
  `<hostdev mode='subsystem' type='pci' managed='yes'>${driver}<source>${address(fn)}</source>${more}</hostdev>`;
const vnic = (fn: number): string =>
  `<interface type='hostdev' managed='yes'><mac address='52:54:00:00:00:0${fn}'/><source>${address(fn, " type='pci'")}</source></interface>`;
const nvme = `<disk type='nvme' device='disk'><driver name='qemu' type='raw'/><source type='pci' managed='yes' namespace='1'>${address(6)}</source><target dev='vda' bus='virtio'/></disk>`;
const domain = (name: string, devices: string, features = '<acpi/>', machine = 'q35'): string =>
  `<domain type='qemu'><name>${name}</name><memory unit='MiB'>64</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='${machine}'>hvm</type></os><features>${features}</features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>${devices}<memballoon model='none'/></devices></domain>`;

const BODIES = [
  '',
  hostdev(0),
  hostdev(0) + hostdev(2),
  vnic(0),
  vnic(0) + hostdev(2),
  nvme,
  hostdev(0, "<rom bar='off'/>"),
  hostdev(0, "<boot order='1'/>"),
  hostdev(0, "<alias name='ua-hostdev-0000-21-10-0'/>"),
  `${hostdev(0)}${hostdev(2, "<address type='unassigned'/>")}`,
];

/** Words of newer libvirts, which 9.0.0 takes without VALIDATE and does not keep. */
const NEWER: [word: string, devices: string][] = [
  ['xtsup', "<iommu model='amd'><driver xtsup='on'/></iommu>"],
  ['passthrough', "<iommu model='amd'><driver passthrough='on'/></iommu>"],
  ['dma_translation', "<iommu model='intel'><driver caching_mode='on' dma_translation='off'/></iommu>"],
  ['pciBus', "<iommu model='smmuv3'><driver pciBus='1'/></iommu>"],
  ['granule', "<iommu model='virtio'><driver><granule mode='host'/></driver></iommu>"],
  ['iommufd', hostdev(0, '', "<driver iommufd='yes'/>")],
  ['model', hostdev(0, '', "<driver model='mlx5_vfio_pci'/>")],
];

describe.skipIf(isLacking(sandboxLacks()))('a libvirtd of its own', () => {
  let sandbox: LibvirtSandbox;
  let pid: string;
  let tree: StaticHost;
  let host: Host;
  beforeAll(async () => {
    sandbox = await LibvirtSandbox.start();
    const vf = { ids: '8086:10ca', driver: 'igbvf' };
    tree = new StaticHost({
      devices: [0, 2, 4, 6].map((n, i) => ({ ...vf, address: `0000:21:10.${n}`, group: 11 + i })),
    });
    host = new Host(tree.root, loadNative());
  });
  afterAll(async () => {
    tree?.remove();
    await sandbox?.stop();
  });
  beforeEach(async () => {
    pid = await sandbox.order('pid');
  });
  afterEach(async () => {
    expect(await sandbox.order('pid')).toBe(pid);
    expect(pid).toMatch(/^\d+$/);
  });

  const define = (xml: string) =>
    defineDomain(
      host,
      Buffer.from(xml),
      'guest.xml',
      {
        add: [],
        remove: [],
        pick: null,
        connect: sandbox.uri,
        setup: { config: [], inventory: null },
        managed: null,
        model: null,
        rom: null,
        boot: null,
        nic: null,
        unassignedPeers: false,
        oneSlot: false,
        namespace: null,
        viommu: null,
        libvirt: null,
        qemu: null,
      },
      OPTIONS,
    );
  const names = async (): Promise<string[]> => (await sandbox.virsh('list --all --name')).split('\n').filter(Boolean);
  const ask = (xml: string) =>
    checkDomainXml(
      host,
      Buffer.from(xml),
      'guest.xml',
      { libvirt: null, qemu: null, connect: sandbox.uri, askLibvirt: true },
      OPTIONS,
    );

  test('20 domains are defined and come back as they were given', async () => {
    const all = ['q35', 'pc'].flatMap((machine) =>
      BODIES.map((body, i) => [`d-${machine}-${i}`, domain(`d-${machine}-${i}`, body, '<acpi/>', machine)] as const),
    );
    expect(all).toHaveLength(20);
    for (const [name, xml] of all) {
      const { changed, differences, xml: kept } = await define(xml);
      // The machine is an alias, which libvirt resolves; of what is ours nothing is otherwise.
      expect([name, changed, differences.map((d) => d.attribute)]).toEqual([name, true, ['machine']]);
      expect(kept.trim()).toBe((await sandbox.virsh(`dumpxml --inactive ${name}`)).trim());
    }
    expect(await names()).toHaveLength(20);
    for (const [name] of all) await sandbox.virsh(`undefine ${name}`);
  });

  test.each(NEWER)('%s is refused by name, and nothing is defined', async (word, devices) => {
    const e = await define(domain('newer', devices)).then(
      () => null,
      (x) => x as HostdevError,
    );
    expect([e?.code, e?.exit]).toEqual(['HOSTDEV_DOMAIN_REFUSED', 3]);
    expect(JSON.stringify([e?.message, e?.data])).toContain(word);
    expect(await names()).toEqual([]);
    const { defines, findings } = await ask(domain('newer', devices));
    expect(defines).toBe(false);
    expect(JSON.stringify(findings)).toContain(word);
  });

  test.each(BODIES.map((body, i) => [i, body] as const))(
    "--ask-libvirt of body %i: its parser's yes",
    async (_i, body) => {
      const { judges, versions } = await ask(domain('asked', body));
      expect(versions).toMatchObject({ source: 'connection', qemu: expect.any(String) });
      expect(judges).toContainEqual(expect.objectContaining({ judge: 'libvirt', verdict: 'passed' }));
    },
  );

  test.each([
    ['an unknown machine', domain('bad', hostdev(0), '<acpi/>', 'no-such-machine')],
    ['a disk of no bus', domain('bad', "<disk type='file' device='disk'><target dev='vda' bus='nosuch'/></disk>")],
    ['a TPM that this QEMU cannot have', domain('bad', "<tpm model='tpm-spapr'><backend type='emulator'/></tpm>")],
  ])("--ask-libvirt of %s: its parser's no, in its words; and domain define's", async (_what, xml) => {
    const { judges, findings, valid } = await ask(xml);
    expect(valid).toBe(false);
    expect(judges).toContainEqual(expect.objectContaining({ judge: 'libvirt', verdict: 'refused' }));
    expect(findings).toContainEqual(expect.objectContaining({ judge: 'libvirt', stage: 'define' }));
    await expect(define(xml)).rejects.toMatchObject({ code: 'HOSTDEV_DOMAIN_REFUSED' });
    expect(await names()).toEqual([]);
  });
});
