/**
 * The shape of a domain around what it takes from the host, by libvirt's schema: conf/schemas/domaincommon.rng of 9.0.0, and what 11.3.0 has beside it. What the
 * rules are not about is named and not looked into.
 */
import type { Grammar } from './grammar.ts';
import { ANY, ON_OFF, PCI_ADDRESS, YES_NO } from './rules.ts';
import { type Version, version } from './version.ts';

/** The last schema that these shapes were held against; what a newer one knows beside them is not refused. */
const LAST_SCHEMA = version('11.3.0');
const FIRST_SCHEMA = version('9.0.0');

const isNewer = (libvirt: Version | null): boolean => libvirt === null || libvirt > LAST_SCHEMA;

/** Names that 9.0.0 does not have and 11.3.0 does: known unless libvirt is no newer than 9.0.0. */
const later = (libvirt: Version | null, names: readonly string[]): readonly string[] =>
  libvirt !== null && libvirt <= FIRST_SCHEMA ? [] : names;

const any = (names: readonly string[]): Record<string, null> => Object.fromEntries(names.map((n) => [n, null]));

/** From 1 to 4294967295 with digits alone: the schema's positiveInteger, the parser's unsigned int. */
export const POSITIVE =
  /^0*(?:[1-9]\d{0,8}|[1-3]\d{9}|4[01]\d{8}|42[0-8]\d{7}|429[0-3]\d{6}|4294[0-8]\d{5}|42949[0-5]\d{4}|429496[0-6]\d{3}|4294967[01]\d{2}|42949672[0-8]\d|429496729[0-5])$/;
export const EMPTY: Grammar = {};

export const ALIAS: Grammar = { attributes: { name: /^[a-zA-Z0-9_\-.]+$/ }, required: ['name'] };
export const BOOT: Grammar = {
  attributes: { order: POSITIVE, loadparm: /^[a-zA-Z0-9.\s]{1,8}$/ },
  required: ['order'],
};
export const ROM: Grammar = { attributes: { enabled: YES_NO, bar: ON_OFF, file: /^(\/|[a-zA-Z]:\\)./ } };
export const TEAMING_TRANSIENT: Grammar = {
  attributes: { type: /^transient$/, persistent: /^[a-zA-Z0-9_\-.]+$/ },
  required: ['type', 'persistent'],
};

/** Of an interface that is no host device: the partner's side too. */
const TEAMING: Grammar = {
  attributes: { type: /^(persistent|transient)$/, persistent: /^[a-zA-Z0-9_\-.]+$/ },
  required: ['type'],
};

const once = (names: readonly string[], grammars: Record<string, Grammar>): Record<string, Grammar | null> => ({
  ...any(names),
  ...grammars,
});

const ARCHES =
  /^(aarch64|alpha|armv6l|armv7l|cris|i686|ia64|lm32|loongarch64|m68k|microblaze(el)?|mips(64)?(el)?|openrisc|parisc(64)?|ppc|ppc64|ppc64le|ppcemb|riscv32|riscv64|s390x?|sh4(eb)?|sparc(64)?|unicore32|x86_64|xtensa(eb)?)$/;

/** From 1 to 65535: unsignedShort with digits alone. */
const COUNT_CPU = /^[ \t\r\n]*0*([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])$/;
const UNIT = /^([bB]([yY][tT][eE][sS]?)?|[kKmMgGtTpPeE]([iI]?[bB])?)?$/;
const SIZE = /^[ \t\r\n]*\d{1,20}$/;

const MEMORY: Grammar = { attributes: { unit: UNIT, dumpCore: ON_OFF }, text: SIZE };

const OS_HVM: Grammar = {
  attributes: { firmware: /^(bios|efi)$/ },
  children: once(['firmware', 'nvram', 'kernel', 'initrd', 'cmdline', 'dtb', 'bootmenu', 'smbios', 'bios', 'acpi'], {
    type: { attributes: { arch: ARCHES, machine: /^[a-zA-Z0-9_.-]+$/ }, text: /^hvm$/ },
    boot: { attributes: { dev: /^(hd|fd|cdrom|network)$/ }, required: ['dev'] },
    loader: {
      attributes: {
        readonly: YES_NO,
        secure: YES_NO,
        type: /^(rom|pflash)$/,
        stateless: YES_NO,
        // From 9.2.0 on.
        format: ANY,
      },
      text: /^([/].+|[a-zA-Z]:\\.+|[ \t\r\n]*)$/,
    },
  }),
  needs: ['type'],
  many: ['boot'],
};

