/** The display that the firmware booted with: advice never takes it from the host. */
import type { PciDevice } from '../pci/inventory.ts';
import type { Look } from './look.ts';

/** Displays that drivers/pci/vgaarb.c marks with boot_vga. */
export const bootDisplays = (look: Look): PciDevice[] =>
  look.inventory.devices.filter(
    (d) =>
      d.class?.startsWith('03') &&
      look.quiet(d.address, () => look.host.read(look.host.device(d.address, 'boot_vga')))?.trim() === '1',
  );

const slot = (d: PciDevice): string => d.address.slice(0, d.address.lastIndexOf('.'));

/**
 * Of these devices those that go with the boot display: it itself, the functions of its slot, the rest of its IOMMU
 * group.
 */
export function ofBootDisplay(look: Look, devices: readonly PciDevice[]): PciDevice[] {
  const boot = bootDisplays(look);
  return devices.filter((d) =>
    boot.some((b) => slot(b) === slot(d) || (b.iommu_group !== null && b.iommu_group === d.iommu_group)),
  );
}
