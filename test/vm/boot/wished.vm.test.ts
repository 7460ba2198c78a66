/**
 * Wishes of every kind, and guests that libvirt starts by itself, through three clean reboots; a PF's driver that goes
 * and comes.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { EVER } from '../../patience.ts';
import { defineDomain } from '../guest.ts';
import { skipped } from '../suite.ts';
import { allMet, drivers, useBed } from './suite.ts';

describe.each(['intel', 'amd'] as const)('on %s', (iommu) => {
  const bed = useBed(iommu);

  /** What is to be so after every boot. */
  const WISHED = {
    '0000:23:00.0': 'vfio-pci',
    '0000:93:00.0': 'tb_nvme_vfio_pci',
    '0000:91:00.0': 'vfio-pci',
    '0000:91:00.1': 'vfio-pci',
    // The VFs of an igb, with the kernel's variant driver for them; the PFs stay with their own.
    '0000:21:00.0': 'igb',
    '0000:21:10.0': 'tb_igbvf_vfio_pci',
    '0000:21:10.2': 'tb_igbvf_vfio_pci',
    '0000:21:10.4': '-',
    '0000:22:00.0': 'nvme',
    '0000:22:00.1': 'tb_nvme_vfio_pci',
    '0000:22:00.2': 'tb_nvme_vfio_pci',
    '0000:95:00.0': 'virtio-pci',
    '0000:95:00.1': 'virtio_vfio_pci',
    '0000:95:00.2': 'virtio_vfio_pci',
    '0000:95:00.3': 'virtio_vfio_pci',
    // Nobody wished anything of these.
    '0000:92:00.0': 'igb',
    '0000:24:00.0': '-',
  };
  const now = () => drivers(bed(), Object.keys(WISHED));

  beforeAll(async () => {
    if (skipped) return;
    const { vm } = bed();
    await vm.ok(
      `set -e
      hostdev bind 0000:23:00.0 --persist
      hostdev bind 0000:93:00.0 --persist
      hostdev bind 0000:91:00.0 --group endpoints --persist
      hostdev vf create 0000:21:00.0 --count 3 --persist
      hostdev vf create 0000:22:00.0 --count 2 --persist
      hostdev vf create 0000:95:00.0 --count 3 --persist
      hostdev wish add 0000:21:10.4 --driver none
      cat /etc/hostdev/conf.d/90-kept.toml`,
      { timeoutMs: EVER },
    );
    await defineDomain(vm, {
      name: 'web1',
      hostdevs: [
        { address: '0000:23:00.0', managed: false },
        { address: '0000:21:10.0', managed: false },
      ],
    });
    await vm.ok('virsh autostart web1 && systemctl enable libvirtd');
  });

  test.each([1, 2, 3])('reboot %i: every wish is met, and the guest runs', async () => {
    await bed().reboot();
    const wishes = await allMet(bed());
    expect(wishes.filter((w) => !w.met)).toEqual([]);
    expect(wishes).toHaveLength(7);
    expect(await now()).toEqual(WISHED);
    // Before libvirtd, which may take its time under emulation.
    await bed().vm.ok('until [ "$(virsh domstate web1)" = running ]; do sleep 1; done', { timeoutMs: EVER });
    const order = await bed().vm.ok(
      'systemctl show -P ExecMainExitTimestampMonotonic hostdev-boot; systemctl show -P ExecMainStartTimestampMonotonic libvirtd',
    );
    const [ended, started] = order.split('\n').map(Number) as [number, number];
    expect(ended).toBeGreaterThan(0);
    expect(ended).toBeLessThan(started);
    expect(await bed().vm.ok('systemctl show -P Result hostdev-boot')).toBe('success');
  });

  test("a PF's driver goes and comes again: its VFs are as wished", async () => {
    const { vm } = bed();
    await vm.ok('virsh destroy web1; cd /sys/bus/pci; echo 0000:21:00.0 > drivers/igb/unbind', { timeoutMs: EVER });
    expect((await drivers(bed(), ['0000:21:10.0']))['0000:21:10.0']).toBe('absent');
    await vm.ok('echo 0000:21:00.0 > /sys/bus/pci/drivers_probe', { timeoutMs: EVER });
    expect((await allMet(bed())).filter((w) => !w.met)).toEqual([]);
    expect(await now()).toEqual(WISHED);
  });
});