const FEATURES = [
  'apic hap hyperv kvm xen viridian pvspinlock capabilities pmu vmport gic smm hpt vmcoreinfo htm nested-hv msrs',
  'ccf-assist cfpc sbbc ibs tcg privnet',
].flatMap((names) => names.split(' '));

const features = (libvirt: Version | null): Grammar => ({
  children: once([...FEATURES, ...later(libvirt, ['aia', 'async-teardown', 'ps2', 'ras'])], {
    acpi: EMPTY,
    pae: EMPTY,
    ioapic: { attributes: { driver: /^(qemu|kvm)$/ }, required: ['driver'] },
  }),
  open: isNewer(libvirt),
});

const DEVICES_MANY = [
  'disk controller lease filesystem interface input sound audio hostdev graphics video console parallel serial channel',
  'smartcard hub redirdev redirfilter rng tpm shmem memory panic',
].flatMap((names) => names.split(' '));
const DEVICES_ONCE = ['emulator', 'nvram', 'vsock'];
/** `<driver>` of an interface that has none of VFIO's names: the schema takes it for any kind. */
export const NET_DRIVER = {
  queues: POSITIVE,
  rx_queue_size: POSITIVE,
  tx_queue_size: POSITIVE,
  txmode: /^(iothread|timer)$/,
  ioeventfd: ON_OFF,
  event_idx: ON_OFF,
  rss: ON_OFF,
  rss_hash_report: ON_OFF,
};
export const VIRTIO_OPTIONS = { iommu: ON_OFF, ats: ON_OFF, packed: ON_OFF, page_per_vq: ON_OFF };
const BALLOON: Grammar = {
  attributes: {
    model: /^(virtio|virtio-transitional|virtio-non-transitional|xen|none)$/,
    autodeflate: ON_OFF,
    freePageReporting: ON_OFF,
  },
  required: ['model'],
  children: {
    ...any(['alias', 'acpi', 'address']),
    driver: { attributes: VIRTIO_OPTIONS },
    stats: { attributes: { period: POSITIVE }, required: ['period'] },
  },
};

/** Several watchdogs from 9.1.0 on; several <iommu> are a rule of their own. */
const devices = (libvirt: Version | null): Grammar => {
  const more = later(libvirt, ['crypto', 'pstore']);
  return {
    children: once([...DEVICES_MANY, ...DEVICES_ONCE, 'watchdog', 'iommu', ...more], { memballoon: BALLOON }),
    many: [...DEVICES_MANY, 'iommu', ...later(libvirt, ['watchdog', 'crypto'])],
    open: isNewer(libvirt),
  };
};

const CPU: Grammar = {
  attributes: {
    mode: /^(custom|host-model|host-passthrough|maximum)$/,
    match: /^(minimum|exact|strict)$/,
    check: /^(none|partial|full)$/,
    migratable: ON_OFF,
    // From 11.0.0 on.
    deprecated_features: ON_OFF,
  },
  children: any(['model', 'vendor', 'topology', 'cache', 'maxphysaddr', 'feature', 'numa']),
  many: ['feature'],
};

const DOMAIN_ONCE = [
  'title description metadata genid uuid clock maxMemory currentMemory memoryBacking vcpus iothreads iothreadids',
  'defaultiothread blkiotune memtune cputune numatune resource on_poweroff on_reboot on_crash on_lockfailure pm perf',
  'idmap keywrap launchSecurity bootloader bootloader_args os',
].flatMap((names) => names.split(' '));

const TYPES = /^(qemu|kqemu|kvm|xen|lxc|uml|openvz|test|vmware|hyperv|vbox|phyp|vz|bhyve|hvf)$/;

