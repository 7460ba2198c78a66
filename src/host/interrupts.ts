/**
 * Whether the interrupts of devices are remapped, without which a guest can raise any interrupt of the host: VFIO
 * refuses such a group unless it is told to trust the guest (drivers/iommu/iommu.c iommu_group_has_isolated_msi,
 * drivers/vfio/vfio_iommu_type1.c allow_unsafe_interrupts).
 */

import { orNull } from '../errors.ts';
import { type Architecture, architecture } from './architecture.ts';
import type { Host } from './host.ts';
import { type Directive, readDirectives } from './modprobe.ts';

/** `state` is null when it could not be told; `why` says what was seen, or what was not. */
export type Remapping = { state: 'on' | 'off' | null; why: string };

/** 4,096 interrupts on 512 CPUs are 24 MB: more is not read, and then not measured. */
const MAX_INTERRUPTS = 32 * 1024 * 1024;

/**
 * The chip stands behind the counts of the CPUs. Chips above a remapping domain carry a prefix: "IR-" on x86
 * (arch/x86/kernel/apic/msi.c), "ITS-" on Arm, whose ITS isolates by itself. What follows the chip is a driver's text,
 * which could say anything.
 */
const REMAPPED = /^ *\d+:(?: +\d+)+ +(?:IR-|ITS-)/m;
const PLAIN = /^ *\d+:(?: +\d+)+ +(?:IO-APIC|PCI-MSIX?)\b/m;

/** Words of the kernel command line that switch remapping off (Documentation/admin-guide/kernel-parameters.txt). */
export const NO_REMAPPING = /^(?:intremap=(?:.*,)?off(?:,.*)?|nointremap)$/;

/**
 * Architectures that keep interrupts apart without a remapping that could be seen: on s390 each function has vectors of
 * its own (arch_is_isolated_msi in arch/s390/include/asm/msi.h); on POWER devices are handed out by spapr_tce, which
 * asks for none (drivers/vfio/vfio_iommu_spapr_tce.c).
 */
const BY_ITSELF: Partial<Record<Architecture, string>> = {
  s390: 'on s390 every PCI function has interrupt vectors of its own',
  power: 'on POWER the firmware keeps the interrupts of each partitionable endpoint apart',
};

/**
 * Tells from the architecture where that alone decides, else from the interrupt chips in proc/interrupts; where these
 * say nothing, from what must be so for remapping to be off.
 */
export function interruptRemapping(host: Host): Remapping {
  const arch = architecture(host);
  const byItself = arch === null ? undefined : BY_ITSELF[arch];
  if (byItself !== undefined) return { state: 'on', why: byItself };
  let text: string | null = null;
  let missed = `${host.interrupts}: ENOENT`;
  try {
    text = host.read(host.interrupts, MAX_INTERRUPTS);
  } catch (e) {
    missed = (e as Error).message;
  }
  if (text !== null) {
    if (REMAPPED.test(text)) return { state: 'on', why: 'interrupt chips carry IR- or ITS-' };
    if (PLAIN.test(text))
      return { state: 'off', why: whyOff(host) ?? `no interrupt chip in /${host.interrupts} is remapped` };
    missed = `${host.interrupts} shows no interrupt of a PCI device`;
  }
  const off = whyOff(host);
  return off === null ? { state: null, why: missed } : { state: 'off', why: off };
}

/** What alone keeps interrupts from being remapped: a word, or hardware and firmware of Intel's that say so. */
function whyOff(host: Host): string | null {
  const words = (orNull(() => host.read(host.cmdline, 65536)) ?? '').split(/\s+/).filter((w) => NO_REMAPPING.test(w));
  if (words.length > 0) return `the kernel command line says ${words.join(' ')}`;
  if (dmarSaysRemapping(host) === false)
    return 'the DMAR table of the firmware says that the platform has no interrupt remapping';
  const units = (orNull(() => host.list(host.classLink('iommu'))) ?? [])
    .filter((u) => /^dmar\d+$/.test(u))
    .slice(0, 64);
  const capable = units.map((u) => unitRemaps(host, u));
  return capable.length > 0 && capable.every((c) => c === false)
    ? `${units.join(', ')} can remap no interrupts (ecap)`
    : null;
}

/**
 * The DMAR table's flag "interrupt remapping supported" (VT-d 8.1, byte 37); null when the table is not there or not
 * readable.
 */
function dmarSaysRemapping(host: Host): boolean | null {
  const flags = orNull(() => host.readBytes(`${host.acpiTables}/DMAR`, 1024 * 1024))?.at(37);
  return flags === undefined ? null : (flags & 1) === 1;
}

/** Bit 3 of a unit's extended capabilities (VT-d 11.4.3, IR); null when not measured. */
function unitRemaps(host: Host, unit: string): boolean | null {
  const hex = orNull(() => host.read(host.classLink('iommu', `${unit}/intel-iommu/ecap`)))?.trim();
  return hex !== undefined && /^[0-9a-f]{1,16}$/i.test(hex) ? ((BigInt(`0x${hex}`) >> 3n) & 1n) === 1n : null;
}

/**
 * A module that hands out devices although interrupts are not remapped: `where` it says so, and the directives that
 * made it.
 */
export type Unsafe = { module: string; where: string; directives: Directive[] };

/** What says so now, or, of a module that is not loaded yet, will when it is. */
export function unsafeInterrupts(host: Host): Unsafe[] {
  const told = readDirectives(host).directives.filter(
    (d) => d.kind === 'options' && /(?:^|\s)allow_unsafe_interrupts(?:=[1Yy]\w*)?(?:\s|$)/.test(d.rest),
  );
  return ['vfio_iommu_type1', 'iommufd'].flatMap((module): Unsafe[] => {
    const parameter = host.module(module, 'parameters/allow_unsafe_interrupts');
    const now = orNull(() => host.read(parameter))?.trim();
    const directives = told.filter((d) => d.module === module);
    if (now === 'Y') return [{ module, where: `/${parameter}`, directives }];
    const [first] = directives;
    if (now !== undefined || first === undefined) return [];
    return [{ module, where: first.line === 0 ? `/${first.file}` : `/${first.file}:${first.line}`, directives }];
  });
}
