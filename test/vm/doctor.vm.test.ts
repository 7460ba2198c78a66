/** `group why` and `doctor` on four machines: that the cause they name is the one that the machine has. */
import { beforeAll, describe, expect, test } from 'vitest';
import type { Diagnosis } from '../../src/actions/doctor.ts';
import type { Why } from '../../src/actions/groupWhy.ts';
import { createVfs, installHostdev } from './guest.ts';
import type { Machine } from './machine.ts';
import { skipped, useMachine } from './suite.ts';

async function why(vm: Machine, device: string): Promise<Why & { exit: number }> {
  const { code, stdout, stderr } = await vm.sh(`hostdev group why ${device} -j`);
  expect(stderr).toBe('');
  return { ...(JSON.parse(stdout) as { why: Why }).why, exit: code };
}

async function doctor(vm: Machine): Promise<Diagnosis & { exit: number }> {
  const { code, stdout, stderr } = await vm.sh('hostdev doctor -j');
  expect(stderr).toBe('');
  return { ...(JSON.parse(stdout) as Diagnosis), exit: code };
}

const ids = (d: Diagnosis): string[] => d.findings.map((f) => f.id);
const errors = (d: Diagnosis): string[] => d.findings.filter((f) => f.severity === 'error').map((f) => f.id);
const blocking = (w: Why): string[] => w.causes.filter((c) => c.blocks).map((c) => `${c.id} ${c.object}`);
const reasons = (w: Why): string[] => w.causes.filter((c) => !c.blocks).map((c) => `${c.id} ${c.object}`);

/** Every function's driver and override: what a look at the host must leave alone. */
const drivers = (vm: Machine): Promise<string> =>
  vm.ok('cd /sys/bus/pci/devices; for d in *; do echo "$d $(readlink $d/driver) $(cat $d/driver_override)"; done');

const install = (vm: () => Machine) =>
  beforeAll(async () => {
    if (!skipped) await installHostdev(vm());
  });

