/**
 * Which running guest has a device, for `list`, `show` and `pool list`; libvirt is loaded only where one
 * listens.
 */
import type { Host } from '../host/host.ts';
import { libvirtListens } from '../host/libvirt.ts';
import { type DeviceGuests, NOT_ASKED } from './inGuest.ts';

/** Asks with a short deadline. A libvirt that is not there costs a look for its sockets, and is no fault. */
export async function whoHas(host: Host, connect: string | null): Promise<DeviceGuests> {
  const asks = connect !== null || (host.isReal && host.native.openLibvirt !== undefined && libvirtListens(host));
  return asks ? (await import('./guests.ts')).guestsByDevice(host, connect) : NOT_ASKED;
}
