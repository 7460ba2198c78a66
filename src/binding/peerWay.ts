/**
 * What is to be done about one member of a group that keeps it from a guest. The one answer for group why, the hook,
 * domain check and domain plan.
 */
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { type Inventory, isBridge } from '../pci/inventory.ts';
import type { Blocker } from '../pci/vfio.ts';
import { lossesOf } from './losses.ts';

/**
 * `none`: without its driver the wanted device is gone, so nothing is to be done about it; `driver`: no guest can have
 * it, a bridge or a platform device, and its driver is to be unbound; `take`: it is to leave the host with the wanted
 * device, and `loses` is what the host loses with it, empty for nothing that has a name.
 */
export type PeerWay = { kind: 'none' | 'driver'; text: string } | { kind: 'take'; loses: string };

/**
 * The way out for a blocker of the group of `wanted`; `host` null: of a saved inventory, which does not tell what the
 * host would lose. Never raises.
 */
export function peerWay(
  host: Host | null,
  inventory: Inventory,
  { address, driver, bus, makes = [] }: Blocker,
  wanted: ReadonlySet<Address>,
): PeerWay {
  const made = makes.filter((a) => wanted.has(a));
  if (made.length > 0)
    return {
      kind: 'none',
      text: `no guest can have ${made.join(', ')} while ${driver} makes it: switch off in the firmware what ${address} does (Intel VMD: the device then stands on its own), or take another device`,
    };
  const device = inventory.byAddress.get(address);
  const isPci = bus === undefined || bus === 'pci';
  if (!isPci || (device !== undefined && isBridge(device))) {
    const unbind = `echo ${address} > ${unbindFile(host, driver, bus)}`;
    const needless = `if the host can do without what ${driver} serves`;
    const serves = isPci && device?.class?.startsWith('0604') ? 'which serves hot plug behind it only' : needless;
    return { kind: 'driver', text: `unbind ${isPci ? "the bridge's" : 'its'} driver, ${serves}: ${unbind}` };
  }
  return { kind: 'take', loses: host === null || device === undefined ? '' : lossesOf(host, device) };
}

function unbindFile(host: Host | null, driver: string, bus: string | undefined): string {
  return host === null
    ? `/sys/bus/${bus ?? 'pci'}/drivers/${driver}/unbind`
    : host.absolute(host.driver(driver, 'unbind', bus));
}
