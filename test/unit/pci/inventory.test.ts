/**
 * The inventory of a real host, as a virtual machine with an Intel IOMMU showed it (Linux 6.12), through the addon and
 * through plain fs.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FsReader } from '../../../src/addon/fsReader.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { Host } from '../../../src/host/host.ts';
import { type Group, readGroups, reservedRegions } from '../../../src/pci/groups.ts';
import { type Inventory, scanInventory } from '../../../src/pci/inventory.ts';
import { resolveDevice } from '../../../src/pci/resolve.ts';
import { isVfioDriver } from '../../../src/pci/vfio.ts';
import type { Warning } from '../../../src/text/warning.ts';
import { loadDump, type StaticHost } from '../../mock/tree.ts';

let tree: StaticHost;
beforeAll(() => {
  tree = loadDump('intel-6.12');
});
afterAll(() => tree.remove());

test('the addon is there, or half of this file would test the same twice', () => {
  expect(loadNative().kind).toBe('addon');
});

describe.each(['addon', 'fs'])('through %s', (kind) => {
  let host: Host;
  let inventory: Inventory;
  let groups: Group[];
  const warnings: Warning[] = [];
  beforeAll(() => {
    host = new Host(tree.root, kind === 'fs' ? new FsReader() : loadNative());
    inventory = scanInventory(host);
    groups = readGroups(host, inventory, warnings);
  });
  const device = (address: string) => inventory.byAddress.get(address);
  const group = (id: number) => groups.find((g) => g.id === id);

  test('66 functions in order, nothing to warn of', () => {
    expect(inventory.devices).toHaveLength(66);
    expect([...inventory.warnings, ...warnings]).toEqual([]);
    const order = inventory.devices.map((d) => d.address);
    expect(order).toEqual([...order].sort());
    expect(inventory.byAddress.size).toBe(66);
  });

  test('types: five PFs with their VFs', () => {
    const count = (type: string): number => inventory.devices.filter((d) => d.dev_type === type).length;
    expect({ pf: count('type-PF'), vf: count('type-VF'), pci: count('type-PCI') }).toEqual({ pf: 5, vf: 26, pci: 35 });
    const vfs = inventory.devices.filter((d) => d.dev_type === 'type-VF');
    for (const vf of vfs) expect(device(vf.parent_addr ?? '')?.dev_type).toBe('type-PF');
    for (const pf of inventory.devices.filter((d) => d.dev_type === 'type-PF')) {
      expect(pf.sriov_numvfs).toBe(vfs.filter((v) => v.parent_addr === pf.address).length);
      expect(pf.parent_addr).toBeNull();
    }
    for (const d of inventory.devices.filter((x) => x.dev_type !== 'type-PF'))
      expect([d.sriov_totalvfs, d.sriov_numvfs]).toEqual([null, null]);
  });

  test('one VF in full', () => {
    expect(device('0000:21:10.2')).toEqual({
      address: '0000:21:10.2',
      vendor_id: '8086',
      product_id: '10ca',
      class: '020000',
      subsystem_vendor_id: '1af4',
      subsystem_device_id: '1100',
      driver: 'tb_igbvf_vfio_pci',
      iommu_group: 34,
      numa_node: 0,
      dev_type: 'type-VF',
      parent_addr: '0000:21:00.0',
      sriov_totalvfs: null,
      sriov_numvfs: null,
      bridge: false,
      stuck: false,
    });
    expect(device('0000:21:00.0')).toMatchObject({ driver: 'igb', sriov_totalvfs: 7, sriov_numvfs: 7 });
  });

  test('numa_node -1 is null, and 0 and 1 are nodes', () => {
    const nodes = new Map<number | null, number>();
    for (const d of inventory.devices) nodes.set(d.numa_node, (nodes.get(d.numa_node) ?? 0) + 1);
    expect(tree.bytes('sys/bus/pci/devices/0000:00:02.0/numa_node')).toBe('-1\n');
    expect(device('0000:00:02.0')?.numa_node).toBeNull();
    expect([...nodes.keys()].sort()).toEqual([0, 1, null]);
  });

  test('every group is as its own folder says', () => {
    expect(groups.map((g) => `${g.id}`)).toEqual(
      tree.names('sys/kernel/iommu_groups').sort((a, b) => Number(a) - Number(b)),
    );
    for (const g of groups) expect(g.devices).toEqual(tree.names(`sys/kernel/iommu_groups/${g.id}/devices`));
    expect(groups.flatMap((g) => g.devices)).toHaveLength(66);
  });

  test('the shared group: two NICs and their PCI bridge', () => {
    const shared = group(device('0000:26:01.0')?.iommu_group ?? -1);
    expect(shared?.devices).toEqual(['0000:25:00.0', '0000:26:01.0', '0000:26:02.0']);
    // The bridge is driven by shpchp, which takes part in DMA ownership; pcieport does not.
    expect(shared).toMatchObject({
      viable: false,
      blockers: [{ address: '0000:25:00.0', driver: 'shpchp', reason: 'is a bridge, bound to shpchp' }],
    });
  });

  test('what keeps a group from a guest', () => {
    expect(group(8)?.blockers.map((b) => b.driver)).toEqual(['lpc_ich', 'ahci', 'i801_smbus']);
    expect(group(33)).toMatchObject({ viable: true, type: 'identity', blockers: [] });
    expect(group(device('0000:20:00.0')?.iommu_group ?? -1)?.viable).toBe(true);
    expect(reservedRegions(host, 33)).toContainEqual({
      start: '0x00000000fee00000',
      end: '0x00000000feefffff',
      type: 'msi',
    });
  });

  test('VFIO drivers are told by their vfio-dev folder', () => {
    const vfio = inventory.devices.filter((d) => isVfioDriver(host, d.address, d.driver)).map((d) => d.driver);
    expect(new Set(vfio)).toEqual(new Set(['vfio-pci', 'tb_igbvf_vfio_pci', 'tb_nvme_vfio_pci', 'virtio_vfio_pci']));
    expect(isVfioDriver(host, '0000:21:00.0', 'igb')).toBe(false);
  });

  test('ids of several devices are ambiguous', () => {
    expect(resolveDevice(host, inventory, '8086:2918').address).toBe('0000:00:1f.0');
    expect(() => resolveDevice(host, inventory, '8086:10ca')).toThrow(/devices go by/);
  });
});
