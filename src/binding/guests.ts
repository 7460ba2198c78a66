/**
 * Whether the guest behind a hold is there. hostdev calls no libvirt; the witnesses are the processes that hold the
 * device's nodes, libvirt's own state below /run, the guest's lock while a hook of it is at work, and, between
 * prepare's end and QEMU's opening of the device, the libvirtd that called prepare.
 */
import type { Holder } from '../addon/native.ts';
import { now, sleep } from '../clock.ts';
import { HostdevError, orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { heldBy } from '../pci/holders.ts';
import { vfioNodes } from '../pci/nodes.ts';
import { groupNow } from '../pci/vfLinks.ts';
import { hasFile, removeFile, replaceFile } from '../store/files.ts';
import { type Deadline, isLocked, takeLocks } from '../store/locks.ts';
import { type Binding, type Hold, isGuest, isSameDevice, ownerText, type Plug } from './books.ts';
import type { Owner } from './state.ts';

/** Longer than any start takes: then a guest that was prepared and is nowhere to be seen is not starting any more. */
const STARTING_MS = 5 * 60_000;

/**
 * How long libvirt may still be at an attach whose caller was killed: between our call and QEMU's open there is no
 * other witness.
 */
const ATTACHING_MS = 60_000;

/**
 * `holds`: a process has the device. `starts`: prepare is at work or has been. `moves`: an attach or detach is at work.
 * `runs`: libvirt has the guest, but nobody the device (it was unplugged). `left`: that, and its
 * live XML has the device no more. `unknown`: it could not be looked at.
 */
type Presence = 'holds' | 'starts' | 'moves' | 'runs' | 'left' | 'gone' | 'unknown';

/** What one look shows of the guests in the books. */
export type Witness = {
  presence: (b: Binding, hold: Hold) => Presence;
  holders: (b: Pick<Binding, 'address' | 'group'>) => Holder[];
};

/**
 * Looks once for all of `bindings`. `leftMs`: how long udev's own look at a fresh node may be waited for. Costs a walk
 * through proc/[pid]/fd where a guest has a hold, and none otherwise, unless `always` asks for the holders.
 */
export async function witness(
  host: Host,
  bindings: readonly Binding[],
  leftMs: number,
  always = false,
): Promise<Witness> {
  const looked = bindings.filter((b) => always || b.holds.some(isGuest));
  const nodesOf = new Map(
    // The kernel's group, where it has one: a book may be older than that.
    looked.map((b) => [
      b.address,
      vfioNodes(host, { address: b.address, iommu_group: groupNow(host, b.address) ?? b.group }),
    ]),
  );
  const nodes = [...new Set([...nodesOf.values()].flat())];
  const found = nodes.length === 0 ? { holders: [], unreadable: 0 } : await heldBy(host, nodes, leftMs);
  const holders: Witness['holders'] = (b) => found.holders.filter((h) => nodesOf.get(b.address)?.includes(h.path));
  return {
    holders,
    presence: (b, hold) => {
      if (holders(b).length > 0) return 'holds';
      if (hold.plug !== undefined) {
        if (isPlugging(host, hold.plug)) return 'moves';
        return found.unreadable > 0 && host.isReal ? 'unknown' : 'gone';
      }
      const atWork = isAtWork(host, hold);
      if (atWork === true || isStarting(host, b, hold)) return 'starts';
      if (libvirtHas(host, hold)) return 'runs';
      // Who may not see every process, or whether a hook is at work, cannot say that nobody has it.
      return atWork === null || (found.unreadable > 0 && host.isReal) ? 'unknown' : 'gone';
    },
  };
}

/** What somebody who asked says of the guests that run: `known` are those of which he knows all devices, by UUID. */
export type Told = { known: ReadonlySet<string>; has: (uuid: string, address: string) => boolean };

/**
 * A look that knows more: of a guest that runs and has nobody's hand on the device it is told that it has it no more.
 * Who holds the device, starts or plugs goes before, since what was told may be of before.
 */
export const withTold = (look: Witness, { known, has }: Told): Witness => ({
  holders: look.holders,
  presence: (b, hold) => {
    const is = look.presence(b, hold);
    const uuid = uuidOf(hold);
    return is === 'runs' && known.has(uuid) && !has(uuid, b.address) ? 'left' : is;
  },
});

/**
 * The first hold of another guest than `owner` that keeps the device: its guest has it, or is starting. One that runs
 * without the device had it unplugged.
 */
export function keptBy(look: Witness, b: Binding | null, owner: string): { hold: Hold; reason: string } | null {
  for (const hold of b?.holds ?? []) {
    if (b === null || hold.owner === owner || !isGuest(hold)) continue;
    const reason = keptText(look, b, hold);
    if (reason !== null) return { hold, reason };
  }
  return null;
}

/** How a guest's hold is told where it keeps the device; null where it does not. */
function keptText(look: Witness, b: Binding, hold: Hold): string | null {
  const is = look.presence(b, hold);
  const it = `it belongs to ${ownerText(hold)}`;
  const [holder] = look.holders(b);
  if (is === 'holds' && holder !== undefined)
    return `${it}; process ${holder.pid} (${holder.command}) holds ${holder.path}`;
  if (is === 'starts') return `${it}, which is starting`;
  if (is === 'moves') return `${it}, and process ${hold.plug?.by.split(':')[0]} is ${plugText(hold)}`;
  return is === 'unknown' ? `${it}, and whether that guest has it could not be looked at` : null;
}

/** What is being done with a device that is plugged in or out. */
const plugText = ({ plug }: Hold): string => (plug?.state === 'leaving' ? 'detaching it' : 'attaching it');

/**
 * The command that plugs is at work, or was killed so short ago that libvirt may still do what it was asked, and can be
 * asked what has become of it.
 */
function isPlugging(host: Host, { state, by, at, live }: Plug): boolean {
  if (host.native.processRuns(by)) return true;
  const ago = now() - at;
  return (state === 'attaching' || !live) && ago >= 0 && ago < ATTACHING_MS;
}

/** Why a hold is nobody's any more. */
export function endedText(look: Witness, b: Binding, hold: Hold): string {
  if (look.presence(b, hold) === 'left') return `${ownerText(hold)} runs, and has it no more`;
  if (hold.plug === undefined) return `${ownerText(hold)} neither runs nor starts`;
  return hold.plug.state === 'leaving'
    ? `${ownerText(hold)} has let it go`
    : `its attach to ${ownerText(hold)} came to nothing`;
}

/** The holds whose guest is nowhere to be seen, or has it no more, in the books of a device that is there. */
export const deadHolds = (host: Host, look: Witness, b: Binding): Hold[] =>
  isSameDevice(host, b) ? b.holds.filter((h) => isGuest(h) && ['gone', 'left'].includes(look.presence(b, h))) : [];

const uuidOf = (hold: Pick<Hold, 'owner'>): string => hold.owner.slice('domain:'.length);

/**
 * The guest's lock is held from the beginning of each of its hook calls to its end, a slow release's too. A guest that
 * has been started once and is prepared anew has ended in between: its holds of before are nobody's.
 */
function isAtWork(host: Host, hold: Hold): boolean | null {
  const locked = isLocked(host, `domain-${uuidOf(hold)}`);
  return locked === true ? !(wasStarted(host, hold) && isPreparing(host, hold)) : locked;
}

const wasStarted = (host: Host, hold: Pick<Hold, 'owner'>): boolean => hasFile(host, `${host.started}/${uuidOf(hold)}`);

const preparing = (hold: Pick<Hold, 'owner'>): string => `preparing-${uuidOf(hold)}`;

const isPreparing = (host: Host, hold: Pick<Hold, 'owner'>): boolean => isLocked(host, preparing(hold)) === true;

/** Says that a guest's prepare is at work, until the returned function is called or the process ends. */
export const markPreparing = (host: Host, owner: Owner, deadline: Deadline): Promise<() => void> =>
  takeLocks(host, [preparing({ owner })], deadline);

/** Waits for the end of a release of a guest, if one is at work. Raises HOSTDEV_TIMEOUT. */
export async function releaseOver(host: Host, owner: Owner, deadline: Deadline): Promise<void> {
  const lock = `domain-${uuidOf({ owner })}`;
  while (isLocked(host, lock) === true && !isPreparing(host, { owner })) {
    if (deadline.left === 0)
      throw new HostdevError(
        'HOSTDEV_TIMEOUT',
        `The release of ${owner} still holds ${host.absolute(`${host.locks}/${lock}`)}`,
      );
    await sleep(Math.min(50, deadline.left));
  }
}

function isStarting(host: Host, b: Binding, hold: Hold): boolean {
  const prepared = b.prepared[hold.owner];
  if (prepared === undefined || wasStarted(host, hold)) return false;
  const ago = now() - prepared;
  return ago >= 0 && ago < STARTING_MS && (hold.libvirt === null || host.native.processRuns(hold.libvirt));
}

/** The pid in libvirt's own state of the guest counts, not the file: both outlive a libvirtd that was killed. */
function libvirtHas(host: Host, hold: Hold): boolean {
  if (hold.name === null || hold.name === '' || hold.name.includes('/')) return false;
  const pid = guestPid(host, hold.name);
  return pid === undefined ? false : pid === null || host.list(host.process(pid)) !== null;
}

/** More than libvirt writes before the pid in its status file. */
const STATUS_BYTES = 1024 * 1024;

/** The process of a guest by libvirt's state; null when it names none yet, undefined when there is no state. */
function guestPid(host: Host, name: string): number | null | undefined {
  const text = orNull(() => host.read(`${host.guests}/${name}.pid`, 32))?.trim() ?? '';
  if (/^\d{1,10}$/.test(text)) return Number(text);
  // One that is there and cannot be read (null) is a state all the same.
  const status = orNull(() => host.read(`${host.guests}/${name}.xml`, STATUS_BYTES) ?? undefined);
  if (status === undefined) return undefined;
  const pid = /<domstatus\b[^>]*\bpid='(\d{1,10})'/.exec(status ?? '')?.[1];
  return pid === undefined || pid === '0' ? null : Number(pid);
}

/** The guest that libvirt says a process is, by its name; null when none is. */
export function guestOf(host: Host, pid: number): string | null {
  const names = (host.list(host.guests) ?? []).filter((n) => n.endsWith('.pid')).map((n) => n.slice(0, -4));
  return names.find((name) => guestPid(host, name) === pid) ?? null;
}

/** QEMU is up (hook operation `started`): from here on only who holds the device tells. */
export function markStarted(host: Host, uuid: string): void {
  replaceFile(host, `${host.started}/${uuid}`, '');
}

/** The guest is prepared anew, or has ended. */
export const forgetStarted = (host: Host, uuid: string): void => removeFile(host, `${host.started}/${uuid}`);
