/**
 * What this host stands on is given to no guest, on a real kernel and a real libvirt: through every layer, for
 * managed='yes' too, in virsh's own error. What comes over the network comes from a namespace of this machine, whose
 * NIC is wired to the other one (topology.ts).
 */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { defineDomain, driverOf, installHostdev, virsh } from './guest.ts';
import { skipped, useMachine } from './suite.ts';

const vm = useMachine('intel');

const NVME = '0000:93:00.0';
const NVME2 = '0000:22:00.0';
const NIC = '0000:23:00.0';
const PEER = '0000:91:00.0';

/** The interface of the NIC and the disks of the drives, as this boot named them. */
let nic = '';
let disk = '';
let disk2 = '';

const diskOf = (address: string) =>
  vm().ok(`cd /sys/bus/pci/devices/${address}/nvme/nvme* && ls -d nvme*n* | sed 's/c[0-9]*n/n/' | head -1`);

/**
 * virsh start of a guest that lists a device fails by the hook's own sentence, with managed='yes' and with 'no', and
 * nothing was moved.
 */
async function refused(address: string, reason: RegExp): Promise<void> {
  const driver = await driverOf(vm(), address);
  for (const managed of [true, false]) {
    await defineDomain(vm(), { name: 'g', hostdevs: [{ address, managed }] });
    const r = await virsh(vm(), ['start', 'g'], { timeoutMs: 150_000 });
    if (r.code === 0) await virsh(vm(), ['destroy', 'g'], { timeoutMs: 120_000 });
    await vm().ok('virsh undefine g');
    expect([r.code, r.stderr], `managed='${managed ? 'yes' : 'no'}'`).toEqual([1, expect.stringMatching(reason)]);
    expect(r.stderr).toContain(address);
    expect(await driverOf(vm(), address)).toBe(driver);
  }
}

beforeAll(async () => {
  if (skipped) return;
  await installHostdev(vm());
  await vm().sh('hostdev hook install');
  await vm().ok(
    "sed -i 's/^start_deadline=.*/start_deadline=60/; s/^prepare_deadline=.*/prepare_deadline=120/; s/^other_deadline=.*/other_deadline=30/' /etc/libvirt/hooks/hostdev.conf && systemctl restart libvirtd",
  );
  nic = await vm().ok(`ls /sys/bus/pci/devices/${NIC}/net`);
  disk = await diskOf(NVME);
  disk2 = await diskOf(NVME2);
});

beforeEach(async () => {
  if (!skipped) await vm().ok(`for d in ${disk} ${disk2}; do wipefs -qa /dev/$d; done; udevadm settle`);
});

describe('disks', () => {
  test('btrfs over two drives, mounted on /boot: each of them', async () => {
    await vm().ok(`mkfs.btrfs -qf -m raid1 -d raid1 /dev/${disk} /dev/${disk2} && mount /dev/${disk} /boot`);
    await refused(NVME, /\/boot/);
    await refused(NVME2, /\/boot/);
    await vm().ok('umount /boot');
  });

  test('swap on LVM', async () => {
    await vm().ok(`pvcreate -qqy /dev/${disk} && vgcreate -qq scratch /dev/${disk} && lvcreate -qqy -L 64M -n swap scratch
      mkswap -q /dev/scratch/swap && swapon /dev/scratch/swap`);
    await refused(NVME, /swap/);
    await vm().ok(`swapoff /dev/scratch/swap && vgremove -qqy scratch && pvremove -qqy /dev/${disk}`);
  });

  test('/var below bcache', async () => {
    await vm().ok(`modprobe bcache; make-bcache -B /dev/${disk} > /dev/null; udevadm settle
      [ -e /sys/block/bcache0 ] || echo /dev/${disk} > /sys/fs/bcache/register; udevadm settle
      mkfs.ext4 -qF /dev/bcache0 && mkdir -p /var/scratch && mount /dev/bcache0 /var/scratch`);
    await refused(NVME, /bcache0 is mounted on \/var\/scratch/);
    await vm().ok('umount /var/scratch; echo 1 > /sys/block/bcache0/bcache/stop; sleep 2; udevadm settle');
  });

  test('a drive that the kernel serves to others (nvmet)', async () => {
    await vm().ok(`modprobe nvmet; mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
      s=/sys/kernel/config/nvmet/subsystems/scratch; mkdir -p $s/namespaces/1
      echo -n /dev/${disk} > $s/namespaces/1/device_path && echo 1 > $s/namespaces/1/enable`);
    await refused(NVME, /nvmet/);
    await vm().ok(`s=/sys/kernel/config/nvmet/subsystems/scratch; echo 0 > $s/namespaces/1/enable
      rmdir $s/namespaces/1 && rmdir $s`);
  });
});

