/**
 * What the rules need to know of a domain beyond the devices it takes: read leniently, because a domain that libvirt
 * would refuse is what the rules are there to explain.
 */
import type { Element } from '@xmldom/xmldom';
import { safe } from '../text/safe.ts';
import { type Version, version } from './version.ts';
import { child, children } from './xml/dom.ts';
import type { Domain } from './xml/domain.ts';
import { placeOf, type XmlPlace } from './xml/parse.ts';

/** An element of the domain with what a message needs to name it. */
export type Part = {
  element: Element;
  /** For messages: "iommu (line 12)". */
  where: string;
  place: XmlPlace;
};

export type DomainFacts = {
  /** The element `<domain>`. */
  root: Element;
  name: string | null;
  /** "kvm", "qemu", "xen" …: the attribute `type` of the domain. */
  type: string;
  /** As written; null when the XML leaves it to libvirt. */
  arch: string | null;
  machine: string | null;
  /** The most vCPUs the guest can have (`<vcpu>`, which `current` may lower); 1 when absent, 0 when it is no number. */
  vcpus: number;
  acpi: boolean;
  /** The driver of `<features><ioapic>`; null when absent. */
  ioapic: string | null;
  /** UEFI of either kind: `<os firmware='efi'>` or a pflash loader (virDomainDefHasOldStyleUEFI). */
  uefi: boolean;
  /** It keeps the firmware's variables in a file of its own. */
  nvram: boolean;
  tpm: boolean;
  memoryKib: number | null;
  hardLimitKib: number | null;
  locked: boolean;
  /** Host NUMA nodes that the guest's memory is bound to, by guest cell (null: the whole guest). */
  memoryNodes: { cell: number | null; nodes: number[] }[];
  iommus: Part[];
  hostdevs: Part[];
  interfaces: Part[];
  disks: Part[];
  controllers: Part[];
  /** How many devices VFIO will give it: PCI hostdevs and interfaces of type hostdev. */
  vfioDevices: number;
  nvmeDisks: number;
  vdpaDevices: number;
  /** NVMe disks and mediated devices too map guest memory through VFIO. */
  mdevs: number;
};

/** Size units of virScaleInteger that a domain's memory takes, in bytes. */
const UNITS: Record<string, number> = {
  b: 1,
  bytes: 1,
  kb: 1000,
  k: 1024,
  kib: 1024,
  mb: 1e6,
  m: 2 ** 20,
  mib: 2 ** 20,
  gb: 1e9,
  g: 2 ** 30,
  gib: 2 ** 30,
  tb: 1e12,
  t: 2 ** 40,
  tib: 2 ** 40,
};

/** The text of an element, trimmed and bounded; '' when it is absent. */
const text = (e: Element | undefined): string => (e?.textContent ?? '').slice(0, 4096).trim();

const wholeNumber = (t: string | null | undefined): number | null =>
  t !== null && t !== undefined && /^\d{1,20}$/.test(t.trim()) ? Number(t) : null;

/** A size in bytes; without a unit it is in KiB, as libvirt reads memory. Null: it is no number or no unit. */
export function bytesOf(size: string | null, unit: string | null): number | null {
  const n = wholeNumber(size);
  const factor = UNITS[(unit ?? 'KiB').toLowerCase()];
  return n === null || factor === undefined ? null : n * factor;
}

const inKib = (bytes: number | null): number | null => (bytes === null ? null : Math.ceil(bytes / 1024));

const kib = (e: Element | undefined): number | null => inKib(bytesOf(text(e), e?.getAttribute('unit') ?? null));

/** "0-2,5,^1" of a nodeset; what makes no sense is left out. */
export function nodeSet(words: string | null): number[] {
  const set = new Set<number>();
  for (const word of (words ?? '').slice(0, 1024).split(',')) {
    const m = /^(\^?)(\d{1,4})(?:-(\d{1,4}))?$/.exec(word.trim());
    if (!m) continue;
    for (let n = Number(m[2]); n <= Number(m[3] ?? m[2]); n += 1) m[1] === '^' ? set.delete(n) : set.add(n);
  }
  return [...set].sort((a, b) => a - b);
}

/**
 * An element as a part of the domain; `index` counts from 0 among those of its name, and null says that there is but
 * one.
 */
export function partOf(element: Element, index: number | null): Part {
  const place = placeOf(element);
  const name = safe(element.nodeName);
  return { element, place, where: `${name}${index === null ? '' : ` ${index + 1}`} (line ${place.line})` };
}

