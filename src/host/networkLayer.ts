/**
 * Network interfaces of this network namespace: which function each is of, what is stacked on it (bridge, bond, VLAN,
 * macvtap, Open vSwitch), and what the host does with it. An interface is in `sys/class/net` of its own namespace only
 * (net/core/net-sysfs.c).
 */
import { networkInterfaces } from 'node:os';
import { orNull } from '../errors.ts';
import type { Host } from './host.ts';
import type { Look, Tables } from './look.ts';

/**
 * An interface that lies on another: `isPart` when the lower one is a port of it (bridge, bond, team, Open vSwitch).
 */
export type Upper = { name: string; isPart: boolean };

/** What an interface is used for by the host itself. */
export type Traffic = { isDefault: boolean; address: string | null };

/** The interfaces below a PCI function, through whatever lies between (virtio3/net/eth0). */
export const interfacesOf = (look: Look, address: string): string[] => {
  look.names(look.host.classLink('net')); // notes what the snapshot below passes over
  return look.tables
    .once(interfacePaths)
    .filter((i) => i.path.includes(`/${address}/`))
    .map((i) => i.name);
};

/** Every interface with the path of its device, once per plan. */
const interfacePaths = (host: Host): { name: string; path: string }[] =>
  listOf(host, host.classLink('net')).map((name) => ({ name, path: linkText(host, host.classLink('net', name)) }));

/**
 * How a function shows its interfaces in its own folder: 'none' when its driver made no folder for any, 'elsewhere'
 * when the folder is there and empty: the interface was given to another network namespace, and its folder stays
 * behind.
 */
export function interfaceFolder(tables: Tables, address: string): 'none' | 'elsewhere' | 'here' {
  const { host } = tables;
  const children = tables.names(host.device(address)).value ?? [];
  const folders = ['net', ...children.filter((n) => /^virtio\d+$/.test(n)).map((n) => `${n}/net`)];
  const lists = folders.map((f) => tables.names(host.device(address, f)).value).filter((l) => l !== null);
  if (lists.length === 0) return 'none';
  return lists.every((l) => l.length === 0) ? 'elsewhere' : 'here';
}

/**
 * What lies directly on an interface, by every link that says so: master, brport/bridge, upper_*, and lower_* of the
 * others.
 */
export function uppersOf(look: Look, name: string): Upper[] {
  const { host } = look;
  const uppers = new Map<string, boolean>();
  const put = (upper: string | null, isPart: boolean): void => {
    if (upper !== null && upper !== '' && upper !== name) uppers.set(upper, isPart || uppers.get(upper) === true);
  };
  const linkName = (file: string): string | null => orNull(() => host.linkName(host.classLink('net', file)));
  put(linkName(`${name}/master`), true);
  put(linkName(`${name}/brport/bridge`), true);
  for (const f of look.names(host.classLink('net', name)))
    if (f.startsWith('upper_')) put(f.slice('upper_'.length), false);
  for (const other of look.names(host.classLink('net'))) {
    if (other === name) continue;
    if (look.names(host.classLink('net', other)).includes(`lower_${name}`)) put(other, false);
  }
  return [...uppers].map(([upper, isPart]) => ({ name: upper, isPart }));
}

/**
 * True for an interface that lies on no other by its links and on no device of its own: ppp, WireGuard, GRE, an
 * internal port of Open vSwitch. What carries it is not shown.
 */
export function isCarriedUnseen(look: Look, name: string): boolean {
  const { host } = look;
  const path = look.tables.once(interfacePaths).find((i) => i.name === name)?.path ?? '';
  if (!path.includes('/virtual/')) return false;
  const files = look.names(host.classLink('net', name));
  const ports = look.names(host.classLink('net', `${name}/brif`));
  return !files.some((f) => f.startsWith('lower_')) && ports.length === 0;
}

/** ARPHRD_PPP (include/uapi/linux/if_arp.h): PPPoE is carried by an interface that needs no address. */
export const isPpp = (look: Look, name: string): boolean =>
  look.attribute(look.host.classLink('net', `${name}/type`))?.trim() === '512';

