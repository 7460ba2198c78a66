/** `<interface>` and what is in it. */

import type { Version } from '../version.ts';
import type { Grammar } from './grammar.ts';
import { ALIAS, acpiIndexGrammar, any, BOOT, isNewer, later, POSITIVE, ROM, UUID, VIRTIO_OPTIONS } from './shapes.ts';
import { ANY, MANAGED, ON_OFF, YES_NO } from './values.ts';
import { WITH_PORT } from './virtualPort.ts';

export const TEAMING_TRANSIENT: Grammar = {
  attributes: { type: /^transient$/, persistent: /^[a-zA-Z0-9_\-.]+$/ },
  required: ['type', 'persistent'],
};

/** Only of an interface: a `<hostdev>` is the transient side. */
export const TEAMING_PERSISTENT: Grammar = { attributes: { type: /^persistent$/ }, required: ['type'] };

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

const VLAN_ID = /^\s*0*(409[0-5]|40[0-8]\d|[1-3]?\d{1,3})$/;
export const VLAN: Grammar = {
  attributes: { trunk: /^yes$/ },
  children: { tag: { attributes: { id: VLAN_ID, nativeMode: /^(tagged|untagged)$/ }, required: ['id'] } },
  needs: ['tag'],
  many: ['tag'],
};

const DEVICE_NAME = /^[a-zA-Z0-9_.\-\\:/]+$/;
export const MAC = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/i;

const offloads = (names: string): Grammar => ({
  attributes: Object.fromEntries(names.split(' ').map((n) => [n, ON_OFF])),
});
const OTHER_DRIVER: Grammar = {
  attributes: { name: /^(qemu|vhost|kvm|vfio|xen)$/, ...NET_DRIVER, ...VIRTIO_OPTIONS },
  children: {
    host: offloads('csum gso tso4 tso6 ecn ufo mrg_rxbuf'),
    guest: offloads('csum tso4 tso6 ecn ufo'),
  },
};

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

/** virNetDevBandwidthParse: a floor is for what comes in from a network. */
const RATE: Grammar = { attributes: { average: POSITIVE, peak: POSITIVE, burst: POSITIVE }, required: ['average'] };
const RATE_OR_FLOOR: Grammar = { attributes: { ...RATE.attributes, floor: POSITIVE } };

/** `<interface>` of a type: source, driver, virtualport, address and teaming have rules of their own where it takes a host device. */
export const interfaceGrammar = (type: string | null, libvirt: Version | null): Grammar => ({
  attributes: {
    type: /^(bridge|ethernet|vhostuser|network|direct|user|internal|mcast|client|udp|server|hostdev|vdpa|null|vds)$/,
    ...(type === 'hostdev' ? { managed: MANAGED } : {}),
    trustGuestRxFilters: YES_NO,
  },
  required: ['type'],
  children: {
    ...any(['source', 'driver', 'address', 'teaming', 'coalesce', 'ip', 'route', 'portForward']),
    ...any(['backend', 'filterref', 'tune', ...(WITH_PORT.includes(type ?? '') ? ['virtualport'] : [])]),
    ...(type === 'bridge' ? { source: BRIDGE_SOURCE } : {}),
    ...(type === 'hostdev' ? {} : { driver: { ...OTHER_DRIVER, open: isNewer(libvirt) } }),
    bandwidth: { children: { inbound: type === 'network' ? RATE_OR_FLOOR : RATE, outbound: RATE } },
    link: { attributes: { state: /^(up|down)$/ }, required: ['state'] },
    acpi: acpiIndexGrammar(false),
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
const BRIDGE_SOURCE: Grammar = {
  attributes: { bridge: /^[a-zA-Z0-9_.\-\\:/ ]*$/, macTableManager: /^(kernel|libvirt)$/, ...NETWORK_SOURCE },
  required: ['bridge'],
};
