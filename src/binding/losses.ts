/**
 * What the host would lose with a function: what hangs below it, and what the host does with that. The one answer for
 * group why, the hook, domain check and domain plan.
 */

import { orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { Look, Tables } from '../host/look.ts';
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { hostUses } from './usage.ts';

/** What hangs below a function, by name. */
export type Below = { netdevs: string[]; disks: string[]; displays: string[] };

const KINDS = ['net', 'block', 'drm'] as const;
type Thing = { kind: (typeof KINDS)[number]; name: string; path: string };

/** Every network interface, block device and display with its path in sysfs, once per plan. */
const everything = (_host: Host, tables: Tables): Thing[] => {
  const look = new Look(tables);
  return KINDS.flatMap((kind) =>
    look.names(look.host.classLink(kind)).flatMap((name): Thing[] => {
      const path = orNull(() => look.host.link(look.host.classLink(kind, name)));
      return path === null ? [] : [{ kind, name, path }];
    }),
  );
};

/**
 * What hangs below a function; nothing of a bridge, behind which others are. What could not be listed is in the look's
 * `unmeasured`.
 */
export function belowOf(look: Look, d: Pick<PciDevice, 'address' | 'bridge'>): Below {
  for (const kind of KINDS) look.names(look.host.classLink(kind)); // notes what the snapshot passes over
  const mine = isBridge(d) ? [] : look.tables.once(everything).filter((t) => t.path.includes(`/${d.address}/`));
  const names = (kind: Thing['kind']): string[] =>
    // The hidden path of an NVMe namespace stands for the disk that people know, its head.
    mine.filter((t) => t.kind === kind).map((t) => t.name.replace(/^(nvme\d+)c\d+(n\d+)/, '$1$2'));
  return { netdevs: names('net'), disks: names('block'), displays: names('drm') };
}

/** The names of what hangs below, for people. */
export const belowText = (b: Below): string => [...b.netdevs, ...b.disks, ...b.displays].join(', ');

/**
 * "eth0, sda: eth0 has the default route; sda1 is mounted on /srv"; empty where the host loses nothing that has a name.
 * `uses` are reasons of guards.
 */
function lossText(below: Below, uses: readonly string[]): string {
  return [belowText(below), uses.slice(0, NAMED_USES).join('; ')].filter((t) => t !== '').join(': ');
}

const NAMED_USES = 4;

/**
 * What the host would lose with a device, as {@link lossText}, without a look at who holds it. Never raises: it is told
 * beside an error.
 */
export const lossesOf = (host: Host, device: PciDevice): string =>
  orNull(() => lossText(belowOf(new Look(new Tables(host)), device), hostUses(host, device))) ?? '';
