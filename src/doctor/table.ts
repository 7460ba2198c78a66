/**
 * Everything that `doctor` can find and that `group why` can name, each with what it means: one table, mirrored in
 * docs/reference/doctor.md by a test. What was seen on this host, and the line to change, are with the finding itself.
 */

import type { PciDevice } from '../pci/inventory.ts';
import type { Fix, Severity, Finding as Told } from '../text/finding.ts';
import type { CmdlineChange } from './cmdlineWords.ts';

export type { Fix } from '../text/finding.ts';

export const FINDINGS = {
  'iommu-firmware': { severity: 'error', text: 'The firmware shows the kernel no IOMMU, so there are no groups.' },
  'iommu-kernel': { severity: 'error', text: 'The machine has an IOMMU and the kernel does not use it.' },
  'iommu-cmdline': { severity: 'error', text: 'The kernel command line switches the IOMMU off.' },
  'iommu-noiommu': { severity: 'error', text: 'Only no-IOMMU groups exist, which libvirt does not use.' },
  'iommu-no-pci-group': {
    severity: 'error',
    text: 'The kernel has IOMMU groups, and no PCI device is in one: none can be given to a guest.',
  },
  'device-no-group': {
    severity: 'warning',
    text: 'Some devices are in no IOMMU group, though others are: they cannot be given to a guest.',
  },
  'iommu-unknown-option': { severity: 'note', text: 'An IOMMU word on the kernel command line does nothing.' },
  'iommu-translated-host': {
    severity: 'note',
    text: "The host's own DMA is translated too; iommu=pt (on Arm iommu.passthrough=1) spares it that without touching guests.",
  },
  'acs-override': {
    severity: 'warning',
    text: 'Groups are split by pcie_acs_override, not by hardware: devices in different guests may reach each other.',
  },
  'interrupt-remapping': {
    severity: 'error',
    text: 'Interrupts are not remapped, so VFIO hands out no device: a guest could raise any interrupt of the host.',
  },
  'unsafe-interrupts': {
    severity: 'warning',
    text: 'VFIO hands out devices although interrupts are not remapped: a guest can raise any interrupt of the host.',
  },
  'unsafe-interrupts-needless': {
    severity: 'warning',
    text: 'allow_unsafe_interrupts is on although interrupts are remapped: it only takes a protection away.',
  },
  'reserved-direct': {
    severity: 'warning',
    text: 'The firmware demands a fixed mapping for these devices (RMRR): the kernel keeps them from guests.',
  },
  'vfio-missing': { severity: 'error', text: 'The running kernel has no VFIO module that a guest needs.' },
  'vfio-not-loaded': {
    severity: 'note',
    text: 'A VFIO module is there but not loaded: binding loads it; libvirt before 9 wants it loaded first.',
  },
  'vfio-blacklisted': { severity: 'error', text: 'A VFIO module is blacklisted, so binding cannot load it.' },
  'variant-blacklisted': {
    severity: 'warning',
    text: 'The variant driver for a device is blacklisted: hostdev and libvirt would fail to bind it.',
  },
  'variant-present': { severity: 'note', text: 'The kernel has a variant driver for these devices, and it is used.' },
  'variant-unused': {
    severity: 'warning',
    text: 'A device is on vfio-pci although the kernel has a variant driver for it: what that adds, migration above all, is lost.',
  },
  denylist: { severity: 'note', text: "These devices are on vfio-pci's denylist: it refuses to bind them." },
  'ids-option': {
    severity: 'warning',
    text: 'Devices are given to vfio-pci or pci-stub by their ids: every device of these ids, now and after any change.',
  },
  'ids-stale': { severity: 'note', text: 'An ids= option names no device of this host.' },
  'ids-not-followed': {
    severity: 'warning',
    text: 'An ids= option names a device that is on another driver: the option came too late or is without effect.',
  },
  'ids-overridden': {
    severity: 'warning',
    text: 'A module has several ids= options, and the kernel takes only the last: the others do nothing.',
  },
  'ids-cut-off': {
    severity: 'warning',
    text: 'An ids= option has a blank in it: what stands behind the blank is ignored.',
  },
  'modprobe-ignored': {
    severity: 'warning',
    text: 'A file in modprobe.d has a name that modprobe does not read.',
  },
  'module-gone': {
    severity: 'note',
    text: 'A list of modules to load names one that this kernel no longer has: loading it fails, and some initramfs tools stop there.',
  },
  'blacklist-unneeded': {
    severity: 'note',
    text: 'A host driver is blacklisted that no device of this host asks for.',
  },
  'blacklist-host-driver': {
    severity: 'note',
    text: 'A host driver is blacklisted. Binding by driver_override does not need that, and nothing can be given back to it.',
  },
  'blacklist-gpu': {
    severity: 'note',
    text: "A GPU's driver is blacklisted: useful where it cannot let go of the GPU; without it nothing can be given back.",
  },
  'softdep-unneeded': { severity: 'note', text: 'A soft dependency on vfio-pci does nothing without an ids= option.' },
  'new-id-script': {
    severity: 'warning',
    text: 'Something on this host writes to new_id: it takes every unbound device of those ids, now and later.',
  },
  'bound-by-id': {
    severity: 'warning',
    text: 'A device is on vfio-pci or pci-stub without driver_override: a dynamic id (new_id, ids=) brought it there.',
  },
  'override-leftover': { severity: 'warning', text: 'A driver_override that nobody owns decides over a device.' },
  'override-pinned': {
    severity: 'note',
    text: 'A driver_override is kept by driverctl, udev or a script at boot, not by hostdev.',
  },
  'reset-bug': {
    severity: 'warning',
    text: 'A card is known not to come back from the only reset that it has: it works in one guest, once.',
  },
  'vgpu-off-driver': {
    severity: 'warning',
    text: "VFs of a GPU are off their vendor's driver, where alone they are vGPUs: no guest can use them.",
  },
  'vgpu-untyped': {
    severity: 'note',
    text: 'VFs of a GPU have no vGPU type set: a guest with one of them does not start.',
  },
  'config-invalid': {
    severity: 'error',
    text: "hostdev's configuration cannot be used: the hook refuses guests with devices, or nothing is given out from the pools.",
  },
  'config-mistake': {
    severity: 'warning',
    text: "hostdev's configuration has a mistake that it can be used with, and that does not do what it looks like.",
  },
  'wish-not-met': {
    severity: 'warning',
    text: 'A wish of the configuration is not met: the device is not what it shall be at every boot.',
  },
  'wish-contested': {
    severity: 'warning',
    text: 'A wish is about what another tool sets at boot too: hostdev leaves it to that.',
  },
  'boot-off': { severity: 'note', text: 'hostdev.off=1 is on the kernel command line: no wish is fulfilled at boot.' },
  'initramfs-vital': {
    severity: 'error',
    text: 'The initramfs is to bind a device that the host has come to stand on: the next boot would lose it.',
  },
  'initramfs-stale': {
    severity: 'warning',
    text: 'The table of the initramfs is older than the wishes: the next boot goes by the old ones until the real root is there.',
  },
  'initramfs-other': {
    severity: 'warning',
    text: 'An initramfs has not the table that is installed: none, or another one.',
  },
  'initramfs-failed': {
    severity: 'warning',
    text: 'The initramfs has a part of hostdev, which at this boot did not do what it is there for.',
  },
  'libvirt-old': {
    severity: 'warning',
    text: 'libvirt or QEMU is older than PCI passthrough wants (libvirt 6.0.0, QEMU 4.2.0).',
  },
  'hook-missing': { severity: 'warning', text: "hostdev's libvirt hook is not installed." },
  'hook-broken': { severity: 'error', text: "hostdev's libvirt hook is installed and cannot do its work." },
  'hook-outdated': { severity: 'warning', text: "hostdev's libvirt hook is of another version than hostdev." },
  'hook-not-seen': {
    severity: 'error',
    text: 'libvirt was started before its first qemu hook was installed, and so runs none.',
  },
  'hook-maybe-not-seen': {
    severity: 'warning',
    text: 'Every qemu hook is newer than libvirt: replaced since, or the first one, which libvirt then does not know.',
  },
  'hook-no-interpreter': {
    severity: 'error',
    text: 'An executable file among the qemu hooks cannot be started: every guest fails to start.',
  },
  'hook-stray': {
    severity: 'warning',
    text: 'A backup or hidden file in qemu.d is executable: libvirt runs it for every guest and operation.',
  },
  'hook-not-executable': { severity: 'warning', text: 'A qemu hook is not executable: libvirt passes it over.' },
  'hook-writes-driver': {
    severity: 'warning',
    text: 'Another qemu hook moves devices by itself, behind the back of hostdev and libvirt.',
  },
  memlock: {
    severity: 'warning',
    text: 'libvirt may neither lock enough memory for a guest with devices nor raise that limit.',
  },
  'native-missing': {
    severity: 'error',
    text: "hostdev's native part is missing or does not load here: nothing can be bound or given back.",
  },
  'lockdown-integrity': {
    severity: 'note',
    text: 'The kernel is locked down (secure boot): unsigned modules are refused, VFIO itself works.',
  },
  'lockdown-confidentiality': {
    severity: 'warning',
    text: 'The kernel is locked down for confidentiality: unsigned modules and tools that look into the kernel are refused.',
  },
  'secure-boot': { severity: 'note', text: 'Secure boot is on: modules from outside the distribution must be signed.' },
  'firmware-framebuffer': {
    severity: 'warning',
    text: "The firmware's framebuffer holds a GPU's memory: a guest that gets it finds \"BAR can't reserve\".",
  },
  'firmware-framebuffer-evicted': {
    severity: 'note',
    text: "The firmware's framebuffer lies on a GPU; this kernel takes it away when VFIO binds, and the console goes dark.",
  },
  'console-on-gpu': { severity: 'note', text: 'The console is drawn on the boot display.' },
  'run-not-ours': {
    severity: 'error',
    text: "A folder or file of hostdev's state belongs to somebody else or can be written to by others: no command changes anything.",
  },
  'books-unreadable': { severity: 'error', text: "hostdev's own books cannot be read." },
} as const satisfies Record<string, { severity: Severity; text: string }>;

