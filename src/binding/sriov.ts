/**
 * SR-IOV of a PF as data: how many VFs it has and what each is on, from one state to another, and the writes between. Pure; vfs.ts reads and acts.
 * Rules of drivers/pci/iov.c (6.12): sriov_numvfs goes from one count to another through 0 only, and every VF with its driver, override and
 * configuration is gone then; with sriov_drivers_autoprobe 0 no driver meets a fresh VF unless its driver_override names it.
 */
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import type { DeviceState, Step } from './move.ts';

/** One VF as it was; VF number n is the n-th of a list. */
export type VfState = DeviceState & { address: Address };

export type SriovState = {
  numvfs: number;
  /** `sriov_drivers_autoprobe`; null on a kernel that has none (before 4.13). */
  autoprobe: boolean | null;
  /** Each VF as recorded; or, for fresh ones, who is to drive them: the kernel's best VFIO driver, or whatever host driver claims them. */
  vfs: VfState[] | 'vfio' | 'netdev';
};

/** A PF's way from one SR-IOV state to another, with the bytes of both attributes for a tree that is no sysfs. */
export type SriovChange = {
  from: SriovState;
  to: SriovState;
  numvfs_bytes: string;
  autoprobe_bytes: string | null;
};

/** The VFs that a state names one by one. */
export const recordedVfs = (state: SriovState | undefined): VfState[] => (Array.isArray(state?.vfs) ? state.vfs : []);

/** The largest NumVFs that 16 bits of the SR-IOV capability can say. */
export const MAX_VFS = 65535;

/** sriov_numvfs takes the number without a line end too (kstrtou16). */
export function numvfsStep(host: Host, address: Address, value: number, was: number): Step {
  const path = host.device(address, 'sriov_numvfs');
  return { kind: 'numvfs', address, path, value: `${value}`, expect: `${value}`, undo: [{ path, value: `${was}` }] };
}

export function autoprobeStep(host: Host, address: Address, value: boolean): Step {
  const path = host.device(address, 'sriov_drivers_autoprobe');
  const text = (on: boolean): string => (on ? '1' : '0');
  return {
    kind: 'autoprobe',
    address,
    path,
    value: text(value),
    expect: text(value),
    undo: [{ path, value: text(!value) }],
  };
}

/** What must be written before anything else of the PF changes: its VFs go, for another number or because its driver does (`rebinds`). */
export function emptySteps(host: Host, address: Address, change: SriovChange | undefined, rebinds: boolean): Step[] {
  if (change === undefined || change.from.numvfs === 0) return [];
  if (change.from.numvfs === change.to.numvfs && !rebinds) return [];
  return [numvfsStep(host, address, 0, change.from.numvfs)];
}

/**
 * What autoprobe must be while VFs are made for `vfs`: recorded and VFIO ones meet no driver but the one named for them. Null where it is so already, or where
 * the kernel has no such attribute.
 */
export function autoprobeFor({ autoprobe, vfs }: SriovState): boolean | null {
  const wanted = vfs === 'netdev';
  return autoprobe === null || autoprobe === wanted ? null : wanted;
}

/**
 * The writes that make the VFs of `change.to` once there are none, for a plan that is only shown: `foretold` are their addresses and drivers as far as they can
 * be known before the VFs are there.
 */
export function fillSteps(
  host: Host,
  address: Address,
  change: SriovChange | undefined,
  rebinds: boolean,
  foretold: readonly Step[],
): Step[] {
  if (change === undefined || change.to.numvfs === 0) return [];
  if (change.from.numvfs === change.to.numvfs && !rebinds) return [];
  const probing = autoprobeFor(change.to);
  return [
    ...(probing === null ? [] : [autoprobeStep(host, address, probing)]),
    numvfsStep(host, address, change.to.numvfs, 0),
    ...foretold,
    ...(probing === null ? [] : [autoprobeStep(host, address, !probing)]),
  ];
}
