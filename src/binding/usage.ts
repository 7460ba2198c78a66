/**
 * What the host itself uses a device for: the facts that the guards judge. Read before anything is planned; "not measured" is a fact too, because a guard
 * that could not look must not say yes.
 */

import type { Holder } from '../addon/native.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { PciDevice } from '../pci/inventory.ts';

/** Each list holds one line for people a fact; an empty one means that there is none. */
export type Usage = {
  disks: string[];
  network: string[];
  display: string[];
  holders: Holder[];
  /** What could not be looked at, e.g. "proc/self/mountinfo: ENOENT". */
  unmeasured: string[];
};

type Look = { host: Host; unmeasured: string[] };

/** Reads a text that a guard depends on; what is missing is noted. */
function must(look: Look, path: string, max: number): string {
  try {
    const text = look.host.read(path, max);
    if (text !== null) return text;
    look.unmeasured.push(`${path}: ENOENT`);
  } catch (e) {
    look.unmeasured.push((e as Error).message);
  }
  return '';
}

const MAX_TABLE = 4 * 1024 * 1024;

/** The uses of a device that is on a host driver (or on VFIO: then only who holds it). */
export function readUsage(host: Host, device: PciDevice, vfio: boolean): Usage {
  const look: Look = { host, unmeasured: [] };
  const onHost = device.driver !== null && !vfio;
  return {
    disks: onHost ? diskUses(look, device.address) : [],
    network: onHost ? networkUses(look, device.address) : [],
    display: onHost ? displayUses(look, device) : [],
    holders: device.driver === null ? [] : deviceHolders(host, device, vfio),
    unmeasured: look.unmeasured,
  };
}

/** What the host does with a device on a host driver, without who holds it open, which costs a look at every process: for lists of many devices. */
export function hostUses(host: Host, device: PciDevice): string[] {
  const look: Look = { host, unmeasured: [] };
  return [...diskUses(look, device.address), ...networkUses(look, device.address), ...displayUses(look, device)];
}

/** Names in a class folder whose device lies below the PCI function. */
function classBelow(host: Host, kind: 'net' | 'block' | 'drm', address: Address): string[] {
  return (host.list(host.classLink(kind)) ?? []).filter((n) =>
    host.link(host.classLink(kind, n))?.includes(`/${address}/`),
  );
}

/** Block devices of the function and everything stacked on them: partitions, dm, md, bcache (holders/), NVMe multipath heads. */
function blockStack(host: Host, address: Address): Set<string> {
  const seen = new Set<string>();
  const queue = classBelow(host, 'block', address);
  const all = host.list(host.classLink('block')) ?? [];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (seen.has(name)) continue;
    seen.add(name);
    queue.push(...(host.list(host.classLink('block', `${name}/holders`)) ?? []));
    const path = /^nvme(\d+)c\d+n(\d+)$/.exec(name);
    if (path) queue.push(`nvme${path[1]}n${path[2]}`);
    // Partitions of a stacked device (dm, md, an NVMe head) are not below the function's own path.
    queue.push(...all.filter((n) => n !== name && new RegExp(`^${name.replace(/[^\w]/g, '.')}p?\\d+$`).test(n)));
  }
  return seen;
}

