/**
 * The guards on a real kernel: each is refused by its name, lifted by its own allowance and by no other. What would end
 * the machine is asked for with -n, whose exit code is the real run's. The stacks are built on scratch disks: md by its
 * sysfs files (drivers/md/md.c), because the image has no mdadm.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { GUARDS, type Guard, isAllowable, type Refusal } from '../../src/binding/guards.ts';
import { ALLOWABLE_GUARDS } from '../../src/config/allowable.ts';
import { createVfs, domainXml, driverOf, installHostdev } from './guest.ts';
import { skipped, useMachine } from './suite.ts';

/** A display with the firmware's frame buffer on it: mode 0x317 is 1024x768, and vesafb takes it. */
const vm = useMachine('intel', { append: 'vga=791', extraQemuArgs: ['-device', 'VGA,bus=pcie.0,addr=7'] });

const ROOT_DISK = '0000:00:03.0';
const DISPLAY = '0000:00:07.0';
const NVME = '0000:93:00.0';
const NIC = '0000:23:00.0';
const PF = '0000:21:00.0';
const BRIDGE = '0000:25:00.0';
const EDU = '0000:24:00.0';
const OTHERS = (guard: Guard): Guard[] => (Object.keys(GUARDS) as Guard[]).filter((g) => g !== guard && isAllowable(g));

type Answer = { code: number; refusals: Refusal[]; guards: Guard[]; text: string };

/** `hostdev <verb> -n -j` with these allowances. */
async function ask(words: string, allow: readonly Guard[] = []): Promise<Answer> {
  const r = await vm().sh(`hostdev -n -j ${allow.map((g) => `--allow=${g}`).join(' ')} ${words}`);
  const answer = JSON.parse(r.stdout) as { plan?: { refusals: Refusal[] }; error?: { message: string; hint: string } };
  const refusals = answer.plan?.refusals ?? [];
  const text = `${answer.error?.message ?? ''} ${answer.error?.hint ?? ''}`;
  return { code: r.code, refusals, guards: [...new Set(refusals.map((f) => f.guard))], text };
}

/** Refused by `guard` with a reason; all other allowances together lift everything but this; its own alone lifts it. */
async function expectGuard(address: string, guard: Guard, reason: RegExp, words = `bind ${address}`): Promise<void> {
  const plain = await ask(words);
  expect(plain.code, plain.text).toBe(5);
  expect(plain.refusals).toContainEqual({ guard, address, reason: expect.stringMatching(reason) });
  const others = await ask(words, OTHERS(guard));
  expect([others.code, others.guards], others.text).toEqual([5, [guard]]);
  const own = await ask(words, [guard]);
  expect(own.guards).not.toContain(guard);
  if (plain.guards.length === 1) expect(own.code, own.text).toBe(0);
}

const free = async (address: string): Promise<void> => {
  const r = await ask(`bind ${address}`);
  expect([r.code, r.refusals]).toEqual([0, []]);
};

/** Runs a command in the background of the machine until `release()` ends it. */
async function background(command: string): Promise<() => Promise<void>> {
  const pid = await vm().ok(`setsid ${command} > /dev/null 2>&1 & echo $!`);
  await vm().ok('sleep 1');
  return async () => {
    await vm().ok(`kill -- -${pid} 2>/dev/null; while kill -0 ${pid} 2>/dev/null; do sleep 0.1; done`);
  };
}

/** The disk of the scratch NVMe drive and the interface of the scratch NIC, as this boot named them. */
let disk = '';
let eth = '';

beforeAll(async () => {
  if (skipped) return;
  await installHostdev(vm());
  disk = await vm().ok(
    `cd /sys/bus/pci/devices/${NVME}/nvme/nvme*; for n in nvme*n*; do echo $n; done | sed 's/c[0-9]*//' | head -1`,
  );
  eth = await vm().ok(`ls /sys/bus/pci/devices/${NIC}/net`);
  await vm().ok('modprobe -a dm_mod raid1 loop bridge bonding macvtap 8021q dummy');
});

