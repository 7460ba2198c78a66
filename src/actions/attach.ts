/**
 * `attach`: devices into a guest, the one that runs and what it is kept as. libvirt calls no hook on hot-plug and
 * refuses devices of managed='no' that are not on VFIO, so the hook's work is done here first: the same preview, guards
 * and books. Then what is kept, read back; then the guest that runs, read back. What fails undoes all of it; an answer
 * that was lost undoes nothing before it was observed.
 */
import { ownName } from '../addon/process.ts';
import { plugOf, readBinding } from '../binding/books.ts';
import { witness } from '../binding/guests.ts';
import { unfit } from '../domain/device/devices.ts';
import { freePorts } from '../domain/device/hotplug.ts';
import { memlockNeeded } from '../domain/device/memlock.ts';
import { dropped, ownAlias, pluggedElements, withAlias } from '../domain/device/plugged.ts';
import { readDomainFacts } from '../domain/domainFacts.ts';
import { type DomainDevices, readDomainDevices } from '../domain/hostDevices.ts';
import { readDomain } from '../domain/xml/domain.ts';
import { formatXml, LIBVIRT_LAYOUT, type XmlElement } from '../domain/xml/write.ts';
import { HostdevError } from '../errors.ts';
import { hookPolicy } from '../hook/policy.ts';
import { prepareDevices } from '../hook/prepare.ts';
import type { Host } from '../host/host.ts';
import type { CallFault, Guest, Which } from '../libvirt/guest.ts';
import type { Address } from '../pci/address.ts';
import { scanInventory } from '../pci/inventory.ts';
import { resolveDevice } from '../pci/resolve.ts';
import type { Deadline } from '../store/locks.ts';
import { safe } from '../text/safe.ts';
import type { Warning, WarningId } from '../text/warning.ts';
import { planEdit } from './domainPlan.ts';
import { type Added, type TakeRequest, takesFunction } from './domainTake.ts';
import type { ActionOptions, Warned } from './options.ts';
import { type PrintedPlan, printedPlan } from './plan.ts';
import {
  type AskedHalves,
  endHolds,
  endOptions,
  halvesOf,
  holdUnmoved,
  markPlug,
  namedOnce,
  ownerOf,
  refuseOthers,
  withGuest,
} from './plug.ts';
import { outOf } from './plugOut.ts';

export type AttachRequest = TakeRequest & AskedHalves & { guest: string; connect: string | null };

/** What has become of a device in one half: put in, or in it before; null: that half is not meant. */
type Outcome = 'attached' | 'already' | null;

export type AttachedDevice = {
  address: Address;
  alias: string;
  managed: boolean;
  /** Taken from the host with the others of its group, and not shown to the guest. */
  unassigned: boolean;
  live: Outcome;
  config: Outcome;
};

export type Attached = Warned & {
  changed: boolean;
  guest: { name: string; uuid: string };
  devices: AttachedDevice[];
  /** What is bound first; of a dry run what would be. */
  plan: PrintedPlan;
  /** Of the guest that runs: ports that are free before; what it may lock of its memory then, in KiB. */
  free_ports: number | null;
  memlock_kib: number | null;
};

/** One device and the element by which it is to be had. */
type Part = { address: Address; element: XmlElement; xml: string; added: Added };

/** What is to be put into one half. */
type Half = { which: Which; parts: Part[]; already: Address[] };

const EMPTY_PLAN: PrintedPlan = { devices: [], steps: [], refusals: [] };

/**
 * Raises HOSTDEV_GUEST_ABSENT, HOSTDEV_DOMAIN_UNFIT, as {@link planEdit} and {@link prepareDevices}, HOSTDEV_LIBVIRT
 * for what libvirt refuses (then all is as it was), HOSTDEV_LIBVIRT_DROPPED for what it took and did not keep,
 * HOSTDEV_PLUG_PENDING when it is not known whether the guest has the device.
 */
