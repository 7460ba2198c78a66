/**
 * The two ways in which requests get devices: from the pools alone, or as Placement allocates them first
 * ([filter_scheduler]pci_in_placement).
 */
import { type Candidate, Ledger } from '../placement/ledger.ts';
import type { ClaimOptions, PciTracker } from '../pool/tracker.ts';
import { NovaError } from './grammar/novaError.ts';
import type { PciRequest } from './grammar/request.ts';
import { viewOptions } from './hostPools.ts';
import type { PciSetup } from './setup.ts';

/** The name of a claim that is only tried. */
const NOBODY = 'claim -n';

export type Allocator = {
  supports(requests: readonly PciRequest[], options: ClaimOptions): boolean;
  claim(requests: readonly PciRequest[], options: ClaimOptions): string[][];
  providerOf(address: string): string | null;
};

/** `isolate`: in Placement every device from another provider. Raises what Placement refuses to be told. */
export function allocatorOf(setup: PciSetup, tracker: PciTracker, isolate: boolean): Allocator {
  if (!setup.config.pci.pci_in_placement) {
    return {
      supports: (requests, options) => tracker.isSupported(requests, options),
      claim: (requests, options) => tracker.claim(NOBODY, requests, options).byRequest,
      providerOf: () => null,
    };
  }
  const ledger = new Ledger(viewOptions(setup));
  const devices = tracker.devices();
  ledger.report(
    setup.specs.map((s) => s.value),
    devices,
  );
  tracker.assignProviders((d) => ledger.providerOf(d));
  const providers = new Map(devices.map((d) => [d.device.address, ledger.providerOf(d)]));
  // Placement offers candidates, the pools decide which of them they can serve.
  const find = (requests: readonly PciRequest[], options: ClaimOptions): Candidate | null =>
    ledger.findCandidate(requests, isolate, (units) => tracker.isSupported(requests, { ...options, units }));
  return {
    supports: (requests, options) => find(requests, options) !== null,
    claim: (requests, options) => {
      const units = find(requests, options);
      if (units === null)
        throw new NovaError('PciDeviceRequestFailed', 'Placement has no providers that serve all of it');
      return tracker.claim(NOBODY, requests, { ...options, units }).byRequest;
    },
    providerOf: (address) => providers.get(address) ?? null,
  };
}

/** How many devices a request alone could get, wherever the guest is; at most `limit`. */
export function mostOf(allocator: Allocator, request: PciRequest, limit: number): number {
  let [low, high] = [0, limit];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (allocator.supports([{ ...request, count: middle }], {})) low = middle;
    else high = middle - 1;
  }
  return low;
}
