/**
 * The stage in the initramfs, by both makers: no host driver ever probes a wished device; what is cut or foreign stops
 * no boot; what install did, remove undoes.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { EVER } from '../../patience.ts';
import { skipped } from '../suite.ts';
import { allMet, drivers, told, useBed } from './suite.ts';

const BOOTS = Number(process.env.HOSTDEV_VM_BOOTS ?? 2);
/** Every probe is in the kernel's log then, and the log is large enough for them. */
const PROBES = 'log_buf_len=16M "dyndbg=file drivers/base/dd.c +p"';
const TABLE = '/var/lib/hostdev/boot.table';

const WISHED = {
  '0000:23:00.0': 'vfio-pci',
  '0000:93:00.0': 'tb_nvme_vfio_pci',
  '0000:91:00.0': 'vfio-pci',
  '0000:91:00.1': 'vfio-pci',
  '0000:24:00.0': 'vfio-pci',
  // The twins of a NIC and of an edu are nobody's wish.
  '0000:92:00.0': 'igb',
  '0000:94:00.0': '-',
};
const EARLY = ['0000:23:00.0', '0000:93:00.0', '0000:91:00.0', '0000:91:00.1', '0000:24:00.0'];

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
  let before = '';

  beforeAll(async () => {
    if (skipped) return;
    if (maker === 'dracut') await ok('dracut -f /boot/initrd.img-$(uname -r) $(uname -r) 2>&1; sync');
    before = await asItWas();
    await ok(`set -e
      hostdev bind 0000:23:00.0 --persist
      hostdev bind 0000:93:00.0 --persist
      hostdev bind 0000:91:00.0 --group endpoints --persist
      hostdev bind 0000:24:00.0 --persist`);
    const install = await ok('hostdev boot install; cat /var/lib/hostdev/boot.table');
    process.stderr.write(`${install}\n`);
    expect(install).toContain('made anew');
  });

  /** Lines of the kernel in which a driver that is none of VFIO's is tried on a wished device. */
  const probes = async (): Promise<string[]> =>
    (await ok(`dmesg | grep -F 'probing driver' | grep -E '${EARLY.join('|')}' || :`))
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
      expect(wishes.map((w) => [w.address, w.met, w.stage])).toEqual(wishes.map((w) => [w.address, true, 'early']));
      expect(wishes).toHaveLength(4);
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
    expect(wishes.map((w) => [w.met, w.stage])).toEqual(wishes.map(() => [true, 'apply']));
  });
});
