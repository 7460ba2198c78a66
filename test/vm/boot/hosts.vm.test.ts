/**
 * One host through what its initramfs meets: four ways to VFIO side by side, the charm guide's recipe (seed 002) taken
 * over and cleaned as told, and the default route moved to a wished NIC with the power going at the worst moments.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { EVER } from '../../patience.ts';
import { installDeb } from '../guest.ts';
import { skipped } from '../suite.ts';
import { allMet, drivers, useBed } from './suite.ts';

const bed = useBed('intel');
const ok = (line: string): Promise<string> => bed().vm.ok(line, { timeoutMs: EVER });

const PROBES = 'log_buf_len=16M "dyndbg=file drivers/base/dd.c +p"';
const NIC = '0000:23:00.0';
const IGB = '0000:92:00.0';
const TWIN = '0000:21:00.0';
const PATHS = { ours: NIC, driverctl: IGB, 'rc.local': '0000:26:02.0', 'softdep + ids=': '0000:93:00.0' };
const DRIVERCTL = process.env.HOSTDEV_VM_DRIVERCTL;

/** When vfio-pci had each device, in seconds after the kernel's start; null where it had not. */
async function times(): Promise<Record<string, number | null>> {
  const log = await ok("dmesg | grep -F 'bound to device' | grep -F vfio-pci || :");
  return Object.fromEntries(
    Object.entries(PATHS).map(([way, address]) => {
      const at = log.split('\n').find((l) => l.includes(address));
      return [way, at === undefined ? null : Number(/^\[\s*([\d.]+)\]/.exec(at)?.[1])];
    }),
  );
}

const IMAGE = '/boot/initrd.img-$(uname -r)';

beforeAll(async () => {
  if (!skipped) await ok(`cp ${IMAGE} /root/without-us; sync`);
});

describe('when is the device on vfio-pci', () => {
  beforeAll(async () => {
    if (skipped) return;
    const { vm } = bed();
    if (DRIVERCTL !== undefined) {
      await installDeb(vm, DRIVERCTL).catch(() => ok('dpkg --force-depends --configure driverctl'));
      await vm.write(`/etc/driverctl.d/pci-${IGB}`, 'vfio-pci\n');
    }
    await vm.write(
      '/etc/rc.local',
      `#!/bin/sh
modprobe vfio-pci
for d in 0000:26:01.0 0000:26:02.0; do
    echo vfio-pci > /sys/bus/pci/devices/$d/driver_override
    [ -e /sys/bus/pci/devices/$d/driver ] && echo $d > /sys/bus/pci/devices/$d/driver/unbind
    echo $d > /sys/bus/pci/drivers_probe
done
`,
      '755',
    );
    await vm.write('/etc/modprobe.d/vfio.conf', 'softdep nvme pre: vfio-pci\noptions vfio-pci ids=1b36:0010\n');
    await ok(`set -e; hostdev bind ${NIC} --persist; echo vfio-pci >> /etc/initramfs-tools/modules`);
    process.stderr.write(`${await ok('hostdev boot install')}\n`);
  });

  test('ours is the first, in the same boot and where only the others are at work', async () => {
    await bed().reboot({ words: PROBES });
    await allMet(bed());
    const all = await times();
    process.stderr.write(`all four: ${JSON.stringify(all)}\n`);
    const others = Object.entries(all).flatMap(([way, at]) => (way === 'ours' || at === null ? [] : [at]));
    expect(others.length).toBeGreaterThan(1);
    for (const at of others) expect(all.ours).toBeLessThan(at);
    await bed().reboot({ words: `hostdev.off=1 ${PROBES}` });
    const without = await times();
    process.stderr.write(`without ours: ${JSON.stringify(without)}\n`);
    expect(without.ours).toBeNull();
    for (const at of Object.values(without)) if (at !== null) expect(all.ours).toBeLessThan(at);
    await ok(`rm -f /etc/rc.local /etc/modprobe.d/vfio.conf /etc/driverctl.d/pci-${IGB}
      sed -i '/^vfio-pci$/d' /etc/initramfs-tools/modules; sync`);
  });
});

