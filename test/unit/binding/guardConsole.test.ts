/** The kernel's console on a serial card, and the host's memory on a CXL device. */
import { AT, type Case, DEV, freeOf, type Row, refused } from '../../mock/guarded.ts';

const SERIAL = { class: '070002', ids: '13a8:0352', driver: 'exar_serial' };
const CXL_CARD = { class: '050210', ids: '8086:0d93', driver: 'cxl_pci' };
const ACTIVE = 'sys/class/tty/console/active';
const PORT = `sys/devices/pci0000:05/${DEV}`;

const tty = (name: string, at: string, files: Record<string, string>): Case => ({
  device: SERIAL,
  files,
  links: { [`sys/class/tty/${name}`]: `../../${at.replace(/^sys\//, '')}` },
});

/** A region of one memory device, and where the device is. */
const region = (commit: string, memory: string, more: Partial<Case> = {}): Case => ({
  device: CXL_CARD,
  ...more,
  files: {
    'sys/bus/cxl/devices/region0/commit': `${commit}\n`,
    'sys/bus/cxl/devices/region0/target0': 'decoder5.0\n',
    ...more.files,
  },
  links: {
    'sys/bus/cxl/devices/endpoint5/uport': '../../../mem0',
    'sys/bus/cxl/devices/mem0': `../../../devices/pci0000:05/${memory}/mem0`,
    ...more.links,
  },
});

const ROWS: Row[] = [
  [
    'console',
    'a serial card, as kernels before 6.4 show it',
    tty('ttyS4', `${PORT}/tty/ttyS4`, { [ACTIVE]: 'tty0 ttyS4\n' }),
    /^the kernel's console ttyS4 is on it$/,
    true,
  ],
  [
    'console',
    'a serial card, below the bus of serial ports',
    tty('ttyS4', `${PORT}/${DEV}:0/${DEV}:0.0/tty/ttyS4`, { [ACTIVE]: 'ttyS4\n' }),
    /console ttyS4 is on it/,
    true,
  ],
  [
    'console',
    'where only proc/consoles tells it',
    tty('ttyS4', `${PORT}/tty/ttyS4`, {
      'proc/consoles': 'tty0                 -WU (EC p  )    4:7\nttyS4                -W- (E  p a)    4:68\n',
    }),
    /console ttyS4 is on it/,
    true,
  ],
  [
    'console',
    'an adapter behind a USB controller',
    tty('ttyUSB0', `${PORT}/usb1/1-1/1-1:1.0/ttyUSB0/tty/ttyUSB0`, { [ACTIVE]: 'ttyUSB0\n' }),
    /console ttyUSB0 is on it/,
    true,
  ],
  [
    'console',
    'a virtio console',
    {
      device: { class: '078000', ids: '1af4:1043', driver: 'virtio-pci' },
      files: { [ACTIVE]: 'hvc0\n' },
      links: {
        'sys/class/tty/hvc0': '../../devices/virtual/tty/hvc0',
        [`${AT}/virtio1/driver`]: '../../../../bus/virtio/drivers/virtio_console',
      },
    },
    /console hvc0 is on it/,
    true,
  ],
  ['memory', 'a committed region', region('1', DEV), /^its memory is in the CXL region region0$/, true],
  [
    'memory',
    'a region that is system RAM',
    region('1', DEV, {
      links: { 'sys/bus/cxl/devices/region0/dax_region0/dax0.0/driver': '../../../../bus/dax/drivers/kmem' },
    }),
    /in the CXL region region0, which is system RAM/,
    true,
  ],
];

refused(ROWS);

freeOf([
  ['a serial card without the console', tty('ttyS4', `${PORT}/tty/ttyS4`, { [ACTIVE]: 'tty0 ttyS0\n' })],
  [
    'the console on another card',
    tty('ttyS4', 'sys/devices/pci0000:06/0000:06:00.0/tty/ttyS4', { [ACTIVE]: 'ttyS4\n' }),
  ],
  ['a serial console of the board', tty('ttyS0', 'sys/devices/pnp0/00:03/tty/ttyS0', { [ACTIVE]: 'ttyS0\n' })],
  [
    'a virtio disk beside the console of the hypervisor',
    {
      device: { class: '010000', ids: '1af4:1042', driver: 'virtio-pci' },
      files: { [ACTIVE]: 'hvc0\n' },
      links: { [`${AT}/virtio1/driver`]: '../../../../bus/virtio/drivers/virtio_blk' },
    },
  ],
  ['names that are none', { device: SERIAL, files: { [ACTIVE]: '../../x ttyS4/../.. \n' } }],
  ['a region that is not committed', region('0', DEV)],
  ['a region of another card', region('1', '0000:06:00.0')],
  ['a target that is no decoder', region('1', DEV, { files: { 'sys/bus/cxl/devices/region0/target0': '../x\n' } })],
]);
