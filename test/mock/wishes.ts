/** Wishes and views of hosts for tests of boot/. */
import type { View } from '../../src/boot/match.ts';
import type { DeviceWish, PfWish } from '../../src/boot/wishes.ts';
import type { Identity, Marks } from '../../src/pci/identity.ts';
import type { PciDevice } from '../../src/pci/inventory.ts';

const NO_MARKS: Marks = { serial: null, nvme_serial: null, mac: null };

/** A card in a slot: what a view shows of it. */
export type Card = {
  address: string;
  path: string;
  ids: string;
  subsystem?: string;
  marks?: Partial<Marks>;
  totalVfs?: number;
  vfs?: string[];
};

function deviceOf(c: Pick<Card, 'address' | 'ids' | 'subsystem' | 'totalVfs'>, pf: string | null = null): PciDevice {
  const [vendor_id = null, product_id = null] = c.ids.split(':');
  const [subsystem_vendor_id = null, subsystem_device_id = null] = c.subsystem?.split(':') ?? [];
  return {
    address: c.address,
    vendor_id,
    product_id,
    class: '020000',
    subsystem_vendor_id,
    subsystem_device_id,
    driver: null,
    iommu_group: 1,
    numa_node: null,
    dev_type: pf !== null ? 'type-VF' : c.totalVfs ? 'type-PF' : 'type-PCI',
    parent_addr: pf,
    sriov_totalvfs: c.totalVfs ?? null,
    sriov_numvfs: null,
    bridge: false,
    stuck: false,
  };
}

export function viewOfCards(cards: readonly Card[], unread: string | null = null): View {
  const byAddress = new Map(cards.map((c) => [c.address, c]));
  return {
    devices: cards.flatMap((c) => [
      deviceOf(c),
      ...(c.vfs ?? []).map((address) => deviceOf({ address, ids: '8086:10ca' }, c.address)),
    ]),
    pathOf: (a) => byAddress.get(a)?.path ?? null,
    marksOf: (a) => ({ ...NO_MARKS, ...byAddress.get(a)?.marks }),
    vfOf: (pf, n) => byAddress.get(pf)?.vfs?.[n] ?? null,
    unread,
  };
}

function identityOfCard(c: Card): Identity {
  const d = deviceOf(c);
  return {
    path: c.path,
    vendor_id: d.vendor_id ?? '',
    product_id: d.product_id ?? '',
    subsystem_vendor_id: d.subsystem_vendor_id,
    subsystem_device_id: d.subsystem_device_id,
    ...NO_MARKS,
    ...c.marks,
  };
}

const PLACE = { file: '/etc/hostdev/hostdev.toml', line: 1, column: 1, key: 'device[0]' };

export const wishOf = (c: Card, more: Partial<DeviceWish> = {}): DeviceWish => ({
  kind: 'device',
  address: c.address,
  identity: identityOfCard(c),
  vf: null,
  driver: 'vfio',
  group: false,
  allow: [],
  place: PLACE,
  ...more,
});

export const pfWishOf = (c: Card, vfs: number, more: Partial<PfWish> = {}): PfWish => ({
  kind: 'pf',
  address: c.address,
  identity: identityOfCard(c),
  vfs,
  for: 'vfio',
  ranges: [],
  allow: [],
  place: { ...PLACE, key: 'pf[0]' },
  ...more,
});
