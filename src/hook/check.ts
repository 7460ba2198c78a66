/** What prepare and start both ask of a domain's devices: are they there, is there an IOMMU, will the kernel hand their groups over. */
import { peerWay } from '../binding/peerWay.ts';
import { onVfio } from '../binding/perform.ts';
import type { DomainDevice, DomainDevices } from '../domain/hostDevices.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { iommuState } from '../host/iommu.ts';
import type { Address } from '../pci/address.ts';
import { parseAddress } from '../pci/address.ts';
import { type Inventory, type PciDevice, unreadOf } from '../pci/inventory.ts';
import { isVirtioIommu, noGroupReason } from '../pci/noGroup.ts';
import { makersOf } from '../pci/path.ts';
import { type Blocker, groupBlockers, groupMembers } from '../pci/vfio.ts';
import { sentence } from '../text/sentence.ts';

/** The name under which the books hold what a domain uses. Raises HOSTDEV_XML for a domain without a UUID, which libvirt never sends. */
export function domainOwner(domain: DomainDevices): `domain:${string}` {
  if (domain.uuid === null) throw new HostdevError('HOSTDEV_XML', `Domain ${domain.name} has no <uuid>`);
  return `domain:${domain.uuid}`;
}

/** The host's devices behind the domain's, in its order. Raises HOSTDEV_DEVICE_ABSENT naming all that are not there. */
export function findDevices(
  inventory: Inventory,
  domain: DomainDevices,
): { listed: DomainDevice; device: PciDevice }[] {
  const found: { listed: DomainDevice; device: PciDevice }[] = [];
  const absent: string[] = [];
  for (const listed of domain.devices) {
    const device = inventory.byAddress.get(listed.address);
    if (device) found.push({ listed, device });
    else absent.push(`${listed.address} (${listed.where})`);
  }
  const unread = absent.length === 0 ? null : domain.devices.flatMap((d) => unreadOf(inventory, d.address) ?? [])[0];
  if (unread != null) throw new HostdevError('HOSTDEV_SYSFS', unread);
  if (absent.length > 0) {
    throw new HostdevError(
      'HOSTDEV_DEVICE_ABSENT',
      `Domain ${domain.name} lists ${absent.join(', ')}, which this host does not have`,
      {
        hint: "Compare with 'hostdev list'; VFs are there only while their PF's sriov_numvfs says so.",
      },
    );
  }
  return found;
}

/** A device without a group cannot be assigned. With virtio-iommu a driverless device gets its group at probe only, so groups elsewhere are enough. */
export function checkIommu(host: Host, devices: readonly PciDevice[]): void {
  const lone = devices.filter((d) => d.iommu_group === null);
  if (lone[0] === undefined) return;
  const state = iommuState(host);
  if (!state.on) throw new HostdevError('HOSTDEV_IOMMU_OFF', `No IOMMU: ${state.reason}`);
  if (isVirtioIommu(host)) return;
  const { cause, change } = noGroupReason(host, lone[0]);
  const names = lone.map((d) => d.address).join(', ');
  throw new HostdevError(
    'HOSTDEV_IOMMU_OFF',
    `${names} ${lone.length === 1 ? 'is' : 'are'} in no IOMMU group: ${cause}`,
    {
      hint: `${sentence(change)}.`,
    },
  );
}

/** What a driver makes is gone when its device leaves it: a VF without its PF's, what is behind VMD's controller. No domain can have both, unless the PF is on VFIO already. */
export function checkFunctions(host: Host, inventory: Inventory, devices: readonly PciDevice[]): void {
  const listed = new Set(devices.map((d) => d.address));
  for (const { address } of devices) {
    const maker = makersOf(host, inventory, address).find((a) => listed.has(a));
    if (maker === undefined) continue;
    throw new HostdevError(
      'HOSTDEV_GUARD',
      `${address} is made by the driver of ${maker}, and the domain lists both: the one goes with the driver of the other`,
      { hint: `List ${address} without it, or ${maker} alone.` },
    );
  }
  const vf = devices.find((d) => d.parent_addr !== null && listed.has(d.parent_addr) && !onVfio(host, d.parent_addr));
  if (vf === undefined) return;
  throw new HostdevError(
    'HOSTDEV_GUARD',
    `${vf.address} is a VF of ${vf.parent_addr}, and the domain lists both: the VF goes with the driver of its PF`,
    { hint: 'List the PF or its VFs.' },
  );
}

/**
 * Judges the groups of the domain's devices as they will be once all that it lists is on VFIO. Raises HOSTDEV_GROUP_NOT_VIABLE naming each peer, its driver and
 * the way out: for an endpoint the XML to add, for a bridge the driver to unbind.
 */
export function checkViability(host: Host, inventory: Inventory, domain: DomainDevices): void {
  const addresses = domain.devices.map((d) => d.address);
  const { blockers, groups } = viability(host, inventory, addresses, new Set(addresses));
  if (blockers.length === 0) return;
  const peers = blockers.map((b) => `${b.address} ${b.reason}`).join(' and ');
  throw new HostdevError(
    'HOSTDEV_GROUP_NOT_VIABLE',
    `IOMMU group ${groups.join(', ')} is not viable for domain ${domain.name}: ${peers}`,
    {
      hint: sentence(blockers.map((b) => wayOut(host, inventory, b, new Set(addresses))).join('; and ')),
      data: { blockers },
    },
  );
}

/** What blocks the groups of `addresses` once all that is `listed` is on VFIO, and which groups these are. `host` null: of a saved inventory. */
export function viability(
  host: Host | null,
  inventory: Inventory,
  addresses: readonly Address[],
  listed: ReadonlySet<Address>,
): { blockers: Blocker[]; groups: number[] } {
  const groups = [...new Set(addresses.flatMap((a) => inventory.byAddress.get(a)?.iommu_group ?? []))].sort(
    (a, b) => a - b,
  );
  const blockers: Blocker[] = [];
  const blocked: number[] = [];
  for (const id of groups) {
    // What the driver of a listed one makes is gone by then.
    const goes = (a: Address): boolean => host !== null && makersOf(host, inventory, a).some((m) => listed.has(m));
    const peers = groupMembers(inventory, id).filter((d) => !listed.has(d.address) && !goes(d.address));
    const found = groupBlockers(host, id, peers);
    if (found.length > 0) blocked.push(id);
    blockers.push(...found);
  }
  return { blockers, groups: blocked };
}

function wayOut(host: Host, inventory: Inventory, blocker: Blocker, wanted: ReadonlySet<Address>): string {
  const way = peerWay(host, inventory, blocker, wanted);
  if (way.kind !== 'take') return way.text;
  const but = way.loses === '' ? '' : `, whereby the host loses ${way.loses}`;
  return `add to the domain${but}: ${unassignedXml(blocker.address)}`;
}

/** The element that makes libvirt take a group's peer away from the host without showing it to the guest (libvirt 6.0.0). */
export function unassignedXml(address: Address): string {
  const p = parseAddress(address);
  const hex = (n: number | undefined, digits: number): string => `0x${(n ?? 0).toString(16).padStart(digits, '0')}`;
  const source = `<address domain='${hex(p?.domain, 4)}' bus='${hex(p?.bus, 2)}' slot='${hex(p?.slot, 2)}' function='${hex(p?.func, 1)}'/>`;
  return `<hostdev mode='subsystem' type='pci' managed='no'><source>${source}</source><address type='unassigned'/></hostdev>`;
}
