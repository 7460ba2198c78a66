/**
 * `--persist`, and `wish add|remove`: what a change means for the wishes, and writing it into conf.d/90-kept.toml. What
 * would be refused is refused before any device is changed; the file is written when the change holds.
 */

import { type Guard, isAllowable } from '../binding/guards.ts';
import { checkKeep, type KeptChange, keep, tomlOf } from '../boot/kept.ts';
import { type DeviceWish, type PfWish, subjectOf, type VfRange, type Wish, wishPlace } from '../boot/wishes.ts';
import type { AllowableGuard } from '../config/allowable.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { identityOf } from '../pci/identity.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { numberedVfs } from '../pci/vfLinks.ts';
import { Deadline } from '../store/locks.ts';
import { type Warning, warning } from '../text/warning.ts';
import { bindDevices, namedDevices } from './bind.ts';
import type { ActionOptions, Warned } from './options.ts';
import { unbindDevices } from './unbind.ts';
import { type CreateOptions, createVfs, removeVfs } from './vf.ts';
import { setVgpuType } from './vgpu.ts';
import { type HostWishes, hostWishes, type PrintedWish, printedWish } from './wishes.ts';

/**
 * What was kept, or would be in a dry run. `already`: wishes that say the same, those of other files however they tell
 * the device.
 */
export type Kept = { file: string; added: PrintedWish[]; removed: PrintedWish[]; already: PrintedWish[] };

/**
 * What a device, or a PF's VFs, shall be from now on. `goes`: what hostdev keeps about the same goes, and nothing
 * comes.
 */
export type Will = { device: Pick<PciDevice, 'address' | 'parent_addr'>; wish: Wish; goes: boolean };

type KeepPlan = KeptChange & { already: Wish[] };

/** The part of a wish that tells the device. Raises HOSTDEV_NO_IDENTITY. */
function tellingOf(
  host: Host,
  inventory: Inventory,
  device: PciDevice,
): Pick<DeviceWish, 'address' | 'identity' | 'vf'> {
  const pf = device.parent_addr === null ? device : inventory.byAddress.get(device.parent_addr);
  const vf =
    device.parent_addr === null
      ? null
      : numberedVfs(host, device.parent_addr).find((v) => v.address === device.address)?.n;
  const identity = pf === undefined || vf === undefined ? null : identityOf(host, pf, inventory.devices);
  if (identity === null || vf === undefined)
    throw new HostdevError(
      'HOSTDEV_NO_IDENTITY',
      `${device.address}: no wish about it can be kept: ${pf === undefined || vf === undefined ? 'its PF does not show which VF it is' : 'neither its path from the root bus nor its ids tell it'}`,
    );
  return { address: device.address, identity, vf };
}

const NOWHERE = { file: '', line: 0, column: 0, key: '' };

/** A wish about a device of this host, as it is now. Raises HOSTDEV_NO_IDENTITY. */
export const deviceWish = (
  host: Host,
  inventory: Inventory,
  device: PciDevice,
  what: Pick<DeviceWish, 'driver' | 'group'>,
  allowed: ReadonlySet<Guard>,
): DeviceWish => ({
  kind: 'device',
  ...tellingOf(host, inventory, device),
  ...what,
  allow: allowOf(allowed),
  place: { ...NOWHERE, file: host.absolute(host.kept) },
});

/** A wish about the VFs of a PF. Raises HOSTDEV_NO_IDENTITY. */
export function pfWish(
  host: Host,
  inventory: Inventory,
  pf: PciDevice,
  { vfs, for: use, ranges = [] }: Pick<PfWish, 'vfs' | 'for'> & Partial<Pick<PfWish, 'ranges'>>,
  allowed: ReadonlySet<Guard>,
): PfWish {
  const { vf: _, ...telling } = tellingOf(host, inventory, pf);
  return {
    kind: 'pf',
    ...telling,
    vfs,
    for: use,
    ranges,
    allow: allowOf(allowed),
    place: { ...NOWHERE, file: host.absolute(host.kept) },
  };
}

const allowOf = (allowed: ReadonlySet<Guard>): AllowableGuard[] => [...allowed].filter(isAllowable).sort();

/** All wishes about the same thing: by the device that each means now, and by its slot, which may be another card's. */
function wishesAbout(wishes: HostWishes, { device, wish }: Will): Wish[] {
  const meant = wishes.seen.filter((s) => s.match.device?.address === device.address).map((s) => s.match.wish);
  return wishes.all.filter((w) => w.kind === wish.kind && (meant.includes(w) || subjectOf(w) === subjectOf(wish)));
}

/** What a wish wants, however its device is told. */
const wantOf = (w: Wish): string => JSON.stringify(w.kind === 'pf' ? [w.vfs, w.for, w.ranges] : [w.driver, w.group]);

