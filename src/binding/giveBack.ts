/**
 * The way back: from the VFIO driver to what the books say was there before. Only what nobody holds and nobody else has changed since is given back; the
 * rest stays as it is, is said, and stays in the books.
 */
import type { Host } from '../host/host.ts';
import { heldBy, holderText } from '../pci/holders.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { groupNow } from '../pci/vfLinks.ts';
import { observe, type Work } from './access.ts';
import { allOrNone, type Binding, readBinding, removeBinding, withClaims, writeBinding } from './books.ts';
import type { Guard } from './guards.ts';
import type { JournalMove } from './journal.ts';
import { driverExists, loadHostModule } from './modules.ts';
import { type DeviceState, describeState, sameState } from './move.ts';
import { recordedVfs, type SriovChange } from './sriov.ts';
import { runMoves } from './transaction.ts';
import { vfioNodes } from './usage.ts';
import { withoutVfs } from './vfPlan.ts';

/** One device's outcome: given back (or already there), gone, or kept with the reason. */
export type Returned = {
  address: string;
  outcome: 'given-back' | 'already' | 'gone' | 'kept';
  reason: string | null;
  to: DeviceState;
};

type Way = Returned & { binding: Binding; move: JournalMove | null };

/**
 * Gives one device back whose last claim is gone. The caller holds its group's lock. What stands in the way is an outcome, not an error;
 * raised is only what {@link runMoves} raises when the change itself fails (then the device is on VFIO again and the books say so).
 */
export async function giveBack(work: Work, device: PciDevice | undefined, binding: Binding): Promise<Returned> {
  const way = await wayBack(work, device, binding, new Set());
  await goBack(work, [way]);
  return returned(way);
}

/**
 * {@link giveBack} of several as one transaction: if one cannot go, none does, and what is `kept` says why. `lifted` are the guards that an admin allows:
 * with in-use the kernel asks the holder to let go and waits for it, until our deadline; with vfs the idle VFs go that a PF has on VFIO.
 */
export async function giveBackTogether(
  work: Work,
  list: readonly { device: PciDevice | undefined; binding: Binding }[],
  lifted: ReadonlySet<Guard>,
): Promise<Returned[]> {
  const ways: Way[] = [];
  for (const { device, binding } of list) ways.push(await wayBack(work, device, binding, lifted));
  if (!ways.some((w) => w.outcome === 'kept')) await goBack(work, ways);
  return ways.map(returned);
}

const returned = ({ address, outcome, reason, to }: Way): Returned => ({ address, outcome, reason, to });

/** What is to be done for one device: a move, or an outcome that needs none. */
async function wayBack(
  work: Work,
  device: PciDevice | undefined,
  binding: Binding,
  lifted: ReadonlySet<Guard>,
): Promise<Way> {
  const { host } = work;
  const { address, before } = binding;
  const way = (outcome: Returned['outcome'], reason: string | null, move: JournalMove | null = null): Way => ({
    address,
    outcome,
    reason,
    to: before,
    binding,
    move,
  });
  const now = device === undefined ? null : await observe(work, address);
  if (device === undefined || now === null) return way('gone', 'the device is no longer there');
  const sriov = await vfsBack(work, device, binding);
  const vfs = sriov?.from.numvfs ?? 0;
  if (sameState(now, before) && (sriov === undefined || vfs > 0)) return way('already', null);
  const [holder] = (await heldBy(host, vfioNodes(host, device), work.deadline.left)).holders;
  if (holder !== undefined && !lifted.has('in-use')) return way('kept', holderText(holder));
  if (!asLeft(host, binding, now)) {
    const left = describeState(binding.after ?? before);
    return way('kept', `somebody else put it on ${describeState(now)}; hostdev had left it on ${left}`);
  }
  if (vfs > 0 && !lifted.has('vfs')) return way('kept', `it has ${vfs} VFs now; 'hostdev vf remove ${address}' first`);
  const from = { driver: now.driver, override: now.override };
  return way('given-back', null, {
    address,
    group: device.iommu_group,
    from,
    to: before,
    override_bytes: now.overrideBytes,
    ...(sriov === undefined ? {} : { sriov }),
  });
}

/** The way of a PF's VFs back to what the books recorded; undefined for what has none and had none. */
export async function vfsBack(
  work: Work,
  device: PciDevice,
  binding: Binding | null,
): Promise<SriovChange | undefined> {
  if (binding?.sriov === undefined && !device.sriov_numvfs) return undefined;
  const change = await withoutVfs(work, device.address);
  return binding?.sriov === undefined ? change : { ...change, to: binding.sriov };
}

/** The binding goes, and with it those of the VFs that a PF lost; those of the VFs that came back stand again, with the groups that they are in now. */
export function closeBooks(host: Host, binding: Binding, sriov: SriovChange | undefined): void {
  for (const vf of recordedVfs(sriov?.from)) removeBinding(host, vf.address);
  for (const vf of binding.vf_bindings ?? []) {
    // Without `sriov` what is there was written by a dead process, or by a guest since.
    const there = sriov === undefined && readBinding(host, vf.address) !== null;
    if (!there && host.list(host.device(vf.address)) !== null)
      writeBinding(host, { ...vf, group: groupNow(host, vf.address) });
  }
  removeBinding(host, binding.address);
}

async function goBack(work: Work, ways: readonly Way[]): Promise<void> {
  const { host } = work;
  for (const w of ways) {
    if (w.outcome === 'gone' || w.outcome === 'already') removeBinding(host, w.address);
    if (w.outcome === 'kept') writeBinding(host, ended(w.binding, w.reason ?? ''));
  }
  const moving = ways.filter((w) => w.move !== null);
  const [first] = moving;
  if (first === undefined) return;
  for (const { address, to } of moving) await ensureDriver(work, address, to.driver);
  for (const { binding } of moving) writeBinding(host, ended(binding, 'its return was begun'));
  try {
    await runMoves(
      work,
      'give-back',
      first.binding.owner ?? 'admin',
      moving.map((w) => w.move as JournalMove),
      () =>
        allOrNone(() => {
          for (const { binding, move } of moving) closeBooks(host, binding, move?.sriov);
        }),
    );
  } catch (e) {
    for (const { binding } of moving) writeBinding(host, ended(binding, (e as Error).message));
    throw e;
  }
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
