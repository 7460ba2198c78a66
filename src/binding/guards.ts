/**
 * What must not be taken from the host, and why: the one table of guards, and the pure judgement of what was found.
 * Each guard has a name that --allow and `[[allow]]` take; allowing one never lifts another.
 */
import { ALLOWABLE_GUARDS, type AllowableGuard } from '../config/allowable.ts';
import { HostdevError } from '../errors.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { isBridge } from '../pci/inventory.ts';
import { type Warning, warning } from '../text/warning.ts';
import { denylistAdvice, denylisted } from './drivers/denylist.ts';
import type { DriverModule } from './drivers/modules.ts';

/**
 * Who asks: `bind` and `unbind` by hand, the hook for a device it moves itself (managed='no'), the hook for one that
 * libvirt moves (managed='yes'). There, what libvirt would do anyway is refused only where the host would be lost with
 * it.
 */
export type Asker = 'bind' | 'unbind' | 'hook' | 'managed';

/**
 * What a guard's finding comes to: always a refusal (of a device that stays unless another driver is named, when one
 * is), one only where the host would be lost, a warning, or nothing.
 */
type Effect = 'refuses' | 'refuses another driver' | 'refuses if vital' | 'warns' | '-';

type GuardRow = { text: string; hint: string; effects: Record<Asker, Effect> };

const EVERYWHERE = { bind: 'refuses', unbind: 'refuses', hook: 'refuses', managed: 'warns' } as const;
const VITAL = { ...EVERYWHERE, managed: 'refuses if vital' } as const;

/** Every guard: what it stands for, the way out, and what it does for each asker. */
export const GUARDS = {
  bridge: {
    text: 'bridges and other non-endpoints are not for guests',
    hint: 'Bind the devices behind it; VFIO takes no bridge.',
    effects: EVERYWHERE,
  },
  vfs: {
    text: 'a PF with VFs: they go with its driver (while one of them is in use, nothing lifts this)',
    hint: "Remove them first, once nothing uses them: 'hostdev vf remove'.",
    effects: VITAL,
  },
  denylist: {
    text: 'vfio-pci refuses the device',
    hint: 'Leave the device to the host, or load vfio-pci with disable_denylist=1 at your own risk.',
    effects: { ...EVERYWHERE, unbind: '-', managed: '-' },
  },
  'vendor-vfio': {
    text: 'its own driver is its VFIO provider (vGPU): a guest has it there, and nowhere else',
    hint: 'Leave it there: managed=\'no\' in the domain ("managed": "no" in a device_spec), and nothing to bind.',
    effects: { bind: 'refuses another driver', unbind: '-', hook: 'refuses', managed: 'refuses' },
  },
  'vgpu-type': {
    text: 'a vGPU of which no type is set',
    hint: 'Set a vGPU type first; it must be set again whenever its VFs are made anew.',
    effects: { bind: 'warns', unbind: '-', hook: 'refuses', managed: 'refuses' },
  },
  'in-use': {
    text: 'a process holds the device open',
    hint: 'End what holds it first: the kernel may wait for it without end.',
    effects: EVERYWHERE,
  },
  'other-owner': {
    text: 'the device belongs to another guest or to the admin',
    hint: 'It comes back when that guest stops.',
    effects: { ...EVERYWHERE, hook: '-', managed: '-' },
  },
  disk: {
    text: 'a disk of it is mounted, swap, or part of a stack',
    hint: 'Unmount it, end its swap, take it out of its stack.',
    effects: VITAL,
  },
  network: {
    text: 'a network interface of it is in use',
    hint: 'Take the interface out of use, and keep another way into this host.',
    effects: VITAL,
  },
  display: {
    text: 'it is the boot display, in use',
    hint: 'Have another way in, and end what draws on it: its screen goes dark.',
    effects: VITAL,
  },
  console: {
    text: "the kernel's console is on it",
    hint: 'Have another way in, and take it off the kernel command line (console=), then reboot.',
    effects: VITAL,
  },
  memory: {
    text: 'memory of it is in a CXL region that the host has',
    hint: "Take the memory offline and the region away first: 'daxctl offline-memory', 'cxl destroy-region'.",
    effects: VITAL,
  },
  mdev: {
    text: 'it has mediated devices',
    hint: "Remove them first: 'mdevctl stop -u UUID'.",
    effects: EVERYWHERE,
  },
  vdpa: {
    text: 'it has vDPA devices',
    hint: "Remove them first: 'vdpa dev del NAME'.",
    effects: EVERYWHERE,
  },
  rdma: {
    text: 'a process uses its RDMA device',
    hint: 'End what uses it first.',
    effects: EVERYWHERE,
  },
  'not-measured': {
    text: 'a guard could not look',
    hint: 'Run it as root, and see that what is named can be read.',
    effects: EVERYWHERE,
  },
} as const satisfies Record<AllowableGuard, GuardRow> & Record<string, GuardRow>;

export type Guard = keyof typeof GUARDS;

/** True where an allowance may lift a guard. */
export const isAllowable = (guard: string): guard is AllowableGuard =>
  (ALLOWABLE_GUARDS as readonly string[]).includes(guard);

/** A refusal as it is printed (contract 4). */
export type PrintedRefusal = { guard: Guard; address: string; reason: string };

/**
 * `firm`: no allowance lifts it although its guard has one. `asker`: who asked, so that the hint names a way that the
 * reader has.
 */
export type Refusal = PrintedRefusal & { firm: boolean; asker: Asker };

export const printedRefusals = (refusals: readonly Refusal[]): PrintedRefusal[] =>
  refusals.map(({ guard, address, reason }) => ({ guard, address, reason }));

