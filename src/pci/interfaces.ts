/** The network interfaces that a function's driver made for the function itself. */
import { orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from './address.ts';
import { representorOf } from './representors.ts';

type OwnInterface = { name: string; index: number };

/**
 * A function's own interfaces: a representor stands for a VF. A card with two ports on one function has two. None where
 * they cannot be read.
 */
export const ownInterfaces = (host: Host, address: Address): OwnInterface[] =>
  orNull(() =>
    (host.list(host.device(address, 'net')) ?? []).flatMap((name) => {
      const index = host.read(host.classLink('net', `${name}/ifindex`));
      const own = index !== null && /^[1-9]\d{0,9}$/.test(index) && representorOf(host, name, address) === null;
      return own ? [{ name, index: Number(index) }] : [];
    }),
  ) ?? [];

/**
 * Drivers that make and remove VFs only while the PF's interface is up: bnx2x answers EINVAL
 * (drivers/net/ethernet/broadcom/bnx2x/bnx2x_sriov.c bnx2x_sriov_configure), bnxt_en takes the write and makes none
 * (bnxt/bnxt_sriov.c bnxt_sriov_configure; systemd#40739).
 */
const WANTS_UP = new Set(['bnx2x', 'bnxt_en']);

/** include/uapi/linux/if.h */
export const IFF_UP = 1;

/**
 * The link of a PF whose driver wants it up for its VFs; null for every other, and where it has no interface here. Up
 * is what the admin says (IFF_UP, which the drivers ask for by netif_running): a cable it need not have.
 */
export function linkForVfs(host: Host, pf: Address): { link: OwnInterface; up: boolean } | null {
  const driver = host.linkName(host.device(pf, 'driver'));
  const [link] = driver !== null && WANTS_UP.has(driver) ? ownInterfaces(host, pf) : [];
  return link === undefined ? null : { link, up: (flagsOf(host, link.name) & IFF_UP) !== 0 };
}

/** Its flags as a number, 0 where they are not to be read. */
export const flagsOf = (host: Host, name: string): number =>
  Number(orNull(() => host.read(host.classLink('net', `${name}/flags`))) ?? 0) || 0;