/** The drivers' own elements: qemu:commandline, xen:commandline, lxc:namespace … */
const FOREIGN = ['qemu', 'xen', 'lxc', 'bhyve', 'vmware'].map((d) => `http://libvirt.org/schemas/domain/${d}/1.0`);

/** The domain around its devices; elements of other namespaces are the drivers' own business, and `<iommufd>` is a rule of its own. */
export function domainGrammar(libvirt: Version | null, hvm: boolean): Grammar {
  const more = later(libvirt, ['throttlegroups']);
  return {
    attributes: { type: TYPES, id: /^\d{1,10}$/ },
    required: ['type'],
    children: once([...DOMAIN_ONCE, 'sysinfo', 'seclabel', 'iommufd', ...more], {
      name: { text: /^[^\n]+$/ },
      memory: MEMORY,
      currentMemory: { attributes: { unit: UNIT }, text: SIZE },
      vcpu: {
        attributes: { placement: /^(static|auto)$/, cpuset: ANY, current: COUNT_CPU },
        text: COUNT_CPU,
      },
      features: features(libvirt),
      cpu: CPU,
      devices: devices(libvirt),
      ...(hvm
        ? {
            os: {
              ...OS_HVM,
              children: { ...OS_HVM.children, ...any(later(libvirt, ['shim'])) },
              open: isNewer(libvirt),
            },
          }
        : {}),
    }),
    needs: ['name', 'os'],
    many: ['sysinfo', 'seclabel'],
    foreign: FOREIGN,
    open: isNewer(libvirt),
  };
}

const UINT8_ADDRESS = /^(0x)?[0-9a-fA-F]{1,3}$/;

/** The address of a device in the guest, by its type; null for one that is none. */
export function guestAddressGrammar(type: string | null): Grammar | null {
  const attributes: Record<string, Record<string, RegExp>> = {
    pci: PCI_ADDRESS,
    drive: { controller: /^\d{1,2}$/, bus: /^\d{1,2}$/, target: /^\d{1,5}$/, unit: /^\d{1,10}$/ },
    'virtio-serial': { controller: /^\d{1,2}$/, bus: /^\d{1,2}$/, port: /^\d{1,2}$/ },
    ccid: { controller: /^\d{1,2}$/, slot: /^\d{1,2}$/ },
    usb: { bus: UINT8_ADDRESS, port: /^\d{1,3}(\.\d{1,3}){0,3}$/ },
    'spapr-vio': { reg: /^0x[0-9a-fA-F]{1,16}$/ },
    ccw: { cssid: ANY, ssid: ANY, devno: ANY },
    isa: { iobase: /^0x[a-fA-F0-9]{1,4}$/, irq: /^0x[a-fA-F0-9]$/ },
    dimm: { slot: /^\d{1,10}$/, base: /^0x[0-9a-fA-F]+$/ },
    'virtio-mmio': {},
    unassigned: {},
  };
  if (type === null || !Object.hasOwn(attributes, type)) return null;
  return {
    attributes: { type: ANY, ...attributes[type] },
    children: type === 'pci' ? { zpci: { attributes: { uid: ANY, fid: ANY } } } : {},
  };
}

const PARAMETERS: Record<string, readonly string[]> = {
  '802.1Qbg': ['managerid', 'typeid', 'typeidversion', 'instanceid'],
  '802.1Qbh': ['profileid'],
  openvswitch: ['profileid', 'interfaceid'],
  midonet: ['interfaceid'],
};
const UUID = /^([a-fA-F0-9]{32}|[a-fA-F0-9]{8}-([a-fA-F0-9]{4}-){3}[a-fA-F0-9]{12})$/;
const PARAMETER: Record<string, RegExp> = {
  managerid: /^(0x[0-9a-fA-F]{1,2}|0*(25[0-5]|2[0-4]\d|1?\d?\d))$/,
  typeid: /^(0x[0-9a-fA-F]{1,6}|\d{1,8})$/,
  typeidversion: /^(0x[0-9a-fA-F]{1,2}|0*(25[0-5]|2[0-4]\d|1?\d?\d))$/,
  instanceid: UUID,
  profileid: /^.{0,39}$/s,
  interfaceid: UUID,
};

