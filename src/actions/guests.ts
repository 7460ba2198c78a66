/** What libvirt's guests have of this host's devices: for `guest list` and `guest show`, and who has a device. */
import { now } from '../clock.ts';
import type { HostdevNetwork } from '../domain/network.ts';
import { formatVersion } from '../domain/version.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { Connection, whichLibvirt } from '../libvirt/connection.ts';
import { hostdevNetworks, type SeenDomain, seeDomains } from '../libvirt/domains.ts';
import type { Address } from '../pci/address.ts';
import { warning } from '../text/warning.ts';
import { type DeviceGuests, type InGuest, NOT_ASKED } from './inGuest.ts';

/** For those whose answer libvirt only adds to. */
const ADDED_MS = 1500;

/** Which libvirt answered; versions null are not measured. */
export type LibvirtSeen = { uri: string; library: string; daemon: string; hypervisor: string | null };

export type Seen = { libvirt: LibvirtSeen; domains: SeenDomain[]; networks: HostdevNetwork[] };

/**
 * Asks libvirt for its guests. Raises HOSTDEV_LIBVIRT_UNREACHABLE (also where none is to be asked),
 * HOSTDEV_LIBVIRT_LATE or HOSTDEV_NOT_PERMITTED.
 */
export const seeGuests = (host: Host, connect: string | null, deadlineMs: number): Promise<Seen> =>
  withAsked(host, connect, { readOnly: true, deadlineMs }, async (connection, left) => {
    const { library, daemon, hypervisor } = await connection.versions(left());
    return {
      libvirt: {
        uri: connection.uri,
        library: formatVersion(library),
        daemon: formatVersion(daemon),
        hypervisor: hypervisor === null ? null : formatVersion(hypervisor),
      },
      ...(await whatIsThere(connection, left)),
    };
  });

async function whatIsThere(connection: Connection, left: () => number): Promise<Omit<Seen, 'libvirt'>> {
  const domains = await seeDomains(connection, left);
  return { domains, networks: await hostdevNetworks(connection, left()) };
}

/** {@link withLibvirt} of the libvirt that is to be asked. Raises HOSTDEV_LIBVIRT_UNREACHABLE where there is none. */
export async function withAsked<T>(
  host: Host,
  connect: string | null,
  how: { readOnly: boolean; deadlineMs: number },
  body: (connection: Connection, left: () => number) => Promise<T>,
): Promise<T> {
  const which = whichLibvirt(host, connect);
  if (which.uri === null) throw new HostdevError('HOSTDEV_LIBVIRT_UNREACHABLE', `No libvirt is asked: ${which.why}`);
  return withLibvirt(host, which.uri, how, body);
}

/** A connection for as long as `body` takes; `left` is what is left of the time for all of it. */
async function withLibvirt<T>(
  host: Host,
  uri: string,
  { readOnly, deadlineMs }: { readOnly: boolean; deadlineMs: number },
  body: (connection: Connection, left: () => number) => Promise<T>,
): Promise<T> {
  const end = now() + deadlineMs;
  const left = (): number => Math.max(1, end - now());
  const calls = host.native.openLibvirt?.();
  if (calls === undefined)
    throw new HostdevError('HOSTDEV_NATIVE_MISSING', 'libvirt is called by the native part, which is not in use here');
  const connection = await Connection.open(calls, uri, { readOnly, deadlineMs: left() });
  try {
    return await body(connection, left);
  } finally {
    connection.close();
  }
}

/**
 * Who has which device, for answers to which libvirt only adds: what is asked and not answered is a warning. Nothing of
 * it is loaded where no libvirt listens ({@link whoHas} asks first).
 */
export async function guestsByDevice(host: Host, connect: string | null): Promise<DeviceGuests> {
  try {
    // Not its versions: for the hypervisor's a libvirtd that has just started runs each emulator first, for seconds.
    const { domains, networks } = await withAsked(host, connect, { readOnly: true, deadlineMs: ADDED_MS }, whatIsThere);
    return {
      asked: true,
      guests: new Map(domains.flatMap(inGuest)),
      known: new Set(domains.flatMap((d) => (d.live === null ? [] : [d.uuid]))),
      networks,
      warnings: domains
        .filter((d) => d.why !== null)
        .map((d) => warning('not-measured', `what guest ${d.name} has is not known: ${d.why}`)),
    };
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    const text = `which guests have devices is not known: ${e.message}`;
    return { ...NOT_ASKED, warnings: [warning('not-measured', text)] };
  }
}

const inGuest = ({ uuid, name, live }: SeenDomain): [Address, InGuest][] =>
  (live?.devices.devices ?? []).map(({ address, managed }) => [address, { uuid, name, managed }]);
