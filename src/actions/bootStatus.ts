/**
 * `boot status`: each wish, met by which stage and when, or why not; what the last boot reported, held against the
 * devices as they are now.
 */
import { isOff, readReport, reportOf, type WishReport } from '../boot/report.ts';
import type { Finding } from '../config/place.ts';
import type { Host } from '../host/host.ts';
import { type BootVital, bootVital } from './bootVital.ts';
import type { Warned } from './options.ts';
import { isOfWishes } from './wish.ts';
import { hostWishes } from './wishes.ts';

export type BootStatus = Warned & {
  /** `hostdev.off=1` is on the kernel command line. */
  off: boolean;
  /** When `boot apply` last ended in this boot; null where it did not run. */
  at: string | null;
  wishes: WishReport[];
  /** Of the wishes and their files. */
  mistakes: Finding[];
  /** Devices of the initramfs's table that the host has come to stand on; null where that is not to be told. */
  initramfs_vital: BootVital[] | null;
};

/** Reads; changes nothing, and needs no root. Raises what reading the configuration raises. */
export async function readBootStatus(host: Host): Promise<BootStatus> {
  const report = readReport(host);
  const { seen, findings, inventory } = await hostWishes(host);
  const wishes = seen.map(({ match: { wish, device }, why }): WishReport => {
    const address = device?.address ?? null;
    const now = reportOf(wish, address, why, null, report, new Date().toISOString());
    const told = report?.wishes.find((w) => w.subject === now.subject && w.address === address && !w.met);
    // Why the boot could not is more than that it is not so.
    return now.met || told === undefined
      ? { ...now, ...(report === null ? { at: null } : {}) }
      : { ...now, reason: told.reason };
  });
  const mistakes = findings.filter((f) => f.severity === 'error' && isOfWishes(f));
  return {
    off: isOff(host),
    at: report?.at ?? null,
    wishes,
    mistakes,
    initramfs_vital: await bootVital(host),
    warnings: inventory.warnings,
  };
}