export const attachDevices = (host: Host, request: AttachRequest, options: ActionOptions): Promise<Attached> =>
  withGuest(host, request.connect, request.guest, options, async (guest, deadline) => {
    const { seen } = guest;
    const warnings: Warning[] = [];
    const inventory = scanInventory(host);
    const addresses = namedOnce(request.add, (word) => resolveDevice(host, inventory, word).address);
    refuseOthers(host, ownerOf(seen), addresses);
    const halves: Half[] = [];
    const answer: Attached = {
      changed: false,
      guest: { name: seen.name, uuid: seen.uuid },
      devices: [],
      plan: EMPTY_PLAN,
      free_ports: null,
      memlock_kib: null,
      warnings,
    };
    for (const which of halvesOf(seen, request)) {
      const now = which === 'live' ? seen.live : seen.kept;
      if (now === null) throw new HostdevError('HOSTDEV_GUEST_ABSENT', `Guest ${safe(seen.name)} has ended meanwhile`);
      const has = new Set([...now.devices.devices.map((d) => d.address), ...pluggedElements(now.domain).keys()]);
      const add = addresses.filter((a) => !has.has(a));
      const half: Half = { which, parts: [], already: addresses.filter((a) => has.has(a)) };
      halves.push(half);
      if (add.length === 0) continue;
      // virDomainPCIAddressEnsureAddr, qemu_hotplug.c.
      if (request.oneSlot && which === 'live')
        throw unfit(
          'libvirt plugs only function 0 into a guest that runs: no --one-slot there',
          'Give --config, or leave --one-slot out.',
        );
      const whole = { ...NO_EDIT, ...request, add };
      const { plan, added, preview, facts } = await planEdit(host, now.domain, whole, options, seen.active);
      // That nobody binds it is of the next start: here this command does.
      const about = plan.warnings.filter((w) => which === 'config' || !LEFT.includes(w.id));
      for (const w of about) if (!warnings.some((o) => o.text === w.text)) warnings.push(w);
      half.parts = added
        .map((a): Part => {
          const element = withAlias(a.element, a.device.address);
          return { address: a.device.address, element, xml: formatXml(element, LIBVIRT_LAYOUT), added: a };
        })
        .sort((a, b) => Number(b.added.unassigned) - Number(a.added.unassigned));
      if (which === 'live') {
        answer.free_ports = freePorts(readDomainFacts(now.domain));
        answer.memlock_kib = memlockNeeded(facts).kib;
        if (preview?.plan) answer.plan = printedPlan({ host }, preview.plan);
      } else if (preview?.runs === false && half.parts.some((p) => !p.added.managed && takesFunction(p.added))) {
        // The next start would fail for want of who binds it.
        throw new HostdevError(
          'HOSTDEV_HOOK_MISSING',
          `No hook of hostdev's runs here, and managed='no' needs it at the next start`,
          {
            hint: "Run 'hostdev hook install' first, give --managed yes, or --live alone.",
          },
        );
      }
    }
    answer.devices = devicesOf(halves);
    answer.changed = halves.some((h) => h.parts.length > 0);
    if (options.dryRun || !answer.changed) return { ...answer, changed: answer.changed && !options.dryRun };
    const live = halves.find((h) => h.which === 'live');
    const config = halves.find((h) => h.which === 'config');
    const work = new Attaching(host, guest, deadline, options, warnings);
    await work.run(live?.parts ?? [], config?.parts ?? []);
    return answer;
  });

/** Of what is left to the admin, where no hook does it (hook/preview.ts). */
const LEFT: readonly WarningId[] = ['hook-missing', 'hook-ignores'];

const NO_EDIT = {
  remove: [],
  pick: null,
  setup: { config: [], inventory: null },
  viommu: null,
  libvirt: null,
  qemu: null,
};

function devicesOf(halves: readonly Half[]): AttachedDevice[] {
  const all = new Map<Address, AttachedDevice>();
  for (const { which, parts, already } of halves) {
    for (const { address, added } of parts) {
      const known = all.get(address) ?? fresh(address, added.managed, added.unassigned);
      all.set(address, { ...known, managed: added.managed, [which]: 'attached' });
    }
    for (const address of already)
      all.set(address, { ...(all.get(address) ?? fresh(address, false, false)), [which]: 'already' });
  }
  return [...all.values()];
}

