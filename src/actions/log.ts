/** `log [DEV]`: the record of changes and lifted guards, oldest first. */
import type { RecordLine } from '../binding/record.ts';
import { isObject } from '../binding/state.ts';
import type { Host } from '../host/host.ts';
import { canonicalAddress } from '../pci/address.ts';
import { scanInventory } from '../pci/inventory.ts';
import { resolveDevice } from '../pci/resolve.ts';
import { readPlain } from '../store/files.ts';
import type { Warned } from './options.ts';

export type Recorded = Warned & { records: RecordLine[] };

/**
 * The lines of both generations of the file; with `word` only those of that device, which need not be there any more if it is named by its address. Raises
 * HOSTDEV_NOT_PERMITTED for whoever may not read them, HOSTDEV_STORE_UNSAFE, and what {@link resolveDevice} raises.
 */
export function readRecord(host: Host, word: string | null): Recorded {
  const address =
    word === null ? null : (canonicalAddress(word) ?? resolveDevice(host, scanInventory(host), word).address);
  const records: RecordLine[] = [];
  const warnings: string[] = [];
  for (const file of [`${host.record}.1`, host.record]) {
    const lines = (readPlain(host, file)?.toString('utf8') ?? '').split('\n').filter(Boolean);
    const read = lines.map(parsed);
    const bad = read.filter((l) => l === null).length;
    if (bad > 0) warnings.push(`${host.absolute(file)}: ${bad} lines are no records of this version`);
    records.push(...read.flatMap((l) => (l === null || (address !== null && l.device !== address) ? [] : [l])));
  }
  return { records, warnings };
}

/** What is in the file may be anybody's by now: a line without what is printed of it is none. */
function parsed(line: string): RecordLine | null {
  try {
    const v: unknown = JSON.parse(line);
    return isRecord(v) ? v : null;
  } catch {
    return null;
  }
}

const isStateOrNull = (v: unknown): boolean => v === null || (isObject(v) && 'driver' in v && 'override' in v);

const isRecord = (v: unknown): v is RecordLine =>
  isObject(v) &&
  v.schema === 1 &&
  [v.time, v.device, v.outcome, v.owner].every((t) => typeof t === 'string') &&
  [v.verb, v.reason, v.guest, v.entry].every((t) => t === null || typeof t === 'string') &&
  [v.uid, v.loginuid, v.sudo_uid].every((n) => n === null || typeof n === 'number') &&
  isStateOrNull(v.before) &&
  isStateOrNull(v.after) &&
  (v.vfs === null || isObject(v.vfs)) &&
  Array.isArray(v.lifted) &&
  v.lifted.every((l) => isObject(l) && typeof l.guard === 'string' && typeof l.reason === 'string');
