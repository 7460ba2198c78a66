/**
 * What the simulated host does beyond the shared scenarios: time, holders, topology, faults. Rules and where they come
 * from: test/simhost.
 */
import { spawn } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { loadNative } from '../../src/addon/load.ts';
import { scanInventory } from '../../src/pci/inventory.ts';
import { EVER } from '../patience.ts';
import { COMMON, DEV, type HostDescription } from '../scenarios/host.ts';
import { describeSim, type SimHost, until, useSimHosts } from './simhost.ts';

const sims = useSimHosts();
const { PF, VF0, VF1, NIC, EDU } = DEV;

const dev = (address: string, file: string): string => `sys/bus/pci/devices/${address}/${file}`;

function put(sim: SimHost, path: string, value: string): void {
  const fd = openSync(sim.path(path), constants.O_WRONLY);
  try {
    writeSync(fd, value);
  } finally {
    closeSync(fd);
  }
}

/** A write by another process, which may hang: ours would hang with it. Ends with the name of its errno, or OK. */
function putLater(sim: SimHost, path: string, value: string): Promise<string> {
  const script = `const fs = require('fs'); const [path, value] = process.argv.slice(1);
    try { const fd = fs.openSync(path, fs.constants.O_WRONLY); fs.writeSync(fd, value); console.log('OK'); } catch (e) { console.log(e.code); }`;
  const child = spawn(process.execPath, ['-e', script, sim.path(path), value], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.on('data', (d) => {
    out += d;
  });
  return new Promise((resolve) => child.once('close', () => resolve(out.trim())));
}

function driver(sim: SimHost, address: string): string | null {
  try {
    return (
      readlinkSync(sim.path(dev(address, 'driver')))
        .split('/')
        .at(-1) ?? null
    );
  } catch {
    return null;
  }
}

describeSim('time', () => {
  test('the driver link is there before probe has finished, and goes when it fails', async () => {
    const sim = await sims.start(COMMON);
    sim.ctl('driver e1000e probe_ms=300 probe_errno=ENOMEM');
    put(sim, 'sys/bus/pci/drivers/e1000e/unbind', NIC);
    const bind = putLater(sim, 'sys/bus/pci/drivers/e1000e/bind', NIC);
    await until(() => driver(sim, NIC) === 'e1000e', 'the link comes');
    expect(await bind).toBe('ENOMEM');
    expect(driver(sim, NIC)).toBeNull();
    // The probe file keeps quiet about it.
    put(sim, 'sys/bus/pci/drivers_probe', NIC);
    expect(driver(sim, NIC)).toBeNull();
  });

  test('EPROBE_DEFER: bind says EAGAIN, and another device that is bound brings it on', async () => {
    const sim = await sims.start(COMMON);
    put(sim, 'sys/bus/pci/drivers/e1000e/unbind', NIC);
    sim.ctl('driver e1000e defer=1');
    expect(() => put(sim, 'sys/bus/pci/drivers/e1000e/bind', NIC)).toThrow('EAGAIN');
    expect(driver(sim, NIC)).toBeNull();
    put(sim, dev(EDU, 'driver_override'), 'vfio-pci');
    put(sim, 'sys/bus/pci/drivers_probe', EDU);
    await until(() => driver(sim, NIC) === 'e1000e', 'the deferred probe');
  });

  test('VFs appear one by one, in the write or after it', async () => {
    const sim = await sims.start(COMMON);
    const vfs = (): number => readdirSync(sim.path(dev(PF, ''))).filter((n) => n.startsWith('virtfn')).length;
    sim.ctl('driver igb vf_ms=60 vf_late=1');
    put(sim, dev(PF, 'sriov_numvfs'), '3');
    expect(vfs()).toBe(0);
    await until(() => vfs() === 1, 'the first');
    await until(() => vfs() === 3, 'all');
    put(sim, dev(PF, 'sriov_numvfs'), '0');
    sim.ctl('driver igb vf_late=0');
    put(sim, dev(PF, 'sriov_numvfs'), '2');
    expect([driver(sim, VF0), driver(sim, VF1)]).toEqual(['igbvf', 'igbvf']);
    put(sim, dev(PF, 'sriov_numvfs'), '0');
    sim.ctl('driver igb sriov_errno=ENOSPC');
    expect(() => put(sim, dev(PF, 'sriov_numvfs'), '2')).toThrow('ENOSPC');
  });

  test('a PF on its way to VFIO: EBUSY while it has VFs', async () => {
    const sim = await sims.start(COMMON);
    put(sim, dev(PF, 'sriov_numvfs'), '1');
    // From now on it leaves its VFs behind, as some drivers do.
    sim.ctl('driver igb sriov=0');
    put(sim, 'sys/bus/pci/drivers/igb/unbind', PF);
    expect(existsSync(sim.path(dev(VF0, 'physfn')))).toBe(true);
    put(sim, dev(PF, 'driver_override'), 'vfio-pci');
    expect(() => put(sim, 'sys/bus/pci/drivers/vfio-pci/bind', PF)).toThrow('EBUSY');
    put(sim, 'sys/bus/pci/drivers_probe', PF);
    expect(driver(sim, PF)).toBeNull();
  });

  test('a hung write holds its device: locked attributes hang, others and other devices answer, many writes to one file go on side by side', async () => {
    const sim = await sims.start(COMMON);
    sim.ctl(`fault write sys/bus/pci/drivers/e1000e/unbind hang count=1`);
    const hung = putLater(sim, 'sys/bus/pci/drivers/e1000e/unbind', NIC);
    await until(() => sim.hung().length === 1, 'it hangs');
    const writer = loadNative().openWriter(sim.root);
    for (const locked of ['driver_override', 'uevent'])
      await expect(writer.read(dev(NIC, locked), 100), locked).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    await expect(writer.write(dev(NIC, 'driver_override'), 'x', 100)).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    expect(readFileSync(sim.path(dev(NIC, 'vendor')), 'utf8')).toBe('0x8086\n');
    expect(scanInventory(sim.host()).byAddress.get(NIC)?.driver).toBe('e1000e');
    expect(await writer.read(dev(EDU, 'driver_override'), 1000)).toBe('(null)\n');
    // The same file for another device: kernfs has a lock an open file, not one a file.
    await expect(writer.write('sys/bus/pci/drivers/e1000e/unbind', EDU, 1000)).rejects.toMatchObject({
      code: 'ENODEV',
    });
    writer.close();
    sim.ctl('release');
    expect(await hung).toBe('OK');
  });

  test('the end of the host ends what hangs', async () => {
    const sim = await sims.start(COMMON);
    sim.ctl('fault write * hang');
    const hung = putLater(sim, 'sys/bus/pci/drivers_probe', NIC);
    await until(() => sim.hung().length === 1, 'it hangs');
    const from = performance.now();
    await sim.stop();
    expect(['ECONNABORTED', 'ENOTCONN']).toContain(await hung);
    expect(performance.now() - from).toBeLessThan(EVER);
  });
});

describeSim('holders', () => {
  test('a group has one user; its device cannot be taken from it; its peers stay away from host drivers', async () => {
    const sim = await sims.start(COMMON);
    const { EDU2, NIC2, BRIDGE } = DEV;
    put(sim, dev(EDU2, 'driver_override'), 'vfio-pci');
    put(sim, 'sys/bus/pci/drivers_probe', EDU2);
    const node = sim.path('dev/vfio/14');
    // Not viable: the bridge and the NIC are on host drivers.
    expect(() => openSync(node, 'r+')).toThrow('EPERM');
    put(sim, 'sys/bus/pci/drivers/e1000/unbind', NIC2);
    put(sim, 'sys/bus/pci/drivers/shpchp/unbind', BRIDGE);
    const fd = openSync(node, 'r+');
    expect(() => openSync(node, 'r+')).toThrow('EBUSY');
    const { holders } = loadNative().holders(sim.root, ['/dev/vfio/14']);
    expect(holders.map((h) => [h.pid, h.path])).toEqual([[process.pid, '/dev/vfio/14']]);
    expect(() => put(sim, 'sys/bus/pci/drivers/e1000/bind', NIC2)).toThrow('EBUSY');
    const unbind = putLater(sim, 'sys/bus/pci/drivers/vfio-pci/unbind', EDU2);
    await until(() => sim.hung().length === 1, 'the unbind waits');
    // drivers/base/dd.c __device_release_driver: the link goes before remove() is called.
    expect(driver(sim, EDU2)).toBeNull();
    expect(existsSync(node)).toBe(true);
    closeSync(fd);
    expect(await unbind).toBe('OK');
    expect(existsSync(node)).toBe(false);
    put(sim, 'sys/bus/pci/drivers/e1000/bind', NIC2);
    expect(driver(sim, NIC2)).toBe('e1000');
  });

  test('holders by decree, for whatever node', async () => {
    const sim = await sims.start(COMMON);
    sim.ctl('hold 4711 qemu-system-x86 /dev/nvme0n1', 'hold 4711 qemu-system-x86 /dev/vfio/12');
    const look = () => loadNative().holders(sim.root, ['/dev/nvme0n1', '/dev/vfio/12']).holders;
    expect(look()).toEqual([
      { pid: 4711, command: 'qemu-system-x86', path: '/dev/nvme0n1' },
      { pid: 4711, command: 'qemu-system-x86', path: '/dev/vfio/12' },
    ]);
    sim.ctl('drop 4711 /dev/nvme0n1', 'drop 4711 /dev/vfio/12');
    expect(look()).toEqual([]);
  });
});

describeSim('going and coming', () => {
  test('an open file of a removed device answers ENODEV, the device is gone from everywhere', async () => {
    const sim = await sims.start(COMMON);
    const fd = openSync(sim.path(dev(NIC, 'vendor')), 'r');
    put(sim, dev(NIC, 'remove'), '1');
    expect(() => readSync(fd, Buffer.alloc(16))).toThrow('ENODEV');
    closeSync(fd);
    expect(existsSync(sim.path('sys/kernel/iommu_groups/12'))).toBe(false);
    expect(existsSync(sim.path(`sys/bus/pci/drivers/e1000e/${NIC}`))).toBe(false);
  });

  test('one that vanishes in the middle of a scan is left out of it, whichever access finds out', async () => {
    for (const at of ['modalias', 'driver', 'iommu_group', 'numa_node']) {
      const sim = await sims.start(COMMON);
      const op = at === 'driver' || at === 'iommu_group' ? 'readlink' : 'read';
      sim.ctl(`fault ${op} ${dev(NIC, at)} do=vanish_${NIC} count=1`);
      const { devices, warnings } = scanInventory(sim.host());
      expect(
        devices.map((d) => d.address),
        at,
      ).not.toContain(NIC);
      expect(devices, at).toHaveLength(COMMON.devices.length - 1);
      expect(warnings, at).toEqual([]);
      await sim.stop();
    }
  });

  test('a bridge takes what is below it along, and a rescan brings all of it back', async () => {
    const sim = await sims.start(COMMON);
    put(sim, dev(DEV.BRIDGE, 'remove'), '1');
    expect(readdirSync(sim.path('sys/bus/pci/devices'))).not.toContain(DEV.NIC2);
    put(sim, 'sys/bus/pci/rescan', '1');
    expect(driver(sim, DEV.NIC2)).toBe('e1000');
    expect(driver(sim, DEV.BRIDGE)).toBe('shpchp');
  });
});

/**
 * As QEMU's machine "intel" of the VM suite: root ports with ACS, one without; a PCIe-to-PCI bridge; functions of a
 * slot without ACS; a switch.
 */
const TOPOLOGY: HostDescription = {
  drivers: [],
  devices: [
    { address: '0000:00:01.0', ids: '1b36:000c', class: '060400', options: ['group=auto', 'port=root', 'acs=0x1d'] },
    { address: '0000:01:00.0', ids: '8086:10d3', parent: '0000:00:01.0', options: ['group=auto'] },
    { address: '0000:00:02.0', ids: '1b36:000c', class: '060400', options: ['group=auto', 'port=root'] },
    { address: '0000:02:00.0', ids: '8086:10d3', parent: '0000:00:02.0', options: ['group=auto'] },
    { address: '0000:00:03.0', ids: '1b36:000c', class: '060400', options: ['group=auto', 'port=root', 'acs=0x1d'] },
    {
      address: '0000:03:00.0',
      ids: '1b36:000e',
      class: '060400',
      parent: '0000:00:03.0',
      options: ['group=auto', 'port=bridge'],
    },
    { address: '0000:04:01.0', ids: '1234:11e8', parent: '0000:03:00.0', options: ['group=auto', 'port=pci'] },
    { address: '0000:04:02.0', ids: '8086:100e', parent: '0000:03:00.0', options: ['group=auto', 'port=pci'] },
    { address: '0000:00:04.0', ids: '1b36:000c', class: '060400', options: ['group=auto', 'port=root', 'acs=0x1d'] },
    { address: '0000:05:00.0', ids: '8086:10d3', parent: '0000:00:04.0', options: ['group=auto', 'multifunction=1'] },
    { address: '0000:05:00.1', ids: '8086:10d3', parent: '0000:00:04.0', options: ['group=auto', 'multifunction=1'] },
    { address: '0000:00:05.0', ids: '1b36:000c', class: '060400', options: ['group=auto', 'port=root', 'acs=0x1d'] },
    {
      address: '0000:06:00.0',
      ids: '104c:8232',
      class: '060400',
      parent: '0000:00:05.0',
      options: ['group=auto', 'port=up'],
    },
    {
      address: '0000:07:00.0',
      ids: '104c:8233',
      class: '060400',
      parent: '0000:06:00.0',
      options: ['group=auto', 'port=down'],
    },
    {
      address: '0000:07:01.0',
      ids: '104c:8233',
      class: '060400',
      parent: '0000:06:00.0',
      options: ['group=auto', 'port=down', 'acs=0x1d'],
    },
    { address: '0000:08:00.0', ids: '1234:11e8', parent: '0000:07:00.0', options: ['group=auto'] },
    { address: '0000:09:00.0', ids: '1234:11e8', parent: '0000:07:01.0', options: ['group=auto'] },
  ],
};

describeSim('topology', () => {
  test('groups follow from the bridges and their ACS bits', async () => {
    const sim = await sims.start(TOPOLOGY);
    const groups = readdirSync(sim.path('sys/kernel/iommu_groups'))
      .map((g) =>
        readdirSync(sim.path(`sys/kernel/iommu_groups/${g}/devices`))
          .map((a) => a.slice(5))
          .join(' '),
      )
      .sort();
    expect(groups).toEqual([
      '00:01.0',
      '00:02.0 02:00.0',
      '00:03.0',
      '00:04.0',
      '00:05.0',
      '01:00.0',
      '03:00.0 04:01.0 04:02.0',
      '05:00.0 05:00.1',
      '06:00.0',
      '07:00.0 08:00.0',
      '07:01.0',
      '09:00.0',
    ]);
  });

  test('config space shows header type, port type and ACS', async () => {
    const sim = await sims.start(TOPOLOGY);
    const config = (a: string): Buffer => readFileSync(sim.path(dev(a, 'config')));
    const isolating = config('0000:00:01.0');
    expect(isolating.length).toBe(4096);
    expect([isolating.readUInt16LE(0), isolating[0x0e], isolating[0x34], isolating[0x40]]).toEqual([
      0x1b36, 1, 0x40, 0x10,
    ]);
    expect((isolating.readUInt16LE(0x42) >> 4) & 15).toBe(4);
    expect([isolating.readUInt16LE(0x100), isolating.readUInt16LE(0x106)]).toEqual([0x000d, 0x1d]);
    expect(config('0000:00:02.0').readUInt16LE(0x100)).toBe(0);
    expect(config('0000:04:01.0').length).toBe(256);
    expect(config('0000:05:00.1')[0x0e]).toBe(0x80);
  });
});

describeSim('plain files', () => {
  test('O_EXCL, rename over another, append, fsync, remove; nothing of it in sysfs', async () => {
    const sim = await sims.start(COMMON);
    mkdirSync(sim.path('run/hostdev/journal'), { recursive: true });
    const file = sim.path('run/hostdev/journal/a');
    writeFileSync(file, 'first', { flag: 'wx' });
    expect(() => writeFileSync(file, 'second', { flag: 'wx' })).toThrow('EEXIST');
    writeFileSync(`${file}.new`, 'second');
    const before = statSync(`${file}.new`).ino;
    renameSync(`${file}.new`, file);
    expect([readFileSync(file, 'utf8'), statSync(file).ino]).toEqual(['second', before]);
    writeFileSync(file, ' and more', { flag: 'a' });
    expect(readFileSync(file, 'utf8')).toBe('second and more');
    const fd = openSync(file, 'r');
    fsyncSync(fd);
    rmSync(file);
    expect(readSync(fd, Buffer.alloc(64))).toBe(15);
    closeSync(fd);
    expect(readdirSync(sim.path('run/hostdev/journal'))).toEqual([]);
    expect(() => mkdirSync(sim.path('sys/bus/pci/x'))).toThrow('EPERM');
    expect(() => writeFileSync(sim.path('sys/bus/pci/x'), '')).toThrow('EACCES');
    expect(() => rmSync(sim.path(dev(NIC, 'vendor')))).toThrow('EPERM');
  });

  test("the addon's locks hold between processes", async () => {
    const sim = await sims.start(COMMON);
    mkdirSync(sim.path('run'), { recursive: true });
    const native = loadNative();
    const fd = native.tryLock(sim.path('run/lock'), false);
    expect(fd).not.toBeNull();
    expect(loadNative().tryLock(sim.path('run/lock'), false)).toBeNull();
    native.unlock(fd ?? -1);
    const again = native.tryLock(sim.path('run/lock'), false);
    expect(again).not.toBeNull();
    native.unlock(again ?? -1);
  });
});

describeSim('rules', () => {
  test('skip, count, errno, silence, and the denial of what was done; the journal has all of it in order', async () => {
    const sim = await sims.start(COMMON);
    const override = dev(EDU, 'driver_override');
    sim.ctl(`fault write ${override} errno=EIO skip=1 count=1`);
    put(sim, override, 'one');
    expect(() => put(sim, override, 'two')).toThrow('EIO');
    put(sim, override, 'three');
    sim.ctl('clear', `fault write ${override} silent count=1`);
    put(sim, override, 'four');
    expect(readFileSync(sim.path(override), 'utf8')).toBe('three\n');
    sim.ctl('clear', `fault write ${override} errno=EBUSY after`);
    expect(() => put(sim, override, 'five')).toThrow('EBUSY');
    expect(readFileSync(sim.path(override), 'utf8')).toBe('five\n');
    expect(sim.journal()).toEqual(['one', 'two', 'three', 'four', 'five'].map((v) => `${override}=${v}`));
    sim.ctl('clear', `fault lookup ${dev(NIC, 'vendor')} errno=EIO`, `fault readdir sys/bus/pci/drivers errno=EIO`);
    await expect(open(sim.path(dev(NIC, 'vendor')))).rejects.toThrow('EIO');
    expect(() => readdirSync(sim.path('sys/bus/pci/drivers'))).toThrow('EIO');
    for (const wrong of [
      'fault write',
      'fault wriet * hang',
      'fault write * errno=EWHAT',
      'device x',
      'vanish 0000:7f:00.0',
    ])
      expect(() => sim.ctl(wrong), wrong).toThrow();
  });
});
