/** This host as wishes are looked for on it. */
import type { Host } from '../host/host.ts';
import { marksOf, slotPath } from '../pci/identity.ts';
import { failureText, type Inventory } from '../pci/inventory.ts';
import { numberedVfs } from '../pci/vfLinks.ts';
import type { View } from './match.ts';

/** A view of a scan; what it asks beside that is read when it is asked, once a device. */
export function viewOf(host: Host, { devices, failures }: Inventory): View {
  const marks = new Map<string, ReturnType<typeof marksOf>>();
  const [failure] = failures;
  return {
    devices,
    pathOf: (address) => slotPath(host, address),
    marksOf(address) {
      const known = marks.get(address) ?? marksOf(host, address);
      marks.set(address, known);
      return known;
    },
    vfOf: (pf, n) => numberedVfs(host, pf).find((vf) => vf.n === n)?.address ?? null,
    unread: failure === undefined ? null : failureText(failure),
  };
}
