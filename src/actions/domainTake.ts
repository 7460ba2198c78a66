/**
 * The devices that a domain is to take: named, with the peers that have to come along, and what the host says to it.
 */
import { printedRefusals, refusalError } from '../binding/guards.ts';
import { type PeerWay, peerWay } from '../binding/peerWay.ts';
import { unfit } from '../domain/device/devices.ts';
import { type Hostdev, hostdevElement, type Rom } from '../domain/device/fragments.ts';
import { type Nic, nicElement } from '../domain/device/nic.ts';
import { nvmeDiskElement } from '../domain/device/nvmeDisk.ts';
import type { DomainDevices } from '../domain/hostDevices.ts';
import type { XmlElement } from '../domain/xml/write.ts';
import { HostdevError, isSysError } from '../errors.ts';
import { type Objection, viability } from '../hook/check.ts';
import { leftToAdmin, liftedHereOnly, type Preview, previewHook } from '../hook/preview.ts';
import type { Host } from '../host/host.ts';
import { iommuState } from '../host/iommu.ts';
import type { Address } from '../pci/address.ts';
import { type Inventory, isBridge, type PciDevice } from '../pci/inventory.ts';
import { resolveDevice } from '../pci/resolve.ts';
import { vendorVfio } from '../pci/vendorVfio.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { sentence } from '../text/sentence.ts';
import { type Warning, warning } from '../text/warning.ts';
import { type AskedNic, type behindInterfaces, bindNic } from './domainNic.ts';
import type { ActionOptions } from './options.ts';

export type TakeRequest = {
  /** Words of contract 2. */
  add: readonly string[];
  /** Null is libvirt's and Nova's usual 'yes', and 'no' for a device whose own driver is its VFIO provider. */
  managed: boolean | null;
  model: string | null;
  rom: Rom | null;
  boot: number | null;
  /** Null: as `<hostdev>`. */
  nic: AskedNic | null;
  unassignedPeers: boolean;
  /** All of them on one slot of the guest, as functions of one card. */
  oneSlot: boolean;
  /** As a disk of QEMU's own NVMe driver, this namespace of it; null: as `<hostdev>`. */
  namespace: number | null;
};

/** A device for the domain; `managed` is what its device_spec says where it came from the pools, else null. */
export type Taken = { device: PciDevice; managed: boolean | null };

/** A function that an interface of the domain sits on, and which. */
export type UnderInterface = ReturnType<typeof behindInterfaces>[number];

/** A device and the element by which the domain takes it. */
export type Added = {
  address: Address;
  device: PciDevice;
  unassigned: boolean;
  element: XmlElement;
  managed: boolean;
  nic: Nic | null;
};

/**
 * The devices that were named, each that the domain can take and has not yet, under one of its interfaces (`under`)
 * either. Raises HOSTDEV_DOMAIN_UNFIT, HOSTDEV_GUARD for a bridge, HOSTDEV_USAGE for one named twice.
 */
export function namedDevices(
  host: Host | null,
  inventory: Inventory,
  domain: DomainDevices,
  under: readonly UnderInterface[],
  { add }: TakeRequest,
): PciDevice[] {
  const devices = new Map<Address, PciDevice>();
  for (const word of add) {
    const device = resolveDevice(host, inventory, word);
    const listed = domain.devices.find((d) => d.address === device.address);
    if (listed)
      throw unfit(
        `Domain ${domain.name} takes ${device.address} already: ${listed.where}`,
        `Leave it out, or take it out first with --remove ${device.address}.`,
      );
    const carried = under.find((u) => u.address === device.address);
    if (carried)
      throw unfit(
        `Domain ${domain.name} uses ${device.address} already: ${carried.where} sits on it`,
        'Leave it out, or take that <interface> out first with virsh edit.',
      );
    if (devices.has(device.address))
      throw new HostdevError('HOSTDEV_USAGE', `${device.address} is named twice`, { hint: 'Name each device once.' });
    if (isBridge(device)) refuseBridge(inventory, device);
    devices.set(device.address, device);
  }
  return [...devices.values()];
}

function refuseBridge(inventory: Inventory, device: PciDevice): never {
  const peers = inventory.devices.filter(
    (d) => d.iommu_group !== null && d.iommu_group === device.iommu_group && !isBridge(d),
  );
  const behind = peers.length > 0 ? ` In its group: ${peers.map((d) => d.address).join(', ')}.` : '';
  throw new HostdevError(
    'HOSTDEV_GUARD',
    `${device.address} is a bridge (class ${device.class}): VFIO does not take it`,
    {
      hint: `Name the devices behind it instead.${behind}`,
    },
  );
}

