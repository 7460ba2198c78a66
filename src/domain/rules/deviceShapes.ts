/** The grammars of the three elements by which a domain takes a PCI device of the host. */
import { version } from '../version.ts';
import type { Grammar } from './grammar.ts';
import { ACPI_INDEX, ALIAS, BOOT, EMPTY, ROM, VIRTIO_OPTIONS } from './shapes.ts';
import { ALIAS_NAME, ANY, DEVICE_NAME, digits, MANAGED, ON_OFF, PCI_ADDRESS, POSITIVE, YES_NO } from './values.ts';

/** `<driver model>`, and a `<driver>` of a `<hostdev>` without a name. */
const DRIVER_MODEL_FROM = version('10.0.0');
export const DISPLAY_FROM = version('10.3.0');
/** What was not held against a newer schema. */
const LAST_SCHEMA = version('11.3.0');

const nothing = (...names: string[]): Record<string, null> => Object.fromEntries(names.map((n) => [n, null]));

/** Only the guest's own address may have a `<zpci>`. */
const SOURCE_ADDRESS: Grammar = { attributes: PCI_ADDRESS };

const VFIO_DRIVER = {
  name: /^(kvm|vfio|xen)$/,
  model: { value: /./, since: DRIVER_MODEL_FROM },
  iommufd: { value: YES_NO, since: version('12.1.0') },
};

/** `<hostdev>` of type pci; its address in the guest and its teaming have rules of their own. */
export const HOSTDEV: Grammar = {
  attributes: {
    mode: /^subsystem$/,
    type: ANY,
    managed: MANAGED,
    display: { value: ON_OFF, since: DISPLAY_FROM },
    ramfb: { value: ON_OFF, since: DISPLAY_FROM },
  },
  children: {
    driver: { attributes: VFIO_DRIVER, requiredBefore: { name: DRIVER_MODEL_FROM } },
    source: {
      attributes: { startupPolicy: /^(mandatory|requisite|optional)$/, writeFiltering: YES_NO },
      children: { address: SOURCE_ADDRESS },
      needs: ['address'],
    },
    acpi: { attributes: { ...ACPI_INDEX.attributes, nodeset: { value: ANY, since: version('11.8.0') } } },
    alias: ALIAS,
    boot: BOOT,
    rom: ROM,
    readonly: EMPTY,
    shareable: EMPTY,
    ...nothing('address', 'teaming'),
  },
  needs: ['source'],
};

export const TEAMING_TRANSIENT: Grammar = {
  attributes: { type: /^transient$/, persistent: ALIAS_NAME },
  required: ['type', 'persistent'],
};
/** Only of an interface: a `<hostdev>` is the transient side. */
export const TEAMING_PERSISTENT: Grammar = { attributes: { type: /^persistent$/ }, required: ['type'] };

/** `<driver>` of an interface that has none of VFIO's names: the schema takes it for any kind. */
const NET_DRIVER = {
  queues: POSITIVE,
  rx_queue_size: POSITIVE,
  tx_queue_size: POSITIVE,
  txmode: /^(iothread|timer)$/,
  ioeventfd: ON_OFF,
  event_idx: ON_OFF,
  rss: ON_OFF,
  rss_hash_report: ON_OFF,
};
const netDriver = (named: boolean): Grammar => ({
  attributes: { ...VFIO_DRIVER, ...VIRTIO_OPTIONS, ...(named ? {} : NET_DRIVER) },
  children: nothing('host', 'guest'),
});

const MAC = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/i;
const VLAN: Grammar = {
  attributes: { trunk: /^yes$/ },
  children: {
    tag: { attributes: { id: digits(0, 4095, '\\s*'), nativeMode: /^(tagged|untagged)$/ }, required: ['id'] },
  },
  needs: ['tag'],
  many: ['tag'],
};
/** Of the types one is for a VF; what the others hold is not looked into. */
const VIRTUAL_PORT: Grammar = {
  attributes: { type: /^(802\.1Qbg|802\.1Qbh|openvswitch|midonet)$/ },
  required: ['type'],
  children: nothing('parameters'),
};
const VIRTUAL_PORT_QBH: Grammar = {
  ...VIRTUAL_PORT,
  children: { parameters: { attributes: { profileid: /^.{0,39}$/s }, required: ['profileid'] } },
  needs: ['parameters'],
};

/**
 * What an `<interface type='hostdev'>` is besides: its driver has a name, its port is of 802.1Qbh, its source is a USB
 * device.
 */
export type InterfaceKind = { named: boolean; qbh: boolean; usb: boolean };

/** `<interface type='hostdev'>`; address and teaming have rules of their own, a USB source is not looked into. */
export const interfaceGrammar = ({ named, qbh, usb }: InterfaceKind): Grammar => ({
  attributes: { type: /^hostdev$/, managed: MANAGED, trustGuestRxFilters: YES_NO },
  children: {
    source: usb
      ? null
      : {
          attributes: { missing: YES_NO },
          children: { address: { attributes: { type: /^pci$/, ...PCI_ADDRESS }, required: ['type'] } },
          needs: ['address'],
        },
    driver: netDriver(named),
    virtualport: qbh ? VIRTUAL_PORT_QBH : VIRTUAL_PORT,
    link: { attributes: { state: /^(up|down)$/ }, required: ['state'] },
    mtu: { attributes: { size: /^\d{1,5}$/ }, required: ['size'] },
    target: { attributes: { dev: DEVICE_NAME, managed: YES_NO }, required: ['dev'] },
    mac: {
      attributes: { address: MAC, type: /^(generated|static)$/, check: YES_NO, currentAddress: MAC },
      required: ['address'],
    },
    model: { attributes: { type: /^[a-zA-Z0-9\-_]+$/ }, required: ['type'] },
    acpi: ACPI_INDEX,
    alias: ALIAS,
    boot: BOOT,
    rom: ROM,
    vlan: VLAN,
    port: { attributes: { isolated: YES_NO } },
    ...nothing('address', 'teaming', 'coalesce', 'ip', 'route', 'portForward', 'backend', 'filterref', 'tune'),
    ...nothing('bandwidth', 'guest', 'script', 'downscript', 'backenddomain'),
  },
  many: ['ip', 'route', 'portForward'],
  needs: ['source'],
  upTo: LAST_SCHEMA,
});

/** `<disk type='nvme'>`: its source; how the guest sees the disk is not looked into. */
export const NVME_DISK: Grammar = {
  attributes: {
    type: ANY,
    device: /^(disk|floppy|cdrom)$/,
    model: /^virtio(-transitional|-non-transitional)?$/,
    snapshot: /^(no|internal|external|manual)$/,
  },
  children: {
    source: {
      attributes: {
        type: /^pci$/,
        namespace: digits(1, 0xffffffff, '[ \\t\\r\\n]*'),
        managed: YES_NO,
        index: POSITIVE,
      },
      required: ['type', 'namespace'],
      children: { address: SOURCE_ADDRESS, ...nothing('slices', 'encryption', 'privateData', 'reservations') },
      needs: ['address'],
    },
    acpi: ACPI_INDEX,
    boot: BOOT,
    alias: ALIAS,
    readonly: EMPTY,
    shareable: EMPTY,
    ...nothing('driver', 'target', 'mirror', 'auth', 'address', 'encryption', 'iotune', 'geometry', 'blockio', 'wwn'),
    ...nothing(
      'vendor',
      'product',
      'backingStore',
      'privateData',
      'backenddomain',
      'transient',
      'serial',
      'throttlefilters',
    ),
  },
  needs: ['source', 'target'],
  upTo: LAST_SCHEMA,
};
