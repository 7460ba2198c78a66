/**
 * The disks of a function and what the host does with them: mounts, swap, stacks; and the exclusive claim that tells
 * what sysfs does not (zfs, raw use).
 */
import { type BlockDevice, type BlockLayer, blockLayer } from '../../host/blockLayer.ts';
import type { Look } from '../../host/look.ts';
import {
  isRemote,
  isVitalPlace,
  isVitalPoint,
  type Mount,
  mountOf,
  mountOption,
  parseMounts,
  parseSwaps,
} from '../../host/mounts.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import { safe } from '../../text/safe.ts';
import type { Use } from '../guards.ts';

/** Of a file system that containers have mounted a hundred times, so many places are named. */
const NAMED_POINTS = 3;

/**
 * The uses of a function's disks, and the devices whose claim is still to be asked for because nothing else told of a
 * use.
 */
export type DiskUses = { uses: Use[]; unexplained: string[] };

/** A use of one device of the stack. */
type DiskUse = { disk: string; use: Use };

export function diskUses(look: Look, device: Pick<PciDevice, 'address' | 'class'>): DiskUses {
  const layer = layerOf(look, device);
  return layer === null ? { uses: [], unexplained: [] } : stackUses(look, layer, layer.stack(device.address));
}

/** What is done with block devices and everything on them. */
export function stackUses(look: Look, layer: BlockLayer, own: readonly BlockDevice[]): DiskUses {
  if (own.length === 0) return { uses: [], unexplained: [] };
  const mounts = parseMounts(look.mustLines(look.host.mountinfo));
  const stack = new Map(own.map((d) => [d.name, d]));
  addLoops(layer, stack, mounts);
  const found = [
    ...mounted(layer, stack, mounts),
    ...inFilesystems(look, layer, stack, mounts),
    ...swaps(look, layer, stack, mounts),
    ...exported(look, layer, stack, mounts),
  ];
  const uses = [...found.map((f) => f.use), ...built(layer, stack)];
  return { uses, unexplained: unexplained(layer, stack, new Set(found.map((f) => f.disk))) };
}

/**
 * Whose claim tells of a use that nothing else shows: the top of each pile that is not in use. Of a disk of which
 * nothing is used it is enough to ask for the whole, for a claim on a part is one on the whole too (block/bdev.c
 * bd_may_claim).
 */
function unexplained(layer: BlockLayer, stack: ReadonlyMap<string, BlockDevice>, used: ReadonlySet<string>): string[] {
  const above = new Map<string, string[]>();
  for (const { name, below } of stack.values())
    if (below !== null) above.set(below, [...(above.get(below) ?? []), name]);
  const ask = new Set<string>();
  const seen = new Set<string>();
  /** True when the device, or something on it, is in use or will be asked for. */
  const visit = (name: string): boolean => {
    if (seen.has(name)) return true;
    seen.add(name);
    const uppers = above.get(name) ?? [];
    const parts = uppers.filter((u) => stack.get(u)?.layer === 'partition');
    const built = uppers.filter((u) => !parts.includes(u));
    if (used.has(name)) return true;
    if (built.length > 0) {
      for (const u of built) if (!visit(u)) ask.add(u);
      return true;
    }
    const idle = parts.filter((p) => !visit(p));
    if (idle.length === parts.length) return false;
    for (const p of idle) ask.add(p);
    return true;
  };
  for (const { name, layer: kind } of stack.values()) if (kind === 'own' && !visit(name)) ask.add(name);
  return [...ask].filter((n) => !layer.hidden(n));
}

/** Mass storage whose class folder is missing has disks that nobody sees. */
function layerOf(look: Look, device: Pick<PciDevice, 'address' | 'class'>): BlockLayer | null {
  const folder = look.host.classLink('block');
  try {
    const layer = look.tables.once(blockLayer);
    if (device.class?.startsWith('01') && look.tables.names(folder).value === null) look.miss(`${folder}: ENOENT`);
    return layer;
  } catch (e) {
    look.miss((e as Error).message);
    return null;
  }
}

