/**
 * How much memory a guest must be allowed to lock: libvirt's qemuDomainGetMemLockLimitBytes (qemu/qemu_domain.c, 9.0 to
 * 11.3), x86 and Arm.
 */
import type { DomainFacts } from '../domainFacts.ts';

/** What libvirt adds for everything besides the guest's memory. */
const EXTRA_KIB = 1024 * 1024;

export type Memlock = {
  /** null: no limit is needed, or none is set; see `why`. */
  kib: number | null;
  why: string;
};

/**
 * The limit that libvirt sets before the start. Each NVMe disk and vDPA device locks all memory once; VFIO devices once
 * together, but each for itself behind a vIOMMU.
 */
export function memlockNeeded(d: DomainFacts): Memlock {
  const vfio = d.vfioDevices + d.mdevs;
  const others = d.nvmeDisks + d.vdpaDevices;
  if (d.locked) return { kib: null, why: '<locked/> lifts the limit' };
  if (vfio + others === 0) return { kib: null, why: 'the domain takes nothing that locks its memory' };
  if (d.memoryKib === null) return { kib: null, why: 'the memory of the domain is not known' };
  const factor = others + (vfio === 0 ? 0 : d.iommus.length > 0 ? vfio : 1);
  const times = factor === 1 ? 'all of it once' : `all of it ${factor} times`;
  return {
    kib: factor * d.memoryKib + EXTRA_KIB,
    why: `${times}, and 1 GiB${d.iommus.length > 0 && vfio > 1 ? ': behind a vIOMMU each device counts' : ''}`,
  };
}
