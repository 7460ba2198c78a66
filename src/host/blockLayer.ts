/**
 * Block devices and what is stacked on what: partitions, dm, md, bcache (`holders/` and `slaves/`), NVMe multipath
 * heads, loop devices. Names are the kernel's own; a `!` in one stands for the `/` of its node (block/genhd.c).
 */

import { orNull } from '../errors.ts';
import type { Host } from './host.ts';

/**
 * How a device came into a stack: the function's own, a partition, a multipath head, something built on it, or a loop
 * over it.
 */
export type Layer = 'own' | 'partition' | 'head' | 'built' | 'loop';

export type BlockDevice = {
  name: string;
  layer: Layer;
  /** The device that it was found through; null for the function's own. */
  below: string | null;
};

export class BlockLayer {
  readonly host: Host;
  /** Name to the text of its class link: the path of its device. */
  readonly #paths = new Map<string, string>();
  /** Name to what lies directly on it; read when a function turns out to have a disk at all. */
  #above: Map<string, { name: string; layer: Layer }[]> | null = null;

  constructor(host: Host) {
    this.host = host;
    for (const name of host.list(host.classLink('block')) ?? []) {
      // An entry that is no link tells no place; it may still be a head or a partition by its name.
      this.#paths.set(name, linkText(host, host.classLink('block', name)));
    }
  }

  #placed(): Map<string, { name: string; layer: Layer }[]> {
    if (this.#above === null) {
      this.#above = new Map();
      for (const [name, path] of this.#paths) this.#place(name, path);
    }
    return this.#above;
  }

