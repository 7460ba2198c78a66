/** Wishes of hostdev.toml as values: every mistake with its place, the rest counts. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readWishes, type Wishes } from '../../../src/boot/wishes.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { type SimulatedHost, simulatedHost } from '../../mock/hosts.ts';

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
});
afterEach(() => sim.remove());

const ID = `address = "0000:21:00.0"
path = "pci0000:20/04.0/00.0"
vendor_id = "8086"
product_id = "10c9"
`;

async function read(files: Record<string, string>): Promise<Wishes & { fatal: boolean }> {
  for (const [name, text] of Object.entries(files)) {
    const file = join(sim.host.root, 'etc/hostdev', name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  const config = await loadConfig(sim.host, []);
  const { wishes, all, findings } = readWishes(config);
  return { wishes, all, findings: [...config.findings, ...findings], fatal: config.findings.some((f) => f.fatal) };
}

const device = (more = 'driver = "vfio"'): string => `[[device]]\n${ID}${more}\n`;
const pf = (more = 'vfs = 4'): string => `[[pf]]\n${ID}${more}\n`;

test('a whole device and a whole PF', async () => {
  const { wishes, findings } = await read({
    'hostdev.toml': `${device('driver = "mlx5_vfio_pci"\ngroup = "endpoints"\nallow = ["network"]\nsubsystem_vendor_id = "15B3"\nserial = "00-1B-21-ff-ff-3c-4d-5e"\nmac = "52:54:00:AA:00:01"\nvf = 3')}${pf('vfs = 8\nfor = "netdev"\n[[pf.range]]\nvfs = "0-3"\ndriver = "vfio"\n[[pf.range]]\nvfs = "7"')}`,
  });
  expect(findings).toEqual([]);
  expect(wishes).toMatchObject([
    {
      kind: 'pf',
      vfs: 8,
      for: 'netdev',
      ranges: [
        { first: 0, last: 3, driver: 'vfio', vgpu_type: null },
        { first: 7, last: 7, driver: null, vgpu_type: null },
      ],
    },
    {
      kind: 'device',
      address: '0000:21:00.0',
      vf: 3,
      driver: 'mlx5_vfio_pci',
      group: true,
      allow: ['network'],
      identity: {
        path: 'pci0000:20/04.0/00.0',
        subsystem_vendor_id: '15b3',
        subsystem_device_id: null,
        serial: '00-1b-21-ff-ff-3c-4d-5e',
        mac: '52:54:00:aa:00:01',
      },
    },
  ]);
});

describe('what is wrong is told with its place, keeps no other wish, and nothing else of the configuration', () => {
  const GOOD =
    '[[device]]\naddress = "0000:30:00.0"\npath = "pci0000:30/00.0"\nvendor_id = "1b36"\nproduct_id = "0010"\ndriver = "vfio"\n';
  for (const [name, text, key] of [
    ['no driver', device(''), 'device[0]'],
    ['an unknown key', device('driver = "vfio"\ndrivr = "x"'), 'device[0].drivr'],
    ['an address without a domain', device().replace('0000:21', '21'), 'device[0].address'],
    ['an address of libvirt', device().replace('0000:21:00.0', 'pci_0000_21_00_0'), 'device[0].address'],
    ['a path that is none', device().replace('pci0000:20/', ''), 'device[0].path'],
    ['a path out of the tree', device().replace('04.0/', '../'), 'device[0].path'],
    ['no path', device().replace(/path = .*\n/, ''), 'device[0]'],
    ['an id', device().replace('10c9', '10c'), 'device[0].product_id'],
    ['a number for an id', device().replace('"8086"', '8086'), 'device[0].vendor_id'],
    ['a driver that is a path', device('driver = "../x"'), 'device[0].driver'],
    ['an empty driver', device('driver = ""'), 'device[0].driver'],
    ['a guard', device('driver = "vfio"\nallow = ["all"]'), 'device[0].allow'],
    ['a guard that nothing lifts', device('driver = "vfio"\nallow = ["bridge"]'), 'device[0].allow'],
    ['a group for the host', device('driver = "host"\ngroup = "endpoints"'), 'device[0].group'],
    ['half a VF', device('driver = "vfio"\nvf = 1.5'), 'device[0].vf'],
    ['a serial number', device('driver = "vfio"\nserial = "x"'), 'device[0].serial'],
    ['a table instead of a list', device().replace('[[device]]', '[device]'), 'device[0]'],
    ['no VFs', pf('vfs = 0'), 'pf[0].vfs'],
    ['too many VFs', pf('vfs = 65536'), 'pf[0].vfs'],
    ['a text for VFs', pf('vfs = "4"'), 'pf[0].vfs'],
    ['VFs for nobody', pf('vfs = 4\nfor = "dpdk"'), 'pf[0].for'],
    ['a range beyond', pf('vfs = 4\n[[pf.range]]\nvfs = "2-4"'), 'pf[0].range[0].vfs'],
    ['a range backwards', pf('vfs = 4\n[[pf.range]]\nvfs = "3-1"'), 'pf[0].range[0].vfs'],
    ['ranges that overlap', pf('vfs = 4\n[[pf.range]]\nvfs = "0-2"\n[[pf.range]]\nvfs = "2"'), 'pf[0].range[1].vfs'],
    ['half a vGPU type', pf('vfs = 4\n[[pf.range]]\nvfs = "0"\nvgpu_type = 1.5'), 'pf[0].range[0].vgpu_type'],
    ['a vGPU type by name', pf('vfs = 4\n[[pf.range]]\nvfs = "0"\nvgpu_type = "592"'), 'pf[0].range[0].vgpu_type'],
    ['a vGPU type below 0', pf('vfs = 4\n[[pf.range]]\nvfs = "0"\nvgpu_type = -1'), 'pf[0].range[0].vgpu_type'],
    [
      'a vGPU on another driver',
      pf('vfs = 4\n[[pf.range]]\nvfs = "0"\ndriver = "vfio-pci"\nvgpu_type = 592'),
      'pf[0].range[0].vgpu_type',
    ],
    ['a range with a key that is none', pf('vfs = 4\n[[pf.range]]\nvfs = "0"\nvf = 1'), 'pf[0].range[0].vf'],
  ] as const)
    test(name, async () => {
      const { wishes, findings, fatal } = await read({ 'hostdev.toml': text, 'conf.d/good.toml': GOOD });
      expect(findings.map((f) => [f.key, f.severity])).toEqual([[key, 'error']]);
      expect(findings[0]?.file).toContain('hostdev.toml');
      expect(findings[0]?.line).toBeGreaterThan(0);
      expect(fatal).toBe(false);
      expect(wishes.map((w) => w.address)).toEqual(['0000:30:00.0']);
    });

  test('broken TOML, and 1 MiB of it, in one file', async () => {
    for (const bad of ['[[device]\n', `#${'x'.repeat(1024 * 1024)}\n${device()}`]) {
      const { wishes, findings } = await read({ 'hostdev.toml': bad, 'conf.d/good.toml': GOOD });
      expect(findings).toMatchObject([{ file: expect.stringContaining('hostdev.toml') }]);
      expect(wishes.map((w) => w.address)).toEqual(['0000:30:00.0']);
    }
  });
});

describe('one device in two files', () => {
  test('that say the same: the first counts, and it is said', async () => {
    const { wishes, findings } = await read({ 'hostdev.toml': device(), 'conf.d/a.toml': device() });
    expect(wishes).toHaveLength(1);
    expect(findings).toMatchObject([
      { file: expect.stringContaining('a.toml'), line: 1, message: expect.stringContaining('hostdev.toml:1') },
    ]);
  });

  test('that do not agree: none counts', async () => {
    const { wishes, findings } = await read({
      'hostdev.toml': device(),
      'conf.d/a.toml': device('driver = "host"'),
      'conf.d/b.toml': pf(),
    });
    expect(wishes.map((w) => w.kind)).toEqual(['pf']);
    expect(findings).toMatchObject([{ message: expect.stringContaining('none of them counts') }]);
  });
});
