/** Devices as pools take them: what a hypervisor reports to Nova, made of `list -j` or of a scenario. */

import type { SpecDevice } from '../nova/grammar/deviceSpec.ts';
import type { DevType, PciDevice } from '../pci/inventory.ts';

/** One reported device. Ids are 4 lower-case hex digits; unknown is null. */
export type PoolDevice = SpecDevice & {
  dev_type: DevType;
  numa_node: number | null;
  /** Of a VF: its PF's network interface. */
  parent_ifname: string | null;
};

/** What `list -j` does not say and pools may want: VPD serials and interface names, by address. */
export type DeviceDetails = {
  cardSerial?: ReadonlyMap<string, string>;
  netdev?: ReadonlyMap<string, string>;
};

/**
 * Devices of `list -j` (an inventory, from this host or another) as pools take them. A VF without a VPD serial of its
 * own has its PF's, and a VF with a network interface names its PF's, both as Nova's libvirt driver reports them.
 */
export function fromInventory(devices: readonly PciDevice[], details: DeviceDetails = {}): PoolDevice[] {
  const serial = (address: string | null): string | null =>
    address === null ? null : (details.cardSerial?.get(address) ?? null);
  const netdev = (address: string | null): string | null =>
    address === null ? null : (details.netdev?.get(address) ?? null);
  return devices.map((d) => ({
    address: d.address,
    vendor_id: d.vendor_id,
    product_id: d.product_id,
    dev_type: d.dev_type,
    parent_addr: d.parent_addr,
    numa_node: d.numa_node,
    card_serial_number: serial(d.address) ?? serial(d.parent_addr),
    parent_ifname: netdev(d.address) === null ? null : netdev(d.parent_addr),
  }));
}
