/**
 * `domain plan`: a domain's XML with devices of this host in it, or without them again. Reads the host and changes
 * nothing on it.
 */
import { checkDomain } from '../domain/checkDomain.ts';
import { addDevices, readBootOrders, removeDevices, unfit } from '../domain/device/devices.ts';
import { SINCE } from '../domain/device/fragments.ts';
import { onOneSlot } from '../domain/device/hotplug.ts';
import { freeTargets } from '../domain/device/nvmeDisk.ts';
import { type DomainFacts, readDomainFacts } from '../domain/domainFacts.ts';
import { type DomainDevice, type DomainDevices, readDomainDevices } from '../domain/hostDevices.ts';
import type { Finding } from '../domain/rules/rules.ts';
import { formatVersion, type Version, type Versions } from '../domain/version.ts';
import { removeViommu, setViommu } from '../domain/viommu/edit.ts';
import { isViommuWish, suggestViommu, VIOMMU_WISHES, type ViommuWish } from '../domain/viommu/suggest.ts';
import { type Domain, readDomain } from '../domain/xml/domain.ts';
import { formatXml, LIBVIRT_LAYOUT } from '../domain/xml/write.ts';
import { HostdevError } from '../errors.ts';
import type { Preview } from '../hook/preview.ts';
import type { Host } from '../host/host.ts';
import type { PciSetup, SetupOptions } from '../nova/setup.ts';
import { type Address, canonicalAddress } from '../pci/address.ts';
import { type Inventory, scanInventory } from '../pci/inventory.ts';
import { resolveDevice } from '../pci/resolve.ts';
import { fixText } from '../text/finding.ts';
import { quote } from '../text/safe.ts';
import { sentence } from '../text/sentence.ts';
import { type Warning, warning } from '../text/warning.ts';
import type { ClaimWish } from './claim.ts';
import { behindInterfaces } from './domainNic.ts';
import { type Picked, pickDevices } from './domainPick.ts';
import { type Added, addedDevice, askHook, namedDevices, peersOf, type Taken, type TakeRequest } from './domainTake.ts';
import { type AskedVersions, readVersions, type ShownVersions } from './domainVersions.ts';
import type { ActionOptions, Warned } from './options.ts';
import { hostIommu } from './viommuSuggest.ts';

export type DomainPlanRequest = TakeRequest &
  AskedVersions & {
    /** Words of contract 2, or addresses of what the domain takes. */
    remove: readonly string[];
    /** Devices from the pools; null: none. */
    pick: ClaimWish | null;
    /** The libvirt that says what of the pools is not free; null: this machine's, where one listens. */
    connect: string | null;
    /** The files that pools and devices come from. */
    setup: SetupOptions;
    /** A wish of {@link VIOMMU_WISHES} or 'none', as typed; null leaves what is there. */
    viommu: string | null;
  };

/** A device element for `virsh attach-device`, as a file of its own. */
type Fragment = { address: Address; kind: 'hostdev' | 'interface' | 'disk'; unassigned: boolean; xml: string };

export type DomainPlan = Warned & {
  domain: { name: string; uuid: string | null };
  /** In the order in which they can be plugged in: peers that only leave the host come first. */
  fragments: Fragment[];
  removed: { address: Address; kind: DomainDevice['kind'] }[];
  /** What each alias got; empty where none was asked for. */
  requests: Picked['requests'];
  /** The host's NUMA nodes that the guest is on, as they counted for the aliases. */
  numa_nodes: number[];
  /** What was put in, and why; null when none was asked for. */
  viommu: { model: string; reasons: string[]; notes: string[] } | null;
  versions: ShownVersions;
  /** The whole domain, edited. */
  xml: string;
};

const BOM = [0xef, 0xbb, 0xbf];

/**
 * Plans the change of a domain's XML (`what` names the file). Raises HOSTDEV_XML, HOSTDEV_DEVICE_ABSENT or _AMBIGUOUS,
 * HOSTDEV_GUARD for a bridge or a peer that the host needs, HOSTDEV_GROUP_NOT_VIABLE, HOSTDEV_DOMAIN_UNFIT for what the
 * domain has already or cannot take, HOSTDEV_USAGE for words that are none, and for aliases what {@link pickDevices}
 * raises. With a saved inventory nothing is asked of `host`.
 */
export async function planDomain(
  thisHost: Host,
  bytes: Uint8Array,
  what: string,
  request: DomainPlanRequest,
  options: ActionOptions,
): Promise<DomainPlan> {
  const bom = BOM.every((b, i) => bytes[i] === b);
  const { plan } = await planEdit(thisHost, readDomain(bytes, what), request, options, false);
  return bom ? { ...plan, xml: `\uFEFF${plan.xml}` } : plan;
}

/** A plan, with what it was made of. */
type Edit = { plan: DomainPlan; before: DomainDevices; added: Added[]; preview: Preview | null; facts: DomainFacts };

/**
 * {@link planDomain} of a domain that has been read. With `running` it is one that has its devices already, and the
 * hook is asked only for those that are put in. `facts` are those of the domain as it will be.
 */
