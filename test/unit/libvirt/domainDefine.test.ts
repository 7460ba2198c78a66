/**
 * `domain define` on libvirt's test driver: it is a parser and a validator as libvirtd has them, and keeps its domains
 * for as long as a connection of this process is open.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { defineDomain } from '../../../src/actions/domainDefine.ts';
import type { DomainPlanRequest } from '../../../src/actions/domainPlan.ts';
import type { ActionOptions } from '../../../src/actions/options.ts';
import { loadNative } from '../../../src/addon/load.ts';
import type { HostdevError } from '../../../src/errors.ts';
import { Host } from '../../../src/host/host.ts';
import { Connection } from '../../../src/libvirt/connection.ts';
import { virshVersion } from '../../fuzz/judge.ts';
import { isLacking } from '../../lacking.ts';
import { UUID_A, UUID_B } from '../../mock/hosts.ts';
import { hostdev, StaticHost } from '../../mock/tree.ts';
import { EVER } from '../../patience.ts';

const lacks = isLacking(virshVersion() === null ? 'no libvirt to call: apt-get install libvirt-clients' : null);
const URI = 'test:///default';
const VF = '0000:21:10.0';
const PORT = { ids: '8086:10ca', driver: 'igbvf', numa: 1 };

const PLAIN: DomainPlanRequest = {
  add: [],
  remove: [],
  pick: null,
  connect: URI,
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
  libvirt: null,
  qemu: null,
};
const OPTIONS: ActionOptions = { deadlineMs: EVER, verb: 'domain define', dryRun: false, allowed: new Set() };

const hostdevOf = (fn: number, more = '', managed = 'yes'): string =>
  `<hostdev mode='subsystem' type='pci' managed='${managed}'><source>` +
  `<address domain='0x0' bus='0x21' slot='0x10' function='0x${fn}'/></source>${more}</hostdev>`;
const domain = (devices = '', more = '', uuid: string | null = UUID_A, name = 'g'): Buffer =>
  Buffer.from(
    `<domain type='test'><name>${name}</name>${uuid === null ? '' : `<uuid>${uuid}</uuid>`}
<memory unit='MiB'>64</memory>${more}<os><type arch='x86_64'>hvm</type></os><devices>${devices}</devices></domain>`,
  );

let tree: StaticHost;
let host: Host;
let keeper: Connection;
beforeAll(async () => {
  if (lacks) return;
  tree = new StaticHost({
    devices: [
      { ...PORT, address: VF, group: 11 },
      { ...PORT, address: '0000:21:10.2', group: 12 },
    ],
    drivers: { 'vfio-pci': 'vfio_pci' },
  });
  host = new Host(tree.root, loadNative());
  const calls = host.native.openLibvirt?.();
  if (calls === undefined) throw new Error('the addon is not built');
  keeper = await Connection.open(calls, URI, { readOnly: false, deadlineMs: EVER });
});
afterAll(() => {
  if (lacks) return;
  keeper.close();
  tree.remove();
});

const kept = async (): Promise<string[][]> =>
  (await keeper.call('domains', '', 0, EVER)).filter(([, name]) => name !== 'test');
const xmlOf = async (uuid: string): Promise<string> => (await keeper.call('domain-xml', uuid, 2, EVER))[0]?.[0] ?? '';
const define = (bytes: Buffer, request: Partial<DomainPlanRequest> = {}, options: Partial<ActionOptions> = {}) =>
  defineDomain(host, bytes, 'guest.xml', { ...PLAIN, ...request }, { ...OPTIONS, ...options });
const failure = (bytes: Buffer, request: Partial<DomainPlanRequest> = {}): Promise<HostdevError> =>
  define(bytes, request).then(
    () => {
      throw new Error('it was defined');
    },
    (e) => e as HostdevError,
  );

afterEach(async () => {
  if (lacks) return;
  for (const [uuid = ''] of await kept()) await keeper.call('undefine', uuid, 0, EVER);
});

describe.skipIf(lacks)('domain define', () => {
  test('a domain is defined and read back; again it is kept like this already', async () => {
    const first = await define(domain(hostdevOf(0)));
    expect(first).toMatchObject({ changed: true, redefined: false, domain: { uuid: UUID_A }, differences: [] });
    expect(first.judges.map((j) => [j.judge, j.verdict])).toContainEqual(['libvirt', 'passed']);
    expect(await kept()).toEqual([[UUID_A, 'g', '0', '1', expect.anything()]]);
    expect(first.xml).toBe(await xmlOf(UUID_A));
    expect(await define(domain(hostdevOf(0)))).toMatchObject({ changed: false, redefined: true });
  });

  test("with the changes of domain plan, and without a UUID libvirt's own", async () => {
    const added = await define(domain('', '', null), { add: [VF] });
    expect(added.devices.added).toEqual([VF]);
    expect(added.domain.uuid).toMatch(/^[0-9a-f-]{36}$/);
    expect(await xmlOf(added.domain.uuid ?? '')).toContain("bus='0x21' slot='0x10' function='0x0'");
    const removed = await define(Buffer.from(added.xml), { remove: [VF] });
    expect(removed).toMatchObject({ changed: true, redefined: true, removed: [{ address: VF }] });
    expect(await xmlOf(added.domain.uuid ?? '')).not.toContain('hostdev');
  });

  test('a dry run defines nothing and shows what libvirt would be given', async () => {
    const shown = await define(domain('', '', null), { add: [VF] }, { dryRun: true });
    expect(shown).toMatchObject({ changed: false, would: true, redefined: false });
    expect(shown.xml).toContain('<hostdev');
    expect(await kept()).toEqual([]);
  });

  test('what libvirt drops of a device of ours takes the definition back, also to what was there before', async () => {
    // The schema takes the name, and the parser drops it without a word (virDomainNetDefParseXML: one of its own).
    const dropped =
      "<interface type='hostdev' managed='yes'><mac address='52:54:00:00:00:01'/><source>" +
      "<address type='pci' domain='0' bus='0x21' slot='0x10' function='0'/></source><target dev='vnet7'/></interface>";
    const first = await failure(domain(dropped));
    expect(first.code).toBe('HOSTDEV_DOMAIN_CHANGED');
    expect(first.message).toContain('target');
    expect(await kept()).toEqual([]);
    await define(domain(hostdevOf(2)));
    const before = await xmlOf(UUID_A);
    expect((await failure(domain(dropped))).code).toBe('HOSTDEV_DOMAIN_CHANGED');
    expect(await xmlOf(UUID_A)).toBe(before);
  });

  test('what it drops of the rest is told', async () => {
    const user = "<interface type='user'><mac address='52:54:00:00:00:01'/><target dev='vnet7'/></interface>";
    const { differences, warnings, changed } = await define(domain(user));
    expect(changed).toBe(true);
    expect(differences).toMatchObject([
      { where: expect.stringContaining('target'), attribute: 'dev', kept: 'testnet0' },
    ]);
    expect(warnings.map((w) => w.id)).toContain('libvirt-kept');
  });

  test.each([
    ['a word that the schema does not know', domain('', '<nonsense/>'), /nonsense|schema|validat/i],
    [
      'intremap without the I/O APIC',
      domain("<iommu model='intel'><driver intremap='on'/></iommu>"),
      /split I\/O APIC|ioapic/,
    ],
    ['what is not to be on this libvirt', domain(hostdevOf(0, "<driver model='x_vfio_pci'/>")), /model/],
  ])('%s is refused, and nothing is defined', async (_what, bytes, words) => {
    const e = await failure(bytes);
    expect([e.code, e.exit]).toEqual(['HOSTDEV_DOMAIN_REFUSED', 3]);
    expect(e.message).toMatch(words);
    expect(await kept()).toEqual([]);
  });

  test('a name or a UUID of another domain', async () => {
    await define(domain());
    for (const other of [domain('', '', UUID_B), domain('', '', UUID_A, 'h'), domain('', '', null)]) {
      const e = await failure(other);
      expect([e.code, e.hint]).toEqual(['HOSTDEV_DOMAIN_REFUSED', expect.stringMatching(/UUID|<uuid>/)]);
    }
    expect(await kept()).toHaveLength(1);
  });

  test("managed='no' without a hook is refused, and the hook is named", async () => {
    const e = await failure(domain(hostdevOf(0, '', 'no')));
    expect([e.code, e.exit]).toEqual(['HOSTDEV_HOOK_MISSING', 5]);
    expect(e.hint).toContain('hostdev hook install');
    expect(await kept()).toEqual([]);
  });

  test('on the command line: exit codes, and stdin', () => {
    const run = (input: Buffer, ...words: string[]) =>
      hostdev(['domain', 'define', '-', ...words, '--root', tree.root, '-j'], { input: input.toString() });
    expect(run(domain())).toMatchObject({ exit: 8, json: { error: { code: 'HOSTDEV_LIBVIRT_UNREACHABLE' } } });
    for (const dry of [[], ['-n']]) {
      expect(run(domain(hostdevOf(0)), '--connect', URI, ...dry).exit).toBe(0);
      expect(run(domain('', '<nonsense'), '--connect', URI, ...dry).exit).toBe(3);
      expect(run(domain(hostdevOf(0, '', 'no')), '--connect', URI, ...dry).exit).toBe(5);
      expect(run(domain(), '--device', '77:00.0', '--connect', URI, ...dry).exit).toBe(4);
    }
  });
});
