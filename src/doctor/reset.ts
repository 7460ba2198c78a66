/** How a device is reset between guests, and whom else that would hit. */
import type { Address } from '../pci/address.ts';
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { bridgesAbove } from '../pci/path.ts';
import { because, type Cause } from './cause.ts';
import type { Look } from './look.ts';

/** What a reset of the device would reach. */
export type Reset = { methods: string[] | null; scope: Address[] };

/** Methods that reach the function alone (drivers/pci/pci.c pci_reset_fn_methods). */
const LOCAL = new Set(['device_specific', 'acpi', 'flr', 'af_flr', 'pm']);

/** How the device is reset, and whom else that would hit. */
export function resetScope(look: Look, d: PciDevice): { reset: Reset; causes: Cause[] } {
  const { host } = look;
  const text = look.quiet(d.address, () => host.read(host.device(d.address, 'reset_method')));
  // Kernels before 5.15 show only whether there is a method at all.
  const old =
    text === null && look.quiet(d.address, () => host.list(host.device(d.address)))?.includes('reset') === true;
  if (old) look.missed(`/${host.device(d.address, 'reset_method')}`, 'not there: a kernel before 5.15');
  const methods = old
    ? null
    : (text ?? '')
        .split(/\s+/)
        .filter((m) => /^[a-z_]{1,32}$/.test(m))
        .slice(0, 16);
  if (methods === null || isBridge(d) || methods.some((m) => LOCAL.has(m)))
    return { reset: { methods, scope: [] }, causes: [] };
  // A root bus has no bridge that could reset it.
  const above = bridgesAbove(host, d.address)[0];
  const scope = look.inventory.devices
    .filter((o) => above !== undefined && o.address !== d.address && bridgesAbove(host, o.address).includes(above))
    .map((o) => o.address);
  const hit = scope.length === 0 ? 'nothing else is on its bus' : `that hits ${scope.join(', ')} too`;
  const causes =
    methods.length > 0
      ? scope.length === 0
        ? []
        : [
            because(
              'reset-bus',
              d.address,
              `its only method is ${methods.join(' ')}; ${hit}`,
              'give all of them to the same guest',
            ),
          ]
      : above === undefined
        ? [
            because(
              'reset-none',
              d.address,
              'reset_method is empty, and there is no bridge above whose bus could be reset',
              'reboot the host between guests that do not trust each other; for AMD GPUs see vendor-reset',
            ),
          ]
        : [
            because(
              'reset-none',
              d.address,
              `reset_method is empty; a guest can only reset the bus below ${above}: ${hit}`,
              scope.length === 0 ? 'nothing, or see vendor-reset for AMD GPUs' : 'give all of them to the same guest',
            ),
          ];
  return { reset: { methods, scope }, causes };
}
