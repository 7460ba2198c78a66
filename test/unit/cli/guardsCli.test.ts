/** The guards as the command line shows them: on a static host, through the built CLI. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Ran, StaticHost } from '../../mock/tree.ts';
import { texts } from '../../mock/warnings.ts';

const NVME = '0000:05:00.0';
let host: StaticHost;
beforeAll(() => {
  host = new StaticHost({
    devices: [
      { address: NVME, ids: '1b36:0010', class: '010802', driver: 'nvme', group: 5 },
      { address: '0000:06:00.0', ids: '8086:10d3', driver: 'e1000e', group: 6 },
    ],
    drivers: { 'vfio-pci': 'vfio_pci' },
    block: { nvme0n1: NVME, nvme0n1p2: NVME, 'dm-0': null },
    net: { eth0: '0000:06:00.0', br0: null },
    files: {
      'sys/class/block/dm-0/dev': '253:0\n',
      'sys/class/block/dm-0/dm/name': 'vg-root\n',
      'proc/self/mountinfo': '29 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n',
      'proc/812/comm': 'smartd\n',
      'proc/812/fd/.keep': '',
    },
    links: {
      'sys/devices/pci0000:05/0000:05:00.0/block/nvme0n1p2/holders/dm-0': 'x',
      'sys/devices/pci0000:06/0000:06:00.0/net/eth0/master': '../../../../virtual/net/br0',
      'proc/812/fd/3': '/dev/nvme0n1',
    },
  });
});
afterAll(() => host.remove());

const guards = (ran: Ran): string[] => [...new Set(ran.json.plan.refusals.map((r) => r.guard))].sort();

test('several guards: all named, in text and JSON, with everything that lifts them', () => {
  const ran = host.run('bind', '-n', '-j', NVME);
  expect(ran.exit).toBe(5);
  expect(guards(ran)).toEqual(['disk', 'in-use']);
  expect(ran.json.error).toMatchObject({
    code: 'HOSTDEV_GUARD',
    hint: expect.stringContaining('--allow=disk --allow=in-use'),
  });
  expect(ran.json.error.message).toContain('dm-0 (vg-root) is mounted on /');
  expect(host.run('bind', NVME).err).toContain('process 812 (smartd) has /dev/nvme0n1 open (systemctl stop smartd)');
});

test('each allowance lifts its own, both lift both; the plan is that of the real run', () => {
  expect(guards(host.run('bind', '-nj', NVME, '--allow=disk'))).toEqual(['in-use']);
  expect(guards(host.run('bind', '-nj', NVME, '--allow=in-use', '--allow=network'))).toEqual(['disk']);
  const ran = host.run('--allow=disk', 'bind', '-nj', NVME, '--allow', 'in-use');
  expect([ran.exit, guards(ran), ran.json.plan.devices.length]).toEqual([0, [], 1]);
  expect(texts(ran.json.warnings).filter((w) => /\(allowed: (disk|in-use)\)$/.test(w)).length).toBeGreaterThan(1);
});

test('two devices: each refusal says whose it is', () => {
  const ran = host.run('bind', '-nj', 'eth0', NVME);
  expect(ran.json.plan.refusals.map((r) => `${r.guard} ${r.address}`)).toEqual(
    expect.arrayContaining(['network 0000:06:00.0', `disk ${NVME}`]),
  );
});
