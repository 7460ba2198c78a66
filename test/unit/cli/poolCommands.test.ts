/** pool list, claim -n and placement show: on a simulated host with its books, and on saved inventories. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type ClaimWish, tryClaim } from '../../../src/actions/claim.ts';
import { showPlacement } from '../../../src/actions/placementShow.ts';
import { listPools } from '../../../src/actions/poolList.ts';
import { HostdevError } from '../../../src/errors.ts';
import { type SetupOptions, usableSetup } from '../../../src/nova/setup.ts';
import type { PciDevice } from '../../../src/pci/inventory.ts';
import { book, holdOf } from '../../mock/booked.ts';
import { type SimulatedHost, simulatedHost, UUID_A } from '../../mock/hosts.ts';
import { hostdev, StaticHost } from '../../mock/tree.ts';
import { texts } from '../../mock/warnings.ts';
import { wish } from '../../mock/wish.ts';

const PF = '0000:21:00.0';
const VF = (n: number): string => `0000:21:10.${n * 2}`;

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
});
afterEach(() => sim.remove());

function write(name: string, text: string): string {
  const file = join(sim.host.root, name);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}

const conf = (...lines: string[]): string => write('nova.conf', `[pci]\n${lines.join('\n')}\n`);
const here = (...lines: string[]): SetupOptions => ({ config: [conf(...lines)], inventory: null });

function saved(devices: Partial<PciDevice>[], ...lines: string[]): SetupOptions {
  const list = devices.map((d) => ({ dev_type: 'type-PCI', vendor_id: '8086', product_id: '10ca', ...d }));
  const bytes = Buffer.from(JSON.stringify({ schema: 1, devices: list }));
  return { config: [conf(...lines)], inventory: { bytes, file: 'i.json', maxBytes: 1e6 } };
}

/** Two cards with four VFs each, on a NUMA node of their own. */
const TWO_CARDS: Partial<PciDevice>[] = [0x41, 0x42].flatMap((bus, node) => {
  const pf = `0000:${bus.toString(16)}:00.0`;
  return [
    { address: pf, dev_type: 'type-PF' as const, product_id: '10c9', sriov_totalvfs: 7, numa_node: node },
    ...[0, 1, 2, 3].map((n) => ({
      address: `0000:${bus.toString(16)}:10.${n}`,
      dev_type: 'type-VF' as const,
      parent_addr: pf,
      numa_node: node,
    })),
  ];
});

const VF_SPEC = 'device_spec = {"product_id": "10ca"}';
const VF_ALIAS = 'alias = {"name": "vf", "vendor_id": "8086", "product_id": "10ca", "device_type": "type-VF"}';
const got = async (options: SetupOptions, w: ClaimWish): Promise<string[][]> =>
  (await tryClaim(sim.host, options, w, null)).requests.map((r) => r.devices.map((d) => d.address));

async function failure(p: Promise<unknown>): Promise<HostdevError> {
  const e: unknown = await p.then(
    () => null,
    (x: unknown) => x,
  );
  expect(e).toBeInstanceOf(HostdevError);
  return e as HostdevError;
}

