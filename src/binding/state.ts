/**
 * What the engine knows of a device, as types: what it is on, what it is to be on, and how such a change is written
 * into the journal and the books. The checks below are for files of ours that come back from disk: what they let
 * through is put into paths and attributes.
 */
import { DRIVER_NAME } from '../host/host.ts';
import { type Address, canonicalAddress } from '../pci/address.ts';
import { VGPU_ID } from '../pci/vendorVfio.ts';
import { isObject, isText, isTextOrNull } from '../text/json.ts';

/** What we change of a device. `override` null is an unset driver_override, `driver` null a device without a driver. */
export type DeviceState = { driver: string | null; override: string | null };

/**
 * One VF as it was or is to be; VF number n is the n-th of a list. Its MAC, VLAN and trust will have their place here.
 */
export type VfState = DeviceState & { address: Address };

export type SriovState = {
  numvfs: number;
  /** `sriov_drivers_autoprobe`; null on a kernel that has none (before 4.13). */
  autoprobe: boolean | null;
  /**
   * Each VF as recorded; or, for fresh ones, who is to drive them: the kernel's best VFIO driver, or whatever host
   * driver claims them.
   */
  vfs: VfState[] | 'vfio' | 'netdev';
  /** Of a PF whose driver wants its link up for a change of its VFs. */
  link?: 'up' | 'down';
};

/**
 * The child moves of a PF's move: what becomes of its VFs, with the bytes of both attributes for a tree that is no
 * sysfs.
 */
export type SriovChange = {
  from: SriovState;
  to: SriovState;
  numvfs_bytes: string;
  autoprobe_bytes: string | null;
};

/**
 * A device's way from one state to another. The inverse of any move, done or half done, is the move from what is
 * observed to what was recorded.
 */
export type Move = {
  address: Address;
  group: number | null;
  /**
   * Of its folder in sysfs: a VF that was made anew is not the one that was to move. null where it is not to be told.
   */
  inode: string | null;
  from: DeviceState;
  to: DeviceState;
  /** driver_override as the bytes read, so that even a tree that is no sysfs is put back byte for byte. */
  override_bytes: string;
  /** Any host driver that claims the device will do for `to.driver`, none too: `unbind --to-host`. */
  any_host?: true;
  /** Of a PF whose VFs change with it. */
  sriov?: SriovChange;
  /** Of a VF that stays on its driver and gets another vGPU type, "0" for none. */
  vgpu?: { from: string; to: string };
};

/** The largest NumVFs that 16 bits of the SR-IOV capability can say. */
export const MAX_VFS = 65535;

/** Who a binding is for (contract: `admin`, `boot`, `domain:<uuid>`). */
export type Owner = 'admin' | 'boot' | `domain:${string}`;

const OWNER = /^(?:admin|boot|domain:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

export const isOwner = (v: unknown): v is Owner => typeof v === 'string' && OWNER.test(v);

/** The VFs that a state names one by one. */
export const recordedVfs = (state: SriovState | undefined): VfState[] => (Array.isArray(state?.vfs) ? state.vfs : []);

export const sameState = (a: DeviceState, b: DeviceState): boolean =>
  a.driver === b.driver && a.override === b.override;

/** For messages: "igbvf", "no driver", "igbvf (override vfio-pci)". */
export const describeState = (s: DeviceState): string =>
  `${s.driver ?? 'no driver'}${s.override === null ? '' : ` (override ${s.override})`}`;

/** {@link describeState} of one end of a move, with the vGPU type that it has there. */
export const describeEnd = (m: Move, end: 'from' | 'to'): string =>
  `${describeState(m[end])}${m.vgpu === undefined ? '' : ` with vGPU type ${m.vgpu[end]}`}`;

// What comes back from disk.

export const isAddressText = (v: unknown): v is Address => isText(v) && canonicalAddress(v) === v;
export const isGroup = (v: unknown): v is number | null => v === null || (Number.isInteger(v) && (v as number) >= 0);

/** A name that is put into a sysfs path or attribute when the file is acted on. */
const isDriver = (v: unknown): v is string | null => v === null || (isText(v) && DRIVER_NAME.test(v));

export function isState(v: unknown): v is DeviceState {
  return isObject(v) && isDriver(v.driver) && isTextOrNull(v.override) && !(v.override ?? '').includes('\n');
}

const isBytes = (v: unknown): v is string => isText(v) && v.length <= 64;

/** A count that the attribute takes, and a VF for each of it that can be put into a path. */
export function isSriovState(v: unknown): v is SriovState {
  if (!isObject(v) || !(v.autoprobe === null || typeof v.autoprobe === 'boolean')) return false;
  if (!(v.link === undefined || v.link === 'up' || v.link === 'down')) return false;
  if (!Number.isInteger(v.numvfs) || (v.numvfs as number) < 0 || (v.numvfs as number) > MAX_VFS) return false;
  if (v.vfs === 'vfio' || v.vfs === 'netdev') return true;
  return (
    Array.isArray(v.vfs) &&
    v.vfs.length <= (v.numvfs as number) &&
    v.vfs.every((f) => isState(f) && isAddressText((f as { address?: unknown }).address))
  );
}

function isSriovChange(v: unknown): v is SriovChange {
  return (
    isObject(v) &&
    isSriovState(v.from) &&
    isSriovState(v.to) &&
    isBytes(v.numvfs_bytes) &&
    (v.autoprobe_bytes === null || isBytes(v.autoprobe_bytes))
  );
}

const isVgpu = (v: unknown): boolean => isObject(v) && [v.from, v.to].every((id) => isText(id) && VGPU_ID.test(id));

export function isMove(v: unknown): v is Move {
  return (
    isObject(v) &&
    isAddressText(v.address) &&
    isGroup(v.group) &&
    isTextOrNull(v.inode) &&
    isState(v.from) &&
    isState(v.to) &&
    isText(v.override_bytes) &&
    (v.any_host === undefined || v.any_host === true) &&
    (v.sriov === undefined || isSriovChange(v.sriov)) &&
    (v.vgpu === undefined || isVgpu(v.vgpu))
  );
}
