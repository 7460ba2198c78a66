/**
 * Which architecture a root is of, by facts of that root: what is true of x86 must not be asked of the others, nor
 * advised to them.
 */

import { orNull } from '../errors.ts';
import type { Host } from './host.ts';

export type Architecture = 'x86' | 'arm' | 's390' | 'power';

/** UTS_MACHINE of each, as proc/sys/kernel/arch has it since 6.1. */
const MACHINES: readonly [RegExp, Architecture][] = [
  [/^(?:x86_64|i[3-6]86)$/, 'x86'],
  [/^(?:aarch64|arm)/, 'arm'],
  [/^s390/, 's390'],
  [/^ppc/, 'power'],
];

/**
 * How proc/cpuinfo begins (arch/…/kernel/setup.c, cpuinfo.c, processor.c); Arm names neither itself nor its maker at
 * once.
 */
const PROCESSORS: readonly [RegExp, Architecture][] = [
  [/^vendor_id\s*: IBM\/S390$/m, 's390'],
  [/^vendor_id\s*: (?:GenuineIntel|AuthenticAMD|HygonGenuine)$/m, 'x86'],
  [/^cpu\s*: POWER/m, 'power'],
  [/^CPU implementer\s*:/m, 'arm'],
];

/** Rows that proc/interrupts begins with on s390 (arch/s390/kernel/irq.c) and POWER (XICS, XIVE, OPAL's MSI) alone. */
const INTERRUPTS: readonly [RegExp, Architecture][] = [
  [/^ *(?:EXT|I\/O|AIO):/m, 's390'],
  [/^ *\d+:(?: +\d+)+ +(?:XICS|XIVE|OPAL|PNV-|pSeries-)/m, 'power'],
];

const START = 1024;
/** Behind a line with the names of 512 CPUs. */
const INTERRUPTS_START = 16 * 1024;

/** Functions that are looked at for attributes of zPCI. */
const LOOKED_AT = 4;

/**
 * The architecture of a root; null where nothing tells it. Asked in turn: what the kernel says since 6.1, the
 * processor, the rows of interrupts, the channel subsystem and zPCI's own attributes (arch/s390/pci/pci_sysfs.c),
 * POWER's firmware, Arm's unit. Never raises: what cannot be read says nothing.
 */
export function architecture(host: Host): Architecture | null {
  const machine = orNull(() => host.read(host.arch))?.trim() ?? '';
  const start = (path: string, bytes: number): string =>
    orNull(() => host.readStart(path, bytes))?.toString('latin1') ?? '';
  const says =
    (text: string) =>
    ([re]: readonly [RegExp, Architecture]) =>
      re.test(text);
  const told =
    MACHINES.find(says(machine)) ??
    PROCESSORS.find(says(start(host.cpuinfo, START))) ??
    INTERRUPTS.find(says(start(host.interrupts, INTERRUPTS_START)));
  if (told !== undefined) return told[1];
  const there = (path: string): boolean => orNull(() => host.list(path)) !== null;
  const functions = (orNull(() => host.list(host.devices)) ?? []).slice(0, LOOKED_AT);
  const isZpci = (address: string): boolean => orNull(() => host.read(host.device(address, 'function_id'))) !== null;
  if (there(host.channelSubsystem) || functions.some(isZpci)) return 's390';
  if (there(host.opal) || /ibm,(?:powernv|pseries)/.test(orNull(() => host.read(host.deviceTreeCompatible)) ?? ''))
    return 'power';
  return (orNull(() => host.list(host.classLink('iommu'))) ?? []).some((u) => u.startsWith('smmu')) ? 'arm' : null;
}

/** True when the firmware described the machine by a device tree: then there are no ACPI tables to look for. */
export const hasDeviceTree = (host: Host): boolean => orNull(() => host.list(host.deviceTree)) !== null;
