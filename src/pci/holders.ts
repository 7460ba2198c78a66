/** Which processes hold a device open, by name: before it is tried, and again when a write on it hangs. */
import type { Holder } from '../addon/native.ts';
import { now, sleep } from '../clock.ts';
import type { Host } from '../host/host.ts';
import { Tables } from '../host/look.ts';
import { stopAdvice } from '../host/services.ts';
import { hostNodes, type Noded, vfioNodes } from './nodes.ts';
import { isVfioDriver } from './vfio.ts';

export type { Holder } from '../addon/native.ts';

/**
 * udev opens every new node for a moment (seen: /dev/vfio/31 and fresh disks); who asks in that moment must not take it
 * for a user.
 */
const UDEV = /^(\(udev-worker\)|systemd-udevd|udevd)$/;
const UDEV_MS = 2000;

/**
 * Who holds these nodes and will: where only udev's workers do, they are given up to 2 s, at most `leftMs`, to let go.
 * `unreadable` counts the processes whose files could not be looked at.
 */
export async function heldBy(
  host: Host,
  nodes: string[],
  leftMs: number,
): Promise<{ holders: Holder[]; unreadable: number }> {
  for (const until = now() + Math.min(UDEV_MS, leftMs); ; await sleep(20)) {
    const found = host.native.holders(host.root, nodes);
    const passing = found.holders.length > 0 && found.holders.every((h) => UDEV.test(h.command));
    if (!passing || now() >= until) return found;
  }
}

/**
 * The processes that hold nodes of a device, one entry a process and node, by pid: what is held is VFIO's node or
 * whatever its host driver made (disk, DRM, sound, RDMA, nvidia …). One walk through proc/[pid]/fd, which ends by
 * itself after a second; takes no device's lock, so it answers while a write on the device hangs. `driver` is the one
 * that it had before the write: its nodes outlive its link. Never raises: who names holders is telling of an error
 * already.
 */
export function holdersOf(host: Host, device: Noded): Holder[] {
  try {
    // While an unbind hangs, the driver link may be gone and the nodes still there: both kinds are asked for.
    const vfio = isVfioDriver(host, device.address, device.driver);
    const nodes = [...vfioNodes(host, device), ...(vfio ? [] : hostNodes(new Tables(host), device))];
    return nodes.length === 0 ? [] : host.native.holders(host.root, nodes).holders;
  } catch {
    return [];
  }
}

/** "process 812 (nvidia-persiste) has /dev/nvidia0 open (systemctl stop nvidia-persistenced)". */
export function holderText(h: Holder): string {
  const advice = stopAdvice(h.command);
  return `process ${h.pid} (${h.command}) has ${h.path} open${advice === null ? '' : ` (${advice})`}`;
}
