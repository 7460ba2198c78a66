/**
 * NVIDIA's vGPU driver in memory, as far as the NVIDIA vGPU User Guide tells it: each VF on it shows the type that it
 * has and those that it could have now. The VFs of a GPU share its memory, and are of one size.
 */
import type { HostDescription } from '../scenarios/host.ts';
import type { Errno, KernelModel, Live } from './kernel.ts';

type VgpuType = { id: number; size: number; name: string };

/** Of a PF: its memory, and the types that it can make of it. */
export type Vgpus = { room: number; types: VgpuType[] };

const CURRENT = 'nvidia/current_vgpu_type';

/** What the driver has to do with a VF; null where it is none of it. */
function partOf(k: KernelModel, d: Live): { vgpus: Vgpus; siblings: Live[] } | null {
  const vgpus = k.devices.get(d.physfn ?? '')?.vgpus;
  if (vgpus === undefined || k.drivers.get(d.driver ?? '')?.vgpu !== true) return null;
  return { vgpus, siblings: [...k.devices.values()].filter((x) => x.physfn === d.physfn) };
}

/** True for a VF whose own driver is its VFIO provider. */
export const isVgpu = (k: KernelModel, d: Live): boolean => partOf(k, d) !== null;

function creatableOf(k: KernelModel, d: Live): VgpuType[] {
  const part = partOf(k, d);
  if (part === null || d.vgpuType) return [];
  const { vgpus, siblings } = part;
  const used = siblings.flatMap((s) => vgpus.types.find((t) => t.id === s.vgpuType)?.size ?? []);
  const left = vgpus.room - used.reduce((a, b) => a + b, 0);
  return vgpus.types.filter((t) => t.size <= left && used.every((size) => size === t.size));
}

/** The driver's files in a VF's folder, by their names there. */
export function vgpuFiles(k: KernelModel, d: Live): [string, string][] {
  if (partOf(k, d) === null) return [];
  const list = creatableOf(k, d).map((t) => `${`${t.id}`.padEnd(5)} : ${t.name}\n`);
  return [
    [CURRENT, `${d.vgpuType ?? 0}\n`],
    ['nvidia/creatable_vgpu_types', `ID    : vGPU Name\n${list.join('')}`],
  ];
}

/** null: done. undefined: no such file. */
export function writeVgpuType(k: KernelModel, d: Live, value: string): Errno | null | undefined {
  if (partOf(k, d) === null) return undefined;
  const text = value.replace(/\n$/, '');
  if (!/^\d+$/.test(text)) return 'EINVAL';
  const id = Number(text);
  if (k.openBy.some((h) => h.path === `/dev/vfio/${d.group}`)) return 'EBUSY';
  if (id !== 0 && !creatableOf(k, d).some((t) => t.id === id)) return 'EINVAL';
  d.vgpuType = id;
  return null;
}

/**
 * A GPU of 24 GB without VFs, on NVIDIA's vGPU driver: four of 6 GB fit, two of 12, and none beside one of another
 * size.
 */
export const GPU = '0000:41:00.0';
export const VGPUS = ['0000:41:00.4', '0000:41:00.5', '0000:41:00.6', '0000:41:00.7'];
export const GPU_HOST: HostDescription = {
  drivers: [
    { name: 'nvidia', module: 'nvidia', ids: ['10de:2236'], sriov: true, vgpu: true },
    { name: 'vfio-pci', module: 'vfio_pci', ids: [], vfio: true },
  ],
  devices: [
    {
      address: GPU,
      ids: '10de:2236',
      class: '030200',
      group: 20,
      totalVfs: 4,
      vfIds: '10de:2236',
      vfGroup: 21,
      vfOffset: 4,
      vfStride: 1,
      driver: 'nvidia',
      vgpus: {
        room: 24,
        types: [
          { id: 592, size: 6, name: 'NVIDIA A10-6Q' },
          { id: 593, size: 6, name: 'NVIDIA A10-6C' },
          { id: 594, size: 12, name: 'NVIDIA A10-12Q' },
        ],
      },
    },
  ],
};

/** A wish about its VFs. */
export const gpuWish = (ranges: string, vfs = 4): string =>
  `[[pf]]\naddress = "${GPU}"\npath = "pci0000:41/00.0"\nvendor_id = "10de"\nproduct_id = "2236"\nvfs = ${vfs}\n${ranges}`;
export const typed = (vfs: string, type: number): string => `[[pf.range]]\nvfs = "${vfs}"\nvgpu_type = ${type}\n`;
