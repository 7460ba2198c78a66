/** `<disk>` and its source and driver. */

import type { Version } from '../version.ts';
import type { Grammar } from './grammar.ts';
import { ALIAS, acpiIndexGrammar, any, BOOT, EMPTY, isNewer, later, POSITIVE, VIRTIO_OPTIONS } from './shapes.ts';
import { ANY, ON_OFF, YES_NO } from './values.ts';

/** `<source>` of the plain kinds: what the schema and the parser have; others are not looked into. */
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
    ...any(['source', 'mirror', 'auth', 'address', 'encryption', 'iotune', 'geometry', 'blockio', 'wwn']),
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
    acpi: acpiIndexGrammar(false),
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
