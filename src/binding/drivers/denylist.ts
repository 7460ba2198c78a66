/**
 * Devices that vfio-pci refuses to bind (EINVAL from probe()) because a guest could hang the host with them:
 * vfio_pci_dev_in_denylist in drivers/vfio/pci/vfio_pci.c, QuickAssist since Linux 5.9, DSA and IAX since 6.9 (stable
 * back-ports exist).
 */

const INTEL = '8086';

const FAMILIES: Readonly<Record<string, string>> = {
  '19e2': 'Intel QuickAssist C3XXX',
  '19e3': 'Intel QuickAssist C3XXX VF',
  '37c8': 'Intel QuickAssist C62X',
  '37c9': 'Intel QuickAssist C62X VF',
  '0435': 'Intel QuickAssist DH895XCC',
  '0443': 'Intel QuickAssist DH895XCC VF',
  '0b25': 'Intel Data Streaming Accelerator (Sapphire Rapids)',
  '0cfe': 'Intel In-Memory Analytics Accelerator (Sapphire Rapids)',
};

/**
 * Whether the kernel's own list has the device. Ids are 4 lower-case hex digits. Returns the family for messages, or
 * null. A kernel older than the entry would bind it all the same, so this explains an EINVAL or warns; it is no reason
 * to refuse by itself.
 */
export function denylisted(vendorId: string, productId: string): { family: string } | null {
  if (vendorId !== INTEL || !Object.hasOwn(FAMILIES, productId)) return null;
  return { family: FAMILIES[productId] ?? '' };
}

/**
 * What to do about a device on the list, as one text for people. disable_denylist is a parameter of mode 0444
 * (module_param in vfio_pci.c), so it is read at run time but set only when the module is loaded.
 */
export function denylistAdvice(): string {
  return [
    'vfio-pci refuses devices with known errata by which a guest can hang the host or break out of its isolation.',
    'If every guest that gets the device is trusted, switch the list off for the whole host:',
    "'options vfio-pci disable_denylist=1' in /etc/modprobe.d/, then load the module anew,",
    'or vfio_pci.disable_denylist=1 on the kernel command line when vfio-pci is built in.',
    "'cat /sys/module/vfio_pci/parameters/disable_denylist' says Y when it is off; it can't be written there.",
  ].join(' ');
}
