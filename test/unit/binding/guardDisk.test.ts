/** The disk guard, through every layer. */
import { AT, type Case, DEV, freeOf, mount, NVME, type Row, refused, SWAPS, stacked } from '../../mock/guarded.ts';

const ROWS: Row[] = [
  // Disks.
  [
    'disk',
    'a mounted partition',
    {
      device: NVME,
      block: { nvme0n1: DEV, nvme0n1p1: DEV },
      files: {
        'sys/class/block/nvme0n1p1/dev': '259:1\n',
        'proc/self/mountinfo': mount('259:1', '/srv', '/dev/nvme0n1p1'),
      },
    },
    /^nvme0n1p1 is mounted on \/srv$/,
  ],
  [
    'disk',
    'the root disk by its number, whatever the source says',
    {
      device: NVME,
      block: { sda: DEV, sda1: DEV },
      files: { 'sys/class/block/sda1/dev': '8:1\n', 'proc/self/mountinfo': mount('8:1', '/', '/dev/root') },
    },
    /^sda1 is mounted on \/$/,
    true,
  ],
  [
    'disk',
    'a whole disk mounted at many places',
    {
      device: NVME,
      block: { vda: DEV },
      files: {
        'sys/class/block/vda/dev': '254:0\n',
        'proc/self/mountinfo': ['/a', '/b', '/c', '/d', '/'].map((p) => mount('254:0', p, '/dev/vda')).join(''),
      },
    },
    /^vda is mounted on \/, \/a, \/b and 2 more$/,
    true,
  ],
  [
    'disk',
    'btrfs, whose device number no disk has',
    {
      device: NVME,
      block: { sdb: DEV, sdb2: DEV },
      files: { 'proc/self/mountinfo': mount('0:47', '/home', '/dev/sdb2', 'btrfs') },
    },
    /^sdb2 is mounted on \/home$/,
  ],
  [
    'disk',
    'btrfs on LVM by its mapper name',
    stacked('dm-0', 'holders', {
      'sys/class/block/dm-0/dm/name': 'vg-my--data\n',
      'sys/class/block/dm-0/dm/uuid': 'LVM-abcdef\n',
      'proc/self/mountinfo': mount('0:50', '/', '/dev/mapper/vg-my--data', 'btrfs'),
    }),
    /^dm-0 \(vg-my--data, LVM\) is mounted on \/$/,
    true,
  ],
  [
    'disk',
    'btrfs on LVM by its folder of links',
    stacked('dm-0', 'holders', {
      'sys/class/block/dm-0/dm/name': 'vg-my--data\n',
      'proc/self/mountinfo': mount('0:50', '/x', '/dev/vg/my-data', 'btrfs'),
    }),
    /^dm-0 \(vg-my--data\) is mounted on \/x$/,
  ],
  ['disk', 'dm above it (holders)', stacked('dm-0', 'holders'), /^dm-0 is mounted on \/srv$/],
  ['disk', 'dm above it (slaves only)', stacked('dm-0', 'slaves'), /^dm-0 is mounted on \/srv$/],
  [
    'disk',
    'md above it, not mounted',
    stacked('md127', 'holders', { 'proc/self/mountinfo': '' }),
    /^md127 is built on nvme0n1p3$/,
  ],
  [
    'disk',
    'md above it (slaves only)',
    stacked('md127', 'slaves', { 'proc/self/mountinfo': '' }),
    /^md127 is built on nvme0n1p3$/,
  ],
  [
    'disk',
    'bcache above it',
    stacked('bcache0', 'holders', { 'proc/self/mountinfo': '' }),
    /^bcache0 is built on nvme0n1p3$/,
  ],
  [
    'disk',
    'bcache that is not running yet',
    { device: NVME, block: { sda: DEV }, files: { 'sys/class/block/sda/bcache/state': 'no cache\n' } },
    /^bcache has taken sda$/,
  ],
  [
    'disk',
    'a disk of a btrfs over several, of which mountinfo names another',
    {
      device: NVME,
      block: { sda: DEV, sda2: DEV, sdb: null, sdb2: null },
      files: { 'proc/self/mountinfo': mount('0:47', '/boot', '/dev/sdb2', 'btrfs') },
      links: {
        'sys/fs/btrfs/0a1b2c3d-0000-4000-8000-000000000001/devices/sda2': 'x',
        'sys/fs/btrfs/0a1b2c3d-0000-4000-8000-000000000001/devices/sdb2': 'x',
      },
    },
    /^sda2 is claimed by the btrfs that is mounted on \/boot$/,
    true,
  ],
  ...['/', '/efi', '/boot/efi', '/var/lib/libvirt/images', '/nix/store', '/srv', '/variable'].map(
    (point): Row => [
      'disk',
      `mounted on ${point}`,
      {
        device: NVME,
        block: { sda: DEV },
        files: { 'sys/class/block/sda/dev': '8:0\n', 'proc/self/mountinfo': mount('8:0', point, '/dev/sda') },
      },
      new RegExp(`^sda is mounted on ${point}$`),
      !['/srv', '/variable'].includes(point),
    ],
  ),
  [
    'disk',
    'the folders of an overlay that is the root',
    {
      device: NVME,
      block: { sda: DEV },
      files: {
        'sys/class/block/sda/dev': '8:0\n',
        'proc/self/mountinfo':
          mount('8:0', '/media', '/dev/sda') +
          '30 1 0:30 / / rw - overlay overlay rw,lowerdir=/media/a\\:b:/low,upperdir=/up,workdir=/w\n',
      },
    },
    /^\/ is an overlay that stands on \/media\/a:b, which lies on sda$/m,
    true,
  ],
  [
    'disk',
    'served to others by the kernel',
    {
      device: NVME,
      block: { nvme0n1: DEV },
      files: {
        'sys/kernel/config/nvmet/subsystems/t/namespaces/1/device_path': '/dev/nvme0n1\n',
        'sys/kernel/config/nvmet/subsystems/t/namespaces/1/enable': '1\n',
        'sys/kernel/config/target/core/iblock_0/lun/udev_path': '/dev/nvme0n1\n',
      },
    },
    /(nvmet \(t\)|the iSCSI target \(lun\)) serves nvme0n1 to others$/,
    true,
  ],
  ...['/dev//nvme0n1', '/dev/disk/../nvme0n1', '/dev/mine', '/srv/l', '/dev/dir/nvme-x', '/mnt/lun.img'].map(
    (path): Row => [
      'disk',
      `served to others as ${path}`,
      {
        device: NVME,
        block: { nvme0n1: DEV },
        files: {
          'sys/class/block/nvme0n1/dev': '259:0\n',
          'proc/self/mountinfo': mount('8:0', '/', '/dev/sda') + mount('259:0', '/mnt', '/dev/nvme0n1'),
          'sys/kernel/config/target/core/fileio_0/lun/udev_path': `${path}\n`,
        },
        links: {
          'dev/disk/by-id/nvme-x': '../../nvme0n1',
          'dev/mine': 'disk/by-id/nvme-x',
          'dev/dir': 'disk/by-id',
          'srv/l': '/dev/nvme0n1',
        },
      },
      /^the iSCSI target \(lun\) serves nvme0n1 to others$/m,
      true,
    ],
  ),
  [
    'disk',
    "served to others by a name of udev's",
    {
      device: NVME,
      block: { nvme0n1: DEV },
      files: {
        'sys/kernel/config/nvmet/subsystems/t/namespaces/1/device_path': '/dev/disk/by-id/nvme-x\n',
        'sys/kernel/config/nvmet/subsystems/t/namespaces/1/enable': '1\n',
      },
      links: { 'dev/disk/by-id/nvme-x': '../../nvme0n1' },
    },
    /^nvmet \(t\) serves nvme0n1 to others$/,
    true,
  ],
  [
    'disk',
    'no claim to be asked for, and a root that nothing explains',
    {
      device: NVME,
      block: { nvme0n1: DEV },
      files: { 'proc/self/mountinfo': mount('0:55', '/', '/dev/root', 'btrfs') },
      noNodes: true,
    },
    /^what \/ stands on is not to be seen, nor whether it is nvme0n1$/,
    true,
  ],
  [
    'disk',
    'something of a kind that nobody knows above it',
    stacked('zram0', 'holders', { 'proc/self/mountinfo': '' }),
    /^zram0 is built on/,
  ],
  [
    'disk',
    'dm on md on a partition, with swap',
    {
      device: NVME,
      block: { sda: DEV, sda2: DEV, md0: null, 'dm-3': null },
      files: { 'proc/swaps': `${SWAPS}/dev/dm-3 partition\t1\t0\t-2\n` },
      links: { [`${AT}/block/sda2/holders/md0`]: 'x', 'sys/devices/virtual/block/md0/holders/dm-3': 'x' },
    },
    /^dm-3 is swap$/,
    true,
  ],
  [
    'disk',
    'multipath above two of its paths',
    {
      device: NVME,
      block: { sda: DEV, sdb: DEV, 'dm-1': null },
      files: { 'sys/class/block/dm-1/dm/name': 'mpatha\n', 'sys/class/block/dm-1/dm/uuid': 'mpath-3600\n' },
      links: { [`${AT}/block/sda/holders/dm-1`]: 'x', [`${AT}/block/sdb/holders/dm-1`]: 'x' },
    },
    /^dm-1 \(mpatha, mpath\) is built on sda$/,
  ],
  [
    'disk',
    'an NVMe head, its partition mounted',
    {
      device: NVME,
      block: { nvme3c4n1: DEV },
      files: {
        'sys/devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1/nvme3n1p2/dev': '259:9\n',
        'proc/self/mountinfo': mount('259:9', '/data', '/dev/nvme3n1p2'),
      },
      links: {
        'sys/class/block/nvme3n1': '../../devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1',
        'sys/class/block/nvme3n1p2': '../../devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1/nvme3n1p2',
      },
    },
    /^nvme3n1p2 is mounted on \/data$/,
  ],
  [
    'disk',
    'swap on a partition',
    {
      device: NVME,
      block: { sda: DEV, sda5: DEV },
      files: { 'proc/swaps': `${SWAPS}/dev/sda5                               partition\t999420\t0\t-2\n` },
    },
    /^sda5 is swap$/,
    true,
  ],
  [
    'disk',
    'swap in a file on it',
    {
      device: NVME,
      block: { sda: DEV, sda1: DEV },
      files: {
        'sys/class/block/sda1/dev': '8:1\n',
        'proc/self/mountinfo': mount('9:9', '/', '/dev/else') + mount('8:1', '/my\\040disk', '/dev/sda1'),
        'proc/swaps': `${SWAPS}/my\\040disk/swap file\t1\t0\t-2\n`,
      },
    },
    /^the swap file \/my disk\/swap lies on sda1$/,
    true,
  ],
  [
    'disk',
    'a loop device over its node',
    {
      device: NVME,
      block: { sda: DEV, loop7: null },
      files: { 'sys/class/block/loop7/loop/backing_file': '/dev/sda\n' },
    },
    /^loop7 is built on sda$/,
  ],
  [
    'disk',
    'a file system in a loop file on it',
    {
      device: NVME,
      block: { sda: DEV, loop0: null },
      files: {
        'sys/class/block/sda/dev': '8:0\n',
        'sys/class/block/loop0/dev': '7:0\n',
        'sys/class/block/loop0/loop/backing_file': '/srv/root.img\n',
        'proc/self/mountinfo': mount('8:0', '/srv', '/dev/sda') + mount('7:0', '/', '/dev/loop0'),
      },
    },
    /^loop0 is mounted on \/$/,
    true,
  ],
  [
    'disk',
    'a disk behind a SCSI or virtio device of it',
    {
      device: { class: '010000', driver: 'virtio-pci' },
      links: { 'sys/class/block/vda': `../../devices/pci0000:05/${DEV}/virtio2/block/vda` },
      files: { [`${AT}/virtio2/block/vda/dev`]: '254:0\n', 'proc/self/mountinfo': mount('254:0', '/', '/dev/vda') },
    },
    /^vda is mounted on \/$/,
    true,
  ],
  [
    'disk',
    'a node with a slash in it',
    {
      device: NVME,
      block: { 'cciss!c0d0': DEV, 'cciss!c0d0p1': DEV },
      files: { 'proc/swaps': `${SWAPS}/dev/cciss/c0d0p1 partition\t1\t0\t-2\n` },
    },
    /^cciss!c0d0p1 is swap$/,
    true,
  ],
  [
    'disk',
    'a claim that sysfs does not explain',
    { device: NVME, block: { sda: DEV }, claimed: ['dev/sda'] },
    /^sda is claimed for itself alone/,
    true,
  ],
  [
    'disk',
    'zfs',
    {
      device: NVME,
      block: { nvme0c0n1: DEV, nvme0n1: null },
      claimed: ['dev/nvme0n1'],
      files: { 'sys/module/zfs/version': '2.3\n' },
    },
    /ZFS/,
    true,
  ],
];

