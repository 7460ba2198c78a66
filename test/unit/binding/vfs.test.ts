/**
 * PF and VF: made, listed, taken away, gone with their PF's driver and back with it; what stands in the way. Failures
 * and crashes on the way: vfsCrash.test.ts.
 */

import { beforeEach, describe, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { NOT_ASKED } from '../../../src/actions/inGuest.ts';
import { readStatus } from '../../../src/actions/status.ts';
import { fixStatus } from '../../../src/actions/statusFix.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import { createVfs, listVfs, removeVfs } from '../../../src/actions/vf.ts';
import { newBinding, readBinding, readBooks, writeBinding } from '../../../src/binding/books.ts';
import { locksOf } from '../../../src/binding/groupLocks.ts';
import { readJournal } from '../../../src/binding/journal.ts';
import { HostdevError } from '../../../src/errors.ts';
import { scanInventory } from '../../../src/pci/inventory.ts';
import { vfsOf } from '../../mock/attributes.ts';
import { book, holdOf } from '../../mock/booked.ts';
import { UUID_A } from '../../mock/hosts.ts';
import { leaveJournal } from '../../mock/leftJournal.ts';
import { linkMessage, type MadeVf, vfInfo } from '../../mock/netlink.ts';
import {
  ADMIN,
  ALLOW,
  AT,
  all,
  create,
  DRY,
  driversOf,
  failed,
  PF,
  pf,
  RECREATE,
  sim,
  start,
  VARIANT,
  VF,
  VFS,
} from '../../mock/pf.ts';
import { texts } from '../../mock/warnings.ts';

describe('create', () => {
  test('for VFIO: no host driver ever meets a VF, autoprobe is as before, the books hold them as driverless before', async () => {
    const { changed, vfs } = await create();
    expect(changed).toBe(true);
    expect(vfs.map((v) => [v.address, v.driver, v.iommu_group, v.owner])).toEqual(
      VFS.map((a, n) => [a, VARIANT, 11 + n, 'admin']),
    );
    expect(sim.kernel.writes).toEqual([
      `${AT}/sriov_drivers_autoprobe=0`,
      `${AT}/sriov_numvfs=4`,
      ...VFS.map((a) => `sys/bus/pci/devices/${a}/driver_override=${VARIANT}`),
      ...VFS.map((a) => `sys/bus/pci/drivers_probe=${a}`),
      `${AT}/sriov_drivers_autoprobe=1`,
    ]);
    expect(readBinding(sim.host, VF)).toMatchObject({
      holds: [{ owner: 'admin' }],
      before: { driver: null, override: null },
      after: { driver: VARIANT, override: VARIANT },
    });
    expect(readJournal(sim.host).entries).toEqual([]);
    await unbindDevices(sim.host, [VF], false, ADMIN);
    expect(sim.kernel.devices.get(VF)).toMatchObject({ driver: null, override: null });
  });

  test('the plan foretells every write, on VFs that are not there yet too, and changes nothing', async () => {
    const before = all();
    const { plan, changed } = await create(4, 'vfio', DRY);
    expect(changed).toBe(false);
    expect(all()).toBe(before);
    expect(sim.kernel.writes).toEqual([]);
    expect(plan.devices[3]).toEqual({ address: VFS[3], driver_from: null, driver_to: VARIANT, module: VARIANT });
    await create();
    expect([...plan.steps.map((s) => `${s.path}=${s.value.trim()}`)].sort()).toEqual([...sim.kernel.writes].sort());
    expect(plan.steps.find((s) => s.path.endsWith('numvfs'))?.undo).toEqual([
      { path: `${AT}/sriov_numvfs`, value: '0' },
    ]);
  });

  test('VFs that appear one by one, and their groups later still, are waited for', async () => {
    pf().vfsLate = true;
    await create(7);
    expect(driversOf()).toEqual(Array(7).fill(VARIANT));
    expect(new Set(vfsOf(sim.kernel, PF).map((v) => v.group)).size).toBe(7);
  });

  test('for the host: its driver has them, autoprobe is put back, no books', async () => {
    pf().autoprobe = false;
    await create(3, 'netdev');
    expect(driversOf()).toEqual(['igbvf', 'igbvf', 'igbvf']);
    expect(pf().autoprobe).toBe(false);
    expect(readBooks(sim.host).books).toEqual([]);
  });

  test('as many as asked for: nothing changes, whatever they are on, and it is said', async () => {
    await start('four');
    const { changed, plan, warnings } = await create(4);
    expect([changed, plan.steps, sim.kernel.writes]).toEqual([false, [], []]);
    expect(texts(warnings).join()).toContain('4 of them are on other drivers (0000:21:10.0: igbvf)');
  });

  test('another number goes through 0, and the books of those that went are closed', async () => {
    await create(2);
    sim.kernel.writes.length = 0;
    const before = all();
    for (const options of [ADMIN, DRY]) {
      const e = await failed(create(3, 'netdev', options));
      expect(e).toMatchObject({ code: 'HOSTDEV_GUARD', exit: 5, hint: expect.stringContaining('--recreate') });
      expect(e.message).toContain(`these bindings go with its VFs: ${VF} (admin), ${VFS[1]} (admin)`);
      expect(e.data.plan).toMatchObject({ lost: { bindings: [{ address: VF, for: ['admin'] }, { address: VFS[1] }] } });
    }
    expect([all(), sim.kernel.writes]).toEqual([before, []]);
    const { warnings } = await create(3, 'netdev', RECREATE);
    expect(texts(warnings)).toContainEqual(expect.stringContaining(`${VF} (admin), ${VFS[1]} (admin)`));
    expect(sim.kernel.writes.filter((w) => w.includes('numvfs'))).toEqual([
      `${AT}/sriov_numvfs=0`,
      `${AT}/sriov_numvfs=3`,
    ]);
    expect(readBooks(sim.host).books).toEqual([]);
    expect(driversOf()).toEqual(['igbvf', 'igbvf', 'igbvf']);
  });

  test('VFs whose own driver is their VFIO provider are left to it: nothing is bound, nothing is booked', async () => {
    await start('four');
    sim.kernel.files.set(`sys/bus/pci/devices/${VF}/nvidia/current_vgpu_type`, '592\n');
    const { vfs, warnings } = await create(2, 'vfio', RECREATE);
    expect(vfs.map((v) => [v.driver, v.for])).toEqual(Array(2).fill(['igbvf', []]));
    expect(sim.kernel.writes).toEqual([`${AT}/sriov_numvfs=0`, `${AT}/sriov_numvfs=2`]);
    expect(readBooks(sim.host).books).toEqual([]);
    expect(texts(warnings).slice(-2)).toEqual([
      expect.stringContaining(`592 of ${VF}`),
      expect.stringContaining('its VFs are left to igbvf'),
    ]);
    Object.assign(sim.kernel.devices.get(VFS[1] ?? '') ?? {}, { driver: null });
    expect(texts((await create(2)).warnings)).toEqual([
      expect.stringContaining(`1 of them are on other drivers (${VFS[1]}: none): 'hostdev unbind --to-host ${VFS[1]}'`),
    ]);
  });

  test('what is set on the VFs is named by whatever takes them away', async () => {
    await start('four');
    sim.kernel.files.set('sys/class/net/eth7/ifindex', '7\n');
    sim.kernel.files.set(`${AT}/net/eth7/ifindex`, '7\n');
    const says = (vf: string) => expect.stringContaining(`goes with them and is not put back: ${vf}`);
    const reading = (...vfs: MadeVf[]) =>
      sim.kernel.linkMessages.set(7, linkMessage(vfs.map((v, n) => vfInfo(n, v))).toString('latin1'));
    reading({}, { mac: '525400000001', vlan: [7, 0] }, {}, {});
    for (const attempt of [
      () => removeVfs(sim.host, PF, DRY),
      () => createVfs(sim.host, PF, 2, 'netdev', { ...DRY, ...RECREATE, dryRun: true }),
      () => bindDevices(sim.host, [PF], null, { ...ALLOW, dryRun: true }),
    ])
      expect(texts((await attempt()).warnings)).toContainEqual(says('VF 1: MAC 52:54:00:00:00:01, VLAN 7'));
    reading({}, {}, {}, {});
    expect(texts((await removeVfs(sim.host, PF, DRY)).warnings)).toEqual([]);
    reading({}, {});
    expect(texts((await removeVfs(sim.host, PF, DRY)).warnings)).toEqual([
      expect.stringContaining('is not known (eth7 tells of 2 VFs, not 4)'),
    ]);
    sim.kernel.linkMessages.clear();
    const { warnings, plan } = await removeVfs(sim.host, PF, ADMIN);
    expect([texts(warnings), plan.lost?.settings]).toEqual([
      [expect.stringContaining('is not known (eth7: RTM_GETLINK: ENODEV)')],
      null,
    ]);
  });

  test('what the kernel would refuse for sure is refused before a write, in a dry run too', async () => {
    for (const options of [ADMIN, DRY]) {
      expect(await failed(create(8, 'vfio', options))).toMatchObject({ code: 'HOSTDEV_VF_COUNT', exit: 3 });
      for (const driver of [null, 'vfio-pci']) {
        pf().driver = driver;
        expect(await failed(create(4, 'vfio', options))).toMatchObject({ code: 'HOSTDEV_VFS' });
      }
      pf().driver = 'igb';
      const other = await failed(createVfs(sim.host, '0000:22:00.0', 1, 'vfio', options));
      expect(other).toMatchObject({ code: 'HOSTDEV_NO_SRIOV', exit: 3 });
    }
    await start('four');
    expect(await failed(createVfs(sim.host, VF, 1, 'vfio', ADMIN))).toMatchObject({ hint: `Its PF is ${PF}.` });
    expect(sim.kernel.writes).toEqual([]);
  });

  for (const [errno, says] of [
    ['EBUSY', 'through 0 only'],
    ['ENOENT', 'no driver, or its driver makes no VFs'],
    ['ENOSPC', 'no bus numbers'],
    ['ENOMEM', 'not enough MMIO resources'],
    ['ERANGE', 'more than the PF'],
    ['EAGAIN', 'not ready'],
    ['EINVAL', 'does not take that count'],
    ['EPERM', 'eswitch'],
    ['EOPNOTSUPP', 'present mode'],
    ['ENODEV', 'went away'],
    ['EIO', 'did not answer its driver'],
    ['ENXIO', "the PF's driver refused"],
  ] as const) {
    test(`${errno} of sriov_numvfs is explained, and all is as before`, async () => {
      const before = all();
      const driver = sim.kernel.drivers.get('igb');
      if (driver) driver.sriovErrno = errno;
      const e = await failed(create());
      expect(e).toMatchObject({ code: 'HOSTDEV_VFS', exit: 1 });
      expect(e.message).toContain(`Failed to write 4 to ${AT}/sriov_numvfs: ${errno}`);
      expect(e.message).toContain(says);
      expect(e.hint.length).toBeGreaterThan(5);
      expect(all()).toBe(before);
      expect(readJournal(sim.host).entries).toEqual([]);
    });
  }

  test('a driver that makes fewer and calls it success; VFs that never come', async () => {
    const before = all();
    pf().vfsMade = 3;
    expect((await failed(create())).message).toContain('reads 3 after 4 was written');
    expect(all()).toBe(before);
    delete pf().vfsMade;
    sim.kernel.links.set(`${AT}/virtfn4`, '../0000:21:11.0');
    const e = await failed(createVfs(sim.host, PF, 4, 'vfio', { ...ADMIN, deadlineMs: 500 }));
    expect(e.code).toMatch(/HOSTDEV_TIMEOUT|HOSTDEV_UNDO_INCOMPLETE/);
    expect(e.message).toContain('shows 5 VFs, not 4');
  });

  test('interrupted: no VFs, exit 130', async () => {
    const before = all();
    const stop = new AbortController();
    sim.kernel.fault = (path) => {
      if (path.endsWith('drivers_probe')) stop.abort();
      return null;
    };
    const e = await failed(createVfs(sim.host, PF, 4, 'vfio', { ...ADMIN, signal: stop.signal }));
    expect(e).toMatchObject({ code: 'HOSTDEV_INTERRUPTED', exit: 130 });
    expect(all()).toBe(before);
  });
});

describe('a VF in use keeps them all', () => {
  const [, SECOND = ''] = VFS;
  const uses: Record<string, () => void> = {
    'a process holds it': () => {
      Object.assign(sim.kernel.devices.get(SECOND) ?? {}, { driver: 'vfio-pci', override: 'vfio-pci' });
      sim.kernel.openBy = [{ pid: 77, command: 'qemu-system-x86', path: '/dev/vfio/12' }];
    },
    'a guest claims it': () =>
      book(sim.host, SECOND, 12, holdOf(`domain:${UUID_A}`, 'vm1', true), { driver: 'igbvf', override: null }, null),
    'the host routes by it': () => {
      sim.kernel.links.set('sys/class/net/eth7', `../../devices/pci0000:20/0000:20:01.0/${SECOND}/net/eth7`);
      sim.kernel.files.set(
        'proc/net/route',
        `Iface\tDestination\n${['eth7', '00000000', '0102000A', '0003', '0', '0', '0', '00000000', '0', '0', '0'].join('\t')}\n`,
      );
    },
  };
  for (const [what, use] of Object.entries(uses)) {
    test(what, async () => {
      await start('four');
      use();
      const before = all();
      for (const options of [ALLOW, { ...ALLOW, dryRun: true }])
        for (const attempt of [
          () => createVfs(sim.host, PF, 6, 'vfio', { ...options, recreate: true }),
          () => removeVfs(sim.host, PF, options),
          () => bindDevices(sim.host, [PF], null, options),
        ]) {
          const e = await failed(attempt());
          expect(e.exit).toBe(5);
          expect(e.message).toContain(SECOND);
          expect(JSON.stringify(e.data)).toMatch(/"guard":"(in-use|vfs)"/);
        }
      expect(all()).toBe(before);
      expect(sim.kernel.writes).toEqual([]);
    });
  }

  test('taken between the plan and the write: the write of 0 is not made', async () => {
    await start('four');
    Object.assign(sim.kernel.devices.get(SECOND) ?? {}, { driver: 'vfio-pci' });
    sim.kernel.openBy = [];
    const real = sim.kernel.holders.bind(sim.kernel);
    let looks = 0;
    sim.kernel.holders = (root, targets) => {
      if (targets.includes('/dev/vfio/12')) looks += 1;
      if (looks > 1) sim.kernel.openBy = [{ pid: 78, command: 'qemu', path: '/dev/vfio/12' }];
      return real(root, targets);
    };
    expect(await failed(removeVfs(sim.host, PF, ADMIN))).toMatchObject({ code: 'HOSTDEV_IN_USE' });
    expect(sim.kernel.writes).toEqual([]);
  });
});

describe('list and remove', () => {
  test('list: of one PF or of all, with owner and claims', async () => {
    await start('mixed');
    const { vfs } = listVfs(sim.host, PF);
    expect(vfs.map((v) => [v.address, v.driver, v.iommu_group, v.owner, v.for])).toEqual([
      [VFS[0], VARIANT, 11, 'admin', ['admin']],
      [VFS[1], 'igbvf', 12, null, []],
      [VFS[2], null, 13, null, []],
      [VFS[3], 'igbvf', 14, null, []],
    ]);
    expect(listVfs(sim.host, null).vfs).toEqual(vfs);
    expect(() => listVfs(sim.host, VF)).toThrow(HostdevError);
  });

  test('remove: all of them and their books; a second time nothing', async () => {
    await start('mixed');
    const { changed, plan } = await removeVfs(sim.host, PF, ADMIN);
    expect(changed).toBe(true);
    expect(plan.steps).toEqual([
      { path: `${AT}/sriov_numvfs`, value: '0', undo: [{ path: `${AT}/sriov_numvfs`, value: '4' }] },
    ]);
    expect(plan.devices.map((d) => d.address)).toEqual(VFS);
    expect(vfsOf(sim.kernel, PF)).toEqual([]);
    expect(readBooks(sim.host).books).toEqual([]);
    expect(await removeVfs(sim.host, PF, ADMIN)).toMatchObject({ changed: false, plan: { steps: [] } });
  });
});

describe('a PF with idle VFs', () => {
  test('is refused without --allow=vfs; with it its VFs go first, and unbind brings back count, drivers, overrides and books', async () => {
    await start('mixed');
    const before = all();
    const refused = await failed(bindDevices(sim.host, [PF], null, ADMIN));
    expect(refused).toMatchObject({ code: 'HOSTDEV_GUARD', hint: expect.stringContaining('--allow=vfs') });
    const dry = await bindDevices(sim.host, [PF], null, { ...ALLOW, dryRun: true });
    expect(dry.plan.steps[0]).toMatchObject({ path: `${AT}/sriov_numvfs`, value: '0' });
    expect(all()).toBe(before);

    await bindDevices(sim.host, [PF], null, ALLOW);
    expect(sim.kernel.writes[0]).toBe(`${AT}/sriov_numvfs=0`);
    expect(pf().driver).toBe('vfio-pci');
    expect(readBooks(sim.host).books.map((b) => b.address)).toEqual([PF]);

    sim.kernel.writes.length = 0;
    const { plan } = await unbindDevices(sim.host, [PF], false, { ...ADMIN, dryRun: true });
    await unbindDevices(sim.host, [PF], false, ADMIN);
    expect(all()).toBe(before);
    expect([...plan.steps.map((s) => `${s.path}=${s.value.trim()}`)].sort()).toEqual([...sim.kernel.writes].sort());
  });

  test('changed by somebody else since: --to-host brings it to its driver, without the VFs it had', async () => {
    await start('mixed');
    await bindDevices(sim.host, [PF], null, ALLOW);
    pf().override = 'somebody';
    expect(await failed(unbindDevices(sim.host, [PF], false, ADMIN))).toMatchObject({ code: 'HOSTDEV_IN_USE' });
    await unbindDevices(sim.host, [PF], true, ADMIN);
    expect(pf()).toMatchObject({ driver: 'igb', override: null });
    expect(vfsOf(sim.kernel, PF)).toEqual([]);
    expect(readBooks(sim.host).books).toEqual([]);
    expect(readJournal(sim.host).entries).toEqual([]);
  });

  test('put back on its driver by hand: unbind still brings its VFs', async () => {
    await start('mixed');
    const before = all();
    await bindDevices(sim.host, [PF], null, ALLOW);
    Object.assign(pf(), { driver: 'igb', override: null });
    await unbindDevices(sim.host, [PF], false, ADMIN);
    expect(all()).toBe(before);
  });

  for (const [from, count] of [
    ['none', 2],
    ['mixed', 4],
  ] as const)
    test(`a PF that has VFs on vfio-pci too is unbound with --allow=vfs only, and has what it had before (${from})`, async () => {
      await start(from);
      const before = all();
      Object.assign(sim.kernel.drivers.get('vfio-pci') ?? {}, { sriov: true });
      await bindDevices(sim.host, [PF], null, ALLOW);
      sim.kernel.files.set('sys/module/vfio_pci/parameters/enable_sriov', 'Y\n');
      await create(count);
      const e = await failed(unbindDevices(sim.host, [PF], false, ADMIN));
      expect(e).toMatchObject({ code: 'HOSTDEV_GUARD', exit: 5 });
      expect(e.message).toContain(`it has ${count} VFs`);
      const { plan } = await unbindDevices(sim.host, [PF], false, { ...ALLOW, dryRun: true });
      sim.kernel.writes.length = 0;
      await unbindDevices(sim.host, [PF], false, ALLOW);
      expect([...plan.steps.map((s) => `${s.path}=${s.value.trim()}`)].sort()).toEqual([...sim.kernel.writes].sort());
      expect(all()).toBe(before);
    });
});

describe('status of a PF that lost its VFs', () => {
  /** Who made VFs behind our back: the PF's driver was told so by hand. */
  const made = async (count: number): Promise<void> => {
    const writer = sim.host.native.openWriter(sim.host.root);
    await writer.write(`${AT}/sriov_numvfs`, `${count}`, 1000);
    writer.close();
  };
  const drift = async () => (await readStatus(sim.host, NOT_ASKED)).bindings.find((b) => b.address === PF);
  const fix = (options = ADMIN) => fixStatus(sim.host, options, NOT_ASKED);

  beforeEach(async () => {
    await start('mixed');
    await bindDevices(sim.host, [PF], null, ALLOW);
  });

  test('as it was left: no drift, and nothing to mend', async () => {
    expect(await drift()).toMatchObject({ drift: null, advice: null });
    expect(await fix()).toEqual([]);
  });

  test('VFs that somebody made on vfio-pci: named, not touched, and the advice holds', async () => {
    const before = all();
    Object.assign(sim.kernel.drivers.get('vfio-pci') ?? {}, { sriov: true });
    await made(2);
    const found = await drift();
    expect(found?.drift).toContain(`it has 2 VFs, and hostdev did not make ${VFS[0]}, ${VFS[1]}`);
    const after = all();
    expect((await fix())[0]).toMatchObject({ mended: false });
    expect(all()).toBe(after);
    expect(found?.advice).toContain(`hostdev vf remove ${PF}`);
    await removeVfs(sim.host, PF, ADMIN);
    expect(await drift()).toMatchObject({ drift: null });
    expect(all()).toBe(before);
  });

  test('put on its host driver, where somebody made VFs: mended with --allow=vfs only, and it still has all it had', async () => {
    const bound = all();
    Object.assign(pf(), { driver: 'igb', override: null });
    await made(3);
    expect((await drift())?.drift).toContain('it is on igb, and it has 3 VFs');
    const after = all();
    const [refused] = await fix();
    expect(refused).toMatchObject({ mended: false });
    expect(refused?.text).toContain('it has 3 VFs');
    expect(all()).toBe(after);
    expect((await fix(ALLOW))[0]).toMatchObject({ mended: true });
    expect(all()).toBe(bound);
    await unbindDevices(sim.host, [PF], false, ADMIN);
    expect(listVfs(sim.host, PF).vfs.map((v) => v.owner)).toEqual(['admin', null, null, null]);
  });
});

test('VFs that are made while the lock is waited for keep their PF from being bound, and are known to unbind', async () => {
  const locked = sim.kernel.tryLock('group-10', false);
  const bind = failed(bindDevices(sim.host, [PF], null, ADMIN));
  await new Promise((r) => setTimeout(r, 50));
  const writer = sim.host.native.openWriter(sim.host.root);
  await writer.write(`${AT}/sriov_numvfs`, '2', 1000);
  writer.close();
  const before = all();
  if (locked !== null) sim.kernel.unlock(locked);
  expect(await bind).toMatchObject({ code: 'HOSTDEV_GUARD', exit: 5 });
  expect(all()).toBe(before);
});

test("whoever changes a PF's VFs has its lock alone; whoever uses a VF has it shared, beside the VF's own", async () => {
  const seen = new Map<string, string[]>();
  const alone = new Map<string, boolean>();
  const locked = (group: number): boolean => {
    const fd = sim.kernel.tryLock(`group-${group}`, true);
    if (fd !== null) sim.kernel.unlock(fd);
    return fd === null;
  };
  sim.kernel.fault = (path, value) => {
    const what = `${path.split('/').at(-1)} ${value.trim()}`;
    seen.set(what, [10, 11, 12].filter(locked).map(String));
    const fd = sim.kernel.tryLock('group-10', false);
    if (fd !== null) sim.kernel.unlock(fd);
    alone.set(what, fd === null);
    return null;
  };
  await create(2);
  expect(seen.get('sriov_numvfs 2')).toEqual(['10']);
  expect(seen.get(`driver_override ${VARIANT}`)).toEqual(['10']);
  await removeVfs(sim.host, PF, ADMIN);
  expect(seen.get('sriov_numvfs 0')).toEqual(['10']);
  await create(2, 'netdev');
  await bindDevices(sim.host, [VF], null, ADMIN);
  // Shared: another VF's user goes on, whoever changes the PF's VFs waits.
  expect(seen.get(`unbind ${VF}`)).toEqual(['11']);
  expect(alone.get(`unbind ${VF}`)).toEqual(true);
  expect([10, 11, 12].filter(locked)).toEqual([]);
});

describe('hostile content', () => {
  test('sriov_totalvfs, sriov_numvfs, autoprobe and virtfn links that no kernel writes', async () => {
    for (const text of ['', 'many\n', '-1\n', '99999999999\n', '4\u0000\n']) {
      pf().attributes = { sriov_totalvfs: text };
      const e = await failed(create());
      expect(e, JSON.stringify(text)).toMatchObject({ code: 'HOSTDEV_NO_SRIOV' });
    }
    for (const [attribute, texts] of Object.entries({
      sriov_numvfs: ['', 'four\n', '-1\n', '70000\n', '4 5\n'],
      sriov_drivers_autoprobe: ['', '2\n', 'yes\n'],
    }))
      for (const text of texts) {
        pf().attributes = { [attribute]: text };
        const e = await failed(create());
        expect(e, `${attribute} ${JSON.stringify(text)}`).toMatchObject({ code: 'HOSTDEV_SYSFS' });
        expect(e.message).toContain(attribute);
      }
    pf().attributes = {};
    sim.kernel.links.set(`${AT}/virtfn0`, '../../../../etc/passwd');
    expect(await failed(create())).toMatchObject({ code: 'HOSTDEV_SYSFS' });
    expect(sim.kernel.writes).toEqual([]);
  });

  test('a VF offset or stride that leads nowhere only leaves the plan without VFs', async () => {
    Object.assign(pf(), { attributes: { sriov_offset: 'x\n' } });
    expect((await create(4, 'vfio', DRY)).plan.devices).toEqual([]);
    await create();
    expect(driversOf()).toEqual(Array(4).fill(VARIANT));
  });

  test('books and journal with another SR-IOV record than ours are refused by file', async () => {
    const state = { numvfs: 1, autoprobe: true, vfs: [{ address: VF, driver: 'igbvf', override: null }] };
    const bad = [
      { ...state, numvfs: -1 },
      { ...state, numvfs: 1e9 },
      { ...state, autoprobe: 'yes' },
      { ...state, vfs: [...state.vfs, ...state.vfs] },
      { ...state, vfs: [{ address: '../../x', driver: null, override: null }] },
      { ...state, vfs: [{ address: VF, driver: '../../x', override: null }] },
      { ...state, vfs: [{ address: VF, driver: null, override: 'a\nb' }] },
      { ...state, vfs: 'any' },
      null,
    ];
    const on = { driver: 'igb', override: null };
    const binding = newBinding(sim.host, PF, 10, holdOf('admin'), on, on);
    for (const sriov of bad) {
      writeBinding(sim.host, { ...binding, sriov: sriov as never });
      expect(() => readBinding(sim.host, PF), JSON.stringify(sriov)).toThrow('is no binding');
      leaveJournal(sim.host, [
        {
          address: PF,
          group: 10,
          from: on,
          to: on,
          override_bytes: '',
          sriov: { from: state as never, to: sriov as never, numvfs_bytes: '0\n', autoprobe_bytes: null },
        },
      ]);
      expect(readJournal(sim.host), JSON.stringify(sriov)).toMatchObject({
        entries: [],
        bad: [{ why: 'is no journal entry of ours', addresses: expect.arrayContaining([PF]) }],
      });
    }
    writeBinding(sim.host, { ...binding, vf_bindings: [{ ...binding, vf_bindings: [] }] });
    expect(() => readBinding(sim.host, PF)).toThrow('is no binding');
    writeBinding(sim.host, { ...binding, sriov: state as never, vf_bindings: [binding] });
    expect(readBinding(sim.host, PF)?.sriov).toEqual(state);
  });
});

test('locks: a group with a PF before the others, whatever its number', () => {
  const inventory = scanInventory(sim.host);
  const of = (...addresses: string[]) =>
    locksOf(sim.host, inventory, addresses).map((l) => `${l.name}${l.shared ? ' shared' : ''}`);
  expect(of('0000:22:00.0', '0000:26:01.0', PF, '0000:77:00.0', '0000:26:02.0')).toEqual([
    'group-10',
    'group-20',
    'group-30',
    'group-none',
  ]);
});