describe('disk', () => {
  test('the root disk', () => expectGuard(ROOT_DISK, 'disk', /^vda is mounted on \//));

  test('nothing on it: free', () => free(NVME));

  test('through dm on md: mounted, as root of a system in a chroot, only built, gone', async () => {
    await vm().ok(`set -e
      echo md127 > /sys/module/md_mod/parameters/new_array
      cd /sys/block/md127/md
      echo none > metadata_version
      echo raid1 > level
      echo 1 > raid_disks
      cat /sys/class/block/${disk}/dev > new_dev
      kib=$(($(cat /sys/class/block/${disk}/size) / 2))
      echo $kib > dev-${disk}/size
      echo $kib > component_size
      echo 0 > dev-${disk}/slot
      echo none > resync_start
      echo active > array_state
      dmsetup create scratch --table "0 $(cat /sys/block/md127/size) linear /dev/md127 0"
      mkfs.ext4 -q /dev/mapper/scratch
      mkdir -p /srv/scratch && mount /dev/mapper/scratch /srv/scratch`);
    await expectGuard(NVME, 'disk', /^dm-\d+ \(scratch\) is mounted on \/srv\/scratch$/);
    const { refusals } = await ask(`bind ${NVME}`);
    expect(refusals.map((r) => r.reason)).toContain(`md127 is built on ${disk}`);
    await vm().ok(`cd /srv/scratch && mkdir usr etc proc sys dev run var
      for d in usr etc proc sys dev run var; do mount --bind /$d $d; done
      ln -s usr/bin usr/sbin usr/lib usr/lib64 .`);
    const rooted = await vm().sh(`chroot /srv/scratch hostdev -n bind ${NVME}`);
    expect(rooted.code).toBe(5);
    expect(rooted.stderr).toMatch(/dm-\d+ \(scratch\) is mounted on \//);
    await vm().ok('umount -R /srv/scratch');
    await expectGuard(NVME, 'disk', /is built on/);
    await vm().ok('dmsetup remove scratch');
    await expectGuard(NVME, 'disk', /^md127 is built on/);
    await vm().ok('echo clear > /sys/block/md127/md/array_state; udevadm settle');
    await free(NVME);
  });

  test('swap, on the disk and in a file', async () => {
    await vm().ok(`mkswap -q /dev/${disk} && swapon /dev/${disk}`);
    await expectGuard(NVME, 'disk', new RegExp(`^${disk} is swap$`));
    await vm().ok(`swapoff /dev/${disk} && mkfs.ext4 -qF /dev/${disk} && mount /dev/${disk} /srv/scratch
      dd if=/dev/zero of=/srv/scratch/swap bs=1M count=8 status=none && chmod 600 /srv/scratch/swap
      mkswap -q /srv/scratch/swap && swapon /srv/scratch/swap`);
    await expectGuard(NVME, 'disk', /^the swap file \/srv\/scratch\/swap lies on /);
    await vm().ok('swapoff /srv/scratch/swap');
  });

  test('a loop device in a file on it, and one over the disk itself', async () => {
    const loop = await vm().ok(`truncate -s 32M /srv/scratch/img && mkfs.ext4 -q /srv/scratch/img
      l=$(losetup -f --show /srv/scratch/img) && mkdir -p /srv/loop && mount $l /srv/loop && basename $l`);
    const { refusals } = await ask(`bind ${NVME}`);
    expect(refusals.map((r) => r.reason)).toContain(`${loop} is mounted on /srv/loop`);
    await vm().ok(`umount /srv/loop && losetup -d /dev/${loop} && umount /srv/scratch`);
    await free(NVME);
    const over = await vm().ok(`basename $(losetup -f --show /dev/${disk})`);
    await expectGuard(NVME, 'disk', new RegExp(`^${over} is built on ${disk}$`));
    await vm().ok(`losetup -d /dev/${over}`);
  });

  test('mounted in a mount namespace that we do not see: told by the exclusive claim', async () => {
    const release = await background(
      `unshare --mount --propagation private sh -c 'mount /dev/${disk} /srv/scratch && exec sleep 1000'`,
    );
    await expectGuard(NVME, 'disk', new RegExp(`^${disk} is claimed`));
    await release();
    await free(NVME);
  });

  test('unbind --to-host takes an override off the root disk, whose driver stays: nothing is asked where nothing moves', async () => {
    const override = `/sys/bus/pci/devices/${ROOT_DISK}/driver_override`;
    await vm().ok(`echo virtio-pci > ${override}`);
    const { code, refusals } = await ask(`unbind --to-host ${ROOT_DISK}`);
    expect([code, refusals]).toEqual([0, []]);
    await vm().ok(`hostdev unbind --to-host ${ROOT_DISK}`);
    expect(await vm().ok(`cat ${override}`)).toBe('(null)');
    expect(await driverOf(vm(), ROOT_DISK)).toBe('virtio-pci');
  });

  test("the hook: managed='yes' refuses the root disk and warns of another", async () => {
    const hookTest = async (address: string, managed: boolean) => {
      await vm().write('/tmp/d.xml', domainXml({ name: 'd', hostdevs: [{ address, managed }] }));
      return vm().sh('hostdev hook test /tmp/d.xml');
    };
    const root = await hookTest(ROOT_DISK, true);
    expect([root.code, root.stderr]).toEqual([5, expect.stringMatching(/vda is mounted on \//)]);
    await vm().ok(`mount /dev/${disk} /srv/scratch`);
    const other = await hookTest(NVME, true);
    expect([other.code, other.stderr]).toEqual([0, expect.stringContaining(`${disk} is mounted on /srv/scratch`)]);
    expect((await hookTest(NVME, false)).code).toBe(5);
    await vm().ok('umount /srv/scratch');
  });
});

describe('network', () => {
  const clean = () =>
    vm().ok(
      `ip -4 addr flush dev ${eth}; ip -6 route flush default dev ${eth}; ip link set ${eth} nomaster up; sleep 2`,
    );

  test('only link-local: free; the way in: an address', async () => {
    await clean();
    await vm().ok(`ip addr add 169.254.7.7/16 dev ${eth}`);
    await free(NIC);
    // QEMU's user network advertises an IPv6 router, when it comes to it.
    await expectGuard('0000:00:02.0', 'network', /^eth0 has (the default route|the address 10\.0\.2\.15)$/);
  });

  test('the default route, IPv4 and IPv6; an address', async () => {
    await clean();
    await vm().ok(`ip addr add 192.0.2.1/24 dev ${eth}`);
    await expectGuard(NIC, 'network', new RegExp(`^${eth} has the address 192\\.0\\.2\\.1$`));
    await vm().ok(`ip route add default via 192.0.2.2 dev ${eth}`);
    await expectGuard(NIC, 'network', new RegExp(`^${eth} has the default route$`));
    await clean();
    await free(NIC);
    await vm().ok(`ip -6 route add default dev ${eth} metric 77`);
    await expectGuard(NIC, 'network', new RegExp(`^${eth} has the default route$`));
    await clean();
    await vm().ok(`ip addr add 2001:db8::7/64 dev ${eth}`);
    await expectGuard(NIC, 'network', /has the address 2001:0db8:/);
    await vm().ok(`ip addr del 2001:db8::7/64 dev ${eth}`);
  });

  test('an address that has no route of its own', async () => {
    await clean();
    await vm().ok(`ip addr add 192.0.2.1/32 dev ${eth}`);
    await expectGuard(NIC, 'network', /has the address 192\.0\.2\.1$/);
    await clean();
  });

  test('below a bridge that has the default route', async () => {
    await clean();
    await vm().ok(`ip link add br7 type bridge && ip link set ${eth} master br7 && ip link set br7 up
      ip addr add 198.51.100.1/24 dev br7 && ip route add default via 198.51.100.2 dev br7`);
    await expectGuard(NIC, 'network', new RegExp(`^${eth} is part of br7, which has the default route$`));
    await vm().ok('ip link del br7');
    await free(NIC);
  });

  test.each([
    ['a VLAN', (e: string) => `ip link add link ${e} name vl7 type vlan id 7`, /is below vl7$/, 'ip link del vl7'],
    ['macvtap', (e: string) => `ip link add link ${e} name mv7 type macvtap`, /is below mv7$/, 'ip link del mv7'],
    [
      'a bond',
      (e: string) => `ip link add bo7 type bond && ip link set ${e} down && ip link set ${e} master bo7`,
      /is part of bo7$/,
      'ip link del bo7',
    ],
  ])('below %s', async (_what, make, reason, unmake) => {
    await clean();
    await vm().ok(make(eth));
    await expectGuard(NIC, 'network', reason);
    await vm().ok(unmake);
    await free(NIC);
  });

  test('given to another network namespace', async () => {
    await clean();
    await vm().ok(`ip netns add far && ip link set ${eth} netns far`);
    await expectGuard(NIC, 'network', /another network namespace/);
    await vm().ok(`ip netns exec far ip link set ${eth} netns 1; ip netns del far; udevadm settle`);
    await free(NIC);
  });
});

test('the boot display: the firmware has its frame buffer on it and a console draws', async () => {
  expect(await vm().ok(`cat /sys/bus/pci/devices/${DISPLAY}/boot_vga`)).toBe('1');
  await expectGuard(DISPLAY, 'display', /frame buffer|draws the console/);
});

describe('held by a process', () => {
  test('the drive, by its controller and by its disk', async () => {
    for (const node of [disk, disk.replace(/n\d+$/, ''), disk.replace('nvme', 'ng')]) {
      const release = await background(`sh -c 'exec sleep 1000 < /dev/${node}'`);
      await expectGuard(NVME, 'in-use', new RegExp(`^process \\d+ \\(sleep\\) has /dev/${node} open$`));
      await release();
    }
    await free(NVME);
  });

  test('VFIO: unbind names the process, and with the allowance it asks the kernel', async () => {
    await vm().ok(`hostdev bind ${EDU}`);
    const group = await vm().ok(`basename $(readlink /sys/bus/pci/devices/${EDU}/iommu_group)`);
    const release = await background(`sh -c 'exec sleep 1000 < /dev/vfio/${group}'`);
    await expectGuard(EDU, 'in-use', new RegExp(`\\(sleep\\) has /dev/vfio/${group} open$`), `unbind ${EDU}`);
    expect((await vm().sh(`hostdev unbind ${EDU}`)).code).toBe(5);
    expect(await driverOf(vm(), EDU)).toBe('vfio-pci');
    // Only the group is open, which the kernel does not wait for.
    await vm().ok(`hostdev unbind --allow=in-use ${EDU}`);
    expect(await driverOf(vm(), EDU)).toBeNull();
    await release();
  });
});

test('a PF with VFs: idle ones are lifted by --allow=vfs, one in use by nothing', async () => {
  const [vf = ''] = await createVfs(vm(), PF, 2);
  await expectGuard(PF, 'vfs', /^it has 2 VFs/);
  await vm().ok(
    `ip addr add 203.0.113.1/24 dev $(ls /sys/bus/pci/devices/${vf}/net) && ip link set $(ls /sys/bus/pci/devices/${vf}/net) up; sleep 2`,
  );
  const all = await ask(`bind ${PF}`, [...ALLOWABLE_GUARDS]);
  expect([all.code, all.refusals]).toEqual([
    5,
    [{ guard: 'vfs', address: PF, reason: expect.stringContaining(`${vf}: `) }],
  ]);
  await vm().ok(`echo 0 > /sys/bus/pci/devices/${PF}/sriov_numvfs`);
  await free(PF);
});

test('a bridge', async () => {
  const reason = expect.stringMatching(/^it is a bridge \(class 0604/);
  const refused = await ask(`bind ${BRIDGE}`, OTHERS('bridge'));
  expect([refused.code, refused.refusals]).toEqual([5, [{ guard: 'bridge', address: BRIDGE, reason }]]);
  expect((await ask(`bind ${BRIDGE}`, ['bridge'])).code).toBe(2);
});

describe('carried out with the allowance', () => {
  const there = async (address: string, guard: Guard) => {
    expect((await vm().sh(`hostdev bind ${address}`)).code).toBe(5);
    await vm().ok(`hostdev bind --allow=${guard} ${address}`);
    expect(await driverOf(vm(), address)).toMatch(/vfio/);
    await vm().ok(`hostdev unbind ${address}`);
  };

  test('a NIC with an address', async () => {
    await vm().ok(`ip addr add 192.0.2.1/24 dev ${eth} && ip link set ${eth} up`);
    await there(NIC, 'network');
    expect(await driverOf(vm(), NIC)).toBe('e1000e');
  });

  test('a drive whose controller a process holds', async () => {
    const release = await background(`sh -c 'exec sleep 1000 < /dev/${disk.replace(/n\d+$/, '')}'`);
    await there(NVME, 'in-use');
    await release();
    expect(await driverOf(vm(), NVME)).toBe('nvme');
  });

  test('the display', async () => {
    await there(DISPLAY, 'display');
    expect(await driverOf(vm(), DISPLAY)).toBeNull();
  });
});

test('what was refused was left alone, and what is free is bound and given back', async () => {
  for (const [address, driver] of [
    [ROOT_DISK, 'virtio-pci'],
    [PF, 'igb'],
    [BRIDGE, 'shpchp'],
  ] as const)
    expect(await driverOf(vm(), address)).toBe(driver);
  await vm().ok(`hostdev bind ${NVME} ${NIC}`);
  expect(await driverOf(vm(), NIC)).toBe('vfio-pci');
  await vm().ok(`hostdev unbind ${NVME} ${NIC}`);
  expect([await driverOf(vm(), NVME), await driverOf(vm(), NIC)]).toEqual(['nvme', 'e1000e']);
});
