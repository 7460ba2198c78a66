/**
 * The vGPU type of a VF: one attribute of NVIDIA's driver, which makes the VF the vGPU that a guest gets. Rules of the
 * NVIDIA vGPU User Guide ("Creating an NVIDIA vGPU on a Linux with KVM Hypervisor that Supports SR-IOV"): a type is to
 * be had when the VF's own list says so now, and every type that a sibling gets changes that list; 0 takes the vGPU
 * away; one that a guest has stays. What others met: a late release cleared the type that a later owner had set
 * (hypeman#364), so an undo leaves alone what is neither where we were nor where we went (settle.ts).
 */
import { HostdevError, isSysError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { creatable, vgpuTypeFile, vgpuTypeNow } from '../pci/vendorVfio.ts';
import { writeAttribute } from './access.ts';
import { refuse } from './guards.ts';
import { type Leaving, useRefusals } from './leave.ts';
import { observe } from './observe.ts';
import type { Move } from './state.ts';
import type { Step } from './steps.ts';

/**
 * The move of a VF that stays on its driver and gets a vGPU type ("0" for none); null when it has that. Raises
 * HOSTDEV_VGPU_TYPE for what is no vGPU and for a type that it cannot have now, HOSTDEV_IN_USE for one that a guest
 * has, HOSTDEV_DEVICE_ABSENT, HOSTDEV_TIMEOUT.
 */
export async function planVgpu(work: Leaving, vf: PciDevice, type: string): Promise<Move | null> {
  const { host } = work;
  const { address } = vf;
  const now = await observe(work, address);
  if (now === null) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${address} went away`);
  const from = vgpuTypeNow(host, address);
  if (from === null)
    throw new HostdevError(
      'HOSTDEV_VGPU_TYPE',
      `${address} is no vGPU: ${now.driver === null ? 'it has no driver' : `its driver, ${now.driver}, has no ${vgpuTypeFile(host, address)}`}`,
    );
  if (from === type) return null;
  refuse(await useRefusals(work, [address], null, `its vGPU type ${from} is in use`));
  // What there is room for once its own type has gone shows only then.
  if (from === '0') refuseUncreatable(host, address, type);
  const state = { driver: now.driver, override: now.override };
  return {
    address,
    group: vf.iommu_group,
    inode: host.inode(host.device(address)),
    from: state,
    to: state,
    override_bytes: now.overrideBytes,
    vgpu: { from, to: type },
  };
}

const NAMED = 8;

function refuseUncreatable(host: Host, address: Address, type: string): void {
  const types = creatable(host, address);
  if (types.some((t) => Number(t.id) === Number(type))) return;
  const named = types.slice(0, NAMED).map((t) => `${t.id} (${t.name})`);
  const more = types.length > NAMED ? ` and ${types.length - NAMED} more` : '';
  const offer = types.length === 0 ? 'none: there is no room on its PF' : `${named.join(', ')}${more}`;
  throw new HostdevError('HOSTDEV_VGPU_TYPE', `${address} cannot have the vGPU type ${type} now; it can have ${offer}`);
}

/**
 * Writes a vGPU type and reads it again; a guest that has the VF by now refuses, and so does a type that its list has
 * no more. Raises HOSTDEV_IN_USE, HOSTDEV_VGPU_TYPE, HOSTDEV_TIMEOUT.
 */
export async function writeVgpuType(work: Leaving, { address, path, value, expect }: Step): Promise<void> {
  const { host } = work;
  refuse(await useRefusals(work, [address], null, 'its vGPU is in use'));
  if (expect !== null && expect !== '0') refuseUncreatable(host, address, expect);
  try {
    await writeAttribute(work, address, path, value);
  } catch (e) {
    const cause = e instanceof Error ? e.cause : undefined;
    if (!isSysError(cause) || cause.code === 'ETIMEDOUT' || cause.code === 'EACCES') throw e;
    throw new HostdevError(
      'HOSTDEV_VGPU_TYPE',
      `Failed to write ${expect} to ${path}: ${cause.code}: the driver refused it`,
      { cause: e, hint: "See dmesg and the journal of NVIDIA's vGPU manager." },
    );
  }
  const now = vgpuTypeNow(host, address);
  if (now === null || Number(now) !== Number(expect))
    throw new HostdevError('HOSTDEV_VGPU_TYPE', `${path} reads ${now} after ${expect} was written and taken`);
}
