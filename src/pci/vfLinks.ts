/**
 * What the links of a PF and of its VFs say, read one by one: they come and go while a scan would be under way, and
 * none of them takes a lock.
 */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { quote } from '../text/safe.ts';
import { type Address, isAddress } from './address.ts';

/**
 * The VFs of a PF by its `virtfn<n>` links, in order of n. Raises HOSTDEV_SYSFS for a link that leads to no PCI
 * address.
 */
export const vfLinks = (host: Host, pf: Address): Address[] => numberedVfs(host, pf).map((vf) => vf.address);

/** {@link vfLinks} with each VF's number n. */
export function numberedVfs(host: Host, pf: Address): { n: number; address: Address }[] {
  const names = (host.list(host.device(pf)) ?? []).filter((n) => /^virtfn\d{1,5}$/.test(n));
  names.sort((a, b) => Number(a.slice('virtfn'.length)) - Number(b.slice('virtfn'.length)));
  return names.flatMap((n) => {
    const target = host.linkName(host.device(pf, n));
    if (target === null) return [];
    if (!isAddress(target))
      throw new HostdevError('HOSTDEV_SYSFS', `${host.device(pf, n)} leads to ${quote(target)}: no PCI address`);
    return [{ n: Number(n.slice('virtfn'.length)), address: target }];
  });
}

/** The number of the IOMMU group that a device is in now; null when it is in none. */
export function groupNow(host: Host, address: Address): number | null {
  const group = host.linkName(host.device(address, 'iommu_group'));
  return group !== null && /^\d{1,7}$/.test(group) ? Number(group) : null;
}
