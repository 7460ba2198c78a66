/**
 * The journal: what a transaction set out to change, written before its first sysfs write and gone after its last. It lives in /run: it
 * describes one kernel's life. Whoever holds a device's group lock and finds the device in a journal file knows that the writer is dead, for a
 * living one would hold that lock. No step is journalled: a move's inverse starts from what is observed, so a crash between any two writes is undone
 * by the same code, whichever were done.
 */

import { DRIVER_NAME, type Host } from '../host/host.ts';
import { canonicalAddress } from '../pci/address.ts';
import { corrupt, listJson, readJson, removeJson, writeJson } from '../store/files.ts';
import type { DeviceState, Move } from './move.ts';
import { MAX_VFS, type SriovChange, type SriovState } from './sriov.ts';

/** How a recovery treats the entry: a `bind` goes back to `from`; a `give-back` goes on to `to`. */
export type JournalKind = 'bind' | 'give-back';

export type JournalMove = Move & {
  /** driver_override as the bytes read, so that even a tree that is no sysfs is put back byte for byte. */
  override_bytes: string;
};

export type JournalEntry = {
  schema: 1;
  id: string;
  kind: JournalKind;
  /** For whom: `admin`, `boot` or `domain:<uuid>`. */
  owner: string;
  pid: number;
  started: string;
  /** `intent` while it runs; afterwards what went wrong. */
  state: 'intent' | 'undo-incomplete' | 'pending';
  devices: JournalMove[];
  /** In the two bad states: what is not as it should be, one line a device. */
  left: string[];
};

/** Writes the entry whole. Raises HOSTDEV_STORE when /run is full or read-only: then nothing has been changed yet. */
export function writeJournal(host: Host, entry: JournalEntry): void {
  writeJson(`${host.journalDir}/${entry.id}.json`, entry);
}

export function removeJournal(host: Host, id: string): void {
  removeJson(host.journalDir, id);
}

let sequence = 0;

/** A name that sorts by time and is nobody else's. */
export function journalId(): string {
  sequence += 1;
  return `${Date.now().toString(36)}-${process.pid}-${sequence}`;
}

/** All entries, oldest first. Raises HOSTDEV_STORE_CORRUPT for one that is not ours: it may hold the only way back. */
export function readJournal(host: Host): JournalEntry[] {
  const entries: JournalEntry[] = [];
  for (const id of listJson(host.journalDir)) {
    const file = `${host.journalDir}/${id}.json`;
    const value = readJson(file);
    if (value === null) continue; // committed between the listing and the reading
    if (!isEntry(value, id)) throw corrupt(file, 'is no journal entry of this version');
    entries.push(value);
  }
  return entries;
}

const isObject = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v);
const isText = (v: unknown): v is string => typeof v === 'string' && v.length <= 4096;
const isTextOrNull = (v: unknown): v is string | null => v === null || isText(v);

/** A name that is put into a sysfs path or attribute when the file is acted on. */
const isDriver = (v: unknown): v is string | null => v === null || (isText(v) && DRIVER_NAME.test(v));

export function isState(v: unknown): v is DeviceState {
  return isObject(v) && isDriver(v.driver) && isTextOrNull(v.override) && !(v.override ?? '').includes('\n');
}

/** `admin`, `boot` or `domain:<uuid>`. */
export const OWNER = /^(?:admin|boot|domain:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

function isMove(v: unknown): v is JournalMove {
  return (
    isObject(v) &&
    isText(v.address) &&
    canonicalAddress(v.address) === v.address &&
    (v.group === null || Number.isInteger(v.group)) &&
    isState(v.from) &&
    isState(v.to) &&
    isText(v.override_bytes) &&
    (v.sriov === undefined || isSriovChange(v.sriov))
  );
}

const isBytes = (v: unknown): v is string => isText(v) && v.length <= 64;

function isSriovChange(v: unknown): v is SriovChange {
  return (
    isObject(v) &&
    isSriovState(v.from) &&
    isSriovState(v.to) &&
    isBytes(v.numvfs_bytes) &&
    (v.autoprobe_bytes === null || isBytes(v.autoprobe_bytes))
  );
}

/** A count that the attribute takes, and a VF for each of it that can be put into a path. */
export function isSriovState(v: unknown): v is SriovState {
  if (!isObject(v) || !(v.autoprobe === null || typeof v.autoprobe === 'boolean')) return false;
  if (!Number.isInteger(v.numvfs) || (v.numvfs as number) < 0 || (v.numvfs as number) > MAX_VFS) return false;
  if (v.vfs === 'vfio' || v.vfs === 'netdev') return true;
  return (
    Array.isArray(v.vfs) &&
    v.vfs.length <= (v.numvfs as number) &&
    v.vfs.every((f) => isState(f) && isAddressText((f as { address?: unknown }).address))
  );
}

const isAddressText = (v: unknown): boolean => isText(v) && canonicalAddress(v) === v;

function isEntry(v: unknown, id: string): v is JournalEntry {
  return (
    isObject(v) &&
    v.schema === 1 &&
    v.id === id &&
    (v.kind === 'bind' || v.kind === 'give-back') &&
    isText(v.owner) &&
    OWNER.test(v.owner) &&
    (v.state === 'intent' || v.state === 'undo-incomplete' || v.state === 'pending') &&
    Array.isArray(v.devices) &&
    v.devices.every(isMove) &&
    Array.isArray(v.left) &&
    v.left.every(isText)
  );
}
