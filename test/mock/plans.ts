/**
 * What `domain plan` makes of the sample domains for a libvirt: XML for its schema, its test driver, and a later one in
 * a machine.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readNic } from '../../src/actions/domainNic.ts';
import { planDomain } from '../../src/actions/domainPlan.ts';
import { loadNative } from '../../src/addon/load.ts';
import { readDomainDevices } from '../../src/domain/hostDevices.ts';
import { readDomain } from '../../src/domain/xml/domain.ts';
import { decodeXml } from '../../src/domain/xml/parse.ts';
import { HostdevError } from '../../src/errors.ts';
import { Host } from '../../src/host/host.ts';
import { EVER } from '../patience.ts';
import { allDomains } from './domains.ts';
import { droppedFromDomain } from './stored.ts';
import { StaticHost } from './tree.ts';

const GPU = '0000:71:00.0';
const PEER = '0000:71:00.1';
const PF = '0000:72:00.0';
const VF = '0000:72:10.0';
const NVME = '0000:73:00.0';
const NONE = {
  managed: null,
  model: null,
  rom: null,
  boot: null,
  nic: null,
  unassignedPeers: false,
  namespace: null,
  oneSlot: false,
  viommu: null,
};
const MAC = '52:54:00:ab:cd:ef';

/** What libvirt 9 knows. */
export const WISHES = {
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
  'nvme disk': { ...NONE, add: [NVME], namespace: 1 },
  'viommu auto': { ...NONE, add: [VF], viommu: 'auto' },
  'viommu intel': { ...NONE, add: [VF], viommu: 'intel' },
  'viommu virtio': { ...NONE, add: [], viommu: 'virtio' },
  'viommu none': { ...NONE, add: [VF], viommu: 'none' },
};

/** What a later one knows too. */
export const LATER_WISHES = {
  'driver model': { ...NONE, add: [VF], model: 'mlx5_vfio_pci' },
  'viommu smmuv3': { ...NONE, add: [], viommu: 'smmuv3' },
  'viommu amd': { ...NONE, add: [], viommu: 'amd' },
};

export type Written = {
  /** "nova.xml: viommu auto" */
  name: string;
  /** The domain's own. */
  domain: string;
  file: string;
  xml: string;
};

export class Plans {
  /** A folder with a file for each. */
  readonly dir = mkdtempSync(join(tmpdir(), 'hostdev-plans-'));
  readonly written: Written[] = [];

  /** Plans every wish for the domains written by hand, and a few for each of the generator's. */
  async write(
    wishes: typeof WISHES | (typeof WISHES & typeof LATER_WISHES),
    versions: { libvirt: string; qemu: string },
  ): Promise<void> {
    const tree = new StaticHost({
      devices: [
        { address: GPU, ids: '10de:2204', class: '030000', group: 1, driver: 'nouveau' },
        { address: PEER, ids: '10de:1aef', class: '040300', group: 1, driver: 'snd_hda_intel' },
        { address: PF, ids: '15b3:101d', group: 2, driver: 'mlx5_core', totalVfs: 4 },
        { address: VF, ids: '15b3:101e', group: 3, driver: 'mlx5_core', physfn: PF },
        { address: NVME, ids: '144d:a808', class: '010802', group: 4, driver: 'nvme' },
      ],
      net: { eth7: VF },
    });
    tree.folder(`sys/bus/pci/devices/${PF}/vdpa0/vhost-vdpa-0`);
    const host = new Host(tree.root, loadNative());
    const options = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false };
    for (const [n, sample] of allDomains().entries()) {
      for (const [k, [wish, request]] of Object.entries(wishes).entries()) {
        if (sample.name.startsWith('generated') && (n + k) % 4 !== 0) continue;
        const name = `${sample.name}: ${wish}`;
        const planned = await planDomain(
          host,
          sample.bytes,
          name,
          { ...request, ...versions, remove: [], pick: null, connect: null, setup: { config: [], inventory: null } },
          options,
        ).catch((e: unknown) => {
          // i440FX has no vIOMMU, and <os><boot> excludes boot orders.
          if (e instanceof HostdevError && e.code === 'HOSTDEV_DOMAIN_UNFIT') return null;
          throw e;
        });
        if (planned === null) continue;
        const file = `${this.written.length}.xml`;
        writeFileSync(join(this.dir, file), planned.xml);
        const xml = decodeXml(Buffer.from(planned.xml), name);
        this.written.push({ name, domain: readDomainDevices(readDomain(xml, name)).name, file, xml });
      }
    }
    tree.remove();
  }

  remove(): void {
    rmSync(this.dir, { recursive: true });
  }

  /**
   * What a libvirt refuses or drops, a line each. `virsh` runs commands separated by semicolons, the files being in
   * `dir` there, and answers with stdout and stderr.
   */
  async refusedOrDropped(
    dir: string,
    virsh: (commands: string) => Promise<{ stdout: string; stderr: string }> | { stdout: string; stderr: string },
  ): Promise<string[]> {
    const lost: string[] = [];
    for (let i = 0; i < this.written.length; i += 100) {
      const part = this.written.slice(i, i + 100);
      const commands = part.map(
        (w) =>
          `define --validate ${dir}/${w.file}; dumpxml --inactive "${w.domain}"; undefine "${w.domain}"; echo ${MARK}`,
      );
      const { stdout, stderr } = await virsh(commands.join(';'));
      const stored = stdout.split(MARK).map((o) => /<domain.*<\/domain>/s.exec(o)?.[0]);
      for (const [k, { name, xml }] of part.entries()) {
        const answer = stored[k];
        if (answer === undefined) lost.push(`${name}: refused: ${stderr.slice(0, 300)}`);
        else lost.push(...droppedFromDomain(xml, answer).map((d) => `${name}: ${d}`));
      }
    }
    return lost;
  }
}

const MARK = '=next=';