describe('pool list', () => {
  test('pools by what makes devices alike, with their networks', async () => {
    const { pools, networks } = await listPools(
      sim.host,
      here(
        `device_spec = {"address": "${VF(0)}", "physical_network": "net1"}`,
        VF_SPEC,
        'device_spec = {"product_id": "100e"}',
      ),
      null,
    );
    expect(pools.map((p) => [p.keys.address, p.physical_network, p.total, p.free])).toEqual([
      ['0000:26:02.0', null, 1, 1],
      [PF, null, 3, 3],
      [PF, 'net1', 1, 1],
    ]);
    expect(networks).toEqual([
      { physical_network: null, total: 4, free: 4, claimed: 0, unavailable: 0 },
      { physical_network: 'net1', total: 1, free: 1, claimed: 0, unavailable: 0 },
    ]);
  });

  test('a device that a guest has is claimed, and its PF cannot be had', async () => {
    book(sim.host, VF(1), 12, holdOf(`domain:${UUID_A}`, 'vm1'), { driver: 'igbvf', override: null }, null);
    const { pools } = await listPools(sim.host, here(`device_spec = {"address": "${PF}"}`), null);
    const states = pools.flatMap((p) => p.devices.map((d) => [d.address, d.state, d.consumer]));
    expect(states).toContainEqual([VF(1), 'claimed', 'vm1']);
    expect(states).toContainEqual([PF, 'unavailable', null]);
    expect(states).toContainEqual([VF(0), 'free', null]);
    expect(await got(here(VF_SPEC, VF_ALIAS), wish('vf:3'))).toEqual([[VF(3), VF(2), VF(0)]]);
    expect((await failure(tryClaim(sim.host, here(VF_SPEC, VF_ALIAS), wish('vf:4'), null))).message).toContain(
      '4 wanted, 3 free of 4',
    );
  });

  test('a PF that a guest has takes its VFs with it, though no spec offers the PF', async () => {
    book(sim.host, PF, 10, holdOf(`domain:${UUID_A}`, null, true), { driver: 'igb', override: null }, null);
    const { pools } = await listPools(sim.host, here(VF_SPEC), null);
    expect(pools).toMatchObject([{ total: 4, free: 0, unavailable: 4 }]);
    expect(pools[0]?.devices[0]?.reason).toContain(UUID_A);
  });

  test('the books of an admin take nothing away, and those of this host nothing from a saved inventory', async () => {
    const state = { driver: 'igbvf', override: null };
    book(sim.host, VF(0), 11, holdOf('admin'), state, state);
    expect((await listPools(sim.host, here(VF_SPEC), null)).pools[0]?.free).toBe(4);
    book(sim.host, VF(0), 11, holdOf(`domain:${UUID_A}`, 'vm'), state, state);
    expect((await listPools(sim.host, here(VF_SPEC), null)).pools[0]?.free).toBe(3);
    const other = saved([{ address: VF(0), dev_type: 'type-VF' }], VF_SPEC);
    expect((await listPools(sim.host, other, null)).pools[0]?.free).toBe(1);
  });

  test('bridges are left out, and a device that does not answer is not free', async () => {
    const options = saved(
      [
        { address: '0000:01:00.0', class: '060400' },
        { address: '0000:02:00.0', stuck: true },
      ],
      'device_spec = {}',
    );
    const { pools, left_out } = await listPools(sim.host, options, null);
    expect(left_out).toEqual([{ address: '0000:01:00.0', reason: 'it is a bridge' }]);
    expect(pools).toMatchObject([{ free: 0, unavailable: 1 }]);
  });

  test('kinds of VF by resource_class', async () => {
    const { pools } = await listPools(
      sim.host,
      saved(TWO_CARDS, 'device_spec = {"address": "0000:41:10.*", "resource_class": "gold"}', VF_SPEC),
      null,
    );
    expect(pools.map((p) => p.resource_classes)).toEqual([['CUSTOM_GOLD'], ['CUSTOM_PCI_8086_10CA']]);
  });

  test('what the host uses is not free', async () => {
    const host = new StaticHost({
      devices: [{ address: '0000:03:00.0', ids: '8086:100e', driver: 'e1000' }],
      net: { eth0: '0000:03:00.0' },
      files: {
        'proc/net/route':
          'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n',
      },
    });
    const file = conf('device_spec = {"product_id": "100e"}');
    const ran = host.run('pool', 'list', '-j', '--config', file);
    expect(JSON.parse(ran.out)).toMatchObject({
      pools: [{ free: 0, unavailable: 1, devices: [{ reason: expect.stringContaining('eth0') }] }],
    });
    host.remove();
  });

  test('no configuration: an empty list, and why', async () => {
    const { pools, warnings } = await listPools(sim.host, { config: [], inventory: null }, null);
    expect(pools).toEqual([]);
    expect(texts(warnings)[0]).toMatch(/nothing may be given out: there is no .*hostdev\.toml/);
  });

  test('a configuration with which Nova would not start is refused, with the place and the line as it should be', async () => {
    const e = await failure(listPools(sim.host, here('device_spec = {managed: "no"}', 'alias = {}'), null));
    expect(e).toMatchObject({ code: 'HOSTDEV_CONFIG', exit: 3, data: { mistakes: [{ line: 2 }, { line: 3 }] } });
    expect(e.message).toMatch(/nova\.conf:2:16: .*and 1 more/);
    expect(e.hint).toContain('device_spec = {"managed": "no"}');
  });

  test('a mistyped tag does not keep it from working, as it does not keep Nova', async () => {
    const { pools, warnings } = await listPools(
      sim.host,
      here('device_spec = {"product_id": "10ca", "manged": "no"}'),
      null,
    );
    expect(pools).toMatchObject([{ keys: { manged: 'no' } }]);
    expect(texts(warnings).join()).toContain('Did you mean managed?');
  });
});

