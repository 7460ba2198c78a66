/** A scenario of `simulate` (contract 7) read from JSON: every value of the wrong type is an error that names its place. */

import { HostdevError } from '../errors.ts';
import type { HostFacts } from '../nova/grammar/deviceSpec.ts';
import { isObject, type JsonObject, type JsonValue } from '../nova/grammar/json.ts';
import type { DevType } from '../pci/inventory.ts';
import type { TraitBlanks } from '../placement/names.ts';
import type { PoolDevice } from '../pool/device.ts';
import type { HostCell } from '../pool/filters.ts';
import { quote } from '../text/safe.ts';
import { unreadKeys } from './keys.ts';
import { checkPrintable } from './size.ts';
import { decodeScenario } from './text.ts';

/** Device facts that only scenarios have beside what a pool wants. */
export type ScenarioDevice = PoolDevice & { totalvfs: number | null; sriov_vf_device: string | null };

type PortRequest = { spec: JsonObject[]; count: number; numa_policy: string | null };

export type ClaimStep = {
  op: 'claim';
  instance: string;
  request: string | null;
  portRequests: PortRequest[];
  numaCells: number[];
  affinityPolicy: string | null;
  groupPolicy: string | null;
  force: boolean;
  /** Beyond Nova: spread over PFs. */
  spread: boolean;
};
export type ScenarioStep =
  | ClaimStep
  | { op: 'free'; instance: string }
  | { op: 'refresh'; devices: ScenarioDevice[] | null; deviceSpec: JsonValue[] | null };

export type Scenario = {
  id: string | null;
  deviceSpec: JsonValue[];
  alias: JsonValue[];
  devices: ScenarioDevice[];
  sysfs: JsonObject;
  netdevs: ReadonlyMap<string, string>;
  reportInPlacement: boolean;
  pciInPlacement: boolean;
  traitBlanks: TraitBlanks;
  hostCells: HostCell[];
  steps: ScenarioStep[];
  /** False leaves the Placement view out. */
  hasPlacement: boolean;
  /** What is worth saying of the scenario itself. */
  notes: string[];
};

export const MAX_SCENARIO_BYTES = 64 * 1024 * 1024;
const MAX_DEVICES = 65_536;
const MAX_STEPS = 10_000;
/** As many as a configuration may have. */
const MAX_SPECS = 4096;
const DEV_TYPES: readonly string[] = ['type-PCI', 'type-PF', 'type-VF', 'vdpa'];

const bad = (message: string, cause?: unknown): HostdevError =>
  new HostdevError('HOSTDEV_SCENARIO', message, { cause });

/** Reads the bytes of a scenario. Raises HOSTDEV_SCENARIO (exit 2) for what is none: too large, not UTF-8, not JSON, a wrong type. */
export function parseScenario(bytes: Uint8Array): Scenario {
  if (bytes.length > MAX_SCENARIO_BYTES) throw bad(`The scenario is larger than ${MAX_SCENARIO_BYTES >> 20} MiB`);
  const value = decodeScenario(bytes);
  if (!isObject(value)) throw bad(`A scenario is one JSON object, not ${quote(value)}`);
  // A row of a file of verdicts.
  const given = isObject(value.case) ? value.case : value;
  const read = new Reader('scenario', given);
  const config = new Reader('config', read.object('config'));
  const devices = devicesOf(read, 'devices', true) ?? [];
  const steps = stepsOf(read);
  const deviceSpec = read.list('device_spec', true) ?? [];
  if (deviceSpec.length > MAX_SPECS) throw bad(`device_spec has more than ${MAX_SPECS} values`);
  checkPrintable(deviceSpec, devices, steps);
  return {
    id: read.text('id'),
    deviceSpec,
    alias: read.list('alias') ?? [],
    devices,
    sysfs: sysfsOf(read.object('sysfs')),
    netdevs: new Map(Object.entries(read.object('netdevs')).map(([k, v]) => [k, asText(v, `netdevs.${k}`)])),
    reportInPlacement: config.flag('report_in_placement'),
    pciInPlacement: config.flag('pci_in_placement'),
    traitBlanks: blanksOf(config),
    hostCells: (read.list('host_cells') ?? []).map((c, i) => cellOf(c, `host_cells[${i}]`)),
    steps,
    hasPlacement: read.flag('placement', true),
    notes: unreadKeys(given),
  };
}

