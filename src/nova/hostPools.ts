/**
 * The pools of this host, or of a saved inventory: which devices the specs offer, which of them are free, and why the
 * others are not.
 */

import { messageOf } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { unknownFacts } from '../pci/facts.ts';
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { computeProviders } from '../placement/view.ts';
import { fromInventory, type PoolDevice } from '../pool/device.ts';
import { PciTracker } from '../pool/tracker.ts';
import { listJson } from '../store/files.ts';
import { type Warning, warning } from '../text/warning.ts';
import type { PciSetup } from './setup.ts';

/** Why a device that a spec offers cannot be had now. `claimed`: somebody has it; `consumer` says who. */
type NotFree = { state: 'claimed' | 'unavailable'; reason: string; consumer: string | null };

/** A device that is not to be offered, and who has it. */
export type Held = { address: string; consumer: string };

/** What others than the books say is not to be had: devices that somebody has, and those of libvirt's networks. */
export type Others = { held: readonly Held[]; inNetworks: readonly { address: string; network: string }[] };

export type HostPools = {
  /** All devices that specs offer, in Nova's pools and order. */
  offered: PciTracker;
  /** Those of them that can be had now: what a claim takes from. */
  free: () => PciTracker;
  notFree: ReadonlyMap<string, NotFree>;
  /** Offered by a spec, and never for a guest. */
  leftOut: { address: string; reason: string }[];
  warnings: Warning[];
};

/**
 * `host` null: the devices are those of a saved inventory, of which the books of this host say nothing. `others`: what
 * is not to be had besides. Raises HOSTDEV_STORE_CORRUPT, and what Placement refuses where it is reported to.
 */
export async function hostPools(setup: PciSetup, host: Host | null, { held, inNetworks }: Others): Promise<HostPools> {
  const { inventory, facts, config } = setup;
  const specs = setup.specs.map((s) => s.value);
  const wantsSerial = specs.some((s) => s.remote_managed);
  const netdev = facts.netdevs();
  const cardSerial = new Map<string, string>();
  for (const { address } of wantsSerial ? inventory.devices : []) {
    const serial = facts.cardSerial(address);
    if (serial !== null) cardSerial.set(address, serial);
  }
  const endpoints = inventory.devices.filter((d) => !isBridge(d));
  const devices = fromInventory(endpoints, { cardSerial, netdev });
  const offered = new PciTracker(specs, devices, facts);
  if (config.pci.report_in_placement) computeProviders(specs, offered.devices(), viewOptions(setup));
  const warnings: Warning[] = [];
  const notFree = await whyNotFree(setup, host, held);
  for (const { address, network } of inNetworks)
    if (!notFree.has(address))
      notFree.set(address, {
        state: 'unavailable',
        reason: `libvirt's network ${network} gives it out`,
        consumer: null,
      });
  if (host !== null) await addHostUses(host, offered, setup, notFree, warnings);
  const bridges = inventory.devices.filter(isBridge);
  const taken = new PciTracker(specs, fromInventory(bridges), facts).devices();
  return {
    offered,
    free: () => new PciTracker(specs, devices.filter(isFree(notFree)), facts),
    notFree,
    leftOut: taken.map(({ device }) => ({ address: device.address, reason: 'it is a bridge' })),
    warnings: [...warnings, ...offered.notes.map((n) => warning('nova', n.text)), ...unknownFacts(facts)],
  };
}

const isFree =
  (notFree: ReadonlyMap<string, NotFree>) =>
  (d: PoolDevice): boolean =>
    !notFree.has(d.address);

/** How Placement names things, as configured. */
export const viewOptions = ({ config }: PciSetup) =>
  ({
    hypervisorHostname: config.pci.hypervisor_hostname,
    traitBlanks: config.pci.trait_blanks,
  }) as const;

/**
 * From what the books hold for guests, and what does not answer: then what these exclude, a PF its VFs and a VF its PF,
 * offered or not.
 */
async function whyNotFree(
  { inventory }: PciSetup,
  host: Host | null,
  held: readonly Held[],
): Promise<Map<string, NotFree>> {
  const why = new Map<string, NotFree>();
  for (const d of inventory.devices)
    if (d.stuck)
      why.set(d.address, { state: 'unavailable', reason: 'it does not answer: something holds it', consumer: null });
  for (const { address, consumer } of [...held, ...(host === null ? [] : await heldByGuests(host))])
    if (inventory.byAddress.has(address))
      why.set(address, { state: 'claimed', reason: `${consumer} has it`, consumer });
  const claimed = [...why].filter(([, w]) => w.state === 'claimed');
  for (const [address, { consumer }] of claimed) {
    const device = inventory.byAddress.get(address);
    const exclude = (d: PciDevice, reason: string): void => {
      if (!why.has(d.address)) why.set(d.address, { state: 'unavailable', reason, consumer: null });
    };
    const pf = device?.parent_addr == null ? undefined : inventory.byAddress.get(device.parent_addr);
    if (pf !== undefined) exclude(pf, `${consumer} has its VF ${address}`);
    for (const vf of inventory.devices)
      if (vf.parent_addr === address) exclude(vf, `${consumer} has its PF ${address}`);
  }
  return why;
}

/** Storage, network, display: what the host itself may need. */
const USED_CLASSES = /^0[123]/;

/** More devices on host drivers than that are VFs, and each costs a look at the routes and mounts. */
const MAX_LOOKED_AT = 256;

/** What the host itself uses, as far as that can be seen without a look at every process; binding looks closer. */
async function addHostUses(
  host: Host,
  offered: PciTracker,
  { inventory }: PciSetup,
  why: Map<string, NotFree>,
  warnings: Warning[],
): Promise<void> {
  const candidates = offered
    .devices()
    .flatMap(({ device }) => inventory.byAddress.get(device.address) ?? [])
    .filter((d) => d.driver !== null && !why.has(d.address) && USED_CLASSES.test(d.class ?? ''))
    .filter((d) => !isVfioDriver(host, d.address, d.driver));
  if (candidates.length === 0) return;
  const { hostUses } = await import('../binding/usage.ts');
  if (candidates.length > MAX_LOOKED_AT)
    warnings.push(
      warning(
        'not-measured',
        `${candidates.length} devices are on host drivers: only of the first ${MAX_LOOKED_AT} was looked at what the host does with them`,
      ),
    );
  for (const d of candidates.slice(0, MAX_LOOKED_AT)) {
    try {
      const [use] = hostUses(host, d);
      if (use !== undefined)
        why.set(d.address, { state: 'unavailable', reason: `the host uses it: ${use}`, consumer: null });
    } catch (e) {
      const text = `${d.address}: what the host does with it is not known: ${messageOf(e)}`;
      warnings.push(warning('not-measured', text, d.address));
    }
  }
}

/**
 * The books are read only where there are any: their reader brings the whole transaction engine with it. A guest that
 * is gone has nothing.
 */
async function heldByGuests(host: Host): Promise<Held[]> {
  if (listJson(host, host.bindings).length === 0) return [];
  const { isGuest, isSameDevice, readBooks } = await import('../binding/books.ts');
  const { witness } = await import('../binding/guests.ts');
  const books = readBooks(host).books.filter((b) => isSameDevice(host, b) && b.holds.some(isGuest));
  const look = await witness(host, books, WAIT_MS);
  return books.flatMap((b) => {
    const guest = b.holds.find((h) => isGuest(h) && look.presence(b, h) !== 'gone');
    return guest === undefined ? [] : [{ address: b.address, consumer: guest.name ?? guest.owner }];
  });
}

/** For udev's look at a fresh node. */
const WAIT_MS = 500;
