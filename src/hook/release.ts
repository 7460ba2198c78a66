/**
 * The hook's `release`: the domain's claims end, and what nobody else claims goes back to what it was. The books decide, not the XML: a device unplugged
 * while the guest ran is missing from it, and may be another guest's by now. libvirt has re-attached managed devices before this; what it leaves
 * (an override it cleared, a device its own list kept on VFIO) is put right here. Release may come without prepare, and twice.
 */
import { type Binding, readBinding, readBooks, withClaims, writeBinding } from '../binding/books.ts';
import { giveBack, type Returned } from '../binding/giveBack.ts';
import { changing, type SessionOptions } from '../binding/session.ts';
import type { DomainDevices } from '../domain/hostDevices.ts';
import type { Host } from '../host/host.ts';
import { scanInventory } from '../pci/inventory.ts';
import { domainOwner } from './check.ts';

export type Released = { devices: Returned[]; failures: { address: string; error: unknown }[]; recovered: string[] };

/**
 * Releases a domain. Failures of single devices do not stop the others; they are returned. Raises only what concerns all of it (locks, corrupt books).
 */
export async function releaseDomain(host: Host, domain: DomainDevices, options: SessionOptions): Promise<Released> {
  const owner = domainOwner(domain);
  const listed = new Set(domain.devices.map((d) => d.address));
  // A device whose last claim went while somebody else held it waits in the books for the guest that held it to end.
  const concerns = (b: Binding): boolean =>
    b.claims.some((c) => c.owner === owner) || (b.claims.length === 0 && listed.has(b.address));
  const mine = readBooks(host).filter(concerns);
  const released: Released = { devices: [], failures: [], recovered: [] };
  if (mine.length === 0) return released;
  const inventory = scanInventory(host);
  await changing(
    host,
    inventory,
    mine.map((b) => b.group),
    options,
    async (work, recovered, fresh) => {
      released.recovered.push(...recovered);
      const last: Binding[] = [];
      for (const { address } of mine) {
        const binding = readBinding(host, address);
        if (binding === null || !concerns(binding)) continue;
        const claims = binding.claims.filter((c) => c.owner !== owner);
        if (claims.length > 0) writeBinding(host, withClaims(binding, claims));
        else last.push(binding);
      }
      await Promise.all(
        last.map(async (binding) => {
          const { address } = binding;
          try {
            released.devices.push(await giveBack(work, fresh.byAddress.get(address), binding));
          } catch (error) {
            released.failures.push({ address, error });
          }
        }),
      );
    },
  );
  return released;
}