/** `<virtualport>` by its type; one without a type is for interfaces of networks (virNetDevVPortProfileParse). */
export function virtualPortGrammar(type: string | null): Grammar | null {
  const names = type !== null && Object.hasOwn(PARAMETERS, type) ? PARAMETERS[type] : undefined;
  if (!names) return null;
  const attributes = Object.fromEntries(names.map((n) => [n, PARAMETER[n] ?? ANY]));
  const required = type === 'midonet' ? names : [];
  return {
    attributes: { type: ANY },
    children: { parameters: { attributes, required } },
    needs: type === 'midonet' ? ['parameters'] : [],
  };
}

const VLAN_ID = /^\s*0*(409[0-5]|40[0-8]\d|[1-3]?\d{1,3})$/;
export const VLAN: Grammar = {
  attributes: { trunk: /^yes$/ },
  children: { tag: { attributes: { id: VLAN_ID, nativeMode: /^(tagged|untagged)$/ }, required: ['id'] } },
  needs: ['tag'],
  many: ['tag'],
};

const DEVICE_NAME = /^[a-zA-Z0-9_.\-\\:/]+$/;
export const MAC = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/i;

/** Interfaces whose kind needs a source. */
const WITH_SOURCE = [
  'hostdev',
  'bridge',
  'network',
  'direct',
  'vdpa',
  'internal',
  'mcast',
  'client',
  'udp',
  'server',
  'vhostuser',
  'vds',
];

/** `<interface>` of a type: source, driver, virtualport, address and teaming have rules of their own where it takes a host device. */
export const interfaceGrammar = (type: string | null, libvirt: Version | null): Grammar => ({
  attributes: {
    type: /^(bridge|ethernet|vhostuser|network|direct|user|internal|mcast|client|udp|server|hostdev|vdpa|null|vds)$/,
    ...(type === 'hostdev' ? { managed: YES_NO } : {}),
    trustGuestRxFilters: YES_NO,
  },
  required: ['type'],
  children: {
    ...any(['source', 'driver', 'virtualport', 'address', 'teaming', 'coalesce', 'ip', 'route', 'portForward']),
    ...any(['backend', 'filterref', 'tune', 'bandwidth', 'acpi']),
    ...(type === 'bridge' ? { source: BRIDGE_SOURCE } : {}),
    ...(type === 'hostdev' ? {} : { teaming: TEAMING }),
    link: { attributes: { state: /^(up|down)$/ }, required: ['state'] },
    mtu: { attributes: { size: /^\d{1,5}$/ }, required: ['size'] },
    target: { attributes: { dev: DEVICE_NAME, managed: YES_NO }, required: ['dev'] },
    guest: { attributes: { dev: DEVICE_NAME, actual: DEVICE_NAME } },
    mac: {
      attributes: {
        address: MAC,
        type: /^(generated|static)$/,
        check: YES_NO,
        ...Object.fromEntries(later(libvirt, ['currentAddress']).map((n) => [n, MAC])),
      },
      required: ['address'],
    },
    script: { attributes: { path: /./ }, required: ['path'] },
    downscript: { attributes: { path: /./ }, required: ['path'] },
    backenddomain: { attributes: { name: /^[^\n]+$/ }, required: ['name'] },
    model: { attributes: { type: /^[a-zA-Z0-9\-_]+$/ }, required: ['type'] },
    alias: ALIAS,
    boot: BOOT,
    rom: ROM,
    vlan: VLAN,
    port: { attributes: { isolated: YES_NO } },
  },
  many: ['ip', 'route', 'portForward'],
  needs: type !== null && WITH_SOURCE.includes(type) ? ['source'] : [],
  open: isNewer(libvirt),
});

/** `<source>` of the plain kinds: what the schema and the parser have; others are not looked into. */
const NETWORK_SOURCE = { network: ANY, portgroup: DEVICE_NAME, portid: UUID };
const FILE_SOURCE: Grammar = {
  attributes: {
    file: /^(\/|[a-zA-Z]:\\)./,
    startupPolicy: /^(mandatory|requisite|optional)$/,
    index: POSITIVE,
    fdgroup: ANY,
  },
  children: any(['seclabel', 'slices', 'encryption', 'privateData', 'dataStore']),
  many: ['seclabel'],
};
const NVME_SOURCE: Grammar = {
  attributes: { type: /^pci$/, namespace: ANY, managed: YES_NO, index: POSITIVE },
  required: ['type', 'namespace'],
  children: any(['address', 'slices', 'encryption', 'privateData', 'reservations']),
  needs: ['address'],
};

