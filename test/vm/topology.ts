/**
 * What the machines look like on the PCI side. Two NUMA nodes, each with a host bridge of its own (0000:20 and
 * 0000:90); devices on pcie.0 belong to no node. README.md lists what ends up at which address.
 */
import path from 'node:path';

/** Which IOMMU the machine has; `big-*` have 8 NVMe controllers of 127 VFs and two NICs instead of the zoo. */
export type Profile = 'intel' | 'amd' | 'virtio' | 'none' | 'big-intel' | 'big-amd' | 'big-virtio';

/** QEMU arguments and kernel arguments of a profile, and the disks those arguments name. */
export interface Topology {
  args: string[];
  append: string[];
  /** Sparse files that must exist: what is written to them is there, unlike on the null disks of `big-*`. */
  disks: { file: string; mib: number }[];
}

type Iommu = 'intel' | 'amd' | 'virtio' | 'none';

const iommus: Record<Iommu, Omit<Topology, 'disks'>> = {
  intel: {
    args: ['-machine', 'q35,kernel-irqchip=split', '-device', 'intel-iommu,intremap=on,caching-mode=on,aw-bits=48'],
    append: ['intel_iommu=on', 'iommu=pt'],
  },
  amd: {
    args: ['-machine', 'q35,kernel-irqchip=split', '-device', 'amd-iommu,intremap=on,dma-remap=on,xtsup=on'],
    append: ['iommu=pt'],
  },
  virtio: { args: ['-machine', 'q35', '-device', 'virtio-iommu-pci,addr=1'], append: [] },
  none: { args: ['-machine', 'q35'], append: [] },
};

/** The devices of a profile, in the order QEMU wants them; the disks lie in `runDir`. */
export function topology(profile: Profile, runDir: string): Topology {
  const big = profile.startsWith('big-');
  const iommu = iommus[(big ? profile.slice(4) : profile) as Iommu];
  if (!iommu) throw new Error(`no such profile: ${profile}`);
  const args = [...iommu.args];
  const disks: Topology['disks'] = [];
  let chassis = 0;
  const device = (...text: string[]) => {
    for (const one of text) args.push('-device', one);
  };
  const rootPort = (id: string, bus: string, more = '') => {
    chassis += 1;
    device(`pcie-root-port,id=${id},bus=${bus},chassis=${chassis}${more}`);
  };
  const disk = (id: string, mib: number) => {
    const file = path.join(runDir, `${id}.img`);
    disks.push({ file, mib });
    args.push('-drive', `if=none,id=${id},file=${file},format=raw,cache=unsafe`);
  };
  const nullDisk = (id: string) => {
    args.push('-drive', `if=none,id=${id},file.driver=null-co,file.size=1G,file.read-zeroes=on,format=raw`);
  };
  // Two queues and one interrupt vector per VF: the least the nvme driver of a guest is content with.
  const nvme = (id: string, bus: string, vfs: number) => {
    device(
      `nvme-subsys,id=${id}s,nqn=${id}`,
      `nvme,id=${id},serial=${id},bus=${bus},subsys=${id}s,sriov_max_vfs=${vfs},sriov_vq_flexible=${2 * vfs},` +
        `sriov_vi_flexible=${vfs},max_ioqpairs=${2 * vfs + 4},msix_qsize=${vfs + 8}`,
      `nvme-ns,drive=${id}d,bus=${id},nsid=1`,
    );
  };

  device('pxb-pcie,id=n0,bus_nr=0x20,numa_node=0,bus=pcie.0,addr=0x10');
  device('pxb-pcie,id=n1,bus_nr=0x90,numa_node=1,bus=pcie.0,addr=0x11');
  if (big) {
    for (let i = 0; i < 8; i += 1) {
      rootPort(`bp${i}`, `n${i % 2}`, ',mem-reserve=4M');
      nullDisk(`nv${i}d`);
      nvme(`nv${i}`, `bp${i}`, 127);
    }
    rootPort('igp0', 'n0', ',mem-reserve=4M');
    device('igb,bus=igp0,romfile=');
    rootPort('igp1', 'n1', ',mem-reserve=4M');
    device('igb,bus=igp1,romfile=');
    return { args, append: iommu.append, disks };
  }

  // Node 0: an SR-IOV NIC, an SR-IOV NVMe, a plain NIC alone in its group, a device no driver knows.
  rootPort('a0', 'n0');
  device('igb,bus=a0,romfile=');
  rootPort('a1', 'n0');
  disk('nv0d', 1024);
  nvme('nv0', 'a1', 8);
  // A namespace of no controller, for a test to attach to a VF's.
  disk('nv0e', 256);
  device('nvme-ns,drive=nv0e,bus=nv0,nsid=2,detached=on');
  rootPort('a2', 'n0');
  // A wire between this NIC and one of node 1: what comes over the network in a test comes from a namespace of the same
  // machine.
  args.push('-netdev', 'hubport,id=wire0,hubid=0', '-netdev', 'hubport,id=wire1,hubid=0');
  device('e1000e,bus=a2,romfile=,netdev=wire0');
  rootPort('a3', 'n0');
  device('edu,bus=a3');
  // One group of two endpoints and their bridge: behind a PCIe-to-PCI bridge, which the driver shpchp takes.
  rootPort('a4', 'n0');
  device('pcie-pci-bridge,id=br0,bus=a4', 'edu,bus=br0,addr=1', 'e1000,bus=br0,addr=2,romfile=');
  // Node 1: two functions of one slot without ACS, so one group of two NICs.
  rootPort('b0', 'n1');
  device('e1000e,bus=b0,addr=0.0,multifunction=on,romfile=,netdev=wire1', 'e1000e,bus=b0,addr=0.1,romfile=');
  rootPort('b1', 'n1');
  device('igb,bus=b1,romfile=');
  rootPort('b2', 'n1');
  disk('nv1d', 1024);
  nvme('nv1', 'b2', 4);
  // A switch with two downstream ports.
  rootPort('b3', 'n1');
  args.push('-object', 'memory-backend-ram,id=ivm,size=1M,share=on');
  device('x3130-upstream,id=up0,bus=b3');
  device('xio3130-downstream,id=dn0,bus=up0,chassis=101', 'xio3130-downstream,id=dn1,bus=up0,chassis=102');
  device('edu,bus=dn0', 'ivshmem-plain,bus=dn1,memdev=ivm');
  // A virtio NIC with virtual functions: what the kernel's own variant driver virtio_vfio_pci is for.
  rootPort('b4', 'n1');
  for (const f of [1, 2, 3]) device(`virtio-net-pci,bus=b4,addr=0.${f},sriov-pf=vpf0,romfile=`);
  device('virtio-net-pci,bus=b4,addr=0.0,multifunction=on,id=vpf0,romfile=');
  // Empty ports, for hot plug of outer devices.
  rootPort('h0', 'n0');
  rootPort('h1', 'n1');
  return { args, append: iommu.append, disks };
}
