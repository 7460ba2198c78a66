/**
 * Where a function hangs: the bridges above it, from the path that its sysfs entry leads to. Pure reading; takes no
 * device lock.
 */
import type { Host } from '../host/host.ts';
import { type Address, isAddress, parseAddress } from './address.ts';
import type { Inventory } from './inventory.ts';

/** Buses are numbered up to 255, so a path is never deeper. */
const MAX_DEPTH = 256;

/** The bridges above a function, the nearest first; empty on a root bus or when the entry is no link. */
export function bridgesAbove(host: Host, address: Address): Address[] {
  const parts = (host.link(host.device(address)) ?? '').split('/').slice(-MAX_DEPTH);
  const at = parts.lastIndexOf(address);
  const above: Address[] = [];
  for (const part of parts.slice(0, Math.max(at, 0)).reverse()) {
    if (!isAddress(part)) break;
    above.push(part);
  }
  return above;
}

/**
 * All functions above a function, the nearest first, those beyond a host bridge too: a driver may make a bus of its own
 * below its device, as Intel's VMD does with the bus pci10000:e0 (drivers/pci/controller/vmd.c).
 */
export function functionsAbove(host: Host, address: Address): Address[] {
  const parts = (host.link(host.device(address)) ?? '').split('/').slice(-MAX_DEPTH);
  const at = parts.lastIndexOf(address);
  return parts.slice(0, Math.max(at, 0)).reverse().filter(isAddress);
}

/**
 * The functions above that are no bridges: their drivers make what is below them, and without them it is gone. Pure of
 * locks; raises the errno of a link that cannot be read.
 */
export function makersOf(host: Host, inventory: Inventory, address: Address): Address[] {
  return functionsAbove(host, address).filter((a) => inventory.byAddress.get(a)?.bridge === false);
}

/** True when two functions are in the same slot: domain, bus and device number are equal. */
export function sameSlot(a: Address, b: Address): boolean {
  const p = parseAddress(a);
  const q = parseAddress(b);
  return p !== null && q !== null && p.domain === q.domain && p.bus === q.bus && p.slot === q.slot;
}
