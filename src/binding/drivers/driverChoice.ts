/**
 * Which VFIO driver a device gets: the one named by hand, else the kernel's best variant driver for it, else vfio-pci.
 */
import { HostdevError, orNull } from '../../errors.ts';
import type { Host } from '../../host/host.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import { vendorVfio } from '../../pci/vendorVfio.ts';
import { type DriverModule, namedDriver } from './modules.ts';
import { chooseVariant, hostModules } from './variant.ts';

/** libvirt reads at most 8 MiB of modules.alias (virpci.c); a kernel with every driver there is has about 1.5 MB. */
const MAX_ALIAS_BYTES = 8 * 1024 * 1024;

/** What the running kernel's module lists say; read once for a whole transaction. */
export type ModuleLists = { alias: string; builtin: string | null };

/**
 * Reads modules.alias (must be there: without it a variant driver would silently be passed over, as libvirt 10.0.0
 * holds too) and modules.builtin.modinfo (may be missing). Raises HOSTDEV_MODULES_ALIAS.
 */
export function readModuleLists(host: Host): ModuleLists {
  const release = host.release;
  if (release === null) {
    throw new HostdevError(
      'HOSTDEV_MODULES_ALIAS',
      `The running kernel is not known: ${host.absolute(host.osrelease)} cannot be read`,
    );
  }
  const first = (file: string): string | null => {
    for (const path of host.moduleFiles(release, file)) {
      try {
        const text = host.read(path, MAX_ALIAS_BYTES);
        if (text !== null) return text;
      } catch (e) {
        throw new HostdevError(
          'HOSTDEV_MODULES_ALIAS',
          `Failed to read ${host.absolute(path)}: ${(e as Error).message}`,
          { cause: e },
        );
      }
    }
    return null;
  };
  const alias = first('modules.alias');
  if (alias === null)
    throw new HostdevError(
      'HOSTDEV_MODULES_ALIAS',
      `${host.absolute(host.moduleFiles(release, 'modules.alias')[0] ?? '')} is not there`,
    );
  return { alias, builtin: first('modules.builtin.modinfo') };
}

/**
 * The best VFIO variant driver of the running kernel for a device, vfio-pci when none is better. Raises
 * HOSTDEV_MODULES_ALIAS.
 */
export function variantDriver(host: Host, device: PciDevice, lists: ModuleLists): DriverModule {
  const modalias = host.read(host.device(device.address, 'modalias'));
  const best = modalias === null ? null : chooseVariant(modalias, lists.alias, lists.builtin);
  return namedDriver(host, best?.module ?? 'vfio_pci');
}

/**
 * The VFIO driver that a guest has a device on: its own where that is its VFIO provider, else the kernel's best. Raises
 * HOSTDEV_MODULES_ALIAS, and as vendorVfio does.
 */
export const guestDriver = (host: Host, device: PciDevice): string =>
  vendorVfio(host, device)?.driver ?? variantDriver(host, device, readModuleLists(host)).driver;

/**
 * `wanted` is a driver or module name, or null for the kernel's best. Raises HOSTDEV_USAGE for one that is no VFIO
 * driver: by name, as libvirt's virpci.c told them before 6.1's vfio-dev, because a driver that is not loaded shows
 * nothing else.
 */
export function chooseDriver(
  host: Host,
  device: PciDevice,
  wanted: string | null,
  lists: () => ModuleLists,
): DriverModule {
  if (wanted === null) return variantDriver(host, device, lists());
  const named = namedDriver(host, wanted);
  if (/vfio/.test(wanted)) return named;
  throw new HostdevError('HOSTDEV_USAGE', `${wanted} is no VFIO driver: no guest gets a device that is on it`, {
    hint: "Name vfio-pci or a variant driver (their names have 'vfio' in them); where none is named it is the kernel's best.",
  });
}

/**
 * The host driver that will claim a device when nothing is in its override, as modules.alias foretells it: by the
 * device's modalias, null where it names none or several, since which of those comes first is the kernel's affair.
 * Raises nothing: without the list nothing is foretold.
 */
export function hostDrivers(host: Host): (modalias: string | null) => string | null {
  const claimants = hostClaimants(host);
  return (modalias) => {
    const [module, ...others] = claimants(modalias) ?? [];
    return module === undefined || others.length > 0 ? null : namedDriver(host, module).driver;
  };
}

/**
 * The modules of host drivers that claim a device, by its modalias; null where that is not known: the list cannot be
 * read, or has no host driver of PCI at all. Raises nothing.
 */
export function hostClaimants(host: Host): (modalias: string | null) => string[] | null {
  let lists: ModuleLists | null | undefined;
  return (modalias) => {
    if (lists === undefined) {
      lists = orNull(() => readModuleLists(host));
      if (lists !== null && !lists.alias.includes('alias pci:')) lists = null;
    }
    return modalias === null || lists === null ? null : hostModules(modalias, lists.alias, lists.builtin);
  };
}
