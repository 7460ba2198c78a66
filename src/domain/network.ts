/**
 * A libvirt network that is a pool of host devices (`<forward mode='hostdev'>`): a guest's interface of that network
 * gets one of its VFs at start (src/network/bridge_driver.c networkCreateInterfacePool).
 */
import type { Address } from '../pci/address.ts';
import { addressOf } from './hostDevices.ts';
import { child, children } from './xml/dom.ts';
import { parseXml } from './xml/parse.ts';

export type HostdevNetwork = {
  name: string;
  managed: boolean;
  /** Its devices, by address; those of a PF that is named libvirt lists itself while the network runs. */
  devices: Address[];
  /** Interfaces of PFs of which it takes the VFs. */
  pfs: string[];
};

/** Null for a network of another kind. Raises HOSTDEV_XML for what is not well-formed. */
export function readHostdevNetwork(xml: string, name: string): HostdevNetwork | null {
  const what = `network ${name}`;
  const root = parseXml(xml, what).documentElement;
  const forward = root?.nodeName === 'network' ? child(root, 'forward') : undefined;
  if (forward?.getAttribute('mode') !== 'hostdev') return null;
  return {
    name,
    managed: forward.getAttribute('managed') === 'yes',
    devices: children(forward, 'address').map((a) => addressOf(what, a)),
    pfs: children(forward, 'pf').flatMap((p) => p.getAttribute('dev') ?? []),
  };
}
