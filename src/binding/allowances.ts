/** `[[allow]]` of hostdev.toml: which guards an admin has lifted beforehand, for a device and a domain. */
import type { Host } from '../host/host.ts';
import { canonicalAddress } from '../pci/address.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { addressOfNode } from '../pci/resolve.ts';
import type { Claim } from './books.ts';
import type { Allowance, Guard } from './guards.ts';

/**
 * The guards that the allowances lift for `device` when `claim` (owner "domain:<uuid>", name) takes it. A device is named as on the command line: address, nodedev
 * name, vendor:device (every such device), /dev node, network interface; a domain by its name or UUID. What names nothing lifts nothing.
 */
export function liftedFor(
  host: Host,
  device: PciDevice,
  allowances: readonly Allowance[],
  claim: Pick<Claim, 'owner' | 'name'>,
): ReadonlySet<Guard> {
  const fits = (a: Allowance): boolean =>
    (a.domain === null || a.domain === claim.name || `domain:${a.domain.toLowerCase()}` === claim.owner) &&
    isMeant(host, device, a.device);
  return new Set(allowances.filter(fits).map((a) => a.guard));
}

function isMeant(host: Host, device: PciDevice, word: string): boolean {
  const address = canonicalAddress(word);
  if (address !== null) return address === device.address;
  if (/^[0-9a-f]{4}:[0-9a-f]{4}$/i.test(word)) return word.toLowerCase() === `${device.vendor_id}:${device.product_id}`;
  return addressOfNode(host, word) === device.address;
}
