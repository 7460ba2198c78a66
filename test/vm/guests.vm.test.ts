/**
 * Who has what, by libvirt, on a real kernel: guests with and without our hook, devices that virsh plugs and unplugs,
 * VFs of a network of type hostdev. Each time the answers agree with libvirt's own XML and with who holds /dev/vfio,
 * and libvirtd is the same process as before.
 */
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { addressXml, createVfs, defineDomain, domainXml, hostdevXml, installHostdev, virsh } from './guest.ts';
import { skipped, useMachine } from './suite.ts';

const vm = useMachine('intel');

const IGB = '0000:21:00.0';
const SECOND = '0000:92:00.0';
let vfs: string[];
let pool: string[];
const vf = (n: number): string => vfs[n] ?? '';

type Device = { address: string; iommu_group: number; in: string; prepared_by: string | null; network: string | null };
type Guests = { guests: { name: string; active: boolean; devices: Device[]; networks: string[] }[] };

async function ask<T>(line: string, codes: readonly number[] = [0], input = ''): Promise<T> {
  const { code, stdout, stderr } = await vm().sh(`${input}hostdev ${line} -j`, { timeoutMs: 170_000 });
  expect(codes, `${line}: ${stdout}\n${stderr}`).toContain(code);
  return JSON.parse(stdout) as T;
}

const daemon = () => vm().ok('pidof libvirtd');

/** The addresses that a guest's XML names as the host's: all that stand in a <source>. */
const sourcesOf = (xml: string): string[] =>
  [...xml.matchAll(/<source>\s*<address [^>]*domain='0x(\w+)' bus='0x(\w+)' slot='0x(\w+)' function='0x(\w)'/g)]
    .map(([, domain, bus, slot, fn]) => `${domain}:${bus}:${slot}.${fn}`)
    .sort();

/** `guest list`, `list` and `show` against dumpxml and the holders of /dev/vfio: all of the guests that run. */
async function agree(): Promise<Guests['guests']> {
  const { guests } = await ask<Guests>('guest list');
  const names = (await vm().ok('virsh list --name')).split('\n').filter(Boolean).sort();
  expect(guests.filter((g) => g.active).map((g) => g.name)).toEqual(names);
  const listed = await ask<{ devices: { address: string; guest: string | null }[] }>('list');
  const held = listed.devices.filter((d) => d.guest !== null).map((d) => [d.address, d.guest]);
  const wanted: string[][] = [];
  for (const name of names) {
    const mine = guests.find((g) => g.name === name)?.devices.filter((d) => d.in !== 'kept') ?? [];
    const addresses = mine.map((d) => d.address).sort();
    expect([name, addresses]).toEqual([name, sourcesOf((await virsh(vm(), ['dumpxml', name])).stdout)]);
    wanted.push(...addresses.map((a) => [a, name]));
    const nodes = await vm().ok(
      `ls -l /proc/$(pgrep -f guest=${name},)/fd | grep -o '/dev/vfio/[0-9][0-9]*' | sort -u || :`,
    );
    expect([name, [...new Set(mine.map((d) => `/dev/vfio/${d.iommu_group}`))].sort()]).toEqual([
      name,
      nodes.split('\n').filter(Boolean),
    ]);
    for (const a of addresses) {
      const { device } = await ask<{ device: { guest: string | null } }>(`show ${a}`);
      expect([a, device.guest]).toEqual([a, name]);
    }
  }
  expect(held.sort()).toEqual(wanted.sort());
  return guests;
}

const devicesOf = (guests: Guests['guests'], name: string): Device[] =>
  guests.find((g) => g.name === name)?.devices ?? [];

/** Waits until a guest has one device only: that virsh is done says only that the guest was asked. */
const unplugged = (name: string) =>
  vm().ok(`for ((i = 0; i < 60; i++)); do
    [ $(virsh dumpxml ${name} | grep -c '<hostdev') = 1 ] && exit; sleep 0.5; done; exit 1`);

const stop = (name: string) => vm().sh(`virsh destroy ${name}; virsh undefine ${name}`);

let pid: string;
beforeAll(async () => {
  if (skipped) return;
  await installHostdev(vm());
  vfs = await createVfs(vm(), IGB, 4);
  pool = await createVfs(vm(), SECOND, 2);
  await vm().ok('virsh uri');
});
beforeEach(async () => {
  if (skipped) return;
  pid = await daemon();
});
afterEach(async () => {
  if (skipped) return;
  for (const name of (await vm().ok('virsh list --all --name')).split('\n').filter(Boolean)) await stop(name);
  expect(await daemon()).toBe(pid);
});

