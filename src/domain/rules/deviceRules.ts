import { safe } from '../../text/safe.ts';
import { isArmVirt, isQemu, isX86, type Part } from '../domainFacts.ts';
import { below, sinceLibvirt, version } from '../version.ts';
import { child, children } from '../xml/dom.ts';
import { hostdevFaults, interfaceFaults, nvmeFaults } from './deviceSchema.ts';
import { DISPLAY_FROM, TEAMING_PERSISTENT, TEAMING_TRANSIENT } from './deviceShapes.ts';
import { type Grammar, grammarFaults } from './grammar.ts';
import {
  faults,
  faultsOf,
  hostdevInterfaces,
  hostParts,
  isVirtioInterface,
  nvmeDisks,
  pciControllers,
  pciHostdevs,
  sourceAddress,
  sourceOf,
  vlanTags,
} from './ours.ts';
import type { Fault, Rule, Target } from './rules.ts';
import { guestAddressGrammar } from './shapes.ts';
import { ANY } from './values.ts';

const IOMMUFD_DOMAIN_FROM = version('12.2.0');

function guestAddressFaults(p: Part, types: RegExp): Fault[] {
  const address = child(p.element, 'address');
  if (!address) return [];
  const type = address.getAttribute('type');
  const grammar = guestAddressGrammar(type);
  if (grammar === undefined) return faults(p, [`'${safe(type ?? '')}' is no type of an <address>`]);
  if (!types.test(type ?? '')) return faults(p, [`it is '${type}'`]);
  return grammar === null ? [] : faultsOf(p, grammarFaults(address, grammar, null));
}

function teamingFaults({ domain, versions }: Target): Fault[] {
  return [...pciHostdevs(domain), ...hostdevInterfaces(domain)].flatMap((p) => {
    const teaming = child(p.element, 'teaming');
    if (!teaming) return [];
    const type = teaming.getAttribute('type');
    const is = (g: Grammar): Fault[] => faultsOf(p, grammarFaults(teaming, g, versions.libvirt));
    if (type === 'transient') return is(TEAMING_TRANSIENT);
    if (p.element.nodeName === 'hostdev') return faults(p, [`the type is '${safe(type ?? '')}'`]);
    const isOther = isQemu(domain) && !isVirtioInterface(p);
    return [
      ...is(TEAMING_PERSISTENT),
      ...faults(p, isOther ? ['the persistent side is of another model than virtio'] : []),
    ];
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
    id: 'hostdev-guest-address',
    stage: 'define',
    holds: "the guest's <address> of a PCI <hostdev> or an interface of type hostdev is of type pci or unassigned",
    since: null,
    source: `${VALIDATE} virDomainHostdevDefValidate (must use 'pci' or 'unassigned' address type); conf/domain_postparse.c virDomainHostdevAssignAddress`,
    fix: 'take the <address> out: libvirt chooses one',
    check: ({ domain }) => [
      ...[...pciHostdevs(domain), ...hostdevInterfaces(domain)].flatMap((p) =>
        guestAddressFaults(p, /^(pci|unassigned)$/),
      ),
      ...[...nvmeDisks(domain), ...pciControllers(domain)].flatMap((p) => guestAddressFaults(p, ANY)),
    ],
  },
  {
    id: 'acpi-index-address',
    stage: 'define',
    holds: 'an ACPI index is for a device with a PCI address',
    since: null,
    source: 'libvirt qemu/qemu_validate.c qemuValidateDomainDeviceInfo (ACPI index is only supported for PCI devices)',
    fix: 'take the index out: what is unassigned, or on another bus, has none',
    check: ({ domain }) =>
      hostParts(domain)
        .filter((p) => isQemu(domain) && child(p.element, 'acpi')?.hasAttribute('index'))
        .filter((p) => (child(p.element, 'address')?.getAttribute('type') ?? 'pci') !== 'pci')
        .map((part) => ({ part, cause: 'it has both an index and another address' })),
  },
  {
    id: 'unassigned-elsewhere',
    stage: 'define',
    holds: "only a <hostdev> may have <address type='unassigned'/>",
    since: 'libvirt 6.0.0',
    source: `${VALIDATE} virDomainDeviceInfoValidate (is supported only for hostdevs)`,
    fix: 'use a <hostdev> for what the guest is not to see',
    check: ({ domain }) =>
      [...hostdevInterfaces(domain), ...nvmeDisks(domain), ...pciControllers(domain)]
        .filter((p) => child(p.element, 'address')?.getAttribute('type') === 'unassigned')
        .map((part) => ({ part, cause: 'it has one' })),
  },
  {
    id: 's390-only',
    stage: 'define',
    holds: 'a <zpci> that says something is for s390x',
    since: null,
    source: "libvirt qemu/qemu_validate.c qemuValidateDomainDeviceDefZPCI (This QEMU binary doesn't support zPCI)",
    fix: 'take the <zpci> out',
    check: ({ domain, versions }) => {
      if (!isQemu(domain) || !(isX86(domain) || isArmVirt(domain, versions.libvirt))) return [];
      return hostParts(domain).flatMap((p) => {
        const address = child(p.element, 'address');
        const zpci = address && child(address, 'zpci');
        const says = zpci?.hasAttribute('uid') || zpci?.hasAttribute('fid');
        return faults(p, says ? ['its <address> has a <zpci>'] : []);
      });
    },
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
      hostParts(domain)
        .filter(({ element }) => {
          const rom = child(element, 'rom');
          return rom?.getAttribute('enabled') === 'no' && (rom.hasAttribute('bar') || rom.hasAttribute('file'));
        })
        .map((part) => ({ part, cause: 'it has' })),
  },
  {
    id: 'hostdev-teaming',
    stage: 'define',
    holds:
      "teaming is type='transient' with persistent naming its partner; of an interface also 'persistent' with a virtio model",
    since: null,
    source: `${VALIDATE} virDomainHostdevDefValidate, virDomainNetDefValidate; schema`,
    fix: "write <teaming type='transient' persistent='ua-…'/>",
    check: teamingFaults,
  },
  {
    id: 'hostdev-display',
    stage: 'define',
    holds: "display='on' needs a <graphics>",
    since: `${sinceLibvirt(DISPLAY_FROM)} for PCI devices`,
    source: 'libvirt qemu/qemu_validate.c qemuValidateDomainDeviceDefHostdev (graphics device is needed)',
    fix: 'add a <graphics>, or take display out',
    check: ({ domain, versions }) => {
      const graphics = children(domain.root, 'devices').some((d) => child(d, 'graphics') !== undefined);
      if (!isQemu(domain) || graphics) return [];
      const pci = below(versions.libvirt, DISPLAY_FROM) ? [] : pciHostdevs(domain);
      return pci
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
      const e = child(domain.root, 'iommufd');
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
        if (type !== '802.1Qbh') return faults(p, [`it is ${safe(type)}`]);
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
