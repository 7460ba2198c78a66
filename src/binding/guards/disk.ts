/** The disks of a function and what the host does with them: mounts, swap, stacks; and the exclusive claim that tells what sysfs does not (zfs, raw use). */
import { type BlockDevice, type BlockLayer, blockLayer } from '../../host/blockLayer.ts';
import { type Look, plain } from '../../host/look.ts';
import { type Mount, mountOf, parseMounts, parseSwaps } from '../../host/mounts.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import type { Use } from '../guards.ts';

/** Where a running system lives: without one of these it is lost, not only a file system of it. */
const VITAL_POINTS = new Set(['/', '/usr', '/var', '/etc', '/nix', '/nix/store']);
/** Of a file system that containers have mounted a hundred times, so many places are named. */
const NAMED_POINTS = 3;

/** The uses of a function's disks, and the disks whose claim is still to be asked for because nothing else told of a use. */
export type DiskUses = { uses: Use[]; unexplained: string[] };

export function diskUses(look: Look, device: Pick<PciDevice, 'address' | 'class'>): DiskUses {
  const layer = layerOf(look, device);
  const own = layer?.stack(device.address) ?? [];
  if (layer === null || own.length === 0) return { uses: [], unexplained: [] };
  const mounts = parseMounts(look.mustLines(look.host.mountinfo));
  const stack = new Map(own.map((d) => [d.name, d]));
  addLoops(layer, stack, mounts);
  const uses = [...mounted(layer, stack, mounts), ...swaps(look, layer, stack, mounts), ...built(layer, stack)];
  const disks = [...stack.values()].filter((d) => d.layer === 'own' || d.layer === 'head');
  return { uses, unexplained: uses.length > 0 ? [] : disks.map((d) => d.name).filter((n) => !layer.hidden(n)) };
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

/** Loop devices on the function's disks: over a node of theirs, which leaves no link in sysfs, or over a file that lies on them. */
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
): string | undefined => numbers.get(m.number) ?? nodes.get(m.source);

function mounted(layer: BlockLayer, stack: ReadonlyMap<string, BlockDevice>, mounts: readonly Mount[]): Use[] {
  const [numbers, nodes] = [numbersOf(layer, stack), nodesOf(layer, stack)];
  const points = new Map<string, Set<string>>();
  for (const m of mounts) {
    const disk = diskOf(m, numbers, nodes);
    if (disk !== undefined) points.set(disk, (points.get(disk) ?? new Set()).add(m.point));
  }
  return [...points].map(([disk, all]) => {
    // The vital ones first: they decide what the admin does.
    const list = [...all].sort((a, b) => Number(VITAL_POINTS.has(b)) - Number(VITAL_POINTS.has(a)));
    const more = list.length > NAMED_POINTS ? ` and ${list.length - NAMED_POINTS} more` : '';
    const named = list.slice(0, NAMED_POINTS).map((p) => plain(p));
    return {
      guard: 'disk',
      reason: `${label(layer, disk)} is mounted on ${named.join(', ')}${more}`,
      vital: list.some((p) => VITAL_POINTS.has(p)),
    };
  });
}

function swaps(
  look: Look,
  layer: BlockLayer,
  stack: ReadonlyMap<string, BlockDevice>,
  mounts: readonly Mount[],
): Use[] {
  const [numbers, nodes] = [numbersOf(layer, stack), nodesOf(layer, stack)];
  return parseSwaps(look.mustLines(look.host.swaps)).flatMap((path): Use[] => {
    const disk = nodes.get(path);
    if (disk !== undefined) return [{ guard: 'disk', reason: `${label(layer, disk)} is swap` }];
    const under = path.startsWith('/dev/') ? null : mountOf(mounts, path);
    const below = under === null ? undefined : diskOf(under, numbers, nodes);
    return below === undefined
      ? []
      : [{ guard: 'disk', reason: `the swap file ${plain(path)} lies on ${label(layer, below)}` }];
  });
}

function built(layer: BlockLayer, stack: ReadonlyMap<string, BlockDevice>): Use[] {
  const uses: Use[] = [];
  for (const d of stack.values()) {
    if (d.layer === 'built')
      uses.push({ guard: 'disk', reason: `${label(layer, d.name)} is built on ${plain(d.below ?? 'it')}` });
    else if (layer.isBcache(d.name)) uses.push({ guard: 'disk', reason: `bcache has taken ${plain(d.name)}` });
  }
  return uses;
}

/** "dm-0 (vg-root, LVM)". */
function label(layer: BlockLayer, name: string): string {
  const dm = layer.mapper(name);
  return dm === null ? plain(name) : `${plain(name)} (${plain(dm.name)}${dm.kind === null ? '' : `, ${dm.kind}`})`;
}

/** The use that an exclusive claim stands for when nothing in sysfs explains it. */
export const claimUse = (look: Look, disk: string): Use => {
  const zfs = look.host.list(look.host.module('zfs')) !== null;
  const who = zfs ? "ZFS perhaps: see 'zpool status'" : 'a file system, a volume manager or a process';
  return { guard: 'disk', reason: `${plain(disk)} is claimed for itself alone by somebody (${who})` };
};