/** drivers/net/vrf.c: the kind of device that its uevent tells. */
export const isVrf = (look: Look, name: string): boolean =>
  (look.attribute(look.host.classLink('net', `${name}/uevent`)) ?? '').split('\n').includes('DEVTYPE=vrf');

/** IFF_UP (include/uapi/linux/if.h), and a carrier as far as the driver tells. */
export function isUp(look: Look, name: string): boolean {
  const { host } = look;
  const state = look.attribute(host.classLink('net', `${name}/operstate`))?.trim();
  const flags = Number.parseInt(look.attribute(host.classLink('net', `${name}/flags`))?.trim() ?? '', 16);
  return Number.isNaN(flags) ? state === 'up' : (flags & 1) === 1 && state !== 'down';
}

/** The interfaces that have a default route. */
export function defaultInterfaces(look: Look): string[] {
  const v4 = routes4(look).filter(isDefault4);
  const v6 = look
    .mayLines(look.host.routes6)
    .map((l) => l.trim().split(/\s+/))
    .filter((f) => isDefault6(f) && f[9] !== 'lo');
  return [...new Set([...v4.map((r) => r.name), ...v6.flatMap((f) => f[9] ?? [])])];
}

/** The interface over which packets to an address leave, by the longest route that fits; null when none does. */
export function wayTo(look: Look, address: string): string | null {
  const v4 = address.split('.');
  if (v4.length === 4) {
    const wanted = v4.reduce((a, b) => a * 256 + Number(b), 0) >>> 0;
    const fits = routes4(look).filter((r) => (wanted & r.mask) >>> 0 === r.destination);
    return fits.sort((a, b) => (b.mask >>> 0) - (a.mask >>> 0))[0]?.name ?? null;
  }
  const wanted = bits6(address);
  if (wanted === null) return null;
  const fits = look
    .mayLines(look.host.routes6)
    .map((l) => l.trim().split(/\s+/))
    .map((f) => ({ name: f[9] ?? '', length: Number.parseInt(f[1] ?? '', 16), net: f[0] ?? '' }))
    .filter((r) => r.name !== '' && r.name !== 'lo' && !Number.isNaN(r.length))
    .filter((r) => (bitsOfHex(r.net) ?? '').slice(0, r.length) === wanted.slice(0, r.length));
  return fits.sort((a, b) => b.length - a.length)[0]?.name ?? null;
}

const bitsOfHex = (hex: string): string | null =>
  /^[0-9a-f]{32}$/i.test(hex)
    ? [...hex].map((c) => Number.parseInt(c, 16).toString(2).padStart(4, '0')).join('')
    : null;

/** The 128 bits of an IPv6 address as text. */
function bits6(address: string): string | null {
  const [head = '', tail, more] = address.split('::');
  if (more !== undefined) return null;
  const words = (part: string): string[] => part.split(':').filter((w) => w !== '');
  const [front, back] = [words(head), words(tail ?? '')];
  const gap = tail === undefined ? 0 : 8 - front.length - back.length;
  if (gap < 0 || front.length + back.length + gap !== 8) return null;
  const all = [...front, ...Array<string>(gap).fill('0'), ...back];
  return all.every((w) => /^[0-9a-f]{1,4}$/i.test(w)) ? bitsOfHex(all.map((w) => w.padStart(4, '0')).join('')) : null;
}

type Route = { name: string; destination: number; mask: number };

/** The default route, or half of it: a VPN lays 0.0.0.0/1 and 128.0.0.0/1 over it. */
const isDefault4 = ({ mask }: Route): boolean => mask === 0 || mask >>> 0 === 0x80000000;

/** Fields of proc/net/ipv6_route: ::/0, its halves, or 2000::/3, which is all that is routed anywhere. */
const isDefault6 = ([net = '', length = '']: readonly string[]): boolean =>
  (length === '00' && /^0{32}$/.test(net)) ||
  (length === '01' && /^[08]0{31}$/.test(net)) ||
  (length === '03' && /^20{31}$/.test(net));

