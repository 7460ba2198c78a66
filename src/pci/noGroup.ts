/** Why a device is in no IOMMU group although the host has some. */
import type { Host } from '../host/host.ts';
import { isAddress } from './address.ts';
import type { PciDevice } from './inventory.ts';

/**
 * A unit of sys/class/iommu that is a virtio device, or the PCI function of one: the driver names it after that. Its
 * devices get their group at probe.
 */
export function isVirtioIommu(host: Host): boolean {
  const units = host.list(host.classLink('iommu')) ?? [];
  return units.some(
    (u) => u.startsWith('virtio') || (isAddress(u) && host.read(host.device(u, 'vendor'))?.trim() === '0x1af4'),
  );
}

/**
 * Why a device is in no group on a host that has some, with the way out; `word` of the kernel command line, where one
 * is the cause.
 */
export function noGroupReason(
  host: Host,
  d: Pick<PciDevice, 'address' | 'vendor_id' | 'class'>,
): { cause: string; change: string; word: string | null } {
  const words = (host.read(host.cmdline) ?? '').split(/\s+/);
  const igfx = words.find((w) => /^intel_iommu=(?:.*,)?igfx_off(?:,.*)?$/.test(w));
  // drivers/iommu/intel/iommu.c: igfx_off leaves out what IS_GFX_DEVICE tells, base class 03 and a unit that serves
  // nothing else: the processor's own.
  if (igfx !== undefined && d.vendor_id === '8086' && d.class?.startsWith('03') === true)
    return {
      cause: `the kernel command line says ${igfx}`,
      change: 'take igfx_off out of it and reboot',
      word: igfx,
    };
  const units = host.list(host.classLink('iommu')) ?? [];
  return {
    cause: `none of the units ${units.join(', ') || '(none shown)'} translates for it`,
    change: 'choose another slot or device; the firmware leaves this one out',
    word: null,
  };
}
