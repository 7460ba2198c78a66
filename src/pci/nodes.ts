/**
 * The device nodes through which a process can hold a PCI function, whatever its driver: by the folders of the usual
 * classes, and by every character device below it.
 */

import { orNull } from '../errors.ts';
import { blockLayer } from '../host/blockLayer.ts';
import type { Host } from '../host/host.ts';
import type { Tables } from '../host/look.ts';
import type { PciDevice } from './inventory.ts';

/** What is asked for: a function, by what decides where its nodes are. */
export type Noded = Pick<PciDevice, 'address' | 'driver' | 'iommu_group'>;

/** The nodes of VFIO: the group's, the no-IOMMU group's, and the device's own (drivers/vfio/group.c, device_cdev.c). */
export function vfioNodes(host: Host, device: Pick<PciDevice, 'address' | 'iommu_group'>): string[] {
  const cdevs = (host.list(host.device(device.address, 'vfio-dev')) ?? []).map((n) => `/dev/vfio/devices/${n}`);
  return device.iommu_group === null
    ? cdevs
    : [`/dev/vfio/${device.iommu_group}`, `/dev/vfio/noiommu-${device.iommu_group}`, ...cdevs];
}

/** The nodes that a host driver made for the function and for what lies on it. */
export function hostNodes(tables: Tables, device: Noded): string[] {
  const { address } = device;
  const host = tables.host;
  const folder = (path: string): string[] => tables.names(host.device(address, path)).value ?? [];
  const nodes = [...blockNodes(tables, address), ...charNodes(tables, address)];
  for (const name of folder('nvme').filter((n) => /^nvme\d+$/.test(n))) {
    nodes.push(
      `/dev/${name}`,
      ...folder(`nvme/${name}`)
        .filter((n) => /^ng\d+n\d+$/.test(n))
        .map((n) => `/dev/${n}`),
    );
  }
  for (const { path, name } of tables.once(drmDevices))
    if (path.includes(`/${address}/`)) nodes.push(`/dev/dri/${name}`);
  for (const card of folder('sound').filter((n) => /^card\d+$/.test(n)))
    nodes.push(
      ...folder(`sound/${card}`)
        .filter((n) => SOUND.test(n))
        .map((n) => `/dev/snd/${n}`),
    );
  for (const kind of ['infiniband_verbs', 'infiniband_mad', 'infiniband_cm'])
    nodes.push(...folder(kind).map((n) => `/dev/infiniband/${n}`));
  if (device.driver === 'nvidia') nodes.push(...nvidiaNodes(host, address));
  return [...new Set(nodes)];
}

/** True for a node of the RDMA stack. */
export const isRdmaNode = (path: string): boolean => path.startsWith('/dev/infiniband/');

const SOUND = /^(pcm|control|hw|midi|compr)C\d+(D\d+[pc]?)?$/;

function blockNodes(tables: Tables, address: string): string[] {
  const layer = orNull(() => tables.once(blockLayer));
  // The disk guard, which needs it more, notes why there is none.
  if (layer === null) return [];
  return layer.stack(address).flatMap((d) => layer.nodes(d.name));
}

/** Every DRM node and connector, once per plan. */
const drmDevices = (host: Host): { path: string; name: string }[] =>
  listOf(host, host.classLink('drm')).map((name) => ({ name, path: linkText(host, host.classLink('drm', name)) }));

type CharDevice = { path: string; node: string };

/** All character devices, once per plan: "189:5" is a link to ../../devices/…/usb1/1-2. */
function charDevices(host: Host): CharDevice[] {
  return listOf(host, host.charDevices).flatMap((number) => {
    const path = linkText(host, `${host.charDevices}/${number}`);
    const name = path.slice(path.lastIndexOf('/') + 1);
    return path === '' ? [] : [{ path, node: nodeOf(number, name) }];
  });
}

/** Folders of /dev by name, as each class's devnode() callback gives them; all others lie in /dev itself. */
const FOLDERS: [RegExp, string][] = [
  [/^(card|renderD|controlD)\d+$/, 'dri/'],
  [SOUND, 'snd/'],
  [/^(event|mouse|js)\d+$/, 'input/'],
  [/^(uverbs|umad|issm|ucm)\d+$/, 'infiniband/'],
  [/^accel\d+$/, 'accel/'],
  [/^vfio\d+$/, 'vfio/devices/'],
];

const USB_MAJOR = 189;

function nodeOf(number: string, name: string): string {
  const [major, minor] = number.split(':').map(Number);
  // drivers/usb/core/usb.h: 128 devices a bus; the node has the bus and the device number, the folder neither.
  if (major === USB_MAJOR && minor !== undefined) {
    const three = (n: number): string => String(n).padStart(3, '0');
    return `/dev/bus/usb/${three(Math.floor(minor / 128) + 1)}/${three((minor % 128) + 1)}`;
  }
  return `/dev/${FOLDERS.find(([re]) => re.test(name))?.[1] ?? ''}${name.replaceAll('!', '/')}`;
}

const charNodes = (tables: Tables, address: string): string[] =>
  tables
    .once(charDevices)
    .filter((d) => d.path.includes(`/${address}/`))
    .map((d) => d.node);

/**
 * The proprietary driver's nodes are in no class. Where it does not say which is whose, any of them may be this GPU's.
 */
function nvidiaNodes(host: Host, address: string): string[] {
  const text = orNull(() => host.read(host.nvidiaGpu(address))) ?? '';
  const minor = /^Device Minor:\s*(\d{1,3})\s*$/m.exec(text)?.[1];
  const minors = minor === undefined ? Array.from({ length: 32 }, (_, i) => i) : [minor];
  return minors.map((n) => `/dev/nvidia${n}`);
}

const listOf = (host: Host, path: string): string[] => orNull(() => host.list(path)) ?? [];
const linkText = (host: Host, path: string): string => orNull(() => host.link(path)) ?? '';
