/** Where a device is not as the books say: what that means, and how it is mended. */
import type { Host } from '../host/host.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { vfLinks } from '../pci/vfLinks.ts';
import { type Binding, readBinding } from './books.ts';
import { type DeviceState, describeState, sameState } from './move.ts';

/**
 * `forget`: nothing is left to give back, the binding goes. `give-back`: try again. `rebind`: back to where hostdev left it. null: hostdev cannot know which is
 * right, a person must choose.
 */
export type Mend = 'forget' | 'give-back' | 'rebind' | null;

export type Drift = { drift: string; mend: Mend; advice: string };

/** What is wrong with a binding whose device is observed as `now` (null: gone); null when all is well. */
export function driftOf(host: Host, b: Binding, now: DeviceState | null): Drift | null {
  const fix = "'hostdev status --fix'";
  if (now === null) return { drift: 'the device is gone', mend: 'forget', advice: `${fix} takes it out of the books` };
  if (b.claims.length === 0) {
    if (sameState(now, b.before))
      return { drift: 'it is back, but in the books', mend: 'forget', advice: `${fix} takes it out of the books` };
    return {
      drift: `not given back: ${b.note ?? 'its claims are gone'}`,
      mend: 'give-back',
      advice: `${fix} tries again; 'hostdev unbind --to-host ${b.address}' does it whatever was changed`,
    };
  }
  // libvirt binds a managed device after prepare: until then, and between hot-unplug and release, it is on its host driver.
  if (b.after === null) return null;
  const vfs = vfLinks(host, b.address);
  if (isVfioDriver(host, b.address, now.driver)) return strangeVfs(host, b, vfs);
  const drift = `hostdev left it on ${describeState(b.after)}, it is on ${describeState(now)}`;
  if (b.claims.some((c) => c.owner.startsWith('domain:')))
    return {
      drift,
      mend: null,
      advice: `if that guest has ended: hostdev unbind --allow=other-owner ${b.address}; if it runs, stop it first`,
    };
  if (vfs.length > 0)
    return {
      drift: `${drift}, and it has ${vfs.length} VFs`,
      mend: 'rebind',
      advice: `${fix} --allow=vfs takes them away and binds it again, if they are idle; 'hostdev unbind ${b.address}' lets it be`,
    };
  return { drift, mend: 'rebind', advice: `${fix} binds it again; 'hostdev unbind --to-host ${b.address}' lets it be` };
}

/** A PF that is on VFIO and has VFs that are nobody's in the books: somebody else made them, and its way back to what it had takes them away. */
function strangeVfs(host: Host, b: Binding, vfs: readonly string[]): Drift | null {
  const strange = vfs.filter((vf) => readBinding(host, vf) === null);
  if (strange.length === 0) return null;
  return {
    drift: `it has ${vfs.length} VFs, and hostdev did not make ${strange.slice(0, 4).join(', ')}${strange.length > 4 ? ' …' : ''}`,
    mend: null,
    advice: `'hostdev vf remove ${b.address}' takes them away; 'hostdev unbind --allow=vfs ${b.address}' does, and brings back what it had`,
  };
}
