/**
 * The typed face of everything that touches the kernel's trees: the C++ addon, its plain-fs stand-in for reading, and
 * the in-memory kernel of the tests all implement {@link NativeBinding}. The caller validates; what is behind trusts.
 *
 * Every `path` is relative to `root` (no leading slash) and is resolved inside it: a hostile symlink below a simulated
 * root can't lead out of it. On the machine's own root there is nothing to be kept in. Failures are Errors with `code`
 * ('ENOENT'), `errno` (negative, as node's), `syscall` and `path` (relative to root).
 */

import type { LibvirtCalls } from './libvirtCalls.ts';

/** One entry of sys/bus/pci/devices, as read: text still untrusted, null when the file or link is not there. */
export type RawDevice = {
  address: string;
  /**
   * `modalias`, e.g. "pci:v00008086d000010C9sv…": one read for vendor, device, subsystem and class, and no device lock.
   */
  modalias: string | null;
  /** `vendor device class subsystem_vendor subsystem_device` attribute texts, read only when modalias gave nothing. */
  ids: [string | null, string | null, string | null, string | null, string | null] | null;
  numaNode: string | null;
  /** Last component of the `driver` link. */
  driver: string | null;
  /** Last component of the `iommu_group` link. */
  iommuGroup: string | null;
  /** Last component of the `physfn` link: set on VFs only. */
  physfn: string | null;
  /** `sriov_totalvfs` text: set on PFs only. */
  totalVfs: string | null;
};

/**
 * A failure on one device or group that did not stop the scan (a device that vanished meanwhile is left out silently).
 */
export type RawFailure = { code: string; errno: number; syscall: string; path: string };

export type RawScan = { devices: RawDevice[]; failures: RawFailure[] };

/** One entry of sys/kernel/iommu_groups. */
type RawGroup = { id: string; type: string | null; reservedRegions: string | null; devices: string[] };

export type RawGroups = { groups: RawGroup[]; failures: RawFailure[] };

/** A process that has one of the asked files open: `path` is the target of its fd link. */
export type Holder = { pid: number; command: string; path: string };

export interface NativeBinding {
  /** Which implementation this is; writing is refused unless it is 'addon' or 'model'. */
  readonly kind: 'addon' | 'fs' | 'model';
  /** Of 'fs': why the addon is not in use, in words that go on with "reading works without it". */
  readonly missing?: string;
  /**
   * Scans sys/bus/pci/devices below `root` (absolute path), sorted by address. Reads nothing that takes a device's
   * lock, never `config`.
   */
  scanDevices(root: string): RawScan;
  /** Scans sys/kernel/iommu_groups below `root`, sorted by number. A missing folder is an empty answer. */
  scanGroups(root: string): RawGroups;
  /** At most `max` bytes of a file as latin1 text. Raises EFBIG when there is more. */
  readFile(root: string, path: string, max: number): string;
  /** The first `bytes` bytes of a file, fewer if it has fewer, as latin1 text; what is behind them is not read. */
  readStart(root: string, path: string, bytes: number): string;
  /** The text of a symbolic link. */
  readLink(root: string, path: string): string;
  /** Names in a folder, sorted, without . and .. */
  readDir(root: string, path: string): string[];
  /**
   * The inode number of a folder, as decimal text: in sysfs a device that was made anew has another one, at the same
   * path.
   */
  inode(root: string, path: string): string;
  /**
   * Processes of proc/[pid]/fd below `root` that hold one of `targets` (absolute link texts, e.g. "/dev/vfio/12").
   * Processes that vanish or may not be read are skipped; `unreadable` counts the latter, and those that a second was
   * not enough for.
   */
  holders(root: string, targets: string[]): { holders: Holder[]; unreadable: number };
  /**
   * flock(2) on an absolute path, created 0600 if missing (O_NOFOLLOW|O_CLOEXEC), never waiting: the held descriptor,
   * or null when another holds it.
   */
  tryLock(file: string, shared: boolean): number | null;
  /** Gives up a lock of {@link tryLock}. */
  unlock(fd: number): void;
  /**
   * One line for the log daemon at a socket (/dev/log), never waiting; false when nobody took it. Asked for on the
   * machine itself only.
   */
  systemLog(socket: string, text: string): boolean;
  /**
   * Only a model has it: its modprobe. A real host's modules are loaded by modprobe itself, and only on the real root.
   */
  loadModule?(module: string): void;
  /** True while the helper of that name (KernelWriter) is still at its access. */
  processRuns(name: string): boolean;
  /** Calls of libvirt (its library is loaded by the first of them); only the addon has it. */
  openLibvirt?(threads?: number): LibvirtCalls;
  /** Starts the process that does the accesses that may hang. */
  openWriter(root: string): KernelWriter;
}

/**
 * Accesses that take a device's lock and so may hang for ever, each with a deadline in ms; those asked for together go
 * on together. One past its deadline rejects with code 'ETIMEDOUT' and `helper`: the name of the process that may still
 * do it, null when nothing was begun.
 */
export interface KernelWriter {
  /** One open(O_WRONLY, no create, no truncate) + one write(2) of `value` + close. */
  write(path: string, value: string, deadlineMs: number): Promise<void>;
  /**
   * Like NativeBinding.readFile (max 4096 bytes), for attributes that take the device's lock (driver_override,
   * sriov_numvfs).
   */
  read(path: string, deadlineMs: number): Promise<string>;
  /** Truncates and rewrites a regular file that is not on sysfs (a static tree of a test): EPERM on sysfs. */
  restoreFile(path: string, bytes: string, deadlineMs: number): Promise<void>;
  /**
   * True when somebody has a block device (`path` of its node) for himself alone: opened with O_EXCL for a moment
   * (block/bdev.c), which mounts, swap, dm, md, zfs and careful processes do for as long as they use it. False for what
   * is no block device or has no medium.
   */
  claimed(path: string, deadlineMs: number): Promise<boolean>;
  /**
   * The kernel's RTM_NEWLINK of a network interface of this machine, with the settings of its VFs, as latin1 text of
   * its bytes. The kernel answers under the lock of all interfaces, so that this hangs where a driver does. Raises the
   * kernel's errno with syscall 'RTM_GETLINK' (ENODEV, EMSGSIZE).
   */
  link(index: number, deadlineMs: number): Promise<string>;
  /**
   * Brings a network interface up or down. On the machine by netlink, which changes that one bit; below another root,
   * where netlink would be this machine's, by the interface's `flags` in the tree, as sysfs has it too. Raises the
   * kernel's errno with syscall 'RTM_SETLINK'.
   */
  setUp(link: { name: string; index: number }, up: boolean, deadlineMs: number): Promise<void>;
  close(): void;
}