describe('claim -n', () => {
  test('takes what Nova takes, and keeps nothing', async () => {
    const options = saved(TWO_CARDS, VF_SPEC, VF_ALIAS);
    const first = [['0000:41:10.3', '0000:41:10.2']];
    expect(await got(options, wish('vf:2'))).toEqual(first);
    expect(await got(options, wish('vf:2'))).toEqual(first);
    expect(await got(options, wish('vf:2', { spread: true }))).toEqual([['0000:41:10.3', '0000:42:10.3']]);
    expect(await got(options, wish('vf:1, vf:4'))).toEqual([
      ['0000:41:10.3'],
      ['0000:41:10.2', '0000:41:10.1', '0000:41:10.0', '0000:42:10.3'],
    ]);
  });

  test('NUMA nodes and policies', async () => {
    const options = saved(TWO_CARDS, VF_SPEC, VF_ALIAS);
    const at = (...numaCells: number[]) => ({ place: { numaCells, hostCells: [] } });
    expect(await got(options, wish('vf', at(1)))).toEqual([['0000:42:10.3']]);
    expect((await failure(got(options, wish('vf:5', { ...at(1), policy: 'required' })))).hint).toContain('NUMA');
    expect((await got(options, wish('vf:5', { ...at(1), policy: 'preferred' })))[0]).toHaveLength(5);
    expect((await got(options, wish('vf:5', at(0, 1))))[0]).toHaveLength(5);
    const sockets = {
      place: {
        numaCells: [1],
        hostCells: [
          { id: 0, socket: 0 },
          { id: 1, socket: 0 },
        ],
      },
    };
    expect((await got(options, wish('vf:5', { ...sockets, policy: 'socket' })))[0]).toHaveLength(5);
    expect(await failure(got(options, wish('vf:5', { ...at(1), policy: 'socket' })))).toMatchObject({
      code: 'HOSTDEV_NO_CAPACITY',
    });
  });

  test('a PF and its VFs exclude each other within one request', async () => {
    const pf = 'alias = {"name": "pf", "vendor_id": "8086", "product_id": "10c9", "device_type": "type-PF"}';
    const options = saved(TWO_CARDS, 'device_spec = {"vendor_id": "8086"}', VF_ALIAS, pf);
    const [pfs, vfs] = await got(options, wish('pf:1,vf:4'));
    expect(pfs).toHaveLength(1);
    expect(vfs?.every((a) => a.slice(0, 7) !== pfs?.[0]?.slice(0, 7))).toBe(true);
    const e = await failure(got(options, wish('pf:1,vf:5')));
    expect(e).toMatchObject({ code: 'HOSTDEV_NO_CAPACITY', exit: 3, hint: expect.stringContaining('excludes') });
    expect(e.data.requests).toEqual([
      { alias_name: 'pf', wanted: 1, offered: 2, free: 2 },
      { alias_name: 'vf', wanted: 5, offered: 8, free: 8 },
    ]);
  });

  test('the reason is what really keeps it: not the nodes where there are too few anywhere', async () => {
    const options = saved(TWO_CARDS, VF_SPEC, VF_ALIAS);
    const place = { numaCells: [1], hostCells: [] };
    const e = await failure(got(options, wish(Array(12).fill('vf:1').join(), { place })));
    expect(e.hint).toContain('not for all together');
    expect(e.message).toMatch(/wanted, 8 free of 8 and 8 more\)$/);
    expect((await failure(got(options, wish('vf:3,vf:3', { place })))).hint).toContain('not on these NUMA nodes');
  });

  const PLACEMENT = [
    'report_in_placement = true',
    'device_spec = {"address": "0000:41:10.*", "resource_class": "gold"}',
    'device_spec = {"address": "0000:42:10.*", "resource_class": "silver"}',
    'alias = {"name": "gold", "resource_class": "GOLD", "device_type": "type-VF"}',
    'alias = {"name": "both", "vendor_id": "8086", "product_id": "10ca", "resource_class": "CUSTOM_SILVER"}',
    '[filter_scheduler]',
    'pci_in_placement = true',
  ];

  test('with Placement the class decides, and isolate wants a provider for each', async () => {
    const options = saved(TWO_CARDS, ...PLACEMENT);
    const answer = await tryClaim(sim.host, options, wish('gold:2,both'), null);
    expect(answer.requests.map((r) => r.devices.map((d) => [d.address, d.provider?.slice(-12)]))).toEqual([
      [
        ['0000:41:10.3', '0000:41:00.0'],
        ['0000:41:10.2', '0000:41:00.0'],
      ],
      [['0000:42:10.3', '0000:42:00.0']],
    ]);
    expect(await got(options, wish('gold,both', { isolate: true }))).toHaveLength(2);
    expect(await failure(got(options, wish('gold:2', { isolate: true })))).toMatchObject({
      hint: expect.stringContaining('isolate'),
    });
    expect((await failure(got(options, wish('gold:5')))).message).toContain('5 wanted, 4 free of 4');
  });

  test('what the legacy way does not look at is said', async () => {
    const alias = 'alias = {"name": "c", "vendor_id": "8086", "product_id": "10ca", "resource_class": "x"}';
    const { warnings } = await tryClaim(sim.host, saved(TWO_CARDS, VF_SPEC, alias), wish('c', { isolate: true }), null);
    expect(texts(warnings).filter((w) => w.includes('pci_in_placement'))).toHaveLength(2);
  });

  test.each([
    ['x:1', 'HOSTDEV_ALIAS_ABSENT', 4],
    ['vf:one', 'HOSTDEV_REQUEST', 2],
    ['vf:1:2', 'HOSTDEV_REQUEST', 2],
    ['', 'HOSTDEV_REQUEST', 2],
    ['vf:9', 'HOSTDEV_NO_CAPACITY', 3],
  ])('%j is refused: %s', async (request, code, exit) => {
    expect(await failure(tryClaim(sim.host, saved(TWO_CARDS, VF_SPEC, VF_ALIAS), wish(request), null))).toMatchObject({
      code,
      exit,
    });
  });
});

