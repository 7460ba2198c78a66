/**
 * `boot apply`: brings every device that has a wish to what it wishes, PFs' VFs first, each PF and each IOMMU group as
 * a transaction of the engine with its guards asked. What is so already is left alone, so that a second pass (a soft
 * reboot, a PF's driver that came later) does nothing twice. Whatever is wrong with one wish is told, and the rest goes
 * on.
 */

import { namedBy, readJournal } from '../binding/journal.ts';
import { changing } from '../binding/session.ts';
import { groupEndpoints } from '../boot/met.ts';
import {
  type BootReport,
  isOff,
  readReport,
  reportOf,
  type Stage,
  type WishReport,
  writeReport,
} from '../boot/report.ts';
import { type DeviceWish, type PfWish, subjectOf } from '../boot/wishes.ts';
import { sleep } from '../clock.ts';
import type { Finding } from '../config/place.ts';
import { HostdevError, messageOf } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { Look, Tables } from '../host/look.ts';
import { defaultInterfaces, interfacesOf, isUp } from '../host/networkLayer.ts';
import { canonicalAddress } from '../pci/address.ts';
import { type PciDevice, scanInventory } from '../pci/inventory.ts';
import { onHostDriver } from '../pci/vendorVfio.ts';
import { Deadline, takeLocks } from '../store/locks.ts';
import { quote, safe } from '../text/safe.ts';
import { warning } from '../text/warning.ts';
import { adoptEarly } from './bootAdopt.ts';
import { eachMs, type Going, moveAll, optionsFor, type Pass, readable, refuseOthers, tell } from './bootPass.ts';
import { foretellVf, foretoldVf, makeVfs } from './bootVfs.ts';
import type { ActionOptions, Warned } from './options.ts';
import { isOfWishes } from './wish.ts';
import { type HostWishes, ownOf, type SeenWish } from './wishes.ts';

export type Applied = Warned & BootReport & { changed: boolean; mistakes: Finding[] };

/** `only`: the wishes of one device, and of the VFs of one PF. `stage`: what called. */
export type ApplyScope = { only: string | null; stage: Exclude<Stage, 'before' | 'early'> };

/**
 * How long the way to the network may take to show itself, in ms: without it the guard of the host's own NIC has
 * nothing to go by.
 */
const NETWORK_MS = 10_000;
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
    foretold: new Map(),
    blind: false,
  };
  const off = offNow(pass);
  if (!off && !options.dryRun) {
    await finishEarlier(pass);
    if (only === null) await adoptEarly(pass);
  }
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
async function finishEarlier(pass: Pass): Promise<void> {
  const { host, options, warnings } = pass;
  try {
    const addresses = [...new Set(readJournal(host).entries.flatMap((e) => [...namedBy(e)]))];
    if (addresses.length === 0) return;
    const limits = { ...options, deadlineMs: eachMs(pass) };
    await changing(host, scanInventory(host), { addresses, tolerant: true }, limits, async ({ recovered }) => {
      warnings.push(...recovered);
    });
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    warnings.push(warning('unfinished', e.message));
  }
}

/**
 * Those of a scope: about the device, or about a VF of it. A PF whose driver came is not taken from that again: an
 * admin may have given it back by hand.
 */
const chosen = ({ seen }: HostWishes, { only, stage }: ApplyScope): SeenWish[] =>
  only === null
    ? seen
    : seen.filter(({ match }) => {
        if (match.device === null) return match.why.kind === 'no-vf' && match.why.pf === only;
        const { address, parent_addr } = match.device;
        return address === only ? stage !== 'pf' || match.wish.kind === 'pf' : parent_addr === only;
      });

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
    if (match.device === null && foretoldVf(pass, match.why) !== null)
      await tell(pass, wish, () => foretellVf(pass, wish));
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
    const wishes = seen.map(({ match, why }): WishReport => {
      const { wish } = match;
      const failure = pass.failed.get(subjectOf(wish));
      const done = pass.done.has(subjectOf(wish));
      const would = options.dryRun && done && failure === undefined;
      const reason =
        why === null || would ? null : off ? `hostdev.off=1 is on the kernel command line; ${why}` : (failure ?? why);
      const address = match.device === null ? foretoldVf(pass, match.why) || null : match.device.address;
      return reportOf(wish, address, reason, done ? scope.stage : null, before, at);
    });
    const document: BootReport = { schema: 1, boot: host.boot, at, off, wishes, early: before?.early ?? null };
    if (!options.dryRun) writeReport(host, document);
    const mistakes = (now?.findings ?? []).filter((f) => f.severity === 'error' && isOfWishes(f));
    return { ...document, changed: pass.changed, mistakes, warnings: pass.warnings };
  } finally {
    unlock();
  }
}