  #place(name: string, path: string): void {
    const whole = this.#wholeOf(name, path);
    if (whole !== null) this.#put(whole, name, 'partition');
    const multipath = /^nvme(\d+)c\d+n(\d+)$/.exec(name);
    if (multipath) this.#put(name, `nvme${multipath[1]}n${multipath[2]}`, 'head');
    for (const upper of names(this.host, this.host.classLink('block', `${name}/holders`)))
      this.#put(name, upper, 'built');
    // The other direction of the same link: a kernel or a container may show only one of the two.
    if (path === '' || path.includes('/virtual/')) {
      for (const lower of names(this.host, this.host.classLink('block', `${name}/slaves`)))
        this.#put(lower, name, 'built');
    }
  }

  /** The disk of a partition: its folder lies in the disk's own; where no path says so, its name does. */
  #wholeOf(name: string, path: string): string | null {
    const parent = path.split('/').at(-2) ?? '';
    if (parent !== name && this.#paths.has(parent)) return parent;
    const m = /^(.*?)p?(\d+)$/.exec(name);
    if (!m) return null;
    const disk = m[1] ?? '';
    const wanted = /\d$/.test(disk) ? `${disk}p${m[2]}` : `${disk}${m[2]}`;
    return wanted === name && disk !== '' && this.#paths.has(disk) ? disk : null;
  }

  #put(below: string, name: string, layer: Layer): void {
    const above = this.#placed();
    const list = above.get(below) ?? [];
    if (!list.some((a) => a.name === name)) list.push({ name, layer });
    above.set(below, list);
  }

  /**
   * The block devices of a PCI function and everything on them, through every layer; each once, the function's own
   * first.
   */
  stack(address: string): BlockDevice[] {
    const found = new Map<string, BlockDevice>();
    for (const [name, path] of this.#paths)
      if (path.includes(`/${address}/`)) found.set(name, { name, layer: 'own', below: null });
    this.climb(found);
    return [...found.values()];
  }

  /** Every block device by name. */
  names(): string[] {
    return [...this.#paths.keys()];
  }

  /** The devices in whose path a folder is. */
  below(part: string): string[] {
    return [...this.#paths].filter(([, path]) => path.includes(part)).map(([name]) => name);
  }

  /** True for a network block device that has a server: its size is not 0. */
  isUsed(name: string): boolean {
    const size = attribute(this.host, this.host.classLink('block', `${name}/size`))?.trim();
    return size !== undefined && size !== '0';
  }

  /** {@link stack} of devices by their names. */
  stackOf(names: readonly string[]): BlockDevice[] {
    const found = new Map(names.map((name) => [name, { name, layer: 'own' as Layer, below: null as string | null }]));
    this.climb(found);
    return [...found.values()];
  }

  /** Adds to `found` what lies on its members, until nothing new turns up: a ring (hostile or not) ends. */
  climb(found: Map<string, BlockDevice>): void {
    // A Map's iteration comes to what is added meanwhile.
    for (const { name } of found.values()) {
      for (const a of this.#placed().get(name) ?? []) {
        const known = found.get(a.name);
        if (known === undefined) found.set(a.name, { ...a, below: name });
        else if (known.layer === 'own' && a.layer === 'partition') found.set(a.name, { ...a, below: name });
      }
    }
  }

  /** "259:2", null where it cannot be known. */
  number(name: string): string | null {
    const text = attribute(this.host, this.host.classLink('block', `${name}/dev`));
    return text !== null && /^\d{1,9}:\d{1,9}$/.test(text) ? text : null;
  }

  /** The name that device-mapper gave it ("vg-root"), and what made it ("LVM", "CRYPT", "mpath"): dm/name, dm/uuid. */
  mapper(name: string): { name: string; kind: string | null } | null {
    const dm = attribute(this.host, this.host.classLink('block', `${name}/dm/name`));
    if (dm === null || dm === '') return null;
    const uuid = attribute(this.host, this.host.classLink('block', `${name}/dm/uuid`)) ?? '';
    return { name: dm, kind: /^([A-Za-z]{2,16})-/.exec(uuid)?.[1] ?? null };
  }

  /** True for the hidden path of a multipath disk: it has no node. */
  hidden(name: string): boolean {
    return (
      /^nvme\d+c\d+n\d+$/.test(name) || attribute(this.host, this.host.classLink('block', `${name}/hidden`)) === '1'
    );
  }

  /** True once bcache has taken the device, running or not: drivers/md/bcache/super.c makes the folder. */
  isBcache(name: string): boolean {
    return this.host.list(this.host.classLink('block', `${name}/bcache`)) !== null;
  }

  /** Loop devices and the files behind them, as text of the kernel's. */
  loops(): { name: string; file: string }[] {
    return [...this.#paths.keys()]
      .filter((n) => /^loop\d+$/.test(n))
      .flatMap((name) => {
        const file = attribute(this.host, this.host.classLink('block', `${name}/loop/backing_file`));
        return file === null || file === '' ? [] : [{ name, file: file.replace(/ \(deleted\)$/, '') }];
      });
  }

  /** Node names under which a device may be known: /dev/dm-0, /dev/mapper/vg-root, /dev/vg/root. */
  nodes(name: string): string[] {
    const nodes = [`/dev/${name.replaceAll('!', '/')}`];
    const head = /^nvme(\d+n\d+)$/.exec(name);
    // Beside each namespace's disk stands its character device (drivers/nvme/host/core.c nvme_add_ns_cdev).
    if (head) nodes.push(`/dev/ng${head[1]}`);
    const dm = this.mapper(name);
    if (dm !== null) {
      nodes.push(`/dev/mapper/${dm.name}`);
      // LVM joins group and volume by "-" and doubles those of the names.
      const [group, volume] = dm.name.split(/(?<!-)-(?!-)/, 2);
      if (volume !== undefined) nodes.push(`/dev/${group?.replaceAll('--', '-')}/${volume.replaceAll('--', '-')}`);
    }
    return nodes;
  }
}

/** One of these per plan. */
export const blockLayer = (host: Host): BlockLayer => new BlockLayer(host);

/** What is no link or vanished is as good as placeless; the class folder itself was there. */
const linkText = (host: Host, path: string): string => orNull(() => host.link(path)) ?? '';
const names = (host: Host, path: string): string[] => orNull(() => host.list(path)) ?? [];
const attribute = (host: Host, path: string): string | null => orNull(() => host.read(path));
