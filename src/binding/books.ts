/**
 * The books: one file a device that hostdev put on a VFIO driver, or that libvirt will for a guest, with what was there before. What is in the books is ours
 * to give back; what is not was so before us and is left alone. Each claim is one user's right to the device being as it is: a device unplugged from guest A and
 * given to guest B has B's claim beside A's, and A's release takes only A's claim away. Giving back on A's word alone once tore devices
 * from running guests; with claims the last one out does it.
 */

import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Address, canonicalAddress } from '../pci/address.ts';
import { corrupt, listJson, readJson, removeJson, writeJson } from '../store/files.ts';
import { isSriovState, isState, OWNER } from './journal.ts';
import type { DeviceState } from './move.ts';
import type { SriovState } from './sriov.ts';

/** Who a binding is for (contract: `admin`, `boot`, `domain:<uuid>`). */
export type Owner = 'admin' | 'boot' | `domain:${string}`;

export type Claim = {
  owner: Owner;
  /** The domain's name when the claim was made, for messages. */
  name: string | null;
  /** True when libvirt binds and re-attaches the device itself (managed='yes'). */
  managed: boolean;
};

export type Binding = {
  schema: 1;
  address: Address;
  group: number | null;
  /** The first claim's owner; null when every claim is gone but the device could not be given back yet. */
  owner: Owner | null;
  claims: Claim[];
  /** What the device was on before us. */
  before: DeviceState;
  /** What we left it on; null when libvirt binds it. */
  after: DeviceState | null;
  since: string;
  /** Why the device was not given back when its last claim went. */
  note: string | null;
  /** Of a PF whose VFs went with its driver: what it had, and the books of those VFs, for the way back. */
  sriov?: SriovState;
  vf_bindings?: Binding[];
};

/** Whose a claim is, for messages: "admin", "domain vm1 (6243…)". */
export const ownerText = (c: Claim): string =>
  c.name === null ? c.owner : `domain ${c.name} (${c.owner.slice('domain:'.length)})`;

/** A binding with its claims replaced; keeps `owner` in step. */
export const withClaims = (b: Binding, claims: Claim[]): Binding => ({ ...b, claims, owner: claims[0]?.owner ?? null });

/** A fresh binding with one claim. */
export function newBinding(
  address: Address,
  group: number | null,
  claim: Claim,
  before: DeviceState,
  after: DeviceState | null,
): Binding {
  return {
    schema: 1,
    address,
    group,
    owner: claim.owner,
    claims: [claim],
    before,
    after,
    since: new Date().toISOString(),
    note: null,
  };
}

/** The binding of a device, null when the books hold none. Raises HOSTDEV_STORE_CORRUPT. */
export function readBinding(host: Host, address: Address): Binding | null {
  const file = `${host.bindingsDir}/${address}.json`;
  const value = readJson(file);
  if (value === null) return null;
  if (!isBinding(value, address)) throw corrupt(file, 'is no binding of this version');
  return value;
}

/** All bindings, in order of file name. Raises HOSTDEV_STORE_CORRUPT. */
export function readBooks(host: Host): Binding[] {
  return listJson(host.bindingsDir).flatMap((name) => readBinding(host, name) ?? []);
}

/** What takes back the writes of an {@link allOrNone} that runs. */
let undoLog: (() => void)[] | null = null;

/**
 * Runs `change`: all that it writes to the books stands, or none of it, so that devices which go back because of its failure are not in the books. Raises its error, or
 * HOSTDEV_UNDO_INCOMPLETE when the store does not take the old books either.
 */
export function allOrNone(change: () => void): void {
  const undo: (() => void)[] = [];
  undoLog = undo;
  try {
    change();
  } catch (e) {
    undoLog = null;
    const left = undo.reverse().flatMap((back) => {
      try {
        back();
        return [];
      } catch (failure) {
        return [(failure as Error).message];
      }
    });
    if (left.length === 0) throw e;
    throw new HostdevError('HOSTDEV_UNDO_INCOMPLETE', `${(e as Error).message}; and of the books: ${left.join('; ')}`, {
      cause: e,
      hint: "'hostdev status' shows what is not as the books say.",
    });
  } finally {
    undoLog = null;
  }
}

/** Notes how the file of a device is brought back to what it is now. */
function note(host: Host, address: Address): void {
  if (undoLog === null) return;
  const before = readBinding(host, address);
  undoLog.push(() => (before === null ? removeBinding(host, address) : writeBinding(host, before)));
}

export function writeBinding(host: Host, binding: Binding): void {
  note(host, binding.address);
  writeJson(`${host.bindingsDir}/${binding.address}.json`, binding);
}

export function removeBinding(host: Host, address: Address): void {
  note(host, address);
  removeJson(host.bindingsDir, address);
}

function isClaim(v: unknown): v is Claim {
  const c = v as Claim | null;
  return (
    typeof c === 'object' &&
    c !== null &&
    OWNER.test(c.owner) &&
    (c.name === null || typeof c.name === 'string') &&
    typeof c.managed === 'boolean'
  );
}

function isBinding(v: unknown, address: string): v is Binding {
  const b = v as Binding | null;
  return (
    typeof b === 'object' &&
    b !== null &&
    b.schema === 1 &&
    b.address === address &&
    canonicalAddress(address) === address &&
    (b.group === null || Number.isInteger(b.group)) &&
    Array.isArray(b.claims) &&
    b.claims.every(isClaim) &&
    (b.owner === null || OWNER.test(b.owner)) &&
    isState(b.before) &&
    (b.after === null || isState(b.after)) &&
    (b.note === null || typeof b.note === 'string') &&
    (b.sriov === undefined || isSriovState(b.sriov)) &&
    (b.vf_bindings === undefined || (Array.isArray(b.vf_bindings) && b.vf_bindings.every(isVfBinding)))
  );
}

/** One level only: a VF has no VFs. */
const isVfBinding = (v: unknown): boolean =>
  (v as Partial<Binding> | null)?.vf_bindings === undefined &&
  isBinding(v, String((v as Partial<Binding> | null)?.address));
