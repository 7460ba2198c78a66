/**
 * A PF's VFs, observed and changed. What others met and these rules come from: VFs appear after the write was answered (sriov-network-operator#1019, #233); the count
 * changes through 0 only, and writing 0 while a guest has one blocks (ironcore#599); the errno of sriov_numvfs says little by itself
 * (i915-sriov-dkms#143, sriov-network-operator#1185); a driver may make fewer VFs than asked for and call it success (drivers/pci/iov.c
 * sriov_numvfs_store). The caller holds the PF's lock; the locks of its VFs' groups are taken here, after it, because groups come and go with the VFs.
 */
import { sleep } from '../clock.ts';
import { HostdevError, isErrno, isSysError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { type PciDevice, printable, scanInventory } from '../pci/inventory.ts';
import { vfLinks } from '../pci/vfLinks.ts';
import { Deadline } from '../store/locks.ts';
import { observe, readLocked, restore, type Work, write } from './access.ts';
import { type ModuleLists, readModuleLists, variantDriver } from './driverChoice.ts';
import type { JournalMove } from './journal.ts';
import { loadedDriver, loadHostModule } from './modules.ts';
import { type DeviceState, type Move, type Step, sameState } from './move.ts';
import {
  autoprobeFor,
  autoprobeStep,
  emptySteps,
  MAX_VFS,
  numvfsStep,
  type SriovChange,
  type SriovState,
  type VfState,
} from './sriov.ts';
import { vfRefusals } from './vfUse.ts';

/** The transaction's own way to act, handed down so that this file need not import it. */
export type Engine = {
  settle: (
    work: Work,
    ways: readonly { move: Pick<Move, 'address' | 'group'>; target: DeviceState }[],
  ) => Promise<void>;
  perform: (work: Work, step: Step) => Promise<void>;
};

/** How long all VFs may take to appear once the kernel has answered. */
const APPEAR_MS = 10_000;

export type SeenSriov = SriovState & { vfs: VfState[]; numvfs_bytes: string; autoprobe_bytes: string | null };

/**
 * What a PF's SR-IOV is now. Raises HOSTDEV_NO_SRIOV when it has no sriov_numvfs (any more), HOSTDEV_SYSFS for content that the kernel does not write,
 * HOSTDEV_TIMEOUT when it does not answer.
 */
export async function observeSriov(work: Work, pf: Address): Promise<SeenSriov> {
  const { host } = work;
  const bytes = await readNumvfs(work, pf);
  const autoprobe = host.read(host.device(pf, 'sriov_drivers_autoprobe'));
  if (autoprobe !== null && autoprobe !== '0' && autoprobe !== '1')
    throw new HostdevError(
      'HOSTDEV_SYSFS',
      `${host.device(pf, 'sriov_drivers_autoprobe')} reads ${printable(autoprobe)}`,
    );
  const found = await Promise.all(
    vfLinks(host, pf).map(async (address) => ({ address, now: await observe(work, address) })),
  );
  const vfs = found.flatMap(({ address, now }) =>
    now === null ? [] : [{ address, driver: now.driver, override: now.override }],
  );
  return {
    numvfs: count(host, pf, bytes),
    autoprobe: autoprobe === null ? null : autoprobe === '1',
    vfs,
    numvfs_bytes: bytes,
    autoprobe_bytes: autoprobe === null ? null : `${autoprobe}\n`,
  };
}

async function readNumvfs(work: Work, pf: Address): Promise<string> {
  const path = work.host.device(pf, 'sriov_numvfs');
  try {
    return await readLocked(work, pf, path);
  } catch (e) {
    if (e instanceof HostdevError) throw e;
    if (isErrno(e, 'ENOENT', 'ENODEV', 'ENXIO'))
      throw new HostdevError('HOSTDEV_NO_SRIOV', `${pf} has no sriov_numvfs: it is no PF`, { cause: e });
    throw new HostdevError('HOSTDEV_SYSFS', `Failed to read ${path}: ${isSysError(e) ? e.code : e}`, { cause: e });
  }
}

function count(host: Host, pf: Address, bytes: string): number {
  const text = bytes.split('\n', 1)[0] ?? '';
  if (/^\d{1,5}$/.test(text) && Number(text) <= MAX_VFS) return Number(text);
  throw new HostdevError('HOSTDEV_SYSFS', `${host.device(pf, 'sriov_numvfs')} reads ${printable(text)}: no count`);
}

/** What each errno of sriov_numvfs means and what to do: drivers/pci/iov.c, and the drivers' own sriov_configure. */
const NUMVFS_ERRNO: Record<string, [why: string, hint: string]> = {
  EBUSY: [
    'the PF has VFs, or its driver has them in use, and the kernel changes their number through 0 only',
    "See 'hostdev vf list'; 'hostdev vf remove' first.",
  ],
  ENOENT: [
    'the PF has no driver, or its driver makes no VFs',
    "Bind the PF to its host driver ('hostdev unbind'); vfio-pci makes VFs only with its parameter enable_sriov=1.",
  ],
  ERANGE: [
    'that is more than the PF (sriov_totalvfs) or its driver allows',
    'Ask for fewer, or raise the limit in the card.',
  ],
  ENOSPC: [
    'no bus numbers, no memory space for the VF BARs, or no interrupt vectors are left for that many',
    'Ask for fewer; in firmware enable SR-IOV and "Above 4G decoding"; dmesg says which; pci=realloc or pci=assign-busses may help.',
  ],
  ENOMEM: [
    'the firmware left no bus numbers or no memory space for the VF BARs (dmesg: "not enough MMIO resources", "out of range")',
    'In firmware enable SR-IOV and "Above 4G decoding"; on the kernel command line pci=realloc or pci=assign-busses.',
  ],
  EAGAIN: ['the driver is not ready: a reset, a firmware update or its start is going on', 'Try again in a moment.'],
  EINVAL: ['the driver does not take that count', 'Ask for another number, or see dmesg.'],
  EPERM: [
    'the driver refuses in its present mode (VFs assigned to guests, eswitch or lockdown)',
    "See dmesg and 'devlink dev eswitch show'.",
  ],
  EOPNOTSUPP: ['the driver cannot in its present mode', "See dmesg and 'devlink dev eswitch show'."],
  ENODEV: ['the PF went away or is being reset', "Look with 'hostdev show', then try again."],
  EIO: ['the card did not answer its driver', "See dmesg; 'hostdev show' names its reset methods."],
};

/** The kernel's refusal in words: HOSTDEV_VFS with cause and way out; a passed deadline stays HOSTDEV_TIMEOUT. */
function explained(step: Step, e: unknown): unknown {
  const cause = e instanceof Error ? e.cause : undefined;
  if (!isSysError(cause) || cause.code === 'ETIMEDOUT' || cause.code === 'EACCES') return e;
  const [why, hint] = NUMVFS_ERRNO[cause.code] ?? ["the PF's driver refused", 'See dmesg.'];
  return new HostdevError('HOSTDEV_VFS', `Failed to write ${step.value} to ${step.path}: ${cause.code}: ${why}`, {
    cause: e,
    hint,
  });
}

/**
 * Writes sriov_numvfs and waits until what it promises is there: for N all VFs, each with its IOMMU group where the PF has one; for 0 none. Before a 0 the VFs' groups
 * are locked and a VF in use refuses. Raises HOSTDEV_IN_USE, HOSTDEV_VFS, HOSTDEV_TIMEOUT.
 */
export async function writeNumvfs(work: Work, step: Step): Promise<void> {
  const { host } = work;
  const { address } = step;
  const wanted = Number(step.value);
  if (wanted === 0) await guardVfs(work, address);
  try {
    await write(work, address, step.path, step.value);
  } catch (e) {
    throw explained(step, e);
  }
  const now = count(host, address, await readNumvfs(work, address));
  if (now !== wanted)
    throw new HostdevError(
      'HOSTDEV_VFS',
      `${step.path} reads ${now} after ${wanted} was written and taken: the PF's driver made or left another number`,
      { hint: 'See dmesg.' },
    );
  await appear(work, address, wanted);
}

/** Locks the groups of a PF's VFs, then refuses when one of them is in use. */
async function guardVfs(work: Work, pf: Address): Promise<void> {
  await lockVfs(work, pf);
  const [first] = await vfRefusals(work, scanInventory(work.host), pf, null);
  if (first !== undefined)
    throw new HostdevError('HOSTDEV_IN_USE', `${first.address}: ${first.reason}`, {
      hint: `End that first: all VFs of ${pf} go together.`,
    });
}

/** Takes the locks of the groups that a PF's VFs are in, as far as this command does not hold them. */
export async function lockVfs(work: Work, pf: Address): Promise<void> {
  const groups = scanInventory(work.host).devices.filter((d) => d.parent_addr === pf);
  await work.lockGroups?.(
    groups.map((d) => d.iommu_group),
    work.deadline,
  );
}

/** Waits for `wanted` VFs and their groups; with `recorded` for those, whatever else there is: a VF that was removed alone does not come. */
async function appear(work: Work, pf: Address, wanted: number, recorded?: readonly VfState[]): Promise<void> {
  const { host, signal } = work;
  const until = new Deadline(Math.min(APPEAR_MS, work.deadline.left));
  const grouped = host.link(host.device(pf, 'iommu_group')) !== null;
  const ready = (a: Address): boolean =>
    host.list(host.device(a)) !== null && (!grouped || host.link(host.device(a, 'iommu_group')) !== null);
  for (let wait = 1; ; wait = Math.min(wait * 2, 50)) {
    const links = vfLinks(host, pf);
    const all = recorded === undefined ? links.length === wanted : recorded.every((vf) => links.includes(vf.address));
    if (all && (recorded?.map((vf) => vf.address) ?? links).every(ready)) return;
    if (signal?.aborted) throw interrupted(`while the VFs of ${pf} appeared`);
    if (until.left === 0) {
      const late = links.find((a) => !ready(a));
      throw new HostdevError(
        'HOSTDEV_TIMEOUT',
        `${pf} shows ${links.length} VFs, not ${wanted}, although sriov_numvfs says so${late === undefined ? '' : `; ${late} has no IOMMU group yet`}`,
        { hint: 'See dmesg: the kernel may have failed to add a VF.' },
      );
    }
    await sleep(Math.min(wait, until.left));
  }
}

/** Writes sriov_drivers_autoprobe and reads it again. */
export async function writeAutoprobe(work: Work, step: Step): Promise<void> {
  await write(work, step.address, step.path, step.value);
  const now = work.host.read(step.path);
  if (now !== step.expect)
    throw new HostdevError(
      'HOSTDEV_BIND_FAILED',
      `${step.path} reads ${printable(now ?? '')} after ${step.value} was written`,
    );
}

/**
 * Brings a PF and its VFs to one end of a move, starting from what is observed, so that it is the way there, the undo and the recovery alike: VFs that must go
 * go first, then the PF changes its driver, then VFs are made with autoprobe off and each put on its driver, then autoprobe is as it was.
 */
export async function settlePf(
  work: Work,
  move: JournalMove & { sriov: SriovChange },
  end: 'from' | 'to',
  engine: Engine,
): Promise<void> {
  const { host } = work;
  const { address, sriov } = move;
  const goal = sriov[end];
  const device = await observe(work, address);
  if (device === null) return;
  const perform = async (step: Step): Promise<void> => {
    if (work.signal?.aborted) throw interrupted(`before ${step.path}`);
    await engine.perform(work, step);
    work.onStep?.(step);
  };
  let seen = await observeSriov(work, address);
  const rebinds = device.driver !== move[end].driver;
  const change = { ...sriov, from: seen, to: goal };
  for (const step of emptySteps(host, address, change, rebinds)) await perform(step);
  if (!sameState(device, move[end])) await engine.settle(work, [{ move, target: move[end] }]);
  seen = await observeSriov(work, address);
  if (goal.numvfs > 0 && seen.numvfs === 0) {
    const probing = autoprobeFor({ ...goal, autoprobe: seen.autoprobe });
    if (probing !== null) await perform(autoprobeStep(host, address, probing));
    await perform(numvfsStep(host, address, goal.numvfs, 0));
    await lockVfs(work, address);
  } else if (goal.numvfs > 0) {
    // Whoever made them may have died before they were all there.
    await appear(work, address, goal.numvfs, Array.isArray(goal.vfs) ? goal.vfs : undefined);
    await lockVfs(work, address);
  }
  await settleVfs(work, address, goal, engine);
  seen = await observeSriov(work, address);
  if (goal.autoprobe !== null && seen.autoprobe !== goal.autoprobe)
    await perform(autoprobeStep(host, address, goal.autoprobe));
  await restoreBytes(work, address, sriov, end);
}

/** Each VF to what was recorded of it, or to the best VFIO driver; host drivers come by themselves, if their module is there. */
async function settleVfs(work: Work, pf: Address, goal: SriovState, engine: Engine): Promise<void> {
  const { host } = work;
  const inventory = scanInventory(host);
  const addresses = goal.numvfs === 0 ? [] : vfLinks(host, pf);
  const chosen = new Map<string, DeviceState>();
  let lists: ModuleLists | null = null;
  const ways: { move: Pick<Move, 'address' | 'group'>; target: DeviceState }[] = [];
  for (const [n, address] of addresses.entries()) {
    const device = inventory.byAddress.get(address);
    if (device === undefined) continue;
    const modalias = host.read(host.device(address, 'modalias')) ?? '';
    let state: DeviceState | undefined;
    if (goal.vfs === 'vfio') {
      lists ??= readModuleLists(host);
      state = chosen.get(modalias) ?? (await vfioState(work, device, lists));
      chosen.set(modalias, state);
    } else if (goal.vfs === 'netdev') {
      if (!chosen.has(modalias)) await loadHostModule(host, modalias, work.deadline);
      chosen.set(modalias, { driver: null, override: null });
    } else {
      state = goal.vfs[n];
      if (state?.driver != null && host.list(host.driver(state.driver)) === null)
        await loadHostModule(host, modalias, work.deadline);
    }
    if (state !== undefined) {
      const { driver, override } = state;
      ways.push({ move: { address, group: device.iommu_group }, target: { driver, override } });
    }
  }
  if (work.signal?.aborted) throw interrupted(`before the VFs of ${pf} were put on their drivers`);
  await engine.settle(work, ways);
}

async function vfioState(work: Work, vf: PciDevice, lists: ModuleLists): Promise<DeviceState> {
  const { driver } = await loadedDriver(work.host, variantDriver(work.host, vf, lists), work.deadline);
  return { driver, override: driver };
}

/** As transaction.ts restoreBytes: only a tree that is no sysfs can differ from what was read, and only there is it written. */
async function restoreBytes(work: Work, pf: Address, sriov: SriovChange, end: 'from' | 'to'): Promise<void> {
  if (end !== 'from') return;
  for (const [attribute, bytes] of [
    ['sriov_numvfs', sriov.numvfs_bytes],
    ['sriov_drivers_autoprobe', sriov.autoprobe_bytes],
  ] as const) {
    const path = work.host.device(pf, attribute);
    if (bytes !== null && (await readLocked(work, pf, path)) !== bytes) await restore(work, pf, path, bytes);
  }
}

const interrupted = (when: string): HostdevError =>
  new HostdevError('HOSTDEV_INTERRUPTED', `Interrupted ${when}; everything was put back`);
