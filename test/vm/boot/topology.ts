/**
 * What the machines of the boot suite look like on the PCI side. Every port says its slot, so that a port more in front
 * shifts the bus numbers and no path; every card says its own numbers, so that it keeps them in another slot.
 */
import path from 'node:path';
import type { Topology } from '../topology.ts';

/** Ports below 0000:20 (a, and `front`, before all of them) and 0000:90 (b). */
type Slot = 'front' | 'a0' | 'a1' | 'a2' | 'a3' | 'a4' | 'a5' | 'b0' | 'b1' | 'b2' | 'b3' | 'b4';
/** `pair`: two e1000e as functions of one slot. `bridge`: an edu and an e1000 behind a PCIe-to-PCI bridge. */
type Kind = 'igb' | 'nvme' | 'e1000e' | 'edu' | 'bridge' | 'pair' | 'virtio';
/** `n` tells cards of a kind apart: MAC or serial number come from it. */
type Card = { kind: Kind; n: number };
export type Layout = Partial<Record<Slot, Card | null>>;

const card = (kind: Kind, n = 0): Card => ({ kind, n });

/** What is in which slot when nothing else is said; a port is there where a card, or null, is named. */
export const USUAL: Layout = {
  a0: card('igb'), // 0000:21:00.0, 7 VFs
  a1: card('nvme'), // 0000:22:00.0, 8 VFs
  a2: card('e1000e'), // 0000:23:00.0
  a3: card('edu'), // 0000:24:00.0
  a4: card('bridge'), // 0000:25:00.0, 26:01.0, 26:02.0: one group
  a5: null, // 0000:27:00.0
  b0: card('pair'), // 0000:91:00.0 and .1: one group
  b1: card('igb', 1), // 0000:92:00.0: of the same ids as 21:00.0
  b2: card('nvme', 1), // 0000:93:00.0
  b3: card('edu', 1), // 0000:94:00.0: of the same ids as 24:00.0
  b4: card('virtio'), // 0000:95:00.0, 3 VFs
};

const SLOTS: Record<Slot, { bus: 'n0' | 'n1'; addr: number }> = {
  front: { bus: 'n0', addr: 1 },
  a0: { bus: 'n0', addr: 4 },
  a1: { bus: 'n0', addr: 5 },
  a2: { bus: 'n0', addr: 6 },
  a3: { bus: 'n0', addr: 7 },
  a4: { bus: 'n0', addr: 8 },
  a5: { bus: 'n0', addr: 9 },
  b0: { bus: 'n1', addr: 4 },
  b1: { bus: 'n1', addr: 5 },
  b2: { bus: 'n1', addr: 6 },
  b3: { bus: 'n1', addr: 7 },
  b4: { bus: 'n1', addr: 8 },
};

const IOMMU = {
  intel: ['-machine', 'q35,kernel-irqchip=split', '-device', 'intel-iommu,intremap=on,caching-mode=on,aw-bits=48'],
  amd: ['-machine', 'q35,kernel-irqchip=split', '-device', 'amd-iommu,intremap=on,dma-remap=on,xtsup=on'],
};

const mac = (kind: number, n: number): string => `52:54:00:7b:${(kind + 0x10).toString(16)}:0${n}`;

/** QEMU's arguments for a machine with these cards; what is written to a disk is found there by the same card later. */
export function bootTopology(iommu: 'intel' | 'amd', layout: Layout, diskDir: string): Topology {
  const args = [...IOMMU[iommu]];
  const disks: Topology['disks'] = [];
  const device = (...text: string[]) => {
    for (const one of text) args.push('-device', one);
  };
  const disk = (id: string) => {
    const file = path.join(diskDir, `${id}.img`);
    disks.push({ file, mib: 256 });
    args.push('-drive', `if=none,id=${id}d,file=${file},format=raw,cache=writeback`);
  };
  device('pxb-pcie,id=n0,bus_nr=0x20,numa_node=0,bus=pcie.0,addr=0x10');
  device('pxb-pcie,id=n1,bus_nr=0x90,numa_node=1,bus=pcie.0,addr=0x11');
  const devices = (bus: string, { kind, n }: Card): string[] => {
    const id = `${kind}${n}`;
    switch (kind) {
      case 'igb':
        return [`igb,bus=${bus},romfile=,mac=${mac(0, n)}`];
      case 'e1000e':
        return [`e1000e,bus=${bus},romfile=,mac=${mac(1, n)}`];
      case 'edu':
        return [`edu,bus=${bus}`];
      case 'bridge':
        return [
          `pcie-pci-bridge,id=${id},bus=${bus}`,
          `edu,bus=${id},addr=1`,
          `e1000,bus=${id},addr=2,romfile=,mac=${mac(2, n)}`,
        ];
      case 'pair':
        return [
          `e1000e,bus=${bus},addr=0.0,multifunction=on,romfile=,mac=${mac(3, 2 * n)}`,
          `e1000e,bus=${bus},addr=0.1,romfile=,mac=${mac(3, 2 * n + 1)}`,
        ];
      case 'virtio':
        return [
          ...[1, 2, 3].map((f) => `virtio-net-pci,bus=${bus},addr=0.${f},sriov-pf=${id},romfile=,mac=${mac(4 + f, n)}`),
          `virtio-net-pci,bus=${bus},addr=0.0,multifunction=on,id=${id},romfile=,mac=${mac(4, n)}`,
        ];
      case 'nvme':
        return [
          `nvme-subsys,id=${id}s,nqn=${id}`,
          `nvme,id=${id},serial=bed-${id},bus=${bus},subsys=${id}s,sriov_max_vfs=8,sriov_vq_flexible=16,` +
            'sriov_vi_flexible=8,max_ioqpairs=20,msix_qsize=16',
          `nvme-ns,drive=${id}d,bus=${id},nsid=1`,
        ];
    }
  };
  for (const [n, [slot, { bus, addr }]] of (Object.entries(SLOTS) as [Slot, (typeof SLOTS)[Slot]][]).entries()) {
    const inside = layout[slot];
    if (inside === undefined) continue;
    device(`pcie-root-port,id=${slot},bus=${bus},addr=0x${addr.toString(16)},chassis=${n + 1}`);
    if (inside === null) continue;
    if (inside.kind === 'nvme') disk(`nvme${inside.n}`);
    device(...devices(slot, inside));
  }
  return { args, append: iommu === 'intel' ? ['intel_iommu=on', 'iommu=pt'] : ['iommu=pt'], disks };
}
