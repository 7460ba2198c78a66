/**
 * What prepare and start both ask of a domain's devices: are they there, is there an IOMMU, will the kernel hand their
 * groups over.
 */
import { peerWay } from '../binding/peerWay.ts';
import { onVfio } from '../binding/perform.ts';
import type { DomainDevice, DomainDevices } from '../domain/hostDevices.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { iommuState } from '../host/iommu.ts';
import type { Address } from '../pci/address.ts';
import { parseAddress } from '../pci/address.ts';
import { failureText, type Inventory, type PciDevice, unreadOf } from '../pci/inventory.ts';
import { isVirtioIommu, noGroupReason } from '../pci/noGroup.ts';
import { makersOf } from '../pci/path.ts';
import { type Blocker, groupBlockers, groupMembers } from '../pci/vfio.ts';
import { sentence } from '../text/sentence.ts';

/**
 * The name under which the books hold what a domain uses. Raises HOSTDEV_XML for a domain without a UUID, which libvirt
 * never sends.
 */
export function domainOwner(domain: DomainDevices): `domain:${string}` {
  if (domain.uuid === null) throw new HostdevError('HOSTDEV_XML', `Domain ${domain.name} has no <uuid>`);
  return `domain:${domain.uuid}`;
}

/**
 * What would stop a domain. `hook`: the hook itself, which cannot run what it is to start; `state`: our state is not
 * ours alone; `config`: hostdev.toml; `device`: one is absent or could not be read; `iommu`; `functions`: one goes with
 * the driver of another; `unfinished`: an earlier change; `driver`: which one it is to be is not known; `not-bound`:
 * `[hook] unmanaged = "check"`; `guard`; `group`: it is not viable.
 */
export type Objection = {
  kind:
    | 'hook'
    | 'state'
    | 'config'
    | 'device'
    | 'iommu'
    | 'functions'
    | 'unfinished'
    | 'driver'
    | 'not-bound'
    | 'guard'
    | 'group';
  /** The devices of the domain that it is about; none: the domain as a whole. */
  addresses: Address[];
  /** What prepare raises. */
  error: HostdevError;
};

/** Raises the first of the objections, as prepare and start do. */
export function raiseFirst([first]: readonly Objection[]): void {
  if (first !== undefined) throw first.error;
}

/** A device as the domain lists it, and as the host has it. */
export type Listed = { listed: DomainDevice; device: PciDevice };

/** One that is not to be had: `unread` says why it could not be read, null where the host does not have it. */
export type Missing = { listed: DomainDevice; unread: string | null };

export type Found = { devices: Listed[]; missing: Missing[]; objections: Objection[] };

/** The host's devices behind the domain's, in its order, and what speaks against them whatever drivers they are on. */
export function lookAtDevices(host: Host, inventory: Inventory, domain: DomainDevices): Found {
  const devices: Listed[] = [];
  const missing: Missing[] = [];
  for (const listed of domain.devices) {
    const device = inventory.byAddress.get(listed.address);
    if (device) devices.push({ listed, device });
    else missing.push({ listed, unread: unreadOf(inventory, listed.address) });
  }
  const there = devices.map((d) => d.device);
  const objections = [absence(domain, missing), loneness(host, there), dependence(host, inventory, there)];
  return { devices, missing, objections: objections.filter((o) => o !== null) };
}

function absence(domain: DomainDevices, missing: readonly Missing[]): Objection | null {
  if (missing.length === 0) return null;
  const addresses = missing.map((m) => m.listed.address);
  const unread = missing.flatMap((m) => m.unread ?? [])[0];
  if (unread !== undefined) return { kind: 'device', addresses, error: new HostdevError('HOSTDEV_SYSFS', unread) };
  const list = missing.map(({ listed }) => `${listed.address} (${listed.where})`).join(', ');
  const error = new HostdevError(
    'HOSTDEV_DEVICE_ABSENT',
    `Domain ${domain.name} lists ${list}, which this host does not have`,
    { hint: "Compare with 'hostdev list'; VFs are there only while their PF's sriov_numvfs says so." },
  );
  return { kind: 'device', addresses, error };
}

function loneness(host: Host, devices: readonly PciDevice[]): Objection | null {
  const error = iommuError(host, devices);
  if (error === null) return null;
  return {
    kind: 'iommu',
    addresses: devices.filter((d) => d.iommu_group === null).map((d) => d.address),
    error,
  };
}

/**
 * HOSTDEV_IOMMU_OFF for a device without a group, which cannot be assigned; null where none is. With virtio-iommu a
 * driverless device gets its group at probe only, so groups elsewhere are enough.
 */