describe('placement show', () => {
  test('providers with inventories, traits and devices, without a server', async () => {
    const options = saved(
      TWO_CARDS,
      'report_in_placement = true',
      'device_spec = {"address": "0000:41:10.*", "resource_class": "gold", "traits": "blue"}',
      'device_spec = {"address": "0000:42:00.0", "product_id": "10ca", "physical_network": "p"}',
    );
    const shown = await showPlacement(sim.host, options, 'cn1', null);
    expect(shown).toEqual({
      hypervisor_hostname: 'cn1',
      providers: {
        'cn1_0000:41:00.0': {
          inventory: { CUSTOM_GOLD: { total: 4, max_unit: 4 } },
          traits: expect.arrayContaining(['COMPUTE_MANAGED_PCI_DEVICE', 'CUSTOM_BLUE']),
          devices: [0, 1, 2, 3].map((n) => `0000:41:10.${n}`),
        },
      },
      not_reported: [0, 1, 2, 3].map((n) => `0000:42:10.${n}`),
      in_networks: [],
      warnings: [],
    });
  });

  test('blanks around the names of traits', async () => {
    const spec = '[[device_spec]]\nproduct_id = "10ca"\ntraits = "blue, big"\n';
    const traits = async (more: string, traitBlanks: 'trim' | 'nova' | null = null): Promise<string[]> => {
      const options = { ...saved(TWO_CARDS), config: [write('h.toml', spec + more)], traitBlanks };
      return Object.values((await showPlacement(sim.host, options, null, null)).providers)[0]?.traits ?? [];
    };
    expect(await traits('')).toContain('CUSTOM_BIG');
    expect(await traits('[pci]\ntrait_blanks = "nova"\n')).toContain('CUSTOM__BIG');
    expect(await traits('', 'nova')).toContain('CUSTOM__BIG');
    expect(await traits('[pci]\ntrait_blanks = "nova"\n', 'trim')).toContain('CUSTOM_BIG');
  });

  test.each([
    ['HOSTDEV_PLACEMENT_DEPENDENT', ['device_spec = {"vendor_id": "8086"}']],
    ['HOSTDEV_PLACEMENT_MIXED', ['device_spec = {"address": "0000:41:10.0", "resource_class": "a"}', VF_SPEC]],
    ['HOSTDEV_PLACEMENT', ['report_in_placement = true', 'device_spec = {"product_id": "10ca", "one_time_use": "no"}']],
  ])('%s: as Nova would not start', async (code, lines) => {
    expect(await failure(showPlacement(sim.host, saved(TWO_CARDS, ...lines), null, null))).toMatchObject({
      code,
      exit: 3,
    });
  });
});

