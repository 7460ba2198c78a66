/**
 * From what an admin types to the device meant (contract 2): address, nodedev name, vendor:device, /dev node, network
 * interface, in that order. A representor names its VF.
 */
import { ERRORS, HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { quote } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import { type Address, canonicalAddress, parseAddress } from './address.ts';
import type { Inventory, PciDevice } from './inventory.ts';
import { type Representor, representorOf, representorText } from './representors.ts';

/**
 * The device that `word` names; of a saved inventory (`host` null) only by address or ids. Raises HOSTDEV_DEVICE_ABSENT
 * when none goes by it and HOSTDEV_DEVICE_AMBIGUOUS, listing them, when several do.
 */
export function resolveDevice(host: Host | null, inventory: Inventory, word: string): PciDevice {
  const matches = candidates(host, inventory, word);
  const [only, ...more] = matches;
  if (only === undefined && inventory.failures.length > 0)
    throw new HostdevError(
      'HOSTDEV_SYSFS',
      `Whether ${quote(word)} is on this host is not known: ${inventory.failures[0]?.path} could not be read (${inventory.failures[0]?.code})`,
    );
  const stands = only === undefined && host !== null ? representorBy(host, word) : null;
  if (stands !== null)
    throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${representorText(stands)}, which is not on this host`, {
      hint: `It is an interface of ${stands.pf}: name that, or a VF ('hostdev vf list').`,
    });
  if (only === undefined)
    throw new HostdevError(
      'HOSTDEV_DEVICE_ABSENT',
      `No device goes by ${quote(word)} ${host === null ? 'in the inventory' : 'on this host'}`,
      {
        hint: nearest(inventory, word),
      },
    );
  if (more.length > 0) {
    const list = matches.map((d) => d.address);
    throw new HostdevError(
      'HOSTDEV_DEVICE_AMBIGUOUS',
      `${list.length} devices go by ${quote(word)}: ${list.slice(0, 16).join(', ')}${list.length > 16 ? ', …' : ''}`,
      {
        data: { matches: list },
      },
    );
  }
  return only;
}

/** A warning that says which device a word turned out to name; nothing for an address, which says so itself. */
export function resolvedNote(word: string, { address, dev_type, parent_addr }: PciDevice): Warning[] {
  if (canonicalAddress(word) !== null) return [];
  const kind = parent_addr !== null ? `, a VF of ${parent_addr}` : dev_type === 'type-PF' ? ', a PF' : '';
  return [warning('named', `${quote(word)} is ${address}${kind}`, address)];
}

function candidates(host: Host | null, inventory: Inventory, word: string): PciDevice[] {
  const pick = (address: Address | null): PciDevice[] => {
    const d = address === null ? undefined : inventory.byAddress.get(address);
    return d ? [d] : [];
  };
  const address = canonicalAddress(word);
  if (address !== null) return pick(address);
  const ids = /^([0-9a-f]{4}):([0-9a-f]{4})$/i.exec(word);
  if (ids) {
    const [, vendor, product] = ids.map((t) => t.toLowerCase());
    return inventory.devices.filter((d) => d.vendor_id === vendor && d.product_id === product);
  }
  if (host === null) return [];
  const node = /^\/dev\/(?:dri\/)?([\w.+-]{1,64})$/.exec(word)?.[1];
  if (node !== undefined) return pick(addressOfBlock(host, node) ?? addressOfClass(host, 'drm', node));
  const stands = representorBy(host, word);
  if (stands !== null) return pick(stands.vf);
  return isInterfaceName(word) ? pick(addressOfBlock(host, word) ?? addressOfClass(host, 'net', word)) : [];
}

/** IFNAMSIZ is 16 with its NUL; dots alone would be a path. */
const isInterfaceName = (word: string): boolean => /^[^/\s]{1,15}$/.test(word) && !/^\.+$/.test(word);

/** What the network interface of that name represents; null where it is none, or one of its function's own. */
export function representorBy(host: Host, word: string): Representor | null {
  const below = isInterfaceName(word) ? addressOfClass(host, 'net', word) : null;
  return below === null ? null : representorOf(host, word, below);
}

/** The PCI function that a class device hangs below, through whatever lies between (virtio, nvme, scsi, usb …). */
export function addressOfClass(host: Host, kind: 'net' | 'block' | 'drm', name: string): Address | null {
  const target = host.link(host.classLink(kind, name));
  return target === null ? null : lastAddress(target);
}

/** The last PCI address among the components of a sysfs path. */
function lastAddress(path: string): Address | null {
  for (const part of path.split('/').reverse()) {
    const a = canonicalAddress(part);
    if (a !== null && a === part) return a;
  }
  return null;
}

/**
 * The function behind a block device. With NVMe multipath nvme0n1 is a virtual device and its paths are nvme0c<ctrl>n1
 * beside it (drivers/nvme/host/multipath.c); one path is enough to name the controller.
 */
function addressOfBlock(host: Host, name: string): Address | null {
  const direct = addressOfClass(host, 'block', name);
  const nvme = /^nvme(\d+)n(\d+)/.exec(name);
  if (direct !== null || !nvme) return direct;
  const path = (host.list(host.classLink('block')) ?? []).find((n) =>
    new RegExp(`^nvme${nvme[1]}c\\d+n${nvme[2]}$`).test(n),
  );
  return path === undefined ? null : addressOfClass(host, 'block', path);
}

/** An address as people mistype it: zeros or the function left out, a colon for the dot, a function that cannot be. */
const LIKE_ADDRESS = /^(?:pci_)?(?:[0-9a-f]{4,8}[:_])?([0-9a-f]{1,2})[:_]([0-9a-f]{1,2})(?:[.:_]([0-9a-f]))?$/i;

/**
 * What may have been meant: by the number of an IOMMU group its devices, by a mistyped address those that share most of
 * it.
 */
function nearest(inventory: Inventory, word: string): string {
  const members = inventory.devices.filter((d) => /^\d{1,7}$/.test(word) && d.iommu_group === Number(word));
  if (members.length > 0)
    return `IOMMU group ${Number(word)} has ${members.map((d) => d.address).join(', ')}: name a device.`;
  const typed = LIKE_ADDRESS.exec(word)
    ?.slice(1)
    .map((t) => Number.parseInt(t ?? '', 16));
  if (typed === undefined) return ERRORS.HOSTDEV_DEVICE_ABSENT.hint;
  // The bus says most, the function least; less than the bus, or slot and function, is no likeness.
  const likeness = ({ address }: PciDevice): number => {
    const p = parseAddress(address);
    return (p?.bus === typed[0] ? 4 : 0) + (p?.slot === typed[1] ? 2 : 0) + (p?.func === typed[2] ? 1 : 0);
  };
  const best = Math.max(3, ...inventory.devices.map(likeness));
  const list = inventory.devices
    .filter((d) => likeness(d) === best)
    .slice(0, 4)
    .map((d) => d.address)
    .join(', ');
  return list === '' ? ERRORS.HOSTDEV_DEVICE_ABSENT.hint : `Did you mean ${list}? 'hostdev list' shows all.`;
}
