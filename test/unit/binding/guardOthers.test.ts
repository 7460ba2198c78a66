/** What a driver has handed on, what is held open, what a device is. */
import { expect, test } from 'vitest';
import {
  AT,
  type Case,
  DEV,
  freeOf,
  GPU,
  GUARD_NAMES,
  held,
  look,
  NIC,
  NVME,
  type Row,
  refused,
  stacked,
  verdict,
} from '../../mock/guarded.ts';

const ROWS: Row[] = [
  // What was handed on.
  [
    'mdev',
    'a mediated device',
    {
      links: {
        [`${AT}/mdev_supported_types/nvidia-63/devices/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001`]:
          '../../../83b8f4f2-509f-382f-3c1e-e6bfe0fa1001',
      },
    },
    /mediated device 83b8f4f2-/,
  ],
  [
    'vdpa',
    'a vDPA device',
    {
      files: { [`${AT}/vdpa0/uevent`]: '' },
      links: { [`${AT}/vdpa0/driver`]: '../../../../bus/vdpa/drivers/vhost_vdpa' },
    },
    /vDPA device vdpa0 \(vhost_vdpa\)/,
  ],
  [
    'vdpa',
    'a vDPA device of an auxiliary function',
    { files: { [`${AT}/mlx5_core.vnet.2/vdpa7/uevent`]: '' } },
    /vDPA device vdpa7/,
  ],
  [
    'vdpa',
    'a vDPA device that the admin named',
    {
      files: { [`${AT}/mlx5_core.vnet.2/web/uevent`]: '', 'sys/module/vdpa/refcnt': '1\n' },
      links: { [`${AT}/mlx5_core.vnet.2/web/subsystem`]: '../../../../../bus/vdpa' },
    },
    /vDPA device web$/,
  ],
  [
    'rdma',
    'a process on its RDMA device',
    {
      device: NIC,
      files: { [`${AT}/net/.keep`]: '', [`${AT}/infiniband_verbs/uverbs0/dev`]: '231:192\n' },
      held: [held('/dev/infiniband/uverbs0')],
    },
    /process 812 \(sleep\) has \/dev\/infiniband\/uverbs0 open/,
  ],
  // Held open.
  [
    'in-use',
    'its disk',
    { device: NVME, block: { sda: DEV }, held: [held('/dev/sda', 'dd')] },
    /process 812 \(dd\) has \/dev\/sda open/,
  ],
  [
    'in-use',
    'its controller',
    { device: NVME, files: { [`${AT}/nvme/nvme0/dev`]: '241:0\n' }, held: [held('/dev/nvme0')] },
    /nvme0/,
  ],
  [
    'in-use',
    'a namespace by its character device',
    { device: NVME, block: { nvme0c0n1: DEV, nvme0n1: null }, held: [held('/dev/ng0n1')] },
    /ng0n1/,
  ],
  [
    'in-use',
    'a mapper node of what lies on it',
    { ...stacked('dm-0', 'holders', { 'sys/class/block/dm-0/dm/name': 'crypt\n' }), held: [held('/dev/mapper/crypt')] },
    /mapper\/crypt/,
  ],
  [
    'in-use',
    'its DRM node',
    { device: GPU, drm: { renderD128: DEV }, held: [held('/dev/dri/renderD128', 'Xorg')] },
    /renderD128 open \(stop the graphical session/,
  ],
  [
    'in-use',
    'its sound',
    {
      device: { class: '040300', driver: 'snd_hda_intel' },
      files: { [`${AT}/sound/card1/controlC1/dev`]: '116:7\n', [`${AT}/sound/card1/id`]: 'NVidia\n' },
      held: [held('/dev/snd/controlC1', 'wireplumber')],
    },
    /controlC1 open \(.*wireplumber/,
  ],
  [
    'in-use',
    'nvidia, by the number that its driver gives',
    {
      device: { ...GPU, driver: 'nvidia' },
      files: { [`proc/driver/nvidia/gpus/${DEV}/information`]: 'Model: \t X\nDevice Minor: \t 3\n' },
      held: [held('/dev/nvidia3', 'nvidia-persiste')],
    },
    /nvidia3 open \(systemctl stop nvidia-persistenced\)/,
  ],
  [
    'in-use',
    'nvidia, whose number nobody gives',
    { device: { ...GPU, driver: 'nvidia' }, held: [held('/dev/nvidia0')] },
    /nvidia0/,
  ],
  [
    'in-use',
    'whatever has a character device',
    { links: { 'sys/dev/char/10:144': `../../devices/pci0000:05/${DEV}/misc/gadget0` }, held: [held('/dev/gadget0')] },
    /gadget0/,
  ],
  [
    'in-use',
    'a keyboard behind it',
    {
      device: { class: '0c0330', driver: 'xhci_hcd' },
      links: { 'sys/dev/char/13:64': `../../devices/pci0000:05/${DEV}/usb1/1-2/1-2:1.0/input/input5/event4` },
      held: [held('/dev/input/event4')],
    },
    /event4/,
  ],
  [
    'in-use',
    'a USB device behind it',
    {
      device: { class: '0c0330', driver: 'xhci_hcd' },
      links: { 'sys/dev/char/189:130': `../../devices/pci0000:05/${DEV}/usb2/2-1` },
      held: [held('/dev/bus/usb/002/003', 'usbmuxd')],
    },
    /usb\/002\/003/,
  ],
  [
    'in-use',
    'VFIO, its group',
    { device: { driver: 'vfio-pci' }, held: [held('/dev/vfio/5', 'qemu-system-x86')] },
    /vfio\/5 open \(stop its guest/,
  ],
  [
    'in-use',
    'VFIO, its own node',
    { device: { driver: 'mlx5_vfio_pci', vfio: true }, held: [held('/dev/vfio/devices/vfio0')] },
    /vfio0/,
  ],
  [
    'in-use',
    'VFIO without an IOMMU',
    { device: { driver: 'vfio-pci' }, held: [held('/dev/vfio/noiommu-5')] },
    /noiommu-5/,
  ],
  // What it is.
  [
    'vfs',
    'a PF with idle VFs',
    {
      device: { ...NIC, totalVfs: 2, attributes: { sriov_numvfs: '1\n' } },
      devices: [{ address: '0000:05:10.0', ids: '8086:10ca', physfn: DEV }],
      files: { [`${AT}/net/.keep`]: '' },
      links: { [`${AT}/virtfn0`]: '../0000:05:10.0' },
    },
    /it has 1 VFs, which would go with its driver/,
  ],
];

refused(ROWS);

test.each([
  ['a bridge', { class: '060400', driver: 'pcieport' }, /it is a bridge/],
  ['a host bridge', { class: '060000', driver: 'skx_uncore' }, /class 060000/],
])('%s is refused whatever is allowed: VFIO takes none', async (_what, device, reason) => {
  const { refusals } = verdict(await look({ device }), GUARD_NAMES);
  expect(refusals).toMatchObject([{ guard: 'bridge', reason: expect.stringMatching(reason) }]);
});

/** What looks like a use and is none. */
const FREE: [string, Case][] = [
  [
    'types of mediated devices without one',
    {
      files: {
        [`${AT}/mdev_supported_types/nvidia-63/available_instances`]: '4\n',
        [`${AT}/mdev_supported_types/nvidia-63/devices/.keep`]: '',
      },
    },
  ],
  [
    'an RDMA device that nobody has open',
    { device: NIC, files: { [`${AT}/net/.keep`]: '', [`${AT}/infiniband_verbs/uverbs0/dev`]: '231:192\n' } },
  ],
  [
    "nvidia, another GPU's node held",
    {
      device: { ...GPU, driver: 'nvidia' },
      files: { [`proc/driver/nvidia/gpus/${DEV}/information`]: 'Device Minor: \t 1\n', 'proc/iomem': '' },
      held: [held('/dev/nvidia0')],
    },
  ],
  [
    "another function's node held",
    { links: { 'sys/dev/char/10:1': '../../devices/pci0000:06/0000:06:00.0/misc/x' }, held: [held('/dev/x')] },
  ],
];

freeOf(FREE);
