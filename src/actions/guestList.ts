/** `guest list`, `guest show`: libvirt's guests with their host devices, as they are now and as they are kept. */
import type { Binding } from '../binding/books.ts';
import { readBooks } from '../binding/books.ts';
import { type DomainFacts, readDomainFacts } from '../domain/domainFacts.ts';
import type { DomainDevice } from '../domain/hostDevices.ts';
import type { HostdevNetwork } from '../domain/network.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { SeenDomain } from '../libvirt/domains.ts';
import type { Address } from '../pci/address.ts';
import { type Inventory, scanInventory } from '../pci/inventory.ts';
import { quote } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import { distances, type HostDevice } from './domainOnHost.ts';
import { type LibvirtSeen, seeGuests } from './guests.ts';
import type { Warned } from './options.ts';

/** One that is asked for by name may wait for a hook that runs. */
const GUESTS_MS = 10_000;

export type GuestDevice = {
  address: Address;
  kind: DomainDevice['kind'];
  managed: boolean;
  unassigned: boolean;
  /** Whether the running guest has it, its next start will, or both. */
  in: 'live' | 'kept' | 'both';
  /** The network of type hostdev that it is from; null: it is named in the domain, or which one is not to be told. */
  network: string | null;
  /** Null: this host has no such device, or it is on none. */
  driver: string | null;
  iommu_group: number | null;
  numa_node: number | null;
  numa: HostDevice['numa'];
  /**
   * Who brought it to its driver: hostdev for this guest ('hook'), for an admin or the boot; 'libvirt' itself
   * (managed); null: none of them, or it is not there yet.
   */
  prepared_by: 'hook' | 'admin' | 'boot' | 'libvirt' | null;
};

export type Guest = {
  name: string;
  uuid: string;
  active: boolean;
  persistent: boolean;
  /** Null: its XML did not come, see the warnings. */
  devices: GuestDevice[] | null;
  /** Networks of type hostdev from which it will be given a device at its start. */
  networks: string[];
};

export type Guests = Warned & { libvirt: LibvirtSeen; guests: Guest[]; networks: HostdevNetwork[] };

/** All guests. Raises what {@link seeGuests} raises. */
export async function listGuests(host: Host, connect: string | null): Promise<Guests> {
  const { libvirt, domains, networks } = await seeGuests(host, connect, GUESTS_MS);
  const inventory = scanInventory(host);
  const { books } = readBooks(host);
  const byAddress = new Map(books.map((b) => [b.address, b]));
  const warnings: Warning[] = [...inventory.warnings];
  for (const d of domains)
    if (d.why !== null) warnings.push(warning('not-measured', `what guest ${d.name} has is not known: ${d.why}`));
  return {
    libvirt,
    guests: domains.map((d) => guestOf(host, inventory, byAddress, networks, d)),
    networks,
    warnings,
  };
}

/** One guest, by name or UUID. Raises HOSTDEV_GUEST_ABSENT, and what {@link seeGuests} raises. */
export async function showGuest(
  host: Host,
  connect: string | null,
  word: string,
): Promise<Warned & { libvirt: LibvirtSeen; guest: Guest }> {
  const { libvirt, guests, warnings } = await listGuests(host, connect);
  const guest = guests.find((g) => g.uuid === word.toLowerCase()) ?? guests.find((g) => g.name === word);
  if (guest === undefined) throw new HostdevError('HOSTDEV_GUEST_ABSENT', `There is no guest ${quote(word)}`);
  return { libvirt, guest, warnings };
}

function guestOf(
  host: Host,
  inventory: Inventory,
  books: ReadonlyMap<Address, Binding>,
  networks: readonly HostdevNetwork[],
  d: SeenDomain,
): Guest {
  const { name, uuid, active, persistent, live, kept } = d;
  const of = new Map<Address, GuestDevice>();
  const half = live ?? kept;
  const facts = half === null ? null : readDomainFacts(half.domain);
  for (const [which, where] of [
    [live, 'live'],
    [kept, 'kept'],
  ] as const)
    for (const device of which?.devices.devices ?? []) {
      const known = of.get(device.address);
      if (known !== undefined) known.in = 'both';
      else of.set(device.address, guestDevice(host, inventory, books, networks, { uuid, where, device, facts }));
    }
  const pools = new Set(networks.map((n) => n.name));
  const wanted = half?.devices.networks ?? [];
  return {
    name,
    uuid,
    active,
    persistent,
    devices: d.why === null ? [...of.values()] : null,
    networks: wanted.filter((n) => pools.has(n)),
  };
}

function guestDevice(
  host: Host,
  inventory: Inventory,
  books: ReadonlyMap<Address, Binding>,
  networks: readonly HostdevNetwork[],
  of: { uuid: string; where: 'live' | 'kept'; device: DomainDevice; facts: DomainFacts | null },
): GuestDevice {
  const { address, kind, managed, unassigned } = of.device;
  const here = inventory.byAddress.get(address) ?? null;
  const pool = networks.find((n) => n.devices.includes(address));
  return {
    address,
    kind,
    managed,
    unassigned,
    in: of.where,
    network: of.where === 'live' && kind === 'interface' ? (pool?.name ?? null) : null,
    driver: here?.driver ?? null,
    iommu_group: here?.iommu_group ?? null,
    numa_node: here?.numa_node ?? null,
    numa: here === null || of.facts === null ? [] : distances(host, of.facts, here),
    prepared_by: preparedBy(books.get(address), of.uuid, managed && of.where === 'live'),
  };
}

/** A hold of the guest's with managed='yes' is the hook's note of what libvirt did. */
function preparedBy(book: Binding | undefined, uuid: string, isLibvirts: boolean): GuestDevice['prepared_by'] {
  if (isLibvirts) return 'libvirt';
  const owners = (book?.holds ?? []).map((h) => h.owner);
  if (owners.includes(`domain:${uuid}`)) return 'hook';
  return owners.includes('admin') ? 'admin' : owners.includes('boot') ? 'boot' : null;
}
