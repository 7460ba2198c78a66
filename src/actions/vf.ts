/** `vf create`, `vf list`, `vf remove`: the VFs of a PF, made for guests or for the host, as one transaction. */

import { bindingNow } from '../binding/access.ts';
import { ownerText, readBinding } from '../binding/books.ts';
import { goingText, switchedRepresentors } from '../binding/guards/network.ts';
import type { Refusal } from '../binding/guards.ts';
import { vfRefusals } from '../binding/leave.ts';
import type { Work } from '../binding/perform.ts';
import { changing, foreseeing } from '../binding/session.ts';
import { type Move, recordedVfs } from '../binding/state.ts';
import { stepsOf } from '../binding/steps.ts';
import { runChange } from '../binding/transaction.ts';
import { booksOfGoing, type ForetoldVf, foretellVfs, planVfs, refillSteps } from '../binding/vfPlan.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { Look, Tables } from '../host/look.ts';
import { lostSettings, readVfSettings, type VfReading, type VfSettings } from '../network/vfSettings.ts';
import { type Inventory, type PciDevice, scanInventory } from '../pci/inventory.ts';
import { resolveDevice } from '../pci/resolve.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { ADMIN } from './bind.ts';
import type { ActionOptions, Warned } from './options.ts';
import { type PrintedPlan, refuseWithPlan } from './plan.ts';

/** A VF as `vf list` shows it: `owner` as in the books, null when nobody's; `for` its claims in words. */
export type ListedVf = PciDevice & { owner: string | null; for: string[] };

/** What goes with the VFs that are there now. `settings` null: not measured. */
export type LostVfs = { bindings: { address: string; for: string[] }[]; settings: VfSettings[] | null };

/** `lost` null: no VF goes. */
export type VfPlan = PrintedPlan & { lost: LostVfs | null };

export type VfResult = Warned & { changed: boolean; plan: VfPlan; vfs: ListedVf[] };

/** `recreate`: a PF that has another number of VFs may lose them all for the new ones. */
export type CreateOptions = ActionOptions & { recreate?: boolean };

/** The VFs of one PF, or of all. Raises HOSTDEV_NO_SRIOV for a device that is no PF, HOSTDEV_STORE_CORRUPT. */
export function listVfs(host: Host, word: string | null): Warned & { vfs: ListedVf[] } {
  const inventory = scanInventory(host);
  const pf = word === null ? null : resolvePf(host, inventory, word);
  return { vfs: listed(host, inventory, pf?.address ?? null), warnings: inventory.warnings };
}

function listed(host: Host, inventory: Inventory, pf: string | null): ListedVf[] {
  return inventory.devices
    .filter((d) => d.parent_addr !== null && (pf === null || d.parent_addr === pf))
    .map((d) => {
      const binding = readBinding(host, d.address);
      const holds = binding?.holds ?? [];
      return { ...d, owner: holds[0]?.owner ?? null, for: holds.map(ownerText) };
    });
}

/**
 * Gives a PF `count` VFs, on VFIO drivers and in the books for the admin, or for the host's own drivers. That many already: nothing is changed, whatever they are
 * on. Another number goes through 0 and takes all VFs, bindings and settings away: only with `recreate`, else HOSTDEV_GUARD. Raises HOSTDEV_NO_SRIOV, HOSTDEV_VF_COUNT, HOSTDEV_VFS (the kernel's errno explained), HOSTDEV_IN_USE naming the VF that is in the way, and what
 * a transaction raises; then everything is as it was.
 */