function diskUses(look: Look, address: Address): string[] {
  const { host } = look;
  const names = blockStack(host, address);
  if (names.size === 0) return [];
  const numbers = new Map<string, string>();
  for (const n of names) {
    const dev = host.read(host.classLink('block', `${n}/dev`));
    if (dev !== null) numbers.set(dev, n);
  }
  const uses: string[] = [];
  for (const line of must(look, host.mountinfo, MAX_TABLE).split('\n')) {
    const f = line.split(' ');
    const source = f[f.indexOf('-') + 2] ?? '';
    // btrfs and zfs show an anonymous device number; the source still names the block device.
    const disk =
      numbers.get(f[2] ?? '') ??
      (source.startsWith('/dev/') && names.has(source.slice('/dev/'.length))
        ? source.slice('/dev/'.length)
        : undefined);
    if (disk !== undefined) uses.push(`${disk} is mounted on ${f[4]}`);
  }
  for (const line of must(look, host.swaps, MAX_TABLE).split('\n').slice(1)) {
    const name = line.split(/\s/, 1)[0]?.replace(/^\/dev\//, '') ?? '';
    if (names.has(name)) uses.push(`${name} is swap`);
  }
  for (const n of names) {
    if (/^(dm-|md|bcache)\d/.test(n)) uses.push(`${n} is built on it`);
  }
  return [...new Set(uses)];
}

function networkUses(look: Look, address: Address): string[] {
  const { host } = look;
  const names = classBelow(host, 'net', address);
  if (names.length === 0) return [];
  const uses: string[] = [];
  const routes = must(look, host.routes, MAX_TABLE)
    .split('\n')
    .slice(1)
    .map((l) => l.split('\t'));
  const routes6 = (host.read(host.routes6, MAX_TABLE) ?? '').split('\n').map((l) => l.trim().split(/\s+/));
  const addresses6 = (host.read(host.addresses6, MAX_TABLE) ?? '').split('\n').map((l) => l.trim().split(/\s+/));
  for (const n of names) {
    const upper = (host.list(host.classLink('net', n)) ?? []).find((f) => f.startsWith('upper_'));
    const master = host.linkName(host.classLink('net', `${n}/master`)) ?? upper?.slice('upper_'.length);
    if (master !== undefined) uses.push(`${n} is part of ${master}`);
    // A default route is 0.0.0.0/0; any other route of an interface but link-local 169.254/16 stands for an address of its own.
    const mine = routes.filter((r) => r[0] === n && !(r[1]?.endsWith('FEA9') && r[7] === '0000FFFF'));
    if (
      mine.some((r) => r[1] === '00000000' && r[7] === '00000000') ||
      routes6.some((r) => r[9] === n && r[1] === '00' && /^0{32}$/.test(r[0] ?? ''))
    ) {
      uses.push(`${n} has the default route`);
    } else if (mine.length > 0 || addresses6.some((a) => a[5] === n && a[3] === '00')) {
      uses.push(`${n} has an address`);
    }
  }
  return uses;
}

/** The boot display with a console on it: drivers/pci/vgaarb.c marks it boot_vga, vtconsole says who draws. */
function displayUses(look: Look, device: PciDevice): string[] {
  const { host } = look;
  if (host.read(host.device(device.address, 'boot_vga')) !== '1') return [];
  const consoles = (host.list(host.classLink('vtconsole')) ?? []).filter((c) => {
    const bound = host.read(host.classLink('vtconsole', `${c}/bind`));
    return bound === '1' && /frame buffer/.test(host.read(host.classLink('vtconsole', `${c}/name`)) ?? '');
  });
  return consoles.length > 0
    ? [`it is the boot display, and ${consoles.join(', ')} draws the console on it`]
    : ['it is the boot display'];
}

/** Processes that have a node of the device open: VFIO's group and cdev nodes, disks, DRM and NVMe nodes. */
function deviceHolders(host: Host, device: PciDevice, vfio: boolean): Holder[] {
  const nodes = vfio ? vfioNodes(host, device) : hostNodes(host, device.address);
  return nodes.length === 0 ? [] : host.native.holders(host.root, nodes).holders;
}

export function vfioNodes(host: Host, device: PciDevice): string[] {
  const cdevs = (host.list(host.device(device.address, 'vfio-dev')) ?? []).map((n) => `/dev/vfio/devices/${n}`);
  return device.iommu_group === null
    ? cdevs
    : [`/dev/vfio/${device.iommu_group}`, `/dev/vfio/noiommu-${device.iommu_group}`, ...cdevs];
}

function hostNodes(host: Host, address: Address): string[] {
  const nvme = (host.list(host.device(address, 'nvme')) ?? []).filter((n) => /^nvme\d+$/.test(n));
  return [
    ...[...blockStack(host, address), ...nvme].map((n) => `/dev/${n}`),
    ...classBelow(host, 'drm', address).map((n) => `/dev/dri/${n}`),
  ];
}
