/** What must not be bound, and why: pure judgement of facts. Each guard has a name that --allow takes, where it can be allowed at all. */
import type { PciDevice } from '../pci/inventory.ts';
import { isBridge } from '../pci/inventory.ts';
import { denylistAdvice, denylisted } from './denylist.ts';
import type { DriverModule } from './modules.ts';
import type { Usage } from './usage.ts';

/** Every guard, and whether --allow may lift it; the others stand for what the kernel would refuse or never come back from. */
export const GUARDS = {
  bridge: { allowable: false, text: 'bridges and other non-endpoints are not for guests' },
  vfs: { allowable: true, text: 'a PF with idle VFs: its driver takes them away when it goes' },
  denylist: { allowable: false, text: 'vfio-pci refuses the device' },
  'in-use': { allowable: false, text: 'a process holds the device open' },
  'other-owner': { allowable: true, text: 'the device belongs to another guest or to the admin' },
  disk: { allowable: true, text: 'a disk of it is mounted, swap, or part of a stack' },
  network: { allowable: true, text: 'a network interface of it is in use' },
  display: { allowable: true, text: 'it is the boot display' },
  'not-measured': { allowable: true, text: 'a guard could not look' },
} as const satisfies Record<string, { allowable: boolean; text: string }>;

export type Guard = keyof typeof GUARDS;

export type Refusal = { guard: Guard; address: string; reason: string };

export const isGuard = (word: string): word is Guard => Object.hasOwn(GUARDS, word);

export type Judged = {
  device: PciDevice;
  usage: Usage;
  /** The driver it is to have; null when it is only to be unbound. */
  target: DriverModule | null;
  /** True when sys/module/vfio_pci/parameters/disable_denylist says Y. */
  denylistOff: boolean;
  /** On the machine itself, "not measured" refuses. */
  real: boolean;
};

/**
 * The refusals for one device that is to leave its driver. `allowed` lifts those that can be lifted; `managed` is what libvirt would do
 * anyway: there only the disk, the network and the active console refuse.
 */
export function judge(
  j: Judged,
  allowed: ReadonlySet<Guard>,
  managed = false,
): { refusals: Refusal[]; warnings: string[] } {
  const refusals: Refusal[] = [];
  const warnings: string[] = [];
  const { device, usage } = j;
  const raise = (guard: Guard, reason: string): void => {
    const hard = !managed || ['bridge', 'denylist', 'disk', 'network', 'display'].includes(guard);
    if (allowed.has(guard) && GUARDS[guard].allowable)
      warnings.push(`${device.address}: ${reason} (allowed: ${guard})`);
    else if (hard) refusals.push({ guard, address: device.address, reason });
    else warnings.push(`${device.address}: ${reason}`);
  };
  if (isBridge(device)) raise('bridge', `it is a bridge (class ${device.class}), no endpoint: VFIO does not take it`);
  if (device.sriov_numvfs !== null && device.sriov_numvfs > 0 && device.driver !== null) {
    raise('vfs', `it has ${device.sriov_numvfs} VFs, which would go with its driver`);
  }
  const denied =
    j.target?.driver === 'vfio-pci' && !j.denylistOff
      ? denylisted(device.vendor_id ?? '', device.product_id ?? '')
      : null;
  if (denied !== null)
    raise('denylist', `${denied.family} is on vfio-pci's denylist, so its probe answers EINVAL; ${denylistAdvice()}`);
  for (const h of usage.holders) raise('in-use', `process ${h.pid} (${h.command}) has ${h.path} open`);
  for (const use of usage.disks) raise('disk', use);
  for (const use of usage.network) raise('network', use);
  for (const use of usage.display) raise('display', use);
  for (const what of j.real ? usage.unmeasured : []) raise('not-measured', `could not look at ${what}`);
  return { refusals, warnings };
}

/** What to do about a refusal, in one line. */
export const refusalHint = (r: Refusal): string =>
  GUARDS[r.guard].allowable
    ? `--allow=${r.guard} binds it all the same.`
    : 'End what stands in the way; this guard cannot be lifted.';