export async function planEdit(
  thisHost: Host,
  asked: Domain,
  request: DomainPlanRequest,
  options: ActionOptions,
  running: boolean,
): Promise<Edit> {
  const wish = readWish(request.viommu);
  const before = readDomainDevices(asked);
  const host = request.setup.inventory === null ? thisHost : null;
  const { versions, shown } = await readVersions(host, readDomainFacts(asked), request);
  const { setup, inventory } = await readDevices(thisHost, request);
  const warnings = [...(setup ?? inventory).warnings];
  const removed = request.remove.map((word) => listedDevice(host, inventory, before, word));
  const rest = removeDevices(
    asked,
    removed.map((d) => d.address),
  );
  const domain = readDomainDevices(rest);
  const facts = readDomainFacts(rest);
  const under = host === null ? [] : behindInterfaces(host, inventory, facts);
  const named = namedDevices(host, inventory, domain, under, request);
  const held = [
    ...[...domain.devices, ...under].map((d) => ({ address: d.address, consumer: `domain ${domain.name}` })),
    ...named.map((d) => ({ address: d.address, consumer: 'this plan' })),
  ];
  const picked =
    setup === null || request.pick === null
      ? NONE
      : await pickDevices(setup, host, facts, held, request.pick, request.connect, warnings);
  const taken: Taken[] = [...named.map((device) => ({ device, managed: null })), ...picked.taken];
  checkSingle(taken, request);
  if (taken.length > 0) checkFit(rest, facts, request);
  if (taken.length > 0) checkVersions(request, versions);
  const target = freeTargets(facts);
  const single = taken.map((t) => addedDevice(host, t, request, target, warnings));
  const added = request.oneSlot ? onOneSlot(facts, single) : single;
  added.push(...peersOf(host, inventory, domain, added, request, warnings));
  if (added.some((a) => a.unassigned))
    need(versions, SINCE.unassigned, "<address type='unassigned'/>", 'Name the peers.');
  if (host === null && added.length > 0)
    warnings.push(
      warning('not-measured', 'the devices are of a saved inventory: whether their host needs them is not known'),
    );
  const withDevices = addDevices(
    rest,
    added.map((a) => a.element),
  );
  const { planned, viommu } = withViommu(host, withDevices, versions, wish);
  // What we hand out is read once more as libvirt would read it.
  const then = readDomainDevices(planned);
  const own = new Set(added.map((a) => a.device.address));
  const judged = running ? { ...then, devices: then.devices.filter((d) => own.has(d.address)) } : then;
  const preview = host === null ? null : await askHook(host, inventory, judged, added, options, warnings);
  warnings.push(...newFindings(asked, planned, versions));
  const plan = {
    domain: { name: domain.name, uuid: domain.uuid },
    fragments: added.map(fragment).sort((a, b) => Number(b.unassigned) - Number(a.unassigned)),
    removed: removed.map(({ address, kind }) => ({ address, kind })),
    requests: picked.requests,
    numa_nodes: picked.numa_nodes,
    viommu,
    versions: shown,
    xml: planned.text,
    warnings,
  };
  return { plan, before, added, preview, facts: readDomainFacts(planned) };
}

const NONE: Picked = { requests: [], numa_nodes: [], taken: [] };

/**
 * The devices to plan with; the pools' setup only where it is asked for, because all of the configuration comes with
 * it.
 */
async function readDevices(
  host: Host,
  { pick, setup }: DomainPlanRequest,
): Promise<{ setup: (PciSetup & Warned) | null; inventory: Inventory }> {
  if (pick !== null) {
    const { usableSetup } = await import('../nova/setup.ts');
    const read = await usableSetup(host, setup);
    return { setup: read, inventory: read.inventory };
  }
  if (setup.inventory === null) return { setup: null, inventory: scanInventory(host) };
  const { bytes, file, maxBytes } = setup.inventory;
  const { readSavedInventory } = await import('../pci/savedInventory.ts');
  return { setup: null, inventory: readSavedInventory(bytes, file, maxBytes) };
}

/** Options that name one place or address. */
function checkSingle(taken: readonly Taken[], { boot, nic }: DomainPlanRequest): void {
  if (taken.length < 2) return;
  const one = (option: string, hint: string): HostdevError =>
    new HostdevError('HOSTDEV_USAGE', `${option} is for one device, and this plan has ${taken.length}`, { hint });
  if (boot !== null) throw one('--boot', 'Plan the devices one after the other, each with its place.');
  if (nic?.mac) throw one('--mac', 'Plan the interfaces one after the other, each with its MAC.');
}

function readWish(word: string | null): ViommuWish | 'none' | null {
  if (word === null || word === 'none' || isViommuWish(word)) return word;
  throw new HostdevError('HOSTDEV_USAGE', `--viommu ${quote(word)}: there is no such model`, {
    hint: `There are: ${VIOMMU_WISHES.join(', ')}, none.`,
  });
}

