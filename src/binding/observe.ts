/**
 * What a device is on now. A device that hangs is not touched again before the hang has ended: it is looked up in the
 * quarantine first, and one that hangs now is put there, with who holds it.
 */
import { HostdevError, isGone, isSysError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { linkForVfs } from '../pci/interfaces.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { parseOverride } from '../pci/override.ts';
import { vfLinks } from '../pci/vfLinks.ts';
import { quote } from '../text/safe.ts';
import { type Access, accessError, noAnswer, readAttribute } from './access.ts';
import { quarantine, readQuarantine, stuckError } from './quarantine.ts';
import { type DeviceState, MAX_VFS, recordedVfs, type SriovState, type VfState } from './state.ts';
import { usesNow } from './usage.ts';

export type Seen = DeviceState & { overrideBytes: string };

/**
 * What is observed of a device now, or in a dry run of it then; null when the device itself is gone. `overrideBytes` is
 * the attribute as read.
 */
export async function observe(work: Access, address: Address): Promise<Seen | null> {
  const { host } = work;
  try {
    const overrideBytes = await readLocked(work, address, host.device(address, 'driver_override'));
    const now = { driver: host.linkName(host.device(address, 'driver')), override: parseOverride(overrideBytes) };
    return { ...now, ...work.foreseen?.states.get(address), overrideBytes };
  } catch (e) {
    if (isGone(e) && host.list(host.device(address)) === null) return null;
    throw accessError(address, `Failed to read driver_override of ${address}`, e);
  }
}

/**
 * {@link readAttribute} of a device that does not hang. Raises HOSTDEV_STUCK, and HOSTDEV_TIMEOUT for one that hangs
 * now.
 */
export async function readLocked(work: Access, address: Address, path: string): Promise<string> {
  const stuck = readQuarantine(work.host, address);
  if (stuck !== null) throw stuckError(stuck);
  try {
    return await readAttribute(work, address, path);
  } catch (e) {
    throw remembered(work.host, e);
  }
}

/**
 * The error of an access, told with who holds the device where it did not come back, which the quarantine then
 * remembers.
 */
export function remembered(host: Host, e: unknown): unknown {
  const hang = noAnswer(e);
  if (hang === null || !(e instanceof HostdevError)) return e;
  const { address, path, helper } = hang;
  const holders = holderLines(host, address, path);
  if (helper !== null) quarantine(host, { address, path, helper, holders });
  const by = holders.length > 0 ? `in use: ${holders.join(', ')}` : 'the device is held';
  return new HostdevError('HOSTDEV_TIMEOUT', `${e.message}, ${by}`, { cause: e.cause });
}

/**
 * Who uses the device that hangs: nothing that is looked at here takes its lock. Its driver is the one it had, where
 * `path` is that driver's unbind file.
 */
function holderLines(host: Host, address: Address, path: string): string[] {
  const device = host.list(host.device(address)) === null ? undefined : scanInventory(host).byAddress.get(address);
  const driver = /\/drivers\/([^/]+)\/unbind$/.exec(path)?.[1] ?? device?.driver ?? null;
  return device === undefined ? [] : usesNow(host, { ...device, driver });
}

export type SeenSriov = SriovState & { vfs: VfState[]; numvfs_bytes: string; autoprobe_bytes: string | null };

/**
 * What a PF's SR-IOV is now. Raises HOSTDEV_NO_SRIOV when it has no sriov_numvfs (any more), HOSTDEV_SYSFS for content
 * that the kernel does not write, HOSTDEV_TIMEOUT when it does not answer.
 */
export async function observeSriov(work: Access, pf: Address): Promise<SeenSriov> {
  const { host } = work;
  const bytes = await readNumvfs(work, pf);
  const autoprobe = host.read(host.device(pf, 'sriov_drivers_autoprobe'));
  if (autoprobe !== null && autoprobe !== '0' && autoprobe !== '1')
    throw new HostdevError('HOSTDEV_SYSFS', `${host.device(pf, 'sriov_drivers_autoprobe')} reads ${quote(autoprobe)}`);
  const found = await Promise.all(
    vfLinks(host, pf).map(async (address) => ({ address, now: await observe(work, address) })),
  );
  const now = found.flatMap(({ address, now }) =>
    now === null ? [] : [{ address, driver: now.driver, override: now.override }],
  );
  const then = work.foreseen?.sriov.get(pf);
  const link = linkForVfs(host, pf);
  return {
    numvfs: then?.numvfs ?? count(host, pf, bytes),
    autoprobe: then?.autoprobe ?? (autoprobe === null ? null : autoprobe === '1'),
    vfs: then === undefined ? now : recordedVfs(then),
    ...(link === null ? {} : { link: link.up ? ('up' as const) : ('down' as const) }),
    numvfs_bytes: bytes,
    autoprobe_bytes: autoprobe === null ? null : `${autoprobe}\n`,
  };
}

/** How many VFs a PF says it has. Raises as {@link observeSriov}. */
export const observeNumvfs = async (work: Access, pf: Address): Promise<number> =>
  count(work.host, pf, await readNumvfs(work, pf));

async function readNumvfs(work: Access, pf: Address): Promise<string> {
  const path = work.host.device(pf, 'sriov_numvfs');
  try {
    return await readLocked(work, pf, path);
  } catch (e) {
    if (e instanceof HostdevError) throw e;
    if (isGone(e)) throw new HostdevError('HOSTDEV_NO_SRIOV', `${pf} has no sriov_numvfs: it is no PF`, { cause: e });
    throw new HostdevError('HOSTDEV_SYSFS', `Failed to read ${path}: ${isSysError(e) ? e.code : e}`, { cause: e });
  }
}

function count(host: Host, pf: Address, bytes: string): number {
  const text = bytes.split('\n', 1)[0] ?? '';
  if (/^\d{1,5}$/.test(text) && Number(text) <= MAX_VFS) return Number(text);
  throw new HostdevError('HOSTDEV_SYSFS', `${host.device(pf, 'sriov_numvfs')} reads ${quote(text)}: no count`);
}

/**
 * The devices that are there of `addresses`, with the drivers and VFs that they have now; what else is of them is as
 * `inventory` has it. Takes no lock.
 */
export function devicesNow(host: Host, inventory: Inventory, addresses: readonly Address[]): PciDevice[] {
  const there = addresses.filter((a) => host.list(host.device(a)) !== null);
  const known = there.every((a) => inventory.byAddress.has(a)) ? inventory : scanInventory(host);
  return there.flatMap((a) => {
    const device = known.byAddress.get(a);
    if (device === undefined) return [];
    const sriov_numvfs = device.sriov_numvfs === null ? null : vfLinks(host, a).length;
    return [{ ...device, driver: host.linkName(host.device(a, 'driver')), sriov_numvfs }];
  });
}
