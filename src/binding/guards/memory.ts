/**
 * Memory of the host's on a function: a CXL memory device that is part of a region (drivers/cxl/core/region.c). The
 * region goes with the device's driver, and what the host has in it: system RAM above all, or a file system on pmem.
 */
import { orNull } from '../../errors.ts';
import type { Look } from '../../host/look.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import { safe } from '../../text/safe.ts';
import type { Use } from '../guards.ts';

export function memoryUses(look: Look, { address }: Pick<PciDevice, 'address'>): Use[] {
  const { host } = look;
  return look
    .names(host.cxl)
    .filter((n) => /^region\d{1,5}$/.test(n))
    .flatMap((region): Use[] => {
      const at = `${host.cxl}/${region}`;
      // One that is not committed decodes nothing.
      if (look.attribute(`${at}/commit`)?.trim() !== '1') return [];
      const targets = look.names(at).filter((n) => /^target\d{1,3}$/.test(n));
      if (!targets.some((t) => memdevOf(look, look.attribute(`${at}/${t}`)?.trim() ?? '')?.includes(`/${address}/`)))
        return [];
      const what = isSystemRam(look, at) ? ', which is system RAM' : '';
      return [{ guard: 'memory', reason: `its memory is in the CXL region ${safe(region)}${what}`, vital: true }];
    });
}

/**
 * The path of the memory device whose endpoint a decoder is of: decoder5.0 lies below endpoint5, whose `uport` leads to
 * the device (Documentation/ABI/testing/sysfs-bus-cxl). Null where it is not to be told.
 */
function memdevOf(look: Look, decoder: string): string | null {
  const { host } = look;
  const endpoint = /^decoder(\d{1,5})\.\d{1,5}$/.exec(decoder)?.[1];
  if (endpoint === undefined) return null;
  const memdev = orNull(() => host.linkName(`${host.cxl}/endpoint${endpoint}/uport`));
  return memdev === null || !/^mem\d{1,5}$/.test(memdev) ? null : orNull(() => host.link(`${host.cxl}/${memdev}`));
}

/** drivers/dax/kmem.c: the region's DAX device is on kmem. */
const isSystemRam = (look: Look, region: string): boolean => {
  const { host } = look;
  const devices = look.names(region).filter((n) => /^dax_region\d{1,5}$/.test(n));
  return devices
    .flatMap((d) => look.names(`${region}/${d}`).map((n) => `${region}/${d}/${n}`))
    .some((path) => /\/dax\d+\.\d+$/.test(path) && orNull(() => host.linkName(`${path}/driver`)) === 'kmem');
};
