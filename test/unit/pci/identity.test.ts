/** What tells a device over boots, as a kernel shows it. */
import { afterEach, describe, expect, test } from 'vitest';
import { loadNative } from '../../../src/addon/load.ts';
import { Host } from '../../../src/host/host.ts';
import { deviceSerial } from '../../../src/pci/configSpace.ts';
import { identityOf, slotPath } from '../../../src/pci/identity.ts';
import { type PciDevice, scanInventory } from '../../../src/pci/inventory.ts';
import { configBytes } from '../../mock/config.ts';
import { StaticHost, type Tree } from '../../mock/tree.ts';

let tree: StaticHost | null = null;
afterEach(() => tree?.remove());

function hostOf(t: Tree): Host {
  tree = new StaticHost(t);
  return new Host(tree.root, loadNative());
}

function identity(host: Host, address: string) {
  const { devices, byAddress } = scanInventory(host);
  return identityOf(host, byAddress.get(address) as PciDevice, devices);
}

const NIC = '0000:21:00.0';
const config = (serial: bigint) => ({ config: configBytes({ serial }) });
const nic = (more: Partial<Tree['devices'][number]> = {}) => ({
  address: NIC,
  ids: '8086:10c9',
  subsystem: '8086:a03c',
  below: ['0000:20:04.0'],
  ...more,
});

test('path, ids, serial number', () => {
  const host = hostOf({ devices: [nic({ attributes: config(0x001b21ffff3c4d5en) })] });
  expect(identity(host, NIC)).toEqual({
    path: 'pci0000:20/04.0/00.0',
    vendor_id: '8086',
    product_id: '10c9',
    subsystem_vendor_id: '8086',
    subsystem_device_id: 'a03c',
    serial: '00-1b-21-ff-ff-3c-4d-5e',
    nvme_serial: null,
    mac: null,
  });
});

describe('the path of slots', () => {
  test.each([
    [['0000:00:01.0', '0000:01:00.0', '0000:02:05.0'], '0000:05:00.1', 'pci0000:00/01.0/00.0/05.0/00.1'],
    [[], '0000:00:1f.6', 'pci0000:00/1f.6'],
  ])('%j', (above, address, path) => {
    expect(
      slotPath(
        hostOf({ devices: [{ address, ids: '8086:10c9', ...(above.length > 0 ? { below: above } : {}) }] }),
        address,
      ),
    ).toBe(path);
  });

  test('the bus of a VMD is numbered by the order of probing, and has no part in it', () => {
    const host = hostOf({ devices: [] });
    const link = (vmd: string): string | null => {
      const address = `${vmd}:e1:00.0`;
      tree?.link(
        `sys/bus/pci/devices/${address}`,
        `../../../devices/pci0000:00/0000:00:0e.0/pci${vmd}:e0/${vmd}:e0:06.0/${address}`,
      );
      return slotPath(host, address);
    };
    expect(link('10000')).toBe('pci0000:00/0e.0/06.0/00.0');
    expect(link('10001')).toBe('pci0000:00/0e.0/06.0/00.0');
  });

  test.each([
    '../../../devices/platform/x',
    '../../../devices/pci0000:20/0000:21:00.1',
    'loop',
    '',
    `../../../devices/pci0000:20/${'0000:20:00.0/'.repeat(70)}${NIC}`,
  ])('a link that tells none: %s', (target) => {
    const host = hostOf({ devices: [nic()] });
    if (target !== '') tree?.link(`sys/bus/pci/devices/${NIC}`, target);
    else tree?.remove(`sys/bus/pci/devices/${NIC}`);
    expect(slotPath(host, NIC)).toBeNull();
  });
});

