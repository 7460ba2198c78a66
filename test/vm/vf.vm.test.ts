/**
 * PF and VF on a real kernel: igb makes VFs for guests and for the host, a VF in use keeps them all, and a PF's VFs
 * come back with its driver.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { createVfs, defineDomain, driverOf, groupOf, installHostdev, overrideOf, virsh } from './guest.ts';
import type { Result } from './link.ts';
import { skipped, useMachine } from './suite.ts';

const vm = useMachine('intel');

const IGB = '0000:21:00.0';
const SYS = `/sys/bus/pci/devices/${IGB}`;
const vf = (n: number): string => `0000:21:1${n >> 2}.${(n & 3) * 2}`;
const VFS = [0, 1, 2, 3].map(vf);
const [VF = '', VF2 = ''] = VFS;
const VARIANT = 'tb_igbvf_vfio_pci';

const hostdev = (args: string): Promise<Result> => vm().sh(`hostdev ${args}`, { timeoutMs: 120_000 });
const ok = async (args: string): Promise<string> => {
  const r = await hostdev(args);
  if (r.code !== 0)
    throw new Error(`hostdev ${args}: exit ${r.code}: ${r.stderr}\n${await vm().ok('dmesg | tail -5')}`);
  return r.stdout;
};
const read = (attribute: string) => vm().ok(`cat ${SYS}/${attribute}`);

type ListedVf = { address: string; driver: string | null; iommu_group: number | null; owner: string | null };
const list = async (): Promise<ListedVf[]> => JSON.parse(await ok(`vf list ${IGB} -j`)).vfs;

/** Driver and override of every VF, the count and autoprobe: what must come back. */
const picture = () =>
  vm().ok(
    `cd ${SYS}; cat sriov_numvfs sriov_drivers_autoprobe; for v in virtfn*; do [ -e $v ] && echo $(basename $(readlink $v)) $(basename "$(readlink $v/driver)") $(cat $v/driver_override); done; basename $(readlink driver); cat driver_override`,
  );
const clean = () => vm().ok('cd /run/hostdev; grep -H . bindings/*.json journal/*.json 2>/dev/null || :');

beforeAll(async () => {
  if (skipped) return;
  await installHostdev(vm());
  await vm().ok(`udevadm settle; cat ${SYS}/sriov_numvfs`);
});

