/** That something vital has moved onto a device of the initramfs's table, for whoever looks at the host. */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { hasFile } from '../store/files.ts';

/** A device that the next boot would take from the host that stands on it, and what stands there. */
export type BootVital = { address: string; reason: string };

/**
 * Those devices; null where that is not to be told. What reads the table and asks the guards is loaded where there is a
 * table. Raises nothing of our own.
 */
export async function bootVital(host: Host): Promise<BootVital[] | null> {
  try {
    if (!hasFile(host, host.bootTable)) return [];
    const { nowKept } = await import('./bootInstall.ts');
    return (await nowKept(host)).map(({ address, reason }) => ({ address, reason }));
  } catch (e) {
    if (e instanceof HostdevError) return null;
    throw e;
  }
}
