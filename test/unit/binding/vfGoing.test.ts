/**
 * `vf create` and `vf remove` before they write: what goes with the VFs that are there, where those that come will be,
 * and what refuses.
 */
import { afterEach, describe, expect, test } from 'vitest';
import type { LostVfs } from '../../../src/actions/vfLosses.ts';
import { type Ran, StaticHost, type TreeDevice } from '../../mock/tree.ts';
import { texts } from '../../mock/warnings.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

const PF = '0000:41:00.0';
const VFS = ['0000:41:00.4', '0000:41:00.5', '0000:41:00.6'];
const MODULES = ['alias pci:v000010DEd*sv*sd*bc03sc02i00* nvidia', 'alias pci:v00008086d000010CAsv*sd*bc*sc*i* igbvf'];

type Kind = {
  ids: string;
  class: string;
  driver: string;
  vfDriver: string;
  /** What its VFs show beside the usual; `vfio` for those that VFIO has. */
  vfs: Pick<TreeDevice, 'vfio' | 'attributes'>[];
};
const NVIDIA: Kind = {
  ids: '10de:2236',
  class: '030200',
  driver: 'nvidia',
  vfDriver: 'nvidia',
  vfs: ['592\n', '0\n', '593\n'].map((t, n) => ({ vfio: n < 2, attributes: { 'nvidia/current_vgpu_type': t } })),
};
const ACME: Kind = { ids: '1002:7461', class: '120000', driver: 'acme', vfDriver: 'acme_vf', vfs: [{ vfio: true }] };
const NIC: Kind = { ids: '8086:10c9', class: '020000', driver: 'igb', vfDriver: 'igbvf', vfs: [{}, {}] };

type Change = { attributes?: TreeDevice['attributes']; groups?: boolean; cmdline?: string; has?: number };

/** A PF of a kind with its VFs, or `has` of them. */
function root(kind: Kind, { attributes = {}, groups = true, cmdline, has = kind.vfs.length }: Change = {}): StaticHost {
  const { ids, class: cls, driver } = kind;
  const h = new StaticHost({
    drivers: { 'vfio-pci': 'vfio_pci', igbvf: 'igbvf' },
    aliases: MODULES,
    devices: [
      {
        address: PF,
        ids,
        class: cls,
        driver,
        totalVfs: 16,
        ...(groups ? { group: 20 } : {}),
        attributes: {
          sriov_numvfs: `${has}\n`,
          sriov_drivers_autoprobe: '1\n',
          sriov_offset: '4\n',
          sriov_stride: '1\n',
          sriov_vf_device: ids === NIC.ids ? '10ca\n' : `${ids.split(':')[1]}\n`,
          ...attributes,
        },
      },
      ...kind.vfs.slice(0, has).map((vf, n) => ({
        address: VFS[n] ?? '',
        ids,
        class: cls,
        driver: kind.vfDriver,
        physfn: PF,
        ...(groups ? { group: 21 + n } : {}),
        ...vf,
      })),
    ],
    links: Object.fromEntries(VFS.slice(0, has).map((vf, n) => [`sys/bus/pci/devices/${PF}/virtfn${n}`, `../${vf}`])),
    ...(cmdline === undefined ? {} : { files: { 'proc/cmdline': cmdline } }),
  });
  hosts.push(h);
  return h;
}

const create = (h: StaticHost, count: number, ...more: string[]): Ran =>
  h.run('-j', 'vf', 'create', PF, '--count', `${count}`, ...more);
const ends = (r: Ran) =>
  (r.json as unknown as { vfs: { address: string; driver: string | null; for: string[] }[] }).vfs.map((v) => [
    v.address,
    v.driver,
    v.for,
  ]);
const lost = (r: Ran) => (r.json.plan as unknown as { lost: LostVfs | null }).lost;

describe('no IOMMU', () => {
  test('VFs for VFIO are refused as bind refuses, in a dry run too, and nothing is written', () => {
    for (const change of [{ groups: false }, { groups: false, cmdline: 'iommu=off\n' }])
      for (const has of [0, 2]) {
        const h = root(NIC, { ...change, has });
        const before = h.hash('sys');
        const { error } = h.run('-j', 'bind', '-n', PF).json;
        for (const args of [['-n'], [], ['-n', '--recreate'], ['--recreate']]) {
          const r = create(h, 4, '--for', 'vfio', ...args);
          expect([r.exit, r.json.error]).toEqual([3, error]);
        }
        expect(h.hash('sys')).toBe(before);
        expect(create(h, 4, '--for', 'netdev', '-n', '--recreate').exit).toBe(0);
        expect(h.run('vf', 'remove', PF, '-n').exit).toBe(0);
      }
  });

  test('a PF that nothing translates for, beside groups of others', () => {
    const h = root(NIC, { groups: false, has: 0 });
    h.file('sys/kernel/iommu_groups/7/type', 'DMA\n');
    expect(create(h, 4, '-n')).toMatchObject({ exit: 3, json: { error: { code: 'HOSTDEV_IOMMU_OFF' } } });
  });
});