test('without our hook: a managed guest, a device that virsh plugs and unplugs', async () => {
  await defineDomain(vm(), { name: 'plain', hostdevs: [{ address: vf(0), managed: true }] });
  expect(devicesOf(await agree(), 'plain')).toMatchObject([{ address: vf(0), in: 'kept', prepared_by: null }]);
  await vm().ok('virsh start plain', { timeoutMs: 160_000 });
  expect(devicesOf(await agree(), 'plain')).toMatchObject([{ address: vf(0), in: 'both', prepared_by: 'libvirt' }]);
  await vm().write('/tmp/plug.xml', hostdevXml({ address: vf(1), managed: true }));
  await vm().ok('virsh attach-device plain /tmp/plug.xml --live');
  expect(devicesOf(await agree(), 'plain')).toMatchObject([{ address: vf(0) }, { address: vf(1), in: 'live' }]);
  await vm().ok('virsh detach-device plain /tmp/plug.xml --live');
  await unplugged('plain');
  expect(devicesOf(await agree(), 'plain')).toMatchObject([{ address: vf(0), in: 'both' }]);
});

test('a network of type hostdev: its VFs are not free, its guest has one, domain check and hook test resolve it', async () => {
  const [first = '', second = ''] = pool;
  await vm().write(
    '/tmp/net.xml',
    `<network><name>vfs</name><forward mode='hostdev' managed='yes'>${[first, second]
      .map((a) => addressXml(a, " type='pci'"))
      .join('')}</forward></network>`,
  );
  // libvirt gives a VF its MAC through its PF, and only while that is up.
  await vm().ok(`ip link set $(ls /sys/bus/pci/devices/${SECOND}/net) up`);
  await vm().ok('virsh net-define /tmp/net.xml && virsh net-start vfs');
  const xml = domainXml({ name: 'netted' }).replace(
    '<memballoon',
    "<interface type='network'><mac address='52:54:00:00:77:01'/><source network='vfs'/></interface><memballoon",
  );
  await vm().write('/tmp/netted.xml', xml);
  const free = { network: 'vfs', pool: true, managed: true, devices: [first, second], free: [first, second] };
  expect(await ask('domain check /tmp/netted.xml', [0, 3])).toMatchObject({ networks: [free] });
  expect(await ask('hook test /tmp/netted.xml')).toMatchObject({ network_pools: [free] });
  await vm().ok('virsh define /tmp/netted.xml && virsh start netted', { timeoutMs: 160_000 });
  const guests = await agree();
  expect(devicesOf(guests, 'netted')).toMatchObject([{ in: 'live', network: 'vfs' }]);
  const [taken] = devicesOf(guests, 'netted');
  const left = [first, second].filter((a) => a !== taken?.address);
  expect(await ask('hook test /tmp/netted.xml')).toMatchObject({ network_pools: [{ free: left }] });
  await vm().write('/etc/hostdev/hostdev.toml', '[[device_spec]]\nvendor_id = "8086"\nproduct_id = "10ca"\n');
  const { pools } = await ask<{ pools: { devices: { address: string; state: string }[] }[] }>('pool list');
  const states = new Map(pools.flatMap((p) => p.devices.map((d) => [d.address, d.state])));
  expect([states.get(taken?.address ?? ''), states.get(left[0] ?? '')]).toEqual(['claimed', 'unavailable']);
  await stop('netted');
  await vm().ok('virsh net-destroy vfs; virsh net-undefine vfs; rm /etc/hostdev/hostdev.toml');
});

