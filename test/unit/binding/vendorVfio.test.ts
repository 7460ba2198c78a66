/**
 * Devices whose own driver is their VFIO provider: they stay there, guests take them with managed='no', and a vGPU
 * needs a type.
 */
import { afterEach, describe, expect, test } from 'vitest';
import { checkConfig } from '../../../src/actions/configCheck.ts';
import { explainDevice } from '../../../src/actions/groupWhy.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { Host } from '../../../src/host/host.ts';
import { onHostDriver, vendorVfio } from '../../../src/pci/vendorVfio.ts';
import { hostdev, type Ran, StaticHost, type TreeDevice } from '../../mock/tree.ts';
import { texts } from '../../mock/warnings.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

const PF = '0000:41:00.0';
const SET = '0000:41:00.5';
const NONE = '0000:41:00.6';
const EARLY = '0000:41:00.7';
const OTHER = '0000:51:00.1';
const VARIANT = '0000:61:00.1';
const CREATABLE = 'ID    : vGPU Name\n592   : NVIDIA A10-6Q\n593   : NVIDIA A10-8Q\n';

const vgpu = (address: string, group: number, type: string, vfio = true): TreeDevice => ({
  address,
  ids: '10de:2236',
  class: '030200',
  group,
  driver: 'nvidia',
  physfn: PF,
  vfio,
  attributes: { 'nvidia/current_vgpu_type': type, 'nvidia/creatable_vgpu_types': CREATABLE },
});

/**
 * A vGPU host: a type is set of one VF, none of the next, and VFIO has not got the third yet. Beside it another
 * vendor's provider, and a variant driver.
 */
function root(): StaticHost {
  const h = new StaticHost({
    drivers: { 'vfio-pci': 'vfio_pci' },
    devices: [
      { address: PF, ids: '10de:2236', class: '030200', group: 20, driver: 'nvidia', totalVfs: 32 },
      vgpu(SET, 21, '592\n'),
      vgpu(NONE, 22, '0\n'),
      vgpu(EARLY, 23, '592\n', false),
      { address: OTHER, ids: '1002:7461', class: '120000', group: 24, driver: 'acme_sriov', vfio: true },
      { address: VARIANT, ids: '15b3:101e', group: 25, driver: 'mlx5_vfio_pci', vfio: true },
    ],
    files: { 'proc/interrupts': ' 24:  0  IR-PCI-MSI-0000:00:01.0  0-edge  x\n' },
  });
  hosts.push(h);
  return h;
}

const xml = (address: string, managed: string): string => {
  const [, bus = '', slot = '', func = ''] = /^0000:(..):(..)\.(.)$/.exec(address) ?? [];
  return `<domain type='kvm'><name>g</name><uuid>624392bd-9784-4e20-8b29-1e85f123c67d</uuid><memory unit='GiB'>1</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os><devices><hostdev mode='subsystem' type='pci' managed='${managed}'><source><address domain='0x0000' bus='0x${bus}' slot='0x${slot}' function='0x${func}'/></source></hostdev></devices></domain>`;
};

const hook = (h: StaticHost, address: string, managed: string): Ran =>
  hostdev(['--root', h.root, '-j', 'hook', 'test', '-'], { input: xml(address, managed) });

const guards = (r: Ran): string[] => r.json.plan.refusals.map((x) => x.guard);

test('the kind is told by vfio-dev and the driver, not by a vendor; a variant driver is none of it', () => {
  const host = new Host(root().root, loadNative());
  expect(vendorVfio(host, { address: OTHER, driver: 'acme_sriov' })).toEqual({
    driver: 'acme_sriov',
    ready: true,
    vgpu: null,
  });
  expect(vendorVfio(host, { address: EARLY, driver: 'nvidia' })).toMatchObject({ ready: false, vgpu: { id: '592' } });
  expect(vendorVfio(host, { address: NONE, driver: 'nvidia' })?.vgpu?.creatable.map((t) => t.id)).toEqual([
    '592',
    '593',
  ]);
  for (const [address, driver] of [
    [VARIANT, 'mlx5_vfio_pci'],
    [OTHER, 'vfio-pci'],
    [PF, 'nvidia'],
    [SET, null],
  ] as const)
    expect(vendorVfio(host, { address, driver })).toBeNull();
  expect(vendorVfio(null, { address: SET, driver: 'nvidia' })).toBeNull();
  expect(onHostDriver(host, SET, 'nvidia')).toBe(true);
  expect(onHostDriver(host, VARIANT, 'mlx5_vfio_pci')).toBe(false);
});