describe('VFs whose own driver is their VFIO provider', () => {
  test.each([
    ['vGPU, by the VFs that are there', NVIDIA, 3, 'nvidia'],
    ['vGPU, by its PF, which has no VFs yet', NVIDIA, 0, 'nvidia'],
    ["another vendor's, by the VFs that are there", ACME, 1, 'acme_vf'],
  ] as const)('%s: the new ones are left to it, and no override is written', (_, kind, has, driver) => {
    const h = root(kind, { has });
    for (const use of ['vfio', 'netdev']) {
      const r = create(h, 2, '-n', '--recreate', '--for', use);
      expect(r.exit).toBe(0);
      expect(ends(r)).toEqual([
        [VFS[0], driver, []],
        [VFS[1], driver, []],
      ]);
      expect(r.json.plan.devices.filter((d) => d.driver_to !== null).map((d) => d.driver_to)).toEqual([driver, driver]);
      expect(r.json.plan.steps.filter((s) => !s.path.endsWith('sriov_numvfs'))).toEqual([]);
      expect(texts(r.json.warnings)).toContainEqual(expect.stringContaining(`its VFs are left to ${driver}`));
    }
  });

  test('as many as there are: none of them is called stray', () => {
    for (const use of ['vfio', 'netdev'])
      expect(create(root(NVIDIA), 3, '-n', '--for', use).json).toMatchObject({ changed: false, schema: 1 });
    expect(create(root(NVIDIA), 3).json.warnings).toBeUndefined();
  });

  test('the types that are set are named by whatever takes the VFs away', () => {
    const h = root(NVIDIA);
    const types = [
      { address: VFS[0], vgpu_type: '592' },
      { address: VFS[2], vgpu_type: '593' },
    ];
    const says = expect.stringContaining(
      `vGPU types of its VFs go with them and are not put back: 592 of ${VFS[0]}, 593`,
    );
    for (const args of [
      ['vf', 'remove', PF],
      ['vf', 'create', PF, '--count', '2', '--recreate'],
    ]) {
      const r = h.run('-j', '-n', ...args);
      expect([r.exit, lost(r)?.vgpu_types]).toEqual([0, types]);
      expect(texts(r.json.warnings)).toContainEqual(says);
    }
    expect(texts(h.run('-j', '-n', 'bind', PF, '--allow=vfs').json.warnings)).toContainEqual(says);
    expect(lost(root(NIC).run('-j', '-n', 'vf', 'remove', PF))?.vgpu_types).toEqual([]);
  });

  test('a type that cannot be read is not taken for none', () => {
    const h = root(NVIDIA);
    h.remove(`sys/bus/pci/devices/${VFS[0]}/nvidia/current_vgpu_type`);
    h.folder(`sys/bus/pci/devices/${VFS[0]}/nvidia/current_vgpu_type`);
    const r = h.run('-j', '-n', 'vf', 'remove', PF);
    expect([r.exit, lost(r)?.vgpu_types]).toEqual([0, null]);
    expect(texts(r.json.warnings)).toContainEqual(
      expect.stringContaining('which vGPU types its VFs have is not known'),
    );
    expect(create(h, 2, '-n', '--recreate').exit).toBe(1);
  });
});

describe('the refusal without --recreate', () => {
  test('names all that would go, in text, in values and in warnings', () => {
    const h = root(NVIDIA);
    for (const args of [[], ['-n']]) {
      const r = create(h, 2, ...args);
      expect([r.exit, r.json.error.code]).toEqual([5, 'HOSTDEV_GUARD']);
      expect(r.json.error.message).toContain(`592 of ${VFS[0]}, 593 of ${VFS[2]}`);
      expect(texts(r.json.warnings)).toContainEqual(expect.stringContaining('592 of'));
      expect(lost(r)).toMatchObject({ bindings: [], settings: [], vgpu_types: [{}, {}], representors: [] });
    }
  });

  test('representors, ports of a switch or not', () => {
    const h = root(NIC);
    for (const [n, name] of ['r0', 'r1'].entries()) {
      h.file(`sys/devices/pci0000:41/${PF}/net/${name}/phys_port_name`, `pf0vf${n}\n`);
      h.link(`sys/class/net/${name}`, `../../devices/pci0000:41/${PF}/net/${name}`);
    }
    h.folder('sys/devices/virtual/net/ovs-system/lower_r0');
    h.link('sys/class/net/ovs-system', '../../devices/virtual/net/ovs-system');
    h.link(`sys/devices/pci0000:41/${PF}/net/r0/master`, '../../../../virtual/net/ovs-system');
    const going = [
      `r0 is the representor of VF 0 of ${PF}: it goes with the VF, and is a port of ovs-system`,
      `r1 is the representor of VF 1 of ${PF}: it goes with the VF`,
    ];
    const r = create(h, 4);
    expect(r.exit).toBe(5);
    for (const line of going) expect(r.json.error.message).toContain(line);
    expect(texts(r.json.warnings).slice(0, 2)).toEqual(going);
    expect(lost(r)?.representors).toEqual([
      { name: 'r0', vf: 0, bridge: 'ovs-system' },
      { name: 'r1', vf: 1, bridge: null },
    ]);
    expect(texts(create(h, 4, '-n', '--recreate').json.warnings).slice(0, 2)).toEqual(going);
  });
});

