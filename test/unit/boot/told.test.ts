/** What status, doctor, pool list, list and config check say of wishes, by the built program. */
import { afterEach, expect, test } from 'vitest';
import { StaticHost } from '../../mock/tree.ts';

const NIC = '0000:21:00.0';
const PF = '0000:22:00.0';

let host: StaticHost | null = null;
afterEach(() => host?.remove());

const WISH = `[[device_spec]]
vendor_id = "8086"
[[device]]
address = "${NIC}"
path = "pci0000:20/04.0/00.0"
vendor_id = "8086"
product_id = "10d3"
driver = "vfio"
`;
const GONE = WISH.slice(WISH.indexOf('[[device]]')).replace('04.0', '09.0').replace(NIC, '0000:29:00.0');

function start(config: string, files: Record<string, string> = {}): StaticHost {
  host = new StaticHost({
    devices: [
      { address: NIC, ids: '8086:10d3', group: 1, driver: 'e1000e', below: ['0000:20:04.0'] },
      { address: PF, ids: '8086:10c9', group: 2, driver: 'igb', totalVfs: 7, below: ['0000:20:05.0'] },
    ],
    drivers: { 'vfio-pci': 'vfio_pci' },
    files: { 'etc/hostdev/hostdev.toml': config, ...files },
  });
  return host;
}

const json = (h: StaticHost, ...args: string[]): Record<string, unknown> =>
  h.run(...args, '-j').json as unknown as Record<string, unknown>;

test('config check: each wish with the device that it means; one without is a remark, a mistake is a mistake', () => {
  const h = start(`${WISH}${GONE}`);
  const checked = json(h, 'config', 'check');
  expect(checked.wishes).toMatchObject([
    { key: 'device[0]', line: 3, address: NIC, met: false, reason: 'is on e1000e, and no VFIO driver' },
    { key: 'device[1]', address: null, met: false },
  ]);
  expect([h.run('config', 'check').exit, checked.remarks]).toMatchObject([
    0,
    [{ line: 9, message: expect.stringContaining('is not on this host') }],
  ]);
  h.file('etc/hostdev/conf.d/a.toml', '[[device]]\ndriver = "vfio"\n');
  const { exit, out } = h.run('config', 'check');
  expect([exit, out]).toEqual([3, expect.stringMatching(/conf\.d\/a\.toml:1:1: device\[2\]: error: has no address/)]);
  // A wish that is wrong keeps nobody from the pools.
  expect(h.run('pool', 'list').exit).toBe(0);
});

test('pool list: what each device shall be on', () => {
  const { pools } = json(start(WISH), 'pool', 'list') as {
    pools: { devices: { address: string; wish: string | null }[] }[];
  };
  const wishes = pools.flatMap((p) => p.devices.map((d) => [d.address, d.wish]));
  expect(wishes).toContainEqual([NIC, 'vfio']);
  expect(wishes.filter(([, w]) => w !== null)).toHaveLength(1);
});

test('status: how many are not met, without being drift', () => {
  const h = start(`${WISH}${GONE}`);
  expect(json(h, 'status').wishes).toMatchObject({
    total: 2,
    not_met: [{ address: NIC }, { address: null, wished_address: '0000:29:00.0' }],
  });
  const { exit, out } = h.run('status');
  expect([exit, out]).toEqual([
    0,
    expect.stringContaining("2 of 2 wishes are not met: 'hostdev boot status' says why\n"),
  ]);
  h.remove('etc/hostdev');
  expect(json(h, 'status').wishes).toEqual({ total: 0, not_met: [] });
});

test('list: what the boot made of it', () => {
  const h = start(WISH);
  const wish = (): unknown[] => (json(h, 'list').devices as unknown as { wish: unknown }[]).map((d) => d.wish);
  expect(wish()).toEqual([null, null]);
  const { exit } = h.run('boot', 'apply');
  expect([exit, wish()]).toEqual([3, ['not-met', null]]);
  h.file('run/hostdev/boot.json', '{');
  expect(wish()).toEqual([null, null]);
});

