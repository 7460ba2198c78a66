/** `guest list`, `guest show`, and what `list`, `show` and `pool list` say of guests, on libvirt's test driver. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { virshVersion } from '../../fuzz/judge.ts';
import { isLacking } from '../../lacking.ts';
import { hostdev, StaticHost } from '../../mock/tree.ts';

const lacks = isLacking(virshVersion() === null ? 'no libvirt to call: apt-get install libvirt-clients' : null);
const dir = mkdtempSync(join(tmpdir(), 'hostdev-guest-'));
const URI = `test://${join(dir, 'node.xml')}`;
const VF = '0000:21:10.0';

const XML = (devices: string): string =>
  `<domain type='kvm'><name>g</name><memory>65536</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>
<features><acpi/></features><devices>${devices}</devices></domain>`;
const NETWORK = (name: string): string => `<interface type='network'><source network='${name}'/></interface>`;

let host: StaticHost;
beforeAll(() => {
  writeFileSync(
    join(dir, 'node.xml'),
    `<node><domain type='test'><name>gpu</name><uuid>624392bd-9784-4e20-8b29-1e85f123c67d</uuid><memory>8192</memory>
<os><type>hvm</type></os><devices><hostdev mode='subsystem' type='pci' managed='no'><source>
<address domain='0' bus='0x21' slot='0x10' function='0'/></source></hostdev></devices></domain>
<network><name>vfs</name><uuid>624392bd-9784-4e20-8b29-1e85f123c67e</uuid><forward mode='hostdev' managed='yes'>
<address type='pci' domain='0' bus='0x21' slot='0x10' function='0x2'/></forward></network></node>`,
  );
  const vf = { ids: '8086:10ca', driver: 'vfio-pci', numa: 1 };
  host = new StaticHost({
    devices: [
      { ...vf, address: VF, group: 11 },
      { ...vf, address: '0000:21:10.2', group: 12 },
      { ...vf, address: '0000:21:10.4', group: 13 },
    ],
  });
  host.file('etc/hostdev/hostdev.toml', '[[device_spec]]\nvendor_id = "8086"\nproduct_id = "10ca"\n');
});
afterAll(() => {
  host.remove();
  rmSync(dir, { recursive: true });
});

const run = (...words: string[]) => hostdev([...words, '--root', host.root]);

test('below another root libvirt is not asked: guest list says so, list goes without', () => {
  const asked = run('guest', 'list', '-j');
  expect(asked.exit).toBe(8);
  expect(asked.json.error).toMatchObject({ code: 'HOSTDEV_LIBVIRT_UNREACHABLE' });
  const listed = run('list', '-j');
  expect(listed.exit).toBe(0);
  expect(listed.json).toMatchObject({
    guests_asked: false,
    devices: [{ guest: null }, { guest: null }, { guest: null }],
  });
});

describe.skipIf(lacks)('with --connect', () => {
  test('guest list and show: device, driver, group, node', () => {
    const { exit, json } = run('guest', 'list', '-j', '--connect', URI);
    expect(exit).toBe(0);
    const device = { address: VF, in: 'both', managed: false, driver: 'vfio-pci', iommu_group: 11, numa_node: 1 };
    expect(json).toMatchObject({ guests: [{ name: 'gpu', devices: [{ ...device, prepared_by: null }] }] });
    const shown = run('guest', 'show', 'gpu', '-j', '--connect', URI);
    expect(shown.json).toMatchObject({ guest: { name: 'gpu', devices: [device] } });
    expect(run('guest', 'show', 'none', '--connect', URI).exit).toBe(4);
  });

  test('list and show name the guest', () => {
    const listed = run('list', '-j', '--connect', URI);
    expect(listed.json).toMatchObject({
      guests_asked: true,
      devices: [{ guest: 'gpu' }, { guest: null }, { guest: null }],
    });
    expect(run('list', '--connect', URI).out).toMatch(/GUEST.*\n0000:21:10\.0 .* gpu\n/);
    expect(run('show', VF, '-j', '--connect', URI).json).toMatchObject({
      device: { guest: 'gpu' },
      guests_asked: true,
    });
  });

  test("pool list: neither a guest's device nor a network's is free", () => {
    const { json } = run('pool', 'list', '-j', '--connect', URI);
    expect(json).toMatchObject({ guests_asked: true });
    const { pools } = json as unknown as { pools: { devices: { address: string; state: string; reason: string }[] }[] };
    expect(pools.flatMap((p) => p.devices.map((d) => [d.address, d.state, d.reason]))).toEqual([
      [VF, 'claimed', 'gpu has it'],
      ['0000:21:10.2', 'unavailable', "libvirt's network vfs gives it out"],
      ['0000:21:10.4', 'free', null],
    ]);
  });

  test("claim -n takes neither a guest's device nor a network's, and without libvirt all three", () => {
    host.file(
      'etc/hostdev/hostdev.toml',
      '[[device_spec]]\nvendor_id = "8086"\nproduct_id = "10ca"\n' +
        '[[alias]]\nname = "vf"\nvendor_id = "8086"\nproduct_id = "10ca"\n',
    );
    const got = run('claim', 'vf:1', '-n', '-j', '--connect', URI);
    expect(got.json).toMatchObject({ guests_asked: true, requests: [{ devices: [{ address: '0000:21:10.4' }] }] });
    expect(run('claim', 'vf:2', '-n', '-j', '--connect', URI).exit).toBe(3);
    expect(run('claim', 'vf:3', '-n', '-j').json).toMatchObject({ guests_asked: false });
    const planned = hostdev(['domain', 'plan', '-', '--alias', 'vf:1', '-j', '--connect', URI, '--root', host.root], {
      input: XML(''),
    });
    expect(planned.json).toMatchObject({ fragments: [{ address: '0000:21:10.4' }] });
  });

  test("placement show says which of the offered devices libvirt's networks give out", () => {
    const { json } = run('placement', 'show', '-j', '--connect', URI);
    expect(json).toMatchObject({ in_networks: [{ address: '0000:21:10.2', network: 'vfs' }] });
    expect(run('placement', 'show', '-j').json).toMatchObject({ in_networks: [] });
  });

  test('status: what a guest has and no hook saw is drift, and not asked it is none', () => {
    const unheld = { address: VF, guest: { name: 'gpu' }, managed: false, driver: 'vfio-pci', drift: true };
    expect(run('status', '-j', '--connect', URI)).toMatchObject({
      exit: 3,
      json: { guests_asked: true, unheld: [unheld] },
    });
    expect(run('status', '--connect', URI).out).toContain(`${VF}: guest gpu has it (managed='no')`);
    expect(run('status', '-j')).toMatchObject({ exit: 0, json: { guests_asked: false, unheld: [] } });
    // Nobody has it open: what libvirt said is not enough for the books.
    const fixed = run('status', '--fix', '-j', '--connect', URI);
    expect(fixed).toMatchObject({ exit: 3, json: { mended: [{ address: VF, mended: false }], bindings: [] } });
  });

  test('domain check and hook test resolve the networks of a domain', () => {
    const ask = (door: string, name: string, ...more: string[]) =>
      hostdev([...door.split(' '), '-', '-j', ...more, '--root', host.root], { input: XML(NETWORK(name)) });
    const pool = { network: 'vfs', pool: true, managed: true, devices: ['0000:21:10.2'], free: ['0000:21:10.2'] };
    expect(ask('domain check', 'vfs', '--connect', URI).json).toMatchObject({ networks: [pool] });
    expect(ask('hook test', 'vfs', '--connect', URI).json).toMatchObject({ networks: ['vfs'], network_pools: [pool] });
    for (const door of ['domain check', 'hook test']) {
      const key = door === 'hook test' ? 'network_pools' : 'networks';
      expect(ask(door, 'other', '--connect', URI).json).toMatchObject({ [key]: [{ pool: false, devices: [] }] });
      expect(ask(door, 'vfs').json).toMatchObject({ [key]: [{ pool: null }] });
    }
  });

  test('a network of which nothing is left: the guest would not start', () => {
    const empty = `test://${join(dir, 'empty.xml')}`;
    writeFileSync(
      join(dir, 'empty.xml'),
      readFileSync(join(dir, 'node.xml'), 'utf8').replace("function='0x2'", "function='0'"),
    );
    const ask = (door: string) =>
      hostdev([...door.split(' '), '-', '-j', '--connect', empty, '--root', host.root], { input: XML(NETWORK('vfs')) });
    expect(ask('domain check')).toMatchObject({
      exit: 3,
      json: { valid: false, findings: [{ rule: 'network-pool' }] },
    });
    expect(ask('hook test').json.warnings).toMatchObject([{ id: 'nothing-offered' }]);
  });

  test('--ask-libvirt judges for the version of the libvirt that is asked, and says where its driver does not judge', () => {
    const ask = (devices: string, ...more: string[]) =>
      hostdev(['domain', 'check', '-', '-j', ...more, '--root', host.root], { input: XML(devices) });
    const asked = ask('', '--ask-libvirt', '--connect', URI);
    expect(asked.json).toMatchObject({ versions: { source: 'connection', libvirt: virshVersion(), qemu: null } });
    expect(asked.json).toMatchObject({ judges: [{}, {}, { judge: 'libvirt', verdict: 'not_judged' }] });
    const amd = ask("<iommu model='amd'><driver xtsup='on'/></iommu>", '--ask-libvirt', '--connect', URI);
    expect(amd).toMatchObject({ exit: 3, json: { defines: false } });
    expect(ask('', '--ask-libvirt').exit).toBe(8);
    expect(ask('', '--ask-libvirt', '--libvirt', '9.0.0').exit).toBe(2);
  });

  test('a libvirt that does not answer is a warning for list, and exit 8 for guest list', () => {
    const none = `qemu+unix:///system?socket=${dir}/none`;
    const listed = run('list', '-j', '--connect', none);
    expect(listed.exit).toBe(0);
    expect(listed.json).toMatchObject({ guests_asked: false, warnings: [{ id: 'not-measured' }] });
    expect(run('guest', 'list', '--connect', none).exit).toBe(8);
  });
});
