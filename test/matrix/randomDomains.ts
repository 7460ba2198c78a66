/**
 * Domains by chance, the same ones each time: combinations that nobody thought of. What libvirt says of them is
 * recorded beside the matrix.
 */
import type { MatrixDomain } from './viommuDomains.ts';

const ATTRIBUTES: Record<string, readonly string[]> = {
  intremap: ['on', 'off'],
  caching_mode: ['on', 'off'],
  eim: ['on', 'off'],
  iotlb: ['on', 'off'],
  aw_bits: ['39', '48', '64', '0', '52'],
  dma_translation: ['on', 'off'],
  xtsup: ['on', 'off'],
  passthrough: ['on', 'off'],
  pciBus: ['0', '1', '2'],
  accel: ['on', 'off'],
  ats: ['on', 'off'],
  ril: ['on'],
  ssidsize: ['0', '16'],
  oas: ['44'],
  cmdqv: ['off'],
};

/** What each model most likely gets; anything else now and then. */
const LIKELY: Record<string, readonly string[]> = {
  intel: ['intremap', 'caching_mode', 'eim', 'iotlb', 'aw_bits', 'dma_translation'],
  amd: ['intremap', 'iotlb', 'xtsup', 'passthrough'],
  virtio: ['aw_bits', 'granule'],
  smmuv3: ['pciBus', 'accel', 'ats', 'ril', 'ssidsize', 'oas', 'cmdqv'],
};

const GRANULES = [
  "<granule mode='host'/>",
  "<granule size='64' unit='KiB'/>",
  "<granule size='2' unit='MiB'/>",
  "<granule size='8192' unit='bytes'/>",
];

const INSIDE = [
  "<address type='pci'/>",
  "<address type='pci' domain='0' bus='0' slot='0x1d' function='0'/>",
  "<address type='pci' domain='0' bus='2' slot='0' function='0'/>",
  "<alias name='ua-x'/>",
];

/** A linear congruential generator: the numbers must be the same in every node. */
function chance(seed: number): { next: () => number; pick: <T>(list: readonly T[]) => T } {
  let state = seed;
  const next = (): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return state / 0x80000000;
  };
  return { next, pick: (list) => list[Math.floor(next() * list.length)] as (typeof list)[number] };
}

/** `count` domains of a `seed`; ids begin with "random-". */
export function randomDomains(seed: number, count: number): MatrixDomain[] {
  const { next, pick } = chance(seed);
  const iommu = (model: string): string => {
    const names = new Set<string>();
    for (let n = Math.floor(next() * 4); n > 0; n -= 1) {
      names.add(next() < 0.85 ? pick(LIKELY[model] ?? []) : pick(Object.keys(ATTRIBUTES)));
    }
    const granule = names.delete('granule') ? pick(GRANULES) : '';
    const attributes = [...names].map((n) => ` ${n}='${pick(ATTRIBUTES[n] ?? [])}'`).join('');
    const inside = next() < 0.12 ? pick(INSIDE) : '';
    return `<iommu model='${model}'>${attributes || granule ? `<driver${attributes}>${granule}</driver>` : ''}${inside}</iommu>`;
  };
  return Array.from({ length: count }, (_, i): MatrixDomain => {
    const arm = next() < 0.3;
    const models = arm ? ['smmuv3', 'virtio'] : ['intel', 'intel', 'amd', 'virtio'];
    const model = (): string => (next() < 0.9 ? pick(models) : pick(Object.keys(LIKELY)));
    const machine = arm ? 'virt' : pick(['q35', 'q35', 'q35', 'pc', 'pc-q35-7.2', 'pc-q35-9.2', 'pc-q35-8.0']);
    const uefi = arm && next() < 0.6;
    const acpi = arm && !uefi ? next() < 0.1 : next() < 0.8;
    const ioapic = pick(['', "<ioapic driver='qemu'/>", "<ioapic driver='qemu'/>", "<ioapic driver='kvm'/>"]);
    const some = next();
    const iommus = some < 0.06 ? iommu(model()) + iommu(model()) : some < 0.11 ? '' : iommu(model());
    const hostdev =
      next() < 0.2
        ? `<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x${pick([1, 2, 65])}' slot='0x0${pick([0, 1, 2])}' function='0x${pick([0, 3, 7])}'/></source></hostdev>`
        : '';
    const id = `random-${seed}-${i}`;
    const loader = uefi ? "<loader readonly='yes' type='pflash'>/usr/share/AAVMF/AAVMF_CODE.fd</loader>" : '';
    const xml = `<domain type='qemu'>
  <name>${id}</name>
  <memory unit='MiB'>64</memory>
  <vcpu>${pick([1, 2, 8, 8, 255, 256, 300, 512, 700, 1500])}</vcpu>
  <os><type arch='${arm ? 'aarch64' : 'x86_64'}' machine='${machine}'>hvm</type>${loader}</os>
  <features>${acpi ? '<acpi/>' : ''}${arm && next() < 0.9 ? '' : ioapic}</features>
  <devices>
    ${iommus}${hostdev}
    <memballoon model='none'/>
  </devices>
</domain>
`;
    return { id, xml };
  });
}