describe('the hook', () => {
  test("managed='no': nothing is moved", () => {
    for (const address of [SET, OTHER, VARIANT])
      expect(hook(root(), address, 'no')).toMatchObject({ exit: 0, json: { plan: { steps: [], refusals: [] } } });
  });

  test("managed='yes': refused, for libvirt would take it from its driver", () => {
    for (const address of [SET, OTHER]) {
      const r = hook(root(), address, 'yes');
      expect([r.exit, guards(r)]).toEqual([5, ['vendor-vfio']]);
      expect(r.json.error.hint).toContain("managed='no'");
    }
    expect(hook(root(), VARIANT, 'yes').exit).toBe(0);
  });

  test('no vGPU type: refused in either way, with what to write where, and no allowance', () => {
    const r = hook(root(), NONE, 'no');
    expect([r.exit, guards(r)]).toEqual([5, ['vgpu-type']]);
    expect(r.json.error.message).toMatch(
      /write one of 592 \(NVIDIA A10-6Q\), 593 \(NVIDIA A10-8Q\) to \S+\/0000:41:00\.6\/nvidia\/current_vgpu_type/,
    );
    expect(r.json.error.hint).toContain('No allowance lifts this');
    expect(guards(hook(root(), NONE, 'yes'))).toEqual(['vendor-vfio', 'vgpu-type']);
  });

  test('VFIO has not got it yet: it is not bound to vfio-pci in its place', () => {
    const r = hook(root(), EARLY, 'no');
    expect([r.exit, guards(r)]).toEqual([5, ['vendor-vfio']]);
    expect(r.json.error.message).toContain('has not made its VFIO device yet');
  });
});

describe('bind and unbind', () => {
  test('bind leaves it where it is and says so; an allowance changes nothing, another driver by name is refused', () => {
    const h = root();
    for (const args of [[SET], [OTHER], [SET, '--driver', 'nvidia'], [SET, '--allow=vendor-vfio']]) {
      const r = h.run('-j', 'bind', '-n', ...args);
      expect(r).toMatchObject({ exit: 0, json: { plan: { steps: [] } } });
      expect(texts(r.json.warnings)).toEqual([expect.stringContaining("guests take it with managed='no'")]);
    }
    expect(texts(h.run('-j', 'bind', '-n', NONE).json.warnings)[1]).toContain('no vGPU type set');
    expect(guards(h.run('-j', 'bind', '-n', SET, '--driver', 'vfio-pci'))).toEqual(['vendor-vfio']);
    // Without a type too: that is asked of whoever stays.
    for (const address of [SET, NONE]) {
      const lifted = h.run('-j', 'bind', '-n', address, '--driver', 'vfio-pci', '--allow=vendor-vfio');
      expect([lifted.exit, lifted.json.plan.devices.map((d) => d.driver_to)]).toEqual([0, ['vfio-pci']]);
    }
    expect(guards(h.run('-j', 'bind', '-n', EARLY))).toEqual(['vendor-vfio']);
  });

  test('unbind --to-host: it is there', () => {
    const r = root().run('-j', 'unbind', '-n', '--to-host', SET);
    expect([r.exit, r.json.plan.steps]).toEqual([0, []]);
  });
});

