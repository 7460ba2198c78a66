/**
 * Whether this host can hand devices to guests at all, and if not, why: the first question behind every failed
 * passthrough.
 */
import { architecture, hasDeviceTree } from './architecture.ts';
import type { Host } from './host.ts';

export type IommuState = {
  on: boolean;
  /** Hardware units the kernel drives (`sys/class/iommu`): "dmar0", "ivhd0", "smmu3.0x…", "virtio…". */
  units: string[];
  /** Why it is off and what to do; null when it is on. */
  reason: string | null;
};

/**
 * The IOMMU is on when the kernel made groups (drivers/iommu/iommu.c puts every translated device into one). When it
 * made none, the cause is looked for from the outside in: command line, firmware tables (DMAR is Intel's, IVRS AMD's,
 * IORT Arm's, VIOT virtio's), kernel.
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
  const off = wordsOff((host.read(host.cmdline) ?? '').split(/\s+/));
  if (off.length > 0)
    return { on: false, units, reason: `the kernel command line says ${off.join(' ')}: take it out and reboot` };
  return { on: false, units, reason: offReason(host, firmwareIommu(host)) };
}

/**
 * What the firmware says of an IOMMU: ACPI tables (DMAR is Intel's, IVRS AMD's, IORT Arm's, VIOT virtio's), a device
 * tree, or nothing, because the IOMMU is part of the architecture. `acpi` null: not there to look at.
 */
export type FirmwareIommu =
  | { kind: 'built-in'; what: string }
  | { kind: 'device-tree' }
  | { kind: 'acpi'; tables: IommuTable[] | null };

/** ACPI tables that describe an IOMMU, and what its maker and firmware call it. */
export const IOMMU_TABLES = { DMAR: 'Intel VT-d', IVRS: 'AMD-Vi', IORT: 'Arm SMMU', VIOT: 'virtio-iommu' } as const;
type IommuTable = keyof typeof IOMMU_TABLES;

/** Where the kernel would know an IOMMU from. Raises what reading the folder of ACPI tables raises. */
export function firmwareIommu(host: Host): FirmwareIommu {
  const arch = architecture(host);
  if (arch === 's390')
    return { kind: 'built-in', what: 'on s390 every PCI function is translated (CONFIG_S390_IOMMU)' };
  if (arch === 'power')
    return { kind: 'built-in', what: 'on POWER every partitionable endpoint is translated (CONFIG_SPAPR_TCE_IOMMU)' };
  const names = host.list(host.acpiTables);
  if (!names?.length && hasDeviceTree(host)) return { kind: 'device-tree' };
  const known = Object.keys(IOMMU_TABLES) as IommuTable[];
  return { kind: 'acpi', tables: names && known.filter((t) => names.includes(t)) };
}

function offReason(host: Host, firmware: FirmwareIommu): string {
  if (firmware.kind === 'built-in')
    return `the kernel made no IOMMU groups, although ${firmware.what}: see 'dmesg | grep -i iommu'`;
  if (firmware.kind === 'device-tree')
    return "the kernel made no IOMMU groups from the firmware's device tree: it names no IOMMU for PCI (iommu-map), or its driver is missing: see 'dmesg | grep -iE \"iommu|smmu\"'";
  const { tables } = firmware;
  if (tables === null) return 'the kernel has no IOMMU groups (firmware tables: not measured)';
  const [table] = tables;
  if (table === 'DMAR')
    return 'the firmware has an Intel IOMMU (DMAR) but the kernel does not use it: add intel_iommu=on to the kernel command line and reboot';
  if (table !== undefined)
    return `the firmware describes an IOMMU (${table}) but the kernel made no groups: see 'dmesg | grep -i iommu'`;
  const arm = architecture(host) === 'arm';
  return `the firmware shows no IOMMU (no DMAR, IVRS, IORT or VIOT table): switch on ${arm ? 'SMMU' : 'VT-d, AMD-Vi or SMMU'} in its settings`;
}

/** The words of a kernel command line that switch an IOMMU off (Documentation/admin-guide/kernel-parameters.txt). */
export const wordsOff = (words: readonly string[]): string[] =>
  words.filter((w) => /^(?:intel_iommu|amd_iommu|iommu)=(?:.*,)?off(?:,.*)?$/.test(w));

/** True when vfio makes groups for devices that nothing translates for: `enable_unsafe_noiommu_mode`. */
export const isNoIommuMode = (host: Host): boolean =>
  host.read(host.module('vfio', 'parameters/enable_unsafe_noiommu_mode'))?.trim() === 'Y';

function isNoIommu(host: Host, group: string): boolean {
  return /^\d+$/.test(group) && host.read(host.group(Number(group), 'name')) === 'vfio-noiommu';
}

/** Hardware registers as sysfs prints them: hex digits without 0x. */
const register = (text: string | null): bigint | null =>
  text !== null && /^[0-9a-f]{1,16}$/i.test(text.trim()) ? BigInt(`0x${text.trim()}`) : null;

/**
 * VT-d's capability register (drivers/iommu/intel/iommu.c cap_show; VT-d specification 10.4.2): the widest table the
 * unit walks (SAGAW, bits 12:8), no wider than its addresses (MGAW, bits 21:16).
 */
function vtdBits(cap: bigint): number | null {
  const sagaw = Number((cap >> 8n) & 0x1fn);
  const mgaw = Number((cap >> 16n) & 0x3fn) + 1;
  const levels = [57, 48, 39].find((_, i) => (sagaw & (8 >> i)) !== 0);
  return levels === undefined ? null : Math.min(levels, mgaw);
}

/**
 * AMD's extended features (drivers/iommu/amd/init.c amd_iommu_show_features; HATS, bits 11:10): 4 levels are 48 bits, 5
 * are 57, 6 are 64.
 */
const amdBits = (features: bigint): number | null => [48, 57, 64][Number((features >> 10n) & 3n)] ?? null;

/**
 * How many bits of I/O address every IOMMU unit of the host translates; null when a unit does not say (SMMU, virtio) or
 * there is none.
 */
export function iommuAddressBits(host: Host): number | null {
  const units = host.list(host.classLink('iommu')) ?? [];
  const bits = units.map((unit) => {
    const cap = register(host.read(host.classLink('iommu', `${unit}/intel-iommu/cap`)));
    if (cap !== null) return vtdBits(cap);
    const features = register(host.read(host.classLink('iommu', `${unit}/amd-iommu/features`))?.split(':')[0] ?? null);
    return features === null ? null : amdBits(features);
  });
  return bits.length === 0 || bits.includes(null) ? null : Math.min(...bits.map((b) => b ?? 0));
}
