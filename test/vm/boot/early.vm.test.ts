/**
 * The stage in the initramfs, by both makers: no host driver ever probes a wished device; what is cut or foreign stops
 * no boot; what install did, remove undoes.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { EVER } from '../../patience.ts';
import { skipped } from '../suite.ts';
import { allMet, drivers, told, useBed } from './suite.ts';

const BOOTS = Number(process.env.HOSTDEV_VM_BOOTS ?? 3);
/** Every probe is in the kernel's log then, and the log is large enough for them. */
const PROBES = 'log_buf_len=16M "dyndbg=file drivers/base/dd.c +p"';
const TABLE = '/var/lib/hostdev/boot.table';

const WISHED = {
  '0000:23:00.0': 'vfio-pci',
  '0000:93:00.0': 'tb_nvme_vfio_pci',
  '0000:91:00.0': 'vfio-pci',
  '0000:91:00.1': 'vfio-pci',
  '0000:24:00.0': 'vfio-pci',
  // VFs are made in the real root, and no host driver meets those either.
  '0000:21:10.0': 'tb_igbvf_vfio_pci',
  '0000:21:10.2': 'tb_igbvf_vfio_pci',
  '0000:22:00.1': 'tb_nvme_vfio_pci',
  // The twins of a NIC and of an edu are nobody's wish.
  '0000:92:00.0': 'igb',
  '0000:94:00.0': '-',
};
const UNMET = Object.keys(WISHED).filter((a) => WISHED[a as keyof typeof WISHED].includes('vfio'));

const CASES = (['intel', 'amd'] as const).flatMap((iommu) =>
  (['initramfs-tools', 'dracut'] as const).map((maker) => [iommu, maker] as const),
);

describe.each(CASES)('on %s, %s', (iommu, maker) => {
  const bed = useBed(iommu);
  const ok = (line: string): Promise<string> => bed().vm.ok(line, { timeoutMs: EVER });
  /** What install must leave as it was: etc but for the wishes, and what is in the initramfs. */
  const asItWas = (): Promise<string> =>
    ok(`cd /; find etc -xdev -type f ! -path 'etc/hostdev/*' ! -name '.updated' -exec sha256sum {} + | sort -k2
      ${maker === 'dracut' ? 'lsinitrd' : 'lsinitramfs'} /boot/initrd.img-$(uname -r) | awk '{ print $NF }' | sort`);
  /** What of sysfs a wish may change. */
  const sysfs = (): Promise<string> =>
    ok(`cd /sys/bus/pci/devices; for d in *; do
      echo $d $(basename $(readlink $d/driver || echo -)) $(cat $d/driver_override $d/sriov_numvfs $d/sriov_drivers_autoprobe $d/enable 2> /dev/null)
      done; ls /sys/bus/pci/drivers /sys/module /sys/kernel/iommu_groups | sort`);
  let before = '';
  let untouched = '';

  beforeAll(async () => {
    if (skipped) return;
    if (maker === 'dracut') await ok('dracut -f /boot/initrd.img-$(uname -r) $(uname -r) 2>&1; sync');
    before = await asItWas();
    // What a boot leaves without hostdev's part.
    if (maker === 'dracut') await bed().reboot();
    untouched = await sysfs();
    await ok(`set -e
      hostdev bind 0000:23:00.0 --persist
      hostdev bind 0000:93:00.0 --persist
      hostdev bind 0000:91:00.0 --group endpoints --persist
      hostdev bind 0000:24:00.0 --persist
      hostdev vf create 0000:21:00.0 --count 2 --persist
      hostdev vf create 0000:22:00.0 --count 1 --persist`);
    const install = await ok('hostdev boot install; cat /var/lib/hostdev/boot.table');
    process.stderr.write(`${install}\n`);
    expect(install).toContain('made anew');
  });

  /** Lines of the kernel in which a driver that is none of VFIO's is tried on a wished device. */
  const probes = async (): Promise<string[]> =>
    (await ok(`dmesg | grep -F 'probing driver' | grep -E '${UNMET.join('|')}' || :`))
      .split('\n')
      .filter((l) => l !== '' && !l.includes('vfio'));

  test.each(Array.from({ length: BOOTS }, (_, n) => n + 1))(
    'boot %i: no host driver has met a wished device',
    async () => {
      await bed().reboot({ words: PROBES });
      const log = await ok('dmesg | grep -F hostdev: ; cat /run/hostdev/boot.json');
      process.stderr.write(`${log}\n`);
      expect(Number(await ok("dmesg | grep -cF 'probing driver'"))).toBeGreaterThan(20);
      expect(await probes()).toEqual([]);
      expect(await drivers(bed(), Object.keys(WISHED))).toEqual(WISHED);
      const wishes = await allMet(bed());
      expect(wishes.filter((w) => w.kind === 'device').map((w) => [w.met, w.stage])).toEqual(
        Array.from({ length: 4 }, () => [true, 'early']),
      );
      expect(wishes.filter((w) => w.kind === 'pf').map((w) => w.met)).toEqual([true, true]);
      expect(wishes).toHaveLength(6);
    },
  );

  test('hostdev.off=1: nothing is done, and it is told', async () => {
    await bed().reboot({ words: 'hostdev.off=1' });
    const wishes = await told(bed());
    expect(wishes.every((w) => !w.met)).toBe(true);
    expect((await drivers(bed(), ['0000:91:00.0']))['0000:91:00.0']).toBe('e1000e');
    expect(await ok('dmesg | grep -F hostdev:')).toContain('hostdev.off=1 is on the kernel command line');
  });

  test('remove: etc and the initramfs are as before, and the next boot too', async () => {
    await bed().reboot({ words: '' });
    expect(await ok('hostdev boot remove')).toContain('made anew');
    expect(await ok(`ls ${TABLE} 2>&1 || :`)).toContain('No such file');
    expect(await asItWas()).toBe(before);
    await bed().reboot();
    // The first part alone, from the real root on.
    const wishes = await allMet(bed());
    expect(wishes.every((w) => w.met && w.stage !== 'early')).toBe(true);
  });

  test('without wishes too: sysfs is as it was before all of it', async () => {
    await ok('rm -r /etc/hostdev; sync');
    await bed().reboot();
    expect(await sysfs()).toBe(untouched);
  });
});