/** `<driver>` of a disk; a newer schema may have more. */
const diskDriver = (libvirt: Version | null): Grammar => ({
  attributes: {
    ...VIRTIO_OPTIONS,
    name: /^[a-zA-Z0-9_+-]+$/,
    type: /^(aio|raw|dir|bochs|cloop|dmg|iso|vpc|vdi|fat|vhd|ploop|luks|cow|qcow2?|qed|vmdk)$/,
    cache: /^(default|none|writeback|writethrough|directsync|unsafe)$/,
    error_policy: /^(stop|report|ignore|enospace)$/,
    rerror_policy: /^(stop|report|ignore)$/,
    io: /^(threads|native|io_uring)$/,
    ioeventfd: ON_OFF,
    event_idx: ON_OFF,
    copy_on_read: ON_OFF,
    discard: /^(unmap|ignore)$/,
    iothread: /^\d{1,10}$/,
    detect_zeroes: /^(off|on|unmap)$/,
    queues: POSITIVE,
    queue_size: POSITIVE,
    ...Object.fromEntries(later(libvirt, ['discard_no_unref']).map((n) => [n, ON_OFF])),
  },
  children: any(['metadata_cache', ...later(libvirt, ['iothreads', 'statistics'])]),
  open: isNewer(libvirt),
});
const BRIDGE_SOURCE: Grammar = {
  attributes: { bridge: /^[a-zA-Z0-9_.\-\\:/ ]*$/, macTableManager: /^(kernel|libvirt)$/, ...NETWORK_SOURCE },
  required: ['bridge'],
};

/** `<disk>` of a type: the source of an NVMe disk has a rule of its own. */
export const diskGrammar = (type: string | null, libvirt: Version | null): Grammar => ({
  attributes: {
    // vhostvdpa: from 9.8.0 on.
    type: /^(file|block|dir|network|volume|nvme|vhostuser|vhostvdpa)$/,
    device: ['block', 'network', 'volume'].includes(type ?? '') ? /^(disk|floppy|cdrom|lun)$/ : /^(disk|floppy|cdrom)$/,
    ...(type === 'nvme' ? {} : { rawio: YES_NO, sgio: /^(filtered|unfiltered)$/ }),
    model: /^virtio(-transitional|-non-transitional)?$/,
    snapshot: /^(no|internal|external|manual)$/,
  },
  children: {
    ...any(['source', 'mirror', 'auth', 'address', 'acpi', 'encryption', 'iotune', 'geometry', 'blockio', 'wwn']),
    ...any(['vendor', 'product', 'backingStore', 'privateData', ...later(libvirt, ['throttlefilters'])]),
    ...(type === null || type === 'file' ? { source: FILE_SOURCE } : {}),
    ...(type === 'nvme' ? { source: NVME_SOURCE } : {}),
    driver: diskDriver(libvirt),
    target: {
      attributes: {
        dev: /^(ioemu:)?(fd|hd|sd|vd|xvd|ubd|nvme)[a-zA-Z0-9_]+$/,
        bus: /^(ide|fdc|scsi|virtio|xen|usb|uml|sata|sd|nvme)$/,
        tray: /^(open|closed)$/,
        removable: ON_OFF,
        rotation_rate: POSITIVE,
        ...Object.fromEntries(later(libvirt, ['dpofua']).map((n) => [n, ON_OFF])),
      },
      required: ['dev'],
    },
    boot: BOOT,
    alias: ALIAS,
    backenddomain: { attributes: { name: /^[^\n]+$/ }, required: ['name'] },
    readonly: EMPTY,
    shareable: EMPTY,
    transient: { attributes: { shareBacking: YES_NO } },
    serial: { text: /^[A-Za-z0-9_.+\- ]+$/ },
  },
  needs: ['target'],
  open: isNewer(libvirt),
});