describe('StarlingX', () => {
  test('its default aliases are there when asked for, beside the own ones', async () => {
    const vfs = [{ address: '0000:51:01.0', product_id: '37c9', dev_type: 'type-VF' as const }];
    const spec = '[[device_spec]]\nproduct_id = "37c9"\n';
    const options = { ...saved(vfs), config: [write('s.toml', `${spec}[pci]\nstarlingx_default_aliases = true\n`)] };
    expect(await got(options, wish('qat-c62x-vf'))).toEqual([['0000:51:01.0']]);
    expect(await got(options, wish('qat-vf:1'))).toEqual([['0000:51:01.0']]);
    const without = { ...options, config: [write('t.toml', spec)] };
    expect(await failure(got(without, wish('qat-vf:1')))).toMatchObject({ code: 'HOSTDEV_ALIAS_ABSENT' });
  });
});

describe('StarlingX with pci_in_placement', () => {
  const IN_PLACEMENT = '[pci]\nreport_in_placement = true\npci_in_placement = true\nstarlingx_default_aliases = true\n';

  test('the default aliases are those for one chip, and an alias may ask by resource class alone', async () => {
    const alias = '[[alias]]\nname = "nic"\nresource_class = "NIC"\n';
    const file = write('p.toml', `${alias}${IN_PLACEMENT}[[device_spec]]\nproduct_id = "37c9"\n`);
    const pf = '0000:51:00.0';
    const vfs = [
      { address: pf, product_id: '37c8', dev_type: 'type-PF' as const },
      { address: '0000:51:01.0', product_id: '37c9', dev_type: 'type-VF' as const, parent_addr: pf },
    ];
    const { aliases } = await usableSetup(sim.host, { ...saved(vfs), config: [file] });
    expect([...aliases.keys()]).toEqual(['nic', 'qat-dh895xcc-vf', 'qat-c62x-vf']);
    await expect(listPools(sim.host, { ...saved(vfs), config: [file] }, null)).resolves.toBeDefined();
  });
});

