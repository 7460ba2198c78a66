/**
 * The network interfaces of a function and what the host does over them, directly and through everything stacked on
 * them.
 */
import { blockLayer } from '../../host/blockLayer.ts';
import type { Host } from '../../host/host.ts';
import { Look, type Tables } from '../../host/look.ts';
import { isVitalPoint } from '../../host/mounts.ts';
import {
  defaultInterfaces,
  interfaceFolder,
  interfacesOf,
  isCarriedUnseen,
  isPpp,
  isUp,
  isVrf,
  trafficOf,
  uppersOf,
  wayTo,
} from '../../host/networkLayer.ts';
import { remotes } from '../../host/remoteDisks.ts';
import type { Address } from '../../pci/address.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import { type Representor, representorOf, representorText } from '../../pci/representors.ts';
import { addressOfClass } from '../../pci/resolve.ts';
import { safe } from '../../text/safe.ts';
import type { Use } from '../guards.ts';
import { stackUses } from './disk.ts';

/** Drivers of network functions that make no interface: what uses the device is then a process. */
const NO_INTERFACE = new Set(['uio_pci_generic', 'igb_uio', 'pci-stub', 'pciback']);

/** True for a network function whose host driver shows no interface, neither here nor elsewhere. */
export const lacksInterface = (tables: Tables, device: Pick<PciDevice, 'address' | 'class' | 'driver'>): boolean =>
  device.class?.startsWith('02') === true &&
  device.driver !== null &&
  !NO_INTERFACE.has(device.driver) &&
  interfaceFolder(tables, device.address) === 'none';

export function networkUses(look: Look, device: Pick<PciDevice, 'address' | 'class' | 'driver'>): Use[] {
  const names = interfacesOf(look, device.address);
  const uses = names.flatMap((n) => interfaceUses(look, n, device.address));
  if (names.length === 0) {
    const folder = interfaceFolder(look.tables, device.address);
    if (folder === 'elsewhere')
      // What is done with it there is not to be seen.
      uses.push({
        guard: 'network',
        reason: 'its network interface was given to another network namespace',
        vital: true,
      });
    else if (lacksInterface(look.tables, device))
      look.miss(`the network interface that ${safe(device.driver ?? 'its driver')} has on it: none is to be seen`);
  }
  return uses;
}

/** Every representor of this network namespace, once per plan. */
const allRepresentors = (host: Host): Representor[] =>
  (host.list(host.classLink('net')) ?? []).flatMap((name) => {
    const below = addressOfClass(host, 'net', name);
    return (below === null ? null : representorOf(host, name, below)) ?? [];
  });

/** `bridge`: the bridge or Open vSwitch that it is a port of; null for none. */
export type Port = { representor: Representor; bridge: string | null };

/** The representors that `which` names, each with what it is a port of: they go when the VFs do. */
export const representorPorts = (look: Look, which: (r: Representor) => boolean): Port[] =>
  look.tables
    .once(allRepresentors)
    .filter(which)
    .map((representor) => ({
      representor,
      bridge: uppersOf(look, representor.name).find((u) => u.isPart)?.name ?? null,
    }));

/** "eth0 is the representor of VF 1 of 0000:81:00.0: it goes with the VF, and is a port of ovs-system". */
export const goingText = ({ representor, bridge }: Port): string =>
  `${safe(representorText(representor))}: it goes with the VF${bridge === null ? '' : `, and is a port of ${safe(bridge)}`}`;

/**
 * True for a VF whose wire ends in the host's own switch: what the host sends to the switch's ports, it does not send
 * over the VF.
 */
const isSwitched = (look: Look, vf: Address): boolean =>
  representorPorts(look, (r) => r.vf === vf).some((p) => p.bridge !== null);

function interfaceUses(look: Look, name: string, below: Address): Use[] {
  const uses: Use[] = [];
  const say = (reason: string, vital: boolean): void => {
    uses.push({ guard: 'network', reason, vital });
  };
  const own = trafficOf(look, name);
  if (own.isDefault) say(`${safe(name)} has the default route`, true);
  else if (own.address !== null) say(`${safe(name)} has ${addressText(own.address)}`, false);
  for (const tunnel of look.tables.once(unseenDefaults))
    if (
      tunnel !== name &&
      isUp(look, name) &&
      !(own.address === null && !isPpp(look, tunnel) && isSwitched(look, below))
    )
      say(`${safe(name)} is up and may carry ${safe(tunnel)}, which has the default route`, true);
  // Each upper once: a ring of links ends here.
  const seen = new Set([name]);
  const queue = [name];
  for (let lower = queue.shift(); lower !== undefined; lower = queue.shift()) {
    for (const upper of uppersOf(look, lower)) {
      if (seen.has(upper.name)) continue;
      seen.add(upper.name);
      queue.push(upper.name);
      const on = `${safe(lower)} ${upper.isPart ? 'is part of' : 'is below'} ${safe(upper.name)}`;
      const traffic = trafficOf(look, upper.name);
      // Its table is in no list of proc: what leaves by it, the default route too, is not to be seen.
      if (isVrf(look, upper.name)) {
        say(`${on}, a VRF whose routes are not to be seen`, true);
        continue;
      }
      const and = traffic.isDefault
        ? ', which has the default route'
        : traffic.address !== null
          ? `, which has ${addressText(traffic.address)}`
          : '';
      say(on + and, traffic.isDefault);
    }
  }
  for (const { what, address, vital } of look.tables.once(remoteUses)) {
    const way = address === null ? null : wayTo(look, address);
    if (way !== null && seen.has(way))
      say(`${safe(name)} is the way to ${safe(address ?? '')}, where ${what} is`, vital);
    if (address === null && (own.isDefault || own.address !== null))
      say(`${safe(name)} may be the way to where ${what} is`, vital);
  }
  return uses;
}

/** Once per plan: what could not be read of these tables is noted by each device's own look at them. */
function unseenDefaults(_host: Host, tables: Tables): string[] {
  const look = new Look(tables);
  return defaultInterfaces(look).filter((name) => isCarriedUnseen(look, name));
}

/** What the host has over the network, and whether it stands on it. */
function remoteUses(_host: Host, tables: Tables): { what: string; address: string | null; vital: boolean }[] {
  const look = new Look(tables);
  return remotes(look).flatMap(({ what, address, mount, disks }) => {
    if (mount !== null) return [{ what: `${safe(mount.point)} (${what})`, address, vital: isVitalPoint(mount.point) }];
    const layer = look.tables.once(blockLayer);
    const { uses } = stackUses(look, layer, layer.stackOf(disks));
    return uses.map((u) => ({ what: `a disk (${what}) of which ${u.reason}`, address, vital: u.vital === true }));
  });
}

const addressText = (address: string): string => (address === '' ? 'an address' : `the address ${safe(address)}`);