export type FindingId = keyof typeof FINDINGS;

/**
 * What `group why` names: `blocks` keeps the device from a guest as things are; the others explain the group or warn.
 */
export const CAUSES = {
  'iommu-off': { blocks: true, text: 'The host has no IOMMU in use.' },
  'no-group': { blocks: true, text: 'The device is in no IOMMU group: no IOMMU covers it.' },
  'group-at-probe': {
    blocks: false,
    text: 'The device has no group yet: virtio-iommu makes one when a driver, VFIO too, is bound.',
  },
  'not-endpoint': { blocks: true, text: 'Bridges and other non-endpoints are not for guests.' },
  'reserved-direct': {
    blocks: true,
    text: 'The firmware demands a fixed mapping (RMRR, type direct): the kernel refuses every other use.',
  },
  'interrupt-remapping': { blocks: true, text: 'Interrupts are not remapped, and VFIO was not told to do without.' },
  'unsafe-interrupts': { blocks: false, text: 'Interrupts are not remapped; VFIO was told to do without, at a risk.' },
  denylist: { blocks: true, text: 'vfio-pci refuses the device.' },
  'vendor-vfio': {
    blocks: false,
    text: "The device's own driver is its VFIO provider: guests take it there, with managed='no', and it is not bound to another.",
  },
  'vendor-vfio-late': {
    blocks: true,
    text: "The device's own driver is its VFIO provider, and has not made its VFIO device yet.",
  },
  'vgpu-type': {
    blocks: true,
    text: 'The device is a vGPU of which no type is set: its driver opens it for no guest.',
  },
  vfs: { blocks: true, text: 'It is a PF with VFs, which would go with its driver.' },
  'peer-driver': { blocks: true, text: 'Another device of the group is on a host driver.' },
  'peer-host-use': { blocks: true, text: 'The host itself uses another device of the group.' },
  'host-use': { blocks: true, text: 'The host itself uses the device.' },
  held: { blocks: true, text: 'A process has the device open.' },
  'port-acs': {
    blocks: false,
    text: 'A port above lacks ACS, so what is below it and beside it can talk past the IOMMU.',
  },
  maker: {
    blocks: false,
    text: 'The driver of one function makes the others (Intel VMD): their DMA carries its requester id, and without it they are gone.',
  },
  'conventional-bridge': {
    blocks: false,
    text: 'A bridge to conventional PCI: all that is behind it uses one requester id, so the IOMMU cannot tell it apart.',
  },
  'functions-acs': { blocks: false, text: 'Functions of one slot without ACS can talk to each other past the IOMMU.' },
  'join-unmeasured': { blocks: false, text: 'The reason lies in config space, which could not be read.' },
  'join-unknown': {
    blocks: false,
    text: 'The kernel joined them for a reason that config space does not show: a DMA alias quirk or the platform.',
  },
  'acs-override': { blocks: false, text: 'pcie_acs_override splits groups that hardware does not keep apart.' },
  'reset-none': { blocks: false, text: 'The device cannot be reset: its state goes from guest to guest.' },
  'reset-bus': {
    blocks: false,
    text: 'The device can be reset only with its whole bus: everything on it must be in the same guest.',
  },
  'reset-bug': { blocks: false, text: 'The device is known not to come back from the reset that it has.' },
} as const satisfies Record<string, { blocks: boolean; text: string }>;

export type CauseId = keyof typeof CAUSES;

/**
 * A change of the kernel command line, which becomes a line only once all findings are known: one line has all changes.
 */
export type KernelWords = { cmdline: CmdlineChange };

/** `error`: no guest gets a device, or the hook fails. */
export type Finding = Told & { id: FindingId };

/** Devices to bind, as far as the host can do without them; `when` says when, or what for. */
export type BindWish = { bind: readonly PciDevice[]; when: string };

/** A finding as a check makes it. */
export type Draft = Omit<Finding, 'fix'> & { fix: (Fix | KernelWords | BindWish)[] };

/** A finding with the table's severity. */
export const finding = (id: FindingId, object: string, cause: string, fix: Draft['fix'] = []): Draft => ({
  id,
  severity: FINDINGS[id].severity,
  object,
  cause,
  fix,
});

/** Something that could not be looked at, and why. */
export type Unmeasured = { object: string; reason: string };
