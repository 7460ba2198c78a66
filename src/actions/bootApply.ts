/**
 * `boot apply`: brings every device that has a wish to what it wishes, PFs' VFs first, each PF and each IOMMU group as
 * a transaction of the engine with its guards asked. What is so already is left alone, so that a second pass (a soft
 * reboot, a PF's driver that came later) does nothing twice. Whatever is wrong with one wish is told, and the rest goes
 * on.
 */

import { namedBy, readJournal } from '../binding/journal.ts';
import { changing } from '../binding/session.ts';
import { groupEndpoints, typeNotMet, vfDriver, vfType, whyNotMet } from '../boot/met.ts';
import { othersOf, otherText } from '../boot/others.ts';
import {
  type BootReport,
  isOff,
  readReport,
  reportOf,
  type Stage,
  type WishReport,
  writeReport,
} from '../boot/report.ts';
import { type DeviceWish, type PfWish, subjectOf, type Wish, type WishedDriver } from '../boot/wishes.ts';
import { sleep } from '../clock.ts';
import type { Finding } from '../config/place.ts';
import { HostdevError, messageOf } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { Look, Tables } from '../host/look.ts';
import { defaultInterfaces, interfacesOf, isUp } from '../host/networkLayer.ts';
import { canonicalAddress } from '../pci/address.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { onHostDriver } from '../pci/vendorVfio.ts';
import { numberedVfs } from '../pci/vfLinks.ts';
import { Deadline, takeLocks } from '../store/locks.ts';
import { quote, safe } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import { BOOT, bindRequests } from './bind.ts';
import type { ActionOptions, Warned } from './options.ts';
import { parkDevice } from './park.ts';
import { unbindDevices } from './unbind.ts';
import { createVfs } from './vf.ts';
import { setTypes } from './vgpu.ts';
import { isOfWishes } from './wish.ts';
import { type HostWishes, hostWishes, ownOf, type SeenWish } from './wishes.ts';

export type Applied = Warned & BootReport & { changed: boolean; mistakes: Finding[] };

/** `only`: the wishes of one device, and of the VFs of one PF. `stage`: what called. */
export type ApplyScope = { only: string | null; stage: Exclude<Stage, 'before'> };

type Pass = {
  host: Host;
  options: ActionOptions;
  until: Deadline;
  warnings: Warning[];
  changed: boolean;
  failed: Map<string, string>;
  done: Set<string>;
  /** The way to the network is not known: any interface that is up may be it. */
  blind: boolean;
};

/**
 * How long the way to the network may take to show itself, in ms: without it the guard of the host's own NIC has
 * nothing to go by.
 */
const NETWORK_MS = 10_000;
/** Time for one transaction, in ms: a device that hangs leaves some to the others. */
const EACH_MS = 12_000;

/**
 * One pass over the wishes. Raises HOSTDEV_USAGE for a device that is no address, HOSTDEV_NOT_PERMITTED without root,
 * HOSTDEV_STORE where the report cannot be written; nothing else: what a wish came to is in the report.
 */
export async function applyWishes(host: Host, { only, stage }: ApplyScope, options: ActionOptions): Promise<Applied> {
  const address = only === null ? null : canonicalAddress(only);
  if (only !== null && address === null)
    throw new HostdevError('HOSTDEV_USAGE', `--device ${quote(only)}: an address such as 0000:01:00.0 is expected`);
  const scope: ApplyScope = { only: address, stage };
  const pass: Pass = {
    host,
    options,
    until: new Deadline(options.deadlineMs),
    warnings: [],
    changed: false,
    failed: new Map(),
    done: new Set(),
    blind: false,
  };
  const off = offNow(pass);
  if (!off && !options.dryRun) await finishEarlier(pass);
  const first = await readable(pass);
  if (first !== null && !off) {
    const open = chosen(first, scope).filter((s) => s.why !== null && s.match.device !== null);
    if (!options.dryRun) await awaitNetwork(pass, open);
    for (const { match } of open)
      if (match.wish.kind === 'pf' && match.device !== null)
        await tell(pass, match.wish, () => makeVfs(pass, match.wish as PfWish, match.device as PciDevice));
    await moveDevices(pass, scope);
  }
  return report(pass, scope, off);
}

function offNow({ host, warnings }: Pass): boolean {
  try {
    return isOff(host);
  } catch (e) {
    warnings.push(
      warning('not-measured', `whether hostdev.off=1 is on the kernel command line is not known: ${messageOf(e)}`),
    );
    return false;
  }
}

/**
 * What a pass that was killed has left is put right first: it may look as wished, and be undone by the next command.
 */
async function finishEarlier({ host, options, until, warnings }: Pass): Promise<void> {
  try {
    const addresses = [...new Set(readJournal(host).entries.flatMap((e) => [...namedBy(e)]))];
    if (addresses.length === 0) return;
    const limits = { ...options, deadlineMs: Math.min(until.left, EACH_MS) };
    await changing(host, scanInventory(host), { addresses, tolerant: true }, limits, async ({ recovered }) => {
      warnings.push(...recovered);
    });
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    warnings.push(warning('unfinished', e.message));
  }
}

