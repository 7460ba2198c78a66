/**
 * What a host driver has handed on to others: mediated devices, vDPA devices. Each lives as long as its parent's
 * driver.
 */

import { orNull } from '../../errors.ts';
import type { Look } from '../../host/look.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import { safe } from '../../text/safe.ts';
import type { Use } from '../guards.ts';

const NAMED = 4;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export function handedOn(look: Look, { address }: Pick<PciDevice, 'address'>): Use[] {
  const uses: Use[] = [];
  const mdevs = mediatedDevices(look, address);
  if (mdevs.length > 0) uses.push({ guard: 'mdev', reason: `it has the mediated device${list(mdevs)}` });
  const vdpas = vdpaDevices(look, address);
  if (vdpas.length > 0) uses.push({ guard: 'vdpa', reason: `it has the vDPA device${list(vdpas)}` });
  return uses;
}

const list = (all: readonly string[]): string => {
  const named = all
    .slice(0, NAMED)
    .map((n) => safe(n))
    .join(', ');
  return `${all.length > 1 ? 's' : ''} ${named}${all.length > NAMED ? ` and ${all.length - NAMED} more` : ''}`;
};

/** drivers/vfio/mdev/mdev_sysfs.c: each type lists its instances by UUID. */
function mediatedDevices(look: Look, address: string): string[] {
  const { host } = look;
  const types = 'mdev_supported_types';
  return look
    .names(host.device(address, types))
    .flatMap((type) => look.names(host.device(address, `${types}/${type}/devices`)))
    .filter((n) => UUID.test(n));
}

/**
 * drivers/vdpa/vdpa.c calls a device vdpa<N> unless the admin named it; the parent is the function or an auxiliary
 * device of it (mlx5_core.vnet.0). Told by name or by the bus that it is on: its attributes take its lock.
 */
function vdpaDevices(look: Look, address: string): string[] {
  const { host } = look;
  const loaded = look.names(host.module('vdpa')).length > 0;
  const isVdpa = (path: string, name: string): boolean =>
    /^vdpa\d+$/.test(name) || (loaded && linkName(look, host.device(address, `${path}/subsystem`)) === 'vdpa');
  const auxiliary = look.names(host.device(address)).filter((n) => /^[\w-]+\.(vnet|vdpa)\.\d+$/.test(n));
  return ['', ...auxiliary].flatMap((parent) =>
    look
      .names(parent === '' ? host.device(address) : host.device(address, parent))
      .map((name) => ({ name, path: parent === '' ? name : `${parent}/${name}` }))
      .filter(({ name, path }) => isVdpa(path, name))
      .map(({ path }) => described(look, address, path)),
  );
}

/** "vdpa0 (vhost_vdpa)": the driver on its bus says whether a guest or the host itself uses it. */
function described(look: Look, address: string, path: string): string {
  const driver = linkName(look, look.host.device(address, `${path}/driver`));
  const name = path.slice(path.lastIndexOf('/') + 1);
  return driver === null ? name : `${name} (${driver})`;
}

/** The last part of a link; null for what is absent or no link. */
const linkName = (look: Look, path: string): string | null => orNull(() => look.host.linkName(path));
