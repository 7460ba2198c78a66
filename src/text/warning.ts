/**
 * What is worth saying beside an answer, as data (contract 4): scripts go by `id` and `address`, people read `text`. No
 * code reads the text.
 */

/**
 * What each id is about; docs/reference/warnings.md is made from it. `guard-…` are the guards that warn, by their
 * names.
 */
export const WARNINGS = {
  'not-measured': 'Something could not be read, or is not asked for here: what hangs on it is not known.',
  malformed: 'The host has something in a place where the kernel writes something else: it is passed over.',
  recovered: 'A change that somebody left unfinished was put right, or the hold of a guest that is gone was ended.',
  unfinished: 'A change that somebody left unfinished could not be put right, and stays in the journal.',
  'bad-file': 'A file of hostdev cannot be understood: the devices that it names are left alone.',
  'stale-hold': 'A device that an earlier life of the guest held could not be given back.',
  'no-iommu': 'There are no IOMMU groups, or not all devices are in one: no guest can have these.',
  'group-not-viable': 'A peer keeps the IOMMU group from a guest.',
  'vendor-vfio': "The device's own driver is its VFIO provider, and it stays there.",
  'vgpu-untyped': 'A vGPU has no type, and no guest can have it before.',
  'lost-with-vfs': 'What hangs on the VFs of a PF goes with them.',
  'vfs-elsewhere': 'VFs are on other drivers than was asked for.',
  'vfs-untold': 'Where VFs that do not exist yet will be cannot be told.',
  'link-up': 'The interface of a PF is brought up, since its driver makes and removes VFs only then.',
  'no-host-driver': 'The device is free, and no host driver claims it.',
  representor: 'The interface that was named represents a VF, and the VF is meant.',
  managed: 'What is said of `managed` does not fit the device, or does not count.',
  'host-loses': 'The host loses what hangs on a device that is taken with another.',
  'hook-refuses': 'The hook will refuse the domain as it is.',
  'hook-missing': "libvirt runs no hook of hostdev's: what is said of the hook does not happen.",
  'hook-not-ready': 'The hook that is installed is not as it should be.',
  'hook-ignores': '`[hook] unmanaged = "ignore"` leaves devices to the admin.',
  'domain-rule': 'The domain breaks a rule of `domain check`.',
  config: 'A remark about the configuration, as `config check` makes it.',
  'nothing-offered': 'No device may be given out, or none is asked for.',
  nova: 'Nova reads or does this in a way that one may not expect.',
  record: 'Lines of the record are none of this version.',
  named: 'The device that a name stands for which is no address.',
  'no-libvirt': 'The hook is installed where there is no libvirt that would call it.',
  'restart-libvirt': 'libvirt has to be restarted before it goes by this.',
  'still-bound': 'Devices stay bound for guests, and nobody gives them back.',
  'foreign-hook': "The hook that is there starts another hostdev, or is not hostdev's, and stays.",
  wish: 'A wish will not be fulfilled at boot as things are.',
  twins: 'Ids were imported, and several cards have them: each became a wish.',
  initramfs: 'An initramfs is not as the wishes would have it, or is not made here.',
  'libvirt-old': 'libvirt or QEMU is older than PCI passthrough wants.',
  'libvirt-kept': 'libvirt keeps something of a domain otherwise than it was given, or not at all.',
  'dry-run': 'The real run would refuse, as things are.',
} as const satisfies Record<string, string>;

export type WarningId = keyof typeof WARNINGS | `guard-${string}`;

/** `address` is the device that it is about; null when it is about none, or several. */
export type Warning = { address: string | null; id: WarningId; text: string };

export const warning = (id: WarningId, text: string, address: string | null = null): Warning => ({ address, id, text });

/** Those about a device. */
export const about = (warnings: readonly Warning[], address: string): Warning[] =>
  warnings.filter((w) => w.address === address);
