/** Where a device is not as the books say: what that means, and how it is mended. */
import type { Host } from '../host/host.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { vfLinks } from '../pci/vfLinks.ts';
import { type Binding, isGuest, isHoldOnly, isSameDevice, ownerText, readBinding } from './books.ts';
import { deadHolds, endedText, type Witness } from './guests.ts';
import { type DeviceState, describeState, sameState } from './state.ts';

/**
 * `forget`: nothing is left to give back, the binding goes. `end-hold`: its guest is gone, and with it its hold.
 * `give-back`: try again. `rebind`: back to where hostdev left it. null: hostdev cannot know which is right, a person
 * must choose.
 */
type Mend = 'forget' | 'end-hold' | 'give-back' | 'rebind' | null;

export type Drift = { drift: string; mend: Mend; advice: string };

/**
 * True when driver and override are as we left them, or as libvirt leaves a managed device: on VFIO, on the host
 * driver, or on none, the override cleared. The one judgement for status, unbind and release.
 */
export function asLeft(host: Host, b: Binding, now: DeviceState): boolean {
  const { before, after } = b;
  if (after !== null && now.driver === after.driver) return now.override === after.override || now.override === null;
  // libvirt binds a managed device after prepare, and re-attaches it before release; a hand that only unbound it has
  // changed nothing that is not put right.
  const managed = after === null || b.holds.some((h) => h.managed);
  const known =
    now.driver === null || now.driver === before.driver || (managed && isVfioDriver(host, b.address, now.driver));
  return (
    known &&
    (now.override === null ||
      now.override === before.override ||
      now.override === now.driver ||
      now.override === after?.override)
  );
}

/**
 * True when the device is on a driver that serves its holds: where we left it, or, for libvirt's own, anywhere that
 * libvirt may have it.
 */
const serves = (host: Host, b: Binding, now: DeviceState): boolean =>
  asLeft(host, b, now) && (b.after === null || b.holds.some((h) => h.managed) || now.driver === b.after.driver);

/** A guest that had it by libvirt (managed) has ended, and who else holds it was promised VFIO. */
export const libvirtLeftIt = (host: Host, b: Binding, now: DeviceState): boolean =>
  b.after === null && !b.holds.some((h) => h.managed) && !isVfioDriver(host, b.address, now.driver);

/** What is wrong with a binding whose device is observed as `now` (null: gone); null when all is well. */
export function driftOf(host: Host, look: Witness, b: Binding, now: DeviceState | null): Drift | null {
  const fix = "'hostdev status --fix'";
  const forget = `${fix} takes it out of the books`;
  if (now === null) return { drift: 'the device is gone', mend: 'forget', advice: forget };
  if (!isSameDevice(host, b))
    return { drift: 'the device is gone, and another is at its address', mend: 'forget', advice: forget };
  const dead = deadHolds(host, look, b);
  if (dead.length > 0) {
    return {
      drift: dead.map((h) => endedText(look, b, h)).join(', '),
      mend: 'end-hold',
      advice: `${fix} ends its hold${dead.length === b.holds.length && !isHoldOnly(b) ? ' and gives the device back' : ''}`,
    };
  }
  if (b.holds.length === 0) {
    if (sameState(now, b.before)) return { drift: 'it is back, but in the books', mend: 'forget', advice: forget };
    return {
      drift: `not given back: ${b.note ?? 'its holds are gone'}`,
      mend: 'give-back',
      advice: `${fix} tries again; 'hostdev unbind --to-host ${b.address}' does it whatever was changed`,
    };
  }
  if (libvirtLeftIt(host, b, now))
    return {
      drift: `${b.holds.map(ownerText).join(', ')} is to have it on VFIO, and libvirt left it on ${describeState(now)}`,
      mend: 'rebind',
      advice: `${fix} binds it; 'hostdev unbind ${b.address}' lets it be`,
    };
  if (serves(host, b, now)) return b.after === null ? null : strangeVfs(host, b);
  const left = b.after === null ? 'libvirt was to have it' : `hostdev left it on ${describeState(b.after)}`;
  const drift = `${left}, it is on ${describeState(now)}`;
  const guest = b.holds.find((h) => isGuest(h) && look.presence(b, h) !== 'runs');
  if (guest !== undefined || b.after === null)
    return {
      drift,
      mend: null,
      advice: `it belongs to ${b.holds.map(ownerText).join(', ')}: it is given back when that guest stops`,
    };
  const vfs = vfLinks(host, b.address);
  if (vfs.length > 0)
    return {
      drift: `${drift}, and it has ${vfs.length} VFs`,
      mend: 'rebind',
      advice: `${fix} --allow=vfs takes them away and binds it again, if they are idle; 'hostdev unbind ${b.address}' lets it be`,
    };
  return { drift, mend: 'rebind', advice: `${fix} binds it again; 'hostdev unbind --to-host ${b.address}' lets it be` };
}

/**
 * A PF that is on VFIO and has VFs that are nobody's in the books: somebody else made them, and its way back to what it
 * had takes them away.
 */
function strangeVfs(host: Host, b: Binding): Drift | null {
  const vfs = vfLinks(host, b.address);
  const strange = vfs.filter((vf) => readBinding(host, vf) === null);
  if (strange.length === 0) return null;
  return {
    drift: `it has ${vfs.length} VFs, and hostdev did not make ${strange.slice(0, 4).join(', ')}${strange.length > 4 ? ' …' : ''}`,
    mend: null,
    advice: `'hostdev vf remove ${b.address}' takes them away; 'hostdev unbind --allow=vfs ${b.address}' does, and brings back what it had`,
  };
}
