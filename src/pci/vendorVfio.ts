/**
 * Devices whose own vendor driver is their VFIO provider: since 6.1 such a driver registers the device with VFIO itself
 * (vfio_register_group_dev, hence `vfio-dev/`), as NVIDIA's does for the VFs of a vGPU host. Off that driver a guest
 * has no use for the device. A variant driver of the kernel's is another matter: it is bound by driver_override, from a
 * host driver and back.
 */
import type { Host } from '../host/host.ts';
import { safe } from '../text/safe.ts';
import type { PciDevice } from './inventory.ts';
import { isVfioDriver } from './vfio.ts';

/**
 * What NVIDIA's vGPU driver shows of each VF: the type set, 0 for none, and those that there is room for ("592   :
 * NVIDIA A10-6Q").
 */
const VGPU_TYPE = 'nvidia/current_vgpu_type';
const CREATABLE = 'nvidia/creatable_vgpu_types';

type VgpuType = { id: string; name: string };

export type VendorVfio = {
  driver: string;
  /** VFIO has the device: a guest can be given it by its driver. */
  ready: boolean;
  /** The vGPU type: null where the driver has none of them, `id` "0" where none is set, and then those that can be. */
  vgpu: { id: string; creatable: VgpuType[] } | null;
};

/**
 * How a device's own driver is its VFIO provider; null when it is not, which a variant driver and vfio-pci are by their
 * names. Raises the errno of what cannot be read.
 */
export function vendorVfio(host: Host | null, device: Pick<PciDevice, 'address' | 'driver'>): VendorVfio | null {
  const { address, driver } = device;
  if (host === null || driver === null || /vfio/.test(driver)) return null;
  const ready = isVfioDriver(host, address, driver);
  const id = vgpuTypeNow(host, address);
  if (!ready && id === null) return null;
  return { driver, ready, vgpu: id === null ? null : { id, creatable: creatable(host, address) } };
}

/** A vGPU type by its number. */
export const VGPU_ID = /^\d{1,10}$/;

/** Where a VF's vGPU type is read and written. */
export const vgpuTypeFile = (host: Host, address: string): string => host.device(address, VGPU_TYPE);

/** The vGPU type that a device has, "0" for none; null for what is no vGPU. Raises the errno of what cannot be read. */
export function vgpuTypeNow(host: Host, address: string): string | null {
  const text = host.read(vgpuTypeFile(host, address))?.trim() ?? '';
  return VGPU_ID.test(text) ? `${Number(text)}` : null;
}

/**
 * The types that could be set of a VF now: fewer whenever one of its PF's VFs is given one. Raises the errno of what
 * cannot be read.
 */
export function creatable(host: Host, address: string): VgpuType[] {
  const text = host.read(host.device(address, CREATABLE)) ?? '';
  return [...text.matchAll(/^\s*(\d{1,10})\s*:\s*(\S.*)$/gm)].map(([, id = '', name = '']) => ({
    id,
    name: safe(name.trim(), 64),
  }));
}

/** True when a vGPU type is what the device lacks. */
export const lacksVgpuType = ({ vgpu }: VendorVfio): boolean => vgpu !== null && Number(vgpu.id) === 0;

/** "has no vGPU type set, and nvidia opens it for no guest", of what {@link lacksVgpuType}. */
export const untypedText = ({ driver }: VendorVfio): string =>
  `has no vGPU type set, and ${driver} opens it for no guest`;

/**
 * PF drivers whose VFs are vGPUs, to be had on that driver only: NVIDIA vGPU User Guide, "Creating an NVIDIA vGPU …
 * that Supports SR-IOV".
 */
const MAKES_VGPUS = new Set(['nvidia']);

/**
 * The driver that is the VFIO provider of a PF's VFs, those that it is still to make too: by the VFs that it has, else
 * by the PF's own driver; null where a VFIO driver is to be bound to them. Raises as {@link vendorVfio} does.
 */
export function providerOfVfs(host: Host, pf: PciDevice, vfs: readonly PciDevice[]): string | null {
  for (const vf of vfs) {
    const own = vendorVfio(host, vf);
    if (own !== null) return own.driver;
  }
  return pf.driver !== null && MAKES_VGPUS.has(pf.driver) ? pf.driver : null;
}

const NAMED = 4;

/**
 * The command that sets a vGPU type, for people: "write one of 592 (NVIDIA A10-6Q) to /sys/…/nvidia/current_vgpu_type".
 */
export function vgpuTypeAdvice(host: Host, address: string, { vgpu }: VendorVfio): string {
  const types = vgpu?.creatable ?? [];
  const to = host.absolute(host.device(address, VGPU_TYPE));
  if (types.length === 0)
    return `${host.absolute(host.device(address, CREATABLE))} offers none: set one to ${to} once there is room on its PF`;
  const more = types.length > NAMED ? ` and ${types.length - NAMED} more` : '';
  const named = types.slice(0, NAMED).map((t) => `${t.id} (${t.name})`);
  return `write ${named.length > 1 ? 'one of ' : ''}${named.join(', ')}${more} to ${to}`;
}

/**
 * True for a device on a driver of the host's own: one that is no VFIO provider, or that is and is the device's own.
 */
export const onHostDriver = (host: Host, address: string, driver: string | null): boolean =>
  driver !== null && (!isVfioDriver(host, address, driver) || vendorVfio(host, { address, driver }) !== null);
