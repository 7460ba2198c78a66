/**
 * Representors: in switchdev mode a PF has an interface of its own for each of its VFs, the end of the VF's wire that
 * the host's switch has. It hangs below the PF and stands for the VF (net/core/devlink.c
 * devlink_port_phys_port_name_get; Documentation/networking/representors.rst).
 */

import { orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Address, formatAddress, isAddress, parseAddress } from './address.ts';

/**
 * "pf0vf1", "c1pf0vf1" with the number of a controller outside this host (a SmartNIC's), "p0v1" of drivers without
 * devlink's names.
 */
const PORT = /^(?:c(\d{1,5}))?pf?(\d{1,3})vf?(\d{1,5})$/;

export type Representor = {
  name: string;
  /** The PF whose VF it stands for. */
  pf: Address;
  /** The VF's number. */
  n: number;
  /** The VF; null when it is not there, or of another machine. */
  vf: Address | null;
  /** The VF is of the machine that the card sits in, and this one is the card's own. */
  external: boolean;
};

/**
 * What the interface `name` of the function `below` represents; null for an interface of its own. Never raises for what
 * cannot be read: most interfaces have no port name.
 */
export function representorOf(host: Host, name: string, below: Address): Representor | null {
  const m = PORT.exec(portName(host, name));
  if (m === null) return null;
  const [, controller, pfNumber, n] = m;
  const external = controller !== undefined;
  const pf = numberedPf(host, below, Number(pfNumber));
  return { name, pf, n: Number(n), vf: external ? null : vfOf(host, pf, Number(n)), external };
}

/** "eth0 is the representor of VF 1 of 0000:81:00.0". */
export const representorText = ({ name, pf, n, external }: Representor): string =>
  `${name} is the representor of VF ${n} of ${external ? 'the machine that this card sits in' : pf}`;

/**
 * The kernel answers EOPNOTSUPP where a driver names no ports, EINVAL for an interface on its way out
 * (net/core/net-sysfs.c).
 */
const portName = (host: Host, name: string): string =>
  orNull(() => host.read(host.classLink('net', `${name}/phys_port_name`)))?.trim() ?? '';

/**
 * One function of a card may have the representors of all (shared eswitch): the PF is the one of that number, where
 * that one has VFs.
 */
function numberedPf(host: Host, below: Address, n: number): Address {
  const p = parseAddress(below);
  if (p === null || p.func === n || n > 7) return below;
  const other = formatAddress({ ...p, func: n });
  return vfOf(host, below, 0) === null && vfOf(host, other, 0) !== null ? other : below;
}

/** One link is read, however many VFs there are. */
function vfOf(host: Host, pf: Address, n: number): Address | null {
  const vf = orNull(() => host.linkName(host.device(pf, `virtfn${n}`)));
  return vf !== null && isAddress(vf) ? vf : null;
}
