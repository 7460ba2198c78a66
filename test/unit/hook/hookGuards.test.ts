/**
 * The guards in the hook and in unbind: the same ones as in bind, with the allowances of hostdev.toml, and what libvirt
 * would do anyway refused only where the host is lost.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import type { Allowance, Guard } from '../../../src/binding/guards.ts';
import { usesNow } from '../../../src/binding/usage.ts';
import { runHook } from '../../../src/hook/run.ts';
import { holdersOf } from '../../../src/pci/holders.ts';
import type { PciDevice } from '../../../src/pci/inventory.ts';
import { domainXml, type SimulatedHost, simulatedHost, UUID_A, UUID_B } from '../../mock/hosts.ts';
import { saying } from '../../mock/warnings.ts';
import { EVER } from '../../patience.ts';

const NVME = '0000:22:00.0';
const NIC = '0000:26:02.0';
const PF = '0000:21:00.0';
const VF = '0000:21:10.0';
const admin = (...allowed: Guard[]) => ({ allowed: new Set(allowed), deadlineMs: EVER, dryRun: false });

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
  sim.kernel.links.set('sys/class/block/nvme0n1', '../../devices/pci0000:20/0000:22:00.0/nvme/nvme0/nvme0n1');
  sim.kernel.files.set('sys/class/block/nvme0n1/dev', '259:0\n');
});
afterEach(() => sim.remove());

const mounted = (point: string) =>
  sim.kernel.files.set('proc/self/mountinfo', `29 1 259:0 / ${point} rw - ext4 /dev/nvme0n1 rw\n`);
/** hostdev.toml with these allowances, below the text given. */
function configure(allowances: readonly Allowance[], text = ''): void {
  mkdirSync(sim.host.absolute(sim.host.config), { recursive: true });
  const tables = allowances.map(
    (a) => `[[allow]]\ndevice = '${a.device}'\nguard = '${a.guard}'\ndomain = '${a.domain}'\n`,
  );
  writeFileSync(`${sim.host.absolute(sim.host.config)}/hostdev.toml`, text + tables.join(''));
}

const prepare = (address: string, managed: 'yes' | 'no', allowances?: Allowance[], uuid = UUID_A) => {
  if (allowances !== undefined) configure(allowances);
  return runHook(
    sim.host,
    { name: 'web', operation: 'prepare', xml: domainXml('web', uuid, [{ address, managed }]) },
    { allowed: new Set(), deadlineMs: EVER, lockedUuid: null },
  );
};
const allow = (guard: string, domain: string, device = NVME): Allowance => ({ device, guard, domain });

describe('hostdev.toml', () => {
  test('a guard that does not exist: no guest starts on a guess', async () => {
    await expect(prepare(NVME, 'no', [allow('bogus', '*')])).rejects.toMatchObject({ code: 'HOSTDEV_CONFIG' });
    expect(sim.kernel.writes).toEqual([]);
  });

  test('unmanaged = "check": what is not bound is refused with the command; bound by the admin it may start, and stays his', async () => {
    configure([], '[hook]\nunmanaged = "check"\n');
    const e = await prepare(VF, 'no').catch((x) => x);
    expect(e).toMatchObject({
      code: 'HOSTDEV_NOT_BOUND',
      exit: 3,
      hint: expect.stringContaining(`hostdev bind ${VF}`),
    });
    expect(sim.kernel.writes).toEqual([]);
    await bindDevices(sim.host, [VF], null, { allowed: new Set(), deadlineMs: EVER, dryRun: false });
    await expect(prepare(VF, 'no')).resolves.toMatchObject({ bound: [], left_alone: [VF] });
  });

  test('unmanaged = "ignore": the hook has nothing to do with them', async () => {
    configure([], '[hook]\nunmanaged = "ignore"\n');
    await expect(prepare(VF, 'no')).resolves.toEqual({});
    expect(sim.kernel.writes).toEqual([]);
    await expect(prepare(VF, 'yes')).resolves.toMatchObject({ managed: [VF] });
  });
});

