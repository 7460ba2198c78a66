/**
 * What is set on the VFs of a PF beside driver and override: MAC, VLAN, trust, spoof check, link state, rates. They are
 * the PF driver's, not the VF's, are told by rtnetlink alone (IFLA_VFINFO_LIST, net/core/rtnetlink.c rtnl_fill_vf), and
 * are gone with the VFs. Taken apart here, from bytes that a kernel or a driver may have cut short: nothing is read
 * behind its own attribute, and a list that is not whole is not measured.
 */
import { endianness } from 'node:os';
import type { Access } from '../binding/access.ts';
import { isSysError } from '../errors.ts';
import type { Address } from '../pci/address.ts';
import { ownInterfaces } from '../pci/interfaces.ts';
import type { PciDevice } from '../pci/inventory.ts';

/** As the kernel says them; null for what the driver does not tell. */
export type VfSettings = {
  /** The VF's number. */
  vf: number;
  /** Lower case with colons; null for none (all zero). Some drivers show the random one that they made. */
  mac: string | null;
  vlan: number;
  qos: number;
  spoofchk: boolean | null;
  trust: boolean | null;
  link_state: 'auto' | 'enable' | 'disable' | null;
  /** Mbit/s, 0 for no limit. */
  min_tx_rate: number;
  max_tx_rate: number;
};

/** What was read of a PF; `unmeasured` says why it could not be. */
export type VfReading = { settings: VfSettings[] } | { unmeasured: string };

const READ_MS = 2000;

/**
 * The settings of a PF's VFs, `count` of them. Of another root's devices nothing is known: netlink speaks of this
 * machine. A PF that is no network card has none. Raises nothing: what cannot be read is `unmeasured`.
 */
export async function readVfSettings(work: Access, pf: PciDevice, count: number): Promise<VfReading> {
  const { host } = work;
  if (count === 0 || pf.class?.startsWith('02') !== true) return { settings: [] };
  if (!host.isReal && host.native.kind !== 'model')
    return { unmeasured: `netlink tells of this machine, and not of what is below ${host.root}` };
  const links = ownInterfaces(host, pf.address);
  if (links.length === 0) return { unmeasured: `${pf.address} shows no network interface here` };
  let last = '';
  for (const { name, index } of links) {
    try {
      const bytes = await work.writer.link(index, Math.min(READ_MS, Math.max(work.deadline.left, 1)));
      const settings = parseVfSettings(Buffer.from(bytes, 'latin1'));
      if (settings?.length === count) return { settings };
      last = `${name} tells of ${settings === null ? 'its VFs what is not whole' : `${settings.length} VFs, not ${count}`}`;
    } catch (e) {
      last = `${name}: ${isSysError(e) ? `${e.syscall}: ${e.code}` : (e as Error).message}`;
    }
  }
  return { unmeasured: last };
}

// include/uapi/linux/netlink.h, rtnetlink.h, if_link.h.
const NLMSG_HEAD = 16;
const IFINFOMSG = 16;
const ATTRIBUTE_HEAD = 4;
/** The two upper bits of a type are flags. */
const TYPE = 0x3fff;
const IFLA_VFINFO_LIST = 22;
const IFLA_VF_INFO = 1;
const VF = { mac: 1, vlan: 2, txRate: 3, spoofchk: 4, linkState: 5, rate: 6, trust: 9 } as const;
const MAC_SPACE = 32;
const NOT_TOLD = 0xffffffff;

type Attribute = { type: number; body: Buffer };

const little = endianness() === 'LE';
const u16 = (b: Buffer, at: number): number => (little ? b.readUInt16LE(at) : b.readUInt16BE(at));
const u32 = (b: Buffer, at: number): number => (little ? b.readUInt32LE(at) : b.readUInt32BE(at));

/** The attributes in a buffer; null where one has a length that cannot be, for then the rest is anybody's guess. */
function attributes(bytes: Buffer): Attribute[] | null {
  const list: Attribute[] = [];
  for (let at = 0; at + ATTRIBUTE_HEAD <= bytes.length; ) {
    const size = u16(bytes, at);
    if (size < ATTRIBUTE_HEAD || at + size > bytes.length) return null;
    list.push({ type: u16(bytes, at + 2) & TYPE, body: bytes.subarray(at + ATTRIBUTE_HEAD, at + size) });
    at += (size + 3) & ~3;
  }
  return list;
}