refused(ROWS);

/** What looks like a use and is none. */
const FREE: [string, Case][] = [
  [
    'a disk that nobody uses',
    { device: NVME, block: { nvme0n1: DEV, nvme0n1p1: DEV }, files: { 'sys/class/block/nvme0n1/dev': '259:0\n' } },
  ],
  [
    "another function's disk",
    {
      device: NVME,
      devices: [{ address: '0000:06:00.0', ids: '1b36:0010' }],
      block: { nvme0n1: '0000:06:00.0' },
      files: { 'sys/class/block/nvme0n1/dev': '259:0\n', 'proc/self/mountinfo': mount('259:0', '/', '/dev/nvme0n1') },
    },
  ],
  [
    'sda10 is not sda1',
    {
      device: NVME,
      block: { sda: DEV, sda1: DEV, sdaa: null },
      files: {
        'sys/class/block/sda/dev': '8:0\n',
        'sys/class/block/sda1/dev': '8:1\n',
        'proc/self/mountinfo': mount('8:10', '/x', '/dev/sda10') + mount('65:160', '/y', '/dev/sdaa'),
        'proc/swaps': `${SWAPS}/dev/sda10 partition\t1\t0\t-2\n`,
      },
    },
  ],
  [
    'a loop file elsewhere',
    {
      device: NVME,
      block: { sda: DEV, loop0: null },
      files: {
        'sys/class/block/loop0/dev': '7:0\n',
        'sys/class/block/loop0/loop/backing_file': '/srv/x\n',
        'proc/self/mountinfo': mount('9:9', '/', '/dev/else') + mount('7:0', '/m', '/dev/loop0'),
      },
    },
  ],
];

freeOf(FREE);