test('boot status and boot apply: exit 3 while a wish is not met, 0 without wishes', () => {
  const h = start(WISH);
  expect(h.run('boot', 'status')).toMatchObject({
    exit: 3,
    out: expect.stringContaining('hostdev-boot.service did not run'),
  });
  expect(h.run('boot', 'apply', '--device', 'x')).toMatchObject({ exit: 2 });
  expect(h.run('boot', 'apply', '--stage', 'x')).toMatchObject({ exit: 2 });
  h.file('etc/hostdev/hostdev.toml', '');
  expect(h.run('boot', 'status')).toMatchObject({ exit: 0, out: 'There are no wishes\n' });
  expect(h.run('boot', 'apply')).toMatchObject({ exit: 0 });
});

test('doctor: not met, another tool has a hand in it, switched off', () => {
  const h = start(
    `${WISH}${GONE}[[pf]]\naddress = "${PF}"\npath = "pci0000:20/05.0/00.0"\nvendor_id = "8086"\nproduct_id = "10c9"\nvfs = 4\n`,
    {
      'etc/systemd/network/10-x.link': `[Match]\nPath=pci-${PF}\n[Link]\nSR-IOVVirtualFunctions=2\n`,
      'proc/cmdline': 'root=/dev/sda1 hostdev.off=1\n',
    },
  );
  const found = (
    json(h, 'doctor').findings as { id: string; object: string; cause: string; fix: { line: string }[] }[]
  ).filter((f) => /^(?:wish|boot-off)/.test(f.id));
  expect(found.map((f) => f.id).sort()).toEqual(['boot-off', 'wish-contested', 'wish-not-met', 'wish-not-met']);
  const of = (id: string) => found.filter((f) => f.id === id);
  expect(of('wish-contested')).toMatchObject([
    { cause: expect.stringContaining('/etc/systemd/network/10-x.link:4 (systemd) sets its number of VFs to 2') },
  ]);
  expect(of('wish-not-met').map((f) => f.fix[0]?.line)).toEqual([
    'hostdev boot apply',
    'hostdev wish remove 0000:29:00.0',
  ]);
});

test('the words of wish', () => {
  const h = start('');
  for (const [args, says] of [
    [['add'], 'needs DEV, or --spec'],
    [['add', NIC, '--spec'], '--spec names the devices'],
    [['add', NIC, '--for', 'vfio'], '--for goes with --vfs'],
    [['add', PF, '--vfs', '2', '--driver', 'vfio'], '--driver and --group go without it'],
    [['add', PF, '--vfs', '0'], 'is no number of VFs'],
    [['add', NIC, '--group', 'all'], "there is only 'endpoints'"],
  ] as const)
    expect(h.run('wish', ...args)).toMatchObject({ exit: 2, err: expect.stringContaining(says) });
  expect(h.run('wish', 'list')).toMatchObject({ exit: 0, out: 'There are no wishes\n' });
  expect(h.run('wish', 'add', NIC)).toMatchObject({
    exit: 0,
    out: expect.stringContaining(`${NIC}  vfio: kept in ${h.root}/etc/hostdev/conf.d/90-kept.toml`),
  });
  expect(h.run('wish', 'check').exit).toBe(0);
  expect(h.run('wish', 'list').out).toMatch(/0000:21:00\.0 +vfio +no .*90-kept\.toml:\d+ +is on e1000e/);
  expect(h.run('wish', 'add', PF, '--vfs', '2', '-n')).toMatchObject({
    exit: 0,
    out: expect.stringContaining('would be kept'),
  });
  expect(h.run('wish', 'remove', NIC)).toMatchObject({ exit: 0, out: expect.stringContaining('taken out of') });
  expect(h.names('etc/hostdev/conf.d')).toEqual([]);
});
