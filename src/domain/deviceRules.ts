/** The rules of what a domain takes from the host: PCI hostdevs, interfaces of type hostdev, NVMe disks. Checked against libvirt 9.0.0, 11.3.0 and 12.8.0. */
import type { Element } from '@xmldom/xmldom';
import { type DomainFacts, isQemu, type Part } from './domainFacts.ts';
import { type Grammar, grammarFaults } from './grammar.ts';
import { child, children } from './hostDevices.ts';
import {
  ANY,
  below,
  elements,
  type Fault,
  ON_OFF,
  PCI_ADDRESS,
  type Rule,
  type Shape,
  shapeFaults,
  sinceLibvirt,
  type Target,
  YES_NO,
} from './rules.ts';
import {
  ALIAS,
  acpiIndexGrammar,
  BOOT,
  diskGrammar,
  guestAddressGrammar,
  interfaceGrammar,
  NET_DRIVER,
  ROM,
  TEAMING_TRANSIENT,
  VIRTIO_OPTIONS,
  virtualPortGrammar,
} from './shapes.ts';
import { type Version, version } from './version.ts';
import { printable } from './xmlScan.ts';

const DRIVER_MODEL_FROM = version('10.0.0');
const DISPLAY_FROM = version('10.3.0');
const ACPI_NODESET_FROM = version('11.8.0');
const IOMMUFD_FROM = version('12.1.0');
const IOMMUFD_DOMAIN_FROM = version('12.2.0');

const ofType = (parts: readonly Part[], type: string): Part[] =>
  parts.filter((p) => p.element.getAttribute('type') === type);

const pciHostdevs = (d: DomainFacts): Part[] =>
  ofType(d.hostdevs, 'pci').filter((p) => (p.element.getAttribute('mode') ?? 'subsystem') === 'subsystem');

const hostdevInterfaces = (d: DomainFacts): Part[] => ofType(d.interfaces, 'hostdev');

const nvmeDisks = (d: DomainFacts): Part[] => ofType(d.disks, 'nvme');

const sourceOf = (p: Part): Element | undefined => child(p.element, 'source');

const sourceAddress = (p: Part): Element | undefined => {
  const source = sourceOf(p);
  return source && child(source, 'address');
};

const faults = (part: Part, causes: readonly string[]): Fault[] => causes.map((cause) => ({ part, cause }));