const fresh = (address: Address, managed: boolean, unassigned: boolean): AttachedDevice => ({
  address,
  alias: ownAlias(address),
  managed,
  unassigned,
  live: null,
  config: null,
});

/** Carries it out, and undoes it. */
class Attaching {
  readonly #host: Host;
  readonly #guest: Guest;
  readonly #deadline: Deadline;
  readonly #options: ActionOptions;
  readonly #warnings: Warning[];
  /** What was put in so far, by half. */
  readonly #done: { which: Which; part: Part }[] = [];
  /** Devices that have the guest's hold by now. */
  #held: Address[] = [];
  /** Those of them that have it only until what the guest is kept as is whole. */
  #unmoved: Address[] = [];

  constructor(host: Host, guest: Guest, deadline: Deadline, options: ActionOptions, warnings: Warning[]) {
    this.#host = host;
    this.#guest = guest;
    this.#deadline = deadline;
    this.#options = options;
    this.#warnings = warnings;
  }

  async run(live: readonly Part[], config: readonly Part[]): Promise<void> {
    try {
      await this.#bind(
        live.filter((p) => takesFunction(p.added)),
        config.length > 0,
      );
      await this.#holdKept(config);
      for (const part of config) await this.#put('config', part);
      for (const part of live) await this.#put('live', part);
    } catch (e) {
      if (e instanceof HostdevError && e.code === 'HOSTDEV_PLUG_PENDING') throw e;
      throw await this.#undo(e);
    }
    if (this.#unmoved.length > 0) await endHolds(this.#host, this.#owner, this.#unmoved, this.#session);
    const moved = this.#held.filter((a) => !this.#unmoved.includes(a));
    if (moved.length > 0) this.#warnings.push(...(await markPlug(this.#host, this.#owner, moved, null, this.#session)));
  }

  get #owner() {
    return ownerOf(this.#guest.seen);
  }

  get #session() {
    return endOptions(this.#options, this.#deadline);
  }