/** Raises HOSTDEV_WISH_ELSEWHERE. */
async function planKeep(host: Host, wills: readonly Will[]): Promise<KeepPlan> {
  const wishes = await hostWishes(host);
  const file = host.absolute(host.kept);
  const plan = { gone: [] as Wish[], come: [] as Wish[], already: [] as Wish[] };
  for (const will of wills) {
    const about = wishesAbout(wishes, will);
    const elsewhere = about.filter((w) => w.place.file !== file);
    const ours = about.filter((w) => w.place.file === file);
    const same = will.goes
      ? undefined
      : (elsewhere.find((w) => wantOf(w) === wantOf(will.wish)) ?? ours.find((w) => tomlOf(w) === tomlOf(will.wish)));
    const [other] = elsewhere.filter((w) => w !== same);
    if (other !== undefined)
      throw new HostdevError(
        'HOSTDEV_WISH_ELSEWHERE',
        `${will.device.address}: ${wishPlace(other)} (${other.place.key}) wishes ${wantText(other)}, and hostdev edits ${file} only`,
        {
          hint: will.goes
            ? 'Take it out there.'
            : `Change it there, or take it out there: then --persist writes ${file}.`,
        },
      );
    plan.gone.push(...ours.filter((w) => w !== same && !plan.gone.includes(w)));
    if (same !== undefined) plan.already.push(same);
    else if (!will.goes) plan.come.push(will.wish);
  }
  return plan;
}

/** What a wish wants, for a message. */
export function wantText(w: Wish): string {
  if (w.kind === 'pf') return `${w.vfs} VFs for ${w.for}`;
  return `${w.driver === 'none' ? 'no driver' : w.driver}${w.group ? ', with the endpoints of its group' : ''}`;
}

/**
 * Runs `act` and keeps what the devices shall be from now on. Raises HOSTDEV_WISH_ELSEWHERE, HOSTDEV_CONFIG before
 * `act` runs; what `act` raises; and HOSTDEV_STORE or HOSTDEV_NOT_PERMITTED where the file cannot be written, by which
 * the change itself holds.
 */
export async function keeping<T extends object>(
  host: Host,
  wills: readonly Will[],
  { dryRun, deadlineMs }: ActionOptions,
  act: () => Promise<T>,
): Promise<T & { kept: Kept }> {
  const plan = await planKeep(host, wills);
  checkKeep(host, plan);
  const done = await act();
  let now = plan;
  if (!dryRun)
    await keep(host, new Deadline(deadlineMs), async () => {
      now = await planKeep(host, wills);
      return now;
    });
  const kept = {
    file: host.absolute(host.kept),
    added: now.come.map(printedWish),
    removed: now.gone.map(printedWish),
    already: now.already.map(printedWish),
  };
  return { ...done, kept };
}

/** The wills of `bind --persist`: each device that was named. */
function boundWills(
  host: Host,
  words: readonly string[],
  what: Pick<DeviceWish, 'driver' | 'group'>,
  allowed: ReadonlySet<Guard>,
): Will[] {
  const inventory = scanInventory(host);
  const { devices } = namedDevices(host, inventory, words);
  return devices.map((device) => ({ device, wish: deviceWish(host, inventory, device, what, allowed), goes: false }));
}

/** The wills of `unbind --persist`: what is kept goes; where there is nothing, the host's driver is wished. */
async function unboundWills(host: Host, words: readonly string[]): Promise<Will[]> {
  const wishes = await hostWishes(host);
  const { devices } = namedDevices(host, wishes.inventory, words);
  return devices.map((device) => {
    const wish = deviceWish(host, wishes.inventory, device, { driver: 'host', group: false }, new Set());
    const will: Will = { device, wish, goes: false };
    return { ...will, goes: wishesAbout(wishes, will).some((w) => wantOf(w) !== wantOf(wish)) };
  });
}

/** VFs are there at boot only where a wish makes them. */
export async function vfWarnings(host: Host, wills: readonly Will[]): Promise<Warning[]> {
  const vfs = wills.filter((w) => w.device.parent_addr !== null);
  if (vfs.length === 0) return [];
  const { seen } = await hostWishes(host);
  const made = new Set(seen.flatMap((s) => (s.match.wish.kind === 'pf' ? (s.match.device?.address ?? []) : [])));
  const pfs = new Set(vfs.flatMap((w) => w.device.parent_addr ?? []).filter((pf) => !made.has(pf)));
  return [...pfs].map((pf) =>
    warning('wish', `no wish makes the VFs of ${pf} at boot: 'hostdev wish add ${pf} --vfs N'`, pf),
  );
}

