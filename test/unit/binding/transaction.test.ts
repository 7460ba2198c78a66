import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { NOT_ASKED } from '../../../src/actions/inGuest.ts';
import { readStatus } from '../../../src/actions/status.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import { readBooks } from '../../../src/binding/books.ts';
import { readJournal } from '../../../src/binding/journal.ts';
import { type SimulatedHost, simulatedHost } from '../../mock/hosts.ts';
import { leaveJournal } from '../../mock/leftJournal.ts';
import { texts } from '../../mock/warnings.ts';
import { EVER } from '../../patience.ts';

const VFS = ['0000:21:10.0', '0000:21:10.2', '0000:21:10.4'];
const ADMIN = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false };

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
});
afterEach(() => sim.remove());

const states = () => [...sim.kernel.devices.values()].map((d) => `${d.address} ${d.driver} ${d.override}`);
const bind = (words = VFS) => bindDevices(sim.host, words, null, ADMIN);

test('override on all first, then unbind, then probe', async () => {
  await bind();
  const kinds = sim.kernel.writes.map((w) => w.split('=')[0]?.split('/').at(-1));
  expect(kinds).toEqual([
    'driver_override',
    'driver_override',
    'driver_override',
    'unbind',
    'unbind',
    'unbind',
    'drivers_probe',
    'drivers_probe',
    'drivers_probe',
  ]);
});

test('a dry run plans the same writes and makes none', async () => {
  const before = states();
  const { plan, changed } = await bindDevices(sim.host, VFS, null, { ...ADMIN, dryRun: true });
  expect(changed).toBe(false);
  expect(states()).toEqual(before);
  expect(sim.kernel.writes).toEqual([]);
  await bind();
  expect(plan.steps.map((s) => `${s.path}=${s.value.trim()}`)).toEqual(sim.kernel.writes);
  expect(plan.devices[0]).toEqual({
    address: VFS[0],
    driver_from: 'igbvf',
    driver_to: 'tb_igbvf_vfio_pci',
    module: 'tb_igbvf_vfio_pci',
  });
});

describe('every write of a bind fails once', () => {
  for (let nth = 1; nth <= 9; nth += 1) {
    for (const how of ['EBUSY', 'EIO', 'ENODEV', 'ENOENT', 'ENOMEM', 'silent'] as const) {
      test(`${how} on write ${nth}: everything is as before, books and journal empty`, async () => {
        const before = states();
        let armed = true;
        sim.kernel.fault = (_path, _value, n) => {
          if (n !== nth || !armed) return null;
          armed = false;
          return how;
        };
        const failure = await bind().then(
          () => null,
          (e: unknown) => e,
        );
        expect(armed).toBe(false);
        expect(failure).toMatchObject({ code: 'HOSTDEV_BIND_FAILED' });
        expect(states()).toEqual(before);
        expect(readBooks(sim.host).books).toEqual([]);
        expect(readJournal(sim.host).entries).toEqual([]);
      });
    }
  }
});

describe('every write of a give-back fails once', () => {
  for (let nth = 1; nth <= 4; nth += 1) {
    for (const how of ['EBUSY', 'EIO', 'silent'] as const) {
      test(`${how} on write ${nth}: the device is on VFIO and in the books, or given back`, async () => {
        await bind([VFS[0] ?? '']);
        const on = states();
        const offset = sim.kernel.writes.length;
        sim.kernel.fault = (_path, _value, n) => (n === offset + nth ? how : null);
        await expect(unbindDevices(sim.host, [VFS[0] ?? ''], false, ADMIN)).rejects.toMatchObject({
          code: 'HOSTDEV_BIND_FAILED',
        });
        expect(states()).toEqual(on);
        expect(readBooks(sim.host).books).toHaveLength(1);
        expect(readJournal(sim.host).entries).toEqual([]);
        sim.kernel.fault = () => null;
        await unbindDevices(sim.host, [VFS[0] ?? ''], false, ADMIN);
        expect(sim.kernel.devices.get(VFS[0] ?? '')).toMatchObject({ driver: 'igbvf', override: null });
        expect(readBooks(sim.host).books).toEqual([]);
      });
    }
  }
});

