/**
 * The one error class and the one table of its codes. Exit codes follow the contract in docs/reference/exit-codes.md;
 * a test holds docs/reference/errors.md against this table.
 */

/** What a process of ours may exit with (contract 5). */
export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  no: 3,
  absent: 4,
  refused: 5,
  notPermitted: 6,
  undoIncomplete: 7,
  unreachable: 8,
  timedOut: 9,
  internal: 70,
  interrupted: 130,
} as const;

type ErrorRow = { exit: number; text: string; hint: string };

/**
 * Every code we raise: what it means in general, the exit code, and the way out when the raiser gives no better one.
 */
export const ERRORS = {
  HOSTDEV_USAGE: { exit: EXIT.usage, text: 'The command line is not understood.', hint: "Run 'hostdev --help'." },
  HOSTDEV_DEVICE_ABSENT: {
    exit: EXIT.absent,
    text: 'No device of this host goes by that name.',
    hint: "Run 'hostdev list' for the devices of this host.",
  },
  HOSTDEV_DEVICE_AMBIGUOUS: {
    exit: EXIT.absent,
    text: 'Several devices go by that name.',
    hint: 'Name one of them by its address.',
  },
  HOSTDEV_GROUP_ABSENT: {
    exit: EXIT.absent,
    text: 'There is no such IOMMU group.',
    hint: "Run 'hostdev group list' for the groups of this host.",
  },
  HOSTDEV_NOT_OURS: {
    exit: EXIT.absent,
    text: 'The books hold no binding for this device: hostdev did not bind it.',
    hint: 'Give --to-host to bring it to its host driver all the same.',
  },
  HOSTDEV_WISH_ABSENT: {
    exit: EXIT.absent,
    text: 'No wish is about that device.',
    hint: "Run 'hostdev wish list'.",
  },
  HOSTDEV_WISH_ELSEWHERE: {
    exit: EXIT.refused,
    text: 'A wish about the device stands in a file that hostdev never edits, and says something else.',
    hint: 'Change it there: the message names file and line.',
  },
  HOSTDEV_NO_IDENTITY: {
    exit: EXIT.refused,
    text: 'Nothing tells the device from others over boots, so no wish about it can be kept.',
    hint: 'Bind it without --persist.',
  },
  HOSTDEV_BOOT_NOT_INSTALLED: {
    exit: EXIT.absent,
    text: 'The initramfs does nothing with devices: no table is installed for it.',
    hint: "Install it with 'hostdev boot install'.",
  },
  HOSTDEV_INITRAMFS: {
    exit: EXIT.failed,
    text: 'An initramfs could not be made anew, or is not as it should be.',
    hint: "The boot goes on as before; 'hostdev doctor' says which images have the table.",
  },
  HOSTDEV_INITRAMFS_MAKER: {
    exit: EXIT.no,
    text: 'The initramfs here is made in a way that is not handled (UKI, mkinitcpio, booster, images of a system), or without hostdev.',
    hint: 'Without it hostdev-boot.service binds devices, from the real root on.',
  },
  HOSTDEV_JOURNAL_ABSENT: {
    exit: EXIT.absent,
    text: 'The journal has no entry of that name.',
    hint: "Run 'hostdev journal list'.",
  },
  HOSTDEV_FILE_ABSENT: { exit: EXIT.absent, text: 'The file is not there.', hint: 'Check the path.' },
  HOSTDEV_SYSFS: {
    exit: EXIT.failed,
    text: 'The kernel refused an access to sysfs or procfs.',
    hint: 'The errno says why; dmesg may say more.',
  },
  HOSTDEV_STORE: {
    exit: EXIT.failed,
    text: 'A file of our own state cannot be read or written.',
    hint: 'Check that the folder is there, writable and not full.',
  },
  HOSTDEV_STORE_CORRUPT: {
    exit: EXIT.failed,
    text: 'A file of our own state is not what we wrote.',
    hint: 'Read it, repair or remove it; nothing was changed.',
  },
  HOSTDEV_STORE_UNSAFE: {
    exit: EXIT.failed,
    text: 'A folder or file of our own state is a link, or somebody else can write to it: what it says is not to be trusted.',
    hint: 'The message names it; see who made it, then put it right or remove it.',
  },
  HOSTDEV_BIND_FAILED: {
    exit: EXIT.failed,
    text: 'A device did not reach the wanted driver; everything was put back.',
    hint: "Look at 'dmesg' for the driver's own words.",
  },
  HOSTDEV_UNDO_INCOMPLETE: {
    exit: EXIT.undoIncomplete,
    text: 'A change failed and could not be undone in full.',
    hint: 'The journal file named here says what is left; repair it by hand.',
  },
  HOSTDEV_UNFINISHED: {
    exit: EXIT.failed,
    text: 'An earlier change of this device could not be finished, and is not this one.',
    hint: "See 'hostdev journal list'.",
  },
  HOSTDEV_MODULE: {
    exit: EXIT.failed,
    text: 'A kernel module could not be loaded or has no PCI driver.',
    hint: 'Check that the module is installed for the running kernel and not blacklisted.',
  },
  HOSTDEV_MODULES_ALIAS: {
    exit: EXIT.failed,
    text: "The running kernel's modules.alias cannot be read, so the variant driver is not known.",
    hint: "Install the kernel's modules or run depmod; 'hostdev bind DEV --driver vfio-pci' asks no table.",
  },
  HOSTDEV_NO_SRIOV: {
    exit: EXIT.no,
    text: 'The device is no PF: it cannot have VFs.',
    hint: "Look for type PF in 'hostdev list'; SR-IOV may be off in firmware or on the card.",
  },
  HOSTDEV_VF_COUNT: {
    exit: EXIT.no,
    text: 'The PF cannot have that many VFs.',
    hint: 'Ask for at most sriov_totalvfs, or raise that in the settings of the card.',
  },
  HOSTDEV_VFS: {
    exit: EXIT.failed,
    text: "The PF's driver did not make or remove its VFs; everything was put back.",
    hint: "Look at 'dmesg' for the driver's own words.",
  },
  HOSTDEV_VGPU_TYPE: {
    exit: EXIT.no,
    text: 'A VF cannot have that vGPU type, or none at all.',
    hint: 'See nvidia/creatable_vgpu_types of the VF: what it offers changes with the types of the other VFs of its PF.',
  },
  HOSTDEV_GUARD: {
    exit: EXIT.refused,
    text: 'A guard refused: the host itself needs the device.',
    hint: 'If that is really wanted, name the guard with --allow=<guard>.',
  },
  HOSTDEV_HOOK_REFUSES: {
    exit: EXIT.refused,
    text: 'A domain is planned for which the hook would not let the guest start.',
    hint: "The message says why; 'hostdev hook test FILE' asks it of a finished XML.",
  },
  HOSTDEV_IN_USE: {
    exit: EXIT.refused,
    text: 'The device is held by a process or belongs to another owner.',
    hint: 'End what holds it first.',
  },
  HOSTDEV_GROUP_NOT_VIABLE: {
    exit: EXIT.no,
    text: 'A peer in the IOMMU group is on a host driver, so the kernel will not hand the group to a guest.',
    hint: 'Bind the peer to VFIO too, or list it in the domain with <address type="unassigned"/>.',
  },
  HOSTDEV_NOT_BOUND: {
    exit: EXIT.no,
    text: 'A managed="no" device is on a host driver, and the hook is configured only to check.',
    hint: "Run 'hostdev bind' for it before the guest starts.",
  },
  HOSTDEV_IOMMU_OFF: {
    exit: EXIT.no,
    text: 'The kernel has no IOMMU groups, so nothing can be handed to a guest.',
    hint: 'Enable the IOMMU in firmware and on the kernel command line.',
  },
  HOSTDEV_NOT_PERMITTED: { exit: EXIT.notPermitted, text: 'This needs root.', hint: 'Run it as root.' },
  HOSTDEV_TIMEOUT: {
    exit: EXIT.timedOut,
    text: 'Something did not answer before the deadline.',
    hint: 'See which process holds the device; the state is observed anew next time.',
  },
  HOSTDEV_STUCK: {
    exit: EXIT.timedOut,
    text: 'The device hangs in the kernel from an earlier access and is left alone until that returns.',
    hint: "End what holds the device; 'hostdev status' shows when it is free. If nothing ends the hang, only a reboot does.",
  },
  HOSTDEV_NATIVE_MISSING: {
    exit: EXIT.failed,
    text: 'The native part (hostdev.node, hostdev-native) is missing, and nothing is written without it.',
    hint: "Run 'npm run build' or install the package again.",
  },
  HOSTDEV_XML: {
    exit: EXIT.no,
    text: 'The domain XML is not well-formed or not acceptable.',
    hint: 'Correct the line and column named here.',
  },
  HOSTDEV_DOMAIN_UNFIT: {
    exit: EXIT.no,
    text: 'The domain cannot take the device, or not in the way asked for.',
    hint: 'The message says what is in the way.',
  },
  HOSTDEV_DOMAIN_REFUSED: {
    exit: EXIT.no,
    text: 'A domain was not defined: a rule of `domain check`, the schema, or libvirt itself is against it.',
    hint: "Run 'hostdev domain check FILE' for all that is found wrong with it.",
  },
  HOSTDEV_DOMAIN_CHANGED: {
    exit: EXIT.no,
    text: 'A domain was not kept by libvirt as it was given, and the definition was taken back.',
    hint: 'The message names what is missing; this libvirt does not know it, or takes it in another form.',
  },
  HOSTDEV_HOOK_MISSING: {
    exit: EXIT.refused,
    text: "A domain has devices with managed='no', and no hook of hostdev's runs here that would bind them for it.",
    hint: "Run 'hostdev hook install', bind them yourself, or write managed='yes'.",
  },
  HOSTDEV_CONFIG: {
    exit: EXIT.no,
    text: 'The configuration has a mistake with which it cannot be used.',
    hint: "Run 'hostdev config check' for all of them.",
  },
  HOSTDEV_INVENTORY: {
    exit: EXIT.no,
    text: "The file given with --inventory is not what 'hostdev list -j' prints.",
    hint: "Make it with 'hostdev list -j > FILE' on the host in question.",
  },
  HOSTDEV_HOOKS: {
    exit: EXIT.failed,
    text: 'The libvirt hook could not be installed or removed.',
    hint: 'The message names the file that is in the way.',
  },
  HOSTDEV_SPEC: {
    exit: EXIT.no,
    text: 'A device_spec is not what Nova takes.',
    hint: 'Correct the key named here; docs/reference/config.md has every key with its rule.',
  },
  HOSTDEV_SPEC_ADDRESS: {
    exit: EXIT.no,
    text: 'The address in a device_spec, or of a device, is neither a PCI address nor a pattern of one.',
    hint: 'Write it as "0000:0a:00.*" or as {"bus": "0a", "slot": "00"}.',
  },
  HOSTDEV_SPEC_DEVNAME: {
    exit: EXIT.no,
    text: 'A device_spec names devices by address and by network interface at once.',
    hint: 'Leave out address or devname.',
  },
  HOSTDEV_SPEC_REMOTE_MANAGED: {
    exit: EXIT.no,
    text: 'A device_spec marks as remote_managed what is no VF of a DPU.',
    hint: 'Only VFs can be remote_managed: name them by their own product_id.',
  },
  HOSTDEV_ALIAS: {
    exit: EXIT.no,
    text: 'An alias is not what Nova takes.',
    hint: 'Correct the key named here; docs/reference/config.md has every key with its rule.',
  },
  HOSTDEV_ALIAS_ABSENT: {
    exit: EXIT.absent,
    text: 'A request names an alias that is not configured.',
    hint: 'Add an alias of that name, or correct the request.',
  },
  HOSTDEV_REQUEST: {
    exit: EXIT.usage,
    text: 'A request for devices is not understood.',
    hint: 'Write it as "gpu:1, qat-c62x-vf:2".',
  },
  HOSTDEV_NO_CAPACITY: {
    exit: EXIT.no,
    text: 'The devices asked for are not all free.',
    hint: "Run 'hostdev pool list' for what is free and what keeps the rest.",
  },
  HOSTDEV_DEVICE_STATE: {
    exit: EXIT.no,
    text: 'A device is not in the state that the change needs, or belongs to another consumer.',
    hint: 'Free it first.',
  },
  HOSTDEV_CONSUMER_ABSENT: {
    exit: EXIT.absent,
    text: 'Nobody of that name holds devices.',
    hint: 'Check the name of the instance.',
  },
  HOSTDEV_PLACEMENT: {
    exit: EXIT.no,
    text: 'The configured devices cannot be reported to Placement.',
    hint: 'Correct the device_spec named here.',
  },
  HOSTDEV_PLACEMENT_DEPENDENT: {
    exit: EXIT.no,
    text: 'A PF and VFs of it are both configured, which cannot be reported to Placement.',
    hint: 'Add the product_id of the PF or of the VFs to the device_spec, so that it matches only one kind.',
  },
  HOSTDEV_PLACEMENT_MIXED: {
    exit: EXIT.no,
    text: 'VFs of one PF have different resource classes or traits, which cannot be reported to Placement.',
    hint: 'Give all VFs of a PF the same resource_class, traits and live_migratable.',
  },
  HOSTDEV_LIBVIRT_UNREACHABLE: {
    exit: EXIT.unreachable,
    text: 'No libvirt can be reached, or its library is not here.',
    hint: "See whether libvirtd or virtqemud runs; --connect names another than 'qemu:///system'.",
  },
  HOSTDEV_LIBVIRT_LATE: {
    exit: EXIT.timedOut,
    text: 'There is no answer of libvirt before the deadline.',
    hint: 'A hook that runs holds its guest, and lists wait for it; see what libvirt is at, and try again.',
  },
  HOSTDEV_LIBVIRT: {
    exit: EXIT.failed,
    text: 'A call was refused by libvirt.',
    hint: 'The message has its own words.',
  },
  HOSTDEV_LIBVIRT_DROPPED: {
    exit: EXIT.failed,
    text: 'Something of what was given was dropped by libvirt without a word: all of it was taken back.',
    hint: 'This libvirt does not know it: leave it out.',
  },
  HOSTDEV_PLUG_PENDING: {
    exit: EXIT.timedOut,
    text: 'A guest has not yet taken a device or let it go, or what became of it is not known.',
    hint: "See 'hostdev status' for what is pending; the next hostdev ends it.",
  },
  HOSTDEV_GUEST_ABSENT: {
    exit: EXIT.absent,
    text: 'There is no guest of that name or UUID.',
    hint: "Run 'hostdev guest list'.",
  },
  HOSTDEV_SCENARIO: {
    exit: EXIT.usage,
    text: 'The input is no scenario for simulate.',
    hint: 'A scenario is one JSON object with device_spec, alias and devices; docs/reference/simulate.md has its keys.',
  },
  HOSTDEV_INTERRUPTED: { exit: EXIT.interrupted, text: 'Interrupted; everything was put back.', hint: '' },
  HOSTDEV_INTERNAL: {
    exit: EXIT.internal,
    text: 'A fault of hostdev itself.',
    hint: 'Please report it with the text above.',
  },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof ERRORS;

/** What else an error carries: `hint` overrides the table's; `data` is put into the JSON answer beside `error`. */
export type ErrorExtra = { hint?: string; cause?: unknown; data?: Record<string, unknown> };

/** The one error that hostdev raises on purpose. `message` names the object, the file and the errno. */
export class HostdevError extends Error {
  override readonly name = 'HostdevError';
  readonly code: ErrorCode;
  readonly hint: string;
  /** The hint is the table's: whoever raised it had no better one. */
  readonly isGeneralHint: boolean;
  readonly data: Record<string, unknown>;

  constructor(code: ErrorCode, message: string, extra: ErrorExtra = {}) {
    super(message, extra.cause === undefined ? undefined : { cause: extra.cause });
    this.code = code;
    this.hint = extra.hint ?? ERRORS[code].hint;
    this.isGeneralHint = extra.hint === undefined;
    this.data = extra.data ?? {};
  }

  get exit(): number {
    return ERRORS[this.code].exit;
  }
}

/** An errno from the native layer or node's fs: both carry these fields. */
export type SysError = Error & { code: string; errno: number; syscall: string; path?: string };

/** True for an error that carries an errno name, whoever raised it. */
export const isSysError = (e: unknown): e is SysError =>
  e instanceof Error &&
  typeof (e as Partial<SysError>).code === 'string' &&
  typeof (e as Partial<SysError>).errno === 'number';

/** True when `e` is a system error with one of these errno names ('ENOENT', …). */
export const isErrno = (e: unknown, ...names: string[]): boolean => isSysError(e) && names.includes(e.code);

/** There is no such file or folder. */
export const isAbsent = (e: unknown): boolean => isErrno(e, 'ENOENT', 'ENOTDIR');

/**
 * {@link isAbsent} for what the kernel shows of a device: the open attribute of one that was removed answers ENODEV or
 * ENXIO.
 */
export const isGone = (e: unknown): boolean => isErrno(e, 'ENOENT', 'ENOTDIR', 'ENODEV', 'ENXIO');

/**
 * What `read` gives; null when it raises, whatever that is. For a comfort, and where somebody else notes that it was
 * not measured.
 */
export function orNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}

