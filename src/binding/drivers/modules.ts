/** Kernel modules and the PCI drivers they register: names, and loading without a shell. */
import { HostdevError } from '../../errors.ts';
import type { Host } from '../../host/host.ts';
import type { Deadline } from '../../store/locks.ts';
import { quote } from '../../text/safe.ts';

/** What may be handed to modprobe and put into a path: the kernel's own names, never an option. */
const NAME = /^[A-Za-z0-9_][\w+-]{0,63}$/;

/** A PCI driver and the module that registers it; `loaded` is false while the driver is not there yet. */
export type DriverModule = { driver: string; module: string | null; loaded: boolean };

/** True when a PCI driver of that name is registered now. */
export const driverExists = (host: Host, driver: string): boolean => host.list(host.driver(driver)) !== null;

/**
 * From a driver's or module's name to the driver: the name itself when such a driver is registered, else with `_` for
 * `-` as a module, whose driver `sys/module/<m>/drivers/pci:<driver>` names. Where the module is not loaded, its
 * driver's name is foretold (KBUILD_MODNAME for variants, `vfio-pci` for vfio_pci) and {@link loadedDriver} corrects it
 * after loading. Rule of libvirt virpci.c virPCIDeviceFindDriver (10.0.0). Raises HOSTDEV_USAGE for a name that is
 * none.
 */
export function namedDriver(host: Host, name: string): DriverModule {
  if (!NAME.test(name))
    throw new HostdevError('HOSTDEV_USAGE', `${quote(name)} is no driver name`, {
      hint: 'For example vfio-pci or mlx5_vfio_pci.',
    });
  if (driverExists(host, name)) return { driver: name, module: moduleOf(host, name), loaded: true };
  const module = name.replaceAll('-', '_');
  const driver = moduleDriver(host, module);
  if (driver !== null) return { driver, module, loaded: true };
  const foretold = module === 'vfio_pci' ? 'vfio-pci' : module;
  return { driver: foretold, module, loaded: driverExists(host, foretold) };
}

/** The module behind a registered driver, from its `module` link; null for one that is built in. */
const moduleOf = (host: Host, driver: string): string | null => host.linkName(host.driver(driver, 'module'));

/** The PCI driver that a loaded module registers; null when the module is not there or registers none. */
function moduleDriver(host: Host, module: string): string | null {
  const entry = (host.list(host.module(module, 'drivers')) ?? []).find((n) => n.startsWith('pci:'));
  return entry === undefined ? null : entry.slice('pci:'.length);
}

/**
 * Loads the module of `wanted` if its driver is not there yet, and returns it with the driver's real name.
 * Raises HOSTDEV_MODULE (not installed, blacklisted, no PCI driver in it) or HOSTDEV_TIMEOUT.
 */
export async function loadedDriver(host: Host, wanted: DriverModule, deadline: Deadline): Promise<DriverModule> {
  if (wanted.loaded || wanted.module === null) return wanted;
  await loadModule(host, wanted.module, deadline);
  const driver = moduleDriver(host, wanted.module) ?? (driverExists(host, wanted.driver) ? wanted.driver : null);
  if (driver !== null) return { driver, module: wanted.module, loaded: true };
  if (host.list(host.module(wanted.module)) !== null) {
    throw new HostdevError('HOSTDEV_MODULE', `The module ${wanted.module} has no PCI driver in it`, {
      hint: 'Name another VFIO driver.',
    });
  }
  throw blacklisted(wanted.module);
}

/** modprobe -b says nothing and succeeds for a blacklisted module. */
const blacklisted = (module: string): HostdevError =>
  new HostdevError('HOSTDEV_MODULE', `modprobe did not load ${module}: it is blacklisted`, {
    hint: `Look for it: grep -rw ${module} /etc/modprobe.d /run/modprobe.d /usr/lib/modprobe.d`,
  });

/**
 * Raises what {@link loadedDriver} would, without loading anything: `modprobe -n -v` (kmod) prints what it would do,
 * and nothing for a blacklisted module. That the module has no PCI driver in it shows only once it is loaded.
 */
export async function refuseUnloadable(host: Host, wanted: DriverModule, deadline: Deadline): Promise<void> {
  if (wanted.loaded || wanted.module === null || host.native.loadModule) return;
  refuseOffHost(host, wanted.module);
  const { code, text, printed } = await modprobe(['-n', '-v', '-b'], wanted.module, deadline);
  if (code !== 0) throw notLoaded(wanted.module, text);
  if (printed === '') throw blacklisted(wanted.module);
}

function refuseOffHost(host: Host, module: string): void {
  if (host.isReal) return;
  throw new HostdevError(
    'HOSTDEV_MODULE',
    `The module ${module} is not loaded below ${host.root}, and modules are loaded on the real root only`,
    { hint: 'Have it there before, or name another VFIO driver.' },
  );
}

const notLoaded = (module: string, text: string): HostdevError =>
  new HostdevError('HOSTDEV_MODULE', `modprobe ${module} failed: ${text}`);

/**
 * Loads a module (name or modalias text) by modprobe with the blacklist in force, as libvirt does. Never through a
 * shell.
 */
async function loadModule(host: Host, module: string, deadline: Deadline): Promise<void> {
  if (host.native.loadModule) {
    host.native.loadModule(module);
    return;
  }
  refuseOffHost(host, module);
  const { code, text } = await modprobe(['-b'], module, deadline);
  if (code !== 0) throw notLoaded(module, text);
}

/**
 * Loads whatever module claims a device by its modalias, for the way back to a host driver; failure is no error: the
 * probe tells.
 */
export async function loadHostModule(host: Host, modalias: string, deadline: Deadline): Promise<void> {
  if (!/^pci:v[0-9A-F]{8}d[0-9A-F]{8}sv[0-9A-F]{8}sd[0-9A-F]{8}bc[0-9A-F]{2}sc[0-9A-F]{2}i[0-9A-F]{2}$/.test(modalias))
    return;
  if (host.native.loadModule) host.native.loadModule(modalias);
  else if (host.isReal) await modprobe(['-b'], modalias, deadline);
}

const MODPROBE_PATH = '/usr/sbin:/sbin:/usr/bin:/bin';

/** A module's init probes devices and so may hang like a bind: past the deadline it is left to its fate. */
async function modprobe(
  flags: readonly string[],
  module: string,
  deadline: Deadline,
): Promise<{ code: number | null; text: string; printed: string }> {
  const { spawn } = await import('node:child_process');
  return new Promise((resolve, reject) => {
    const child = spawn('modprobe', [...flags, '--', module], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: MODPROBE_PATH, LC_ALL: 'C' },
    });
    let text = '';
    let printed = '';
    const timer = setTimeout(() => {
      child.kill();
      child.stdout.destroy();
      child.stderr.destroy();
      child.unref();
      reject(new HostdevError('HOSTDEV_TIMEOUT', `modprobe ${module} did not end before the deadline`));
    }, deadline.left);
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      text = (text + chunk).slice(-1000);
    });
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      printed = (printed + chunk).slice(0, 1000);
    });
    child.on('error', (e) => {
      clearTimeout(timer);
      reject(
        new HostdevError('HOSTDEV_MODULE', `modprobe could not be started: ${e.message}`, {
          cause: e,
          hint: 'Install kmod.',
        }),
      );
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code, text: text.trim().split('\n').at(-1) ?? '', printed: printed.trim() });
    });
  });
}
