/** The bed itself: that the machine is what README.md says, so that a failure elsewhere is hostdev's. */
import { describe, expect, test } from 'vitest';
import {
  createVfs,
  defineDomain,
  domainXml,
  driverOf,
  groupOf,
  hostdevXml,
  onlineNvmeVf,
  overrideOf,
  virsh,
} from './guest.ts';
import { useMachine } from './suite.ts';

const vm = useMachine('intel');

const igb = '0000:21:00.0';
const nvme = '0000:22:00.0';
const virtioPf = '0000:98:00.0';
const bridge = '0000:25:00.0';
const behindBridge = ['0000:26:01.0', '0000:26:02.0'];

/** Waits for what happens in the background, libvirt's return of a device for one. */
async function eventually<T>(look: () => Promise<T>, wanted: T): Promise<void> {
  for (const until = Date.now() + 20_000; Date.now() < until; ) {
    if ((await look()) === wanted) return;
  }
  expect(await look()).toBe(wanted);
}

describe('the machine', () => {
  test('is up, with the tools tests need', async () => {
    expect(vm().boot.tries).toBeGreaterThan(0);
    expect(vm().boot.stalls).toBe(vm().boot.tries - 1);
    expect(await vm().ok('systemctl is-system-running --wait')).toBe('running');
    const tools =
      'node virsh qemu-system-x86_64 driverctl lspci nvme jq strace hyperfine modprobe udevadm mkfs.ext4 dmsetup';
    for (const tool of tools.split(' ')) expect(await vm().ok(`command -v ${tool}`), tool).not.toBe('');
    expect(await vm().ok('node -p process.versions.node')).toMatch(/^(2\d|[3-9]\d)\./);
    expect((await virsh(vm(), ['version', '--daemon'])).stdout).toContain('Running against daemon');
  });

  test('has the groups README.md lists', async () => {
    for (const alone of [igb, nvme, '0000:23:00.0', '0000:24:00.0', '0000:92:00.0', '0000:93:00.0', virtioPf]) {
      expect(await groupOf(vm(), alone)).toEqual([alone]);
    }
    expect(await groupOf(vm(), bridge)).toEqual([bridge, ...behindBridge]);
    expect(await groupOf(vm(), '0000:91:00.0')).toEqual(['0000:91:00.0', '0000:91:00.1']);
    expect(await groupOf(vm(), '0000:96:00.0')).toEqual(['0000:95:00.0', '0000:96:00.0']);
    expect(await groupOf(vm(), '0000:97:00.0')).toEqual(['0000:95:01.0', '0000:97:00.0']);
    expect(await groupOf(vm(), '0000:00:1f.0')).toEqual(['0000:00:1f.0', '0000:00:1f.2', '0000:00:1f.3']);
    expect(await vm().ok('ls /sys/kernel/iommu_groups | wc -l')).toBe('31');
  });

  test('has two NUMA nodes with devices of their own', async () => {
    const node = (address: string) => vm().ok(`cat /sys/bus/pci/devices/${address}/numa_node`);
    expect([await node(igb), await node('0000:92:00.0'), await node('0000:00:02.0')]).toEqual(['0', '1', '-1']);
  });

  test('has each device on its host driver', async () => {
    expect(await driverOf(vm(), igb)).toBe('igb');
    expect(await driverOf(vm(), nvme)).toBe('nvme');
    expect(await driverOf(vm(), '0000:23:00.0')).toBe('e1000e');
    expect(await driverOf(vm(), '0000:24:00.0')).toBeNull();
    expect(await driverOf(vm(), behindBridge[1] ?? '')).toBe('e1000');
    expect(await overrideOf(vm(), igb)).toBeNull();
    await expect(driverOf(vm(), '0000:7f:00.0')).rejects.toThrow('exit 1');
  });
});