describe("managed='no'", () => {
  test('a mounted disk is refused, with the way out; nothing is written', async () => {
    mounted('/srv');
    const e = await prepare(NVME, 'no').catch((x) => x);
    expect(e).toMatchObject({ code: 'HOSTDEV_GUARD', exit: 5, message: `${NVME}: nvme0n1 is mounted on /srv` });
    expect(e.hint).toContain(`[[allow]] with device = "${NVME}", guard = "disk", domain = `);
    expect(e.hint).not.toContain('--allow');
    expect(sim.kernel.writes).toEqual([]);
  });

  test.each<[string, Allowance[], boolean]>([
    ['by the name of the domain', [allow('disk', 'web')], true],
    ['by its UUID, in any case', [allow('disk', UUID_A.toUpperCase())], true],
    ['for every domain', [allow('disk', '*')], true],
    ['another guard', [allow('network', '*'), allow('in-use', '*'), allow('not-measured', '*')], false],
    ['another device', [allow('disk', '*', NIC)], false],
    ['another domain', [allow('disk', 'db'), allow('disk', UUID_B)], false],
  ])('[[allow]] %s', async (_how, allowances, lifted) => {
    mounted('/');
    const done = prepare(NVME, 'no', allowances);
    if (lifted)
      await expect(done).resolves.toMatchObject({
        bound: [NVME],
        warnings: [saying('(allowed: disk)')],
      });
    else await expect(done).rejects.toMatchObject({ exit: 5 });
  });

  test('a device on VFIO that a process holds: named, unless allowed', async () => {
    await bindDevices(sim.host, [VF], 'vfio-pci', admin());
    sim.kernel.openBy = [{ pid: 9, command: 'dpdk-testpmd', path: '/dev/vfio/11' }];
    await expect(prepare(VF, 'no')).rejects.toMatchObject({
      code: 'HOSTDEV_IN_USE',
      message: `${VF}: process 9 (dpdk-testpmd) has /dev/vfio/11 open`,
    });
    await expect(prepare(VF, 'no', [allow('in-use', '*', VF)])).resolves.toMatchObject({ left_alone: [VF] });
  });

  test("another guest's device stays that guest's, whatever is allowed", async () => {
    await prepare(VF, 'no', [], UUID_B);
    sim.kernel.openBy = [{ pid: 9, command: 'qemu', path: '/dev/vfio/11' }];
    const all = [allow('in-use', '*', VF), allow('other-owner', '*', VF)];
    await expect(prepare(VF, 'no', all)).rejects.toMatchObject({ code: 'HOSTDEV_IN_USE' });
  });
});

describe("managed='yes'", () => {
  const ROUTE = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n';
  const eth9 = (destination: string, mask: string) => {
    sim.kernel.links.set('sys/class/net/eth9', '../../devices/pci0000:20/0000:26:02.0/net/eth9');
    const fields = ['eth9', destination, '00000000', '0001', '0', '0', '0', mask, '0', '0', '0'];
    sim.kernel.files.set('proc/net/route', `${ROUTE}${fields.join('\t')}\n`);
  };

  test('the root disk refuses, another mount warns', async () => {
    mounted('/');
    await expect(prepare(NVME, 'yes')).rejects.toMatchObject({ exit: 5 });
    await expect(prepare(NVME, 'yes', [allow('disk', 'web')])).resolves.toMatchObject({ managed: [NVME] });
    mounted('/srv');
    await expect(prepare(NVME, 'yes', [])).resolves.toMatchObject({
      warnings: [expect.objectContaining({ text: `${NVME}: nvme0n1 is mounted on /srv` })],
    });
  });

  test('the default route refuses, an address warns', async () => {
    // Its peer in the group stands in nobody's way for this.
    const peer = sim.kernel.devices.get('0000:26:01.0');
    if (peer) peer.driver = null;
    eth9('00000000', '00000000');
    await expect(prepare(NIC, 'yes')).rejects.toMatchObject({
      message: expect.stringContaining('eth9 has the default route'),
    });
    eth9('0001A8C0', '00FFFFFF');
    await expect(prepare(NIC, 'yes')).resolves.toMatchObject({
      warnings: [expect.objectContaining({ text: `${NIC}: eth9 has an address` })],
    });
  });

  test('a PF with VFs, a held device: warnings', async () => {
    sim.kernel.openBy = [{ pid: 9, command: 'fio', path: '/dev/nvme0n1' }];
    await expect(prepare(NVME, 'yes')).resolves.toMatchObject({
      warnings: [saying('process 9 (fio)')],
    });
    await expect(prepare(PF, 'yes')).resolves.toMatchObject({ warnings: [saying('it has 4 VFs')] });
  });
});

