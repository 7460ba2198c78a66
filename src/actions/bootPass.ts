/** One pass of `boot apply`: its time, what it has seen, and how it brings one wish about and moves devices. */
import { othersOf, otherText } from '../boot/others.ts';
import { subjectOf, type Wish, type WishedDriver } from '../boot/wishes.ts';
import { HostdevError, messageOf } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { Inventory, PciDevice } from '../pci/inventory.ts';
import { onHostDriver } from '../pci/vendorVfio.ts';
import type { Deadline } from '../store/locks.ts';
import { type Warning, warning } from '../text/warning.ts';
import { BOOT, bindRequests } from './bind.ts';
import type { ActionOptions } from './options.ts';
import { parkDevice } from './park.ts';
import { unbindDevices } from './unbind.ts';
import { type HostWishes, hostWishes } from './wishes.ts';

/** How many, and where, as far as that can be told before they are there. */
type ForetoldVfs = { count: number; addresses: Address[] };

export type Pass = {
  host: Host;
  options: ActionOptions;
  until: Deadline;
  warnings: Warning[];
  changed: boolean;
  failed: Map<string, string>;
  done: Set<string>;
  /** Of a dry run: the VFs that each PF would have, by their numbers. */
  foretold: Map<Address, ForetoldVfs>;
  /** The way to the network is not known: any interface that is up may be it. */
  blind: boolean;
};

/** Time for one transaction, in ms, about half of all that there is: a device that hangs leaves some to the others. */
export const eachMs = ({ options, until }: Pass): number => Math.min(until.left, options.deadlineMs * 0.48);

/** The wishes; null, with a warning, where not even a part of the configuration can be read. */
export async function readable({ host, warnings }: Pass): Promise<HostWishes | null> {
  try {
    return await hostWishes(host, true);
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    if (!warnings.some((w) => w.id === 'config')) warnings.push(warning('config', `no wish can be read: ${e.message}`));
    return null;
  }
}

/** Runs what brings one wish about; what it raises is why it is not met. */
export async function tell(pass: Pass, wish: Wish, act: () => Promise<boolean>): Promise<void> {
  const subject = subjectOf(wish);
  try {
    if (pass.until.left === 0) throw new HostdevError('HOSTDEV_TIMEOUT', 'no time was left for it');
    const changed = await act();
    pass.changed ||= changed;
    // A dry run that was not refused would have done it.
    if (changed || pass.options.dryRun) pass.done.add(subject);
  } catch (e) {
    pass.failed.set(subject, messageOf(e));
  }
}

/** The options of one transaction: what is left of the time, and the guards that the wish lifts. */
export const optionsFor = (pass: Pass, wish: Wish): ActionOptions => ({
  ...pass.options,
  deadlineMs: eachMs(pass),
  allowed: new Set([...pass.options.allowed, ...wish.allow]),
});

/** Raises what an owner of the same by other means has set: it is left to them. */
export function refuseOthers(host: Host, device: PciDevice, what: 'vfs' | 'driver'): void {
  const other = othersOf(host, device).find((o) => o.what === what);
  if (other !== undefined) throw new HostdevError('HOSTDEV_IN_USE', `${otherText(other)}: it is left to that`);
}

export type Going = { device: PciDevice; driver: WishedDriver; allowed: ActionOptions['allowed'] };

/**
 * Devices to what is wished for them, as one transaction where the engine has one for that. True when anything has
 * changed.
 */
export async function moveAll(pass: Pass, inventory: Inventory, going: readonly Going[]): Promise<boolean> {
  const { host, options } = pass;
  const left = (): ActionOptions => ({ ...options, deadlineMs: eachMs(pass) });
  const of = (is: (driver: WishedDriver) => boolean): Going[] => going.filter((g) => is(g.driver));
  let changed = false;
  const toVfio = of((d) => d !== 'host' && d !== 'none');
  if (toVfio.length > 0) {
    const requests = toVfio.map(({ device, driver, allowed }) => ({
      device,
      wanted: driver === 'vfio' ? null : driver,
      allowed,
    }));
    const bound = await bindRequests(host, inventory, requests, left(), BOOT);
    pass.warnings.push(...bound.warnings);
    changed = bound.changed;
  }
  // The books of a VF that was made for VFIO say that it had no driver before: from there whatever claims it.
  for (const { device, allowed } of of((d) => d === 'host'))
    for (
      let turn = 0;
      turn < (options.dryRun ? 1 : 2) && !onHostDriver(host, device.address, driverNow(host, device));
      turn += 1
    ) {
      const back = await unbindDevices(host, [device.address], true, { ...left(), allowed });
      pass.warnings.push(...back.warnings);
      changed = back.changed || changed;
    }
  for (const { device, allowed } of options.dryRun ? [] : of((d) => d === 'none'))
    changed = (await parkDevice(host, inventory, device, { ...left(), allowed }, BOOT)) || changed;
  return changed;
}

const driverNow = (host: Host, { address }: PciDevice): string | null => host.linkName(host.device(address, 'driver'));