/**
 * A device as the element that was asked for. The tag `managed` of a device_spec counts for `<hostdev>` alone: Nova's
 * interfaces are always managed (nova/virt/libvirt/config.py of 33.0.0). Raises HOSTDEV_DOMAIN_UNFIT when it cannot be
 * that element. `target` gives a name for a disk.
 */
export function addedDevice(
  host: Host | null,
  { device, managed: tagged }: Taken,
  request: TakeRequest,
  target: () => string,
  warnings: Warning[],
): Added {
  const { address, driver } = device;
  const passed = {
    address,
    managed: request.managed ?? (request.nic === null ? tagged : null) ?? vendorVfio(host, device) === null,
    model: request.model,
    rom: request.rom,
    boot: request.boot,
  };
  const { managed } = passed;
  if (request.nic !== null) {
    const nic = bindNic(host, device, request.nic);
    if (tagged === false && request.managed === null && nic.hostNode === null)
      warnings.push(
        warning(
          'managed',
          `${address}: its device_spec says managed "no", which as in Nova does not count for --vnic: --managed no does`,
          address,
        ),
      );
    return { address, device, unassigned: false, element: nicElement(nic, passed), managed, nic };
  }
  if (request.namespace !== null) {
    // PCI_CLASS_STORAGE_EXPRESS (include/linux/pci_ids.h).
    if (device.class?.startsWith('0108') === false)
      throw unfit(`${address} is no NVMe controller (class ${device.class})`, 'Leave --nvme out to take it as it is.');
    const element = nvmeDiskElement(passed, request.namespace, target());
    return { address, device, unassigned: false, element, managed, nic: null };
  }
  if (!managed && request.managed === null && tagged === null)
    warnings.push(
      warning(
        'vendor-vfio',
        `${address}: managed='no', for it stays on ${driver}, its own driver and VFIO provider`,
        address,
      ),
    );
  if (managed && driver !== null && driver !== 'vfio-pci' && isVfioDriver(host, address, driver))
    warnings.push(
      warning('managed', `${address} is on ${driver}, which is VFIO's already: --managed no leaves it there`, address),
    );
  return {
    address,
    device,
    unassigned: false,
    element: hostdevElement({ ...passed, unassigned: false }),
    managed,
    nic: null,
  };
}

/** A macvtap or vDPA interface leaves the function on its host driver. */
export const takesFunction = ({ nic }: Added): boolean =>
  nic === null || nic.shape === 'direct' || nic.shape === 'physical';

/**
 * The peers that keep the added devices' groups from the guest, as devices that only leave the host. Raises
 * HOSTDEV_GROUP_NOT_VIABLE.
 */
export function peersOf(
  host: Host | null,
  inventory: Inventory,
  domain: DomainDevices,
  added: readonly Added[],
  request: TakeRequest,
  warnings: Warning[],
): Added[] {
  const taking = added.filter(takesFunction);
  const addresses = taking.map((a) => a.device.address);
  if (host === null) {
    const unknown = taking.filter((a) => a.device.iommu_group === null).map((a) => a.device.address);
    if (unknown.length > 0)
      warnings.push(warning('not-measured', `${unknown.join(', ')}: the inventory does not tell the IOMMU group`));
  } else if (taking.some((a) => a.device.iommu_group === null)) {
    const { on, reason } = iommuState(host);
    const text = on ? `${addresses.join(', ')}: not all are in an IOMMU group yet` : `no IOMMU here: ${reason}`;
    warnings.push(warning('no-iommu', text));
  }
  const listed = new Set([...domain.devices.map((d) => d.address), ...addresses]);
  const { blockers, groups } = viability(host, inventory, addresses, listed);
  if (blockers.length === 0) return [];
  const wanted = new Set(addresses);
  const ways = blockers.map((b) => ({ address: b.address, way: peerWay(host, inventory, b, wanted) }));
  const others = ways.flatMap(({ way }) => (way.kind === 'take' ? [] : [way.text]));
  if (others.length > 0 || !request.unassignedPeers) {
    const peers = blockers.map((b) => `${b.address} ${b.reason}`).join(' and ');
    const endpoints = ways.filter((w) => w.way.kind === 'take').map((w) => w.address);
    const all = [
      ...(endpoints.length === 0 || request.unassignedPeers
        ? []
        : [
            `give --unassigned-peers to take ${endpoints.join(', ')} from the host too, unseen by the guest, or name them too${lossesWith(ways)}`,
          ]),
      ...others,
    ];
    throw new HostdevError(
      'HOSTDEV_GROUP_NOT_VIABLE',
      `IOMMU group ${groups.join(', ')} would not be viable: ${peers}`,
      {
        hint: `${sentence(all.join('; and '))}.`,
        data: { blockers },
      },
    );
  }
  warnings.push(
    ...ways.flatMap((w) => lossOf(w).map((l) => warning('host-loses', `${w.address}: the host loses ${l}`, w.address))),
  );
  const managed = request.managed ?? true;
  return blockers.flatMap((b) => {
    const device = inventory.byAddress.get(b.address);
    const h: Hostdev = { address: b.address, managed, model: null, rom: null, boot: null, unassigned: true };
    return device
      ? [{ address: b.address, device, unassigned: true, element: hostdevElement(h), managed, nic: null }]
      : [];
  });
}

