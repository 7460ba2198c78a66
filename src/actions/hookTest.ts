/** `hook test FILE`: what prepare would do for this domain now, without doing it. */
import { refuse } from '../binding/guards.ts';
import { observing } from '../binding/session.ts';
import { readDomainDevices } from '../domain/hostDevices.ts';
import { readDomain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import { checkFunctions, checkIommu, checkViability, domainOwner, findDevices } from '../hook/check.ts';
import { concerned, planPrepare } from '../hook/prepare.ts';
import { hookPolicy } from '../hook/run.ts';
import type { Host } from '../host/host.ts';
import { scanInventory } from '../pci/inventory.ts';
import type { ActionOptions, Warned } from './options.ts';
import { type PrintedPlan, printedPlan } from './plan.ts';

export type HookTest = Warned & {
  domain: { name: string; uuid: string | null };
  devices: { address: string; kind: string; managed: boolean; driver: string | null; will_be: string }[];
  /** Networks whose pool may turn out to be of host devices: known at start only. */
  networks: string[];
  plan: PrintedPlan;
};

/** A domain that was never defined has no UUID; any will do to ask what would happen. */
const NOBODY = '00000000-0000-0000-0000-000000000000';

/** Raises what prepare would raise, with the plan in the error's data. */
export async function testHook(host: Host, xml: Uint8Array, what: string, options: ActionOptions): Promise<HookTest> {
  const read = readDomainDevices(readDomain(xml, what));
  const policy = await hookPolicy(host);
  const domain = concerned({ ...read, uuid: read.uuid ?? NOBODY }, policy);
  const inventory = scanInventory(host);
  const devices = findDevices(inventory, domain);
  const listedDevices = devices.map((d) => d.device);
  checkIommu(host, listedDevices);
  checkFunctions(host, inventory, listedDevices);
  return observing(host, options, async (work) => {
    const plan = await planPrepare(
      work,
      devices,
      { owner: domainOwner(domain), name: domain.name, managed: false, libvirt: null },
      options.allowed,
      policy,
    );
    const printed = printedPlan(work, plan.bind, plan.refusals);
    withPlan(printed, () => {
      refuse(plan.refusals);
      checkViability(host, inventory, domain);
    });
    const target = new Map(plan.bind.devices.map((d) => [d.device.address, d.target.driver]));
    return {
      domain: { name: domain.name, uuid: read.uuid },
      devices: devices.map(({ listed, device }) => ({
        address: device.address,
        kind: listed.kind,
        managed: listed.managed,
        driver: device.driver,
        will_be: target.get(device.address) ?? (listed.managed ? 'bound by libvirt' : 'left alone'),
      })),
      networks: domain.networks,
      plan: printed,
      warnings: [...inventory.warnings, ...plan.warnings],
    };
  });
}

function withPlan(plan: PrintedPlan, check: () => void): void {
  try {
    check();
  } catch (e) {
    if (e instanceof HostdevError)
      throw new HostdevError(e.code, e.message, { hint: e.hint, data: { ...e.data, plan } });
    throw e;
  }
}
