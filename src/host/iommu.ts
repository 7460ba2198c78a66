/** Whether this host can hand devices to guests at all, and if not, why: the first question behind every failed passthrough. */
import type { Host } from './host.ts';

export type IommuState = {
  on: boolean;
  /** Hardware units the kernel drives (`sys/class/iommu`): "dmar0", "ivhd0", "smmu3.0x…", "virtio…". */
  units: string[];
  /** Why it is off and what to do; null when it is on. */
  reason: string | null;
};

/**
 * The IOMMU is on when the kernel made groups (drivers/iommu/iommu.c puts every translated device into one). When it made none, the
 * cause is looked for from the outside in: command line, firmware tables (DMAR is Intel's, IVRS AMD's, IORT Arm's, VIOT virtio's), kernel.
 */
export function iommuState(host: Host): IommuState {
  const units = host.list(host.classLink('iommu')) ?? [];
  const groups = host.list(host.iommuGroups) ?? [];
  if (groups.some((g) => !isNoIommu(host, g))) return { on: true, units, reason: null };
  if (groups.length > 0) {
    return {
      on: false,
      units,
      reason: 'only no-IOMMU groups exist (vfio enable_unsafe_noiommu_mode): libvirt does not use them',
    };
  }
  const words = (host.read(host.cmdline) ?? '').split(/\s+/);
  const off = words.find((w) => /^(intel_iommu=.*\boff\b|amd_iommu=.*\boff\b|iommu=off|iommu\.off.*)$/.test(w));
  if (off !== undefined)
    return { on: false, units, reason: `the kernel command line says ${off}: take it out and reboot` };
  const tables = host.list(host.acpiTables);
  if (tables === null)
    return { on: false, units, reason: 'the kernel has no IOMMU groups (firmware tables: not measured)' };
  if (tables.includes('DMAR')) {
    return {
      on: false,
      units,
      reason:
        'the firmware has an Intel IOMMU (DMAR) but the kernel does not use it: add intel_iommu=on to the kernel command line and reboot',
    };
  }
  const table = ['IVRS', 'IORT', 'VIOT'].find((t) => tables.includes(t));
  if (table !== undefined) {
    return {
      on: false,
      units,
      reason: `the firmware describes an IOMMU (${table}) but the kernel made no groups: see 'dmesg | grep -i iommu'`,
    };
  }
  return {
    on: false,
    units,
    reason:
      'the firmware shows no IOMMU (no DMAR, IVRS, IORT or VIOT table): switch on VT-d, AMD-Vi or SMMU in its settings',
  };
}

function isNoIommu(host: Host, group: string): boolean {
  return /^\d+$/.test(group) && host.read(host.group(Number(group), 'name')) === 'vfio-noiommu';
}
