/**
 * What is to become of a PF's VFs, as a move that can be shown and carried out; and what can be known of VFs before
 * they are there.
 */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Address, formatAddress, parseAddress } from '../pci/address.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { quote } from '../text/safe.ts';
import type { Access } from './access.ts';
import { type BookChange, readBook } from './books.ts';
import { hostDrivers, readModuleLists } from './drivers/driverChoice.ts';
import { type DriverModule, namedDriver } from './drivers/modules.ts';
import { chooseVariant } from './drivers/variant.ts';
import { observe, observeSriov } from './observe.ts';
import { type Move, recordedVfs, type SriovChange, type SriovState } from './state.ts';
import { fillSteps, type Step, stepsOf, type Way } from './steps.ts';

/** The change that takes a PF's VFs away; autoprobe stays. Raises as {@link observeSriov}. */
export async function withoutVfs(work: Access, pf: Address): Promise<SriovChange> {
  return changeTo(work, pf, () => ({ numvfs: 0, vfs: [] }));
}

async function changeTo(
  work: Access,
  pf: Address,
  goal: (seen: SriovState) => Omit<SriovState, 'autoprobe' | 'link'>,
): Promise<SriovChange> {
  const { numvfs_bytes, autoprobe_bytes, ...from } = await observeSriov(work, pf);
  const to = goal(from);
  // VFs send through their PF's link.
  const link = from.link === undefined ? {} : { link: to.numvfs > 0 ? ('up' as const) : from.link };
  return { from, to: { ...to, autoprobe: from.autoprobe, ...link }, numvfs_bytes, autoprobe_bytes };
}

/**
 * The move of a PF that keeps its driver and gets `numvfs` VFs for `vfs`; null when it has that many. Raises
 * HOSTDEV_DEVICE_ABSENT, HOSTDEV_NO_SRIOV, HOSTDEV_VF_COUNT when it cannot have so many, HOSTDEV_VFS when its driver
 * makes none.
 */
export async function planVfs(
  work: Access,
  pf: PciDevice,
  numvfs: number,
  vfs: 'vfio' | 'netdev',
): Promise<Move | null> {
  const { address } = pf;
  const now = await observe(work, address);
  if (now === null) throw new HostdevError('HOSTDEV_DEVICE_ABSENT', `${address} went away`);
  const sriov = await changeTo(work, address, () => ({ numvfs, vfs: numvfs === 0 ? [] : vfs }));
  if (sriov.from.numvfs === numvfs) return null;
  if (numvfs > 0) checkCan(work.host, pf, now.driver, numvfs);
  const state = { driver: now.driver, override: now.override };
  return {
    address,
    group: pf.iommu_group,
    inode: work.host.inode(work.host.device(address)),
    from: state,
    to: state,
    override_bytes: now.overrideBytes,
    sriov,
  };
}

/**
 * The books of the VFs that go with a change of their number; those that come are booked when they are there
 * (transaction.ts).
 */
export const booksOfGoing = (host: Host, { sriov }: Move): BookChange[] =>
  recordedVfs(sriov?.from).map(({ address }) => ({ address, before: readBook(host, address), after: null }));

/** What the kernel would refuse for sure is refused before anything is written, and in a dry run too. */
function checkCan(host: Host, pf: PciDevice, driver: string | null, numvfs: number): void {
  const total = pf.sriov_totalvfs ?? 0;
  if (numvfs > total)
    throw new HostdevError('HOSTDEV_VF_COUNT', `${pf.address} can have ${total} VFs (sriov_totalvfs), not ${numvfs}`);
  if (driver === null)
    throw new HostdevError('HOSTDEV_VFS', `${pf.address} has no driver, and VFs are made by the PF's driver (ENOENT)`, {
      hint: `Bind it to its host driver: hostdev unbind --to-host ${pf.address}`,
    });
  if (driver === 'vfio-pci' && host.read(host.module('vfio_pci', 'parameters/enable_sriov')) !== 'Y')
    throw new HostdevError('HOSTDEV_VFS', `${pf.address} is on vfio-pci, which makes no VFs (ENOENT)`, {
      hint: `'hostdev unbind ${pf.address}' first; or load vfio-pci with enable_sriov=1, where a guest is to own the PF.`,
    });
}

/** A VF that is not there yet. `target` null: what will drive it cannot be told. */
export type ForetoldVf = { address: Address; product_id: string | null; target: DriverModule | null };

/** `untold`: what of them cannot be told, and why, one line; null when all is. */
export type Foretold = { vfs: ForetoldVf[]; untold: string | null };

