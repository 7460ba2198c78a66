/**
 * PCI devices that are in no IOMMU group on a host that has groups: no IOMMU translates for them, and VFIO does not
 * take them (vfio_group_find_or_alloc: EINVAL).
 */
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { isVirtioIommu, noGroupReason } from '../pci/noGroup.ts';
import { commandFix } from './fix.ts';
import { kernelWords } from './kernelLine.ts';
import type { Look } from './look.ts';
import { type Draft, finding } from './table.ts';
import { addresses } from './words.ts';

/** How many members of other buses a line names, and in how many groups they are looked for. */
const SHOWN = 4;

export function checkNoGroup(look: Look): Draft[] {
  // Its devices get their group when a driver is bound.
  if (look.quiet('IOMMU', () => isVirtioIommu(look.host)) !== false) return [];
  const endpoints = look.inventory.devices.filter((d) => !isBridge(d));
  const without = endpoints.filter((d) => d.iommu_group === null);
  if (without.length > 0 && without.length === endpoints.length) return [noneHasOne(look, without)];
  const byCause = new Map<string, PciDevice[]>();
  for (const d of without) {
    const { cause } = noGroupReason(look.host, d);
    byCause.set(cause, [...(byCause.get(cause) ?? []), d]);
  }
  return [...byCause].map(([cause, devices]) =>
    finding('device-no-group', addresses(devices), `${cause}: VFIO takes none of them`, wayOut(look, devices)),
  );
}

function noneHasOne(look: Look, without: readonly PciDevice[]): Draft {
  const { host } = look;
  const [first] = without;
  const groups = look.names(host.iommuGroups).filter((g) => /^\d+$/.test(g));
  const others = groups.slice(0, SHOWN).flatMap((g) => look.names(host.group(Number(g), 'devices')));
  const held = others.length > 0 ? `: they hold ${others.slice(0, SHOWN).join(', ')}` : '';
  const reason = first === undefined ? null : noGroupReason(host, first);
  return finding(
    'iommu-no-pci-group',
    `/${host.iommuGroups}`,
    `the kernel has ${groups.length} IOMMU groups, and no PCI device is in one${held}${reason === null ? '' : `; ${reason.cause}`}`,
    wayOut(look, without),
  );
}

function wayOut(look: Look, devices: readonly PciDevice[]): Draft['fix'] {
  const words = devices.flatMap((d) => noGroupReason(look.host, d).word ?? []);
  if (words.length > 0) return kernelWords({ remove: words, add: ['intel_iommu=on'] });
  return [
    commandFix(
      "dmesg | grep -iE 'iommu|AMD-Vi|smmu|viot'",
      "the kernel says there which units it found; a firmware (or device tree, 'iommu-map') without one for PCI leaves nothing to change but the machine",
    ),
  ];
}