describe('the charm guide’s recipe', () => {
  test('it takes the twin; imported and cleaned as told, the same device is on VFIO and the twin is the host’s', async () => {
    const { vm } = bed();
    await ok(`echo 'pci_stub ids=8086:10c9' >> /etc/initramfs-tools/modules
      printf 'pci_stub\\nvfio\\nvfio_iommu_type1\\nvfio_pci\\n' >> /etc/modules`);
    await vm.write(
      '/etc/rc.local',
      `#!/bin/bash
vfiobind() {
    dev="$1"
    vendor=$(cat /sys/bus/pci/devices/$dev/vendor)
    device=$(cat /sys/bus/pci/devices/$dev/device)
    if [ -e /sys/bus/pci/devices/$dev/driver ]; then
            echo $dev > /sys/bus/pci/devices/$dev/driver/unbind
    fi
    echo $vendor $device > /sys/bus/pci/drivers/vfio-pci/new_id
}
vfiobind ${IGB}
`,
      '755',
    );
    await ok('update-initramfs -u 2>&1; sync');
    await bed().reboot({ words: 'vfio_iommu_type1.allow_unsafe_interrupts=1 modprobe.blacklist=igb' });
    const before = await drivers(bed(), [IGB, TWIN]);
    process.stderr.write(`the recipe: ${JSON.stringify(before)}\n`);
    expect(before[IGB]).toBe('vfio-pci');
    expect(before[TWIN]).not.toBe('igb');
    const told = await ok('hostdev import rc.local --write; hostdev import modprobe.d || :');
    process.stderr.write(`${told}\n`);
    expect(told).toContain(IGB);
    const { findings } = JSON.parse(await ok('hostdev doctor -j || :')) as { findings: { id: string }[] };
    expect(findings.map((f) => f.id)).toEqual(expect.arrayContaining(['new-id-script', 'ids-option']));
    // The guide's second step.
    await ok(`rm /etc/rc.local; sed -i '/pci_stub/d' /etc/initramfs-tools/modules /etc/modules`);
    process.stderr.write(`${await ok('hostdev boot install')}\n`);
    await bed().reboot({ words: '' });
    const wishes = await allMet(bed());
    expect(wishes.map((w) => [w.address, w.met, w.stage])).toEqual(expect.arrayContaining([[IGB, true, 'early']]));
    expect(await drivers(bed(), [IGB, TWIN])).toEqual({ [IGB]: 'vfio-pci', [TWIN]: 'igb' });
    const left = JSON.parse(await ok('hostdev doctor -j || :')) as { findings: { id: string }[] };
    expect(left.findings.filter((f) => ['new-id-script', 'ids-option', 'bound-by-id'].includes(f.id))).toEqual([]);
  });
});

