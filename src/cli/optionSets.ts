/** Words and options that several commands have. */
import type { Argument } from './command.ts';

/** Of which half of a guest; neither is both, where both can be. */
export const HALVES = {
  live: { type: 'boolean', text: 'only the guest that runs' },
  config: { type: 'boolean', text: 'only what it is at its next start' },
} as const;

/** How a domain takes a device. */
export const TAKE = {
  managed: {
    type: 'string',
    value: 'yes|no',
    text: "libvirt binds it and gives it back (default: what an alias device's device_spec says, else yes)",
  },
  driver: { type: 'string', value: 'NAME', text: "host driver that libvirt is to bind (auto: libvirt's choice)" },
  rom: { type: 'string', value: 'on|off|none|FILE', text: "its ROM: shown, hidden, none, or this file's" },
  boot: { type: 'string', value: 'N', text: 'its place in the boot order' },
  'unassigned-peers': {
    type: 'boolean',
    text: "take its group's other devices from the host too, unseen by the guest",
  },
  nvme: { type: 'string', value: 'N', text: "as a disk of QEMU's own NVMe driver: its namespace N" },
  'one-slot': { type: 'boolean', text: 'all of them on one slot of the guest, as functions of one card' },
  vnic: { type: 'string', value: 'TYPE', text: "as a network interface of Nova's vnic type: direct, macvtap, …" },
  mac: { type: 'string', value: 'MAC', text: "the interface's MAC address" },
  vlan: { type: 'string', value: 'ID', text: "the interface's VLAN (0: none)" },
  'profile-id': { type: 'string', value: 'ID', text: 'port profile of 802.1Qbh' },
} as const;

export const DEVICE: Argument = { name: 'DEV' };
export const PF: Argument = { name: 'PF' };
export const FILE: Argument = { name: 'FILE' };
export const GUEST: Argument = { name: 'NAME|UUID' };
export const SETUP = ['config', 'inventory'] as const;
export const TRAIT_BLANKS = {
  type: 'string',
  value: 'trim|nova',
  text: 'blanks around the names in traits: taken off, or part of the name as in Nova',
} as const;
export const PERSIST = { type: 'boolean', text: 'at every boot too: keeps it in conf.d/90-kept.toml' } as const;
/** Which devices of the pools, as a flavor, an image and the guest's place decide in Nova. */
export const WISH = {
  numa: { type: 'string', value: 'N,…', text: "the host's NUMA nodes that the guest is on" },
  policy: {
    type: 'string',
    value: 'POLICY',
    text: "required, socket, preferred or legacy, before the aliases' own",
  },
  sockets: { type: 'string', value: 'N:S,…', text: 'the socket of each NUMA node, for the policy socket' },
  'group-policy': { type: 'string', value: 'POLICY', text: 'none, or isolate: each device from another provider' },
  spread: {
    type: 'boolean',
    text: 'from the PFs with the fewest devices in use, instead of one PF after the other',
  },
} as const;
/** What `domain plan` and `domain define` change in a domain. */
export const EDITS = {
  device: { type: 'string', value: 'DEV', multiple: true, text: 'put this device in; again for more' },
  remove: { type: 'string', value: 'DEV', multiple: true, text: 'take this device out; again for more' },
  alias: {
    type: 'string',
    value: 'NAME:N,…',
    multiple: true,
    text: "put in N devices from the pools, as 'claim -n' shows them; again for more",
  },
  ...WISH,
  numa: { ...WISH.numa, text: `${WISH.numa.text} (default: those of its <numatune>)` },
  ...TAKE,
  viommu: { type: 'string', value: 'MODEL', text: 'with this vIOMMU: auto, virtio, intel, smmuv3, amd or none' },
} as const;