describe("the card's own numbers", () => {
  const at = `sys/bus/pci/devices/${NIC}`;
  const withFiles = (files: Record<string, string>): Host => {
    const host = hostOf({ devices: [nic()] });
    for (const [name, text] of Object.entries(files)) tree?.file(`${at}/${name}`, text);
    return host;
  };

  test.each([
    [
      'permanent',
      { 'net/eth0/address': '52:54:00:AA:00:01\n', 'net/eth0/addr_assign_type': '0\n' },
      '52:54:00:aa:00:01',
    ],
    ['set by a bond', { 'net/eth0/address': '52:54:00:aa:00:01\n', 'net/eth0/addr_assign_type': '3\n' }, null],
    ['random', { 'net/eth0/address': '52:54:00:aa:00:01\n', 'net/eth0/addr_assign_type': '1\n' }, null],
    ['none', { 'net/eth0/address': '00:00:00:00:00:00\n', 'net/eth0/addr_assign_type': '0\n' }, null],
    ['of InfiniBand', { 'net/ib0/address': `${'00:'.repeat(19)}01\n`, 'net/ib0/addr_assign_type': '0\n' }, null],
    [
      'of virtio',
      { 'virtio3/net/eth0/address': '52:54:00:aa:00:01\n', 'virtio3/net/eth0/addr_assign_type': '0\n' },
      '52:54:00:aa:00:01',
    ],
    [
      'two ports of one function',
      {
        'net/eth0/address': '52:54:00:aa:00:01\n',
        'net/eth0/addr_assign_type': '0\n',
        'net/eth1/address': '52:54:00:aa:00:02\n',
        'net/eth1/addr_assign_type': '0\n',
      },
      null,
    ],
    [
      'beside a representor',
      {
        'net/eth0/address': '52:54:00:aa:00:01\n',
        'net/eth0/addr_assign_type': '0\n',
        'net/eth1/phys_port_name': 'pf0vf0\n',
        'net/eth1/address': '52:54:00:aa:00:02\n',
      },
      '52:54:00:aa:00:01',
    ],
  ])('MAC: %s', (_, files, mac) => {
    expect(identity(withFiles(files as Record<string, string>), NIC)?.mac).toBe(mac);
  });

  test.each([
    ['S4EVNX0M123456 \n', 'S4EVNX0M123456'],
    ['WD 1\n', 'WD 1'],
    ['\n', null],
    ['\x1b[31m\n', null],
    ['x'.repeat(40), null],
  ])('NVMe: %j', (text, serial) => {
    expect(identity(withFiles({ 'nvme/nvme0/serial': text, 'nvme/nvme0/model': 'x\n' }), NIC)?.nvme_serial).toBe(
      serial,
    );
  });

  test('serial numbers that say nothing, and bytes that are none', () => {
    for (const serial of [0n, 2n ** 64n - 1n]) expect(deviceSerial(configBytes({ serial }))).toBeNull();
    expect(deviceSerial(configBytes({ serial: 1n }))).toBe('00-00-00-00-00-00-00-01');
    expect(deviceSerial(configBytes({ serial: 1n }).subarray(0, 64))).toBeNull();
    expect(deviceSerial(new Uint8Array(4096).fill(0xff))).toBeNull();
  });

  test('a number that the twin shows too is none; the second function of the card may have it', () => {
    const twin = { ...nic({ attributes: config(7n) }), address: '0000:22:00.0', below: ['0000:20:05.0'] };
    const second = { ...nic({ attributes: config(7n) }), address: '0000:21:00.1' };
    expect(identity(hostOf({ devices: [nic({ attributes: config(7n) }), twin] }), NIC)?.serial).toBeNull();
    tree?.remove();
    expect(identity(hostOf({ devices: [nic({ attributes: config(7n) }), second] }), NIC)?.serial).toBe(
      '00-00-00-00-00-00-00-07',
    );
    tree?.remove();
    expect(
      identity(hostOf({ devices: [nic({ attributes: config(7n) }), { ...twin, attributes: config(8n) }] }), NIC)
        ?.serial,
    ).not.toBeNull();
  });

  test('no ids, no identity', () => {
    const host = hostOf({ devices: [nic({ attributes: { modalias: null, vendor: null, device: null } })] });
    expect(identity(host, NIC)).toBeNull();
  });
});