describe('an Intel IOMMU', () => {
  const vm = useMachine('intel');
  install(vm);

  test('a device alone in its group is assignable, and needs no reason', async () => {
    const w = await why(vm(), '0000:23:00.0');
    expect(w).toMatchObject({ exit: 0, assignable: true, causes: [], peers: [], not_measured: [] });
    expect(w.device.netdevs).toHaveLength(1);
  });

  test('two functions of one slot: neither has ACS, and the peer is on its host driver', async () => {
    expect(await vm().ok('lspci -vvs 91:00 | grep -c "Access Control Services" || :')).toBe('0');
    const w = await why(vm(), '0000:91:00.0');
    expect(w.exit).toBe(3);
    expect(blocking(w)).toEqual(['peer-driver 0000:91:00.1']);
    expect(reasons(w)).toEqual(['functions-acs 0000:91:00.0']);
    expect(w.peers[0]?.netdevs).toHaveLength(1);
    expect(w.causes[0]?.change).toContain(`the host loses ${w.peers[0]?.netdevs[0]}`);
  });

  test('behind a PCIe-to-PCI bridge, which shpchp holds', async () => {
    const w = await why(vm(), '0000:26:02.0');
    expect(w.exit).toBe(3);
    expect(blocking(w)).toEqual(['peer-driver 0000:25:00.0']);
    expect(reasons(w)).toContain('conventional-bridge 0000:25:00.0');
    expect(w.causes[0]?.cause).toContain('shpchp');
    expect(w.reset.scope).toEqual(['0000:26:01.0']);
    // What it says to do is enough.
    await vm().ok(w.causes[0]?.change?.replace(/^.*: (?=echo)/, '') ?? 'false');
    expect(await why(vm(), '0000:26:02.0')).toMatchObject({ exit: 0, assignable: true });
    await vm().ok('echo 0000:25:00.0 > /sys/bus/pci/drivers_probe');
  });

  test('a switch port without ACS takes its device into its group, and keeps nobody from it', async () => {
    const w = await why(vm(), '0000:96:00.0');
    expect(reasons(w)).toContain('port-acs 0000:95:00.0');
    expect(w.causes.find((c) => c.id === 'port-acs')?.cause).toContain(
      'downstream port of a switch 0000:95:00.0 has no ACS',
    );
    expect(w.exit).toBe(0);
  });

  test('ACS is named where lspci shows none, and only there', async () => {
    const has = async (port: string) =>
      (await vm().sh(`lspci -vvs ${port} | grep 'Access Control Services'`)).code === 0;
    for (const port of ['0000:95:00.0', '0000:95:01.0', '0000:20:00.0', '0000:90:03.0']) {
      const named = (await why(vm(), port)).causes.some((c) => c.id === 'port-acs' && c.object === port);
      expect(named, port).toBe(!(await has(port)));
    }
  });

  test("the host's own: root disk, management NIC, the PF of VFs", async () => {
    expect(blocking(await why(vm(), '/dev/vda'))).toContain('host-use 0000:00:03.0');
    expect(blocking(await why(vm(), '0000:00:02.0'))).toContain('host-use 0000:00:02.0');
    const [vf = ''] = await createVfs(vm(), '0000:21:00.0', 2);
    expect(blocking(await why(vm(), '0000:21:00.0'))).toEqual(['vfs 0000:21:00.0']);
    expect((await why(vm(), vf)).exit).toBe(0);
  });

  test('doctor finds no error here, measures all but secure boot, and changes nothing', async () => {
    // It ends by itself when nobody has asked it for two minutes.
    await vm().ok('systemctl start libvirtd');
    const before = await drivers(vm());
    const d = await doctor(vm());
    expect(errors(d)).toEqual([]);
    expect(d.exit).toBe(0);
    expect(ids(d)).toContain('hook-missing');
    expect(ids(d)).toContain('variant-present');
    expect(d.not_measured).toEqual([]);
    expect(await drivers(vm())).toBe(before);
    expect(await vm().ok('find /run/hostdev /var/lib/hostdev -type f 2>/dev/null | wc -l')).toBe('0');
  });

  test('without root: what may not be read is said', async () => {
    await vm().ok('chmod -R a+rX /usr/lib/hostdev');
    const r = await vm().sh('setpriv --reuid 65534 --regid 65534 --clear-groups hostdev group why 0000:91:00.0 -j');
    const w = (JSON.parse(r.stdout) as { why: Why }).why;
    expect(reasons(w)).toEqual(['join-unmeasured 0000:91:00.0']);
    expect(w.not_measured.map((u) => u.reason).join()).toContain('needs root');
  });

  test('a hook that libvirt has not seen, until it is restarted', async () => {
    await vm().ok('systemctl restart libvirtd; sleep 4; hostdev hook install');
    const d = await doctor(vm());
    expect(errors(d)).toEqual(['hook-not-seen']);
    expect(d.exit).toBe(3);
    const line = d.findings.find((f) => f.id === 'hook-not-seen')?.fix[0]?.line ?? 'false';
    await vm().ok(`sleep 3; ${line}`);
    expect(errors(await doctor(vm()))).toEqual([]);
    await vm().ok('cd /etc/libvirt/hooks/qemu.d && printf "echo no shebang\\n" > 10-mine.bak && chmod 755 10-mine.bak');
    expect(ids(await doctor(vm()))).toEqual(expect.arrayContaining(['hook-stray', 'hook-no-interpreter']));
    await vm().ok('rm /etc/libvirt/hooks/qemu.d/10-mine.bak');
  });

  test("the charm guide's new_id: the script, and every device that it took", async () => {
    await vm().ok(`set -e
      printf 'echo 0x1234 0x11e8 > /sys/bus/pci/drivers/vfio-pci/new_id\\n' > /etc/rc.local
      modprobe vfio-pci; echo 1234 11e8 > /sys/bus/pci/drivers/vfio-pci/new_id`);
    const d = await doctor(vm());
    expect(d.findings.filter((f) => f.id === 'bound-by-id').map((f) => f.object)).toEqual(
      expect.arrayContaining(['0000:24:00.0', '0000:26:01.0', '0000:96:00.0']),
    );
    expect(d.findings.find((f) => f.id === 'new-id-script')?.object).toBe('/etc/rc.local:1');
    // The line it gives takes the id away again.
    await vm().ok(d.findings.find((f) => f.id === 'bound-by-id')?.fix[0]?.line ?? 'false');
    for (const a of ['0000:24:00.0', '0000:26:01.0', '0000:96:00.0'])
      await vm().ok(`echo ${a} > /sys/bus/pci/drivers/vfio-pci/unbind`);
    await vm().ok('rm /etc/rc.local');
    expect(ids(await doctor(vm()))).not.toContain('bound-by-id');
  });

  test('allow_unsafe_interrupts where nothing needs it; an override that nobody owns', async () => {
    await vm().ok(
      'modprobe vfio_iommu_type1; echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts',
    );
    await vm().ok('echo vfio-pci > /sys/bus/pci/devices/0000:23:00.0/driver_override');
    const d = await doctor(vm());
    expect(ids(d)).toEqual(expect.arrayContaining(['unsafe-interrupts-needless', 'override-leftover']));
    expect(d.findings.find((f) => f.id === 'override-leftover')?.object).toBe('0000:23:00.0');
    await vm().ok('echo > /sys/bus/pci/devices/0000:23:00.0/driver_override');
    await vm().ok('echo N > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts');
  });
});

