/**
 * `simulate`: Nova's answers for one host that is described in a file (contract 7). It joins spec, pool and placement
 * as nova-compute and its scheduler do; what Nova gets wrong is answered rightly or with a clear error
 * (docs/reference/simulate.md).
 */

import type { AddressSpec } from '../nova/grammar/addressSpec.ts';
import { type Alias, type Aliases, parseAliases, viewAliases } from '../nova/grammar/alias.ts';
import { type DeviceSpec, parseDeviceSpecs, type SpecContext, SpecMatcher } from '../nova/grammar/deviceSpec.ts';
import { type ErrorView, type Note, NovaError } from '../nova/grammar/novaError.ts';
import { findAlias, type PciRequest, parsePolicy, parseRequest, resolveRequest } from '../nova/grammar/request.ts';
import { Ledger, type PlacementView } from '../placement/ledger.ts';
import type { GuestPlace, ProviderUnits } from '../pool/filters.ts';
import type { PoolView } from '../pool/pools.ts';
import { PciTracker, type TrackedDevice } from '../pool/tracker.ts';
import type { JsonObject, JsonValue } from '../text/json.ts';
import { type ClaimStep, type Scenario, type ScenarioStep, scenarioFacts } from './scenario.ts';

/** nova-compute's host name in the verdicts. */
const HYPERVISOR = 'cn1';

export type { PoolView };

type SpecView = Omit<DeviceSpec, 'address'> & { address: AddressSpec | null };
export type Report = PlacementView | { error: ErrorView };

/** What the guest's XML would need is beside the status: Nova keeps both with the device. */
type StatusView = { status: string; instance: string | null; managed?: JsonValue; live_migratable?: JsonValue };

export type StepVerdict = {
  op: ScenarioStep['op'];
  instance?: string;
  stage?: 'request' | 'support' | 'claim' | 'done';
  supported?: boolean;
  requests?: PciRequest[];
  devices?: string[];
  devices_by_request?: string[][];
  /** From which provider how many, in Placement. */
  rp?: Record<string, number>;
  error: ErrorView | null;
  pools_after: PoolView[];
  statuses: Record<string, StatusView>;
  placement_after?: Report;
};

export type Verdict = {
  id?: string;
  spec_error: ErrorView | null;
  alias_error: ErrorView | null;
  aliases: Record<string, Alias> | null;
  tracker_error?: ErrorView | null;
  specs?: SpecView[];
  devices?: { address: string; spec_index: number | null; tags: JsonObject | null; error: ErrorView | null }[];
  pools?: PoolView[];
  steps?: StepVerdict[];
  placement?: Report;
};

/**
 * The verdict, and what is worth saying beside it. Raises nothing but faults of ours: what is wrong with specs and
 * requests is in the verdict.
 */
export function simulate(scenario: Scenario): { verdict: Verdict; notes: string[] } {
  const simulation = new Simulation(scenario);
  return { verdict: simulation.run(), notes: simulation.notes };
}

/** The value, or the Nova error in its place. */
function attempt<T>(f: () => T): { value: T; error: null } | { value: null; error: NovaError } {
  try {
    return { value: f(), error: null };
  } catch (e) {
    if (e instanceof NovaError) return { value: null, error: e };
    throw e;
  }
}

/** The first device address that is none: Nova stumbles over it, where it only leaves out one beyond its limits. */
const malformedOf = (matches: readonly { error: NovaError | null }[]): NovaError | null =>
  matches.find((m) => m.error?.novaClass === 'PciDeviceWrongAddressFormat')?.error ?? null;

class Simulation {
  readonly notes: string[];
  readonly #scenario: Scenario;
  readonly #context: SpecContext;
  readonly #ledger: Ledger;
  #devices: Scenario['devices'];
  #specs: DeviceSpec[] = [];
  #aliases: Aliases = new Map();
  #aliasError: NovaError | null = null;

