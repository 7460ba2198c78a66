/** The rest of a group: who keeps it from a guest, and what the host would lose with it. */
import type { Usage } from '../binding/guards.ts';
import type { Address } from '../pci/address.ts';
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { groupBlockers, groupMembers } from '../pci/vfio.ts';
import { because, type Cause } from './cause.ts';
import type { Look } from './look.ts';

/** What a function of the group is to the host, and what the host would lose with it. */
export type Peer = {
  address: Address;
  class: string | null;
  driver: string | null;
  blocks: boolean;
  netdevs: string[];
  disks: string[];
  displays: string[];
};

/** The rest of the group: who blocks, and what the host would lose. */
export function peers(
  look: Look,
  d: PciDevice,
  usages: ReadonlyMap<Address, Usage>,
): { self: Peer; peers: Peer[]; causes: Cause[] } {
  const { host } = look;
  const others =
    d.iommu_group === null ? [] : groupMembers(look.inventory, d.iommu_group).filter((p) => p.address !== d.address);
  const blockers = d.iommu_group === null ? [] : groupBlockers(host, d.iommu_group, others);
  const everything = everythingBelow(look);
  const list = others.map((p) =>
    describe(
      p,
      blockers.some((b) => b.address === p.address),
      everything,
    ),
  );
  const causes: Cause[] = [];
  for (const b of blockers) {
    const p = list.find((o) => o.address === b.address);
    const device = others.find((o) => o.address === b.address);
    const loses = p === undefined ? '' : losses(p);
    const unbind = `echo ${b.address} > ${host.absolute(host.driver(b.driver, 'unbind', b.bus))}`;
    const needless = `if the host can do without what ${b.driver} serves`;
    const change =
      b.bus !== undefined
        ? `unbind its driver, ${needless}: ${unbind}`
        : device !== undefined && isBridge(device)
          ? `unbind its driver, ${device.class?.startsWith('0604') ? 'which serves hot plug behind it only' : needless}: ${unbind}`
          : `give it to the same guest, or take it from the host: hostdev bind ${b.address}${loses === '' ? '' : ` (the host loses ${loses})`}`;
    causes.push(because('peer-driver', b.address, `${b.address} ${b.reason}`, change));
  }
  for (const p of others.filter((o) => blockers.some((b) => b.address === o.address) && !isBridge(o))) {
    for (const { reason } of usages.get(p.address)?.uses ?? [])
      causes.push(
        because('peer-host-use', p.address, reason, 'let the host do without it, or put the device into another slot'),
      );
  }
  return { self: describe(d, false, everything), peers: list, causes };
}

/** What hangs below PCI functions: each network interface, block device and display with its path in sysfs. */
type Below = { kind: 'net' | 'block' | 'drm'; name: string; path: string };

/** More than the VFs of a full host: each may have an interface. */
const MAX_CLASS = 65536;

function everythingBelow(look: Look): Below[] {
  return (['net', 'block', 'drm'] as const).flatMap((kind) =>
    look.names(look.host.classLink(kind), MAX_CLASS).flatMap((name): Below[] => {
      const path = look.quiet(name, () => look.host.link(look.host.classLink(kind, name)));
      return path === null ? [] : [{ kind, name, path }];
    }),
  );
}

function describe(d: PciDevice, blocks: boolean, everything: readonly Below[]): Peer {
  const below = (kind: Below['kind']): string[] => {
    const mine = isBridge(d) ? [] : everything.filter((b) => b.kind === kind && b.path.includes(`/${d.address}/`));
    // The hidden path of an NVMe namespace stands for the disk that people know, its head.
    return mine.map((b) => b.name.replace(/^(nvme\d+)c\d+(n\d+)/, '$1$2'));
  };
  return {
    address: d.address,
    class: d.class,
    driver: d.driver,
    blocks,
    netdevs: below('net'),
    disks: below('block'),
    displays: below('drm'),
  };
}

/** What the host would lose with a device, for people. */
export const losses = (p: Pick<Peer, 'netdevs' | 'disks' | 'displays'>): string =>
  [...p.netdevs, ...p.disks, ...p.displays].join(', ');
