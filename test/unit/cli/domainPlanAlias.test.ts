/** `domain plan --alias`: devices from the pools, on a simulated host with its books and on a saved inventory. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { tryClaim } from '../../../src/actions/claim.ts';
import { type DomainPlan, type DomainPlanRequest, planDomain } from '../../../src/actions/domainPlan.ts';
import type { HostdevError } from '../../../src/errors.ts';
import { book, holdOf } from '../../mock/booked.ts';
import { allDomains, canonical } from '../../mock/domains.ts';
import { domainXml, type SimulatedHost, simulatedHost, UUID_A, UUID_B } from '../../mock/hosts.ts';
import { hostdev, type Ran } from '../../mock/tree.ts';
import { texts } from '../../mock/warnings.ts';
import { wish } from '../../mock/wish.ts';
import { EVER } from '../../patience.ts';

const PF = '0000:21:00.0';
const VF = (n: number): string => `0000:21:10.${n * 2}`;
const VFS = '[[alias]]\nname = "vf"\nvendor_id = "8086"\nproduct_id = "10ca"\n';
const OPTIONS = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false };

const NOTHING: DomainPlanRequest = {
  add: [],
  remove: [],
  pick: null,
  connect: null,
  setup: { config: [], inventory: null },
  managed: null,
  model: null,
  rom: null,
  boot: null,
  nic: null,
  unassignedPeers: false,
  namespace: null,
  oneSlot: false,
  viommu: null,
  libvirt: '9.0.0',
  qemu: '7.2.0',
};

describe('on a host', () => {
  let sim: SimulatedHost;
  let config: string;
  beforeEach(() => {
    sim = simulatedHost();
    config = join(sim.host.root, 'h.toml');
    writeFileSync(config, `[[device_spec]]\nproduct_id = "10ca"\nmanaged = "no"\n${VFS}`);
  });
  afterEach(() => sim.remove());

  const plan = (xml: Uint8Array, request: Partial<DomainPlanRequest>): Promise<DomainPlan> =>
    planDomain(
      sim.host,
      xml,
      'g.xml',
      { ...NOTHING, setup: { config: [config], inventory: null }, ...request },
      OPTIONS,
    );
  const failure = (p: Promise<unknown>): Promise<HostdevError> =>
    p.then(
      () => expect.unreachable(),
      (e: unknown) => e as HostdevError,
    );
  const got = (p: DomainPlan): string[] => p.fragments.map((f) => f.address);
  const alone = domainXml('g', UUID_A, []);

  test('what claim -n shows is what the domain gets, managed as its device_spec says', async () => {
    const p = await plan(alone, { pick: wish('vf:2') });
    const shown = await tryClaim(sim.host, { config: [config], inventory: null }, wish('vf:2'), null);
    expect(p.requests).toEqual(shown.requests);
    expect(got(p)).toEqual([VF(3), VF(2)]);
    expect(p.fragments.map((f) => /managed='(\w+)'/.exec(f.xml)?.[1])).toEqual(['no', 'no']);
    expect((await plan(alone, { pick: wish('vf:1'), managed: true })).xml).toContain("managed='yes'");
  });

  test('without the tag it is managed, and a device that is named never has the tag', async () => {
    expect((await plan(alone, { add: [VF(0)] })).xml).toContain("managed='yes'");
    writeFileSync(config, `[[device_spec]]\nproduct_id = "10ca"\n${VFS}`);
    expect((await plan(alone, { pick: wish('vf:1') })).xml).toContain("managed='yes'");
  });

  test('what the domain takes, what is named beside and what guests have is not offered', async () => {
    const state = { driver: 'igbvf', override: null };
    book(sim.host, VF(2), 13, holdOf(`domain:${UUID_B}`, 'vm2'), state, null);
    const xml = domainXml('g', UUID_A, [{ address: VF(3) }]);
    expect(got(await plan(xml, { pick: wish('vf:2') }))).toEqual([VF(1), VF(0)]);
    expect(got(await plan(xml, { add: [VF(1)], pick: wish('vf:1') }))).toEqual([VF(1), VF(0)]);
    const e = await failure(plan(xml, { pick: wish('vf:3') }));
    expect(e).toMatchObject({ code: 'HOSTDEV_NO_CAPACITY', exit: 3 });
    expect(e.message).toContain('vf: 3 wanted, 2 free of 4');
    expect(e.hint).toMatch(/0000:21:10\.4 \(vm2 has it\), 0000:21:10\.6 \(domain g has it\)/);
  });

  test('nor a PF whose VF it takes; a device that is taken out is free again', async () => {
    writeFileSync(
      config,
      '[[device_spec]]\nproduct_id = "10c9"\n[[alias]]\nname = "pf"\nvendor_id = "8086"\nproduct_id = "10c9"\ndevice_type = "type-PF"\n',
    );
    const xml = domainXml('g', UUID_A, [{ address: VF(3) }]);
    expect(await failure(plan(xml, { pick: wish('pf:1') }))).toMatchObject({ code: 'HOSTDEV_NO_CAPACITY' });
    const p = await plan(xml, { pick: wish('pf:1'), remove: [VF(3)] });
    expect([got(p), p.removed]).toEqual([[PF], [{ address: VF(3), kind: 'hostdev' }]]);
  });

  test('the group of a device that was picked is judged as that of one that was named', async () => {
    writeFileSync(
      config,
      '[[device_spec]]\nproduct_id = "11e8"\n[[alias]]\nname = "x"\nvendor_id = "1234"\nproduct_id = "11e8"\n',
    );
    const e = await failure(plan(alone, { pick: wish('x') }));
    expect(e).toMatchObject({ code: 'HOSTDEV_GROUP_NOT_VIABLE', exit: 3 });
    const p = await plan(alone, { pick: wish('x'), unassignedPeers: true });
    expect(p.fragments.map((f) => [f.address, f.unassigned])).toEqual([
      ['0000:26:02.0', true],
      ['0000:26:01.0', false],
    ]);
  });

  test('in and out again: canonical XML as it was, for all the domains', async () => {
    const samples = allDomains();
    expect(samples.length).toBeGreaterThanOrEqual(50);
    for (const { name, bytes } of samples) {
      const pick = wish('vf:2', { policy: 'preferred' });
      const p = await plan(bytes, { pick });
      expect(p.requests[0]?.devices, name).toHaveLength(2);
      const back = await plan(Buffer.from(p.xml), { remove: got(p) });
      expect(canonical(Buffer.from(back.xml)), name).toBe(canonical(bytes));
    }
  });
});

describe('on a saved inventory', () => {
  const DEVICES = [
    { address: '0000:41:00.0', dev_type: 'type-PF', product_id: '10c9', numa_node: 0, driver: 'igb', iommu_group: 1 },
    ...[0, 1].map((n) => ({
      address: `0000:41:10.${n}`,
      dev_type: 'type-VF',
      product_id: '10ca',
      parent_addr: '0000:41:00.0',
      class: '020000',
      numa_node: 0,
      iommu_group: 2 + n,
    })),
    ...[0, 1].map((n) => ({
      address: `0000:8${n}:00.0`,
      dev_type: 'type-PCI',
      vendor_id: '10de',
      product_id: '20b0',
      class: '030200',
      numa_node: n,
      iommu_group: 10 + n,
      driver: 'vfio-pci',
    })),
  ];
  const CONF = `[pci]
device_spec = {"product_id": "10ca"}
device_spec = {"vendor_id": "10de", "managed": "no"}
alias = {"name": "nic", "vendor_id": "8086", "product_id": "10ca", "device_type": "type-VF"}
alias = {"name": "gpu", "vendor_id": "10de", "product_id": "20b0"}
`;
  const DOMAIN = `<domain type='kvm'>
  <name>g</name>
  <devices>
    <hostdev mode='subsystem' type='pci' managed='no'>
      <source>
        <address domain='0' bus='0x41' slot='0x10' function='1'/>
      </source>
    </hostdev>
  </devices>
</domain>
`;
  const tuned = (node: number): string =>
    DOMAIN.replace('  <devices>', `  <numatune><memory mode='strict' nodeset='${node}'/></numatune>\n  <devices>`);

  let dir: string;
  let files: string[];
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'hostdev-plan-'));
    files = ['--inventory', join(dir, 'i.json'), '--config', join(dir, 'nova.conf')];
    const devices = DEVICES.map((d) => ({ vendor_id: '8086', ...d }));
    writeFileSync(join(dir, 'i.json'), JSON.stringify({ schema: 1, devices }));
    writeFileSync(join(dir, 'nova.conf'), CONF);
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  const run = (xml: string, ...args: string[]): Ran =>
    hostdev(['domain', 'plan', '-', ...files, ...args], { input: xml });
  const plan = (xml: string, ...args: string[]): Ran & { plan: DomainPlan } => {
    const ran = run(xml, ...args, '-j');
    return { ...ran, plan: ran.json as unknown as DomainPlan };
  };
  const got = (p: { plan: DomainPlan }): (string | null)[][] =>
    p.plan.requests.map((r) => [r.alias_name, ...r.devices.map((d) => d.address)]);

  test('two aliases, in one text or two; each with what its device_spec says', () => {
    const p = plan(DOMAIN, '--alias', 'gpu:1, nic:1');
    expect(p.exit, p.err).toBe(0);
    expect(got(p)).toEqual([
      ['gpu', '0000:80:00.0'],
      ['nic', '0000:41:10.0'],
    ]);
    expect(p.plan.fragments.map((f) => /managed='(\w+)'/.exec(f.xml)?.[1])).toEqual(['no', 'yes']);
    expect(plan(DOMAIN, '--alias', 'gpu:1', '--alias=nic:1').plan.xml).toBe(p.plan.xml);
    expect(p.plan.versions).toEqual({ libvirt: null, qemu: null, source: 'given' });
  });

  test('a number left out is 1, and said', () => {
    const p = plan(DOMAIN, '--alias', 'gpu');
    expect(p.plan.fragments).toHaveLength(1);
    expect(texts(p.plan.warnings)).toContainEqual('"gpu" has no number: 1 is meant');
  });

  test('--numa, else the nodes of <numatune>', () => {
    expect(got(plan(DOMAIN, '--alias', 'gpu:1', '--numa', '1'))).toEqual([['gpu', '0000:81:00.0']]);
    const p = plan(tuned(1), '--alias', 'gpu:1');
    expect([got(p), p.plan.numa_nodes]).toEqual([[['gpu', '0000:81:00.0']], [1]]);
    expect(got(plan(tuned(1), '--alias', 'gpu:1', '--numa', '0'))).toEqual([['gpu', '0000:80:00.0']]);
    expect(got(plan(tuned(0), '--alias', 'gpu:2', '--policy', 'preferred'))).toEqual([
      ['gpu', '0000:80:00.0', '0000:81:00.0'],
    ]);
    const e = plan(tuned(1), '--alias', 'nic:1');
    expect([e.exit, e.json.error.code]).toEqual([3, 'HOSTDEV_NO_CAPACITY']);
    expect(e.json.error.hint).toContain("NUMA nodes of the domain's <numatune> (1)");
  });

  test('a device that the domain has is not given to it again: no capacity, and no XML', () => {
    const p = plan(DOMAIN, '--alias', 'nic:2');
    expect([p.exit, p.json.error.code]).toEqual([3, 'HOSTDEV_NO_CAPACITY']);
    expect(p.json).toMatchObject({ requests: [{ alias_name: 'nic', wanted: 2, offered: 2, free: 1 }] });
    expect(Object.keys(p.json)).not.toContain('xml');
  });

  test('the diff, and all options of a device', () => {
    const ran = run(DOMAIN, '--alias', 'gpu:1', '--diff', '--rom', 'off', '--boot=1', '--managed', 'yes');
    expect(ran.exit, ran.err).toBe(0);
    const added = ran.out.split('\n').filter((l) => /^\+ /.test(l));
    expect(added.map((l) => l.slice(1).trim())).toEqual([
      "<hostdev mode='subsystem' type='pci' managed='yes'>",
      "<driver name='vfio'/>",
      '<source>',
      "<address domain='0x0000' bus='0x80' slot='0x00' function='0x0'/>",
      '</source>',
      "<boot order='1'/>",
      "<rom bar='off'/>",
      '</hostdev>',
    ]);
    expect(ran.out.split('\n').filter((l) => /^-[^-]/.test(l))).toEqual([]);
  });

  test('as an interface: managed as Nova has it, and what only the host itself knows is refused', () => {
    writeFileSync(join(dir, 'no.conf'), CONF.replace('"10ca"}', '"10ca", "managed": "no"}'));
    const mac = ['--vnic', 'direct', '--mac', '52:54:00:00:00:01'];
    const p = plan(DOMAIN, '--alias', 'nic:1', ...mac, '--config', join(dir, 'no.conf'));
    expect(p.exit, p.err).toBe(0);
    expect(p.plan.fragments[0]?.xml).toContain("<interface type='hostdev' managed='yes'>");
    const own = files.slice(0, 2);
    const only = hostdev(
      ['domain', 'plan', '-', ...own, '--config', join(dir, 'no.conf'), '--alias=nic:1', ...mac, '-j'],
      { input: DOMAIN },
    );
    expect(texts((only.json as unknown as DomainPlan).warnings).join()).toContain('--managed no does');
    const tap = plan(DOMAIN, '--alias', 'nic:1', '--vnic', 'macvtap');
    expect([tap.exit, tap.json.error.hint]).toEqual([3, expect.stringContaining('without --inventory')]);
  });

  test('devices of the inventory by name, and nothing of this host', () => {
    expect(plan(DOMAIN, '--device', '8086:10c9').plan.fragments.map((f) => f.address)).toEqual(['0000:41:00.0']);
    const p = plan(DOMAIN, '--device', 'lo');
    expect([p.exit, p.json.error.message]).toEqual([4, expect.stringContaining('in the inventory')]);
  });

  test('out again', () => {
    const p = run(DOMAIN, '--alias', 'gpu:2,nic:1');
    const back = run(p.out, '--remove=0000:80:00.0', '--remove=0000:81:00.0', '--remove=0000:41:10.0');
    expect(back.out).toBe(DOMAIN);
  });

  test.each([
    [['--alias', 'gpux:1'], 4, 'HOSTDEV_ALIAS_ABSENT'],
    [['--alias', 'gpu:x'], 2, 'HOSTDEV_REQUEST'],
    [['--alias', 'gpu:1:2'], 2, 'HOSTDEV_REQUEST'],
    [['--alias', ''], 2, 'HOSTDEV_REQUEST'],
    [['--alias', 'gpu:1', '--policy', 'near'], 2, 'HOSTDEV_REQUEST'],
    [['--alias', 'gpu:1', '--numa', 'x'], 2, 'HOSTDEV_USAGE'],
    [['--alias', 'gpu:2', '--boot', '1'], 2, 'HOSTDEV_USAGE'],
    [['--alias', 'nic:1', '--alias', 'gpu:1', '--vnic=direct', '--mac=52:54:00:00:00:01'], 2, 'HOSTDEV_USAGE'],
    [['--device', '0000:80:00.0', '--numa', '0'], 2, 'HOSTDEV_USAGE'],
    [['--alias', 'gpu:1', '--inventory', '-'], 2, 'HOSTDEV_USAGE'],
  ])('%j is refused', (args, exit, code) => {
    const p = plan(DOMAIN, ...args);
    expect([p.exit, p.json.error.code]).toEqual([exit, code]);
    expect(p.json.error.hint.length).toBeGreaterThan(5);
  });
});