describe('bind and unbind', () => {
  test('bind refuses what is held, by the name of the guard, and goes on with it allowed', async () => {
    sim.kernel.openBy = [{ pid: 9, command: 'smartd', path: '/dev/nvme0n1' }];
    const e = await bindDevices(sim.host, [NVME], null, admin('disk', 'not-measured')).catch((x) => x);
    expect(e.data.plan.refusals).toEqual([
      { guard: 'in-use', address: NVME, reason: 'process 9 (smartd) has /dev/nvme0n1 open (systemctl stop smartd)' },
    ]);
    expect(await bindDevices(sim.host, [NVME], null, admin('in-use'))).toMatchObject({ changed: true });
  });

  test('what sysfs does not show: a claimed disk', async () => {
    sim.kernel.claimed = ['dev/nvme0n1'];
    await expect(bindDevices(sim.host, [NVME], null, admin('in-use'))).rejects.toThrow('nvme0n1 is claimed');
    expect(await bindDevices(sim.host, [NVME], null, admin('disk'))).toMatchObject({ changed: true });
  });

  test('unbind --to-host of what is on its host driver takes the override off, whatever the host uses it for', async () => {
    const d = sim.kernel.devices.get(NVME);
    if (d) d.override = 'nvme';
    mounted('/');
    const { plan } = await unbindDevices(sim.host, [NVME], true, { ...admin(), dryRun: true });
    expect(plan.steps).toMatchObject([{ path: expect.stringMatching(/driver_override$/), value: '\n' }]);
    expect(plan.devices).toMatchObject([{ driver_from: 'nvme', driver_to: 'nvme' }]);
    expect(sim.kernel.writes).toEqual([]);
    const done = await unbindDevices(sim.host, [NVME], true, admin());
    expect(done).toMatchObject({ changed: true, plan: { devices: plan.devices } });
    expect(sim.kernel.writes).toHaveLength(1);
    expect(d).toMatchObject({ driver: 'nvme', override: null });
    await expect(unbindDevices(sim.host, [NVME], true, admin())).resolves.toMatchObject({ changed: false });
  });

  test('unbind of a held device: refused, and with the allowance the kernel is asked', async () => {
    await bindDevices(sim.host, [VF], null, admin());
    sim.kernel.openBy = [{ pid: 9, command: 'qemu-system-x86', path: '/dev/vfio/11' }];
    await expect(unbindDevices(sim.host, [VF], false, admin('other-owner'))).rejects.toMatchObject({
      code: 'HOSTDEV_IN_USE',
    });
    expect(await unbindDevices(sim.host, [VF], false, admin('in-use'))).toMatchObject({ changed: true });
    expect(sim.kernel.devices.get(VF)?.driver).toBe('igbvf');
  });

  test("a guest's device: refused by other-owner, and one walk through the processes serves all devices", async () => {
    await prepare(VF, 'no');
    await expect(unbindDevices(sim.host, [VF], false, admin('in-use'))).rejects.toMatchObject({
      message: expect.stringMatching(/: it belongs to domain web \([^)]*\), which [a-z ]+$/),
      hint: expect.stringContaining('It comes back when that guest stops.'),
    });
    const others = ['0000:21:10.2', '0000:21:10.4', '0000:21:10.6'];
    await bindDevices(sim.host, others, 'vfio-pci', admin());
    let walks = 0;
    const holders = sim.kernel.holders.bind(sim.kernel);
    sim.kernel.holders = (root, nodes) => {
      walks += 1;
      return holders(root, nodes);
    };
    await bindDevices(sim.host, others, null, { ...admin(), dryRun: true });
    expect(walks).toBe(1);
  });
});

test('holdersOf names who has a device, on whichever driver, and never raises', () => {
  const device = { address: NVME, driver: 'nvme', iommu_group: 30 };
  sim.kernel.openBy = [
    { pid: 4, command: 'a', path: '/dev/nvme0n1' },
    { pid: 5, command: 'b', path: '/dev/vfio/30' },
    { pid: 6, command: 'c', path: '/dev/vfio/31' },
  ];
  expect(holdersOf(sim.host, device).map((h) => h.pid)).toEqual([4, 5]);
  mounted('/srv');
  const full = { ...device, class: '010802', sriov_numvfs: null } as PciDevice;
  expect(usesNow(sim.host, full)).toEqual([
    'nvme0n1 is mounted on /srv',
    'process 4 (a) has /dev/nvme0n1 open',
    'process 5 (b) has /dev/vfio/30 open',
  ]);
  sim.kernel.holders = () => {
    throw new Error('no proc');
  };
  expect(holdersOf(sim.host, device)).toEqual([]);
});

test('a write that hangs is told with all that uses the device', async () => {
  mounted('/srv');
  sim.kernel.openBy = [{ pid: 4, command: 'a', path: '/dev/nvme0n1' }];
  sim.kernel.fault = (path) => (path.endsWith('/unbind') ? 'hang' : null);
  const options = { ...admin('disk', 'in-use'), deadlineMs: 500 };
  const e = await bindDevices(sim.host, [NVME], null, options).then(
    () => expect.fail('it went through'),
    (x: Error) => x,
  );
  expect(e.message).toContain('in use: nvme0n1 is mounted on /srv, process 4 (a) has /dev/nvme0n1 open');
});

test("udev's look at a fresh node is waited for, and is no user; one that stays is", async () => {
  const udev = (path: string) => [{ pid: 9, command: '(udev-worker)', path }];
  sim.kernel.openBy = udev('/dev/nvme0n1');
  setTimeout(() => {
    sim.kernel.openBy = [];
  }, 100);
  await bindDevices(sim.host, [NVME], null, admin());
  sim.kernel.openBy = udev('/dev/vfio/30');
  setTimeout(() => {
    sim.kernel.openBy = [];
  }, 100);
  await unbindDevices(sim.host, [NVME], false, admin());
  expect(sim.kernel.devices.get(NVME)?.driver).toBe('nvme');
  sim.kernel.openBy = udev('/dev/nvme0n1');
  const refused = bindDevices(sim.host, [NVME], null, { ...admin(), deadlineMs: 500 });
  await expect(refused).rejects.toMatchObject({ code: 'HOSTDEV_IN_USE' });
});
