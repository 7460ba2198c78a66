/** The inventory of another host, or of this one at another time: what `hostdev list -j` printed. Untrusted text: every value is looked at. */
import { HostdevError } from '../errors.ts';
import { DRIVER_NAME } from '../host/host.ts';
import { quote } from '../text/safe.ts';
import { compareAddresses, isAddress } from './address.ts';
import type { DevType, Inventory, PciDevice } from './inventory.ts';

/** More functions than any host has (4,096 VFs are a large one). */
const MAX_DEVICES = 65_536;

const DEV_TYPES: readonly DevType[] = ['type-PCI', 'type-PF', 'type-VF', 'vdpa'];

/**
 * Reads the document that `list -j` prints; `file` names it in messages. A key that is not there is not known (null), but for the address and the type; keys of
 * newer versions are read over. Devices come in order of address. Raises HOSTDEV_INVENTORY with the place.
 */
export function readSavedInventory(bytes: Uint8Array, file: string, maxBytes: number): Inventory {
  const wrong = (what: string): HostdevError => new HostdevError('HOSTDEV_INVENTORY', `${file}: ${what}`);
  if (bytes.length > maxBytes) throw wrong(`is larger than ${maxBytes / 1024 / 1024} MiB`);
  const document = parse(bytes, wrong);
  if (typeof document !== 'object' || document === null || Array.isArray(document)) throw wrong('is no JSON object');
  const { schema, devices: list, error } = document as Record<string, unknown>;
  if (error !== undefined) throw wrong("holds the error of a 'list -j' that failed");
  if (schema !== 1) throw wrong(`schema is ${quote(schema)}: this hostdev knows 1`);
  if (!Array.isArray(list)) throw wrong('has no list "devices"');
  if (list.length > MAX_DEVICES) throw wrong(`has ${list.length} devices, more than ${MAX_DEVICES}`);
  const devices: PciDevice[] = [];
  const byAddress = new Map<string, PciDevice>();
  for (const [n, item] of list.entries()) {
    const device = readDevice(item, (what) => wrong(`devices[${n}]${what}`));
    if (byAddress.has(device.address)) throw wrong(`devices[${n}].address: ${device.address} is there twice`);
    devices.push(device);
    byAddress.set(device.address, device);
  }
  devices.sort((a, b) => compareAddresses(a.address, b.address));
  return { devices, byAddress, warnings: [], failures: [], malformed: [] };
}

function parse(bytes: Uint8Array, wrong: (what: string) => HostdevError): unknown {
  let source: string;
  try {
    source = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw wrong('is not UTF-8');
  }
  try {
    return JSON.parse(source);
  } catch (e) {
    // V8 quotes the text around the fault, over several lines.
    throw wrong(`is no JSON: ${(e as Error).message.replace(/\s+/g, ' ').slice(0, 200)}`);
  }
}

function readDevice(item: unknown, wrong: (what: string) => HostdevError): PciDevice {
  if (typeof item !== 'object' || item === null || Array.isArray(item))
    throw wrong(` is ${quote(item)}: an object is expected`);
  const record = item as Record<string, unknown>;
  const take = <T>(key: string, what: string, ok: (v: unknown) => v is T): T | null => {
    const value = Object.hasOwn(record, key) ? record[key] : null;
    if (value === null || value === undefined) return null;
    if (!ok(value)) throw wrong(`.${key} is ${quote(value)}: ${what} is expected`);
    return value;
  };
  const address = (key: string): string | null => take(key, 'an address such as 0000:01:00.0', isText(isAddress));
  const hex = (key: string, digits: number): string | null =>
    take(
      key,
      `${digits} lower-case hex digits or null`,
      isText((v) => v.length === digits && /^[0-9a-f]+$/.test(v)),
    );
  const count = (key: string): number | null =>
    take(key, 'a number or null', (v): v is number => Number.isInteger(v) && (v as number) >= 0 && (v as number) < 1e7);
  const own = address('address');
  const type = take('dev_type', DEV_TYPES.join(', '), (v): v is DevType => DEV_TYPES.includes(v as DevType));
  if (own === null) throw wrong('.address is missing');
  if (type === null) throw wrong('.dev_type is missing');
  return {
    address: own,
    vendor_id: hex('vendor_id', 4),
    product_id: hex('product_id', 4),
    class: hex('class', 6),
    subsystem_vendor_id: hex('subsystem_vendor_id', 4),
    subsystem_device_id: hex('subsystem_device_id', 4),
    driver: take(
      'driver',
      "a driver's name or null",
      isText((v) => DRIVER_NAME.test(v)),
    ),
    iommu_group: count('iommu_group'),
    numa_node: count('numa_node'),
    dev_type: type,
    parent_addr: address('parent_addr'),
    sriov_totalvfs: count('sriov_totalvfs'),
    sriov_numvfs: count('sriov_numvfs'),
    // Lists of before it was told say it by the class.
    bridge:
      take('bridge', 'true or false', (v): v is boolean => typeof v === 'boolean') ??
      hex('class', 6)?.startsWith('06') === true,
    stuck: take('stuck', 'true or false', (v): v is boolean => typeof v === 'boolean') ?? false,
  };
}

const isText =
  (ok: (v: string) => boolean) =>
  (v: unknown): v is string =>
    typeof v === 'string' && ok(v);
