/** `log [DEV]`: the record of changes and lifted guards, oldest first. */
import type { RecordLine } from '../binding/record.ts';
import type { Host } from '../host/host.ts';
import { type Address, canonicalAddress } from '../pci/address.ts';
import { type PciDevice, scanInventory } from '../pci/inventory.ts';
import { resolveDevice, resolvedNote } from '../pci/resolve.ts';
import { readPlain } from '../store/files.ts';
import { isObject } from '../text/json.ts';
import { type Warning, warning } from '../text/warning.ts';
import type { Warned } from './options.ts';

/** `device`: the one that was asked for; null for all. */
export type Recorded = Warned & { device: Address | null; records: RecordLine[] };

/**
 * The lines of both generations of the file; with `word` only those of that device. One that is named by its address
 * need not be there any more, but then it must be on record. Raises HOSTDEV_NOT_PERMITTED for whoever may not read
 * them, HOSTDEV_STORE_UNSAFE, and what {@link resolveDevice} raises.
 */
export function readRecord(host: Host, word: string | null): Recorded {
  const gone = word === null ? null : canonicalAddress(word);
  const find = (name: string): PciDevice => resolveDevice(host, scanInventory(host), name);
  const named = word === null || gone !== null ? null : find(word);
  const address = gone ?? named?.address ?? null;
  const records: RecordLine[] = [];
  const warnings: Warning[] = word === null || named === null ? [] : resolvedNote(word, named);
  for (const file of [`${host.record}.1`, host.record]) {
    const lines = (readPlain(host, file)?.toString('utf8') ?? '').split('\n').filter(Boolean);
    const read = lines.map(parsed);
    const bad = read.filter((l) => l === null).length;
    if (bad > 0)
      warnings.push(warning('record', `${host.absolute(file)}: ${bad} lines are no records of this version`));
    for (const l of read) if (l !== null && (address === null || l.device === address)) records.push(l);
  }
  // Raises for a device that nobody has ever seen here, unless lines that nobody understands may tell of it.
  if (word !== null && gone !== null && records.length + warnings.length === 0) find(word);
  return { device: address, records, warnings };
}

/** What is in the file may be anybody's by now: a line without what is printed of it is none. */
function parsed(line: string): RecordLine | null {
  try {
    const v: unknown = JSON.parse(line);
    return isRecord(v) ? known(v) : null;
  } catch {
    return null;
  }
}

/** Its keys in their order, and none that somebody else put there. */
const known = (r: RecordLine): RecordLine => ({
  schema: 1,
  time: r.time,
  device: r.device,
  verb: r.verb,
  outcome: r.outcome,
  before: r.before && { driver: r.before.driver, override: r.before.override },
  after: r.after && { driver: r.after.driver, override: r.after.override },
  vfs: r.vfs && { before: r.vfs.before, after: r.vfs.after },
  // A line of before there were any has none.
  vgpu_type: r.vgpu_type ? { before: r.vgpu_type.before, after: r.vgpu_type.after } : null,
  reason: r.reason,
  owner: r.owner,
  guest: r.guest,
  uid: r.uid,
  loginuid: r.loginuid,
  sudo_uid: r.sudo_uid,
  entry: r.entry,
  recovered: r.recovered === true,
  lifted: r.lifted.map(({ guard, reason }) => ({ guard, reason })),
});

const isTextOrNull = (v: unknown): boolean => v === null || typeof v === 'string';

const isStateOrNull = (v: unknown): boolean =>
  v === null || (isObject(v) && isTextOrNull(v.driver) && isTextOrNull(v.override));

const isRecord = (v: unknown): v is RecordLine =>
  isObject(v) &&
  v.schema === 1 &&
  [v.time, v.device, v.outcome, v.owner].every((t) => typeof t === 'string') &&
  [v.verb, v.reason, v.guest, v.entry].every(isTextOrNull) &&
  [v.uid, v.loginuid, v.sudo_uid].every((n) => n === null || typeof n === 'number') &&
  isStateOrNull(v.before) &&
  isStateOrNull(v.after) &&
  (v.vfs === null || (isObject(v.vfs) && typeof v.vfs.before === 'number' && typeof v.vfs.after === 'number')) &&
  (v.vgpu_type === undefined ||
    v.vgpu_type === null ||
    (isObject(v.vgpu_type) && typeof v.vgpu_type.before === 'string' && typeof v.vgpu_type.after === 'string')) &&
  Array.isArray(v.lifted) &&
  v.lifted.every((l) => isObject(l) && typeof l.guard === 'string' && typeof l.reason === 'string');
