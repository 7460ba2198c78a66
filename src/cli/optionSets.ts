/** Options that several commands have. */

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