export async function createVfs(
  host: Host,
  word: string,
  count: number,
  use: 'vfio' | 'netdev',
  options: CreateOptions,
): Promise<VfResult> {
  const first = scanInventory(host);
  const { address } = resolvePf(host, first, word);
  const run = async (work: Work, inventory: Inventory, recovered: string[]): Promise<VfResult> => {
    const pf = resolvePf(host, inventory, address);
    const move = await planVfs(work, pf, count, use);
    const foretold = move === null || use !== 'vfio' ? [] : foretellVfs(host, pf, count);
    const refusals = move === null ? [] : await vfRefusals({ ...work, inventory }, address, 'admin');
    const had = move?.sriov?.from.numvfs ?? 0;
    const reading = await readVfSettings(work, pf, had);
    const lost = had === 0 || move === null ? null : lostVfs(work, move, reading);
    const plan = { ...planOf(host, inventory, move, foretold, refusals), lost };
    refuseWithPlan(plan);
    const losses =
      had === 0 ? [] : [...(count > 0 ? lostBindings(address, lost) : []), ...lostSettings(address, reading)];
    if (had > 0 && count > 0 && options.recreate !== true) throw refuseRecreate(address, had, count, plan, losses);
    const going =
      move === null
        ? []
        : switchedRepresentors(new Look(new Tables(host)), (r) => r.pf === address && !r.external).map(goingText);
    const warnings = [
      ...recovered,
      ...going,
      ...losses,
      ...(move === null && count > 0 ? strayWarnings(host, inventory, pf, use) : []),
    ];
    if (options.dryRun || move === null) {
      return { changed: false, plan, vfs: listed(host, inventory, address), warnings };
    }
    await runChange(work, {
      kind: count === 0 ? 'give-back' : 'bind',
      owner: 'admin',
      devices: [move],
      books: booksOfGoing(host, move),
      fresh: ADMIN,
    });
    return { changed: true, plan, vfs: listed(host, scanInventory(host), address), warnings };
  };
  const session = options.dryRun ? foreseeing : changing;
  return session(host, first, { addresses: [address] }, options, ({ work, inventory, recovered }) =>
    run(work, inventory, recovered),
  );
}

/** Whose the VFs are that go. */
function lostVfs(work: Work, move: Move, reading: VfReading): LostVfs {
  const bindings = recordedVfs(move.sriov?.from).flatMap(({ address }) => {
    const holds = bindingNow(work, address)?.holds ?? [];
    return holds.length === 0 ? [] : [{ address, for: holds.map(ownerText) }];
  });
  return { bindings, settings: 'unmeasured' in reading ? null : reading.settings };
}

const lostBindings = (pf: string, lost: LostVfs | null): string[] =>
  lost === null || lost.bindings.length === 0
    ? []
    : [
        `${pf}: these bindings go with its VFs: ${lost.bindings.map((b) => `${b.address} (${b.for.join(', ')})`).join(', ')}`,
      ];

/** drivers/pci/iov.c sriov_numvfs_store: the number changes through 0 only, and every VF is a new device then. */
function refuseRecreate(pf: string, had: number, count: number, plan: VfPlan, losses: readonly string[]): HostdevError {
  const also = losses.length === 0 ? '' : `; ${losses.join('; ')}`;
  return new HostdevError(
    'HOSTDEV_GUARD',
    `${pf} has ${had} VFs, and ${count} are to be had only by taking all of them away${also}`,
    { hint: `'hostdev vf create ${pf} --count ${count} --recreate' does that.`, data: { plan } },
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
  const bad = inventory.warnings.find((w) => w.includes(device.address) && w.includes('sriov_totalvfs'));
  throw new HostdevError('HOSTDEV_NO_SRIOV', bad ?? `${device.address} is no PF: it has no SR-IOV, or can have no VFs`);
}

function planOf(
  host: Host,
  inventory: Inventory,
  move: Move | null,
  foretold: readonly ForetoldVf[],
  refusals: Refusal[],
): PrintedPlan {
  if (move === null) return { devices: [], steps: [], refusals };
  const going = recordedVfs(move.sriov?.from);
  const coming = new Map(foretold.map((vf) => [vf.address, vf.target]));
  const steps = [...stepsOf(host, [move]), ...refillSteps(host, move, foretold)];
  return {
    devices: [
      ...going
        .filter((vf) => !coming.has(vf.address))
        .map((vf) => ({ address: vf.address, driver_from: vf.driver, driver_to: null, module: null })),
      ...foretold.map(({ address, target }) => ({
        address,
        driver_from: inventory.byAddress.get(address)?.driver ?? null,
        driver_to: target.driver,
        module: target.module,
      })),
    ],
    steps: steps.map(({ path, value, undo }) => ({ path, value, undo })),
    refusals,
  };
}

/** As many as asked for, but not where they were asked for: that is another command's work. */
function strayWarnings(host: Host, inventory: Inventory, pf: PciDevice, use: 'vfio' | 'netdev'): string[] {
  const vfs = inventory.devices.filter((d) => d.parent_addr === pf.address);
  const stray = vfs.filter((d) => isVfioDriver(host, d.address, d.driver) !== (use === 'vfio'));
  const [one] = stray;
  if (one === undefined) return [];
  const verb = use === 'vfio' ? 'bind' : 'unbind --to-host';
  return [
    `${pf.address} has ${vfs.length} VFs already; ${stray.length} of them are on other drivers (${one.address}: ${one.driver ?? 'none'}): 'hostdev ${verb} ${one.address}'`,
  ];
}