describe('vf create, list, remove', () => {
  test('for VFIO: seven VFs on the variant driver, each in its group, none ever seen by igbvf', async () => {
    const plan = JSON.parse(await ok(`vf create ${IGB} --count 7 -n -j`)).plan;
    expect(await read('sriov_numvfs')).toBe('0');
    await vm().ok('dmesg -C');
    await ok(`vf create ${IGB} --count 7 --for vfio`);
    expect(await read('sriov_numvfs')).toBe('7');
    expect(await read('sriov_drivers_autoprobe')).toBe('1');
    const vfs = await list();
    expect(vfs.map((v) => v.address)).toEqual([0, 1, 2, 3, 4, 5, 6].map(vf));
    expect(vfs.map((v) => v.driver)).toEqual(Array(7).fill(VARIANT));
    expect(vfs.every((v) => v.owner === 'admin')).toBe(true);
    for (const v of vfs) expect(await groupOf(vm(), v.address)).toEqual([v.address]);
    expect(await vm().ok('dmesg | grep -c "igbvf 0000:" || :')).toBe('0');
    // What the plan foretold of VFs that were not there.
    expect(plan.devices).toEqual(
      vfs.map((v) => ({ address: v.address, driver_from: null, driver_to: VARIANT, module: VARIANT })),
    );
  });

  test('seven again: nothing to do; too many, none, and a device that is no PF', async () => {
    const again = JSON.parse(await ok(`vf create ${IGB} --count 7 -j`));
    expect(again).toMatchObject({ changed: false, plan: { steps: [] } });
    expect((await hostdev(`vf create ${IGB} --count 8`)).code).toBe(3);
    expect((await hostdev(`vf create ${IGB} --count 0`)).code).toBe(2);
    const e = await hostdev(`vf create ${VF} --count 1`);
    expect([e.code, e.stderr]).toEqual([3, expect.stringContaining(`Its PF is ${IGB}`)]);
    expect((await hostdev('vf create 0000:00:02.0 --count 1')).code).toBe(3);
  });

  test('a process that holds the group of one: create, remove and bind of the PF refuse by its name', async () => {
    const group = await vm().ok(`basename "$(readlink /sys/bus/pci/devices/${VF2}/iommu_group)"`);
    await vm().ok(`exec 9<>/dev/vfio/${group}; sleep 120 >/dev/null 2>&1 & echo $! > /tmp/holder`);
    try {
      for (const args of [`vf create ${IGB} --count 4`, `vf remove ${IGB}`, `bind ${IGB} --allow=vfs`]) {
        const r = await hostdev(args);
        expect(r.code, `${args}: ${r.stderr}`).toBe(5);
        expect(r.stderr).toContain(VF2);
        expect(r.stderr).toContain(`/dev/vfio/${group}`);
      }
    } finally {
      await vm().ok('kill $(cat /tmp/holder)');
    }
    expect(await read('sriov_numvfs')).toBe('7');
  });

  test('another number goes through 0; remove takes all and their books', async () => {
    const kept = await hostdev(`vf create ${IGB} --count 2`);
    expect([kept.code, kept.stderr]).toEqual([5, expect.stringContaining('--recreate')]);
    await ok(`vf create ${IGB} --count 2 --recreate`);
    expect((await list()).map((v) => [v.address, v.driver])).toEqual([
      [vf(0), VARIANT],
      [vf(1), VARIANT],
    ]);
    await ok(`vf remove ${IGB}`);
    expect(await read('sriov_numvfs')).toBe('0');
    expect(await clean()).toBe('');
    expect(JSON.parse(await ok(`vf remove ${IGB} -j`)).changed).toBe(false);
  });

  test('for the host: igbvf has them, and autoprobe, which was off, is off again', async () => {
    await vm().ok(`echo 0 > ${SYS}/sriov_drivers_autoprobe`);
    await ok(`vf create ${IGB} --count 3 --for netdev`);
    expect((await list()).map((v) => v.driver)).toEqual(['igbvf', 'igbvf', 'igbvf']);
    expect(await read('sriov_drivers_autoprobe')).toBe('0');
    await vm().ok(`echo 1 > ${SYS}/sriov_drivers_autoprobe`);
    await ok(`vf remove ${IGB}`);
  });

  test("the kernel's own errno is explained: EBUSY of another number, ENOENT without a driver", async () => {
    // The kernel's answers that the in-memory kernel of the unit tests gives too.
    await createVfs(vm(), IGB, 2);
    const write = (value: string) => vm().sh(`echo ${value} > ${SYS}/sriov_numvfs`);
    expect((await write('3')).stderr).toContain('Device or resource busy');
    expect((await write('8')).stderr).toContain('Numerical result out of range');
    expect((await write('x')).stderr).toContain('Invalid argument');
    expect((await write('2')).code).toBe(0);
    expect((await write('0')).code).toBe(0);
    await vm().ok(`echo ${IGB} > /sys/bus/pci/drivers/igb/unbind`);
    expect((await write('2')).stderr).toContain('No such file or directory');
    const r = await hostdev(`vf create ${IGB} --count 2`);
    expect([r.code, r.stderr]).toEqual([1, expect.stringContaining('has no driver')]);
    await vm().ok(`echo ${IGB} > /sys/bus/pci/drivers_probe`);
    expect(await driverOf(vm(), IGB)).toBe('igb');
  });
});