describe('over the network', () => {
  beforeAll(async () => {
    if (skipped) return;
    await vm().ok(`ip netns add srv && ip link set $(ls /sys/bus/pci/devices/${PEER}/net) netns srv name far0
      ip -n srv addr add 10.9.0.1/24 dev far0 && ip -n srv link set far0 up && ip -n srv link set lo up
      ip addr add 10.9.0.2/24 dev ${nic} && ip link set ${nic} up
      for i in $(seq 60); do ping -c1 -W1 10.9.0.1 > /dev/null 2>&1 && break; busybox ping -c1 -W1 10.9.0.1 > /dev/null 2>&1 && break; sleep 1; done`);
  });

  test('a disk by iSCSI, mounted below /var: the NIC that it comes over', async () => {
    await vm().ok(`truncate -s 64M /root/lun && ip netns exec srv tgtd && sleep 2
      t="ip netns exec srv tgtadm --lld iscsi"
      $t --op new --mode target --tid 1 -T iqn.2026-11.example:scratch
      $t --op new --mode logicalunit --tid 1 --lun 1 -b /root/lun && $t --op bind --mode target --tid 1 -I ALL
      modprobe iscsi_tcp; iscsid
      iscsiadm -m discovery -t sendtargets -p 10.9.0.1 && iscsiadm -m node --login && udevadm settle`);
    const sd = await vm().ok('basename $(ls -d /sys/class/iscsi_session/session*/device/target*/*/block/* | head -1)');
    await vm().ok(`mkfs.ext4 -qF /dev/${sd} && mkdir -p /var/scratch && mount /dev/${sd} /var/scratch`);
    await refused(
      NIC,
      new RegExp(`${nic} is the way to 10\\.9\\.0\\.1, where a disk .*${sd} is mounted on /var/scratch`),
    );
    await vm().ok('umount /var/scratch && iscsiadm -m node --logout; pkill tgtd; pkill iscsid; :');
  });

  test('a folder by NFS, mounted below /var: the NIC that it comes over', async () => {
    await vm().ok(
      `mkdir -p /srv/nfs /var/scratch && cat > /root/serve << 'S'
mount -t nfsd nfsd /proc/fs/nfsd 2>/dev/null
mkdir -p /run/nfs-srv && mount --bind /run/nfs-srv /var/lib/nfs && mkdir -p /var/lib/nfs/v4recovery && touch /var/lib/nfs/etab /var/lib/nfs/rmtab
mount -t tmpfs none /srv/nfs
exportfs -i -o rw,fsid=0,no_root_squash,insecure,no_subtree_check '*:/srv/nfs'
rpc.nfsd -N 3 1 && exec rpc.mountd -N 3 -F
S
      ip netns exec srv setsid sh /root/serve > /root/serve.log 2>&1 &
      sleep 5; timeout 120 mount -t nfs4 10.9.0.1:/ /var/scratch`,
      { timeoutMs: 170_000 },
    );
    await refused(NIC, new RegExp(`${nic} is the way to 10\\.9\\.0\\.1, where /var/scratch`));
    await vm().ok('umount -l /var/scratch');
  });
});
