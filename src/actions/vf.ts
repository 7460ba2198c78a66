/** `vf create`, `vf list`, `vf remove`: the VFs of a PF, made for guests or for the host, as one transaction. */

import { type Hold, ownerText, readBinding } from '../binding/books.ts';
import { refuseUnloadable } from '../binding/drivers/modules.ts';
import { printedRefusals, type Refusal } from '../binding/guards.ts';
import { vfRefusals } from '../binding/leave.ts';
import type { Work } from '../binding/perform.ts';
import { changing, foreseeing } from '../binding/session.ts';
import { type Move, recordedVfs } from '../binding/state.ts';
import { stepsOf } from '../binding/steps.ts';
import { runChange } from '../binding/transaction.ts';
import { booksOfGoing, type Foretold, type ForetoldVf, foretellVfs, planVfs, refillSteps } from '../binding/vfPlan.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { linkForVfs } from '../pci/interfaces.ts';
import { failureText, type Inventory, malformedText, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { resolveDevice, resolvedNote } from '../pci/resolve.ts';
import { providerOfVfs } from '../pci/vendorVfio.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { safe } from '../text/safe.ts';
import { type Warning, warning } from '../text/warning.ts';
import { ADMIN, refuseLone } from './bind.ts';
import type { ActionOptions, Warned } from './options.ts';
import { type PrintedPlan, refuseWithPlan } from './plan.ts';
import { type LostVfs, lostBindings, lostWithVfs, shownVfs } from './vfLosses.ts';

/** A VF as `vf list` shows it: `owner` as in the books, null when nobody's; `for` its holds in words. */
export type ListedVf = PciDevice & { owner: string | null; for: string[] };

/** `lost` null: no VF goes. */
type VfPlan = PrintedPlan & { lost: LostVfs | null };

export type VfResult = Warned & { changed: boolean; plan: VfPlan; vfs: ListedVf[] };

/**
 * `recreate`: a PF that has another number of VFs may lose them all for the new ones. `hold`: whose the VFs on VFIO
 * are; the admin's.
 */
export type CreateOptions = ActionOptions & { recreate?: boolean; hold?: Hold };

/** The VFs of one PF, or of all. Raises HOSTDEV_NO_SRIOV for a device that is no PF, HOSTDEV_STORE_CORRUPT. */
export function listVfs(host: Host, word: string | null): Warned & { vfs: ListedVf[] } {
  const inventory = scanInventory(host);
  const pf = word === null ? null : resolvePf(host, inventory, word);
  const resolved = word === null || pf === null ? [] : resolvedNote(word, pf);
  return {
    vfs: listed(host, inventory, pf?.address ?? null),
    warnings: [...inventory.warnings, ...resolved],
  };
}

function listed(host: Host, inventory: Inventory, pf: string | null): ListedVf[] {
  return (pf === null ? inventory.devices.filter((d) => d.parent_addr !== null) : shownVfs(inventory, pf)).map((d) => {
    const binding = readBinding(host, d.address);
    return { ...d, ...heldBy(binding?.holds ?? []) };
  });
}

const heldBy = (holds: readonly Hold[]): Pick<ListedVf, 'owner' | 'for'> => ({
  owner: holds[0]?.owner ?? null,
  for: holds.map(ownerText),
});

/**
 * Gives a PF `count` VFs, on VFIO drivers and in the books for the admin, or for the host's own drivers; VFs whose own
 * driver is their VFIO provider (vGPU) come to that one either way. That many already: nothing is changed, whatever
 * they are on. Another number goes through 0 and takes all VFs away with what hangs on them: only with `recreate`, else
 * HOSTDEV_GUARD. In a dry run `vfs` are those that would be. Raises HOSTDEV_NO_SRIOV, HOSTDEV_IOMMU_OFF for VFIO
 * without an IOMMU, HOSTDEV_VF_COUNT, HOSTDEV_VFS (the kernel's errno explained), HOSTDEV_IN_USE naming the VF that is
 * in the way, HOSTDEV_MODULE, and what a transaction raises; then everything is as it was.
 */
export async function createVfs(
  host: Host,
  word: string,
  count: number,
  use: 'vfio' | 'netdev',
  options: CreateOptions,
): Promise<VfResult> {
  const first = scanInventory(host);
  const named = resolvePf(host, first, word);
  const { address } = named;
  const resolved = resolvedNote(word, named);
  const { hold = ADMIN } = options;
  const run = async (work: Work, inventory: Inventory, recovered: Warning[]): Promise<VfResult> => {
    const pf = resolvePf(host, inventory, address);
    if (count > 0 && use === 'vfio') refuseLone(host, [pf]);
    const own = count === 0 ? null : providerOfVfs(host, pf, shownVfs(inventory, address));
    const drive = own === null ? use : 'netdev';
    const move = await planVfs(work, pf, count, drive);
    if (move === null) {
      const warnings = [...recovered, ...(count > 0 ? strayWarnings(host, inventory, pf, use, own) : [])];
      const plan = { devices: [], steps: [], refusals: [], lost: null };
      return { changed: false, plan, vfs: listed(host, inventory, address), warnings };
    }
    const foretold = count === 0 ? NONE : foretellVfs(host, pf, count, drive, own);
    const refusals = await vfRefusals({ ...work, inventory }, address, 'admin');
    const from = move.sriov?.from;
    const going = from === undefined || from.numvfs === 0 ? null : await lostWithVfs(work, inventory, pf, from);
    const lost = going?.lost ?? null;
    const plan = { ...planOf(host, inventory, move, foretold, refusals), lost };
    refuseWithPlan(plan, refusals);
    const losses = [...(lost === null || count === 0 ? [] : lostBindings(address, lost)), ...(going?.lines ?? [])];
    const warnings = [
      ...resolved,
      ...recovered,
      ...losses,
      ...linkWarnings(host, move),
      ...(own === null
        ? []
        : [
            warning(
              'vendor-vfio',
              `${address}: its VFs are left to ${own}, their own driver and VFIO provider: ${OWN_WAY}`,
              address,
            ),
          ]),
    ];
    const untold = foretold.untold === null ? [] : [warning('vfs-untold', foretold.untold, address)];
    if (from !== undefined && going !== null && count > 0 && options.recreate !== true)
      throw refuseRecreate(address, from.numvfs, count, losses, { plan, warnings: [...warnings, ...untold] });
    // Before anything is written, for all of them: they are alike.
    const target = drive === 'vfio' ? foretold.vfs[0]?.target : null;
    if (target != null) await refuseUnloadable(host, target, work.deadline);
    if (options.dryRun) {
      const vfs = foretold.vfs.map((vf) => toCome(pf, vf, drive === 'vfio' ? [hold] : []));
      return { changed: false, plan, vfs, warnings: [...warnings, ...untold] };
    }
    await runChange(work, {
      kind: count === 0 ? 'give-back' : 'bind',
      owner: hold.owner,
      devices: [move],
      books: booksOfGoing(host, move),
      fresh: hold,
    });
    const now = scanInventory(host);
    const stray = own === null ? [] : strayWarnings(host, now, pf, use, own);
    return { changed: true, plan, vfs: listed(host, now, address), warnings: [...warnings, ...stray] };
  };
  const session = options.dryRun ? foreseeing : changing;
  return session(host, first, { addresses: [address] }, options, ({ work, inventory, recovered }) =>
    run(work, inventory, recovered),
  );
}

function linkWarnings(host: Host, { address, from, sriov }: Move): Warning[] {
  const link = sriov?.from.link === 'down' ? linkForVfs(host, address)?.link : undefined;
  if (link === undefined) return [];
  const then = sriov?.to.link === 'up' ? 'and stays up' : 'and down again after it';
  const text = `${address}: its interface ${safe(link.name)} is brought up, since ${from.driver} makes and removes VFs only then, ${then}`;
  return [warning('link-up', text, address)];
}

const NONE: Foretold = { vfs: [], untold: null };

const OWN_WAY = "guests take them with managed='no', once each has a vGPU type if it is one";

/** A VF as it will be, for whom `holds` says. What shows only when it is there is null. */
const toCome = (pf: PciDevice, { address, product_id, target }: ForetoldVf, holds: readonly Hold[]): ListedVf => ({
  ...pf,
  address,
  product_id,
  driver: target?.driver ?? null,
  iommu_group: null,
  dev_type: 'type-VF',
  parent_addr: pf.address,
  sriov_totalvfs: null,
  sriov_numvfs: null,
  ...heldBy(holds),
});

/** drivers/pci/iov.c sriov_numvfs_store: the number changes through 0 only, and every VF is a new device then. */
function refuseRecreate(
  pf: string,
  had: number,
  count: number,
  losses: readonly Warning[],
  data: { plan: VfPlan; warnings: Warning[] },
): HostdevError {
  const also = losses.length === 0 ? '' : `; ${losses.map((w) => w.text).join('; ')}`;
  return new HostdevError(
    'HOSTDEV_GUARD',
    `${pf} has ${had} VFs, and ${count} are to be had only by taking all of them away${also}`,
    { hint: `'hostdev vf create ${pf} --count ${count} --recreate' does that.`, data },
  );
}

/** Takes all VFs of a PF away. Raises as {@link createVfs}; a PF without VFs is no change. */
export const removeVfs = (host: Host, word: string, options: ActionOptions): Promise<VfResult> =>
  createVfs(host, word, 0, 'netdev', options);

/** The PF that a word names. Raises HOSTDEV_NO_SRIOV for anything else, naming the PF of a VF. */
function resolvePf(host: Host, inventory: Inventory, word: string): PciDevice {
  const device = resolveDevice(host, inventory, word);
  if (device.dev_type === 'type-PF') return device;
  if (device.parent_addr !== null)
    throw new HostdevError('HOSTDEV_NO_SRIOV', `${device.address} is itself a VF`, {
      hint: `Its PF is ${device.parent_addr}.`,
    });
  throw new HostdevError(
    'HOSTDEV_NO_SRIOV',
    whyNotCounted(inventory, device.address) ?? `${device.address} is no PF: it has no SR-IOV, or can have no VFs`,
  );
}

/** Why it is not known how many VFs a device can have; null when it is known. */
function whyNotCounted({ malformed, failures }: Inventory, address: string): string | null {
  const bad = malformed.find((m) => m.address === address && m.attribute === 'sriov_totalvfs');
  if (bad !== undefined) return malformedText(bad);
  const failure = failures.find((f) => f.path.endsWith(`/${address}/sriov_totalvfs`));
  return failure === undefined ? null : failureText(failure);
}

function planOf(host: Host, inventory: Inventory, move: Move, { vfs }: Foretold, refusals: Refusal[]): PrintedPlan {
  const going = recordedVfs(move.sriov?.from);
  const coming = new Set(vfs.map((vf) => vf.address));
  const steps = [...stepsOf(host, [move]), ...refillSteps(host, move, vfs)];
  return {
    devices: [
      ...going
        .filter((vf) => !coming.has(vf.address))
        .map((vf) => ({ address: vf.address, driver_from: vf.driver, driver_to: null, module: null })),
      ...vfs.map(({ address, target }) => ({
        address,
        driver_from: inventory.byAddress.get(address)?.driver ?? null,
        driver_to: target?.driver ?? null,
        module: target?.module ?? null,
      })),
    ],
    steps: steps.map(({ path, value, undo }) => ({ path, value, undo })),
    refusals: printedRefusals(refusals),
  };
}

/**
 * As many as asked for, but not where they were asked for, or on the driver that is their VFIO provider (`own`): that
 * is another command's work.
 */
function strayWarnings(
  host: Host,
  inventory: Inventory,
  pf: PciDevice,
  use: 'vfio' | 'netdev',
  own: string | null,
): Warning[] {
  const vfs = shownVfs(inventory, pf.address);
  const stray = vfs.filter((d) =>
    own === null ? isVfioDriver(host, d.address, d.driver) !== (use === 'vfio') : d.driver !== own,
  );
  const [one] = stray;
  if (one === undefined) return [];
  const verb = use === 'vfio' && own === null ? 'bind' : 'unbind --to-host';
  return [
    warning(
      'vfs-elsewhere',
      `${pf.address} has ${vfs.length} VFs; ${stray.length} of them are on other drivers (${one.address}: ${one.driver ?? 'none'}): 'hostdev ${verb} ${one.address}'`,
      pf.address,
    ),
  ];
}
