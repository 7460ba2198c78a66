/**
 * The elements by which a domain takes a PCI device whole: `<hostdev>`, and the options that `<hostdev>` and
 * `<interface>` share.
 */
import type { Address } from '../../pci/address.ts';
import { version } from '../version.ts';
import { addressElement, type XmlElement } from '../xml/write.ts';

/** `<rom>`: shown or hidden as the device has it, replaced by a file, or left out altogether (libvirt 4.3.0). */
export type Rom = { bar: 'on' | 'off' } | { file: string } | { enabled: 'no' };

export type Passed = {
  address: Address;
  managed: boolean;
  /**
   * `<driver name='vfio'/>`, with the host driver that libvirt (10.0.0) is to bind; null leaves that choice to libvirt.
   */
  model: string | null;
  rom: Rom | null;
  /** `<boot order>`, from 1. */
  boot: number | null;
};

export type Hostdev = Passed & {
  /** Taken from the host, not shown to the guest (libvirt 6.0.0). */
  unassigned: boolean;
};

/** The libvirt from which each is known; an older one drops it silently, or refuses it when it validates. */
export const SINCE = {
  model: version('10.0.0'),
  unassigned: version('6.0.0'),
  romEnabled: version('4.3.0'),
  vdpa: version('6.9.0'),
} as const;

const element = (name: string, attributes: Record<string, string | undefined>): XmlElement => ({ name, attributes });

export const driverElement = ({ model }: Passed): XmlElement =>
  element('driver', { name: 'vfio', model: model ?? undefined });

/** `<boot>` and `<rom>` in libvirt's order. */
export const bootAndRom = ({ boot, rom }: Passed): XmlElement[] => [
  ...(boot === null ? [] : [element('boot', { order: `${boot}` })]),
  ...(rom === null ? [] : [element('rom', rom)]),
];

/** libvirt's order (virDomainHostdevDefFormat): driver, source, boot, rom, address. */
export const hostdevElement = (h: Hostdev): XmlElement => ({
  name: 'hostdev',
  attributes: { mode: 'subsystem', type: 'pci', managed: h.managed ? 'yes' : 'no' },
  children: [
    driverElement(h),
    { name: 'source', children: [addressElement(h.address)] },
    ...bootAndRom(h),
    ...(h.unassigned ? [element('address', { type: 'unassigned' })] : []),
  ],
});
