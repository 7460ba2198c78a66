/**
 * A device whose own driver is its VFIO provider stays there; and NVIDIA's opens for no guest what has no vGPU type.
 */
import type { Host } from '../../host/host.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import { lacksVgpuType, untypedText, vendorVfio, vgpuTypeAdvice } from '../../pci/vendorVfio.ts';
import type { Use } from '../guards.ts';

/**
 * What is wrong with a device's own VFIO driver; `moves` when the device is to leave it, by us or by libvirt
 * (managed='yes'). Raises as vendorVfio does.
 */
export function vendorVfioUses(host: Host, device: PciDevice, moves: boolean): Use[] {
  const own = vendorVfio(host, device);
  if (own === null) return [];
  const uses: Use[] = [];
  if (moves)
    uses.push({
      guard: 'vendor-vfio',
      reason: `${own.driver}, its own driver, is its VFIO provider${own.ready ? '' : ' and has not made its VFIO device yet'}: taken off it, it is of no use to a guest`,
    });
  if (lacksVgpuType(own))
    uses.push({
      guard: 'vgpu-type',
      reason: `it ${untypedText(own)}: ${vgpuTypeAdvice(host, device.address, own)}`,
    });
  return uses;
}
