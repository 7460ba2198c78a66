/**
 * The one answer to "what would the hook do for this domain now": `hook test`, `domain check`, `domain plan` and
 * whoever attaches a device ask it, and what they make of it is theirs. It goes prepare's way, through the same
 * functions and in the same order, but collects what prepare would raise and changes nothing.
 */
import type { BindPlan } from '../binding/bind.ts';
import { liftedFor } from '../binding/guards/allowances.ts';
import type { Guard, Refusal } from '../binding/guards.ts';
import type { Lifted } from '../binding/journal.ts';
import { onVfio, type Work } from '../binding/perform.ts';
import { foreseeing, observing, type Session, type SessionOptions } from '../binding/session.ts';
import type { DomainDevice, DomainDevices } from '../domain/hostDevices.ts';
import { type ErrorCode, HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Inventory, PciDevice } from '../pci/inventory.ts';
import { refuseUnsafe } from '../store/ours.ts';
import { type Warning, type WarningId, warning } from '../text/warning.ts';
import { domainOwner, lookAtDevices, type Missing, type Objection } from './check.ts';
import { type HookProblem, type HookStatus, hookStatus } from './install.ts';
import { concerned, type HookPolicy, hookPolicy } from './policy.ts';
import { objectionsTo, type PreparePlan, planPrepare } from './prepare.ts';
import { hookProgram } from './program.ts';

/**
 * What becomes of a device: `bound` by the hook, to `driver`; bound by `libvirt` (managed='yes'); it `stays` on its
 * VFIO driver; it is `ignored` (`[hook] unmanaged = "ignore"`); what becomes of it is `unknown`.
 */
type Fate = 'bound' | 'libvirt' | 'stays' | 'ignored' | 'unknown';

export type PreviewedDevice = {
  listed: DomainDevice;
  /** Null where the host does not have it. */
  device: PciDevice | null;
  fate: Fate;
  /** The driver that the hook binds it to; else null. */
  driver: string | null;
  /** It is on a VFIO driver now. */
  ready: boolean;
};

/** An objection of which `open` says that whoever asks may not look where the hook, as root, would. */
type PreviewedObjection = Objection & { open: boolean };

export type Preview = {
  /** What of the hook libvirt would run; null when that may not be read. */
  hook: HookStatus | null;
  /** libvirt runs it. False where it is not installed or not executable: then nobody does what is foretold here. */
  runs: boolean;
  unmanaged: HookPolicy['unmanaged'];
  /** All that the domain lists, in its order. */
  devices: PreviewedDevice[];
  /** What would stop the guest, in prepare's order: prepare raises the first. */
  objections: PreviewedObjection[];
  /** The guards' refusals behind the objection of kind `guard`. */
  refusals: Refusal[];
  /** The devices behind the objection of kind `device`. */
  missing: Missing[];
  /** Guards lifted by `allowed` alone: no `[[allow]]` of hostdev.toml does it for the hook. */
  liftedHere: Lifted[];
  /** What would be bound, and how; null where it could not be planned, or there is nothing for the hook to do. */
  plan: BindPlan | null;
  warnings: Warning[];
};

export type PreviewOptions = SessionOptions & { allowed: ReadonlySet<Guard> };

/** The owner of what a domain without a UUID would hold: it was never defined, and holds nothing yet. */
const NOBODY = '00000000-0000-0000-0000-000000000000';

/** With these the native part of the hook stops every guest that has host devices. */
const STOPS: readonly HookProblem['id'][] = ['no-conf', 'no-node', 'no-cli', 'other-root'];

/** With these libvirt runs no hook at all, or one that does nothing. */
const ABSENT: readonly HookProblem['id'][] = ['missing', 'not-executable', 'removed'];

/** A policy that could not be read lifts no guard. */
const STRICT: HookPolicy = { unmanaged: 'bind', allowances: [] };

/**
 * Asks what prepare would do for a domain now, on the host that `inventory` is of. `allowed` are guards that whoever
 * asks lifts for himself; the hook itself knows only hostdev.toml. Raises HOSTDEV_INTERRUPTED, and the kernel's own
 * errors where something cannot be read that prepare needs.
 */
