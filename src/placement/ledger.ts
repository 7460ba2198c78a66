/**
 * Placement's own books for the providers of one host, as far as Nova's view of PCI devices depends on them:
 * inventories, traits, allocations, and the answers 409 and 400. Its order of candidates is a guess of the real
 * server's: by provider name.
 */

import type { DeviceSpec } from '../nova/grammar/deviceSpec.ts';
import { NovaError } from '../nova/grammar/novaError.ts';
import type { PciRequest } from '../nova/grammar/request.ts';
import type { ProviderUnits } from '../pool/filters.ts';
import type { TrackedDevice } from '../pool/tracker.ts';
import { resourceClass, traitNames } from './names.ts';
import { computeProviders, isReported, type Provider, providerName, type ViewOptions } from './view.ts';

type ResourceInventory = { total: number; max_unit: number; reserved?: number };
export type ProviderView = { inventory: Record<string, ResourceInventory>; traits: string[] };

/** What contract 7 prints of Placement. */
export type PlacementView = {
  error: null;
  rps: Record<string, ProviderView>;
  /** By consumer, provider, class. */
  allocations: Record<string, Record<string, Record<string, number>>>;
  /** Whether this report had to set allocations that nobody made in Placement. */
  allocations_healed: boolean;
};

type Book = { resourceClass: string; inventory: ResourceInventory; traits: string[] };
type Use = { resourceClass: string; units: number };
type Allocation = Map<string, Use>;

/**
 * One set of devices from Placement: how many from which provider, for each request; null for one that takes nothing
 * from it.
 */
export type Candidate = ProviderUnits[];

/** A host has few cards, and a request few devices: what is not found by then is not looked for further. */
const MAX_TRIED = 20_000;
const MAX_UNITS = 2000;

export class Ledger {
  readonly #options: ViewOptions;
  #books = new Map<string, Book>();
  readonly #allocations = new Map<string, Allocation>();

  constructor(options: ViewOptions) {
    this.#options = options;
  }

