/** The display guard: consoles and the frame buffers of the firmware. */
import { AT, type Case, DEV, freeOf, GPU, type Row, refused } from '../../mock/guarded.ts';

const ROWS: Row[] = [
  // Display.
  [
    'display',
    'a console on the boot display',
    {
      device: { ...GPU, attributes: { boot_vga: '1\n' } },
      files: {
        'sys/class/vtconsole/vtcon0/bind': '0\n',
        'sys/class/vtconsole/vtcon0/name': '(S) dummy device\n',
        'sys/class/vtconsole/vtcon1/bind': '1\n',
        'sys/class/vtconsole/vtcon1/name': '(M) frame buffer device\n',
      },
    },
    /boot display, and vtcon1 draws/,
    true,
  ],
  [
    'display',
    'a boot display of which nobody knows who draws on it',
    { device: { ...GPU, attributes: { boot_vga: '1\n' } } },
    /it is the boot display/,
  ],
  [
    'display',
    'a console on fb0 of a display that the firmware did not boot',
    {
      device: { ...GPU, attributes: { boot_vga: '0\n' } },
      files: {
        'sys/class/vtconsole/vtcon1/bind': '1\n',
        'sys/class/vtconsole/vtcon1/name': '(M) frame buffer device\n',
        [`${AT}/graphics/fb0/dev`]: '29:0\n',
      },
    },
    /draws the console on its fb0/,
    true,
  ],
  [
    'display',
    'the console of text mode, with no driver at all',
    {
      driverless: true,
      device: { ...GPU, attributes: { boot_vga: '1\n' } },
      files: {
        'sys/class/vtconsole/vtcon0/bind': '1\n',
        'sys/class/vtconsole/vtcon0/name': '(S) VGA+\n',
      },
    },
    /boot display, and vtcon0 draws/,
    true,
  ],
  [
    'display',
    "the firmware's frame buffer below a BAR",
    {
      driverless: true,
      device: { ...GPU, attributes: { boot_vga: '1\n' } },
      files: {
        'proc/iomem': `c0000000-cfffffff : PCI Bus 0000:05\n  c0000000-c7ffffff : ${DEV}\n    c0000000-c02fffff : BOOTFB\n`,
      },
    },
    /BOOTFB/,
  ],
  [
    'display',
    "the firmware's frame buffer beside the BAR that it covers, with a console on it",
    {
      driverless: true,
      device: { ...GPU },
      files: {
        'proc/iomem': `c0000000-c07fffff : efifb\nc0000000-c00fffff : ${DEV}\n`,
        'sys/class/vtconsole/vtcon1/bind': '1\n',
        'sys/class/vtconsole/vtcon1/name': '(M) frame buffer device\n',
      },
    },
    /efifb/,
    true,
  ],
  [
    'display',
    "the firmware's frame buffer, read without rights",
    {
      driverless: true,
      device: { ...GPU },
      files: {
        'proc/iomem': `00000000-00000000 : PCI Bus 0000:05\n  00000000-00000000 : ${DEV}\n    00000000-00000000 : simplefb\n`,
      },
    },
    /simplefb/,
  ],
];

refused(ROWS);

/** What looks like a use and is none. */
const FREE: [string, Case][] = [
  [
    'a second display',
    {
      device: { ...GPU, attributes: { boot_vga: '0\n' } },
      files: {
        'sys/class/vtconsole/vtcon1/bind': '1\n',
        'sys/class/vtconsole/vtcon1/name': '(M) frame buffer device\n',
        [`${AT}/graphics/fb1/dev`]: '29:1\n',
        'proc/iomem': `c0000000-c7ffffff : ${DEV}\nd0000000-d02fffff : BOOTFB\n`,
      },
    },
  ],
  [
    'the boot display of a host whose consoles are elsewhere',
    {
      device: { ...GPU, attributes: { boot_vga: '1\n' } },
      files: {
        'sys/class/vtconsole/vtcon0/bind': '1\n',
        'sys/class/vtconsole/vtcon0/name': '(S) dummy device\n',
        'proc/iomem': `c0000000-c7ffffff : ${DEV}\n`,
      },
    },
  ],
];

freeOf(FREE);
