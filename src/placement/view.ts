/**
 * What Placement is told of a host's devices, computed without a server: providers, inventories, traits, and every
 * refusal (nova/compute/pci_placement_translator.py of 33.0.0).
 */

import type { DeviceSpec } from '../nova/grammar/deviceSpec.ts';
import { NovaError } from '../nova/grammar/novaError.ts';
import type { PoolDevice } from '../pool/device.ts';
import type { TrackedDevice } from '../pool/tracker.ts';
import type { JsonObject } from '../text/json.ts';
import { quote } from '../text/safe.ts';
import { resourceClass, type TraitBlanks, traitNames } from './names.ts';

/** One resource provider as configured: a PCI device or a PF, or the PF whose VFs it stands for. */
export type Provider = {
  name: string;
  resource_class: string;
  /** All traits that are reported, sorted. */
  traits: string[];
  devices: TrackedDevice[];
  /** One device or PF, and no VFs. */
  isWhole: boolean;
  oneTimeUse: boolean;
};

export type ViewOptions = {
  /** The compute node, in front of every provider's name. */
  hypervisorHostname: string;
  traitBlanks: TraitBlanks;
};

/** Placement's limit of a provider's name. */
const MAX_NAME = 200;
/** Nova owns the provider and, since 2026, says so. */
const ALWAYS = ['COMPUTE_MANAGED_PCI_DEVICE', 'OWNER_NOVA'];

const isChild = (device: PoolDevice): boolean => device.dev_type === 'type-VF' || device.dev_type === 'vdpa';

/**
 * The provider that a device is reported on: itself, or the PF of a VF. Raises PlacementPciException for a VF whose PF
 * is not known.
 */
export function providerName(device: PoolDevice, hypervisorHostname: string): string {
  const address = isChild(device) ? device.parent_addr : device.address;
  if (address) return `${hypervisorHostname}_${address.toUpperCase()}`;
  throw refusal(`${device.address} is a ${device.dev_type} whose PF is not known`);
}

const refusal = (message: string, hint?: string): NovaError =>
  new NovaError('PlacementPciException', message, hint === undefined ? {} : { hint });

/**
 * Placement knows nothing of a device that has a physical_network (neutron's), nor of one that no spec names any more.
 */
export const isReported = (tags: JsonObject | null): tags is JsonObject => tags !== null && !tags.physical_network;

/**
 * All providers by name, in order of the devices' addresses. Raises PlacementPciException and its kin where Nova would
 * not start: a devname in any spec, a PF beside its VFs, VFs of one PF with different classes or traits, one_time_use
 * on a VF.
 */
export function computeProviders(
  specs: readonly DeviceSpec[],
  devices: readonly TrackedDevice[],
  options: ViewOptions,
): Map<string, Provider> {
  const named = specs.find((s) => s.devname);
  if (named !== undefined) {
    throw refusal(
      `The device_spec with devname ${quote(named.devname)} cannot be reported to Placement`,
      'Name the device by its address.',
    );
  }
  const providers = new Map<string, Provider>();
  for (const state of devices) {
    const { namedTags: tags } = state;
    if (!isReported(tags)) continue;
    const name = providerName(state.device, options.hypervisorHostname);
    if (name.length > MAX_NAME) throw refusal(`The provider name ${quote(name)} is longer than ${MAX_NAME} characters`);
    const one = providerOf(name, state, tags, options);
    const before = providers.get(name);
    if (before === undefined) providers.set(name, one);
    else join(before, one, state);
    if (isChild(state.device) && Object.hasOwn(tags, 'one_time_use')) {
      throw refusal(`${state.device.address} is a VF, and only whole devices and PFs can have the tag one_time_use`);
    }
  }
  return providers;
}

const textTag = (tags: JsonObject, key: string, address: string): string | null => {
  const value = tags[key] ?? null;
  if (value === null || typeof value === 'string') return value;
  throw refusal(`The tag ${key} of ${address} is ${quote(value)}, not a text`, `Write it in quotes.`);
};

/** Worked out once a spec: a card's VFs share its tags, and every step reports them again. */
const knownTraits = new WeakMap<JsonObject, { blanks: TraitBlanks; traits: string[] }>();

function traitsOf(tags: JsonObject, address: string, blanks: TraitBlanks): string[] {
  const known = knownTraits.get(tags);
  if (known?.blanks === blanks) return known.traits;
  const all = [
    ...ALWAYS,
    ...traitNames(textTag(tags, 'traits', address), blanks),
    ...(tags.live_migratable === 'true' ? ['HW_PCI_LIVE_MIGRATABLE'] : []),
    ...(tags.one_time_use === 'true' ? ['HW_PCI_ONE_TIME_USE'] : []),
  ];
  const traits = [...new Set(all)].sort();
  knownTraits.set(tags, { blanks, traits });
  return traits;
}

function providerOf(name: string, state: TrackedDevice, tags: JsonObject, options: ViewOptions): Provider {
  const { device } = state;
  return {
    name,
    resource_class: resourceClass(textTag(tags, 'resource_class', device.address), device.vendor_id, device.product_id),
    traits: traitsOf(tags, device.address, options.traitBlanks),
    devices: [state],
    isWhole: !isChild(device),
    oneTimeUse: tags.one_time_use === 'true',
  };
}

function join(before: Provider, one: Provider, state: TrackedDevice): void {
  const { address } = state.device;
  const others = before.devices.map((d) => d.device.address).join(', ');
  if (before.isWhole || one.isWhole) {
    const message = `Both ${address} and ${others} are configured: a PF and its VFs cannot both be reported to Placement`;
    throw new NovaError('PlacementPciDependentDeviceException', message);
  }
  const differ = (what: string, a: string, b: string): string =>
    `VFs of one PF have different ${what}: ${b} for ${address} and ${a} for ${others}`;
  if (before.resource_class !== one.resource_class) {
    const message = differ('resource classes', before.resource_class, one.resource_class);
    throw new NovaError('PlacementPciMixedResourceClassException', message);
  }
  if (before.traits !== one.traits && before.traits.join() !== one.traits.join()) {
    const message = differ('traits', before.traits.join(','), one.traits.join(','));
    throw new NovaError('PlacementPciMixedTraitsException', message);
  }
  before.devices.push(state);
}