export function iommuError(host: Host, devices: readonly PciDevice[]): HostdevError | null {
  const lone = devices.filter((d) => d.iommu_group === null);
  if (lone[0] === undefined) return null;
  const state = iommuState(host);
  if (!state.on) return new HostdevError('HOSTDEV_IOMMU_OFF', `No IOMMU: ${state.reason}`);
  if (isVirtioIommu(host)) return null;
  const { cause, change } = noGroupReason(host, lone[0]);
  const names = lone.map((d) => d.address).join(', ');
  const are = lone.length === 1 ? 'is' : 'are';
  return new HostdevError('HOSTDEV_IOMMU_OFF', `${names} ${are} in no IOMMU group: ${cause}`, {
    hint: `${sentence(change)}.`,
  });
}

/**
 * What a driver makes is gone when its device leaves it: a VF without its PF's, what is behind VMD's controller. No
 * domain can have both, unless the PF is on VFIO already.
 */
function dependence(host: Host, inventory: Inventory, devices: readonly PciDevice[]): Objection | null {
  const listed = new Set(devices.map((d) => d.address));
  const objection = (address: Address, text: string, hint: string): Objection => ({
    kind: 'functions',
    addresses: [address],
    error: new HostdevError('HOSTDEV_GUARD', `${address} is ${text}`, { hint }),
  });
  for (const { address } of devices) {
    const maker = makersOf(host, inventory, address).find((a) => listed.has(a));
    if (maker === undefined) continue;
    const text = `made by the driver of ${maker}, and the domain lists both: the one goes with the driver of the other`;
    return objection(address, text, `List ${address} without it, or ${maker} alone.`);
  }
  const vf = devices.find((d) => d.parent_addr !== null && listed.has(d.parent_addr) && !onVfio(host, d.parent_addr));
  if (vf === undefined) return null;
  const text = `a VF of ${vf.parent_addr}, and the domain lists both: the VF goes with the driver of its PF`;
  return objection(vf.address, text, 'List the PF or its VFs.');
}

/**
 * Judges the groups of the domain's devices as they will be once all that it lists is on VFIO: HOSTDEV_GROUP_NOT_VIABLE
 * naming each peer, its driver and the way out, which for an endpoint is the XML to add, for a bridge the driver to
 * unbind. HOSTDEV_SYSFS where a peer's driver could not be read. Null when they are viable.
 */
export function viabilityObjection(host: Host, inventory: Inventory, domain: DomainDevices): Objection | null {
  const addresses = domain.devices.map((d) => d.address);
  const wanted = new Set(addresses);
  const { blockers, groups } = viability(host, inventory, addresses, wanted);
  if (blockers.length === 0) return unreadPeers(host, inventory, addresses);
  const peers = blockers.map((b) => `${b.address} ${b.reason}`).join(' and ');
  const error = new HostdevError(
    'HOSTDEV_GROUP_NOT_VIABLE',
    `IOMMU group ${groups.join(', ')} is not viable for domain ${domain.name}: ${peers}`,
    {
      hint: sentence(blockers.map((b) => wayOut(host, inventory, b, wanted)).join('; and ')),
      data: { blockers },
    },
  );
  const inGroup = (a: Address): boolean => groups.includes(inventory.byAddress.get(a)?.iommu_group ?? -1);
  return { kind: 'group', addresses: addresses.filter(inGroup), error };
}

/** A peer whose driver could not be read may be on one of the host's: HOSTDEV_SYSFS; null where all are known. */
function unreadPeers(host: Host, inventory: Inventory, addresses: readonly Address[]): Objection | null {
  const groups = new Set(addresses.flatMap((a) => inventory.byAddress.get(a)?.iommu_group ?? []));
  for (const id of groups) {
    const peers = (host.list(host.group(id, 'devices')) ?? []).filter((name) => !addresses.includes(name));
    const ends = peers.flatMap((p) => [`/${p}`, `/${p}/driver`, `/${p}/iommu_group`]);
    const failure = inventory.failures.find(({ path }) => ends.some((end) => path.endsWith(end)));
    if (failure === undefined) continue;
    const text = `Whether IOMMU group ${id} is viable is not known: ${failureText(failure)}`;
    return { kind: 'group', addresses: [...addresses], error: new HostdevError('HOSTDEV_SYSFS', text) };
  }
  return null;
}

/**
 * What blocks the groups of `addresses` once all that is `listed` is on VFIO, and which groups these are. `host` null:
 * of a saved inventory.
 */
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

/**
 * The element that makes libvirt take a group's peer away from the host without showing it to the guest (libvirt
 * 6.0.0).
 */
function unassignedXml(address: Address): string {
  const p = parseAddress(address);
  const hex = (n: number | undefined, digits: number): string => `0x${(n ?? 0).toString(16).padStart(digits, '0')}`;
  const source = `<address domain='${hex(p?.domain, 4)}' bus='${hex(p?.bus, 2)}' slot='${hex(p?.slot, 2)}' function='${hex(p?.func, 1)}'/>`;
  return `<hostdev mode='subsystem' type='pci' managed='no'><source>${source}</source><address type='unassigned'/></hostdev>`;
}