/**
 * proc/net/route (net/ipv4/fib_trie.c fib_route_seq_show): numbers are hex of the bytes as they lie in memory, read as
 * little-endian here.
 */
function routes4(look: Look): Route[] {
  const { host } = look;
  return look
    .mustLines(host.routes)
    .slice(1)
    .flatMap((line) => {
      const f = line.split(/\s+/);
      const [name, destination, mask] = [f[0], hexLe(f[1]), hexLe(f[7])];
      return name === undefined || destination === null || mask === null ? [] : [{ name, destination, mask }];
    });
}

const hexLe = (text: string | undefined): number | null =>
  text !== undefined && /^[0-9A-Fa-f]{8}$/.test(text)
    ? Number.parseInt(text.replace(/(..)(..)(..)(..)/, '$4$3$2$1'), 16)
    : null;

const LINK_LOCAL = 0xa9fe0000;
const isLinkLocal4 = (a: number): boolean => (a & 0xffff0000) >>> 0 === LINK_LOCAL;

/**
 * Local IPv4 addresses of proc/net/fib_trie: a leaf "|-- 10.0.2.15" followed by "/32 host LOCAL". It does not say of
 * which interface.
 */
function localAddresses(look: Look): number[] {
  const found = new Set<number>();
  let leaf: number | null = null;
  for (const line of look.mayLines(look.host.localAddresses)) {
    const m = /\|-- (\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\s*$/.exec(line);
    if (m) leaf = m.slice(1).reduce((a, b) => a * 256 + Number(b), 0) >>> 0;
    else if (leaf !== null && /\/32 host LOCAL/.test(line)) found.add(leaf);
  }
  return [...found];
}

const dotted = (a: number): string => [24, 16, 8, 0].map((s) => (a >>> s) & 0xff).join('.');

/**
 * What the host does over an interface: has it a default route (IPv4 or IPv6), has it an address of its own that is not
 * link-local. An IPv4 address shows by the routes over its interface, whose own link-local ones are left out; on the
 * machine itself the kernel is asked as well, because an address may have no route.
 */
export function trafficOf(look: Look, name: string): Traffic {
  const { host } = look;
  const mine = routes4(look).filter((r) => r.name === name);
  const routes6 = look.mayLines(host.routes6).map((l) => l.trim().split(/\s+/));
  // The kernel's own ::/0 that refuses is on lo, in every table dump.
  const isDefault = mine.some(isDefault4) || routes6.some((r) => r[9] === name && isDefault6(r));
  return { isDefault, address: address4(look, mine) ?? address6(look, name) ?? askedAddress(host, name) };
}

function address4(look: Look, routes: readonly Route[]): string | null {
  const own = routes.filter((r) => !(isLinkLocal4(r.destination) && r.mask >>> 0 >= 0xffff0000));
  if (own.length === 0) return null;
  const nets = own.filter((r) => r.mask !== 0);
  const local = localAddresses(look).find((a) =>
    nets.some((r) => (a & r.mask) >>> 0 === (r.destination & r.mask) >>> 0),
  );
  return local === undefined ? '' : dotted(local);
}

/**
 * net/ipv6/addrconf.c if6_seq_show: address, index, prefix, scope, flags, name. Scope 0x10 is the host's own, 0x20 the
 * link's.
 */
function address6(look: Look, name: string): string | null {
  for (const line of look.mayLines(look.host.addresses6)) {
    const f = line.trim().split(/\s+/);
    if (f[5] === name && f[3] !== '20' && f[3] !== '10') return (f[0] ?? '').replace(/(....)(?=.)/g, '$1:');
  }
  return null;
}

function askedAddress(host: Host, name: string): string | null {
  if (!host.isReal) return null;
  const found = networkInterfaces()[name]?.find(
    (a) => !a.internal && !a.address.startsWith('169.254.') && !/^fe[89ab]/i.test(a.address),
  );
  return found?.address ?? null;
}

const linkText = (host: Host, path: string): string => orNull(() => host.link(path)) ?? '';
const listOf = (host: Host, path: string): string[] => orNull(() => host.list(path)) ?? [];