/** The wishes; null, with a warning, where not even a part of the configuration can be read. */
async function readable({ host, warnings }: Pass): Promise<HostWishes | null> {
  try {
    return await hostWishes(host, true);
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    if (!warnings.some((w) => w.id === 'config')) warnings.push(warning('config', `no wish can be read: ${e.message}`));
    return null;
  }
}

/**
 * Those of a scope: about the device, or about a VF of it. A PF whose driver came is not taken from that again: an
 * admin may have given it back by hand.
 */
const chosen = ({ seen }: HostWishes, { only, stage }: ApplyScope): SeenWish[] =>
  only === null
    ? seen
    : seen.filter(({ match: { wish, device } }) =>
        device?.address === only ? stage !== 'pf' || wish.kind === 'pf' : device?.parent_addr === only,
      );

/** Runs what brings one wish about; what it raises is why it is not met. */
async function tell(pass: Pass, wish: Wish, act: () => Promise<boolean>): Promise<void> {
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
const optionsFor = ({ options, until }: Pass, wish: Wish): ActionOptions => ({
  ...options,
  deadlineMs: Math.min(until.left, EACH_MS),
  allowed: new Set([...options.allowed, ...wish.allow]),
});

/** Raises what an owner of the same by other means has set: it is left to them. */
function refuseOthers(host: Host, device: PciDevice, what: 'vfs' | 'driver'): void {
  const other = othersOf(host, device).find((o) => o.what === what);
  if (other !== undefined) throw new HostdevError('HOSTDEV_IN_USE', `${otherText(other)}: it is left to that`);
}

/** Raises HOSTDEV_GUARD for a NIC that may be the host's own. */
function refuseBlind({ host, blind }: Pass, wish: DeviceWish, device: PciDevice): void {
  if (!blind || wish.driver === 'host' || wish.allow.includes('network')) return;
  const look = new Look(new Tables(host));
  const up = interfacesOf(look, device.address).find((name) => isUp(look, name));
  if (up !== undefined)
    throw new HostdevError(
      'HOSTDEV_GUARD',
      `the host has no default route yet, and its interface ${safe(up)} is up: it may be the way to the network`,
    );
}

async function makeVfs(pass: Pass, wish: PfWish, pf: PciDevice): Promise<boolean> {
  const { host } = pass;
  const options = { ...optionsFor(pass, wish), hold: BOOT };
  let changed = false;
  if (numberedVfs(host, pf.address).length !== wish.vfs) {
    refuseOthers(host, pf, 'vfs');
    const made = await createVfs(host, pf.address, wish.vfs, wish.for, options);
    pass.warnings.push(...made.warnings);
    changed = made.changed;
  }
  if (options.dryRun) return changed;
  // A VF alone: those that a range has elsewhere, and of a PF that had its number already.
  const inventory = scanInventory(host);
  const own = ownOf((await readable(pass))?.seen.map((x) => x.match) ?? []);
  const astray = numberedVfs(host, pf.address).flatMap(({ n, address }) => {
    const device = inventory.byAddress.get(address);
    const driver = vfDriver(wish, n);
    const as: DeviceWish = {
      kind: 'device',
      address,
      identity: wish.identity,
      vf: n,
      driver,
      group: false,
      allow: wish.allow,
      place: wish.place,
    };
    return device === undefined || own.has(address) || whyNotMet(host, inventory, as, device, own) === null
      ? []
      : [{ device, driver }];
  });
  for (const driver of new Set(astray.map((a) => a.driver))) {
    const devices = astray.filter((a) => a.driver === driver).map((a) => a.device);
    changed =
      (await moveAll(
        pass,
        inventory,
        devices.map((device) => ({ device, driver, allowed: options.allowed })),
      )) || changed;
  }
  return (await giveTypes(pass, wish, pf, options)) || changed;
}

/**
 * Each VF its vGPU type, a transaction each: what one of them cannot have keeps none of the others from theirs. Raises
 * what the first could not.
 */
async function giveTypes(pass: Pass, wish: PfWish, pf: PciDevice, options: ActionOptions): Promise<boolean> {
  const { host, until } = pass;
  const failures: HostdevError[] = [];
  let changed = false;
  for (const { n, address } of numberedVfs(host, pf.address)) {
    const type = vfType(wish, n);
    if (type === null || typeNotMet(host, wish, n, address) === null) continue;
    try {
      const inventory = scanInventory(host);
      const device = inventory.byAddress.get(address);
      if (device === undefined) continue;
      const limits = { ...options, deadlineMs: Math.min(until.left, EACH_MS) };
      const set = await setTypes(host, inventory, [{ device, type }], limits, 'boot');
      pass.warnings.push(...set.warnings);
      changed = set.changed || changed;
    } catch (e) {
      if (!(e instanceof HostdevError)) throw e;
      failures.push(e);
    }
  }
  pass.changed ||= changed;
  const [first] = failures;
  if (first === undefined) return changed;
  throw new HostdevError(first.code, failures.map((e) => e.message).join('; '), { hint: first.hint });
}

type Going = { device: PciDevice; driver: WishedDriver; allowed: ActionOptions['allowed'] };

/**
 * Devices to what is wished for them, as one transaction where the engine has one for that. True when anything has
 * changed.
 */
async function moveAll(pass: Pass, inventory: Inventory, going: readonly Going[]): Promise<boolean> {
  const { host, options, until } = pass;
  const left = (): ActionOptions => ({ ...options, deadlineMs: Math.min(until.left, EACH_MS) });
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
    for (let turn = 0; turn < 2 && !onHostDriver(host, device.address, driverNow(host, device)); turn += 1) {
      const back = await unbindDevices(host, [device.address], true, { ...left(), allowed });
      pass.warnings.push(...back.warnings);
      changed = back.changed || changed;
    }
  for (const { device, allowed } of options.dryRun ? [] : of((d) => d === 'none'))
    changed = (await parkDevice(host, inventory, device, { ...left(), allowed }, BOOT)) || changed;
  return changed;
}

const driverNow = (host: Host, { address }: PciDevice): string | null => host.linkName(host.device(address, 'driver'));

/** The devices themselves, as they are now that the VFs are there: those of an IOMMU group together. */
async function moveDevices(pass: Pass, scope: ApplyScope): Promise<void> {
  const { host } = pass;
  const wishes = await readable(pass);
  if (wishes === null) return;
  const { inventory } = wishes;
  const own = ownOf(wishes.seen.map((x) => x.match));
  const byGroup = new Map<string, { wish: DeviceWish; device: PciDevice }[]>();
  for (const { match, why } of chosen(wishes, scope)) {
    const { wish, device } = match;
    if (why === null || device === null || wish.kind !== 'device') continue;
    try {
      refuseOthers(host, device, 'driver');
      refuseBlind(pass, wish, device);
    } catch (e) {
      pass.failed.set(subjectOf(wish), messageOf(e));
      continue;
    }
    const group = device.iommu_group === null ? device.address : `${device.iommu_group}`;
    byGroup.set(group, [...(byGroup.get(group) ?? []), { wish, device }]);
  }
  for (const members of byGroup.values()) {
    const going = new Map<string, Going>();
    for (const { wish, device } of members) {
      const allowed = optionsFor(pass, wish).allowed;
      const peers = wish.group ? groupEndpoints(host, inventory, device).filter((d) => !own.has(d.address)) : [];
      for (const d of [device, ...peers]) going.set(d.address, { device: d, driver: wish.driver, allowed });
    }
    let outcome: Promise<boolean> | null = null;
    // All of a group's wishes come to the same.
    for (const { wish } of members)
      await tell(pass, wish, () => {
        outcome ??= moveAll(pass, inventory, [...going.values()]);
        return outcome;
      });
  }
}

/**
 * Which interface the host is reached by shows only once it has its route; a NIC that is bound before is lost, and the
 * host with it. Waited for on the machine itself, where a wish would take a network interface from a host driver and no
 * default route is there yet. Without one by then, only interfaces that are down are taken.
 */
async function awaitNetwork(pass: Pass, open: readonly SeenWish[]): Promise<void> {
  const { host, until } = pass;
  const takesNic = open.some(
    ({ match: { wish, device } }) =>
      wish.kind === 'device' &&
      wish.driver !== 'host' &&
      !wish.allow.includes('network') &&
      device?.class?.startsWith('02') === true &&
      onHostDriver(host, device.address, device.driver),
  );
  if (!host.isReal || !takesNic) return;
  const end = new Deadline(Math.min(NETWORK_MS, until.left / 2));
  const known = (): boolean => defaultInterfaces(new Look(new Tables(host))).length > 0;
  while (!known() && end.left > 0) await sleep(Math.min(200, end.left));
  pass.blind = !known();
}

/** What each wish has come to, by a look at the devices as they are now. */
async function report(pass: Pass, scope: ApplyScope, off: boolean): Promise<Applied> {
  const { host, options } = pass;
  const now = await readable(pass);
  const unlock = options.dryRun ? () => {} : await takeLocks(host, ['boot'], new Deadline(options.deadlineMs));
  try {
    const before = readReport(host);
    const at = new Date().toISOString();
    const seen = now?.seen ?? [];
    const wishes = seen.map(({ match: { wish, device }, why }): WishReport => {
      const failure = pass.failed.get(subjectOf(wish));
      const done = pass.done.has(subjectOf(wish));
      const would = options.dryRun && done && failure === undefined;
      const reason =
        why === null || would ? null : off ? `hostdev.off=1 is on the kernel command line; ${why}` : (failure ?? why);
      return reportOf(wish, device?.address ?? null, reason, done ? scope.stage : null, before, at);
    });
    const document: BootReport = { schema: 1, boot: host.boot, at, off, wishes };
    if (!options.dryRun) writeReport(host, document);
    const mistakes = (now?.findings ?? []).filter((f) => f.severity === 'error' && isOfWishes(f));
    return { ...document, changed: pass.changed, mistakes, warnings: pass.warnings };
  } finally {
    unlock();
  }
}