test('20 domains are defined and read back equal; what is there already is told from what is new', async () => {
  for (let n = 0; n < 20; n += 1) {
    const managed = n % 2 === 0;
    const xml = domainXml({
      name: `def${n}`,
      memoryMiB: 64 + n,
      hostdevs: n % 3 === 0 ? [] : [{ address: vf(n % 4), managed: true }],
      interfaces: n % 3 === 0 ? [{ address: vf(n % 4), managed, mac: `52:54:00:00:78:${n + 10}` }] : [],
    });
    await vm().write(`/tmp/def${n}.xml`, xml);
    // managed='no' is nobody's to bind without a hook.
    const codes = n % 3 === 0 && !managed ? [5] : [0];
    const said = await ask<{ changed?: boolean; differences?: { where: string }[]; xml?: string }>(
      `domain define /tmp/def${n}.xml`,
      codes,
    );
    if (codes[0] === 5) continue;
    expect([n, said.changed]).toEqual([n, true]);
    const kept = (await virsh(vm(), ['dumpxml', '--inactive', '--security-info', `def${n}`])).stdout;
    expect(said.xml?.trim()).toBe(kept.trim());
    expect(sourcesOf(kept)).toEqual([vf(n % 4)]);
  }
  const again = await ask<{ xml: string }>('domain define - -n', [0], 'virsh dumpxml --inactive def1 | ');
  expect(again).toMatchObject({ changed: false, would: true, redefined: true });
  expect(await ask('domain define -', [0], 'virsh dumpxml --inactive def1 | ')).toMatchObject({ changed: false });
}, 600_000);

test("--ask-libvirt: its parser's verdict of this libvirt, which a bare copy of the domain would have killed", async () => {
  const good = domainXml({
    name: 'asked',
    interfaces: [{ address: vf(0), managed: true }],
    hostdevs: [{ address: vf(1), managed: true }],
  });
  await vm().write('/tmp/asked.xml', good);
  const passed = await ask<{ judges: object[]; versions: object }>('domain check /tmp/asked.xml --ask-libvirt');
  expect(passed.versions).toMatchObject({ source: 'connection' });
  expect(passed.judges).toContainEqual(expect.objectContaining({ judge: 'libvirt', verdict: 'passed' }));
  await vm().write('/tmp/bad.xml', good.replace("machine='q35'", "machine='no-such-machine'"));
  const refused = await ask<{ judges: object[]; findings: object[] }>('domain check /tmp/bad.xml --ask-libvirt', [3]);
  expect(refused.judges).toContainEqual(expect.objectContaining({ judge: 'libvirt', verdict: 'refused' }));
  const defined = await ask<{ error: object }>('domain define /tmp/bad.xml', [3]);
  expect(defined.error).toMatchObject({ code: 'HOSTDEV_DOMAIN_REFUSED' });
  expect(await vm().ok('virsh list --all --name')).toBe('');
});

test('with our hook: an unmanaged guest is prepared by it; what virsh unplugs of a guest is seen, and status mends it', async () => {
  await vm().ok('hostdev hook install && systemctl restart libvirtd && virsh uri', { timeoutMs: 160_000 });
  pid = await daemon();
  await defineDomain(vm(), { name: 'hooked', hostdevs: [{ address: vf(0), managed: false }] });
  await vm().ok('virsh start hooked', { timeoutMs: 160_000 });
  expect(devicesOf(await agree(), 'hooked')).toMatchObject([{ address: vf(0), in: 'both', prepared_by: 'hook' }]);
  expect(await ask('status')).toMatchObject({ guests_asked: true, unheld: [] });

  // Bound by an admin, plugged in by virsh: no hook saw it.
  await vm().ok(`hostdev bind ${vf(2)}`);
  await vm().write('/tmp/plug.xml', hostdevXml({ address: vf(2), managed: false }));
  await vm().ok('virsh attach-device hooked /tmp/plug.xml --live');
  await agree();
  expect(await ask('status', [3])).toMatchObject({ unheld: [{ address: vf(2), guest: { name: 'hooked' } }] });
  await ask('status --fix');
  const fixed = await ask<{ unheld: object[]; bindings: { address: string; holds: { name: string | null }[] }[] }>(
    'status',
  );
  expect(fixed.unheld).toEqual([]);
  expect(fixed.bindings.find((b) => b.address === vf(2))?.holds.map((h) => h.name)).toContain('hooked');
  await agree();

  await vm().ok('virsh detach-device hooked /tmp/plug.xml --live');
  await unplugged('hooked');
  await agree();
  expect((await ask<{ bindings: object[] }>('status', [3])).bindings).toContainEqual(
    expect.objectContaining({ address: vf(2), drift: expect.stringContaining('has it no more') }),
  );
  await ask('status --fix');
  expect((await ask<typeof fixed>('status')).bindings.find((b) => b.address === vf(2))?.holds).toMatchObject([
    { name: null },
  ]);
}, 600_000);