test('a write that hangs: the others are back, the journal says which is not known, and the next command finishes it', async () => {
  sim.kernel.fault = (path) =>
    path === 'sys/bus/pci/drivers/igbvf/unbind' && sim.kernel.writes.at(-1)?.endsWith('10.2') ? 'hang' : null;
  await expect(bind()).rejects.toMatchObject({ code: 'HOSTDEV_TIMEOUT' });
  expect(sim.kernel.devices.get(VFS[0] ?? '')).toMatchObject({ driver: 'igbvf', override: null });
  sim.kernel.fault = () => null;
  const stuck = VFS[1] ?? '';
  await expect(bind([stuck])).rejects.toMatchObject({ code: 'HOSTDEV_STUCK' });
  expect(readJournal(sim.host).entries).toMatchObject([{ state: 'pending', devices: [{ address: stuck }] }]);
  expect((await readStatus(sim.host, NOT_ASKED)).stuck).toMatchObject([{ address: stuck }]);
  // The lock of its group is free: the others are not refused with it.
  await bind([VFS[0] ?? '']);
  sim.kernel.release();
  await bind([stuck]);
  expect((await readStatus(sim.host, NOT_ASKED)).stuck).toEqual([]);
  expect(sim.kernel.devices.get(stuck)?.driver).toBe('tb_igbvf_vfio_pci');
  expect(readJournal(sim.host).entries).toEqual([]);
});

test('udev won the race for a fresh VF: unbound and probed once more', async () => {
  const address = VFS[0] ?? '';
  let raced = false;
  sim.kernel.fault = (path) => {
    const d = sim.kernel.devices.get(address);
    if (path === 'sys/bus/pci/drivers_probe' && !raced && d) {
      raced = true;
      d.driver = 'igbvf';
    }
    return null;
  };
  await bind([address]);
  expect(raced).toBe(true);
  expect(sim.kernel.devices.get(address)?.driver).toBe('tb_igbvf_vfio_pci');
});

test('a dead process left a bind half done: the next one in that group undoes it first', async () => {
  const address = VFS[0] ?? '';
  const d = sim.kernel.devices.get(address);
  const move = {
    address,
    group: 11,
    from: { driver: 'igbvf', override: null },
    to: { driver: 'vfio-pci', override: 'vfio-pci' },
    override_bytes: '(null)\n',
  };
  leaveJournal(sim.host, [move]);
  Object.assign(d ?? {}, { driver: null, override: 'vfio-pci' });
  const { warnings } = await bind([address]);
  expect(texts(warnings).join()).toContain('interrupted bind');
  expect(readBooks(sim.host).books[0]?.before).toEqual({ driver: 'igbvf', override: null });
});

test('interrupted: stops before the next write, undoes, exit 130', async () => {
  const stop = new AbortController();
  const before = states();
  sim.kernel.fault = (path) => {
    if (path.endsWith('unbind')) stop.abort();
    return null;
  };
  await expect(bindDevices(sim.host, VFS, null, { ...ADMIN, signal: stop.signal })).rejects.toMatchObject({
    code: 'HOSTDEV_INTERRUPTED',
    exit: 130,
  });
  expect(states()).toEqual(before);
  expect(readJournal(sim.host).entries).toEqual([]);
});

describe('guards', () => {
  test('bridge, PF with VFs, denylist: refused by name, nothing written', async () => {
    sim.kernel.devices.set('0000:40:00.0', {
      address: '0000:40:00.0',
      ids: '8086:37c9',
      group: 40,
      driver: null,
      override: null,
    });
    for (const [word, guard] of [
      ['0000:00:01.0', 'bridge'],
      ['0000:21:00.0', 'vfs'],
      ['0000:40:00.0', 'denylist'],
    ] as const) {
      const e = await bind([word]).catch((x) => x);
      expect(e.exit, word).toBe(5);
      expect(e.data.plan.refusals[0].guard).toBe(guard);
    }
    expect(sim.kernel.writes).toEqual([]);
  });

  test('a mounted disk through NVMe multipath and a partition; a default route; each lifted by its own allowance only', async () => {
    const k = sim.kernel;
    k.links.set('sys/class/block/nvme0c0n1', '../../devices/pci0000:20/0000:22:00.0/nvme/nvme0/nvme0c0n1');
    k.links.set('sys/class/block/nvme0n1', '../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1');
    k.files.set('sys/class/block/nvme0n1p2/dev', '259:2\n');
    k.files.set('proc/self/mountinfo', '29 1 259:2 / /srv rw,relatime - ext4 /dev/nvme0n1p2 rw\n');
    const e = await bind(['0000:22:00.0']).catch((x) => x);
    expect(e.exit).toBe(5);
    expect(e.message).toContain('nvme0n1p2 is mounted on /srv');
    await expect(
      bindDevices(sim.host, ['0000:22:00.0'], null, { ...ADMIN, allowed: new Set(['network']) }),
    ).rejects.toMatchObject({ exit: 5 });
    await bindDevices(sim.host, ['0000:22:00.0'], null, { ...ADMIN, allowed: new Set(['disk']) });

    k.links.set('sys/class/net/eth9', '../../devices/pci0000:20/0000:26:02.0/net/eth9');
    k.files.set(
      'proc/net/route',
      `Iface\tDestination\n${['eth9', '00000000', '0102000A', '0003', '0', '0', '0', '00000000', '0', '0', '0'].join('\t')}\n`,
    );
    await expect(bind(['eth9'])).rejects.toThrow('eth9 has the default route');
  });
});