describe('who says it', () => {
  test('show: managed and the type', () => {
    const h = root();
    const shown = (address: string) => h.run('-j', 'show', address).json;
    expect(shown(SET).device).toMatchObject({ managed: 'no', vgpu_type: '592' });
    expect(shown(OTHER).device).toMatchObject({ managed: 'no', vgpu_type: null });
    expect(shown(VARIANT).device).toMatchObject({ managed: null, vgpu_type: null });
    expect(texts(shown(NONE).warnings)).toEqual([expect.stringContaining('no vGPU type is set: write one of 592')]);
    expect(h.run('show', SET).out).toMatch(/^VFIO driver +nvidia\nManaged +no: nvidia is its VFIO provider/m);
    for (const [address, driver] of [
      [SET, 'nvidia'],
      [EARLY, 'nvidia'],
      [OTHER, 'acme_sriov'],
      [VARIANT, 'vfio-pci'],
      [PF, 'vfio-pci'],
    ] as const)
      expect(shown(address).device.variant_driver).toBe(driver);
  });

  test('group list and group show: no guest can have a vGPU without a type; beside a function that one can have, the group is viable', () => {
    const h = root();
    const listed = () => new Map(h.run('-j', 'group', 'list').json.groups.map((g) => [g.id, g]));
    expect([...listed()].map(([id, g]) => [id, g.viable])).toEqual([
      [20, false],
      [21, true],
      [22, false],
      [23, false],
      [24, true],
      [25, true],
    ]);
    expect(listed().get(22)?.blockers).toEqual([
      { address: NONE, driver: 'nvidia', reason: 'has no vGPU type set, and nvidia opens it for no guest' },
    ]);
    expect(h.run('group', 'show', NONE)).toMatchObject({ exit: 3, out: expect.stringContaining('no vGPU type set') });
    h.file(`sys/bus/pci/devices/${NONE}/nvidia/current_vgpu_type`, '593\n');
    expect(listed().get(22)).toMatchObject({ viable: true, blockers: [] });
    h.file(`sys/bus/pci/devices/${NONE}/nvidia/current_vgpu_type`, '0\n');
    h.link(`sys/kernel/iommu_groups/22/devices/${SET}`, `../../../../bus/pci/devices/${SET}`);
    h.link(`sys/bus/pci/devices/${SET}/iommu_group`, '../../../kernel/iommu_groups/22');
    expect(listed().get(22)).toMatchObject({ viable: true, devices: [SET, NONE] });
  });

  test('group why', async () => {
    const host = new Host(root().root, loadNative());
    const ids = async (address: string) => (await explainDevice(host, address)).why.causes.map((c) => c.id);
    expect(await ids(SET)).toEqual(['vendor-vfio']);
    expect(await ids(NONE)).toEqual(['vgpu-type', 'vendor-vfio']);
    expect(await ids(EARLY)).toEqual(['vendor-vfio-late', 'vendor-vfio']);
    expect(await ids(VARIANT)).toEqual([]);
  });

  test('domain check', () => {
    const h = root();
    const rules = (address: string, managed: string) => {
      const r = hostdev(['--root', h.root, '-j', 'domain', 'check', '-'], { input: xml(address, managed) });
      return [r.exit, (r.json as unknown as { findings: { rule: string }[] }).findings.map((f) => f.rule)];
    };
    expect(rules(SET, 'yes')).toEqual([3, ['guard-vendor-vfio']]);
    expect(rules(NONE, 'no')).toEqual([3, ['guard-vgpu-type']]);
    expect(rules(SET, 'no')).toEqual([0, []]);
  });

  test.each([
    ['', 1, 0],
    [', "managed": "yes"', 1, 0],
    [', "managed": "no"', 0, 0],
  ])('config check of nova.conf: managed%s', async (tag, mistakes) => {
    const h = root();
    h.file('etc/nova/nova.conf', `[pci]\ndevice_spec = {"address": "${SET}"${tag}}\n`);
    const found = await checkConfig(new Host(h.root, loadNative()), {
      config: [h.path('etc/nova/nova.conf')],
      inventory: null,
    });
    expect(found.mistakes).toHaveLength(mistakes);
    for (const m of found.mistakes) expect(m.message).toMatch(/"managed": "no".*0000:41:00\.5.*crash the host/);
  });

  test('config check of nova.conf: managed "no" for a device that is on a host driver', async () => {
    const h = root();
    h.file('etc/nova/nova.conf', `[pci]\ndevice_spec = {"address": "${PF}", "managed": "no"}\n`);
    const found = await checkConfig(new Host(h.root, loadNative()), {
      config: [h.path('etc/nova/nova.conf')],
      inventory: null,
    });
    expect(found.mistakes).toEqual([]);
    expect(found.remarks.map((r) => r.message)).toContainEqual(
      expect.stringMatching(/0000:41:00\.0 \(nvidia\).*crash/),
    );
  });
});
