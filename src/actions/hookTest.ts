/** `hook test FILE`: what prepare would do for this domain now, without doing it. */
import { effectiveArch, readDomainFacts } from '../domain/domainFacts.ts';
import { readDomainDevices } from '../domain/hostDevices.ts';
import { tooOld, tooOldText } from '../domain/version.ts';
import { readDomain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import { hookNote, liftedHereOnly, type PreviewedDevice, previewHook } from '../hook/preview.ts';
import type { Host } from '../host/host.ts';
import { installedVersions } from '../libvirt/versions.ts';
import { scanInventory } from '../pci/inventory.ts';
import { warning } from '../text/warning.ts';
import { emptyWarnings, type NetworkPool, networkPools } from './networkPools.ts';
import type { ActionOptions, Warned } from './options.ts';
import { type PrintedPlan, printedPlan } from './plan.ts';

export type HookTest = Warned & {
  domain: { name: string; uuid: string | null };
  devices: { address: string; kind: string; managed: boolean; driver: string | null; will_be: string }[];
  /** Networks whose pool may turn out to be of host devices: known at start only. */
  networks: string[];
  /** The same networks, as libvirt has them now. The hook itself asks no libvirt. */
  network_pools: NetworkPool[];
  /** Whether libvirt runs hostdev's hook at all. */
  hook_runs: boolean;
  plan: PrintedPlan;
};

const NO_PLAN: PrintedPlan = { devices: [], steps: [], refusals: [] };

/** The column WILL BE of a device that the hook binds to no driver. */
const WILL_BE: Record<Exclude<PreviewedDevice['fate'], 'bound'>, string> = {
  libvirt: 'bound by libvirt',
  stays: 'left alone',
  ignored: 'ignored: unmanaged = "ignore"',
  unknown: 'not known',
};

/** Raises what prepare would raise, with the plan in the error's data. */
export async function testHook(
  host: Host,
  xml: Uint8Array,
  what: string,
  options: ActionOptions,
  connect: string | null,
): Promise<HookTest> {
  const whole = readDomain(xml, what);
  const domain = readDomainDevices(whole);
  const inventory = scanInventory(host);
  const preview = await previewHook(host, inventory, domain, options);
  const plan = preview.plan === null ? null : printedPlan({ host }, preview.plan, preview.refusals);
  const [first] = preview.objections;
  if (first !== undefined) {
    const { code, message, hint, data } = first.error;
    throw new HostdevError(code, message, { hint, data: plan === null ? data : { ...data, plan } });
  }
  const networks = await networkPools(host, domain.networks, connect);
  const versions = await installedVersions(host, effectiveArch(readDomainFacts(whole)));
  const takesDevices = domain.devices.length > 0 || networks.pools.some((p) => p.pool === true);
  const note = domain.devices.length === 0 ? null : hookNote(preview);
  return {
    domain: { name: domain.name, uuid: domain.uuid },
    devices: preview.devices.map(({ listed, device, fate, driver }) => ({
      address: listed.address,
      kind: listed.kind,
      managed: listed.managed,
      driver: device?.driver ?? null,
      will_be: driver ?? WILL_BE[fate === 'bound' ? 'unknown' : fate],
    })),
    networks: domain.networks,
    network_pools: networks.pools,
    hook_runs: preview.runs,
    plan: plan ?? NO_PLAN,
    warnings: [
      ...(note === null ? [] : [note]),
      ...inventory.warnings,
      ...preview.warnings,
      ...liftedHereOnly(preview),
      ...networks.warnings,
      ...emptyWarnings(networks),
      ...(takesDevices ? tooOld(versions).map((v) => warning('libvirt-old', tooOldText(v))) : []),
    ],
  };
}
