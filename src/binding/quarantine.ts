/**
 * Devices that did not answer by a deadline. What hangs is a helper of ours in D state, behind the device's lock;
 * whoever touches the device next hangs behind it, and waiting for that once took every virsh command of a host with
 * it. So the books remember the helper, and as long as it runs the device is refused at once. Its end is the hang's
 * end: then the journal, if there is one, is put right by the next command. Like all of /run this is forgotten at boot.
 */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Address, isAddress } from '../pci/address.ts';
import { type BadFile, badFile, listJson, notOurs, readJson, removeJson, writeJson } from '../store/files.ts';
import { isListOf, isObject, isText } from '../text/json.ts';
import { isAddressText } from './state.ts';

export type Quarantine = {
  schema: 1;
  address: Address;
  since: string;
  /** The access that did not return. */
  path: string;
  /** The process that is at it (NativeBinding.processRuns). */
  helper: string;
  /** Who held the device then, a line each. */
  holders: string[];
};

export function quarantine(host: Host, entry: Omit<Quarantine, 'schema' | 'since'>): void {
  writeJson(host, `${host.quarantine}/${entry.address}.json`, { schema: 1, since: new Date().toISOString(), ...entry });
}

/** The quarantine of a device; null when there is none or what hung has ended. Raises HOSTDEV_STORE_CORRUPT. */
export function readQuarantine(host: Host, address: Address): Quarantine | null {
  const file = `${host.quarantine}/${address}.json`;
  const value = readJson(host, file);
  if (value === null) return null;
  if (!isQuarantine(value, address)) throw notOurs(host.absolute(file), value, 1, 'quarantine');
  return host.native.processRuns(value.helper) ? value : null;
}

/** All that hold now, and the files that are none. */
export function readQuarantines(host: Host): { stuck: Quarantine[]; bad: BadFile[] } {
  const stuck: Quarantine[] = [];
  const bad: BadFile[] = [];
  for (const address of listJson(host, host.quarantine)) {
    try {
      const held = readQuarantine(host, address);
      if (held !== null) stuck.push(held);
    } catch (e) {
      bad.push({ ...badFile(e), addresses: isAddress(address) ? [address] : [] });
    }
  }
  return { stuck, bad };
}

export function endQuarantine(host: Host, address: Address): void {
  removeJson(host, host.quarantine, address);
}

/** HOSTDEV_STUCK for a device in quarantine. */
export function stuckError({ address, since, path, helper, holders }: Quarantine): HostdevError {
  const pid = helper.split(':', 1)[0];
  const by = holders.length > 0 ? `; held by ${holders.join(', ')}` : '';
  return new HostdevError(
    'HOSTDEV_STUCK',
    `${address} hangs in the kernel since ${since}: process ${pid} has not come back from ${path}${by}`,
    { data: { stuck: { address, since, path, holders } } },
  );
}

const isQuarantine = (v: unknown, address: string): v is Quarantine =>
  isObject(v) &&
  v.schema === 1 &&
  v.address === address &&
  isAddressText(address) &&
  [v.since, v.path, v.helper].every(isText) &&
  isListOf(v.holders, isText);