  /**
   * Reports all devices, as Nova does at its start and now and then. Raises what {@link computeProviders} raises, and
   * PlacementPciException for 409; then nothing is changed.
   */
  report(specs: readonly DeviceSpec[], devices: readonly TrackedDevice[]): PlacementView {
    const providers = computeProviders(specs, devices, this.#options);
    const books = new Map<string, Book>();
    const uses = this.#uses();
    for (const provider of providers.values())
      books.set(provider.name, this.#bookOf(provider, uses.get(provider.name)));
    for (const [name, book] of this.#books) {
      // Still used, though no configured device is left: the class and traits of before.
      const used = uses.get(name)?.units ?? 0;
      if (used > 0 && !books.has(name)) books.set(name, { ...book, inventory: { total: used, max_unit: used } });
    }
    this.#books = new Map([...books].sort(([a], [b]) => (a < b ? -1 : 1)));
    const healed = this.#heal(providers);
    return { error: null, rps: this.#viewBooks(), allocations: this.#viewAllocations(), allocations_healed: healed };
  }

  /** The provider of a device in this ledger, null for one that is not reported. */
  providerOf({ device, namedTags }: TrackedDevice): string | null {
    return isReported(namedTags) ? providerName(device, this.#options.hypervisorHostname) : null;
  }

  allocate(consumer: string, candidate: Candidate): void {
    const allocation: Allocation = this.#allocations.get(consumer) ?? new Map();
    for (const taken of candidate) {
      for (const [name, units] of taken ?? []) {
        const before = allocation.get(name)?.units ?? 0;
        const cls = this.#books.get(name)?.resourceClass ?? '';
        allocation.set(name, { resourceClass: cls, units: before + units });
      }
    }
    this.#allocations.set(consumer, allocation);
  }

  free(consumer: string): void {
    this.#allocations.delete(consumer);
  }

  /**
   * The first set of providers that Placement can serve these requests from and that passes `test`; null when there is
   * none. A request is null when Placement is not asked for it (neutron's). With `isIsolated` every unit comes from
   * another provider, of all requests. The first providers by name are filled first.
   */
  findCandidate(
    requests: readonly (PciRequest | null)[],
    isIsolated: boolean,
    test: (candidate: Candidate) => boolean,
  ): Candidate | null {
    const uses = this.#uses();
    const left = new Map(
      [...this.#books].map(([name, { inventory: i }]) => [
        name,
        Math.max(0, i.total - (i.reserved ?? 0) - (uses.get(name)?.units ?? 0)),
      ]),
    );
    const wants = requests.map((r) => (r === null ? [] : this.#providersFor(r)));
    const most = (name: string): number => (isIsolated ? Math.min(1, left.get(name) ?? 0) : (left.get(name) ?? 0));
    const isHopeless = requests.some((r, i) => {
      const all = wants[i]?.reduce((sum, name) => sum + most(name), 0) ?? 0;
      return r !== null && (r.count > all || r.count > MAX_UNITS);
    });
    if (isHopeless) return null;
    const filled = requests.map(() => new Map<string, number>());
    let tried = 0;
    let candidate: Candidate | null = null;
    const fill = (request: number, units: number, from: number): boolean => {
      if (request >= requests.length) {
        candidate = filled.map((m) => (m.size === 0 ? null : m));
        return test(candidate);
      }
      const [names, taken] = [wants[request] ?? [], filled[request] ?? new Map<string, number>()];
      if (units === 0) return fill(request + 1, requests[request + 1]?.count ?? 0, 0);
      for (let i = from; i < names.length; i += 1) {
        const name = names[i] ?? '';
        const free = left.get(name) ?? 0;
        for (let n = Math.min(units, most(name)); n > 0 && tried < MAX_TRIED; n -= 1) {
          tried += 1;
          taken.set(name, n);
          left.set(name, isIsolated ? 0 : free - n);
          if (fill(request, units - n, i + 1)) return true;
          left.set(name, free);
          taken.delete(name);
        }
      }
      return false;
    };
    return fill(0, requests[0]?.count ?? 0, 0) ? candidate : null;
  }

  #providersFor(request: PciRequest): string[] {
    const spec = request.spec[0] ?? {};
    const text = (key: string): string | null => (typeof spec[key] === 'string' ? (spec[key] as string) : null);
    const cls = resourceClass(text('resource_class'), text('vendor_id'), text('product_id'));
    const traits = traitNames(text('traits'), this.#options.traitBlanks);
    const serves = (b: Book): boolean => b.resourceClass === cls && traits.every((t) => b.traits.includes(t));
    return [...this.#books].filter(([, b]) => serves(b)).map(([name]) => name);
  }

  /** What all consumers have of each provider; of one class, which a provider keeps while it is used. */
  #uses(): ReadonlyMap<string, Use> {
    const uses: Allocation = new Map();
    for (const a of this.#allocations.values()) {
      for (const [name, { resourceClass: cls, units }] of a)
        uses.set(name, { resourceClass: cls, units: units + (uses.get(name)?.units ?? 0) });
    }
    return uses;
  }

  /** The inventory of before is kept with what an operator reserved in it, as long as the total is the same. */
  #bookOf(provider: Provider, used: Use | undefined): Book {
    const { name } = provider;
    const before = this.#books.get(name);
    if (used !== undefined && used.resourceClass !== provider.resource_class) {
      throw new NovaError(
        'PlacementPciException',
        `${name}: ${used.resourceClass} is in use and cannot become ${provider.resource_class}`,
        { hint: 'Free the devices that are in use first, or configure them as before.' },
      );
    }
    const total = Math.max(provider.devices.length, used?.units ?? 0);
    const isSame = before?.resourceClass === provider.resource_class && before.inventory.total === total;
    const isTaken = provider.oneTimeUse && provider.devices.some((d) => d.consumer !== null);
    const reserved = isTaken ? total : isSame ? before.inventory.reserved : undefined;
    return {
      resourceClass: provider.resource_class,
      inventory: { total, max_unit: total, ...(reserved === undefined ? {} : { reserved }) },
      traits: provider.traits,
    };
  }

  /** What instances hold but have no allocation for, as after the switch to Placement. */
  #heal(providers: ReadonlyMap<string, Provider>): boolean {
    let healed = false;
    for (const provider of providers.values()) {
      const held = new Map<string, number>();
      for (const { consumer } of provider.devices) {
        if (consumer !== null) held.set(consumer, (held.get(consumer) ?? 0) + 1);
      }
      for (const [consumer, units] of held) {
        const allocation: Allocation = this.#allocations.get(consumer) ?? new Map();
        if (allocation.get(provider.name)?.units === units) continue;
        allocation.set(provider.name, { resourceClass: provider.resource_class, units });
        this.#allocations.set(consumer, allocation);
        healed = true;
      }
    }
    return healed;
  }

  #viewBooks(): Record<string, ProviderView> {
    return Object.fromEntries(
      [...this.#books].map(([name, b]) => [name, { inventory: { [b.resourceClass]: b.inventory }, traits: b.traits }]),
    );
  }

  #viewAllocations(): PlacementView['allocations'] {
    const used = [...this.#allocations].filter(([, a]) => a.size > 0);
    return Object.fromEntries(
      used.map(([consumer, a]) => [
        consumer,
        Object.fromEntries([...a].map(([name, u]) => [name, { [u.resourceClass]: u.units }])),
      ]),
    );
  }
}