/** What an errno means, whoever meets it; every other stays with the code of whoever meets it. */
const ERRNOS: Record<string, { code?: ErrorCode; hint?: string }> = {
  EACCES: { code: 'HOSTDEV_NOT_PERMITTED' },
  EPERM: { code: 'HOSTDEV_NOT_PERMITTED' },
  ETIMEDOUT: { code: 'HOSTDEV_TIMEOUT' },
  EROFS: { hint: 'The file system is read-only: remount it or see why it was.' },
  ENOSPC: { hint: 'The file system is full: make room and try again.' },
  EDQUOT: { hint: 'The file system is full: make room and try again.' },
};

/**
 * What was raised while we were `doing` something ("Failed to read /etc/x"), as an error of ours:
 * HOSTDEV_NOT_PERMITTED, HOSTDEV_TIMEOUT or `code`, with the errno in the message. `extra.hint` is for `code`. An error
 * of ours stays as it is.
 */
export function asError(doing: string, e: unknown, code: ErrorCode, extra: ErrorExtra = {}): HostdevError {
  if (e instanceof HostdevError) return e;
  const errno = isSysError(e) ? e.code : null;
  const row = errno === null ? {} : (ERRNOS[errno] ?? {});
  const why = errno === 'ETIMEDOUT' ? 'no answer before the deadline' : (errno ?? messageOf(e));
  const hint = row.code === undefined ? (extra.hint ?? row.hint) : undefined;
  return new HostdevError(row.code ?? code, `${doing}: ${why}`, {
    cause: e,
    ...(extra.data === undefined ? {} : { data: extra.data }),
    ...(hint === undefined ? {} : { hint }),
  });
}

export const messageOf = (e: unknown): string => (e instanceof Error ? e.message : String(e));

/** What reached the end of a command, as an error of ours: an errno that nobody worded, or a fault. */
export function asLastError(e: unknown): HostdevError {
  if (e instanceof HostdevError) return e;
  const row = isSysError(e) ? ERRNOS[e.code] : undefined;
  // sysfs is never full nor read-only in part: it is our own state that could not be written.
  const code =
    row?.code ?? (row?.hint ? 'HOSTDEV_STORE' : e instanceof Error && 'syscall' in e ? 'HOSTDEV_SYSFS' : null);
  return new HostdevError(code ?? 'HOSTDEV_INTERNAL', messageOf(e), { cause: e });
}