/**
 * Loop devices on the function's disks: over a node of theirs, which leaves no link in sysfs, or over a file that lies
 * on them.
 */
function addLoops(layer: BlockLayer, stack: Map<string, BlockDevice>, mounts: readonly Mount[]): void {
  const loops = layer.loops();
  for (let before = -1; before !== stack.size; ) {
    before = stack.size;
    const names = nodesOf(layer, stack);
    const numbers = numbersOf(layer, stack);
    for (const { name, file } of loops) {
      if (stack.has(name)) continue;
      const under = mountOf(mounts, file);
      const below = names.get(file) ?? (under === null ? undefined : diskOf(under, numbers, names));
      if (below !== undefined) stack.set(name, { name, layer: names.has(file) ? 'built' : 'loop', below });
    }
    layer.climb(stack);
  }
}

const nodesOf = (layer: BlockLayer, stack: ReadonlyMap<string, BlockDevice>): Map<string, string> =>
  new Map([...stack.keys()].flatMap((n) => layer.nodes(n).map((node) => [node, n] as const)));

const numbersOf = (layer: BlockLayer, stack: ReadonlyMap<string, BlockDevice>): Map<string, string> =>
  new Map([...stack.keys()].flatMap((n) => [[layer.number(n) ?? '', n] as const]).filter(([number]) => number !== ''));

/** btrfs has a device number of its own for each subvolume; there the source still names one of its disks. */
const diskOf = (
  m: Mount,
  numbers: ReadonlyMap<string, string>,
  nodes: ReadonlyMap<string, string>,
): string | undefined =>
  numbers.get(m.number) ??
  nodes.get(m.source) ??
  (m.type === 'bcachefs' ? m.source.split(':').flatMap((part) => nodes.get(part) ?? [])[0] : undefined);

function mounted(layer: BlockLayer, stack: ReadonlyMap<string, BlockDevice>, mounts: readonly Mount[]): DiskUse[] {
  const [numbers, nodes] = [numbersOf(layer, stack), nodesOf(layer, stack)];
  const points = new Map<string, Set<string>>();
  for (const m of mounts) {
    const disk = diskOf(m, numbers, nodes);
    if (disk !== undefined) points.set(disk, (points.get(disk) ?? new Set()).add(m.point));
  }
  return [...points].map(([disk, all]) => {
    // The vital ones first: they decide what the admin does.
    const list = [...all].sort((a, b) => Number(isVitalPoint(b)) - Number(isVitalPoint(a)));
    const more = list.length > NAMED_POINTS ? ` and ${list.length - NAMED_POINTS} more` : '';
    const named = list.slice(0, NAMED_POINTS).map((p) => safe(p));
    const reason = `${label(layer, disk)} is mounted on ${named.join(', ')}${more}`;
    return { disk, use: { guard: 'disk', reason, vital: list.some(isVitalPoint) } };
  });
}

/**
 * File systems that mountinfo does not give a device number of: btrfs over several disks, of which it names one or none
 * (sys/fs/btrfs lists them while it is mounted anywhere), and overlays, which stand on the folders that their options
 * name.
 */
