/**
 * The hook's `start`: libvirt has the devices now and QEMU does not run yet. Devices of a network's pool are known only
 * here (`<interface type='network'>` became type='hostdev' with an address), so this is where they are checked.
 */
import { onVfio } from '../binding/perform.ts';
import type { DomainDevices } from '../domain/hostDevices.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { scanInventory } from '../pci/inventory.ts';
import { lookAtDevices, raiseFirst, viabilityObjection } from './check.ts';

/**
 * Raises the cause when a device is not on a VFIO driver or a group is not viable; changes nothing. Returns the
 * addresses that were checked.
 */
export function checkStart(host: Host, domain: DomainDevices): { checked: string[] } {
  const inventory = scanInventory(host);
  const { devices, objections } = lookAtDevices(host, inventory, domain);
  // What goes with whose driver was prepare's to ask: by now all are on VFIO.
  raiseFirst(objections.filter((o) => o.kind !== 'functions'));
  const wrong = devices.filter(({ device }) => !onVfio(host, device.address));
  if (wrong.length > 0) {
    const list = wrong
      .map(({ device, listed }) => `${device.address} (${listed.where}) is on ${device.driver ?? 'no driver'}`)
      .join(', ');
    throw new HostdevError('HOSTDEV_BIND_FAILED', `Not on a VFIO driver: ${list}`, {
      hint: "'hostdev status' says what changed since prepare.",
    });
  }
  const group = viabilityObjection(host, inventory, domain);
  raiseFirst(group === null ? [] : [group]);
  return { checked: devices.map(({ device }) => device.address) };
}