const PCI_MODELS =
  /^(pci-root|pcie-root|pci-bridge|dmi-to-pci-bridge|pcie-to-pci-bridge|pcie-root-port|pcie-switch-upstream-port|pcie-switch-downstream-port|pci-expander-bus|pcie-expander-bus)$/;
const UINT8 = /^(0x[0-9a-fA-F]{1,2}|0*(25[0-5]|2[0-4]\d|1?\d?\d))$/;

const CONTROLLER_ATTRIBUTES: Record<string, Record<string, RegExp>> = {
  fdc: {},
  sata: {},
  ccid: {},
  isa: {},
  scsi: {
    model:
      /^(auto|buslogic|lsilogic|lsisas1068|vmpvscsi|ibmvscsi|virtio-scsi|lsisas1078|virtio-transitional|virtio-non-transitional|ncr53c90|dc390|am53c974)$/,
  },
  usb: {
    model:
      /^(piix3-uhci|piix4-uhci|ehci|ich9-ehci1|ich9-uhci[123]|vt82c686b-uhci|pci-ohci|nec-xhci|none|qusb[12]|qemu-xhci)$/,
    ports: /^\d{1,10}$/,
  },
  ide: { model: /^(piix3|piix4|ich6)$/ },
  'virtio-serial': {
    model: /^virtio(-transitional|-non-transitional)?$/,
    ports: /^\d{1,10}$/,
    vectors: /^\d{1,10}$/,
  },
  xenbus: { maxGrantFrames: /^\d{1,10}$/, maxEventChannels: /^\d{1,10}$/ },
};

/** `<controller>` of another type than pci; null for a type that there is not. nvme: from 11.5.0 on. */
export function controllerGrammar(type: string | null, libvirt: Version | null): Grammar | null {
  if (type === 'pci') return pciControllerGrammar(libvirt);
  if (type === null || !Object.hasOwn(CONTROLLER_ATTRIBUTES, type))
    return type !== null && isNewer(libvirt) ? {} : null;
  return {
    attributes: { type: ANY, index: CONTROLLER_INDEX, ...CONTROLLER_ATTRIBUTES[type] },
    children: { ...any(['acpi', 'address', 'driver', ...(type === 'usb' ? ['master'] : [])]), alias: ALIAS },
  };
}

/** virXMLPropInt: what the schema takes as unsignedInt, the parser takes as int. */
const CONTROLLER_INDEX =
  /^0*(\d{1,9}|1\d{9}|20\d{8}|21[0-3]\d{7}|214[0-6]\d{6}|2147[0-3]\d{5}|21474[0-7]\d{4}|214748[0-2]\d{3}|2147483[0-5]\d{2}|21474836[0-3]\d|214748364[0-7])$/;

/** `<controller type='pci'>` */
const pciControllerGrammar = (libvirt: Version | null): Grammar => ({
  attributes: { type: ANY, index: CONTROLLER_INDEX, model: PCI_MODELS },
  required: ['model'],
  children: {
    ...any(['acpi', 'address', 'driver']),
    alias: ALIAS,
    model: {
      attributes: {
        name: /^(spapr-pci-host-bridge|pci-bridge|i82801b11-bridge|pcie-pci-bridge|ioh3420|pcie-root-port|x3130-upstream|xio3130-downstream|pxb|pxb-pcie)$/,
      },
      required: ['name'],
    },
    target: {
      attributes: {
        chassisNr: UINT8,
        chassis: UINT8,
        port: UINT8,
        busNr: UINT8,
        index: UINT8,
        hotplug: ON_OFF,
        ...Object.fromEntries(later(libvirt, ['memReserve']).map((n) => [n, /^\d{1,20}$/])),
      },
      children: { node: { text: /^\s*\d{1,10}\s*$/ } },
    },
    pcihole64: { attributes: { unit: UNIT }, text: SIZE },
  },
  open: isNewer(libvirt),
});

/** ACPI's index; `nodeset` is a rule of its own. */
export const acpiIndexGrammar = (nodeset: boolean): Grammar => ({
  attributes: { index: POSITIVE, ...(nodeset ? { nodeset: ANY } : {}) },
});