describe('a PF with idle VFs', () => {
  test('goes to VFIO with --allow=vfs only, and comes back with count, drivers and overrides of every VF', async () => {
    await ok(`vf create ${IGB} --count 4 --for netdev`);
    await vm().ok(`udevadm settle; printf 'igbvf\\n' > /sys/bus/pci/devices/${VFS[3]}/driver_override`);
    await ok(`bind ${VF}`);
    await vm().ok(`echo ${VF2} > /sys/bus/pci/drivers/igbvf/unbind; echo 0 > ${SYS}/sriov_drivers_autoprobe`);
    const before = await picture();
    expect(before).toContain(`${VF} ${VARIANT} ${VARIANT}`);
    const refused = await hostdev(`bind ${IGB}`);
    expect([refused.code, refused.stderr]).toEqual([5, expect.stringContaining('--allow=vfs')]);
    expect(await picture()).toBe(before);

    await ok(`bind ${IGB} --allow=vfs`);
    expect(await driverOf(vm(), IGB)).toBe('vfio-pci');
    expect(await read('sriov_numvfs')).toBe('0');
    expect((await hostdev('status')).code).toBe(0);

    await ok(`unbind ${IGB}`);
    expect(await picture()).toBe(before);
    const { bindings } = JSON.parse(await ok('status -j'));
    expect(bindings).toMatchObject([{ address: VF, owner: 'admin', drift: null }]);
    await ok(`unbind ${VF}`);
    expect(await driverOf(vm(), VF)).toBe('igbvf');
    expect(await clean()).toBe('');
    await vm().ok(`echo 1 > ${SYS}/sriov_drivers_autoprobe`);
  });

  test('killed in the middle: the next command undoes it', async () => {
    const before = await picture();
    // Most of a command's time is node's start; the writes are in its last part.
    const [begin, end] = [Date.now(), await ok(`bind ${IGB} --allow=vfs`).then(() => Date.now())];
    await ok(`unbind ${IGB}`);
    for (const part of [0.6, 0.7, 0.8, 0.9]) {
      const delay = (((end - begin) / 1000) * part).toFixed(2);
      await vm().sh(`timeout -s KILL ${delay} hostdev bind ${IGB} --allow=vfs`);
      const r = await hostdev(`unbind ${IGB}`); // 4 when the recovery had put it back: then it is not ours
      expect([0, 4], `${delay}: ${r.stderr}`).toContain(r.code);
      expect(await picture(), delay).toBe(before);
      expect(await clean()).toBe('');
    }
  });

  test('a guest has one of them: refused by its name, and the guest runs on', async () => {
    await ok('hook install');
    await vm().ok(
      "sed -i 's/^start_deadline=.*/start_deadline=60/; s/^prepare_deadline=.*/prepare_deadline=120/' /etc/libvirt/hooks/hostdev.conf; systemctl restart libvirtd",
    );
    await defineDomain(vm(), { name: 'g1', hostdevs: [{ address: VF2, managed: false }] });
    const r = await virsh(vm(), ['start', 'g1'], { timeoutMs: 120_000 });
    expect(r.code, r.stderr).toBe(0);
    for (const args of [`bind ${IGB} --allow=vfs`, `vf remove ${IGB}`, `vf create ${IGB} --count 5`]) {
      const refused = await hostdev(args);
      expect(refused.code, args).toBe(5);
      expect(refused.stderr, args).toMatch(
        new RegExp(`${VF2}(: this VF of ${IGB} is in use: it)? belongs to (domain )?g1`),
      );
    }
    expect(await vm().ok('virsh domstate g1')).toBe('running');
    await virsh(vm(), ['destroy', 'g1'], { timeoutMs: 120_000 });
    for (const until = Date.now() + 60_000; Date.now() < until && (await driverOf(vm(), VF2)) !== 'igbvf'; );
    expect(await overrideOf(vm(), VF2)).toBeNull();
    await ok(`vf remove ${IGB}`);
    expect(await clean()).toBe('');
  });
});