const asText = (value: JsonValue | undefined, place: string): string => {
  if (typeof value === 'string') return value;
  throw bad(`${place} is ${quote(value)}, not a text`);
};

const asWhole = (value: JsonValue | undefined, place: string): number => {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return value;
  throw bad(`${place} is ${quote(value)}, not a whole number`);
};

/** Typed access to the keys of an object; absent and null are the same. */
class Reader {
  readonly #place: string;
  readonly #object: JsonObject;

  constructor(place: string, object: JsonObject) {
    this.#place = place;
    this.#object = object;
  }

  at(key: string): string {
    return this.#place === 'scenario' ? key : `${this.#place}.${key}`;
  }

  get(key: string): JsonValue {
    return Object.hasOwn(this.#object, key) ? (this.#object[key] ?? null) : null;
  }

  text(key: string): string | null {
    const value = this.get(key);
    // The place is spelled only for an error: there are thousands of devices.
    return value === null || typeof value === 'string' ? value : asText(value, this.at(key));
  }

  neededText(key: string): string {
    const value = this.get(key);
    return typeof value === 'string' ? value : asText(value, this.at(key));
  }

  whole(key: string): number | null {
    const value = this.get(key);
    return value === null || Number.isSafeInteger(value) ? (value as number | null) : asWhole(value, this.at(key));
  }

  flag(key: string, absent = false): boolean {
    const value = this.get(key);
    if (value === null) return absent;
    if (typeof value === 'boolean') return value;
    throw bad(`${this.at(key)} is ${quote(value)}, neither true nor false`);
  }

  list(key: string, needed = false): JsonValue[] | null {
    const value = this.get(key);
    if (value === null && !needed) return null;
    if (Array.isArray(value)) return value;
    throw bad(
      value === null ? `The scenario has no list ${this.at(key)}` : `${this.at(key)} is ${quote(value)}, not a list`,
    );
  }

  object(key: string): JsonObject {
    const value = this.get(key);
    if (value === null) return {};
    if (isObject(value)) return value;
    throw bad(`${this.at(key)} is ${quote(value)}, not an object`);
  }
}

const reader = (value: JsonValue, place: string): Reader => {
  if (isObject(value)) return new Reader(place, value);
  throw bad(`${place} is ${quote(value)}, not an object`);
};

function devicesOf(read: Reader, key: string, needed: boolean): ScenarioDevice[] | null {
  const list = read.list(key, needed);
  if (list !== null && list.length > MAX_DEVICES) throw bad(`${read.at(key)} has more than ${MAX_DEVICES} devices`);
  return list?.map((d, i) => deviceOf(reader(d, `${read.at(key)}[${i}]`))) ?? null;
}

function deviceOf(read: Reader): ScenarioDevice {
  const devType = read.text('dev_type') ?? 'type-PCI';
  if (!DEV_TYPES.includes(devType))
    throw bad(`${read.at('dev_type')} is ${quote(devType)}: there are ${DEV_TYPES.join(', ')}`);
  const numa = read.whole('numa_node');
  return {
    address: read.neededText('address'),
    vendor_id: read.text('vendor_id'),
    product_id: read.text('product_id'),
    dev_type: devType as DevType,
    parent_addr: read.text('parent_addr') || null,
    numa_node: numa === null || numa < 0 ? null : numa,
    card_serial_number: serialOf(read),
    parent_ifname: read.text('parent_ifname'),
    totalvfs: read.whole('totalvfs'),
    sriov_vf_device: read.text('sriov_vf_device'),
  };
}

function serialOf(read: Reader): string | null {
  if (read.get('capabilities') === null) return null;
  const place = read.at('capabilities');
  const vpd = new Reader(place, read.object('capabilities')).object('vpd');
  return new Reader(`${place}.vpd`, vpd).text('card_serial_number');
}

function blanksOf(config: Reader): TraitBlanks {
  const word = config.text('trait_blanks') ?? 'trim';
  if (word === 'trim' || word === 'nova') return word;
  throw bad(`${config.at('trait_blanks')} is ${quote(word)}: there are trim and nova`);
}

/** A number, or the text of one as sysfs has it. */
function sysfsOf(sysfs: JsonObject): JsonObject {
  for (const [address, value] of Object.entries(sysfs)) {
    const place = `sysfs[${quote(address)}]`;
    const facts = reader(value, place);
    for (const key of ['sriov_totalvfs', 'sriov_vf_device', 'vendor', 'product']) {
      const fact = facts.get(key);
      const isNumber = fact === null || typeof fact === 'number';
      const isText = key === 'sriov_totalvfs' ? /^\s*\d+\s*$/.test(`${fact}`) : typeof fact === 'string';
      if (!isNumber && !isText) throw bad(`${place}.${key} is ${quote(fact)}, not a number`);
    }
  }
  return sysfs;
}

function cellOf(value: JsonValue, place: string): HostCell {
  const read = reader(value, place);
  return { id: asWhole(read.get('id'), `${place}.id`), socket: read.whole('socket') };
}

function stepsOf(read: Reader): ScenarioStep[] {
  const list = read.list('steps');
  if (list === null) {
    const isAsked = read.get('request') !== null || read.get('port_requests') !== null;
    return isAsked ? [claimOf(read, 'vm1')] : [];
  }
  if (list.length > MAX_STEPS) throw bad(`${read.at('steps')} has more than ${MAX_STEPS} steps`);
  return list.map((s, i): ScenarioStep => {
    const step = reader(s, `${read.at('steps')}[${i}]`);
    const op = step.text('op');
    if (op === 'claim') return claimOf(step, step.neededText('instance'));
    if (op === 'free') return { op, instance: step.neededText('instance') };
    if (op === 'refresh')
      return { op, devices: devicesOf(step, 'devices', false), deviceSpec: step.list('device_spec') };
    throw bad(`${step.at('op')} is ${quote(op)}: there are claim, free and refresh`);
  });
}

function claimOf(read: Reader, instance: string): ClaimStep {
  const ports = read.list('port_requests') ?? [];
  return {
    op: 'claim',
    instance,
    request: read.text('request'),
    portRequests: ports.map((p, i) => portOf(reader(p, `${read.at('port_requests')}[${i}]`))),
    numaCells: (read.list('numa_cells') ?? []).map((c, i) => asWhole(c, `${read.at('numa_cells')}[${i}]`)),
    affinityPolicy: read.text('affinity_policy'),
    groupPolicy: read.text('group_policy'),
    force: read.flag('force'),
    spread: read.flag('spread'),
  };
}

function portOf(read: Reader): PortRequest {
  const spec = (read.list('spec', true) ?? []).map((s, i) => {
    if (isObject(s)) return s;
    throw bad(`${read.at('spec')}[${i}] is ${quote(s)}, not an object`);
  });
  return { spec, count: read.whole('count') ?? 1, numa_policy: read.text('numa_policy') };
}

/** An id as sysfs or a scenario writes it, as 4 lower-case hex digits; null for anything else. */
function idOf(value: JsonValue | undefined): string | null {
  const text = typeof value === 'number' ? value.toString(16) : value;
  const hex = typeof text === 'string' ? /^(?:0x)?0*([0-9a-f]{1,4})\s*$/i.exec(text.trim())?.[1] : undefined;
  return hex === undefined ? null : hex.toLowerCase().padStart(4, '0');
}

/** What specs ask of the host, from the devices and the further facts of a scenario. `devices` is asked each time: a refresh changes them. */
export function scenarioFacts(scenario: Scenario, devices: () => readonly ScenarioDevice[]): HostFacts {
  const find = (address: string): ScenarioDevice | undefined => devices().find((d) => d.address === address);
  const sysfs = (address: string): JsonObject => {
    const facts = Object.hasOwn(scenario.sysfs, address) ? scenario.sysfs[address] : null;
    return isObject(facts) ? facts : {};
  };
  return {
    netdev: (name) => scenario.netdevs.get(name) ?? null,
    isPf: (address) => {
      const device = find(address);
      const said = sysfs(address).sriov_totalvfs ?? device?.totalvfs ?? (device?.dev_type === 'type-PF' ? 1 : 0);
      return Number(said) > 0;
    },
    ids: (address) => {
      const { vendor, product } = sysfs(address);
      const device = find(address);
      const vendorId = idOf(vendor ?? device?.vendor_id);
      const productId = idOf(product ?? device?.product_id);
      return vendorId === null || productId === null ? null : { vendor_id: vendorId, product_id: productId };
    },
    vfProductId: (address) => idOf(sysfs(address).sriov_vf_device ?? find(address)?.sriov_vf_device),
  };
}