/** What the actions give, with what was kept and what is worth saying of that. */
async function kept<T extends Warned>(
  host: Host,
  wills: readonly Will[],
  options: ActionOptions,
  act: () => Promise<T>,
): Promise<T & { kept: Kept }> {
  const done = await keeping(host, wills, options, act);
  return {
    ...done,
    warnings: [
      ...done.warnings,
      ...(await vfWarnings(
        host,
        wills.filter((w) => !w.goes),
      )),
    ],
  };
}

/** `bind --persist`: {@link bindDevices}, and wishes for the devices that are named. Raises what both raise. */
export const bindAndKeep = async (...[host, words, driver, options, whole = false]: Parameters<typeof bindDevices>) =>
  kept(host, boundWills(host, words, { driver: driver ?? 'vfio', group: whole }, options.allowed), options, () =>
    bindDevices(host, words, driver, options, whole),
  );

/** `unbind --persist`: {@link unbindDevices}; the wishes about them go, or say that the host has them. */
export const unbindAndKeep = async (...[host, words, toHost, options]: Parameters<typeof unbindDevices>) =>
  kept(host, await unboundWills(host, words), options, () => unbindDevices(host, words, toHost, options));

/** The PF that a word names, with a wish about its VFs. */
function pfWill(
  host: Host,
  word: string,
  what: Pick<PfWish, 'vfs' | 'for'>,
  options: ActionOptions,
  goes: boolean,
): Will[] {
  const inventory = scanInventory(host);
  const { devices } = namedDevices(host, inventory, [word]);
  // What is no PF is refused by whoever makes the VFs.
  return devices.flatMap((device) =>
    device.dev_type === 'type-PF' ? { device, wish: pfWish(host, inventory, device, what, options.allowed), goes } : [],
  );
}

/** `vf create --persist`. */
export const createVfsAndKeep = async (
  host: Host,
  word: string,
  count: number,
  use: 'vfio' | 'netdev',
  options: CreateOptions,
) =>
  kept(host, pfWill(host, word, { vfs: count, for: use }, options, false), options, () =>
    createVfs(host, word, count, use, options),
  );

/**
 * The wills of `vf set --persist`: each PF's wish with the vGPU type of the VFs that are named; where there is none,
 * one for as many VFs as it has.
 */
async function typedWills(host: Host, words: readonly string[], type: string, options: ActionOptions): Promise<Will[]> {
  const wishes = await hostWishes(host);
  const { inventory } = wishes;
  const { devices } = namedDevices(host, inventory, words);
  const pfs = new Set(devices.flatMap((d) => d.parent_addr ?? []));
  return [...pfs].flatMap((address) => {
    const device = inventory.byAddress.get(address);
    if (device === undefined) return [];
    const vfs = numberedVfs(host, address);
    const named = vfs.filter((vf) => devices.some((d) => d.address === vf.address)).map((vf) => vf.n);
    const found = wishes.seen.find((s) => s.match.wish.kind === 'pf' && s.match.device?.address === address);
    const had = found?.match.wish.kind === 'pf' ? found.match.wish : null;
    const count = Math.max(had?.vfs ?? vfs.length, ...named.map((n) => n + 1));
    const ranges = withTypes(had?.ranges ?? [], count, new Set(named), Number(type));
    const allowed = new Set<Guard>([...options.allowed, ...(had?.allow ?? [])]);
    const wish = pfWish(host, inventory, device, { vfs: count, for: had?.for ?? 'vfio', ranges }, allowed);
    return { device, wish, goes: false };
  });
}

/** Ranges in which the VFs of these numbers have a vGPU type; neighbours that are alike are one. */
function withTypes(ranges: readonly VfRange[], vfs: number, named: ReadonlySet<number>, type: number): VfRange[] {
  const all: VfRange[] = [];
  for (let n = 0; n < vfs; n += 1) {
    const was = ranges.find((r) => r.first <= n && n <= r.last);
    const now = { driver: was?.driver ?? null, vgpu_type: named.has(n) ? type : (was?.vgpu_type ?? null) };
    const last = all.at(-1);
    if (last?.last === n - 1 && last.driver === now.driver && last.vgpu_type === now.vgpu_type) last.last = n;
    else if (now.driver !== null || now.vgpu_type !== null) all.push({ first: n, last: n, ...now });
  }
  return all;
}

/** `vf set --vgpu-type --persist`. Raises what {@link setVgpuType} and {@link keeping} raise. */
export const setTypeAndKeep = async (host: Host, words: readonly string[], type: string, options: ActionOptions) =>
  kept(host, await typedWills(host, words, type, options), options, () => setVgpuType(host, words, type, options));

/** `vf remove --persist`: the wish about the VFs goes. */
export const removeVfsAndKeep = async (host: Host, word: string, options: ActionOptions) =>
  kept(host, pfWill(host, word, { vfs: 1, for: 'vfio' }, options, true), options, () => removeVfs(host, word, options));
