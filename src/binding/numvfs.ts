/**
 * Writing a PF's number of VFs. What others met and these rules come from: VFs appear after the write was answered
 * (sriov-network-operator#1019, #233); the count changes through 0 only, and writing 0 while a guest has one blocks
 * (ironcore#599); the errno of sriov_numvfs says little by itself (i915-sriov-dkms#143, sriov-network-operator#1185); a
 * driver may make fewer VFs than asked for and call it success (drivers/pci/iov.c sriov_numvfs_store).
 */
import { sleep } from '../clock.ts';
import { HostdevError, isSysError } from '../errors.ts';
import type { Address } from '../pci/address.ts';
import { numberedVfs, vfLinks } from '../pci/vfLinks.ts';
import { Deadline } from '../store/locks.ts';
import { type Access, writeAttribute } from './access.ts';
import { type Leaving, vfRefusals } from './leave.ts';
import { observeNumvfs } from './observe.ts';
import type { VfState } from './state.ts';
import type { Step } from './steps.ts';

/** How long all VFs may take to appear once the kernel has answered. */
const APPEAR_MS = 10_000;

/** What each errno of sriov_numvfs means and what to do: drivers/pci/iov.c, and the drivers' own sriov_configure. */
const NUMVFS_ERRNO: Record<string, [why: string, hint: string]> = {
  EBUSY: [
    'the PF has VFs, or its driver has them in use, and the kernel changes their number through 0 only',
    "See 'hostdev vf list'; 'hostdev vf remove' first.",
  ],
  EEXIST: [
    'a VF that was removed by itself left its link in the PF behind (virtfn), and the kernel makes no other of that number',
    "Remove the PF and find it again: echo 1 > its 'remove', then echo 1 > /sys/bus/pci/rescan.",
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
  EINVAL: [
    "the driver does not take that count, or not while the PF's interface is down",
    'Ask for another number, or bring the interface up; dmesg says which.',
  ],
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
 * Writes sriov_numvfs and waits until what it promises is there: for N all VFs, each with its IOMMU group where the PF
 * has one; for 0 none. Before a 0 a VF in use refuses. Raises HOSTDEV_IN_USE, HOSTDEV_VFS, HOSTDEV_TIMEOUT.
 */
export async function writeNumvfs(work: Leaving, step: Step): Promise<void> {
  const { address } = step;
  const wanted = Number(step.value);
  if (wanted === 0) await refuseUsedVfs(work, address);
  else refuseDangling(work, address, wanted);
  try {
    await writeAttribute(work, address, step.path, step.value);
  } catch (e) {
    throw explained(step, e);
  }
  const now = await observeNumvfs(work, address);
  if (now !== wanted)
    throw new HostdevError(
      'HOSTDEV_VFS',
      `${step.path} reads ${now} after ${wanted} was written and taken: the PF's driver made or left another number`,
      { hint: "See dmesg. Some drivers make VFs only while the PF's interface is up." },
    );
  await awaitVfs(work, address, wanted);
}

async function refuseUsedVfs(work: Leaving, pf: Address): Promise<void> {
  const [first] = await vfRefusals(work, pf, null);
  if (first !== undefined)
    throw new HostdevError('HOSTDEV_IN_USE', `${first.address}: ${first.reason}`, {
      hint: `End that first: all VFs of ${pf} go together.`,
    });
}

/**
 * drivers/pci/iov.c pci_iov_add_virtfn answers EEXIST where the link of a VF that was removed by itself is still there.
 */
function refuseDangling({ host }: Access, pf: Address, wanted: number): void {
  const dangling = numberedVfs(host, pf).find((vf) => vf.n < wanted && host.list(host.device(vf.address)) === null);
  if (dangling === undefined) return;
  const [, hint] = NUMVFS_ERRNO.EEXIST ?? [];
  throw new HostdevError(
    'HOSTDEV_VFS',
    `${pf} still has the link virtfn${dangling.n} to ${dangling.address}, which is not there: that VF was removed by itself, and the kernel would make no other in its place (EEXIST)`,
    hint === undefined ? {} : { hint },
  );
}

/**
 * Waits for `wanted` VFs and their groups; with `recorded` for those, whatever else there is: a VF that was removed
 * alone does not come.
 */
export async function awaitVfs(
  work: Access,
  pf: Address,
  wanted: number,
  recorded?: readonly VfState[],
): Promise<void> {
  const { host, signal } = work;
  const until = new Deadline(Math.min(APPEAR_MS, work.deadline.left));
  const grouped = host.link(host.device(pf, 'iommu_group')) !== null;
  const ready = (a: Address): boolean =>
    host.list(host.device(a)) !== null && (!grouped || host.link(host.device(a, 'iommu_group')) !== null);
  for (let wait = 1; ; wait = Math.min(wait * 2, 50)) {
    const links = vfLinks(host, pf);
    const all = recorded === undefined ? links.length === wanted : recorded.every((vf) => links.includes(vf.address));
    if (all && (recorded?.map((vf) => vf.address) ?? links).every(ready)) return;
    if (signal?.aborted) throw new HostdevError('HOSTDEV_INTERRUPTED', `Interrupted while the VFs of ${pf} appeared`);
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
