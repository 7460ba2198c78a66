/**
 * What the specs of a configuration take on a host, and what is wrong with that: hidden specs, PFs beside their VFs,
 * what Placement and VFIO refuse.
 */
import { denylisted } from '../binding/drivers/denylist.ts';
import { type Finding, fatal, mistake, type Place, remark } from '../config/place.ts';
import type { Host } from '../host/host.ts';
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { vendorVfio } from '../pci/vendorVfio.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { computeProviders, isReported, type ViewOptions } from '../placement/view.ts';
import { fromInventory } from '../pool/device.ts';
import { poolKeys } from '../pool/pools.ts';
import { PciTracker, type TrackedDevice } from '../pool/tracker.ts';
import { type SpecDevice, SpecMatcher } from './grammar/deviceSpec.ts';
import { canonicalJson } from './grammar/json.ts';
import { NovaError } from './grammar/novaError.ts';
import { strictBool } from './grammar/values.ts';
import { viewOptions } from './hostPools.ts';
import type { PciSetup } from './setup.ts';

/** For what stands in no file. */
export const nowhere = (key: string): Place => ({ file: '', line: 0, column: 0, key });

/** How many addresses a message lists. */
const LISTED = 4;
const list = (addresses: readonly string[]): string =>
  `${addresses.slice(0, LISTED).join(', ')}${addresses.length > LISTED ? ` and ${addresses.length - LISTED} more` : ''}`;

/** Comparisons of a device with a spec that are worth a message about hidden specs. */
const MAX_COMPARISONS = 4_000_000;

export type Matched = {
  /** By spec: what it takes, what a spec before it takes instead. */
  devices: PciDevice[][];
  hidden: PciDevice[][];
  /** The spec that takes a device. */
  specOf: Map<string, number>;
  findings: Finding[];
};

/** Each device with the spec that takes it, and what is worth saying about specs that take none. */
export function matchAll(setup: PciSetup): Matched {
  const { specs, inventory, facts } = setup;
  const values = specs.map((s) => s.value);
  const matcher = new SpecMatcher(values, facts);
  const wantsSerial = values.some((s) => s.remote_managed);
  const asked = inventory.devices.map(
    (d): SpecDevice => ({ ...d, card_serial_number: wantsSerial ? facts.cardSerial(d.address) : null }),
  );
  const result: Matched = {
    devices: specs.map(() => []),
    hidden: specs.map(() => []),
    specOf: new Map(),
    findings: [],
  };
  for (const [n, device] of inventory.devices.entries()) {
    const { index, error } = matcher.match(asked[n] as SpecDevice);
    if (error !== null) result.findings.push(remark(nowhere(device.address), `is left out: ${error.message}`));
    if (index === null) continue;
    result.devices[index]?.push(device);
    result.specOf.set(device.address, index);
  }
  const alone = specs.length * inventory.devices.length <= MAX_COMPARISONS;
  for (const [index, { value, place }] of specs.entries()) {
    const taken = result.devices[index] ?? [];
    const one = alone ? new SpecMatcher([value], facts) : null;
    const all = inventory.devices.filter((_, n) => one?.match(asked[n] as SpecDevice).index === 0);
    result.hidden[index] = all.filter((d) => result.specOf.get(d.address) !== index);
    if (taken.length > 0) continue;
    const before = [...new Set(all.map((d) => result.specOf.get(d.address) ?? -1))];
    const names = before.map((b) => `${specs[b]?.place.key} (${specs[b]?.place.file}:${specs[b]?.place.line})`);
    result.findings.push(
      one === null
        ? remark(place, 'takes nothing here: it matches nothing, or specs before it go first')
        : all.length === 0
          ? remark(place, 'matches nothing here')
          : remark(
              place,
              `never counts here: all it matches (${list(all.map((d) => d.address))}) goes to ${names.slice(0, LISTED).join(', ')} before it`,
              { hint: 'The first spec that matches counts: put the narrower one first.' },
            ),
    );
  }
  return result;
}

