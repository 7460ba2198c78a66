/** The shape of what takes a device of the host, by version: what libvirt's schema and parser refuse of hostdevs, interfaces and NVMe disks. */
import type { Element } from '@xmldom/xmldom';
import { safe } from '../../text/safe.ts';
import { isQemu, type Part } from '../domainFacts.ts';
import { type Version, version } from '../version.ts';
import { child, elements } from '../xml/dom.ts';
import {
  childCauses,
  DISPLAY_FROM,
  faults,
  hostdevInterfaces,
  nvmeDisks,
  pciHostdevs,
  sourceAddress,
  sourceOf,
} from './deviceParts.ts';
import { diskGrammar } from './diskShape.ts';
import { grammarFaults } from './grammar.ts';
import { usbInterfaceSource } from './hostdevShape.ts';
import { interfaceGrammar, NET_DRIVER } from './interfaceShape.ts';
import { below, type Fault, type Shape, shapeFaults, sinceLibvirt, type Target } from './rules.ts';
import { ALIAS, acpiIndexGrammar, BOOT, ROM, VIRTIO_OPTIONS } from './shapes.ts';
import { ANY, MANAGED, ON_OFF, PCI_ADDRESS, YES_NO } from './values.ts';
import { virtualPortFaults } from './virtualPort.ts';

const DRIVER_MODEL_FROM = version('10.0.0');
const ACPI_NODESET_FROM = version('11.8.0');
const IOMMUFD_FROM = version('12.1.0');

/** `<driver>` of a host device by libvirt's schema of a version; `named`: that of a `<hostdev>`, which had to have a name once. */
function driverFaults(e: Element, libvirt: Version | null, named: boolean): { cause: string; since?: string }[] {
  const old = below(libvirt, DRIVER_MODEL_FROM);
  const found = shapeFaults(e, {
    attributes: {
      name: /^(kvm|vfio|xen)$/,
      ...(old ? {} : { model: /./ }),
      ...(below(libvirt, IOMMUFD_FROM) ? {} : { iommufd: YES_NO }),
      ...(named ? {} : e.hasAttribute('name') ? VIRTIO_OPTIONS : { ...VIRTIO_OPTIONS, ...NET_DRIVER }),
    },
    children: named ? [] : ['host', 'guest'],
  }).map((cause): { cause: string; since?: string } => {
    const name = /no attribute '(\w+)'/.exec(cause)?.[1];
    const from = name === 'model' ? DRIVER_MODEL_FROM : name === 'iommufd' ? IOMMUFD_FROM : null;
    return from ? { cause: `${cause} before ${sinceLibvirt(from)}`, since: sinceLibvirt(from) } : { cause };
  });
  if (old && named && found.length === 0 && e.getAttribute('name') === null) {
    found.push({
      cause: `<driver> without a name needs ${sinceLibvirt(DRIVER_MODEL_FROM)}`,
      since: sinceLibvirt(DRIVER_MODEL_FROM),
    });
  }
  return found;
}

/** Only the guest's own address may have a `<zpci>`. */
const addressCauses = (e: Element, extra: Shape['attributes'] = {}): string[] =>
  shapeFaults(e, { attributes: { ...PCI_ADDRESS, ...extra }, children: [] });

function hostdevShape(libvirt: Version | null): Shape {
  return {
    attributes: {
      mode: /^subsystem$/,
      type: ANY,
      managed: MANAGED,
      ...(below(libvirt, DISPLAY_FROM) ? {} : { display: ON_OFF, ramfb: ON_OFF }),
    },
    children: ['driver', 'teaming', 'source', 'alias', 'acpi', 'boot', 'rom', 'address', 'readonly', 'shareable'],
  };
}

export function hostdevFaults({ domain, versions }: Target): Fault[] {
  const odd = domain.hostdevs.flatMap((p) => {
    const mode = p.element.getAttribute('mode') ?? 'subsystem';
    if (mode !== 'subsystem' && mode !== 'capabilities') return faults(p, [`'${safe(mode)}' is no mode`]);
    return p.element.getAttribute('type') === null ? faults(p, ['it has no type']) : [];
  });
  return [...odd, ...pciHostdevs(domain).flatMap((p) => oneHostdev(p, versions.libvirt))];
}