describe('a virtio-iommu', () => {
  const vm = useMachine('virtio');
  install(vm);

  test('the cause is the interrupts, which it does not remap', async () => {
    const w = await why(vm(), '0000:23:00.0');
    expect(w.exit).toBe(3);
    expect(blocking(w)).toEqual(['interrupt-remapping interrupt remapping']);
    const d = await doctor(vm());
    expect(errors(d)).toEqual(['interrupt-remapping']);
    expect(d.exit).toBe(3);
    expect(d.findings[0]?.cause).toContain('virtio-iommu');
  });

  test('a device without a driver has no group yet', async () => {
    expect(reasons(await why(vm(), '0000:24:00.0'))).toContain('group-at-probe 0000:24:00.0');
  });

  test('told to do without, it works, and the risk is said', async () => {
    await vm().ok(
      'modprobe vfio_iommu_type1; echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts',
    );
    const w = await why(vm(), '0000:23:00.0');
    expect(w.exit).toBe(0);
    expect(reasons(w)).toContain('unsafe-interrupts interrupt remapping');
    const d = await doctor(vm());
    expect(d.exit).toBe(0);
    expect(ids(d)).toContain('unsafe-interrupts');
  });
});

describe('no IOMMU', () => {
  const vm = useMachine('none');
  install(vm);

  test('the cause is the firmware, which shows none', async () => {
    const w = await why(vm(), '0000:23:00.0');
    expect(w).toMatchObject({ exit: 3, iommu_group: null });
    expect(blocking(w)).toEqual(['iommu-off IOMMU']);
    expect(w.causes[0]?.cause).toContain('no DMAR, IVRS, IORT or VIOT');
    const d = await doctor(vm());
    expect(errors(d)).toEqual(['iommu-firmware']);
    expect(d.exit).toBe(3);
    expect(d.findings[0]?.fix[0]?.line).toContain('VT-d');
  });
});

describe('a root port without ACS above a switch', () => {
  const PORT = '0000:00:07.0';
  const vm = useMachine('intel', {
    name: 'no-acs',
    extraQemuArgs: [
      'ioh3420,id=na,bus=pcie.0,addr=7,chassis=90',
      'x3130-upstream,id=naup,bus=na',
      'xio3130-downstream,id=na0,bus=naup,chassis=91',
      'xio3130-downstream,id=na1,bus=naup,chassis=92',
      'e1000e,bus=na0,romfile=',
      'e1000e,bus=na1,romfile=',
    ].flatMap((d) => ['-device', d]),
  });
  install(vm);

  test('the port is named, and the NIC beside that blocks', async () => {
    const nics = (
      await vm().ok(
        `cd /sys/bus/pci/devices/${PORT}/iommu_group/devices; for d in *; do [ "$(cat $d/class)" = 0x020000 ] && echo $d; done`,
      )
    ).split('\n');
    expect(nics).toHaveLength(2);
    const [first = '', second = ''] = nics;
    const w = await why(vm(), first);
    expect(w.exit).toBe(3);
    expect(blocking(w)).toEqual([`peer-driver ${second}`]);
    expect(reasons(w)).toContain(`port-acs ${PORT}`);
    expect(reasons(w).filter((r) => r.startsWith('join-'))).toEqual([]);
    const cause = w.causes.find((c) => c.object === PORT)?.cause;
    expect(cause).toContain(`root port ${PORT} has no ACS capability`);
    expect(cause).toContain(second);
    expect(errors(await doctor(vm()))).toEqual([]);
    await vm().ok(`hostdev bind ${second}`);
    expect(await why(vm(), first)).toMatchObject({ exit: 0, assignable: true });
  });
});
