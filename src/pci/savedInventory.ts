/**
 * The inventory of another host, or of this one at another time: what `hostdev list -j` printed. Untrusted text: every
 * value is looked at.
 */
import { HostdevError, messageOf } from '../errors.ts';
import { DRIVER_NAME } from '../host/host.ts';
import { isObject, isWhole, JsonReader, type JsonValue, parseJson } from '../text/json.ts';
import { quote } from '../text/safe.ts';
import { compareAddresses, isAddress } from './address.ts';
import type { DevType, Inventory, PciDevice } from './inventory.ts';

/** More functions than any host has (4,096 VFs are a large one). */
const MAX_DEVICES = 65_536;

const DEV_TYPES: readonly DevType[] = ['type-PCI', 'type-PF', 'type-VF', 'vdpa'];

/**
 * Reads the document that `list -j` prints; `file` names it in messages. A key that is not there is not known (null),
 * but for the address and the type; keys of newer versions are read over. Devices come in order of address. Raises
 * HOSTDEV_INVENTORY with the place.
 */
export function readSavedInventory(bytes: Uint8Array, file: string, maxBytes: number): Inventory {
  const wrong = (what: string): HostdevError => new HostdevError('HOSTDEV_INVENTORY', `${file}: ${what}`);
  if (bytes.length > maxBytes) throw wrong(`is larger than ${maxBytes / 1024 / 1024} MiB`);
  const document = parse(bytes, wrong);
  if (!isObject(document)) throw wrong('is no JSON object');
  const { schema, devices: list, error } = document;
  if (error !== undefined) throw wrong("holds the error of a 'list -j' that failed");
  if (schema !== 1) throw wrong(`schema is ${quote(schema)}: this hostdev knows 1`);
  if (!Array.isArray(list)) throw wrong('has no list "devices"');
  if (list.length > MAX_DEVICES) throw wrong(`has ${list.length} devices, more than ${MAX_DEVICES}`);
  const devices: PciDevice[] = [];
  const byAddress = new Map<string, PciDevice>();
  for (const [n, item] of list.entries()) {
    const device = readDevice(JsonReader.of(item, `devices[${n}]`, wrong));
    if (byAddress.has(device.address)) throw wrong(`devices[${n}].address: ${device.address} is there twice`);
    devices.push(device);
    byAddress.set(device.address, device);
  }
  devices.sort((a, b) => compareAddresses(a.address, b.address));
  return { devices, byAddress, warnings: [], failures: [], malformed: [] };
}

function parse(bytes: Uint8Array, wrong: (what: string) => HostdevError): JsonValue {
  let source: string;
  try {
    source = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw wrong('is not UTF-8');
  }
  try {
    return parseJson(source);
  } catch (e) {
    throw wrong(`is no JSON: ${messageOf(e)}`);
  }
}

function readDevice(read: JsonReader): PciDevice {
  const address = (key: string): string | null =>
    read.take(key, 'not an address such as 0000:01:00.0', isTextWhich(isAddress));
  const hex = (key: string, digits: number): string | null =>
    read.take(
      key,
      `not ${digits} lower-case hex digits or null`,
      isTextWhich((v) => v.length === digits && /^[0-9a-f]+$/.test(v)),
    );
  const count = (key: string): number | null => read.take(key, 'not a number or null', isCount);
  const cls = hex('class', 6);
  return {
    address: address('address') ?? read.fail('address', ''),
    vendor_id: hex('vendor_id', 4),
    product_id: hex('product_id', 4),
    class: cls,
    subsystem_vendor_id: hex('subsystem_vendor_id', 4),
    subsystem_device_id: hex('subsystem_device_id', 4),
    driver: read.take(
      'driver',
      "not a driver's name or null",
      isTextWhich((v) => DRIVER_NAME.test(v)),
    ),
    iommu_group: count('iommu_group'),
    numa_node: count('numa_node'),
    dev_type: read.need('dev_type', `not one of ${DEV_TYPES.join(', ')}`, isDevType),
    parent_addr: address('parent_addr'),
    sriov_totalvfs: count('sriov_totalvfs'),
    sriov_numvfs: count('sriov_numvfs'),
    // Lists of before it was told say it by the class.
    bridge: read.flag('bridge', cls?.startsWith('06') === true),
    stuck: read.flag('stuck'),
  };
}

const isTextWhich =
  (ok: (v: string) => boolean) =>
  (v: unknown): v is string =>
    typeof v === 'string' && ok(v);
const isDevType = (v: unknown): v is DevType => DEV_TYPES.includes(v as DevType);
const isCount = (v: unknown): v is number => isWhole(v) && v >= 0 && v < 1e7;