describe('the requests of the five documents, verbatim', () => {
  const QAT = '[pci]\nstarlingx_default_aliases = true\n';
  const GPU = '[[alias]]\nname = "gpu"\nvendor_id = "10de"\nproduct_id = "1bb0"\n';
  const A1 = '[[alias]]\nname = "a1"\nvendor_id = "8086"\nproduct_id = "154d"\ndevice_type = "type-PF"\n';
  const DEVICES: Partial<PciDevice>[] = [
    { address: '0000:83:00.0', vendor_id: '10de', product_id: '1bb0' },
    { address: '0000:41:00.0', dev_type: 'type-PF', product_id: '154d', sriov_totalvfs: 63 },
    { address: '0000:41:00.1', dev_type: 'type-PF', product_id: '154d', sriov_totalvfs: 63 },
    ...['37c9', '0443'].flatMap((product_id, bus) =>
      [0, 1].map((n) => ({
        address: `0000:5${bus}:01.${n}`,
        dev_type: 'type-VF' as const,
        parent_addr: `0000:5${bus}:00.0`,
        product_id,
      })),
    ),
  ];
  const lines = readFileSync('test/data/seeds/004-requests.txt', 'utf8').trim().split('\n');
  const EXPECTED: Record<string, string[][]> = {
    'a1:2': [['0000:41:00.0', '0000:41:00.1']],
    'gpu:1': [['0000:83:00.0']],
    'qat-dh895xcc-vf:2': [['0000:51:01.1', '0000:51:01.0']],
    'gpu:1, qat-c62x-vf:2': [['0000:83:00.0'], ['0000:50:01.1', '0000:50:01.0']],
  };

  test.each(lines.map((l) => l.slice(4)))('%s', async (request) => {
    const file = write('h.toml', `${A1}${GPU}${QAT}[[device_spec]]\n`);
    const options = { ...saved(DEVICES), config: [file] };
    const expected = EXPECTED[request];
    if (expected !== undefined) expect(await got(options, wish(request))).toEqual(expected);
    // What StarlingX shows as the form of a request is none itself.
    else
      expect([request, (await failure(got(options, wish(request)))).exit]).toEqual([
        'pci_alias[:number_of_devices]',
        2,
      ]);
  });
});

describe('on the command line', () => {
  const inventory = (): string =>
    write(
      'i.json',
      JSON.stringify({ schema: 1, devices: TWO_CARDS.map((d) => ({ vendor_id: '8086', product_id: '10ca', ...d })) }),
    );

  test('options before and after the verb; -j is one document', () => {
    const file = conf(VF_SPEC, VF_ALIAS);
    const ran = hostdev(['--inventory', inventory(), '-j', 'claim', 'vf:2', '-n', '--numa', '0,1', '--config', file]);
    expect(ran.exit).toBe(0);
    expect(JSON.parse(ran.out)).toMatchObject({
      schema: 1,
      changed: false,
      requests: [{ alias_name: 'vf', devices: [{ address: '0000:41:10.3' }, {}] }],
    });
    expect(hostdev(['pool', 'list', '--config', file, '--inventory', inventory()]).out).toContain(
      '0000:41:00.0  8086:10ca  VF    0',
    );
    expect(hostdev(['placement', 'show', '--config', file, '--inventory', inventory()]).out).toMatch(
      /_0000:42:00\.0 +CUSTOM_PCI_8086_10CA +4/,
    );
  });

  test('a claim is not kept yet, and says so', () => {
    const ran = hostdev(['claim', 'vf:1', '--config', conf(VF_SPEC, VF_ALIAS)]);
    expect([ran.exit, ran.err]).toEqual([2, expect.stringContaining('not kept yet')]);
    expect(ran.err).toContain('-n');
  });

  test.each([
    [['--numa', 'a']],
    [['--numa', '0,']],
    [['--numa', '']],
    [['--sockets', '0']],
    [['--sockets', '0:0,0:1']],
    [['--group-policy', 'x']],
    [['--trait-blanks', 'x']],
    [['--policy', 'x']],
  ])('%j is a mistake of usage', (args) => {
    const ran = hostdev([
      'claim',
      'vf:1',
      '-n',
      '--config',
      conf(VF_SPEC, VF_ALIAS),
      '--inventory',
      inventory(),
      ...args,
    ]);
    expect([ran.exit, ran.out]).toEqual([2, '']);
    expect(ran.err).toMatch(/\nTo go on: ./);
  });
});
