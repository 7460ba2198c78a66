/**
 * A scenario of `simulate` (contract 7) read from JSON: every value of the wrong type is an error that names its place.
 */

import { HostdevError } from '../errors.ts';
import type { HostFacts } from '../nova/grammar/deviceSpec.ts';
import type { DevType } from '../pci/inventory.ts';
import type { TraitBlanks } from '../placement/names.ts';
import type { PoolDevice } from '../pool/device.ts';
import type { HostCell } from '../pool/filters.ts';
import { isObject, isWhole, type JsonObject, JsonReader, type JsonValue } from '../text/json.ts';
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

const bad = (message: string): HostdevError => new HostdevError('HOSTDEV_SCENARIO', message);

/**
 * Reads the bytes of a scenario. Raises HOSTDEV_SCENARIO (exit 2) for what is none: too large, not UTF-8, not JSON, a
 * wrong type.
 */
export function parseScenario(bytes: Uint8Array): Scenario {
  if (bytes.length > MAX_SCENARIO_BYTES) throw bad(`The scenario is larger than ${MAX_SCENARIO_BYTES >> 20} MiB`);
  const value = decodeScenario(bytes);
  if (!isObject(value)) throw bad(`A scenario is one JSON object, not ${quote(value)}`);
  // A row of a file of verdicts.
  const given = isObject(value.case) ? value.case : value;
  const read = new JsonReader(given, '', bad);
  const config = read.object('config');
  const devices = devicesOf(read, 'devices', true) ?? [];
  const steps = stepsOf(read);
  const deviceSpec = neededList(read, 'device_spec');
  if (deviceSpec.length > MAX_SPECS) throw bad(`device_spec has more than ${MAX_SPECS} values`);
  checkPrintable(deviceSpec, devices, steps);
  return {
    id: read.text('id'),
    deviceSpec,
    alias: read.list('alias') ?? [],
    devices,
    sysfs: sysfsOf(read.object('sysfs').values),
    netdevs: netdevsOf(read.object('netdevs')),
    reportInPlacement: config.flag('report_in_placement'),
    pciInPlacement: config.flag('pci_in_placement'),
    traitBlanks: blanksOf(config),
    hostCells: read.objects('host_cells').map(cellOf),
    steps,
    hasPlacement: read.flag('placement', true),
    notes: unreadKeys(given),
  };
}

/** The list that a scenario must have. */
const neededList = (read: JsonReader, key: string): JsonValue[] => {
  const list = read.list(key);
  if (list !== null) return list;
  throw bad(`The scenario has no list ${read.at(key)}`);
};

const netdevsOf = (read: JsonReader): Map<string, string> =>
  new Map(Object.keys(read.values).map((name) => [name, read.neededText(name)]));

function devicesOf(read: JsonReader, key: string, needed: boolean): ScenarioDevice[] | null {
  const list = needed ? neededList(read, key) : read.list(key);
  if (list !== null && list.length > MAX_DEVICES) throw bad(`${read.at(key)} has more than ${MAX_DEVICES} devices`);
  return list === null ? null : read.objects(key).map(deviceOf);
}

function deviceOf(read: JsonReader): ScenarioDevice {
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

function serialOf(read: JsonReader): string | null {
  if (read.get('capabilities') === null) return null;
  return read.object('capabilities').object('vpd').text('card_serial_number');
}

function blanksOf(config: JsonReader): TraitBlanks {
  const word = config.text('trait_blanks') ?? 'trim';
  if (word === 'trim' || word === 'nova') return word;
  throw bad(`${config.at('trait_blanks')} is ${quote(word)}: there are trim and nova`);
}

/** A number, or the text of one as sysfs has it. */
function sysfsOf(sysfs: JsonObject): JsonObject {
  for (const [address, value] of Object.entries(sysfs)) {
    const place = `sysfs[${quote(address)}]`;
    const facts = JsonReader.of(value, place, bad);
    for (const key of ['sriov_totalvfs', 'sriov_vf_device', 'vendor', 'product']) {
      const fact = facts.get(key);
      const isNumber = fact === null || typeof fact === 'number';
      const isText = key === 'sriov_totalvfs' ? /^\s*\d+\s*$/.test(`${fact}`) : typeof fact === 'string';
      if (!isNumber && !isText) throw bad(`${place}.${key} is ${quote(fact)}, not a number`);
    }
  }
  return sysfs;
}

const cellOf = (read: JsonReader): HostCell => ({ id: read.neededWhole('id'), socket: read.whole('socket') });

function stepsOf(read: JsonReader): ScenarioStep[] {
  const list = read.list('steps');
  if (list === null) {
    const isAsked = read.get('request') !== null || read.get('port_requests') !== null;
    return isAsked ? [claimOf(read, 'vm1')] : [];
  }
  if (list.length > MAX_STEPS) throw bad(`${read.at('steps')} has more than ${MAX_STEPS} steps`);
  return read.objects('steps').map((step): ScenarioStep => {
    const op = step.text('op');
    if (op === 'claim') return claimOf(step, step.neededText('instance'));
    if (op === 'free') return { op, instance: step.neededText('instance') };
    if (op === 'refresh')
      return { op, devices: devicesOf(step, 'devices', false), deviceSpec: step.list('device_spec') };
    throw bad(`${step.at('op')} is ${quote(op)}: there are claim, free and refresh`);
  });
}

function cellNumber(value: JsonValue, place: string): number {
  if (isWhole(value)) return value;
  throw bad(`${place} is ${quote(value)}, not a whole number`);
}

function claimOf(read: JsonReader, instance: string): ClaimStep {
  return {
    op: 'claim',
    instance,
    request: read.text('request'),
    portRequests: read.objects('port_requests').map(portOf),
    numaCells: (read.list('numa_cells') ?? []).map((c, i) => cellNumber(c, `${read.at('numa_cells')}[${i}]`)),
    affinityPolicy: read.text('affinity_policy'),
    groupPolicy: read.text('group_policy'),
    force: read.flag('force'),
    spread: read.flag('spread'),
  };
}

function portOf(read: JsonReader): PortRequest {
  neededList(read, 'spec');
  const spec = read.objects('spec').map((s) => s.values);
  return { spec, count: read.whole('count') ?? 1, numa_policy: read.text('numa_policy') };
}

/** An id as sysfs or a scenario writes it, as 4 lower-case hex digits; null for anything else. */
function idOf(value: JsonValue | undefined): string | null {
  const text = typeof value === 'number' ? value.toString(16) : value;
  const hex = typeof text === 'string' ? /^(?:0x)?0*([0-9a-f]{1,4})\s*$/i.exec(text.trim())?.[1] : undefined;
  return hex === undefined ? null : hex.toLowerCase().padStart(4, '0');
}

/**
 * What specs ask of the host, from the devices and the further facts of a scenario. `devices` is asked each time: a
 * refresh changes them.
 */
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