/** The facts of a domain. */
export function readDomainFacts({ root }: Domain): DomainFacts {
  const sections = children(root, 'devices');
  const parts = (name: string): Part[] => {
    const found = sections.flatMap((s) => children(s, name));
    return found.map((e, i) => partOf(e, found.length > 1 ? i : null));
  };
  const os = child(root, 'os');
  const type = os && child(os, 'type');
  const loader = os && child(os, 'loader');
  const features = child(root, 'features');
  const tune = child(root, 'memtune');
  const backing = child(root, 'memoryBacking');
  const hostdevs = parts('hostdev');
  const interfaces = parts('interface');
  const disks = parts('disk');
  const typed = (all: Part[], kind: string): number =>
    all.filter((p) => p.element.getAttribute('type') === kind).length;
  return {
    root,
    name: text(child(root, 'name')) || null,
    type: root.getAttribute('type') ?? '',
    arch: type?.getAttribute('arch') || null,
    machine: type?.getAttribute('machine') || null,
    vcpus: child(root, 'vcpu') === undefined ? 1 : (wholeNumber(text(child(root, 'vcpu'))) ?? 0),
    acpi: features !== undefined && child(features, 'acpi') !== undefined,
    ioapic:
      (features && child(features, 'ioapic') && (child(features, 'ioapic')?.getAttribute('driver') ?? '')) ?? null,
    uefi:
      os?.getAttribute('firmware') === 'efi' ||
      (loader?.getAttribute('type') === 'pflash' && loader.getAttribute('readonly') !== 'no'),
    nvram:
      os !== undefined && (os.hasAttribute('firmware') || child(os, 'nvram') !== undefined || loader !== undefined),
    tpm: sections.some((s) => child(s, 'tpm') !== undefined),
    memoryKib: totalMemory(root),
    hardLimitKib: tune ? kib(child(tune, 'hard_limit')) : null,
    locked: backing !== undefined && child(backing, 'locked') !== undefined,
    memoryNodes: memoryNodes(root),
    iommus: parts('iommu'),
    hostdevs,
    interfaces,
    disks,
    controllers: parts('controller'),
    vfioDevices: typed(hostdevs, 'pci') + typed(interfaces, 'hostdev'),
    nvmeDisks: typed(disks, 'nvme'),
    vdpaDevices: typed(interfaces, 'vdpa'),
    mdevs: typed(hostdevs, 'mdev'),
  };
}

/** virDomainDefGetMemoryTotal: the initial memory (the NUMA cells' sum where there are any) and the memory devices. */
function totalMemory(root: Element): number | null {
  const numa = child(root, 'cpu') && child(child(root, 'cpu') as Element, 'numa');
  const cells = numa ? children(numa, 'cell') : [];
  const sum = (list: (number | null)[]): number => list.reduce<number>((a, b) => a + (b ?? 0), 0);
  const cellMemory = cells.map((c) => inKib(bytesOf(c.getAttribute('memory'), c.getAttribute('unit'))));
  const base = sum(cellMemory) > 0 ? sum(cellMemory) : kib(child(root, 'memory'));
  if (base === null) return null;
  const devices = children(root, 'devices').flatMap((d) => children(d, 'memory'));
  return base + sum(devices.map((m) => kib(child(m, 'target') && child(child(m, 'target') as Element, 'size'))));
}

function memoryNodes(root: Element): DomainFacts['memoryNodes'] {
  const tune = child(root, 'numatune');
  if (!tune) return [];
  const cells = children(tune, 'memnode').map((m) => ({
    cell: wholeNumber(m.getAttribute('cellid')),
    nodes: nodeSet(m.getAttribute('nodeset')),
  }));
  const all = nodeSet(child(tune, 'memory')?.getAttribute('nodeset') ?? null);
  return cells.length > 0 ? cells : all.length > 0 ? [{ cell: null, nodes: all }] : [];
}

/**
 * The architecture that the rules judge by: libvirt takes the host's own when the XML names none; x86_64 unless the
 * machine says otherwise.
 */
export const effectiveArch = (d: Pick<DomainFacts, 'arch' | 'machine'>): string =>
  d.arch ?? (d.machine !== null && /^virt(-|$)/.test(d.machine) ? 'aarch64' : 'x86_64');

/** ARCH_IS_X86 */
export const isX86 = (d: Pick<DomainFacts, 'arch' | 'machine'>): boolean =>
  ['x86_64', 'i686'].includes(effectiveArch(d));

/** qemuDomainMachineIsQ35 */
export const isQ35 = (d: Pick<DomainFacts, 'arch' | 'machine'>): boolean =>
  isX86(d) && d.machine !== null && /^(q35$|pc-q35-)/.test(d.machine);

/**
 * libvirt's own default machine for Arm (qemu_capabilities.c preferredMachines): integratorcp before this, then virt
 * (NEWS 9.3.0).
 */
const ARM_DEFAULTS_TO_VIRT = version('9.3.0');

/**
 * qemuDomainMachineIsARMVirt; a domain without a machine gets the default of that libvirt, the newer one where it is
 * not known.
 */
export function isArmVirt(d: Pick<DomainFacts, 'arch' | 'machine'>, libvirt: Version | null): boolean {
  const arch = effectiveArch(d);
  if (d.machine === null)
    return arch !== 'armv6l' && isArm(arch) && (libvirt === null || libvirt >= ARM_DEFAULTS_TO_VIRT);
  return isArm(arch) && /^virt(-|$)/.test(d.machine);
}

/** ARCH_IS_ARM */
const isArm = (arch: string): boolean => ['aarch64', 'armv7l', 'armv6l'].includes(arch);

/** Only QEMU's driver has vIOMMUs. */
export const isQemu = (d: Pick<DomainFacts, 'type'>): boolean => ['qemu', 'kvm', 'hvf'].includes(d.type);
