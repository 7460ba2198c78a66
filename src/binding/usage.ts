/**
 * What the host itself uses devices for: the facts that the guards judge. Read before anything is planned, for all
 * devices of a plan at once; "not measured" is a fact too, because a guard that could not look must not say yes.
 */
import type { Holder, KernelWriter } from '../addon/native.ts';
import { sleep } from '../clock.ts';
import { isErrno, orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { Look, Tables } from '../host/look.ts';
import type { Address } from '../pci/address.ts';
import { heldBy, holdersOf, holderText } from '../pci/holders.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { hostNodes, isRdmaNode, vfioNodes } from '../pci/nodes.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { Deadline } from '../store/locks.ts';
import { safe } from '../text/safe.ts';
import { consoleUses } from './guards/console.ts';
import { claimUse, diskUses, unexplainedPoint } from './guards/disk.ts';
import { displayUses } from './guards/display.ts';
import { memoryUses } from './guards/memory.ts';
import { lacksInterface, networkUses } from './guards/network.ts';
import { handedOn } from './guards/users.ts';
import { vfsOf, vfUses } from './guards/vfs.ts';
import type { Usage, Use } from './guards.ts';

export { vfioNodes } from '../pci/nodes.ts';

/** What reading needs: the helper that may hang in our place, and the time there is. */
export type Reading = { host: Host; writer: KernelWriter; deadline: Deadline };

/** Opening a dead disk may hang as a write does. */
const CLAIM_MS = 2000;

type Seen = { device: PciDevice; look: Look; vfio: boolean; nodes: string[]; uses: Use[]; unexplained: string[] };

/**
 * The uses of each device, by address: of one on a host driver all that the host does with it; of one on VFIO who holds
 * it; of a driverless one whether the firmware's frame buffer lies on it; of a PF also what its VFs are used for.
 * Raises only what breaks our own state (HOSTDEV_STORE_CORRUPT).
 */
export async function readUsages(work: Reading, devices: readonly PciDevice[]): Promise<Map<Address, Usage>> {
  const { host } = work;
  await awaitInterfaces(work, devices);
  const tables = new Tables(host);
  const vfs = new Map(devices.map((d) => [d.address, vfsOf(host, d)]));
  const all = new Map([...[...vfs.values()].flat(), ...devices].map((d) => [d.address, d]));
  const seen = [...all.values()].map((device) => see(tables, device));
  const holders = await scanHolders(work, seen);
  const usages = new Map<Address, Usage>();
  for (const s of seen) {
    const held = holders.filter((h) => s.nodes.includes(h.path));
    const drawing = held.filter((h) => h.path.startsWith('/dev/dri/'));
    if (!s.vfio) s.uses.push(...displayUses(s.look, s.device, drawing));
    s.uses.push(...heldUses(held));
    for (const disk of s.unexplained) await askClaim(work, s, disk);
    usages.set(s.device.address, { uses: s.uses, unmeasured: s.look.unmeasured });
  }
  for (const [address, list] of vfs) {
    const [usage, pf] = [usages.get(address), all.get(address)];
    if (usage === undefined || pf === undefined) continue;
    usage.uses.unshift(...vfUses(host, pf, list, (vf) => usages.get(vf.address) ?? { uses: [], unmeasured: [] }));
    usage.unmeasured.push(...list.flatMap((vf) => usages.get(vf.address)?.unmeasured ?? []));
  }
  return usages;
}

/**
 * What the host does with a device, one line each, without who holds it open, which costs a look at every process: for
 * lists of many devices.
 */
export function hostUses(host: Host, device: PciDevice): string[] {
  const { look, uses, vfio } = see(new Tables(host), device);
  return [...uses, ...(vfio ? [] : displayUses(look, device, []))].map((u) => u.reason);
}

/**
 * What uses a device now, one line each, for a device on which a write hangs (`device.driver` as it was before the
 * write): {@link hostUses} and every process that holds it. Takes no device's lock, opens no disk and never raises.
 */
export const usesNow = (host: Host, device: PciDevice): string[] =>
  orNull(() => [...hostUses(host, device), ...heldUses(holdersOf(host, device)).map((u) => u.reason)]) ?? [];

/** The uses that the trees show, and the nodes by which the device may be held. */
function see(tables: Tables, device: PciDevice): Seen {
  const look = new Look(tables);
  const { host } = tables;
  tables.names(host.device(device.address)); // what is not in this list is not looked for any more
  const vfio = isVfioDriver(tables, device.address, device.driver);
  const seen: Seen = { device, look, vfio, nodes: [], uses: [], unexplained: [] };
  if (device.driver === null) return seen;
  if (vfio) return { ...seen, nodes: vfioNodes(host, device) };
  const { uses, unexplained } = diskUses(look, device);
  seen.uses.push(...uses, ...networkUses(look, device), ...handedOn(look, device));
  seen.uses.push(...consoleUses(look, device), ...memoryUses(look, device));
  return { ...seen, unexplained, nodes: hostNodes(tables, device) };
}

/** Of thirty processes that draw on a display, so many are named. */
const NAMED_HOLDERS = 8;

function heldUses(held: readonly Holder[]): Use[] {
  return (['in-use', 'rdma'] as const).flatMap((guard) => {
    const list = held.filter((h) => isRdmaNode(h.path) === (guard === 'rdma'));
    const uses: Use[] = list.slice(0, NAMED_HOLDERS).map((h) => ({ guard, reason: holderText(h) }));
    const more = list.length - uses.length;
    return more > 0 ? [...uses, { guard, reason: `and so have ${more} more` }] : uses;
  });
}

/**
 * How long a driver may take to make its interface: its link is there before probe() has ended, and udev probes a fresh
 * VF at its leisure.
 */
const PROBE_MS = 1000;

/**
 * Waits for the interfaces of functions that a driver has only just taken, so that "none is to be seen" means that
 * there is none.
 */
async function awaitInterfaces({ host, deadline }: Reading, devices: readonly PciDevice[]): Promise<void> {
  if (!host.isReal) return;
  const until = new Deadline(Math.min(PROBE_MS, deadline.left));
  const late = (d: PciDevice): boolean =>
    lacksInterface(new Tables(host), d) && !isVfioDriver(host, d.address, d.driver);
  while (until.left > 0 && devices.some(late)) await sleep(20);
}

/** One walk through proc/[pid]/fd for all devices: it is the dearest look of all. */
async function scanHolders({ host, deadline }: Reading, seen: readonly Seen[]): Promise<Holder[]> {
  const nodes = [...new Set(seen.flatMap((s) => s.nodes))];
  if (nodes.length === 0) return [];
  const { holders, unreadable } = await heldBy(host, nodes, deadline.left);
  if (unreadable > 0)
    for (const s of seen) if (s.nodes.length > 0) s.look.miss(`the open files of ${unreadable} processes`);
  return holders;
}

/**
 * Whether somebody has a disk for himself (O_EXCL, block/bdev.c bd_may_claim): zfs, a btrfs of several disks, a mount
 * in another namespace, raw use.
 */
async function askClaim({ host, writer, deadline }: Reading, seen: Seen, disk: string): Promise<void> {
  const node = host.node(disk.replaceAll('!', '/'));
  try {
    if (await writer.claimed(node, Math.min(CLAIM_MS, Math.max(deadline.left, 1))))
      seen.uses.push(claimUse(seen.look, disk));
  } catch (e) {
    seen.look.miss(isErrno(e, 'ENOENT') ? `${node}: ENOENT` : (e as Error).message);
    const point = unexplainedPoint(seen.look);
    if (point === null) return;
    const reason = `what ${safe(point)} stands on is not to be seen, nor whether it is ${safe(disk)}`;
    seen.uses.push({ guard: 'disk', reason, vital: true });
  }
}
