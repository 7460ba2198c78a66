/**
 * Versions of libvirt and QEMU as numbers that can be compared: libvirt's own form, major * 1000000 + minor * 1000 +
 * micro.
 */

export type Version = number;

/**
 * The versions that a domain is judged for; null is not known, and rules that depend on it then say so instead of
 * guessing.
 */
export type Versions = { libvirt: Version | null; qemu: Version | null };

/**
 * "11.10.0", "7.2", "9.0.0-4+deb12u2", "10.0.13 (Debian 1:10.0.13+ds)": what stands behind the numbers is a packager's.
 */
const VERSION = /^(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?(?![\d.])/;

/** Reads a version; null when `text` does not begin with two or three numbers. */
export function parseVersion(text: string): Version | null {
  const m = VERSION.exec(text.slice(0, 64));
  return m ? Number(m[1]) * 1_000_000 + Number(m[2]) * 1000 + Number(m[3] ?? 0) : null;
}

/** The text of a version: `11010000` gives `11.10.0`. */
export function formatVersion(v: Version): string {
  return `${Math.floor(v / 1_000_000)}.${Math.floor(v / 1000) % 1000}.${v % 1000}`;
}

/** A version that the code itself spells. */
export function version(text: string): Version {
  const v = parseVersion(text);
  if (v === null) throw new Error(`no version: ${text}`);
  return v;
}

/** True when the version is known and below: what is not known is never held against a domain. */
export const below = (v: Version | null, from: Version): boolean => v !== null && v < from;

/** What OpenStack asks for PCI passthrough, and the oldest that hostdev's rules are about (Nova's pci-passthrough). */
const LEAST = { libvirt: version('6.0.0'), QEMU: version('4.2.0') };

/** Those of the two that are older; what is not known is not. */
export function tooOld({ libvirt, qemu }: Versions): { program: keyof typeof LEAST; is: string; least: string }[] {
  const found = { libvirt, QEMU: qemu };
  return (['libvirt', 'QEMU'] as const).flatMap((program) => {
    const is = found[program];
    return is === null || is >= LEAST[program]
      ? []
      : [{ program, is: formatVersion(is), least: formatVersion(LEAST[program]) }];
  });
}

/** How that is told. */
export const tooOldText = ({ program, is, least }: ReturnType<typeof tooOld>[number]): string =>
  `this is ${program} ${is}, and PCI passthrough wants ${least} at least: older ones have faults with it`;

export const sinceLibvirt = (v: Version): string => `libvirt ${formatVersion(v)}`;
export const sinceQemu = (v: Version): string => `QEMU ${formatVersion(v)}`;
