/**
 * Keys of a scenario that nothing reads: slips that would otherwise change the verdict without a word. They are noted,
 * since scenarios carry remarks of their own.
 */

import { isObject, type JsonValue } from '../text/json.ts';
import { nearestWord } from '../text/nearestWord.ts';
import { quote } from '../text/safe.ts';

const CLAIM = ['request', 'port_requests', 'numa_cells', 'affinity_policy', 'group_policy', 'force', 'spread'] as const;
const SCENARIO = [
  'id',
  'kind',
  'note',
  'device_spec',
  'alias',
  'devices',
  'sysfs',
  'real_sysfs_ids',
  'netdevs',
  'config',
  'host_cells',
  'steps',
  'placement',
  ...CLAIM,
];
const DEVICE = [
  'address',
  'vendor_id',
  'product_id',
  'dev_type',
  'parent_addr',
  'numa_node',
  'capabilities',
  'parent_ifname',
  'mac_address',
  'totalvfs',
  'sriov_vf_device',
];
const CONFIG = ['report_in_placement', 'pci_in_placement', 'trait_blanks'];
const SYSFS = ['sriov_totalvfs', 'sriov_vf_device', 'vendor', 'product'];
const STEPS: Record<string, readonly string[]> = {
  claim: ['op', 'instance', 'note', ...CLAIM],
  free: ['op', 'instance', 'note'],
  refresh: ['op', 'devices', 'device_spec', 'note'],
};

/** A scenario of nothing but slips needs no thousand notes. */
const MAX_NOTES = 20;

/**
 * One note a key that is not read, with the key that was probably meant: of a list the first place, and how many more
 * there are; at most 20.
 */
export function unreadKeys(scenario: { [key: string]: JsonValue }): string[] {
  const notes: string[] = [];
  const slip = (place: string, key: string, known: readonly string[], more: number): void => {
    if (notes.length >= MAX_NOTES) return;
    const meant = nearestWord(key, known);
    const or = meant === null ? '' : `; did you mean ${meant}?`;
    const others = more === 0 ? '' : `, nor in ${more} more`;
    notes.push(`${place} has a key ${quote(key)} that simulate does not read${others}${or}`);
  };
  const all = (values: readonly JsonValue[], name: (i: number) => string, known: readonly string[]): void => {
    const isKnown = new Set(known);
    const slips = new Map<string, { first: number; more: number }>();
    for (let i = 0; i < values.length; i += 1) {
      const value = values[i] ?? null;
      if (!isObject(value)) continue;
      for (const key in value) {
        if (isKnown.has(key)) continue;
        const before = slips.get(key);
        if (before === undefined) slips.set(key, { first: i, more: 0 });
        else before.more += 1;
      }
    }
    for (const [key, { first, more }] of slips) slip(name(first), key, known, more);
  };
  const check = (place: string, value: JsonValue | undefined, known: readonly string[]): void =>
    all([value ?? null], () => place, known);
  const each = (place: string, list: JsonValue | undefined, known: readonly string[]): void => {
    if (Array.isArray(list)) all(list, (i) => `${place}[${i}]`, known);
  };
  const claim = (place: string, { port_requests }: { [key: string]: JsonValue }): void =>
    each(`${place}port_requests`, port_requests, ['spec', 'count', 'numa_policy']);
  check('the scenario', scenario, SCENARIO);
  check('config', scenario.config, CONFIG);
  each('devices', scenario.devices, DEVICE);
  each('host_cells', scenario.host_cells, ['id', 'socket']);
  if (isObject(scenario.sysfs)) {
    const addresses = Object.keys(scenario.sysfs);
    all(Object.values(scenario.sysfs), (i) => `sysfs[${quote(addresses[i] ?? '')}]`, SYSFS);
  }
  claim('', scenario);
  for (const [i, step] of (Array.isArray(scenario.steps) ? scenario.steps : []).entries()) {
    if (!isObject(step)) continue;
    check(`steps[${i}]`, step, STEPS[`${step.op}`] ?? []);
    each(`steps[${i}].devices`, step.devices, DEVICE);
    claim(`steps[${i}].`, step);
  }
  const unused = Array.isArray(scenario.steps) ? CLAIM.filter((k) => scenario[k] != null) : [];
  if (unused.length > 0) notes.push(`${unused.join(', ')} beside steps is not read: write it as a step`);
  return notes;
}