  constructor(scenario: Scenario) {
    this.#scenario = scenario;
    this.notes = [...scenario.notes];
    this.#devices = scenario.devices;
    const facts = scenarioFacts(scenario, () => this.#devices);
    this.#context = { facts, reportInPlacement: scenario.reportInPlacement };
    this.#ledger = new Ledger({ hypervisorHostname: HYPERVISOR, traitBlanks: scenario.traitBlanks });
  }

  run(): Verdict {
    const { id, deviceSpec, alias, pciInPlacement, steps, hasPlacement } = this.#scenario;
    const aliases = attempt(() => parseAliases(alias, pciInPlacement));
    this.#aliases = aliases.value ?? new Map();
    this.#aliasError = aliases.error;
    const specs = attempt(() => parseDeviceSpecs(deviceSpec, this.#context));
    const verdict: Verdict = {
      ...(id === null ? {} : { id }),
      spec_error: specs.error?.view() ?? null,
      alias_error: aliases.error?.view() ?? null,
      aliases: aliases.value === null ? null : viewAliases(aliases.value),
    };
    if (specs.value === null) return verdict;
    this.#specs = specs.value.specs;
    this.#say(specs.value.notes);
    const { facts } = this.#context;
    const all = new PciTracker(this.#specs, this.#devices, facts);
    this.#say(all.notes);
    // Nova's tracker gives up: nothing is offered until the address is right.
    const malformed = malformedOf(all.matches);
    const tracker = malformed === null ? all : new PciTracker(this.#specs, [], facts);
    const placement = this.#report(tracker);
    for (const rp of pciInPlacement ? tracker.splitProviders() : []) {
      this.notes.push(
        `tags split the VFs of ${rp} into several pools: Nova would give out none of them through Placement`,
      );
    }
    return {
      ...verdict,
      tracker_error: malformed?.view() ?? null,
      specs: this.#specs,
      devices: all.matches.map(({ device, specIndex, tags, error }) => ({
        address: device.address,
        spec_index: specIndex,
        tags,
        error: error?.view() ?? null,
      })),
      pools: tracker.pools(),
      ...(hasPlacement ? { placement } : {}),
      steps: steps.map((s) => this.#step(tracker, s)),
    };
  }

  #say(notes: readonly Note[]): void {
    // One by one: there may be more than a call takes arguments.
    for (const n of notes) this.notes.push(n.text);
  }

  #report(tracker: PciTracker): Report {
    if (!this.#scenario.reportInPlacement) return { error: null, rps: {}, allocations: {}, allocations_healed: false };
    const found = attempt(() => this.#ledger.report(this.#specs, tracker.devices()));
    if (found.error !== null) return { error: found.error.view() };
    tracker.assignProviders((d) => this.#ledger.providerOf(d));
    return found.value;
  }

  #step(tracker: PciTracker, step: ScenarioStep): StepVerdict {
    const done = step.op === 'claim' ? this.#claim(tracker, step) : { error: this.#other(tracker, step) };
    const placement = this.#report(tracker);
    return {
      op: step.op,
      ...('instance' in step ? { instance: step.instance } : {}),
      ...done,
      pools_after: tracker.pools(),
      statuses: Object.fromEntries(tracker.devices().map(statusOf)),
      ...(this.#scenario.hasPlacement ? { placement_after: placement } : {}),
    };
  }

  /** free and refresh. */
  #other(tracker: PciTracker, step: Exclude<ScenarioStep, ClaimStep>): ErrorView | null {
    const { error } = attempt(() => {
      if (step.op === 'free') {
        tracker.free(step.instance);
        this.#ledger.free(step.instance);
        return;
      }
      const before = this.#devices;
      this.#devices = step.devices ?? before;
      const parsed = attempt(() => this.#specsOf(step));
      if (parsed.value === null) {
        this.#devices = before;
        throw parsed.error;
      }
      this.#specs = parsed.value;
      const specs = step.deviceSpec === null ? {} : { specs: this.#specs, facts: this.#context.facts };
      tracker.refresh({ devices: this.#devices, ...specs });
      this.#say(tracker.notes);
    });
    return error?.view() ?? null;
  }

  /** The specs from a refresh on, once they are known to be good for its devices. */
  #specsOf({ deviceSpec }: Extract<ScenarioStep, { op: 'refresh' }>): DeviceSpec[] {
    const parsed = deviceSpec === null ? null : parseDeviceSpecs(deviceSpec, this.#context);
    const specs = parsed?.specs ?? this.#specs;
    const matcher = new SpecMatcher(specs, this.#context.facts);
    const malformed = malformedOf(this.#devices.map((d) => matcher.match(d)));
    if (malformed !== null) throw malformed;
    this.#say(parsed?.notes ?? []);
    return specs;
  }

  #claim(tracker: PciTracker, step: ClaimStep): Omit<StepVerdict, 'op' | 'pools_after' | 'statuses'> {
    const asked = attempt(() => this.#requests(step));
    if (asked.value === null) return { stage: 'request', error: asked.error.view() };
    const requests = asked.value;
    const place: GuestPlace = { numaCells: step.numaCells, hostCells: this.#scenario.hostCells };
    const { units, isSupported } = this.#schedule(tracker, step, requests, place);
    const base = { supported: isSupported, requests };
    if (!isSupported && !step.force) return { ...base, stage: 'support', error: null };
    if (units !== null) this.#ledger.allocate(step.instance, units);
    const claimed = attempt(() =>
      tracker.claim(step.instance, requests, { place, spread: step.spread, ...(units === null ? {} : { units }) }),
    );
    if (claimed.value === null) {
      if (units !== null) this.#ledger.free(step.instance);
      return { ...base, stage: 'claim', error: claimed.error.view() };
    }
    const { byRequest } = claimed.value;
    return {
      ...base,
      stage: 'done',
      devices: byRequest.flat(),
      devices_by_request: byRequest,
      ...(units === null ? {} : { rp: totals(units) }),
      error: null,
    };
  }

  /** The flavor's requests, then the ports'. */
  #requests(step: ClaimStep): PciRequest[] {
    const flavor: PciRequest[] = [];
    // Nova reads the policy before it looks at the aliases.
    const policy = parsePolicy(step.affinityPolicy);
    if (step.request !== null) {
      if (this.#aliasError !== null) throw this.#aliasError;
      // An unknown name goes before a later part that is no request; commands tell what is no request first (exit 2
      // before 4).
      parseRequest(step.request, (name) => findAlias(this.#aliases, name));
      const { requests, notes } = resolveRequest(step.request, this.#aliases, step.affinityPolicy);
      this.#say(notes);
      flavor.push(...requests);
    }
    const ports = step.portRequests.map((p): PciRequest => {
      if (p.count < 0) throw new NovaError('ValueError', `The count of a port request is ${p.count}`);
      return {
        alias_name: null,
        count: p.count,
        numa_policy: p.numa_policy === null ? policy : parsePolicy(p.numa_policy),
        spec: p.spec,
      };
    });
    return [...flavor, ...ports];
  }

  /** The scheduler's part: whether the host can serve the requests, and in Placement from which providers. */
  #schedule(
    tracker: PciTracker,
    step: ClaimStep,
    requests: PciRequest[],
    place: GuestPlace,
  ): { isSupported: boolean; units: ProviderUnits[] | null } {
    const { spread } = step;
    if (!this.#scenario.pciInPlacement)
      return { isSupported: tracker.isSupported(requests, { place, spread }), units: null };
    // Neutron's requests are not in Placement.
    const asked = requests.map((r) => (r.alias_name === null ? null : r));
    const units = this.#ledger.findCandidate(asked, step.groupPolicy === 'isolate', (candidate) =>
      tracker.isSupported(requests, { place, units: candidate }),
    );
    return { isSupported: units !== null, units };
  }
}

function statusOf({ device, status, consumer, tags }: TrackedDevice): [string, StatusView] {
  const { managed = null, live_migratable: live = null } = tags;
  const kept = { ...(managed === null ? {} : { managed }), ...(live === null ? {} : { live_migratable: live }) };
  return [device.address, { status, instance: consumer, ...kept }];
}

function totals(units: readonly ProviderUnits[]): Record<string, number> {
  const all = new Map<string, number>();
  for (const one of units) for (const [name, n] of one ?? []) all.set(name, (all.get(name) ?? 0) + n);
  return Object.fromEntries(all);
}
