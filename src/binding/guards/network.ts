/** The network interfaces of a function and what the host does over them, directly and through everything stacked on them. */
import type { Host } from '../../host/host.ts';
import { type Look, plain } from '../../host/look.ts';
import { interfaceFolder, interfacesOf, trafficOf, uppersOf } from '../../host/networkLayer.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import type { Use } from '../guards.ts';

/** Drivers of network functions that make no interface: what uses the device is then a process. */
const NO_INTERFACE = new Set(['uio_pci_generic', 'igb_uio', 'pci-stub', 'pciback']);

/** True for a network function whose host driver shows no interface, neither here nor elsewhere. */
export const lacksInterface = (host: Host, device: Pick<PciDevice, 'address' | 'class' | 'driver'>): boolean =>
  device.class?.startsWith('02') === true &&
  device.driver !== null &&
  !NO_INTERFACE.has(device.driver) &&
  interfaceFolder(host, device.address) === 'none';

export function networkUses(look: Look, device: Pick<PciDevice, 'address' | 'class' | 'driver'>): Use[] {
  const names = interfacesOf(look, device.address);
  const uses = names.flatMap((n) => interfaceUses(look, n));
  if (names.length === 0) {
    const folder = interfaceFolder(look.host, device.address);
    if (folder === 'elsewhere')
      uses.push({ guard: 'network', reason: 'its network interface was given to another network namespace' });
    else if (lacksInterface(look.host, device))
      look.miss(`the network interface that ${plain(device.driver ?? 'its driver')} has on it: none is to be seen`);
  }
  return uses;
}

function interfaceUses(look: Look, name: string): Use[] {
  const uses: Use[] = [];
  const say = (reason: string, vital: boolean): void => {
    uses.push({ guard: 'network', reason, vital });
  };
  const own = trafficOf(look, name);
  if (own.isDefault) say(`${plain(name)} has the default route`, true);
  else if (own.address !== null) say(`${plain(name)} has ${addressText(own.address)}`, false);
  // Each upper once: a ring of links ends here.
  const seen = new Set([name]);
  const queue = [name];
  for (let lower = queue.shift(); lower !== undefined; lower = queue.shift()) {
    for (const upper of uppersOf(look, lower)) {
      if (seen.has(upper.name)) continue;
      seen.add(upper.name);
      queue.push(upper.name);
      const on = `${plain(lower)} ${upper.isPart ? 'is part of' : 'is below'} ${plain(upper.name)}`;
      const traffic = trafficOf(look, upper.name);
      const and = traffic.isDefault
        ? ', which has the default route'
        : traffic.address !== null
          ? `, which has ${addressText(traffic.address)}`
          : '';
      say(on + and, traffic.isDefault);
    }
  }
  return uses;
}

const addressText = (address: string): string => (address === '' ? 'an address' : `the address ${plain(address)}`);