/** The numbers of an address, 0 where an attribute is missing, as libvirt reads it; null when one is no number. */
function addressKey(e: Element): string | null {
  const parts = ['domain', 'bus', 'slot', 'function'].map((n) => {
    const text = e.getAttribute(n);
    if (text === null) return 0;
    if (!PCI_ADDRESS[n]?.test(text)) return null;
    return /^0[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number(text);
  });
  return parts.includes(null) ? null : parts.map((n) => (n ?? 0).toString(16)).join(':');
}

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

const addressCauses = (e: Element, extra: Shape['attributes'] = {}): string[] =>
  shapeFaults(e, { attributes: { ...PCI_ADDRESS, ...extra }, children: ['zpci'] });

function hostdevShape(libvirt: Version | null): Shape {
  return {
    attributes: {
      mode: /^subsystem$/,
      type: ANY,
      managed: YES_NO,
      ...(below(libvirt, DISPLAY_FROM) ? {} : { display: ON_OFF, ramfb: ON_OFF }),
    },
    children: ['driver', 'teaming', 'source', 'alias', 'acpi', 'boot', 'rom', 'address', 'readonly', 'shareable'],
  };
}

function hostdevFaults({ domain, versions }: Target): Fault[] {
  const odd = domain.hostdevs.flatMap((p) => {
    const mode = p.element.getAttribute('mode') ?? 'subsystem';
    if (mode !== 'subsystem' && mode !== 'capabilities') return faults(p, [`'${printable(mode)}' is no mode`]);
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

/** What the elements directly in `e` are not by their grammars. */
const childCauses = (e: Element, grammars: Record<string, Grammar>): string[] =>
  Object.entries(grammars).flatMap(([name, g]) => children(e, name).flatMap((c) => grammarFaults(c, g)));

/** libxml2 matches the group of these within the rest only where nothing stands between them (measured: 9.0.0 to 12.8.0). */
function isTornApart(e: Element): boolean {
  const places = elements(e).flatMap((c, i) => (['driver', 'teaming', 'source'].includes(c.nodeName) ? [i] : []));
  return places.length > 1 && (places.at(-1) ?? 0) - (places[0] ?? 0) !== places.length - 1;
}

function interfaceFaults({ domain, versions }: Target): Fault[] {
  const grammar = interfaceGrammar('hostdev', versions.libvirt);
  return hostdevInterfaces(domain).flatMap((p) => {
    const found: Fault[] = faults(p, grammarFaults(p.element, grammar));
    const say = (cause: string): number => found.push({ part: p, cause });
    const source = sourceOf(p);
    const address = sourceAddress(p);
    const type = address?.getAttribute('type');
    if (source)
      found.push(...faults(p, shapeFaults(source, { attributes: { missing: YES_NO }, children: ['address'] })));
    if (source && !address) say('its <source> has no <address>');
    else if (address && type !== 'pci' && type !== 'usb') say(`the <address> in its <source> needs type='pci'`);
    else if (address && type === 'pci') found.push(...faults(p, addressCauses(address, { type: ANY })));
    const port = child(p.element, 'virtualport');
    if (port) {
      const shape = virtualPortGrammar(port.getAttribute('type'));
      if (shape) found.push(...faults(p, grammarFaults(port, shape)));
      else say('its <virtualport> has no type that there is');
      const parameters = child(port, 'parameters');
      if (port.getAttribute('type') === '802.1Qbh' && !parameters?.getAttribute('profileid')) {
        say('its 802.1Qbh has no profileid');
      }
      if (port.getAttribute('type') === '802.1Qbg') {
        const missing = ['managerid', 'typeid', 'typeidversion'].filter((n) => !parameters?.hasAttribute(n));
        if (missing.length > 0) say(`its 802.1Qbg has no ${missing.join(', ')}`);
      }
    }
    if (isQemu(domain) && child(p.element, 'mtu')) say('<mtu> is not for host devices');
    if (child(p.element, 'port')?.getAttribute('isolated') === 'yes') say('<port isolated> is not for host devices');
    found.push(...faults(p, childCauses(p.element, { acpi: acpiIndexGrammar(false) })));
    const driver = child(p.element, 'driver');
    if (driver) found.push(...driverFaults(driver, versions.libvirt, false).map((f) => ({ part: p, ...f })));
    return found;
  });
}

function vlanTags(p: Part): Element[] {
  const vlan = child(p.element, 'vlan');
  return vlan ? children(vlan, 'tag') : [];
}

function guestAddressFaults(p: Part, types: RegExp): Fault[] {
  const address = child(p.element, 'address');
  if (!address) return [];
  const type = address.getAttribute('type');
  const grammar = guestAddressGrammar(type);
  if (!grammar) return faults(p, [`'${printable(type ?? '')}' is no type of an <address>`]);
  return types.test(type ?? '') ? faults(p, grammarFaults(address, grammar)) : faults(p, [`it is '${type}'`]);
}

function duplicateFaults({ domain }: Target): Fault[] {
  const seen = new Map<string, Part>();
  return [...pciHostdevs(domain), ...ofType(domain.hostdevs, 'mdev'), ...hostdevInterfaces(domain)].flatMap((p) => {
    const address = sourceAddress(p);
    if (address?.getAttribute('type') === 'usb') return [];
    const key = address?.getAttribute('uuid')?.toLowerCase() ?? (address ? addressKey(address) : null);
    const earlier = key === null ? undefined : seen.get(key);
    if (key !== null && !earlier) seen.set(key, p);
    return earlier ? [{ part: p, cause: `the host's address is that of ${earlier.where}` }] : [];
  });
}

function bootFaults({ domain }: Target): Fault[] {
  const seen = new Map<string, Part>();
  return [...domain.disks, ...domain.interfaces, ...domain.hostdevs].flatMap((p) => {
    const order = child(p.element, 'boot')?.getAttribute('order');
    if (!order) return [];
    const key = `${Number(order)}`;
    const earlier = seen.get(key);
    seen.set(key, p);
    return earlier ? [{ part: p, cause: `boot order ${key} is that of ${earlier.where}` }] : [];
  });
}

function teamingFaults({ domain }: Target): Fault[] {
  const partners = domain.interfaces.filter((p) => p.element.getAttribute('type') !== 'hostdev' && isQemu(domain));
  const odd = partners.flatMap((p) => {
    const isPersistent = child(p.element, 'teaming')?.getAttribute('type') === 'persistent';
    const model = child(p.element, 'model')?.getAttribute('type') ?? null;
    return isPersistent && !/^virtio(-transitional|-non-transitional)?$/.test(model ?? '')
      ? faults(p, [`the persistent side is of model '${printable(model ?? '')}' and not virtio`])
      : [];
  });
  return [...odd, ...transientFaults(domain)];
}

function transientFaults(domain: DomainFacts): Fault[] {
  return [...pciHostdevs(domain), ...hostdevInterfaces(domain)].flatMap((p) => {
    const teaming = child(p.element, 'teaming');
    if (!teaming) return [];
    const type = teaming.getAttribute('type');
    if (type === 'transient') return faults(p, grammarFaults(teaming, TEAMING_TRANSIENT));
    return faults(p, [`the type is '${printable(type ?? '')}'`]);
  });
}

function nvmeFaults({ domain, versions }: Target): Fault[] {
  const grammar = diskGrammar('nvme', versions.libvirt);
  return nvmeDisks(domain).flatMap((p) => {
    const source = sourceOf(p);
    const address = sourceAddress(p);
    const found = grammarFaults(p.element, grammar);
    found.push(...childCauses(p.element, { acpi: acpiIndexGrammar(false) }));
    if (!address) found.push('it has no <source> with an <address>');
    else found.push(...addressCauses(address));
    if (isQemu(domain) && ['cdrom', 'floppy'].includes(p.element.getAttribute('device') ?? '')) {
      found.push('it is of removable media');
    }
    const name = child(p.element, 'driver')?.getAttribute('name') ?? 'qemu';
    if (isQemu(domain) && name !== 'qemu') found.push(`its driver is '${printable(name)}' and not qemu`);
    if (source && source.getAttribute('type') !== 'pci') found.push("its <source> has no type='pci'");
    const managed = source?.getAttribute('managed');
    if (managed != null && !YES_NO.test(managed)) found.push(`'${printable(managed)}' is no value for 'managed'`);
    const namespace = source?.getAttribute('namespace') ?? null;
    if (namespace === null || !/^\d{1,10}$/.test(namespace)) found.push('its <source> has no namespace');
    else if (Number(namespace) === 0) found.push("a namespace can't be 0");
    return faults(p, found);
  });
}

const VALIDATE = 'libvirt conf/domain_validate.c';

export const DEVICE_RULES: readonly Rule[] = [
  {
    id: 'hostdev-schema',
    stage: 'define',
    holds: 'a PCI <hostdev> has only what the schema of that libvirt knows, and one source address within PCI limits',
    since: null,
    source: 'libvirt conf/schemas/domaincommon.rng hostdev; conf/domain_conf.c virDomainHostdevSubsysPCIDefParseXML',
    fix: 'correct or leave out what is named; a define without VALIDATE drops unknown attributes silently',
    check: hostdevFaults,
  },
  {
    id: 'interface-schema',
    stage: 'define',
    holds: "<interface type='hostdev'> has a source address with type='pci', a unicast MAC and VLAN ids up to 4095",
    since: null,
    source: 'libvirt conf/schemas/domaincommon.rng interface; conf/domain_conf.c virDomainNetDefParseXML',
    fix: 'correct what is named',
    check: interfaceFaults,
  },
  {
    id: 'nvme-schema',
    stage: 'define',
    holds: "<disk type='nvme'> has type='pci', a namespace above 0 and the controller's address in its <source>",
    since: null,
    source: `libvirt conf/schemas/domaincommon.rng diskSourceNvme; ${VALIDATE} (NVMe namespace can't be zero)`,
    fix: 'correct what is named',
    check: nvmeFaults,
  },
  {
    id: 'hostdev-duplicate',
    stage: 'define',
    holds: 'no host address is there twice among <hostdev> and <interface type=hostdev>',
    since: null,
    source: `${VALIDATE} virDomainDefHostdevValidate (Hostdev already exists in the domain configuration)`,
    fix: 'leave one',
    check: duplicateFaults,
  },
  {
    id: 'hostdev-guest-address',
    stage: 'define',
    holds: "the guest's <address> of a PCI <hostdev> is of type pci or unassigned",
    since: null,
    source: `${VALIDATE} virDomainHostdevDefValidate (must use 'pci' or 'unassigned' address type)`,
    fix: 'take the <address> out: libvirt chooses one',
    check: ({ domain }) => [
      ...[...pciHostdevs(domain), ...hostdevInterfaces(domain)].flatMap((p) =>
        guestAddressFaults(p, /^(pci|unassigned)$/),
      ),
      ...[...domain.disks, ...domain.interfaces, ...domain.controllers]
        .filter((p) => p.element.nodeName !== 'interface' || p.element.getAttribute('type') !== 'hostdev')
        .flatMap((p) => guestAddressFaults(p, ANY)),
    ],
  },
  {
    id: 'unassigned-elsewhere',
    stage: 'define',
    holds: "only a <hostdev> may have <address type='unassigned'/>",
    since: 'libvirt 6.0.0',
    source: `${VALIDATE} virDomainDeviceInfoValidate (is supported only for hostdevs)`,
    fix: 'use a <hostdev> for what the guest is not to see',
    check: ({ domain }) =>
      [...domain.interfaces, ...domain.disks, ...domain.controllers]
        .filter((p) => child(p.element, 'address')?.getAttribute('type') === 'unassigned')
        .map((part) => ({ part, cause: 'it has one' })),
  },
  {
    id: 'hostdev-write-filtering',
    stage: 'define',
    holds: 'writeFiltering is for Xen',
    since: null,
    source:
      'libvirt qemu/qemu_validate.c qemuValidateDomainDeviceDefHostdev (Write filtering … is not supported by qemu)',
    fix: 'take it out',
    check: ({ domain }) =>
      pciHostdevs(domain)
        .filter((p) => isQemu(domain) && sourceOf(p)?.getAttribute('writeFiltering') != null)
        .map((part) => ({ part, cause: 'its <source> has writeFiltering' })),
  },
  {
    id: 'hostdev-startup-policy',
    stage: 'define',
    holds: 'startupPolicy is for USB devices',
    since: null,
    source: 'libvirt conf/domain_conf.c virDomainHostdevDefParseXMLSubsys (only allowed for USB devices)',
    fix: 'take it out',
    check: ({ domain }) =>
      pciHostdevs(domain)
        .filter((p) => sourceOf(p)?.getAttribute('startupPolicy') != null)
        .map((part) => ({ part, cause: 'its <source> has one' })),
  },
  {
    id: 'hostdev-rom',
    stage: 'define',
    holds: "rom enabled='no' has neither bar nor file",
    since: null,
    source: 'libvirt conf/domain_conf.c virDomainDeviceInfoParseXML (ROM tuning is not supported when ROM is disabled)',
    fix: 'take bar and file out',
    check: ({ domain }) =>
      pciHostdevs(domain)
        .filter((p) => {
          const rom = child(p.element, 'rom');
          return (
            rom?.getAttribute('enabled') === 'no' && (rom.getAttribute('bar') ?? rom.getAttribute('file')) !== null
          );
        })
        .map((part) => ({ part, cause: 'it has' })),
  },
  {
    id: 'boot-order',
    stage: 'define',
    holds: 'each boot order is there once',
    since: null,
    source: `${VALIDATE} virDomainDefBootValidate (used for more than one device)`,
    fix: 'number them anew',
    check: bootFaults,
  },
  {
    id: 'hostdev-teaming',
    stage: 'define',
    holds: "teaming of a host device is type='transient' with persistent naming its partner",
    since: null,
    source: `${VALIDATE} virDomainHostdevDefValidate, virDomainNetDefValidate; schema`,
    fix: "write <teaming type='transient' persistent='ua-…'/>",
    check: teamingFaults,
  },
  {
    id: 'hostdev-display',
    stage: 'define',
    holds: "display='on' needs a <graphics>",
    since: sinceLibvirt(DISPLAY_FROM),
    source: 'libvirt qemu/qemu_validate.c qemuValidateDomainDeviceDefHostdev (graphics device is needed)',
    fix: 'add a <graphics>, or take display out',
    check: ({ domain, versions }) => {
      const root = domain.document.documentElement;
      const graphics = root ? children(root, 'devices').some((d) => child(d, 'graphics') !== undefined) : false;
      if (!isQemu(domain) || graphics || below(versions.libvirt, DISPLAY_FROM)) return [];
      return pciHostdevs(domain)
        .filter((p) => p.element.getAttribute('display') === 'on')
        .map((part) => ({ part, cause: 'there is none' }));
    },
  },
  {
    id: 'iommufd-domain',
    stage: 'define',
    holds: "<iommufd> of the domain needs libvirt 12.2.0, and fdgroup needs enabled='yes'",
    since: sinceLibvirt(IOMMUFD_DOMAIN_FROM),
    source: `libvirt NEWS 12.2.0; ${VALIDATE} virDomainDefValidateIommufd`,
    fix: 'take it out',
    check: ({ domain, versions }) => {
      const root = domain.document.documentElement;
      const e = root && child(root, 'iommufd');
      if (!e) return [];
      if (below(versions.libvirt, IOMMUFD_DOMAIN_FROM)) return [{ part: null, cause: 'there is <iommufd>' }];
      return e.getAttribute('enabled') === 'no' && e.getAttribute('fdgroup') !== null
        ? [{ part: null, cause: "fdgroup with enabled='no'" }]
        : [];
    },
  },
  {
    id: 'hostdev-vfio',
    stage: 'assign',
    holds: 'QEMU takes host devices through VFIO only',
    since: null,
    source: 'libvirt qemu/qemu_hostdev.c qemuHostdevPreparePCIDevicesCheckSupport',
    fix: "take name='…' out, or write name='vfio'",
    check: ({ domain }) =>
      [...pciHostdevs(domain), ...hostdevInterfaces(domain)]
        .filter(
          (p) => isQemu(domain) && ['kvm', 'xen'].includes(child(p.element, 'driver')?.getAttribute('name') ?? ''),
        )
        .map((part) => ({ part, cause: `its driver is ${child(part.element, 'driver')?.getAttribute('name')}` })),
  },
  {
    id: 'interface-vlan',
    stage: 'assign',
    holds: 'a VF takes one VLAN tag and no trunk',
    since: null,
    source:
      'libvirt util/virhostdev.c virHostdevSetNetConfig (vlan trunking is not supported by SR-IOV network devices)',
    fix: 'leave one <tag> and no trunk',
    check: ({ domain }) =>
      hostdevInterfaces(domain)
        .filter((p) => vlanTags(p).length > 1 || child(p.element, 'vlan')?.getAttribute('trunk') === 'yes')
        .map((part) => ({ part, cause: `it has ${vlanTags(part).length} tags` })),
  },
  {
    id: 'interface-virtualport',
    stage: 'assign',
    holds: 'the virtualport of a VF is 802.1Qbh, without a VLAN tag',
    since: null,
    source: 'libvirt util/virhostdev.c virHostdevNetConfigVirtPortProfile, virHostdevSetNetConfig',
    fix: 'take the <virtualport> or the <vlan> out',
    check: ({ domain }) =>
      hostdevInterfaces(domain).flatMap((p) => {
        const type = child(p.element, 'virtualport')?.getAttribute('type');
        if (type == null) return [];
        if (type !== '802.1Qbh') return faults(p, [`it is ${printable(type)}`]);
        return vlanTags(p).length > 0 ? faults(p, ['it has both']) : [];
      }),
  },
  {
    id: 'address-parts',
    stage: 'advice',
    holds: 'a host address names bus, slot and function',
    since: null,
    source: 'libvirt conf/device_conf.c virPCIDeviceAddressParseXML: what is missing is 0, which is another device',
    fix: 'write all parts',
    check: ({ domain }) =>
      [...pciHostdevs(domain), ...hostdevInterfaces(domain), ...nvmeDisks(domain)].flatMap((p) => {
        const address = sourceAddress(p);
        const missing = address ? ['bus', 'slot', 'function'].filter((n) => address.getAttribute(n) === null) : [];
        return missing.length > 0 ? faults(p, [`${missing.join(', ')} missing`]) : [];
      }),
  },
  {
    id: 'unassigned-managed',
    stage: 'advice',
    holds: "a peer with <address type='unassigned'/> is managed='yes', or is bound to VFIO by something else",
    since: 'libvirt 6.0.0',
    source: 'libvirt docs/formatdomain: hostdev; hypervisor/virhostdev.c virHostdevPreparePCIDevices',
    fix: "write managed='yes', or let hostdev's hook bind it",
    check: ({ domain }) =>
      pciHostdevs(domain)
        .filter((p) => child(p.element, 'address')?.getAttribute('type') === 'unassigned')
        .filter((p) => p.element.getAttribute('managed') !== 'yes')
        .map((part) => ({ part, cause: "it is managed='no'" })),
  },
];
