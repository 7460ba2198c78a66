/** What is said of guests and devices by those who ask libvirt, for those who add it to their answers. */
import type { Told } from '../binding/guests.ts';
import type { HostdevNetwork } from '../domain/network.ts';
import type { Others } from '../nova/hostPools.ts';
import type { Address } from '../pci/address.ts';
import type { Warning } from '../text/warning.ts';

/** A running guest that has a device. */
export type InGuest = { uuid: string; name: string; managed: boolean };

/** `asked` false: nobody could say who has what, so that a device without a guest may have one. */
export type DeviceGuests = {
  asked: boolean;
  guests: ReadonlyMap<Address, InGuest>;
  /** The UUIDs of the guests that run and whose devices are known. */
  known: ReadonlySet<string>;
  /** Those that run and are pools of host devices. */
  networks: readonly HostdevNetwork[];
  warnings: Warning[];
};

/** The same, as the pools ask for it. */
export const othersOf = ({ guests, networks }: DeviceGuests): Others => ({
  held: [...guests].map(([address, { name }]) => ({ address, consumer: name })),
  inNetworks: networks.flatMap((n) => n.devices.map((address) => ({ address, network: n.name }))),
});

/** The same, as a look at the books' guests asks for it. */
export const toldBy = ({ guests, known }: DeviceGuests): Told => ({
  known,
  has: (uuid, address) => guests.get(address)?.uuid === uuid,
});

export const NOT_ASKED: DeviceGuests = {
  asked: false,
  guests: new Map(),
  known: new Set(),
  networks: [],
  warnings: [],
};
