/**
 * `import`: wishes from what other tools, scripts and Nova's configuration do with devices now, and what to take out so
 * that not two do the same. Nothing is
 * guessed: what names no device of this host, or does with it what no wish says, is told and left.
 */

import { resolve } from 'node:path';
import { tomlOf } from '../boot/kept.ts';
import type { Wish, WishedDriver } from '../boot/wishes.ts';
import { commandFix, shellWord } from '../doctor/fix.ts';
import { removeLine } from '../doctor/initramfs.ts';
import { Look } from '../doctor/look.ts';
import { checkModules } from '../doctor/modules.ts';
import { devicesNamed, MAX_SCRIPT, workFix } from '../doctor/scriptFix.ts';
import { settled } from '../doctor/settle.ts';
import { workOf } from '../doctor/shellWork.ts';
import type { Draft, FindingId, Fix } from '../doctor/table.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { matchAll } from '../nova/matches.ts';
import { usableSetup } from '../nova/setup.ts';
import { canonicalAddress } from '../pci/address.ts';
import { isBridge, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { addressOfClass } from '../pci/resolve.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { type Warning, warning } from '../text/warning.ts';
import type { ActionOptions, Warned } from './options.ts';
import { deviceWish, type Kept, keeping, pfWish, type Will } from './persist.ts';
import { guarded } from './wish.ts';
import { type PrintedWish, printedWish } from './wishes.ts';

export const IMPORTS = ['driverctl', 'modprobe.d', 'rc.local', 'nova.conf'] as const;
export type ImportKind = (typeof IMPORTS)[number];

export type Imported = Warned & {
  changed: boolean;
  /** The files that were read. */
  files: string[];
  wishes: PrintedWish[];
  /** The wishes as they are written. */
  toml: string;
  /** Lines to take out, or commands that do. */
  take_out: Fix[];
  /** What no wish was made of, and why. */
  left: { object: string; reason: string }[];
  /** Null without --write. */
  kept: Kept | null;
};

type Found = {
  files: string[];
  devices: Map<string, { device: PciDevice; driver: WishedDriver }>;
  pfs: Map<string, { device: PciDevice; vfs: number; for: 'vfio' | 'netdev' }>;
  takeOut: Fix[];
  left: Imported['left'];
};

/**
 * Reads one kind of source: its usual files, or `file`. With `write` the wishes are kept as `wish add` keeps them.
 * Raises HOSTDEV_FILE_ABSENT for a file that was
 * named and is not there, HOSTDEV_CONFIG for a nova.conf that Nova would not take, and what keeping raises.
 */
export async function importWishes(
  host: Host,
  kind: ImportKind,
  file: string | null,
  write: boolean,
  options: ActionOptions,
): Promise<Imported> {
  const inventory = scanInventory(host);
  const look = new Look(host, inventory);
  const found: Found = { files: [], devices: new Map(), pfs: new Map(), takeOut: [], left: [] };
  if (kind === 'driverctl') ofDriverctl(look, file, found);
  else if (kind === 'modprobe.d') ofModprobe(look, found);
  else if (kind === 'rc.local') ofScript(look, file, found);
  else await ofNova(host, file, found);
  const wills: Will[] = [];
  const make = (object: string, wish: () => Wish, device: PciDevice): void => {
    try {
      wills.push({ device, wish: wish(), goes: false });
    } catch (e) {
      if (!(e instanceof HostdevError)) throw e;
      found.left.push({ object, reason: e.message });
    }
  };
  for (const { device, vfs, for: use } of found.pfs.values())
    make(device.address, () => pfWish(host, inventory, device, { vfs, for: use }, options.allowed), device);
  for (const { device, driver } of found.devices.values()) {
    const refusal = await keptByHost(host, device, driver, options);
    if (refusal !== null) found.left.push({ object: device.address, reason: refusal });
    else
      make(
        device.address,
        () => deviceWish(host, inventory, device, { driver, group: false }, options.allowed),
        device,
      );
  }
  const wishes = wills.map((w) => w.wish);
  const kept = write ? (await keeping(host, wills, options, async () => ({}))).kept : null;
  return {
    changed: kept !== null && !options.dryRun && kept.added.length > 0,
    files: found.files,
    wishes: wishes.map(printedWish),
    toml: wishes.map(tomlOf).join('\n'),
    take_out: found.takeOut,
    left: [...found.left, ...look.unmeasured],
    kept,
    warnings: [...inventory.warnings, ...(kind === 'modprobe.d' ? twins(wills) : [])],
  };
}

/** Ids say "every card of this kind", which is seldom what was meant. */
function twins(wills: readonly Will[]): Warning[] {
  const byIds = new Map<string, string[]>();
  for (const { wish } of wills) {
    const ids = `${wish.identity.vendor_id}:${wish.identity.product_id}`;
    byIds.set(ids, [...(byIds.get(ids) ?? []), wish.address]);
  }
  return [...byIds].flatMap(([ids, cards]) =>
    cards.length < 2
      ? []
      : warning('twins', `${ids} is ${cards.join(' and ')}: 'hostdev wish remove' for those that the host is to keep`),
  );
}

/** What the host itself stands on is no wish, whatever a file says. Null where nothing keeps the device. */
async function keptByHost(
  host: Host,
  device: PciDevice,
  driver: WishedDriver,
  options: ActionOptions,
): Promise<string | null> {
  if (driver === 'host') return null;
  try {
    await guarded(host, [device], { driver, group: false }, options);
    return null;
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    return e.code === 'HOSTDEV_GUARD' || e.code === 'HOSTDEV_IN_USE' ? e.message : null;
  }
}

/** The path below the root of a file that a person names, which must be there. */
function named(host: Host, file: string): string {
  const path = host.root === '/' ? resolve(file).slice(1) : (host.below(file) ?? file.replace(/^\/+/, ''));
  if (host.linkName(path) === null && host.list(path) === null && readOrNull(host, path) === null)
    throw new HostdevError('HOSTDEV_FILE_ABSENT', `${file} is not there`);
  return path;
}

function readOrNull(host: Host, path: string): string | null {
  try {
    return host.read(path, MAX_SCRIPT);
  } catch {
    return null;
  }
}

/** driverctl's folder: a file a device, `pci-0000:21:00.0`, that holds the driver's name. */
function ofDriverctl(look: Look, folder: string | null, found: Found): void {
  const at = folder === null ? 'etc/driverctl.d' : named(look.host, folder);
  for (const name of look.names(at)) {
    const file = `${at}/${name}`;
    const address = canonicalAddress(/^pci-(.+)$/.exec(name)?.[1] ?? '');
    const driver = (look.text(file) ?? '').trim();
    const device = address === null ? undefined : look.inventory.byAddress.get(address);
    if (address === null) found.left.push({ object: `/${file}`, reason: 'it is about no PCI device' });
    else if (device === undefined) found.left.push({ object: `/${file}`, reason: `${address} is not on this host` });
    else if (driver !== 'none' && !/vfio/.test(driver) && !isVfioDriver(look.host, address, driver))
      found.left.push({ object: `/${file}`, reason: `${driver} is no VFIO driver: no wish says that` });
    else {
      found.files.push(`/${file}`);
      found.devices.set(address, { device, driver });
      found.takeOut.push(
        commandFix(`rm ${shellWord(look.host.absolute(file))}`, 'before the next boot; the device stays as it is now'),
      );
    }
  }
}

/** What modprobe.d, /etc/modules, the initramfs' list and the kernel line say for devices to be given away by ids. */
const BY_IDS: readonly FindingId[] = [
  'ids-option',
  'ids-not-followed',
  'ids-overridden',
  'ids-cut-off',
  'ids-stale',
  'blacklist-unneeded',
  'blacklist-host-driver',
  'blacklist-gpu',
  'softdep-unneeded',
];

const TAKEN: readonly FindingId[] = ['ids-option', 'ids-not-followed'];
const NOT_TAKEN: readonly FindingId[] = ['ids-overridden', 'ids-cut-off', 'ids-stale'];

function ofModprobe(look: Look, found: Found): void {
  const drafts = checkModules(look).filter((d) => BY_IDS.includes(d.id));
  for (const d of drafts) {
    found.files.push(d.object);
    // What the kernel never took of them is no wish.
    for (const fix of TAKEN.includes(d.id) ? d.fix : [])
      if ('bind' in fix)
        for (const device of fix.bind)
          if (!isBridge(device)) found.devices.set(device.address, { device, driver: 'vfio' });
    if (NOT_TAKEN.includes(d.id)) found.left.push({ object: d.object, reason: d.cause });
  }
  // The devices are wished for instead: no command binds them.
  const outs = drafts.map((d): Draft => ({ ...d, fix: d.fix.filter((f) => !('bind' in f)) }));
  found.takeOut.push(...new Set(settled(look, outs, new Map()).flatMap((f) => f.fix)));
}

const SCRIPTS = ['etc/rc.local', 'etc/rc.d/rc.local'];

/** `echo 4 > …/sriov_numvfs`. */
const NUMVFS = /\becho\s+(?:-n\s+)?["']?(\d{1,5})["']?\s*>{1,2}\s*["']?(\/sys\/\S*\/sriov_numvfs)\b/;

function ofScript(look: Look, file: string | null, found: Found): void {
  for (const path of file === null ? SCRIPTS : [named(look.host, file)]) {
    const text = look.text(path, MAX_SCRIPT);
    if (text === null) continue;
    const raw = text.split('\n');
    const withoutComments = (lines: readonly string[]): string => lines.filter((l) => !/^\s*#/.test(l)).join('\n');
    const taken = workOf(text) ?? [];
    const work = withoutComments(taken.flatMap(({ first, last }) => raw.slice(first - 1, last)));
    const devices = devicesNamed(look, work);
    const forVfio = /vfio|pci[-_]stub|nodedev-det/.test(work);
    if (devices.length > 0 || taken.length > 0) {
      found.files.push(`/${path}`);
      found.takeOut.push(...workFix(look, path, `/${path}`, 'before the next boot'));
    }
    for (const device of devices)
      if (forVfio) found.devices.set(device.address, { device, driver: 'vfio' });
      else found.left.push({ object: device.address, reason: `what /${path} brings it to is not to be told` });
    for (const [i, line] of raw.entries()) {
      const [, count = '', target = ''] = /^\s*#/.test(line) ? [] : (NUMVFS.exec(line) ?? []);
      if (target === '') continue;
      const pf = look.inventory.byAddress.get(pfOf(look.host, target) ?? '');
      if (pf?.dev_type !== 'type-PF')
        found.left.push({ object: `/${path}:${i + 1}`, reason: `${target} is of no PF of this host` });
      else if (Number(count) === 0) continue;
      else {
        found.files.push(`/${path}`);
        found.pfs.set(pf.address, { device: pf, vfs: Number(count), for: 'netdev' });
        found.takeOut.push({
          ...removeLine(look, { file: path, line: i + 1, text: line }),
          after: 'before the next boot',
        });
      }
    }
  }
  found.files = [...new Set(found.files)];
}

/** The function that a path of sysfs is of: by address, or by its network interface. */
function pfOf(host: Host, path: string): string | null {
  const name = /^\/sys\/class\/net\/([^/\s]{1,15})\/device\//.exec(path)?.[1];
  if (name !== undefined) return addressOfClass(host, 'net', name);
  return canonicalAddress(path.split('/').at(-2) ?? '');
}

/** The devices that Nova may give out; VFs as the number that their PF has now. */
async function ofNova(host: Host, file: string | null, found: Found): Promise<void> {
  const conf = file ?? host.absolute('etc/nova/nova.conf');
  const setup = await usableSetup(host, { config: [conf], inventory: null });
  found.files.push(...setup.config.files);
  const { inventory } = setup;
  const matched = matchAll(setup);
  /** Told by an address or a name alone, a PF is taken with its VFs (nova/pci/devspec.py). */
  const withVfs = (d: PciDevice): boolean =>
    d.dev_type === 'type-PF' && setup.specs[matched.specOf.get(d.address) ?? -1]?.value.product_id === '*';
  for (const device of matched.devices.flat()) {
    const pf = device.parent_addr === null ? undefined : inventory.byAddress.get(device.parent_addr);
    if (pf !== undefined && pf.dev_type === 'type-PF') {
      const use = isVfioDriver(host, device.address, device.driver) ? 'vfio' : 'netdev';
      found.pfs.set(pf.address, { device: pf, vfs: pf.sriov_numvfs ?? 0, for: use });
    } else if (isBridge(device)) found.left.push({ object: device.address, reason: 'it is a bridge' });
    else if (device.dev_type === 'type-PF' && (device.sriov_numvfs ?? 0) > 0)
      found.left.push({
        object: device.address,
        reason: 'it is a PF with VFs: what of it a guest gets is not to be told',
      });
    else if (withVfs(device))
      found.left.push({
        object: device.address,
        reason: 'the device_spec takes it and its VFs: which of them guests get is not to be told',
      });
    else found.devices.set(device.address, { device, driver: 'vfio' });
  }
}