function inFilesystems(
  look: Look,
  layer: BlockLayer,
  stack: ReadonlyMap<string, BlockDevice>,
  mounts: readonly Mount[],
): DiskUse[] {
  const uses: DiskUse[] = [];
  const [numbers, nodes] = [numbersOf(layer, stack), nodesOf(layer, stack)];
  const btrfs = btrfsDisks(look);
  const volumes = mounts.filter((m) => m.type === 'btrfs');
  for (const { id, disks } of btrfs) {
    const mine = disks.filter((d) => stack.has(d));
    const [first] = mine;
    if (
      first === undefined ||
      volumes.some((m) => diskOf(m, numbers, nodes) !== undefined && mine.includes(diskOf(m, numbers, nodes) ?? ''))
    )
      continue;
    const known = new Map(btrfs.flatMap((b) => b.disks.flatMap((d) => layer.nodes(d).map((n) => [n, b.id] as const))));
    // What the source of a mount does not tell may be this one.
    const points = volumes.filter((m) => (known.get(m.source) ?? id) === id).map((m) => m.point);
    const vital = points.length === 0 || points.some(isVitalPoint);
    const where =
      points.length === 0
        ? 'somewhere that is not to be seen'
        : `on ${points
            .slice(0, NAMED_POINTS)
            .map((p) => safe(p))
            .join(', ')}`;
    const reason = `${label(layer, first)} is claimed by the btrfs that is mounted ${where}`;
    uses.push({ disk: first, use: { guard: 'disk', reason, vital } });
  }
  for (const m of mounts.filter((o) => o.type === 'overlay' && isVitalPlace(o.point)))
    for (const folder of overlayFolders(m)) {
      const under = mountOf(
        mounts.filter((x) => x !== m),
        folder,
      );
      const disk = under === null ? undefined : diskOf(under, numbers, nodes);
      if (disk === undefined) continue;
      const reason = `${safe(m.point)} is an overlay that stands on ${safe(folder)}, which lies on ${label(layer, disk)}`;
      uses.push({ disk, use: { guard: 'disk', reason, vital: true } });
    }
  return uses;
}

const overlayFolders = (m: Mount): string[] =>
  ['lowerdir', 'upperdir', 'workdir'].flatMap((name) =>
    (mountOption(m, name)?.match(/(?:\\.|[^:\\])+/g) ?? [])
      .map((p) => p.replace(/\\(.)/g, '$1'))
      .filter((p) => p.startsWith('/')),
  );

/** The disks of every btrfs that is mounted anywhere: sys/fs/btrfs/<uuid>/devices (fs/btrfs/sysfs.c). */
function btrfsDisks(look: Look): { id: string; disks: string[] }[] {
  const { btrfs } = look.host;
  return look
    .names(btrfs)
    .filter((id) => /^[0-9a-f-]{36}$/.test(id))
    .map((id) => ({ id, disks: look.names(`${btrfs}/${id}/devices`) }));
}

/**
 * What the kernel serves to others from here, a disk or a file on one: it opens a disk without a trace in sysfs. Other
 * machines may stand on it, so it is vital.
 */
function exported(
  look: Look,
  layer: BlockLayer,
  stack: ReadonlyMap<string, BlockDevice>,
  mounts: readonly Mount[],
): DiskUse[] {
  const [numbers, nodes] = [numbersOf(layer, stack), nodesOf(layer, stack)];
  return kernelExports(look).flatMap(({ what, path }) => {
    const under = path.startsWith('/dev/') ? null : mountOf(mounts, path);
    const disk = nodes.get(path) ?? (under === null ? undefined : diskOf(under, numbers, nodes));
    if (disk === undefined) return [];
    return [{ disk, use: { guard: 'disk', reason: `${what} serves ${label(layer, disk)} to others`, vital: true } }];
  });
}

/**
 * drivers/nvme/target/configfs.c, drivers/target/target_core_configfs.c. A path is whatever somebody wrote:
 * /dev/disk/by-id/…, a link to that, /dev//sda.
 */
function kernelExports(look: Look): { what: string; path: string }[] {
  const { host } = look;
  const list = (path: string): string[] => look.names(path);
  const text = (path: string): string | null => look.attribute(path)?.trim() ?? null;
  const nvmet = list(host.nvmet).flatMap((subsystem) =>
    list(`${host.nvmet}/${subsystem}/namespaces`).flatMap((n) => {
      const at = `${host.nvmet}/${subsystem}/namespaces/${n}`;
      const path = text(`${at}/enable`) === '1' ? text(`${at}/device_path`) : null;
      return path === null ? [] : [{ what: `nvmet (${safe(subsystem)})`, path: host.resolved(path) }];
    }),
  );
  const lio = list(host.lio)
    .filter((n) => /^(iblock|pscsi|fileio)_/.test(n))
    .flatMap((core) =>
      list(`${host.lio}/${core}`).flatMap((name) => {
        const path = text(`${host.lio}/${core}/${name}/udev_path`);
        return path === null || path === ''
          ? []
          : [{ what: `the iSCSI target (${safe(name)})`, path: host.resolved(path) }];
      }),
    );
  return [...nvmet, ...lio];
}