describe('the default route moves to a wished NIC', () => {
  /** From now on, and at every boot, the default route is the NIC's where its interface is there. */
  const MOVE = `n=$(ls /sys/bus/pci/devices/${NIC}/net) && ip link set $n up && ip route replace default via 10.0.2.2 dev $n onlink`;
  const REFRESHED = 'The table of the initramfs was refreshed';
  const reachable = async (): Promise<void> => {
    await ok(`for i in $(seq 60); do ip route show default | grep -q "dev $(ls /sys/bus/pci/devices/${NIC}/net)" && exit; sleep 1; done
      ip route; exit 1`);
    expect((await drivers(bed(), [NIC]))[NIC]).toBe('e1000e');
  };

  test('what the initramfs bound is given back by a plain unbind', async () => {
    const { bindings } = JSON.parse(await ok('hostdev status -j || :')) as { bindings: { address: string }[] };
    expect(bindings.map((b) => b.address)).toEqual(expect.arrayContaining([NIC, IGB]));
    await ok(`hostdev unbind ${NIC}`);
    expect((await drivers(bed(), [NIC]))[NIC]).toBe('e1000e');
  });

  test('a hard reset before the table is refreshed: hostdev.off=1 brings the host back, and then it is refreshed', async () => {
    await ok(`sed -i 's#^exit 0#{ ${MOVE.replaceAll('&', '\\&')}; } 2>/dev/null\\n&#' /usr/local/sbin/vm-net
      systemctl stop hostdev-boot-guard.path hostdev-boot-guard.timer; ${MOVE}; sync`);
    expect(await ok('hostdev status || :')).toContain(`${NIC} is to be bound by the initramfs at the next boot`);
    await bed().powerCut();
    await bed().bootSettled({ words: 'hostdev.off=1' });
    await reachable();
    await ok(`until journalctl -b | grep -qF '${REFRESHED}'; do sleep 2; done; sync`);
    process.stderr.write(`${await ok("journalctl -b | grep -F 'initramfs'")}\n`);
  });

  test('a hard reset after the log said that it was: reachable', async () => {
    await bed().powerCut();
    await bed().bootSettled({ words: '' });
    await reachable();
    expect((await drivers(bed(), [IGB]))[IGB]).toBe('vfio-pci');
  });

  test('a clean reboot at once: reachable', async () => {
    // The NIC is in the table again.
    await ok(
      `ip link set $(ls /sys/bus/pci/devices/${NIC}/net) down; ip route replace default via 10.0.2.2; systemctl stop hostdev-boot-guard.path hostdev-boot-guard.timer; hostdev boot refresh`,
    );
    expect(await ok('cat /var/lib/hostdev/boot.table')).toContain(NIC);
    await ok(MOVE);
    await bed().reboot();
    await reachable();
    expect(await ok('cat /var/lib/hostdev/boot.table')).not.toContain(NIC);
  });
});

describe('whatever is in the initramfs, the boot goes on', () => {
  beforeAll(async () => {
    if (skipped) return;
    await ok(`hostdev bind ${IGB} --persist; hostdev boot install && cp ${IMAGE} /root/with-us; sync`);
  });

  test.each([
    ['cut short', 'head -c 100 /var/lib/hostdev/boot.table'],
    ['foreign', 'head -c 3000 /dev/urandom'],
    ['empty', ':'],
    ['of another version', "sed '1s/1$/99/' /var/lib/hostdev/boot.table"],
  ])('a table that is %s: told, and the real root does it', async (_, write) => {
    // The kernel takes what a later archive brings in place of what an earlier one had.
    await ok(`rm -rf /root/later && mkdir -p /root/later/var/lib/hostdev && cd /root/later
      { ${write}; } > var/lib/hostdev/boot.table
      find . | cpio -o -H newc 2> /dev/null > /root/later.cpio
      cp /root/with-us ${IMAGE}; truncate -s %4 ${IMAGE}; cat /root/later.cpio >> ${IMAGE}; sync`);
    await bed().reboot({ words: '' });
    const { early } = JSON.parse(await ok('cat /run/hostdev/boot.json')) as { early: { problem: string | null } };
    process.stderr.write(`${early.problem}\n${await ok('dmesg | grep -F hostdev: || :')}\n`);
    expect(early.problem).not.toBeNull();
    expect(await ok('dmesg | grep -F hostdev:')).toContain(early.problem);
    expect((await allMet(bed())).filter((w) => w.address === IGB).map((w) => [w.met, w.stage])).toEqual([
      [true, 'apply'],
    ]);
    expect(await ok('hostdev doctor -j || :')).toContain('"initramfs-failed"');
  });

  test('an initramfs without us: the real root does it, and doctor says which image', async () => {
    await ok(`cp /root/without-us ${IMAGE}; sync`);
    // On a clean way down it is made anew.
    await bed().powerCut();
    await bed().bootSettled({ words: '' });
    expect((await allMet(bed())).filter((w) => w.address === IGB).map((w) => [w.met, w.stage])).toEqual([
      [true, 'apply'],
    ]);
    expect(await ok('hostdev doctor -j || :')).toContain('"initramfs-other"');
  });
});