type Peer = { address: Address; way: PeerWay };
const lossOf = ({ way }: Peer): string[] => (way.kind === 'take' && way.loses !== '' ? [way.loses] : []);
const lossesWith = (ways: readonly Peer[]): string => {
  const told = ways.flatMap((w) => lossOf(w).map((l) => `with ${w.address} ${l}`));
  return told.length === 0 ? '' : ` (the host loses ${told.join('; ')})`;
};

/**
 * What the hook would say to the planned domain, as `planned` reads it. Raises for what stands against a device that is
 * put in: HOSTDEV_GUARD for a peer that the host needs, which nobody named, and as {@link refusePlan}. What stands
 * against devices that the domain had before is a warning: an edit need not mend everything at once. Null where the
 * domain takes none, or the answer is not known.
 */
export async function askHook(
  host: Host,
  inventory: Inventory,
  planned: DomainDevices,
  added: readonly Added[],
  options: ActionOptions,
  warnings: Warning[],
): Promise<Preview | null> {
  if (planned.devices.length === 0) return null;
  let preview: Preview;
  try {
    preview = await previewHook(host, inventory, planned, { ...options, deadlineMs: LOOK_MS });
  } catch (e) {
    if (!isSysError(e)) throw e;
    warnings.push(warning('not-measured', `the hook's answer is not known: ${e.message}`));
    return null;
  }
  const taking = new Set(added.filter(takesFunction).map((a) => a.device.address));
  const peers = new Set(added.filter((a) => a.unassigned).map((a) => a.device.address));
  const needed = preview.refusals.filter((r) => peers.has(r.address) && r.guard !== 'not-measured');
  if (needed.length > 0) {
    throw new HostdevError(
      'HOSTDEV_GUARD',
      `The host needs a peer: ${needed.map((r) => `${r.address}: ${r.reason}`).join('; ')}`,
      {
        hint: `If it can really do without, name it: --device ${needed[0]?.address}.`,
        data: { refusals: printedRefusals(needed) },
      },
    );
  }
  const said = saying(preview);
  for (const objection of preview.objections) {
    const { addresses, error, open } = objection;
    const mine = taking.size > 0 && (addresses.length === 0 || addresses.some((a) => taking.has(a)));
    if (mine && !open) refusePlan(preview, objection, taking, said);
    const says = open ? 'whether the hook refuses it, only root can see' : said;
    warnings.push(warning('hook-refuses', `${error.message}: ${says}`, addresses.length === 1 ? addresses[0] : null));
  }
  warnings.push(...preview.warnings, ...liftedHereOnly(preview));
  const left = leftToAdmin(preview, (d) => taking.has(d.listed.address));
  if (left !== null) warnings.push(warning(left.id, `${left.cause}: ${left.fix}`));
  return preview;
}

/** How the hook's refusal is told: nothing is promised of a hook that is not there. */
const saying = ({ runs }: Preview): string =>
  runs ? 'the hook will refuse the guest' : 'the hook would refuse the guest, and none runs here';

/**
 * Raises the guards' own error for what they refuse of the devices that are put in, else HOSTDEV_HOOK_REFUSES: exit 5
 * both.
 */
function refusePlan(
  { refusals }: Preview,
  { kind, addresses, error }: Objection,
  taking: ReadonlySet<Address>,
  said: string,
): never {
  const guards = kind === 'guard' ? refusalError(refusals.filter((r) => taking.has(r.address))) : null;
  const { message, hint, data } = guards ?? error;
  const code = guards?.code ?? 'HOSTDEV_HOOK_REFUSES';
  throw new HostdevError(code, `${message}: ${said}`, { hint, data: { ...data, reason: error.code, addresses } });
}

/** Nobody waits half a minute for a plan because a device does not answer. */
const LOOK_MS = 5000;
