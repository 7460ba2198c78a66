/** Whether a libvirt listens here: asked before anything of libvirt is loaded. */
import { fileFacts } from './files.ts';
import type { Host } from './host.ts';

/** True where libvirtd or virtqemud has a socket; what may not be looked at may be there, and libvirt will say. */
export function libvirtListens(host: Host): boolean {
  return host.libvirtSockets.some((socket) => {
    try {
      return fileFacts(host, socket) !== null;
    } catch {
      return true;
    }
  });
}
