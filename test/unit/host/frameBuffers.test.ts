/** The firmware's frame buffer: one reader, so doctor, bind and the hook say the same of it. */
import { afterEach, expect, test } from 'vitest';
import { hostdev, StaticHost, type TreeDevice } from '../../mock/tree.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

const GPU = '0000:01:00.0';
const XML = `<domain type='kvm'><name>g</name><uuid>624392bd-9784-4e20-8b29-1e85f123c67d</uuid><devices><hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source></hostdev></devices></domain>`;
const nested = (name: string): string =>
  `c0000000-d1ffffff : PCI Bus 0000:01\n  c0000000-cfffffff : ${GPU}\n    c0000000-c02fffff : ${name}\n`;

function said(iomem: string, more: Partial<TreeDevice>): { doctor: boolean; bind: boolean; hook: boolean } {
  const h = new StaticHost({
    devices: [{ address: GPU, ids: '10de:1bb0', class: '030000', group: 1, ...more }],
    files: { 'proc/iomem': iomem, 'proc/interrupts': ' 24:  0  IR-PCI-MSI-0000:00:01.0  0-edge  x\n' },
  });
  hosts.push(h);
  return {
    doctor: h.run('-j', 'doctor').out.includes('firmware-framebuffer'),
    bind: h.run('-j', 'bind', '-n', GPU).out.includes('frame buffer'),
    hook: hostdev(['--root', h.root, '-j', 'hook', 'test', '-'], { input: XML }).out.includes('frame buffer'),
  };
}

test.each(['BOOTFB', 'efifb', 'simpledrm', 'efidrm', 'vesadrm', 'ofdrm', 'simple-framebuffer.0'])(
  '%s in the BAR of a GPU without a driver',
  (name) => expect(said(nested(name), {})).toEqual({ doctor: true, bind: true, hook: true }),
);

test.each<[string, string, Partial<TreeDevice>]>([
  ['above a small BAR', `c0000000-c07fffff : BOOTFB\nc0000000-c00fffff : ${GPU}\n`, {}],
  ['a function that is no display by its class', nested('BOOTFB'), { class: '118000' }],
])('%s', (_, iomem, more) => expect(said(iomem, more)).toEqual({ doctor: true, bind: true, hook: true }));

test('on VFIO and still reserved: the hook warns that the guest finds a dead BAR', () => {
  expect(said(nested('BOOTFB'), { driver: 'vfio-pci', vfio: true, override: 'vfio-pci\n' })).toEqual({
    doctor: true,
    bind: false,
    hook: true,
  });
});

test('beside the BAR, or of another name: nobody says anything', () => {
  const nobody = { doctor: false, bind: false, hook: false };
  expect(said(`c0000000-c7ffffff : ${GPU}\nd0000000-d02fffff : BOOTFB\n`, {})).toEqual(nobody);
  expect(said(nested('nouveau'), {})).toEqual(nobody);
});