describe('the plan says where each VF ends', () => {
  test('for VFIO: driver and for whom, in text and in JSON; the VFs that are there now are not shown for those that come', () => {
    for (const has of [0, 2]) {
      const h = root(NIC, { has });
      expect(ends(create(h, 3, '-n', '--recreate'))).toEqual(VFS.map((a) => [a, 'vfio-pci', ['admin']]));
      const { out } = h.run('vf', 'create', PF, '--count', '3', '-n', '--recreate');
      for (const vf of VFS) expect(out).toMatch(new RegExp(`^${vf}  ${PF}  -      vfio-pci  admin$`, 'm'));
    }
  });

  test('for the host: the driver that will claim them, for nobody', () => {
    const r = create(root(NIC), 3, '-n', '--recreate', '--for', 'netdev');
    expect(ends(r)).toEqual(VFS.map((a) => [a, 'igbvf', []]));
    expect(r.json.plan.devices).toEqual(
      VFS.map((address, n) => ({
        address,
        driver_from: n < 2 ? 'igbvf' : null,
        driver_to: 'igbvf',
        module: 'igbvf',
      })),
    );
  });

  test('remove: none, and which go', () => {
    const h = root(NIC);
    expect(ends(h.run('-j', 'vf', 'remove', PF, '-n'))).toEqual([]);
    expect(h.run('vf', 'remove', PF, '-n').out).toMatch(
      new RegExp(`^"0" > /.*/sriov_numvfs\n${VFS[0]}  removed\n${VFS[1]}  removed\n$`),
    );
  });

  test.each([
    ['sriov_offset', null],
    ['sriov_offset', 'x\n'],
    ['sriov_offset', '0\n'],
    ['sriov_offset', '65535\n'],
    ['sriov_stride', null],
    ['sriov_stride', '0\n'],
  ])('%s %j: that it cannot be told is said, where the plan is shown', (attribute, bytes) => {
    const h = root(NIC, { has: 0, attributes: { [attribute]: bytes } });
    for (const use of ['vfio', 'netdev']) {
      const r = create(h, 2, '-n', '--for', use);
      expect([r.exit, ends(r), r.json.plan.devices]).toEqual([0, [], []]);
      expect(texts(r.json.warnings)).toEqual([
        expect.stringContaining('where its VFs will be cannot be told (sriov_offset '),
      ]);
    }
    const there = create(root(NIC, { attributes: { [attribute]: bytes } }), 3);
    expect([there.exit, texts(there.json.warnings).at(-1)]).toEqual([5, expect.stringContaining('cannot be told')]);
  });

  test.each([null, 'x\n', ''])('sriov_vf_device %j: their places are told, their driver is not', (bytes) => {
    const h = root(NIC, { has: 0, attributes: { sriov_vf_device: bytes } });
    const r = create(h, 2, '-n');
    expect(ends(r)).toEqual([
      [VFS[0], null, ['admin']],
      [VFS[1], null, ['admin']],
    ]);
    expect(texts(r.json.warnings)).toEqual([
      expect.stringContaining('which VFIO driver its VFs will be on cannot be told'),
    ]);
    expect(r.json.plan.steps.map((s) => s.path).filter((p) => p.endsWith('driver_override'))).toEqual([]);
  });

  test('no host driver is named for them', () => {
    const h = root({ ...NIC, ids: '8086:1111' }, { has: 0 });
    expect(texts(create(h, 2, '-n', '--for', 'netdev').json.warnings)).toEqual([
      expect.stringContaining("which of the host's drivers will claim its VFs cannot be told"),
    ]);
  });

  test('a VFIO driver whose module cannot be had is refused as in the real run', () => {
    const h = root(NIC, { has: 0 });
    h.remove('sys/bus/pci/drivers/vfio-pci');
    h.remove('sys/module/vfio_pci');
    const before = h.hash('sys');
    for (const args of [['-n'], []])
      expect(create(h, 2, ...args)).toMatchObject({ exit: 1, json: { error: { code: 'HOSTDEV_MODULE' } } });
    expect(h.hash('sys')).toBe(before);
  });
});