  /** The hook's prepare for these devices alone. */
  async #bind(parts: readonly Part[], kept: boolean): Promise<void> {
    if (parts.length === 0) return;
    const { seen } = this.#guest;
    const domain = domainOf(this.#guest, parts);
    const owner = this.#owner;
    const addresses = parts.map((p) => p.address);
    const plug = plugOf('attaching', ownName(), { live: true, kept });
    const hold = { owner, name: seen.name, managed: false, libvirt: null, plug };
    const policy = { ...(await hookPolicy(this.#host)), unmanaged: 'bind' as const };
    const inventory = scanInventory(this.#host);
    const ready = (): void => refuseOthers(this.#host, owner, addresses);
    const options = { ...this.#options, deadlineMs: this.#deadline.left };
    const prepared = await prepareDevices(
      this.#host,
      inventory,
      domain,
      hold,
      this.#options.allowed,
      options,
      policy,
      ready,
    );
    this.#held = [...addresses];
    for (const w of prepared.warnings) if (!this.#warnings.some((o) => o.text === w.text)) this.#warnings.push(w);
  }

  /** Of several that are only kept: all of them, or none, wherever it ends. */
  async #holdKept(config: readonly Part[]): Promise<void> {
    const only = config.filter((p) => takesFunction(p.added)).map((p) => p.address);
    const addresses = only.filter((a) => !this.#held.includes(a));
    if (addresses.length < 2) return;
    const plug = plugOf('attaching', ownName(), { live: false, kept: true });
    const options = { ...this.#options, deadlineMs: this.#deadline.left };
    this.#warnings.push(...(await holdUnmoved(this.#host, this.#guest.seen, addresses, plug, options)));
    this.#unmoved = addresses;
    this.#held.push(...addresses);
  }

  /** One device into one half, read back. */
  async #put(which: Which, part: Part): Promise<void> {
    if (this.#options.signal?.aborted)
      throw new HostdevError('HOSTDEV_INTERRUPTED', `Interrupted before ${part.address} was put in; all was put back`);
    const fault = await this.#guest.attach(which, part.xml);
    if (fault !== null && !fault.lost) throw fault.error;
    const element = await this.#observed(which, part, fault);
    if (element === null) throw fault?.error ?? droppedError(part, which, ['all of it']);
    this.#done.push({ which, part });
    const lost = dropped(part.element, element);
    if (lost.length > 0) throw droppedError(part, which, lost);
  }

  /**
   * The device as the guest has it; null when it has it not, for certain. Raises HOSTDEV_PLUG_PENDING where that cannot
   * be told: libvirt may still be at it.
   */
  async #observed(which: Which, part: Part, fault: CallFault | null) {
    const late = fault?.error.code === 'HOSTDEV_LIBVIRT_LATE';
    try {
      const half = await this.#guest.half(which);
      const element = half === null ? undefined : pluggedElements(half.domain).get(part.address);
      if (element !== undefined) return element;
    } catch (e) {
      throw pending(part.address, which, e);
    }
    if (fault === null) return null;
    if (late || (which === 'live' && (await this.#isHeld(part.address))))
      throw pending(part.address, which, fault.error);
    return null;
  }

  /** A libvirtd that was killed in the middle does not know what its QEMU has. */
  async #isHeld(address: Address): Promise<boolean> {
    const b = readBinding(this.#host, address);
    if (b === null) return false;
    const look = await witness(this.#host, [b], this.#deadline.left, true);
    return look.holders(b).length > 0;
  }

  /** All of it back, the last first; then the error that led to it, or one that says what is left. */
  async #undo(first: unknown): Promise<unknown> {
    const left: string[] = [];
    for (const { which, part } of [...this.#done].reverse()) {
      const stays = await outOf(this.#guest, which, part, this.#deadline);
      if (stays !== null)
        left.push(
          `${part.address} is still in ${which === 'live' ? 'the running guest' : 'what the guest is kept as'}: ${stays.why}`,
        );
    }
    const inGuest = new Set(this.#done.filter((d) => d.which === 'live').map((d) => d.part.address));
    const back = left.length === 0 ? this.#held : this.#held.filter((a) => !inGuest.has(a));
    try {
      if (back.length > 0) {
        const { warnings } = await endHolds(this.#host, this.#owner, back, this.#session);
        left.push(...warnings.filter((w) => w.id === 'stale-hold').map((w) => w.text));
      }
    } catch (e) {
      left.push((e as Error).message);
    }
    if (left.length === 0) return first;
    return new HostdevError(
      'HOSTDEV_UNDO_INCOMPLETE',
      `${first instanceof Error ? first.message : String(first)}; and not put back: ${left.join('; ')}`,
      { cause: first, hint: "See 'hostdev status'; 'hostdev detach' takes it out of the guest." },
    );
  }
}

/** The guest with these devices alone, as prepare takes it. */
function domainOf({ seen }: Guest, parts: readonly Part[]): DomainDevices {
  const text = formatXml(
    {
      name: 'domain',
      children: [{ name: 'devices', children: parts.map((p) => p.added.element) }],
    },
    LIBVIRT_LAYOUT,
  ).replace('<domain>', '<domain><name>attach</name>');
  return { ...readDomainDevices(readDomain(text, `guest ${safe(seen.name)}`)), name: seen.name, uuid: seen.uuid };
}

const droppedError = ({ address }: Part, which: Which, what: readonly string[]): HostdevError =>
  new HostdevError(
    'HOSTDEV_LIBVIRT_DROPPED',
    `${address}: libvirt took it into ${which === 'live' ? 'the running guest' : 'what the guest is kept as'} without ${what.join(', ')}`,
    { data: { dropped: what } },
  );

const pending = (address: Address, which: Which, why: unknown): HostdevError =>
  new HostdevError(
    'HOSTDEV_PLUG_PENDING',
    `${address}: whether the ${which === 'live' ? 'running guest' : "guest's next start"} has it is not known: ${why instanceof Error ? why.message : String(why)}`,
    { cause: why },
  );
