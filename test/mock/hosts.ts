/** Simulated hosts for unit tests and the story of `npm start`: a kernel model and a folder for our own state. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HookPolicy } from '../../src/hook/policy.ts';
import { Host } from '../../src/host/host.ts';
import { KernelModel, type ModelDevice, type ModelDriver } from './kernel.ts';

export const DRIVERS: ModelDriver[] = [
  { name: 'igbvf', module: 'igbvf', ids: ['8086:10ca'] },
  { name: 'igb', module: 'igb', ids: ['8086:10c9'], sriov: true },
  { name: 'e1000', module: 'e1000', ids: ['8086:100e'] },
  { name: 'nvme', module: 'nvme', ids: ['1b36:0010'] },
  { name: 'pcieport', ids: ['8086:0600'] },
  { name: 'vfio-pci', module: 'vfio_pci', ids: [], vfio: true, loaded: false },
  { name: 'tb_igbvf_vfio_pci', module: 'tb_igbvf_vfio_pci', ids: [], vfio: true, loaded: false },
];

const ALIASES = 'alias vfio_pci:v00008086d000010CAsv*sd*bc*sc*i* tb_igbvf_vfio_pci\n';

/** An SR-IOV NIC with four VFs (one group each), a group of two NICs behind a bridge, and an NVMe drive. */
export const SMALL_HOST: ModelDevice[] = [
  { address: '0000:00:01.0', ids: '8086:0600', class: '060400', group: 0, driver: 'pcieport' },
  {
    address: '0000:21:00.0',
    ids: '8086:10c9',
    group: 10,
    numa: 0,
    totalVfs: 7,
    vfIds: '8086:10ca',
    vfGroup: 11,
    driver: 'igb',
  },
  ...[0, 2, 4, 6].map((n, i) => ({
    address: `0000:21:10.${n}`,
    ids: '8086:10ca',
    group: 11 + i,
    numa: 0,
    physfn: '0000:21:00.0',
    driver: 'igbvf',
  })),
  { address: '0000:26:01.0', ids: '1234:11e8', class: '00ff00', group: 20, driver: null },
  { address: '0000:26:02.0', ids: '8086:100e', group: 20, driver: 'e1000' },
  { address: '0000:22:00.0', ids: '1b36:0010', class: '010802', group: 30, driver: 'nvme' },
];

export type SimulatedHost = { host: Host; kernel: KernelModel; remove: () => void };

/** A fresh host with its own state folder; `remove` takes it away. */
export function simulatedHost(devices: ModelDevice[] = SMALL_HOST, drivers: ModelDriver[] = DRIVERS): SimulatedHost {
  const root = mkdtempSync(join(tmpdir(), 'hostdev-sim-'));
  const kernel = new KernelModel(structuredClone(devices), structuredClone(drivers), ALIASES);
  return { host: new Host(root, kernel), kernel, remove: () => rmSync(root, { recursive: true, force: true }) };
}

/** What the hook goes by where there is no hostdev.toml. */
export const NO_POLICY: HookPolicy = { unmanaged: 'bind', allowances: [] };

export const UUID_A = '624392bd-9784-4e20-8b29-1e85f123c67d';
export const UUID_B = '0f0e0d0c-0b0a-4e20-8b29-1e85f123c67e';

export type XmlDevice = { address: string; managed?: 'yes' | 'no'; model?: string; unassigned?: boolean };

/** A domain that takes these devices, in the shape that libvirt hands to its hook. */
export function domainXml(name: string, uuid: string, devices: XmlDevice[]): Uint8Array {
  const hostdevs = devices.map(({ address, managed = 'no', model, unassigned }) => {
    const [domain, bus, rest = ''] = address.split(':');
    const [slot, func] = rest.split('.');
    return `<hostdev mode='subsystem' type='pci' managed='${managed}'>${model ? `<driver model='${model}'/>` : ''}<source><address domain='0x${domain}' bus='0x${bus}' slot='0x${slot}' function='0x${func}'/></source>${unassigned ? "<address type='unassigned'/>" : ''}</hostdev>`;
  });
  return Buffer.from(
    `<domain type='qemu'><name>${name}</name><uuid>${uuid}</uuid><devices>${hostdevs.join('')}</devices></domain>`,
  );
}
