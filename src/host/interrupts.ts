/**
 * Whether the interrupts of devices are remapped, without which a guest can raise any interrupt of the host: VFIO refuses such a group unless it is told to trust the
 * guest (drivers/iommu/iommu.c iommu_group_has_isolated_msi, drivers/vfio/vfio_iommu_type1.c allow_unsafe_interrupts).
 */
import type { Host } from './host.ts';

/** `state` is null when it could not be told; `why` says then why, and for 'off' what was seen. */
export type Remapping = { state: 'on' | 'off' | null; why: string };

/** 4,096 interrupts on 512 CPUs are 24 MB: more is not read, and then not measured. */
const MAX_INTERRUPTS = 32 * 1024 * 1024;

/**
 * The chip stands behind the counts of the CPUs. Chips above a remapping domain carry a prefix: "IR-" on x86 (arch/x86/kernel/apic/msi.c), "ITS-" on Arm, whose ITS isolates
 * by itself. What follows the chip is a driver's text, which could say anything.
 */
const REMAPPED = /^ *\d+:(?: +\d+)+ +(?:IR-|ITS-)/m;
const PLAIN = /^ *\d+:(?: +\d+)+ +(?:IO-APIC|PCI-MSIX?)\b/m;

/** Tells from the interrupt chips in proc/interrupts. */
export function interruptRemapping(host: Host): Remapping {
  let text: string | null;
  try {
    text = host.read(host.interrupts, MAX_INTERRUPTS);
  } catch (e) {
    return { state: null, why: (e as Error).message };
  }
  if (text === null) return { state: null, why: `${host.interrupts}: ENOENT` };
  if (REMAPPED.test(text)) return { state: 'on', why: 'interrupt chips carry IR- or ITS-' };
  if (PLAIN.test(text)) return { state: 'off', why: `no interrupt chip in /${host.interrupts} is remapped` };
  return { state: null, why: `${host.interrupts} shows no interrupt of a PCI device` };
}

/** Parameters by which VFIO hands out devices although interrupts are not remapped: module and whether it says Y. Unreadable ones are left out. */
export function unsafeInterruptsAllowed(host: Host): string[] {
  return ['vfio_iommu_type1', 'iommufd'].filter((module) => {
    try {
      return host.read(host.module(module, 'parameters/allow_unsafe_interrupts'))?.trim() === 'Y';
    } catch {
      return false;
    }
  });
}

/** The DMAR table's flag "interrupt remapping supported" (VT-d 8.1, byte 37); null when the table is not there or not readable. */
export function dmarSaysRemapping(host: Host): boolean | null {
  try {
    const flags = host.readBytes(`${host.acpiTables}/DMAR`, 1024 * 1024)?.at(37);
    return flags === undefined ? null : (flags & 1) === 1;
  } catch {
    return null;
  }
}
