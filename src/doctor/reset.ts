/** How a device is reset between guests, and whom else that would hit. */
import type { Address } from '../pci/address.ts';
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { bridgesAbove } from '../pci/path.ts';
import { resetBug } from '../pci/resetBugs.ts';
import { because, type Cause } from './cause.ts';
import { commandFix } from './fix.ts';
import type { Look } from './look.ts';
import { type Draft, finding } from './table.ts';

/** What a reset of the device would reach. */
export type Reset = { methods: string[] | null; scope: Address[] };

/** Methods that reach the function alone (drivers/pci/pci.c pci_reset_fn_methods). */
const LOCAL = new Set(['device_specific', 'acpi', 'flr', 'af_flr', 'pm']);

/**
 * The methods of a function; null where the kernel is too old to say (before 5.15), which shows only whether there is
 * one.
 */
function resetMethods(look: Look, d: PciDevice): string[] | null {
  const { host } = look;
  const text = look.quiet(d.address, () => host.read(host.device(d.address, 'reset_method')));
  if (text === null && look.quiet(d.address, () => host.list(host.device(d.address)))?.includes('reset') === true)
    return null;
  return (text ?? '')
    .split(/\s+/)
    .filter((m) => /^[a-z_]{1,32}$/.test(m))
    .slice(0, 16);
}

/** What resets such a card as it must be: FLR by itself, `device_specific` by vendor-reset or a later kernel. */
const SOUND = new Set(['flr', 'af_flr', 'device_specific']);

/**
 * The known reset bug of a function, where nothing here gets around it; null otherwise, and where the methods are not
 * known.
 */
function brokenReset(look: Look, d: PciDevice, methods: readonly string[] | null): string | null {
  const family = resetBug(d.vendor_id, d.product_id);
  if (family === null || methods === null || methods.some((m) => SOUND.has(m))) return null;
  const module = look.quiet('vendor_reset', () => look.host.list(look.host.module('vendor_reset')));
  if (module !== null) return null;
  return `${family} has a known reset bug: ${methods.length > 0 ? `${methods.join(' ')} does` : 'a reset of its bus does'} not bring it back, so that the second guest, or the same one again, finds it dead`;
}

const VENDOR_RESET =
  'install vendor-reset (github.com/gnif/vendor-reset, by dkms) and load it early; without it reboot the host between guests';

/** Devices with a known reset bug that nothing here gets around. */
export const checkResets = (look: Look): Draft[] =>
  look.inventory.devices.flatMap((d): Draft[] => {
    if (resetBug(d.vendor_id, d.product_id) === null) return [];
    const cause = brokenReset(look, d, resetMethods(look, d));
    if (cause === null) return [];
    return [
      finding('reset-bug', d.address, cause, [
        commandFix(
          `modprobe vendor-reset && echo device_specific > ${look.host.absolute(look.host.device(d.address, 'reset_method'))}`,
          'once vendor-reset (github.com/gnif/vendor-reset) is installed, by dkms; its udev rule does the second at every boot',
        ),
      ]),
    ];
  });

/** How the device is reset, and whom else that would hit. */
export function resetScope(look: Look, d: PciDevice): { reset: Reset; causes: Cause[] } {
  const { host } = look;
  const methods = resetMethods(look, d);
  if (methods === null) look.missed(`/${host.device(d.address, 'reset_method')}`, 'not there: a kernel before 5.15');
  const bug = brokenReset(look, d, methods);
  const known = bug === null ? [] : [because('reset-bug', d.address, bug, VENDOR_RESET)];
  if (methods === null || isBridge(d) || methods.some((m) => LOCAL.has(m)))
    return { reset: { methods, scope: [] }, causes: known };
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
  return { reset: { methods, scope }, causes: [...causes, ...known] };
}