describe('virtual functions', () => {
  test('igb makes 7, each alone in its group and on igbvf', async () => {
    const vfs = await createVfs(vm(), igb, 7);
    expect(vfs).toHaveLength(7);
    expect(vfs[0]).toBe('0000:21:10.0');
    expect(vfs[6]).toBe('0000:21:11.4');
    for (const vf of vfs) {
      expect(await groupOf(vm(), vf)).toEqual([vf]);
      await eventually(() => driverOf(vm(), vf), 'igbvf');
    }
  });

  test('a number of VFs changes over 0 only, and not past the limit', async () => {
    const busy = await vm().sh(`echo 3 > /sys/bus/pci/devices/${igb}/sriov_numvfs`);
    expect(busy).toMatchObject({ code: 1, stderr: expect.stringContaining('Device or resource busy') });
    const range = await vm().sh(`echo 99 > /sys/bus/pci/devices/0000:93:00.0/sriov_numvfs`);
    expect(range).toMatchObject({ code: 1, stderr: expect.stringContaining('Numerical result out of range') });
  });

  test('nvme makes 8, offline, so that no driver holds them', async () => {
    const vfs = await createVfs(vm(), nvme, 8);
    expect(vfs).toHaveLength(8);
    expect(vfs[0]).toBe('0000:22:00.1');
    expect(vfs[7]).toBe('0000:22:01.0');
    for (const vf of vfs) expect(await driverOf(vm(), vf)).toBeNull();
  });

  test('the virtio NIC makes 3', async () => {
    const vfs = await createVfs(vm(), virtioPf, 3, { autoprobe: false });
    expect(vfs).toEqual(['0000:98:00.1', '0000:98:00.2', '0000:98:00.3']);
    for (const vf of vfs) expect(await groupOf(vm(), vf)).toEqual([vf]);
  });

  test('without autoprobe, drivers_probe says 0 and does nothing, until there is a driver_override', async () => {
    const [vf = ''] = await createVfs(vm(), '0000:92:00.0', 1, { autoprobe: false });
    expect(await driverOf(vm(), vf)).toBeNull();
    await vm().ok(`echo ${vf} > /sys/bus/pci/drivers_probe`);
    expect(await driverOf(vm(), vf)).toBeNull();
    await vm().ok(`echo igbvf > /sys/bus/pci/devices/${vf}/driver_override; echo ${vf} > /sys/bus/pci/drivers_probe`);
    expect(await driverOf(vm(), vf)).toBe('igbvf');
    await vm().ok('echo 0 > /sys/bus/pci/devices/0000:92:00.0/sriov_numvfs');
  });

  test('an NVMe VF goes online: nvme binds it, it has a disk of its own', async () => {
    await createVfs(vm(), nvme, 2);
    const { address, disks } = await onlineNvmeVf(vm(), nvme, 0, { namespace: 2 });
    expect(address).toBe('0000:22:00.1');
    expect(await driverOf(vm(), address)).toBe('nvme');
    // The first is the PF's own disk, reached a second way.
    expect(disks).toHaveLength(2);
    expect(
      await vm().ok(
        `ls /sys/bus/pci/devices/${nvme}/nvme/*/ | grep -oE '^nvme[0-9]+c[0-9]+n[0-9]+' | sed 's/c[0-9]*//'`,
      ),
    ).toBe(disks[0]);
    const disk = `/dev/${disks[1]}`;
    await vm().ok(`mkfs.ext4 -q ${disk} && mount ${disk} /mnt && echo kept > /mnt/file && umount /mnt`);
    expect(await vm().ok(`mount ${disk} /mnt && cat /mnt/file; umount /mnt`)).toBe('kept');
    // The other one, still offline, is still nobody's; a second call changes nothing.
    expect(await driverOf(vm(), '0000:22:00.2')).toBeNull();
    expect((await onlineNvmeVf(vm(), nvme, 0)).disks).toEqual(disks);
    await vm().ok(`nvme detach-ns /dev/$(ls /sys/bus/pci/devices/${nvme}/nvme) -n 2 -c 1`);
  });
});

describe('variant drivers', () => {
  test('modules.alias has them', async () => {
    const aliases = await vm().ok('grep -h "^alias vfio_pci:" /lib/modules/$(uname -r)/modules.alias');
    expect(aliases).toContain('alias vfio_pci:v00008086d000010CAsv*sd*bc*sc*i* tb_igbvf_vfio_pci');
    expect(aliases).toContain('alias vfio_pci:v00001B36d00000010sv*sd*bc*sc*i* tb_nvme_vfio_pci');
    expect(aliases).toContain('alias vfio_pci:v00001AF4d00001041sv*sd*bc*sc*i* virtio_vfio_pci');
    const igbvf = await vm().ok('modinfo -F alias igbvf');
    expect(igbvf).toContain('pci:v00008086d000010CAsv*');
  });

  test.each([
    ['0000:21:10.0', 'tb_igbvf_vfio_pci'],
    ['0000:22:00.2', 'tb_nvme_vfio_pci'],
    ['0000:98:00.1', 'virtio_vfio_pci'],
  ])('%s binds to %s', async (address, driver) => {
    await vm().ok(`set -e
      cd /sys/bus/pci/devices/${address}
      modprobe ${driver}
      echo ${driver} > driver_override
      [ ! -e driver ] || echo ${address} > driver/unbind
      echo ${address} > /sys/bus/pci/drivers_probe`);
    expect(await driverOf(vm(), address)).toBe(driver);
    expect(await overrideOf(vm(), address)).toBe(driver);
    await vm().ok(`set -e
      cd /sys/bus/pci/devices/${address}
      echo > driver_override
      echo ${address} > driver/unbind
      echo ${address} > /sys/bus/pci/drivers_probe`);
    expect(await overrideOf(vm(), address)).toBeNull();
  });
});

