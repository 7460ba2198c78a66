/**
 * `wish list|check|add|remove`: what hostdev.toml and conf.d wish for the devices, what comes of it on this host, and
 * wishes made and taken back without moving anything.
 */
import { groupEndpoints, typeNotMet, vfType } from '../boot/met.ts';
import type { DeviceWish, PfWish, Wish, WishedDriver } from '../boot/wishes.ts';
import { type Finding, sortFindings } from '../config/place.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { matchAll } from '../nova/matches.ts';
import { usableSetup } from '../nova/setup.ts';
import { canonicalAddress } from '../pci/address.ts';
import { isBridge, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { numberedVfs } from '../pci/vfLinks.ts';
import { quote } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import { bindRequests, namedDevices } from './bind.ts';
import type { ActionOptions, Warned } from './options.ts';
import { deviceWish, type Kept, keeping, pfWish, vfWarnings, type Will } from './persist.ts';
import { setTypes } from './vgpu.ts';
import { type HostWishes, hostWishes, type PrintedWish, printedWish } from './wishes.ts';

/** A wish and what it means now: `address` is the device's, null where none is meant; `reason` why it is not met. */
export type ListedWish = PrintedWish & {
  address: string | null;
  driver_now: string | null;
  met: boolean;
  reason: string | null;
};

export type ListedWishes = Warned & { wishes: ListedWish[]; mistakes: Finding[] };

/** A finding about a wish, or about a file as a whole. */
export const isOfWishes = (f: Finding): boolean => f.key === '' || /^(?:device|pf)(?:$|[[.])/.test(f.key);

const listed = ({ seen }: HostWishes): ListedWish[] =>
  seen.map(({ match, why }) => ({
    ...printedWish(match.wish),
    address: match.device?.address ?? null,
    driver_now: match.device?.driver ?? null,
    met: why === null,
    reason: why,
  }));

function mistakesOf({ findings, files }: HostWishes): Finding[] {
  const mistakes = findings.filter((f) => f.severity === 'error' && isOfWishes(f));
  sortFindings(mistakes, files);
  return mistakes;
}

/** All wishes. Raises what reading the configuration raises. */
export async function listWishes(host: Host): Promise<ListedWishes> {
  const wishes = await hostWishes(host);
  return { wishes: listed(wishes), mistakes: mistakesOf(wishes), warnings: wishes.inventory.warnings };
}

/** `refused`: no device of this host is meant, or a guard keeps it: at boot nothing would be done. */
export type CheckedWish = ListedWish & { refused: boolean };

/** All wishes, each asked of the guards where its device would have to move. */
export async function checkWishes(
  host: Host,
  options: ActionOptions,
): Promise<Warned & { wishes: CheckedWish[]; mistakes: Finding[] }> {
  const wishes = await hostWishes(host);
  const checked: CheckedWish[] = [];
  for (const [n, wish] of listed(wishes).entries()) {
    const { device, wish: w } = wishes.seen[n]?.match ?? {};
    const refusal = wish.met || !device || w === undefined ? null : await refusalOf(host, w, device, options);
    checked.push({
      ...wish,
      refused: !wish.met && (device === null || refusal !== null),
      reason: refusal === null ? wish.reason : refusal.message,
    });
  }
  return { wishes: checked, mistakes: mistakesOf(wishes), warnings: wishes.inventory.warnings };
}

/** Why a wish would not be fulfilled now; null when it would, or nothing has to move. */
async function refusalOf(
  host: Host,
  wish: Wish,
  device: PciDevice,
  options: ActionOptions,
): Promise<HostdevError | null> {
  if (wish.kind === 'device' && wish.driver === 'host') return null;
  try {
    if (wish.kind === 'pf') {
      await checkTypes(host, wish, device, options);
      return null;
    }
    await guarded(host, [device], wish, { ...options, allowed: new Set(wish.allow) });
    return null;
  } catch (e) {
    if (e instanceof HostdevError) return e;
    throw e;
  }
}

/** Raises what {@link setTypes} would, of the VFs that are there and have another vGPU type than is wished. */
async function checkTypes(host: Host, wish: PfWish, pf: PciDevice, options: ActionOptions): Promise<void> {
  const inventory = scanInventory(host);
  const wanted = numberedVfs(host, pf.address).flatMap(({ n, address }) => {
    const device = inventory.byAddress.get(address);
    const type = vfType(wish, n);
    return device === undefined || type === null || typeNotMet(host, wish, n, address) === null
      ? []
      : [{ device, type }];
  });
  for (const one of wanted) await setTypes(host, inventory, [one], { ...options, dryRun: true }, 'boot');
}

/** Asks the guards as `bind` would. Raises HOSTDEV_GUARD, HOSTDEV_IN_USE, and what a dry run of bind raises. */
export async function guarded(
  host: Host,
  devices: readonly PciDevice[],
  { driver, group }: Pick<DeviceWish, 'driver' | 'group'>,
  options: ActionOptions,
): Promise<Warning[]> {
  const inventory = scanInventory(host);
  const all = new Map(
    devices.flatMap((d) => [d, ...(group ? groupEndpoints(host, inventory, d) : [])]).map((d) => [d.address, d]),
  );
  const wanted = driver === 'vfio' || driver === 'none' ? null : driver;
  const requests = [...all.values()].map((device) => ({ device, wanted }));
  return (await bindRequests(host, inventory, requests, { ...options, dryRun: true })).warnings;
}

export type AddedWishes = Warned & { changed: boolean; kept: Kept };

/** What `wish add` is told beside the devices. `vfs`: a wish about the VFs of PFs instead. */
export type NewWish = { driver: WishedDriver; group: boolean; vfs: { count: number; for: 'vfio' | 'netdev' } | null };

/**
 * Writes a wish for each device that is named, or, with `words` null, for each that a device_spec takes now. All of
 * them or none. Nothing moves. Raises HOSTDEV_NO_IDENTITY, HOSTDEV_WISH_ELSEWHERE, HOSTDEV_GUARD for what the host
 * itself needs, HOSTDEV_NO_SRIOV and HOSTDEV_VF_COUNT for VFs, and what reading the files raises.
 */
export async function addWishes(
  host: Host,
  words: readonly string[] | null,
  wish: NewWish,
  options: ActionOptions,
): Promise<AddedWishes> {
  const inventory = scanInventory(host);
  const { devices, resolved } = words === null ? await ofSpecs(host) : namedDevices(host, inventory, words);
  const warnings = [...resolved];
  const { vfs } = wish;
  const wills = devices.map((device): Will => {
    if (vfs === null) return { device, wish: deviceWish(host, inventory, device, wish, options.allowed), goes: false };
    checkCount(device, vfs.count);
    return {
      device,
      wish: pfWish(host, inventory, device, { vfs: vfs.count, for: vfs.for }, options.allowed),
      goes: false,
    };
  });
  if (vfs === null && wish.driver !== 'host' && devices.length > 0)
    warnings.push(...(await guardedNow(host, devices, wish, options)));
  const { kept } = await keeping(host, wills, options, async () => ({}));
  return {
    changed: !options.dryRun && kept.added.length > 0,
    kept,
    warnings: [...warnings, ...(await vfWarnings(host, wills))],
  };
}

/** Without an IOMMU nothing can be bound now; the wish is for a boot that has one. */
async function guardedNow(
  host: Host,
  devices: readonly PciDevice[],
  wish: NewWish,
  options: ActionOptions,
): Promise<Warning[]> {
  try {
    return await guarded(host, devices, wish, options);
  } catch (e) {
    if (!(e instanceof HostdevError) || e.code !== 'HOSTDEV_IOMMU_OFF') throw e;
    return [warning('wish', `the guards were not asked: ${e.message}`)];
  }
}

function checkCount(pf: PciDevice, count: number): void {
  if (pf.dev_type !== 'type-PF')
    throw new HostdevError('HOSTDEV_NO_SRIOV', `${pf.address} is no PF: it has no SR-IOV, or can have no VFs`);
  if (count > (pf.sriov_totalvfs ?? 0))
    throw new HostdevError(
      'HOSTDEV_VF_COUNT',
      `${pf.address} can have ${pf.sriov_totalvfs} VFs (sriov_totalvfs), not ${count}`,
    );
}

/** The devices that the configured device_specs take now. */
async function ofSpecs(host: Host): Promise<{ devices: PciDevice[]; resolved: Warning[] }> {
  const setup = await usableSetup(host, { config: [], inventory: null });
  const matched = matchAll(setup).devices.flat();
  return { devices: matched.filter((d) => !isBridge(d)), resolved: setup.warnings };
}

/**
 * Takes out the wishes about the devices that are named: by any name of a device of this host, or by the address that a
 * wish has, for a device that is not there any more. Raises HOSTDEV_WISH_ABSENT, HOSTDEV_WISH_ELSEWHERE.
 */
export async function removeWishes(host: Host, words: readonly string[], options: ActionOptions): Promise<AddedWishes> {
  const wishes = await hostWishes(host);
  const wills = words.flatMap((word) => willsOf(host, wishes, word));
  const { kept } = await keeping(host, wills, options, async () => ({}));
  return { changed: !options.dryRun && kept.removed.length > 0, kept, warnings: [] };
}

function willsOf(host: Host, wishes: HostWishes, word: string): Will[] {
  const address = canonicalAddress(word);
  const lost = wishes.seen.filter((s) => s.match.device === null).map((s) => s.match.wish);
  const gone = [...lost, ...wishes.all.filter((w) => !wishes.seen.some((s) => s.match.wish === w))].filter(
    (w) => w.address === address,
  );
  const known = address === null || wishes.inventory.byAddress.has(address);
  const devices = known ? namedDevices(host, wishes.inventory, [word]).devices : [];
  const here = wishes.seen.flatMap(({ match: { wish, device } }) =>
    devices.some((d) => d.address === device?.address) ? [wish] : [],
  );
  const found = [...new Set([...here, ...gone])];
  if (found.length === 0) throw new HostdevError('HOSTDEV_WISH_ABSENT', `No wish is about ${quote(word)}`);
  return found.map((wish) => ({ device: deviceFor(wishes, wish), wish, goes: true }));
}

/** Of a device that is not there only the address is known. */
function deviceFor({ seen }: HostWishes, wish: Wish): Pick<PciDevice, 'address' | 'parent_addr'> {
  return seen.find((s) => s.match.wish === wish)?.match.device ?? { address: wish.address, parent_addr: null };
}