/**
 * A PF excludes its VFs and they it: refused with report_in_placement (Nova's PlacementPciDependentDeviceException),
 * otherwise worth knowing.
 */
function pfAndVfs({ config, specs, inventory }: PciSetup, { specOf, devices }: Matched): Finding[] {
  const found = new Map<number, { pfs: string[]; other: number; vf: PciDevice; pf: PciDevice }>();
  const seen = new Set<string>();
  for (const [index, taken] of devices.entries()) {
    for (const vf of taken) {
      const pf = vf.parent_addr === null ? undefined : inventory.byAddress.get(vf.parent_addr);
      const other = pf === undefined ? undefined : specOf.get(pf.address);
      if (pf === undefined || other === undefined || seen.has(pf.address)) continue;
      if (config.pci.report_in_placement && [index, other].some((n) => specs[n]?.value.tags.physical_network)) continue;
      seen.add(pf.address);
      const later = Math.max(index, other);
      const entry = found.get(later);
      if (entry) entry.pfs.push(pf.address);
      else found.set(later, { pfs: [pf.address], other: Math.min(index, other), vf, pf });
    }
  }
  return [...found].map(([index, { pfs, other, pf, vf }]) => {
    const place = specs[index]?.place ?? nowhere('');
    const with_ =
      other === index
        ? ''
        : ` together with ${specs[other]?.place.key} (${specs[other]?.place.file}:${specs[other]?.place.line})`;
    const rule = config.pci.report_in_placement
      ? 'which cannot be reported to Placement'
      : 'and whichever is given out first excludes the other';
    return (config.pci.report_in_placement ? fatal : remark)(
      place,
      `takes ${pfs.length === 1 ? `the PF ${list(pfs)} and its` : `the PFs ${list(pfs)} and their`} VFs${with_}, ${rule}`,
      {
        hint: `Add "product_id": "${vf.product_id}" to take the VFs only, "${pf.product_id}" for the PF only.`,
      },
    );
  });
}

/** What else stands in Placement's way, each told once a spec; PFs beside VFs are told by {@link pfAndVfs}. */
function placementRefusals(setup: PciSetup, { specOf, devices }: Matched): Finding[] {
  const { config, specs, facts } = setup;
  if (!config.pci.report_in_placement) return [];
  const tracker = new PciTracker(
    specs.map((s) => s.value),
    fromInventory(devices.flat().filter((d) => !isBridge(d))),
    facts,
  );
  const byProvider = new Map<string, TrackedDevice[]>();
  for (const state of tracker.devices().filter((d) => isReported(d.tags))) {
    const name = state.device.parent_addr ?? state.device.address;
    byProvider.set(name, [...(byProvider.get(name) ?? []), state]);
  }
  const findings = new Map<string, Finding>();
  // One PF after the other would say the same.
  const tell = (state: TrackedDevice | undefined, kind: string, make: (place: Place) => Finding): void => {
    const place = specs[specOf.get(state?.device.address ?? '') ?? -1]?.place ?? nowhere('');
    const id = `${place.file}\0${place.key}\0${kind}`;
    if (!findings.has(id)) findings.set(id, make(place));
  };
  for (const states of byProvider.values()) {
    const refused = firstRefused(states, viewOptions(setup));
    if (refused !== null) {
      const { novaClass, message, hint } = refused.error;
      if (novaClass !== 'PlacementPciDependentDeviceException')
        tell(refused.state, novaClass, (place) => fatal(place, message, { hint }));
      continue;
    }
    const [first] = states;
    const other = states.find((s) => poolId(s) !== poolId(first));
    if (config.pci.pci_in_placement && other !== undefined)
      tell(other, 'split', (place) =>
        mistake(
          place,
          `${other.device.address} and ${first?.device.address} are VFs of one PF with different tags: Nova gives none of them out`,
          {
            hint: 'Give all VFs of a PF the same tags.',
          },
        ),
      );
  }
  return [...findings.values()];
}