export async function previewHook(
  host: Host,
  inventory: Inventory,
  domain: DomainDevices,
  options: PreviewOptions,
): Promise<Preview> {
  const hook = await collected<HookStatus>(() => hookStatus(host, hookProgram()));
  const status = 'value' in hook ? hook.value : null;
  const found: Preview = {
    hook: status,
    runs: status === null || !status.problems.some((p) => ABSENT.includes(p.id)),
    unmanaged: STRICT.unmanaged,
    devices: [],
    objections: [],
    refusals: [],
    missing: [],
    liftedHere: [],
    plan: null,
    warnings: [],
  };
  if (domain.devices.length === 0) return found;
  const object = (kind: Objection['kind'], addresses: string[], error: HostdevError | null): void => {
    if (error !== null) found.objections.push(judged(host, { kind, addresses, error }));
  };
  object('hook', [], found.runs ? stopping(status) : null);
  const state = await collected(() => refuseUnsafe(host));
  if ('error' in state && isHidden(state.error)) notKnown(found, state.error);
  else object('state', [], 'error' in state ? state.error : null);
  const read = await collected(() => hookPolicy(host));
  object('config', [], 'error' in read ? read.error : null);
  const policy = 'value' in read ? read.value : STRICT;
  found.unmanaged = policy.unmanaged;
  const mine = concerned({ ...domain, uuid: domain.uuid ?? NOBODY }, policy);
  if (mine.devices.length > 0) await lookAt(host, inventory, mine, policy, options, found);
  found.devices = domain.devices.map((listed) => {
    const device = inventory.byAddress.get(listed.address) ?? null;
    const ready = device !== null && onVfio(host, listed.address);
    const driver = found.plan?.devices.find((d) => d.device.address === listed.address)?.target.driver ?? null;
    const ours = mine.devices.includes(listed);
    return { listed, device, ready, driver, fate: fateOf(found, listed, device, ours, driver) };
  });
  return found;
}

function fateOf(
  { plan, unmanaged }: Preview,
  listed: DomainDevice,
  device: PciDevice | null,
  ours: boolean,
  driver: string | null,
): Fate {
  if (!ours) return 'ignored';
  if (driver !== null) return 'bound';
  if (listed.managed) return 'libvirt';
  return device === null || (plan === null && unmanaged === 'bind') ? 'unknown' : 'stays';
}

/** What prepare would find and do for the devices that are its affair. */
async function lookAt(
  host: Host,
  inventory: Inventory,
  domain: DomainDevices,
  policy: HookPolicy,
  options: PreviewOptions,
  found: Preview,
): Promise<void> {
  const first = lookAtDevices(host, inventory, domain);
  found.missing = first.missing;
  const owner = domainOwner(domain);
  const addresses = first.devices.map((d) => d.device.address);
  const hold = { owner, name: domain.name, managed: false, libvirt: null };
  const add = (objections: readonly Objection[]): void => {
    found.objections.push(...objections.map((o) => judged(host, o)));
  };
  add(first.objections);
  const planned = await inSession(host, inventory, { addresses, owner }, options, found, async (work, now) => {
    const { devices } = lookAtDevices(host, now, domain);
    return { now, plan: await collected(() => planPrepare(work, devices, hold, options.allowed, policy)) };
  });
  if ('error' in planned) add([{ kind: 'unfinished', addresses, error: planned.error }]);
  const { now, plan } = 'value' in planned ? planned.value : { now: inventory, plan: null };
  if (plan !== null && 'error' in plan) add([{ kind: 'driver', addresses, error: plan.error }]);
  const made = plan !== null && 'value' in plan ? plan.value : null;
  add(objectionsTo(host, now, domain, made ?? { notBound: [], refusals: [] }));
  if (made === null) return;
  found.plan = made.bind;
  found.refusals = made.refusals;
  found.warnings.push(...made.warnings);
  found.liftedHere = liftedHere(made, policy, hold);
}

function liftedHere(
  { lifted, bind }: PreparePlan,
  { allowances }: HookPolicy,
  hold: Parameters<typeof liftedFor>[2],
): Lifted[] {
  return [...lifted, ...bind.lifted].filter((l) => !liftedFor(allowances, l.address, hold).has(l.guard));
}

/** Runs `look` as prepare would find the host, once what is unfinished was put right. */
async function inSession<T>(
  host: Host,
  inventory: Inventory,
  asked: { addresses: string[]; owner: string },
  options: SessionOptions,
  found: Preview,
  look: (work: Work, inventory: Inventory) => Promise<T>,
): Promise<Outcome<T>> {
  const then = (session: Session): Promise<T> => {
    found.warnings.push(...session.recovered);
    return look(session.work, session.inventory);
  };
  const foreseen = await collected(() => foreseeing(host, inventory, asked, options, then));
  if ('value' in foreseen || !isHidden(foreseen.error)) return foreseen;
  notKnown(found, foreseen.error);
  return collected(() => observing(host, options, (work) => look({ ...work, inventory }, inventory)));
}