function oneHostdev(p: Part, libvirt: Version | null): Fault[] {
  const found: Fault[] = [];
  for (const cause of shapeFaults(p.element, hostdevShape(libvirt))) {
    const late = /no attribute '(display|ramfb)'/.test(cause);
    found.push(
      late
        ? { part: p, cause: `${cause} before ${sinceLibvirt(DISPLAY_FROM)}`, since: sinceLibvirt(DISPLAY_FROM) }
        : { part: p, cause },
    );
  }
  const source = sourceOf(p);
  const address = sourceAddress(p);
  if (!source) found.push({ part: p, cause: 'it has no <source>' });
  else if (!address) found.push({ part: p, cause: 'its <source> has no <address>' });
  if (source) {
    found.push(
      ...faults(
        p,
        shapeFaults(source, {
          attributes: { startupPolicy: /^(mandatory|requisite|optional)$/, writeFiltering: YES_NO },
          children: ['address'],
        }),
      ),
    );
  }
  if (address) found.push(...faults(p, addressCauses(address)));
  if (isTornApart(p.element)) {
    found.push({ part: p, cause: '<driver>, <teaming> and <source> do not stand together' });
  }
  const driver = child(p.element, 'driver');
  if (driver) found.push(...driverFaults(driver, libvirt, true).map((f) => ({ part: p, ...f })));
  found.push(...faults(p, childCauses(p.element, { rom: ROM, boot: BOOT, alias: ALIAS, readonly: {}, shareable: {} })));
  found.push(...faults(p, childCauses(p.element, { acpi: acpiIndexGrammar(true) })));
  const nodeset = child(p.element, 'acpi')?.getAttribute('nodeset');
  if (nodeset != null && below(libvirt, ACPI_NODESET_FROM)) {
    found.push({
      part: p,
      cause: `<acpi> has no attribute 'nodeset' before ${sinceLibvirt(ACPI_NODESET_FROM)}`,
      since: sinceLibvirt(ACPI_NODESET_FROM),
    });
  }
  return found;
}

/** libxml2 matches the group of these within the rest only where nothing stands between them (measured: 9.0.0 to 12.8.0). */
function isTornApart(e: Element): boolean {
  const places = elements(e).flatMap((c, i) => (['driver', 'teaming', 'source'].includes(c.nodeName) ? [i] : []));
  return places.length > 1 && (places.at(-1) ?? 0) - (places[0] ?? 0) !== places.length - 1;
}

export function interfaceFaults({ domain, versions }: Target): Fault[] {
  const grammar = interfaceGrammar('hostdev', versions.libvirt);
  return hostdevInterfaces(domain).flatMap((p) => {
    const found: Fault[] = faults(p, grammarFaults(p.element, grammar));
    const say = (cause: string): number => found.push({ part: p, cause });
    const source = sourceOf(p);
    const address = sourceAddress(p);
    const type = address?.getAttribute('type');
    const isUsb = type === 'usb' || (source !== undefined && child(source, 'vendor') !== undefined);
    if (source && isUsb) found.push(...faults(p, grammarFaults(source, usbInterfaceSource(type === 'usb'))));
    else if (source) {
      found.push(...faults(p, shapeFaults(source, { attributes: { missing: YES_NO }, children: ['address'] })));
      if (!address) say('its <source> has no <address>');
      else if (type !== 'pci') say(`the <address> in its <source> needs type='pci'`);
      else found.push(...faults(p, addressCauses(address, { type: ANY })));
    }
    found.push(...faults(p, virtualPortFaults(p.element)));
    if (isQemu(domain) && child(p.element, 'mtu')) say('<mtu> is not for host devices');
    if (child(p.element, 'port')?.getAttribute('isolated') === 'yes') say('<port isolated> is not for host devices');
    const driver = child(p.element, 'driver');
    if (driver) found.push(...driverFaults(driver, versions.libvirt, false).map((f) => ({ part: p, ...f })));
    return found;
  });
}

export function nvmeFaults({ domain, versions }: Target): Fault[] {
  const grammar = diskGrammar('nvme', versions.libvirt);
  return nvmeDisks(domain).flatMap((p) => {
    const source = sourceOf(p);
    const address = sourceAddress(p);
    const found = grammarFaults(p.element, grammar);
    if (!address) found.push('it has no <source> with an <address>');
    else found.push(...addressCauses(address));
    if (isQemu(domain) && ['cdrom', 'floppy'].includes(p.element.getAttribute('device') ?? '')) {
      found.push('it is of removable media');
    }
    const name = child(p.element, 'driver')?.getAttribute('name') ?? 'qemu';
    if (isQemu(domain) && name !== 'qemu') found.push(`its driver is '${safe(name)}' and not qemu`);
    if (source && source.getAttribute('type') !== 'pci') found.push("its <source> has no type='pci'");
    const managed = source?.getAttribute('managed');
    if (managed != null && !YES_NO.test(managed)) found.push(`'${safe(managed)}' is no value for 'managed'`);
    const namespace = source?.getAttribute('namespace') ?? null;
    if (namespace === null || !/^[ \t\r\n]*\d+$/.test(namespace) || Number(namespace) > 0xffffffff)
      found.push('its <source> has no namespace');
    else if (Number(namespace) === 0) found.push("a namespace can't be 0");
    return faults(p, found);
  });
}
