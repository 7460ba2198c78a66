/** `hostdev vf` of the built CLI: words, JSON, exit codes, and a tree on which no write does anything. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { StaticHost } from '../../mock/tree.ts';

const PF = '0000:02:00.0';
const EMPTY_PF = '0000:08:00.0';
const VF = '0000:02:10.0';
const TEXT = expect.any(String);

let host: StaticHost;
beforeAll(() => {
  host = new StaticHost({
    devices: [
      {
        address: PF,
        ids: '8086:10c9',
        group: 2,
        driver: 'igb',
        totalVfs: 7,
        attributes: { sriov_numvfs: '1\n', sriov_drivers_autoprobe: '1\n' },
      },
      { address: VF, ids: '8086:10ca', group: 3, driver: 'igbvf', physfn: PF },
      {
        address: EMPTY_PF,
        ids: '8086:10c9',
        group: 8,
        driver: 'igb',
        totalVfs: 7,
        attributes: {
          sriov_numvfs: '0\n',
          sriov_drivers_autoprobe: '1\n',
          sriov_offset: '128\n',
          sriov_stride: '2\n',
          sriov_vf_device: '10ca\n',
        },
      },
      { address: '0000:09:00.0', ids: '8086:10c9', driver: 'igb', totalVfs: 7, attributes: { sriov_totalvfs: 'x\n' } },
    ],
    drivers: { 'vfio-pci': 'vfio_pci', tb_igbvf_vfio_pci: 'tb_igbvf_vfio_pci' },
    aliases: ['alias vfio_pci:v00008086d000010CAsv*sd*bc*sc*i* tb_igbvf_vfio_pci'],
    links: { [`sys/bus/pci/devices/${PF}/virtfn0`]: `../${VF}` },
  });
});
afterAll(() => host.remove());

describe('words', () => {
  for (const [args, says] of [
    [['vf', 'create', PF], 'needs --count'],
    [['vf', 'create', '--count', '2'], 'needs PF'],
    ...['0', '-1', '4x', '1.5', '', '99999', '0x4'].map((n) => [['vf', 'create', PF, `--count=${n}`], 'number of VFs']),
    [['vf', 'create', PF, '--count', '1', '--for', 'dpdk'], 'for vfio or for netdev'],
    [['vf', 'list', PF, PF], 'takes [PF]'],
    [['vf', 'remove'], 'needs PF'],
    [['vf', 'list', '-n'], 'changes nothing'],
    [['vf'], 'There are: vf create, vf list, vf remove'],
  ] as [string[], string][])
    test(args.join(' '), () => {
      const ran = host.run(...args);
      expect([ran.exit, ran.err]).toEqual([2, expect.stringContaining(says)]);
    });
});

test('list: JSON of all and of one PF', () => {
  const ran = host.run('vf', 'list', '-j');
  expect(ran.exit).toBe(0);
  const document = JSON.parse(ran.out);
  expect(document.schema).toBe(1);
  expect(document.vfs).toHaveLength(1);
  expect(document.vfs[0]).toMatchObject({
    address: VF,
    parent_addr: PF,
    driver: 'igbvf',
    iommu_group: 3,
    dev_type: 'type-VF',
    owner: null,
    for: [],
  });
  expect(JSON.parse(host.run('vf', 'list', EMPTY_PF, '-j').out).vfs).toEqual([]);
  expect(host.run('vf', 'list', EMPTY_PF)).toMatchObject({ exit: 0, out: 'No VFs\n' });
  expect(host.run('vf', 'list', PF).out).toContain(`${VF}  ${PF}  3      igbvf`);
});

test('create -n: every write, also to VFs that are not there, each with its inverse; nothing is touched', () => {
  const before = host.hash('sys');
  const { exit, json } = host.run('vf', 'create', EMPTY_PF, '--count', '2', '-n', '-j');
  expect(exit).toBe(0);
  expect(json.changed).toBe(false);
  expect(json.plan.devices).toEqual(
    ['0000:08:10.0', '0000:08:10.2'].map((address) => ({
      address,
      driver_from: null,
      driver_to: 'tb_igbvf_vfio_pci',
      module: 'tb_igbvf_vfio_pci',
    })),
  );
  expect(json.plan.steps.map((s) => [s.path.split('/').at(-1), s.value.trim()])).toEqual([
    ['sriov_drivers_autoprobe', '0'],
    ['sriov_numvfs', '2'],
    ['driver_override', 'tb_igbvf_vfio_pci'],
    ['driver_override', 'tb_igbvf_vfio_pci'],
    ['drivers_probe', '0000:08:10.0'],
    ['drivers_probe', '0000:08:10.2'],
    ['sriov_drivers_autoprobe', '1'],
  ]);
  expect(json.plan.steps.every((s) => s.undo.length > 0)).toBe(true);
  expect(host.hash('sys')).toBe(before);
});

test('exit codes: already so 0, more than it can have 3, no PF 3, absent 4', () => {
  expect(host.run('vf', 'create', PF, '--count', '1', '-j').json).toMatchObject({ changed: false });
  expect(host.run('vf', 'remove', EMPTY_PF, '-j').json).toMatchObject({ changed: false, plan: { steps: [] } });
  for (const [args, exit, code] of [
    [['create', EMPTY_PF, '--count', '8'], 3, 'HOSTDEV_VF_COUNT'],
    [['create', VF, '--count', '1'], 3, 'HOSTDEV_NO_SRIOV'],
    [['create', '0000:09:00.0', '--count', '1'], 3, 'HOSTDEV_NO_SRIOV'],
    [['remove', '0000:77:00.0'], 4, 'HOSTDEV_DEVICE_ABSENT'],
  ] as const)
    for (const dry of [[], ['-n']]) {
      const ran = host.run('vf', ...args, '-j', ...dry);
      expect(ran.exit).toBe(exit);
      expect(ran.json.error).toEqual({ code, message: TEXT, hint: TEXT });
    }
  expect(host.run('vf', 'create', '0000:09:00.0', '--count', '1').err).toContain('ignored sriov_totalvfs "x\\n"');
});

test('where nothing reacts to a write: create and remove give up by their deadline, every byte is as before, the journal empty', () => {
  const before = host.hash('sys');
  for (const args of [
    ['create', EMPTY_PF, '--count', '2'],
    ['remove', PF],
  ]) {
    const ran = host.run('vf', ...args, '-j');
    expect(ran.exit).toBe(9);
    expect(ran.json.error.code).toBe('HOSTDEV_TIMEOUT');
    expect(host.hash('sys')).toBe(before);
    expect(host.names('run/hostdev/journal')).toEqual([]);
    expect(host.names('run/hostdev/bindings')).toEqual([]);
  }
});