/** Raises HOSTDEV_DOMAIN_UNFIT when libvirt is known and older than `since`: it would drop the thing without a word. */
function need({ libvirt }: Versions, since: Version, thing: string, hint: string): void {
  if (libvirt !== null && libvirt < since)
    throw unfit(`${thing} needs libvirt ${formatVersion(since)}, and this is ${formatVersion(libvirt)}`, hint);
}

function checkVersions({ model, rom, nic }: DomainPlanRequest, versions: Versions): void {
  if (model !== null)
    need(
      versions,
      SINCE.model,
      `<driver model='${model}'/>`,
      "Leave --driver out; with --managed no 'hostdev bind --driver' does it.",
    );
  if (rom !== null && 'enabled' in rom) need(versions, SINCE.romEnabled, "<rom enabled='no'/>", 'Give --rom off.');
  if (nic?.shape === 'vdpa') need(versions, SINCE.vdpa, "<interface type='vdpa'>", 'Give --vnic direct.');
}

/** Where the devices are of this host, its IOMMU's width counts, whatever libvirt is meant. */
function withViommu(
  host: Host | null,
  domain: Domain,
  versions: Versions,
  wish: ViommuWish | 'none' | null,
): { planned: Domain } & Pick<DomainPlan, 'viommu'> {
  if (wish === null) return { planned: domain, viommu: null };
  if (wish === 'none') return { planned: removeViommu(domain), viommu: null };
  const s = suggestViommu(readDomainFacts(domain), versions, host && hostIommu(host), wish);
  if (s.kind === 'refusal')
    throw unfit(`No vIOMMU ${wish} for this domain: ${s.reason} (${s.rule})`, sentence(`${s.fix}.`));
  return { planned: setViommu(domain, s), viommu: { model: s.model, reasons: s.reasons, notes: s.notes } };
}

/** Lines change with an edit, so what is new is told by how often each rule is broken. */
function brokenRules(domain: Domain, versions: Versions): Map<string, Finding[]> {
  const rules = new Map<string, Finding[]>();
  for (const f of checkDomain(readDomainFacts(domain), versions)) rules.set(f.rule, [...(rules.get(f.rule) ?? []), f]);
  return rules;
}

/**
 * What the edit breaks of the rules of `domain check`, as warnings. Raises HOSTDEV_DOMAIN_UNFIT when libvirt would
 * refuse the edited domain for it; what was broken before is none of ours.
 */
function newFindings(before: Domain, after: Domain, versions: Versions): Warning[] {
  const known = brokenRules(before, versions);
  const found = [...brokenRules(after, versions)].flatMap(([rule, f]) => f.slice(known.get(rule)?.length ?? 0));
  const refused = found.find((f) => f.stage === 'define');
  if (refused)
    throw unfit(
      `libvirt would refuse it: ${refused.where}: ${refused.cause} (${refused.rule})`,
      sentence(`${fixText(refused)}.`),
    );
  return found
    .filter((f) => f.stage !== 'advice')
    .map((f) =>
      warning('domain-rule', `${f.where}: ${f.cause}, so the guest will not start: ${fixText(f)} (${f.rule})`),
    );
}

const fragment = ({ device, unassigned, element }: Added): Fragment => ({
  address: device.address,
  kind: element.name as Fragment['kind'],
  unassigned,
  xml: `${formatXml(element, LIBVIRT_LAYOUT)}\n`,
});

/** A device that the domain takes; it need not be on this host any more when its address is given. */
function listedDevice(host: Host | null, inventory: Inventory, domain: DomainDevices, word: string): DomainDevice {
  const address = canonicalAddress(word) ?? resolveDevice(host, inventory, word).address;
  const device = domain.devices.find((d) => d.address === address);
  if (device) return device;
  throw unfit(`Domain ${domain.name} does not take ${address}`, domainTakes(domain));
}

const domainTakes = (domain: DomainDevices): string =>
  domain.devices.length === 0
    ? 'It takes no PCI device.'
    : `It takes ${domain.devices.map((d) => `${d.address} (${d.where})`).join(', ')}.`;

/** What the domain itself says about devices more. */
function checkFit(domain: Domain, { type }: DomainFacts, { boot }: DomainPlanRequest): void {
  if (type !== '' && !['kvm', 'qemu', 'test'].includes(type))
    throw unfit(`The domain's type is '${type}': PCI devices go to guests of QEMU by VFIO`, 'Use type kvm or qemu.');
  if (boot === null) return;
  const { byOs, taken } = readBootOrders(domain);
  if (byOs)
    throw unfit(
      "The domain says <boot dev> in <os>: libvirt refuses a device's own <boot order> beside it",
      'Take <boot dev> out of <os> and give its devices <boot order>, or leave --boot out.',
    );
  const by = taken.get(boot);
  if (by !== undefined)
    throw unfit(`Boot order ${boot} is taken by ${by}`, `Free is ${firstFree(taken)}; or change that one first.`);
}

function firstFree(taken: ReadonlyMap<number, string>): number {
  let order = 1;
  while (taken.has(order)) order += 1;
  return order;
}