/** Whoever asks may not look there; the hook, which is root's, may. */
const isHidden = (error: HostdevError): boolean => error.code === 'HOSTDEV_NOT_PERMITTED';

/** The journal and the folders beside it are root's: the rest of the answer is given without them. */
function notKnown({ warnings }: Preview, error: HostdevError): void {
  const text = `without root an unfinished change is not known: ${error.message}`;
  if (!warnings.some((w) => w.text === text)) warnings.push(warning('not-measured', text));
}

/** What the native part says where it cannot start hostdev. */
function stopping(status: HookStatus | null): HostdevError | null {
  const [first] = status?.problems.filter((p) => STOPS.includes(p.id)) ?? [];
  if (first === undefined) return null;
  return new HostdevError('HOSTDEV_HOOKS', first.text, { hint: "Run 'hostdev hook install' again." });
}

/** Says of an objection whether it may be only that whoever asks is not root. */
function judged(host: Host, objection: Objection): PreviewedObjection {
  const { error } = objection;
  const isRoot = !host.isReal || process.geteuid?.() === 0;
  const refusals = (error.data.refusals ?? []) as Refusal[];
  const blind = refusals.length > 0 && refusals.every((r) => r.guard === 'not-measured');
  return { ...objection, open: isHidden(error) || (!isRoot && blind) };
}

type Outcome<T> = { value: T } | { error: HostdevError };

/** What of an answer no objection is made. */
const PASSED_ON: readonly ErrorCode[] = ['HOSTDEV_INTERRUPTED', 'HOSTDEV_INTERNAL'];

async function collected<T>(ask: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await ask() };
  } catch (e) {
    if (e instanceof HostdevError && !PASSED_ON.includes(e.code)) return { error: e };
    throw e;
  }
}

/**
 * What a person should know of the hook itself: whoever shows a preview says it too. Null when it is as it should be.
 */
export function hookNote({ hook, runs }: Pick<Preview, 'hook' | 'runs'>): Warning | null {
  const [first] = hook?.problems ?? [];
  if (hook === null) return warning('not-measured', 'whether the hook is installed may not be read');
  if (first === undefined) return null;
  return runs
    ? warning('hook-not-ready', first.text)
    : warning('hook-missing', `no hook of hostdev's runs here: ${first.text}`);
}

/** What --allow lifts for whoever asks, and not for the hook. */
export const liftedHereOnly = ({ liftedHere }: Preview): Warning[] =>
  liftedHere.map(({ address, guard }) =>
    warning(
      'hook-refuses',
      `${address}: --allow=${guard} counts here only; for the hook write an [[allow]] into hostdev.toml`,
      address,
    ),
  );

/** Why nobody binds devices of managed='no' for the guest, and what is to be done. */
export type LeftToAdmin = { id: Extract<WarningId, 'hook-ignores' | 'hook-missing'>; cause: string; fix: string };

/**
 * What must be bound by hand before the guest starts, because no hook does it here; null when there is nothing. That
 * it is done by then is the admin's to see to, so it is no objection. `which` are the devices that it is asked of.
 */
export function leftToAdmin(preview: Preview, which: (d: PreviewedDevice) => boolean): LeftToAdmin | null {
  const { devices, unmanaged, runs } = preview;
  const left = devices.filter((d) => d.device !== null && !d.listed.managed && !d.ready && which(d));
  if (left.length === 0 || (runs && unmanaged !== 'ignore')) return null;
  const on = left.map((d) => `${d.listed.address} is on ${d.device?.driver ?? 'no driver'}`).join(', ');
  const bind = `'hostdev bind ${left.map((d) => d.listed.address).join(' ')}' before the guest starts`;
  if (unmanaged === 'ignore')
    return {
      id: 'hook-ignores',
      cause: `[hook] unmanaged = "ignore" leaves managed='no' to you: ${on}`,
      fix: `run ${bind}`,
    };
  const cause = `no hook of hostdev's runs here, so nobody binds it for the guest: ${on}`;
  return { id: 'hook-missing', cause, fix: `run 'hostdev hook install', or ${bind}` };
}