/**
 * The VFs that a PF will have, from its sriov_offset, sriov_stride and sriov_vf_device (drivers/pci/iov.c
 * pci_iov_virtfn_bus); subsystem and class are the PF's, as nearly every card has it. `own` is the driver that they
 * come to by themselves, where that is known; else they are for the kernel's best VFIO driver, or for the host's. Only
 * for a plan that is shown: what counts are the links afterwards. Raises HOSTDEV_MODULES_ALIAS, as the real run would.
 */
export function foretellVfs(
  host: Host,
  pf: PciDevice,
  numvfs: number,
  use: 'vfio' | 'netdev',
  own: string | null,
): Foretold {
  const at = (attribute: string): string => quietly(() => host.read(host.device(pf.address, attribute)))?.trim() ?? '';
  const number = (attribute: string): number => (/^\d{1,5}$/.test(at(attribute)) ? Number(at(attribute)) : 0);
  const [offset, stride] = [number('sriov_offset'), number('sriov_stride')];
  const parts = parseAddress(pf.address);
  const first = parts === null ? 0 : parts.bus * 256 + parts.slot * 8 + parts.func + offset;
  // 16 bits of bus, slot and function: a VF behind them is none.
  if (parts === null || offset === 0 || (stride === 0 && numvfs > 1) || first + stride * (numvfs - 1) > 65535)
    return {
      vfs: [],
      untold: `${pf.address}: where its VFs will be cannot be told (sriov_offset ${told(at('sriov_offset'))}, sriov_stride ${told(at('sriov_stride'))}), and the plan is without what becomes of them`,
    };
  const id = /^[0-9a-f]{1,4}$/.test(at('sriov_vf_device')) ? at('sriov_vf_device').padStart(4, '0') : null;
  const target = own !== null ? namedDriver(host, own) : id === null ? null : foretoldDriver(host, pf, id, use);
  const vfs = Array.from({ length: numvfs }, (_, n) => first + stride * n).map((rid) => ({
    address: formatAddress({ domain: parts.domain, bus: rid >> 8, slot: (rid >> 3) & 31, func: rid & 7 }),
    product_id: id,
    target,
  }));
  const why = id === null ? `sriov_vf_device ${told(at('sriov_vf_device'))}` : 'modules.alias names none, or several';
  const what = use === 'vfio' ? 'VFIO driver its VFs will be on' : "of the host's drivers will claim its VFs";
  return { vfs, untold: target === null ? `${pf.address}: which ${what} cannot be told (${why})` : null };
}

const told = (text: string): string => (text === '' ? 'is not to be read' : `reads ${quote(text)}`);

function quietly(read: () => string | null): string | null {
  try {
    return read();
  } catch {
    return null;
  }
}

function foretoldDriver(host: Host, pf: PciDevice, id: string, use: 'vfio' | 'netdev'): DriverModule | null {
  const word = (text: string | null): string => (text ?? '').toUpperCase().padStart(8, '0');
  const cls = (pf.class ?? '').toUpperCase();
  const modalias =
    `pci:v${word(pf.vendor_id)}d${word(id)}sv${word(pf.subsystem_vendor_id)}sd${word(pf.subsystem_device_id)}` +
    `bc${cls.slice(0, 2)}sc${cls.slice(2, 4)}i${cls.slice(4)}`;
  if (use === 'netdev') {
    const driver = hostDrivers(host)(modalias);
    return driver === null ? null : namedDriver(host, driver);
  }
  const lists = readModuleLists(host);
  return namedDriver(host, chooseVariant(modalias, lists.alias, lists.builtin)?.module ?? 'vfio_pci');
}

/**
 * The writes to a PF and its VFs once it is on its driver, as a plan shows them: also those to VFs that are not there
 * yet.
 */
export function refillSteps(host: Host, move: Way, foretold: readonly ForetoldVf[] = []): Step[] {
  const recorded = move.sriov?.to.vfs;
  const vfs = Array.isArray(recorded)
    ? recorded.map((vf) => ({ address: vf.address, to: { driver: vf.driver, override: vf.override } }))
    : foretold.flatMap(({ address, target }) =>
        recorded !== 'vfio' || target === null
          ? []
          : { address, to: { driver: target.driver, override: target.driver } },
      );
  const from = { driver: null, override: null };
  const steps = stepsOf(
    host,
    vfs.map((vf) => ({ ...vf, from })),
  );
  return fillSteps(host, move.address, move.sriov, move.from.driver !== move.to.driver, steps);
}