/**
 * The VFs that an RTM_NEWLINK with its header tells of, in order of their numbers; none where it tells of none. null
 * where it is cut short or contradicts itself (the list is one attribute with a 16-bit length: a kernel that has more
 * to say says nonsense).
 */
export function parseVfSettings(message: Buffer): VfSettings[] | null {
  if (message.length < NLMSG_HEAD + IFINFOMSG || u32(message, 0) !== message.length) return null;
  const lists = attributes(message.subarray(NLMSG_HEAD + IFINFOMSG))?.filter((a) => a.type === IFLA_VFINFO_LIST);
  if (lists === undefined || lists.length > 1) return null;
  const [list] = lists;
  const infos = list === undefined ? [] : attributes(list.body);
  if (infos === null) return null;
  const settings: VfSettings[] = [];
  for (const { type, body } of infos) {
    if (type !== IFLA_VF_INFO) continue;
    const one = vfInfo(body);
    if (one === null || settings.some((s) => s.vf === one.vf)) return null;
    settings.push(one);
  }
  return settings.sort((a, b) => a.vf - b.vf);
}

/** Each of its attributes begins with the VF's number; one that has no MAC is none (rtnl_fill_vfinfo puts it first). */
function vfInfo(body: Buffer): VfSettings | null {
  const of = new Map((attributes(body) ?? []).map((a) => [a.type, a.body]));
  const field = (type: number, n: number): number | null => {
    const b = of.get(type);
    return b === undefined || b.length < 4 * (n + 2) ? null : u32(b, 4 * (n + 1));
  };
  const flag = (type: number): boolean | null => {
    const value = field(type, 0);
    return value === null || value === NOT_TOLD ? null : value !== 0;
  };
  const mac = of.get(VF.mac);
  if (mac === undefined || mac.length < 4 + MAC_SPACE) return null;
  const state = field(VF.linkState, 0);
  return {
    vf: u32(mac, 0),
    mac: macText(mac.subarray(4, 4 + MAC_SPACE)),
    vlan: field(VF.vlan, 0) ?? 0,
    qos: field(VF.vlan, 1) ?? 0,
    spoofchk: flag(VF.spoofchk),
    trust: flag(VF.trust),
    link_state: state === null ? null : ((['auto', 'enable', 'disable'] as const)[state] ?? null),
    min_tx_rate: field(VF.rate, 0) ?? 0,
    max_tx_rate: field(VF.rate, 1) ?? field(VF.txRate, 0) ?? 0,
  };
}

/** Six bytes of Ethernet, or InfiniBand's twenty. */
function macText(space: Buffer): string | null {
  if (space.every((b) => b === 0)) return null;
  const size = space.subarray(6).every((b) => b === 0) ? 6 : 20;
  return [...space.subarray(0, size)].map((b) => b.toString(16).padStart(2, '0')).join(':');
}

/**
 * What of a VF's settings somebody has set, in words; empty where all is as it comes. Spoof check is on or off by the
 * driver's own taste: off is told.
 */
export function settingsText(s: VfSettings): string {
  return [
    s.mac === null ? '' : `MAC ${s.mac}`,
    s.vlan === 0 ? '' : `VLAN ${s.vlan}${s.qos === 0 ? '' : ` qos ${s.qos}`}`,
    s.trust === true ? 'trust on' : '',
    s.spoofchk === false ? 'spoofchk off' : '',
    s.link_state === null || s.link_state === 'auto' ? '' : `link ${s.link_state}`,
    s.min_tx_rate === 0 ? '' : `min_tx_rate ${s.min_tx_rate}`,
    s.max_tx_rate === 0 ? '' : `max_tx_rate ${s.max_tx_rate}`,
  ]
    .filter(Boolean)
    .join(', ');
}

/** A line for what goes with a PF's VFs and is not put back; none where nothing is set. */
export function lostSettings(pf: Address, reading: VfReading): string[] {
  if ('unmeasured' in reading)
    return [
      `${pf}: what is set on its VFs (MAC, VLAN, trust, spoofchk, rates) is not known (${reading.unmeasured}), goes with them and is not put back`,
    ];
  const set = reading.settings.map((s) => ({ vf: s.vf, text: settingsText(s) })).filter((s) => s.text !== '');
  if (set.length === 0) return [];
  const first = new Map<string, number[]>();
  for (const { vf, text } of set) first.set(text, [...(first.get(text) ?? []), vf]);
  const lines = [...first].map(([text, vfs]) => `VF ${vfs.join(' ')}: ${text}`);
  return [`${pf}: what is set on its VFs goes with them and is not put back: ${lines.join('; ')}`];
}