const poolId = (s: TrackedDevice | undefined): string =>
  s === undefined ? '' : canonicalJson(poolKeys(s.device, s.tags));

/** The device with which a provider begins to be refused. */
function firstRefused(
  states: readonly TrackedDevice[],
  options: ViewOptions,
): { state: TrackedDevice | undefined; error: NovaError } | null {
  let error = refusalOf(states, options);
  if (error === null) return null;
  let [good, bad] = [0, states.length];
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    const e = refusalOf(states.slice(0, middle), options);
    if (e === null) good = middle;
    else [bad, error] = [middle, e];
  }
  return { state: states[bad - 1], error };
}

function refusalOf(states: readonly TrackedDevice[], options: ViewOptions): NovaError | null {
  try {
    computeProviders([], states, options);
    return null;
  } catch (e) {
    if (e instanceof NovaError) return e;
    throw e;
  }
}

/** Devices that VFIO will not take, whatever the configuration says. */
function hardDevices({ specs }: PciSetup, { devices }: Matched): Finding[] {
  const findings: Finding[] = [];
  for (const [index, taken] of devices.entries()) {
    const place = specs[index]?.place ?? nowhere('');
    const bridges = taken.filter(isBridge).map((d) => d.address);
    if (bridges.length > 0)
      findings.push(
        remark(place, `also takes bridges, which are not for guests: ${list(bridges)}`, {
          hint: 'Add a vendor_id and product_id.',
        }),
      );
    const denied = taken
      .filter((d) => denylisted(d.vendor_id ?? '', d.product_id ?? '') !== null)
      .map((d) => d.address);
    if (denied.length > 0)
      findings.push(
        remark(place, `takes devices that vfio-pci has on its denylist: ${list(denied)}`, {
          hint: 'Only with vfio_pci.disable_denylist=1 does the kernel hand them out.',
        }),
      );
  }
  return findings;
}

/**
 * The tag `managed` against the drivers that the devices are on: with none or "yes" libvirt takes a device from its
 * driver, which one whose own driver is its VFIO provider does not outlive; with "no" Nova gives it as it is, which a
 * device on a host driver is not fit for (Nova's documentation warns of crashes of the host).
 */
function managedTags(host: Host, { specs, config }: PciSetup, { devices }: Matched): Finding[] {
  return devices.flatMap((taken, index) => {
    const place = specs[index]?.place ?? nowhere('');
    const managed = strictBool(specs[index]?.value.tags.managed ?? null) ?? true;
    if (managed) {
      const vendors = taken.filter((d) => vendorVfio(host, d) !== null);
      const [one] = vendors;
      if (one === undefined) return [];
      const message = `does not say "managed": "no", and takes devices whose own driver (${one.driver}) is their VFIO provider: ${list(vendors.map((d) => d.address))}; libvirt would take them from it, which can crash the host`;
      return [mistake(place, message, { hint: 'Add "managed": "no".' })];
    }
    // Whoever has a hostdev.toml has the hook's settings there.
    if (config.form !== 'nova') return [];
    const onHost = taken.filter((d) => d.driver !== null && !isBridge(d) && !isVfioDriver(host, d.address, d.driver));
    if (onHost.length === 0) return [];
    const message = `says "managed": "no", and takes devices that are on host drivers: ${list(onHost.map((d) => `${d.address} (${d.driver})`))}; Nova gives them to a guest as they are, which can crash the host where no hook binds them`;
    return [remark(place, message, { hint: "Bind them ('hostdev bind'), or have hostdev's hook do it." })];
  });
}

/**
 * What is wrong, or worth knowing, about what the specs take together; `host` null: they are of a saved inventory,
 * which tells no VFIO provider.
 */
export const matchFindings = (host: Host | null, setup: PciSetup, matched: Matched): Finding[] => [
  ...(host === null ? [] : managedTags(host, setup, matched)),
  ...matched.findings,
  ...pfAndVfs(setup, matched),
  ...placementRefusals(setup, matched),
  ...hardDevices(setup, matched),
];