export const isGuard = (word: string): word is Guard => Object.hasOwn(GUARDS, word);

/** Something found that a guard stands for. */
export type Use = {
  guard: Guard;
  /** One line for people, with "it" for the device. */
  reason: string;
  /** The host itself would be lost: root disk, default route, active console; or another guest. */
  vital?: boolean;
  /** No allowance lifts this one. */
  firm?: boolean;
};

/** What was found of a device; `unmeasured` names what could not be looked at, e.g. "proc/self/mountinfo: ENOENT". */
export type Usage = { uses: Use[]; unmeasured: string[] };

export type Judged = {
  device: PciDevice;
  usage: Usage;
  /** The driver it is to have; null when it is only to be unbound. */
  target: DriverModule | null;
  /** True when sys/module/vfio_pci/parameters/disable_denylist says Y. */
  denylistOff: boolean;
  /** On the machine itself, "not measured" refuses. */
  real: boolean;
  asker: Asker;
};

/** Whether an allowance lifts a use of a device. What no allowance may lift is never asked for. */
export type Lifts = (use: Use) => boolean;

/** Allowances by the names of their guards. */
export const byName =
  (allowed: ReadonlySet<Guard>): Lifts =>
  ({ guard }) =>
    allowed.has(guard);

export type Judgement = {
  refusals: Refusal[];
  warnings: Warning[];
  /** What would have refused and was lifted. */
  lifted: PrintedRefusal[];
};

/** The judgement on one device that is to leave its driver. */
export function judge(j: Judged, lifts: Lifts): Judgement {
  const judgement: Judgement = { refusals: [], warnings: [], lifted: [] };
  const { address } = j.device;
  for (const use of [...ownUses(j), ...j.usage.uses, ...missing(j)]) {
    const { guard, reason } = use;
    const effect: Effect = GUARDS[guard].effects[j.asker];
    const lifted = isAllowable(guard) && use.firm !== true && lifts(use);
    if (effect === '-') continue;
    const refuses = effect === 'refuses if vital' ? use.vital === true : effect.startsWith('refuses');
    const refusal = { guard, address, reason };
    if (refuses && !lifted) judgement.refusals.push({ ...refusal, firm: use.firm === true, asker: j.asker });
    else judgement.warnings.push(guardWarning(guard, address, `${reason}${lifted ? ` (allowed: ${guard})` : ''}`));
    if (refuses && lifted) judgement.lifted.push(refusal);
  }
  return judgement;
}

/** What a guard says of a device without refusing it. */
export const guardWarning = (guard: Guard, address: string, reason: string): Warning =>
  warning(`guard-${guard}`, `${address}: ${reason}`, address);

/** What the device is says enough. */
function ownUses({ device, target, denylistOff }: Judged): Use[] {
  const uses: Use[] = [];
  if (isBridge(device))
    uses.push({
      guard: 'bridge',
      reason: `it is a bridge (class ${device.class}), no endpoint: VFIO does not take it`,
    });
  const denied =
    target?.driver === 'vfio-pci' && !denylistOff ? denylisted(device.vendor_id ?? '', device.product_id ?? '') : null;
  if (denied !== null) {
    const reason = `${denied.family} is on vfio-pci's denylist, so its probe answers EINVAL; ${denylistAdvice()}`;
    uses.push({ guard: 'denylist', reason });
  }
  return uses;
}

const missing = ({ real, usage }: Judged): Use[] =>
  real ? usage.unmeasured.map((what) => ({ guard: 'not-measured', reason: `could not look at ${what}` })) : [];

/** `virsh start` and `domain check` take no --allow: what an admin lifts for a domain is written down. */
const allowKeys = ({ address, guard }: Refusal): string =>
  `device = "${address}", guard = "${guard}", domain = the domain's name`;

/**
 * What to do about refusals, in one line: the way out of the first, and what would lift them all, where something does.
 */
export function refusalHint(refusals: readonly Refusal[]): string {
  const guards = [...new Set(refusals.map((r) => r.guard))];
  const [first] = guards;
  if (first === undefined) return '';
  if (refusals.some((r) => r.firm || !isAllowable(r.guard))) return `${GUARDS[first].hint} No allowance lifts this.`;
  const forDomain = refusals.filter((r) => r.asker === 'hook' || r.asker === 'managed');
  const all =
    forDomain.length === 0
      ? guards.map((g) => `--allow=${g}`).join(' ')
      : `in hostdev.toml an [[allow]] with ${[...new Set(forDomain.map(allowKeys))].join(', and one with ')}`;
  return `${GUARDS[first].hint} To go on all the same: ${all}.`;
}

/** HOSTDEV_GUARD (or HOSTDEV_IN_USE) for refusals, naming all of them; null for none. */
export function refusalError(refusals: readonly Refusal[]): HostdevError | null {
  if (refusals.length === 0) return null;
  const held = refusals.every((r) => r.guard === 'in-use' || r.guard === 'other-owner');
  const text = refusals.map((r) => `${r.address}: ${r.reason}`).join('; ');
  return new HostdevError(held ? 'HOSTDEV_IN_USE' : 'HOSTDEV_GUARD', text, {
    hint: refusalHint(refusals),
    data: { refusals: printedRefusals(refusals) },
  });
}

/** Raises {@link refusalError}, if there is one. */
export function refuse(refusals: readonly Refusal[]): void {
  const error = refusalError(refusals);
  if (error !== null) throw error;
}

/**
 * An `[[allow]]` of hostdev.toml: the address of a device, the guard, and a domain's name, its UUID, or "*" for every
 * domain.
 */
export type Allowance = { device: string; guard: string; domain: string };