function swaps(
  look: Look,
  layer: BlockLayer,
  stack: ReadonlyMap<string, BlockDevice>,
  mounts: readonly Mount[],
): DiskUse[] {
  const [numbers, nodes] = [numbersOf(layer, stack), nodesOf(layer, stack)];
  return parseSwaps(look.mustLines(look.host.swaps)).flatMap((path): DiskUse[] => {
    const swap = (disk: string, reason: string): DiskUse[] => [{ disk, use: { guard: 'disk', reason, vital: true } }];
    const disk = nodes.get(path);
    if (disk !== undefined) return swap(disk, `${label(layer, disk)} is swap`);
    const under = path.startsWith('/dev/') ? null : mountOf(mounts, path);
    const below = under === null ? undefined : diskOf(under, numbers, nodes);
    return below === undefined ? [] : swap(below, `the swap file ${safe(path)} lies on ${label(layer, below)}`);
  });
}

function built(layer: BlockLayer, stack: ReadonlyMap<string, BlockDevice>): Use[] {
  const uses: Use[] = [];
  for (const d of stack.values()) {
    if (d.layer === 'built')
      uses.push({ guard: 'disk', reason: `${label(layer, d.name)} is built on ${safe(d.below ?? 'it')}` });
    else if (layer.isBcache(d.name)) uses.push({ guard: 'disk', reason: `bcache has taken ${safe(d.name)}` });
  }
  return uses;
}

/** "dm-0 (vg-root, LVM)". */
function label(layer: BlockLayer, name: string): string {
  const dm = layer.mapper(name);
  return dm === null ? safe(name) : `${safe(name)} (${safe(dm.name)}${dm.kind === null ? '' : `, ${dm.kind}`})`;
}

/** File systems of memory, and those whose disk the kernel names by number. */
const OF_MEMORY = /^(tmpfs|ramfs|rootfs|devtmpfs|proc|sysfs)$/;

/**
 * A vital place of which it is not to be seen on what it stands (zfs, btrfs by another name, an overlay of what is
 * mounted out of sight); null when all are.
 */
export function unexplainedPoint(look: Look): string | null {
  const mounts = parseMounts(look.mayLines(look.host.mountinfo));
  const layer = look.tables.once(blockLayer);
  const known = new Set(layer.names().flatMap((n) => layer.nodes(n)));
  const isExplained = (m: Mount): boolean =>
    !m.number.startsWith('0:') || OF_MEMORY.test(m.type) || isRemote(m) || known.has(m.source) || isOverlaid(m);
  const isOverlaid = (m: Mount): boolean => {
    const rest = mounts.filter((x) => x !== m);
    const below = m.type === 'overlay' ? overlayFolders(m).map((folder) => mountOf(rest, folder)) : [];
    return below.length > 0 && below.every((b) => b !== null && b.type !== 'overlay' && isExplained(b));
  };
  return mounts.find((m) => isVitalPlace(m.point) && !isExplained(m))?.point ?? null;
}

/**
 * The use that an exclusive claim stands for when nothing in sysfs explains it: it may be what the system stands on
 * (zfs has no other trace).
 */
export const claimUse = (look: Look, disk: string): Use => {
  const zfs = look.host.list(look.host.module('zfs')) !== null;
  const who = zfs ? "ZFS perhaps: see 'zpool status'" : 'a file system, a volume manager or a process';
  return { guard: 'disk', reason: `${safe(disk)} is claimed for itself alone by somebody (${who})`, vital: true };
};
