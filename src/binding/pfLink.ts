/**
 * Bringing a PF's link up, where its driver makes and removes VFs only then (pci/interfaces.ts): at boot nobody has
 * done it yet. It is brought up before the number is written, and stays up where VFs were made, which send through it;
 * where they went, and on an undo, it is as it was, unless the host uses it by then.
 */
import { asError, HostdevError } from '../errors.ts';
import { Look, Tables } from '../host/look.ts';
import { linkForVfs } from '../pci/interfaces.ts';
import type { Access } from './access.ts';
import { networkUses } from './guards/network.ts';
import type { Step } from './steps.ts';

/**
 * Brings the link up or down and looks whether it is. One that the host uses by now is not taken down. Raises
 * HOSTDEV_VFS, HOSTDEV_NOT_PERMITTED, HOSTDEV_TIMEOUT.
 */
export async function writeLink(work: Access, { address, path, expect }: Step): Promise<void> {
  const { host, writer, deadline } = work;
  const up = expect === 'up';
  const now = linkForVfs(host, address);
  if (now === null || now.up === up) return;
  const device = { address, class: '020000', driver: host.linkName(host.device(address, 'driver')) };
  if (!up && networkUses(new Look(new Tables(host)), device).length > 0) return;
  const what = `bring ${now.link.name} of ${address} ${up ? 'up' : 'down'}`;
  try {
    await writer.setUp(now.link, up, Math.max(deadline.left, 1));
  } catch (e) {
    throw asError(`Failed to ${what}`, e, 'HOSTDEV_VFS');
  }
  if (linkForVfs(host, address)?.up !== up)
    throw new HostdevError('HOSTDEV_VFS', `Failed to ${what}: ${path} says otherwise`, { hint: 'See dmesg.' });
}