describe('libvirt', () => {
  const vf = '0000:21:10.0';

  test("refuses a managed='no' VF that its host driver holds", async () => {
    expect(await driverOf(vm(), vf)).toBe('igbvf');
    await defineDomain(vm(), { name: 'manual', hostdevs: [{ address: vf, managed: false }] });
    const { code, stderr } = await virsh(vm(), ['start', 'manual']);
    expect(code).toBe(1);
    expect(stderr).toContain('must be manually detached');
    expect(await driverOf(vm(), vf)).toBe('igbvf');
  });

  test("starts a managed='yes' domain on the variant driver and brings the VF back", async () => {
    await defineDomain(vm(), { name: 'managed', hostdevs: [{ address: '0000:21:10.2', managed: true }] });
    expect(await virsh(vm(), ['start', 'managed'])).toMatchObject({ code: 0 });
    expect(await driverOf(vm(), '0000:21:10.2')).toBe('tb_igbvf_vfio_pci');
    expect(await virsh(vm(), ['destroy', 'managed'])).toMatchObject({ code: 0 });
    await eventually(() => driverOf(vm(), '0000:21:10.2'), 'igbvf');
  });

  test('hot plugs and hot unplugs', async () => {
    const hostdevs = [{ address: '0000:21:10.4', managed: true, model: 'vfio-pci' }] as const;
    await defineDomain(vm(), { name: 'plug' });
    await vm().write('/tmp/plugged.xml', hostdevXml(hostdevs[0]));
    expect(await virsh(vm(), ['start', 'plug'])).toMatchObject({ code: 0 });
    expect(await virsh(vm(), ['attach-device', 'plug', '/tmp/plugged.xml', '--live'])).toMatchObject({ code: 0 });
    expect(await driverOf(vm(), '0000:21:10.4')).toBe('vfio-pci');
    expect(await virsh(vm(), ['detach-device', 'plug', '/tmp/plugged.xml', '--live'])).toMatchObject({ code: 0 });
    await eventually(() => driverOf(vm(), '0000:21:10.4'), 'igbvf');
    expect((await virsh(vm(), ['dumpxml', 'plug'])).stdout).not.toContain('<hostdev');
    await virsh(vm(), ['destroy', 'plug']);
  });

  test('takes every kind of domain domainXml writes', async () => {
    const xml = domainXml({
      name: 'kinds',
      uuid: '1b4e28ba-2fa1-11d2-883f-0016d3cca427',
      metadata: "<x:note xmlns:x='urn:x'>kept</x:note>",
      hostdevs: [
        { address: '0000:26:01.0', managed: true },
        { address: '0000:26:02.0', managed: true, unassigned: true, model: 'vfio-pci' },
      ],
      nvmeDisks: [{ address: '0000:22:00.1', managed: true }],
      interfaces: [{ address: '0000:21:10.6', managed: false, mac: '52:54:00:01:02:03' }],
    });
    await vm().write('/tmp/kinds.xml', xml);
    await vm().ok('virt-xml-validate /tmp/kinds.xml domain >&2 || [ $? = 127 ]; virsh define /tmp/kinds.xml');
    const kept = (await virsh(vm(), ['dumpxml', 'kinds'])).stdout;
    for (const part of ["<disk type='nvme'", "<interface type='hostdev'", "type='unassigned'", 'kept</x:note>']) {
      expect(kept).toContain(part);
    }
    await virsh(vm(), ['undefine', 'kinds']);
  });

  test('an NVMe VF that is online serves as a disk of a domain', async () => {
    await defineDomain(vm(), { name: 'disk', nvmeDisks: [{ address: '0000:22:00.1', managed: true }] });
    expect(await driverOf(vm(), '0000:22:00.1')).toBe('nvme');
    expect(await virsh(vm(), ['start', 'disk'])).toMatchObject({ code: 0 });
    expect(await driverOf(vm(), '0000:22:00.1')).toBe('tb_nvme_vfio_pci');
    expect(await virsh(vm(), ['destroy', 'disk'])).toMatchObject({ code: 0 });
    await eventually(() => driverOf(vm(), '0000:22:00.1'), 'nvme');
  });

  test('the shpchp trap: a group is not viable while the driver of its bridge holds the bridge', async () => {
    expect(await driverOf(vm(), bridge)).toBe('shpchp');
    const hostdevs = behindBridge.map((address) => ({ address, managed: true }));
    await defineDomain(vm(), { name: 'group', hostdevs });
    const refused = await virsh(vm(), ['start', 'group']);
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('is not viable') });
    await vm().ok(`echo ${bridge} > /sys/bus/pci/drivers/shpchp/unbind`);
    expect(await driverOf(vm(), bridge)).toBeNull();
    expect(await virsh(vm(), ['start', 'group'])).toMatchObject({ code: 0 });
    for (const address of behindBridge) expect(await driverOf(vm(), address)).toBe('vfio-pci');
    expect(await virsh(vm(), ['destroy', 'group'])).toMatchObject({ code: 0 });
    await eventually(() => driverOf(vm(), behindBridge[1] ?? ''), 'e1000');
  });
});
