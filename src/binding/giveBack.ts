/**
 * The way back: from the VFIO driver to what the books say was there before. Only what nobody holds and nobody else has changed since is given back; the
 * rest stays as it is, is said, and stays in the books.
 */
import type { Host } from '../host/host.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { type Binding, removeBinding, withClaims, writeBinding } from './books.ts';
import type { JournalMove } from './journal.ts';
import { driverExists, loadHostModule } from './modules.ts';
import { type DeviceState, describeState, sameState } from './move.ts';
import { recordedVfs, type SriovChange } from './sriov.ts';
import { observe, runMoves, type Work } from './transaction.ts';
import { vfioNodes } from './usage.ts';
import { observeSriov } from './vfs.ts';

/** One device's outcome: given back (or already there), gone, or kept with the reason. */
export type Returned = {
  address: string;
  outcome: 'given-back' | 'already' | 'gone' | 'kept';
  reason: string | null;
  to: DeviceState;
};

/**
 * Gives one device back whose last claim is gone. The caller holds its group's lock; `dropVfs` lets idle VFs go that a PF has on VFIO. What stands in the way is an outcome, not an error;
 * raised is only what {@link runMoves} raises when the change itself fails (then the device is on VFIO again and the books say so).
 */
export async function giveBack(
  work: Work,
  device: PciDevice | undefined,
  binding: Binding,
  dropVfs = false,
): Promise<Returned> {
  const { host } = work;
  const { address, before } = binding;
  const result = (outcome: Returned['outcome'], reason: string | null = null): Returned => ({
    address,
    outcome,
    reason,
    to: before,
  });
  const keep = (reason: string): Returned => {
    writeBinding(host, ended(binding, reason));
    return result('kept', reason);
  };
  const now = device === undefined ? null : await observe(work, address);
  if (device === undefined || now === null) {
    removeBinding(host, address);
    return result('gone', 'the device is no longer there');
  }
  const sriov = await vfsBack(work, device, binding);
  if (sameState(now, before) && (sriov === undefined || sriov.from.numvfs > 0)) {
    removeBinding(host, address);
    return result('already');
  }
  const holder = host.native.holders(host.root, vfioNodes(host, device)).holders[0];
  if (holder !== undefined) return keep(`process ${holder.pid} (${holder.command}) holds ${holder.path}`);
  if (!asLeft(host, binding, now))
    return keep(
      `somebody else put it on ${describeState(now)}; hostdev had left it on ${describeState(binding.after ?? before)}`,
    );
  if (sriov !== undefined && sriov.from.numvfs > 0 && !dropVfs)
    return keep(`it has ${sriov.from.numvfs} VFs now; 'hostdev vf remove ${address}' first`);
  await ensureDriver(work, address, before.driver);
  const move: JournalMove = {
    address,
    group: device.iommu_group,
    from: { driver: now.driver, override: now.override },
    to: before,
    override_bytes: now.overrideBytes,
    ...(sriov === undefined ? {} : { sriov }),
  };
  writeBinding(host, ended(binding, 'its return was begun'));
  try {
    await runMoves(work, 'give-back', binding.owner ?? 'admin', [move], () => closeBooks(host, binding, sriov));
  } catch (e) {
    writeBinding(host, ended(binding, (e as Error).message));
    throw e;
  }
  return result('given-back');
}

/** The way of a PF's VFs back to what the books recorded; undefined for what has none and had none. */
async function vfsBack(work: Work, device: PciDevice, binding: Binding): Promise<SriovChange | undefined> {
  if (binding.sriov === undefined && !device.sriov_numvfs) return undefined;
  const { numvfs_bytes, autoprobe_bytes, ...from } = await observeSriov(work, device.address, observe);
  return { from, to: binding.sriov ?? { ...from, numvfs: 0, vfs: [] }, numvfs_bytes, autoprobe_bytes };
}

/** The binding goes, and with it those of the VFs that a PF lost; those of the VFs that came back stand again, with the groups that they are in now. */
export function closeBooks(host: Host, binding: Binding, sriov?: SriovChange): void {
  for (const vf of recordedVfs(sriov?.from)) removeBinding(host, vf.address);
  for (const vf of binding.vf_bindings ?? []) {
    const group = host.linkName(host.device(vf.address, 'iommu_group'));
    if (host.list(host.device(vf.address)) !== null)
      writeBinding(host, { ...vf, group: group !== null && /^\d{1,7}$/.test(group) ? Number(group) : null });
  }
  removeBinding(host, binding.address);
}

/** A guest's claim ends with the guest, whether the device came back or not; the admin's stays until it did. */
function ended(binding: Binding, note: string): Binding {
  const claims = binding.claims.filter((c) => !c.owner.startsWith('domain:'));
  return { ...withClaims(binding, claims), note: claims.length > 0 ? null : note };
}

/** True when driver and override are as we left them, or as libvirt leaves a managed device: on VFIO, on the host driver, or on none, the override cleared. */
function asLeft(host: Host, binding: Binding, now: DeviceState): boolean {
  if (binding.after !== null && now.driver === binding.after.driver)
    return now.override === binding.after.override || now.override === null;
  const vfio = isVfioDriver(host, binding.address, now.driver);
  const managed = binding.after === null;
  if (managed || now.driver === null || now.driver === binding.before.driver) {
    return (
      (vfio || now.driver === null || now.driver === binding.before.driver) &&
      (now.override === null || now.override === binding.before.override || now.override === now.driver)
    );
  }
  return false;
}

/** The host driver's module may have gone while the guest ran: it is loaded again, by name through the device's modalias. */
export async function ensureDriver(work: Work, address: string, driver: string | null): Promise<void> {
  const { host } = work;
  if (driver === null || driverExists(host, driver)) return;
  const modalias = host.read(host.device(address, 'modalias'));
  if (modalias !== null) await loadHostModule(host, modalias, work.deadline);
}
