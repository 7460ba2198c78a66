/**
 * What `boot apply` makes of a `[[pf]]`: the VFs of a PF, and in a dry run what can be said of VFs that are not there.
 */
import { namedDriver, refuseUnloadable } from '../binding/drivers/modules.ts';
import type { NoMatch } from '../boot/match.ts';
import { typeNotMet, vfDriver, vfType, whyNotMet } from '../boot/met.ts';
import type { DeviceWish, PfWish, Wish, WishedDriver } from '../boot/wishes.ts';
import { HostdevError } from '../errors.ts';
import type { Address } from '../pci/address.ts';
import { type PciDevice, scanInventory } from '../pci/inventory.ts';
import { numberedVfs } from '../pci/vfLinks.ts';
import { warning } from '../text/warning.ts';
import { BOOT } from './bind.ts';
import { eachMs, moveAll, optionsFor, type Pass, readable, refuseOthers } from './bootPass.ts';
import type { ActionOptions } from './options.ts';
import { createVfs } from './vf.ts';
import { setTypes } from './vgpu.ts';
import { ownOf } from './wishes.ts';

/** Brings a `[[pf]]` about: as many VFs, each on its driver and with its vGPU type. True when anything has changed. */
export async function makeVfs(pass: Pass, wish: PfWish, pf: PciDevice): Promise<boolean> {
  const { host } = pass;
  const options = { ...optionsFor(pass, wish), hold: BOOT };
  let changed = false;
  if (numberedVfs(host, pf.address).length !== wish.vfs) {
    refuseOthers(host, pf, 'vfs');
    const made = await createVfs(host, pf.address, wish.vfs, wish.for, options);
    pass.warnings.push(...made.warnings);
    changed = made.changed;
    if (options.dryRun) {
      pass.foretold.set(pf.address, { count: wish.vfs, addresses: made.vfs.map((vf) => vf.address) });
      return await foretellRanges(pass, wish, pf);
    }
  }
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
  const { host } = pass;
  const failures: HostdevError[] = [];
  let changed = false;
  for (const { n, address } of numberedVfs(host, pf.address)) {
    const type = vfType(wish, n);
    if (type === null || typeNotMet(host, wish, n, address) === null) continue;
    try {
      const inventory = scanInventory(host);
      const device = inventory.byAddress.get(address);
      if (device === undefined) continue;
      const limits = { ...options, deadlineMs: eachMs(pass) };
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

/** Of VFs that are not there yet: raises what is known to refuse their ranges, and says what is not known. */
async function foretellRanges(pass: Pass, wish: PfWish, { address }: PciDevice): Promise<boolean> {
  for (const { driver } of wish.ranges) if (driver !== null) await refuseDriver(pass, driver);
  if (wish.ranges.some((r) => r.vgpu_type !== null && r.vgpu_type !== 0))
    pass.warnings.push(
      warning('vfs-untold', `${address}: which vGPU types its VFs can have shows only when they are there`, address),
    );
  return false;
}

/** Raises HOSTDEV_MODULE for a VFIO driver whose module cannot be loaded. */
async function refuseDriver({ host, until }: Pass, driver: WishedDriver): Promise<void> {
  if (driver !== 'vfio' && driver !== 'host' && driver !== 'none')
    await refuseUnloadable(host, namedDriver(host, driver), until);
}

/** A wish about a VF that a dry run would make: raises what is known to refuse it. */
export async function foretellVf(pass: Pass, wish: Wish): Promise<boolean> {
  if (wish.kind === 'device') await refuseDriver(pass, wish.driver);
  return false;
}

/** The VF of a dry run that a wish misses: its address, '' where that cannot be told; null where none would be made. */
export function foretoldVf({ foretold }: Pass, why: NoMatch): Address | '' | null {
  const vfs = why.kind === 'no-vf' ? foretold.get(why.pf) : undefined;
  if (why.kind !== 'no-vf' || vfs === undefined || why.vf >= vfs.count) return null;
  return vfs.addresses[why.vf] ?? '';
}
