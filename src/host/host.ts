/**
 * The host: owner of every path below one root (contract 1). Nothing else in hostdev spells a path of sysfs, procfs or
 * of our own state, so any command runs on a simulated host, and what may be read is one list.
 */
import { resolve } from 'node:path';
import type { NativeBinding, RawFailure } from '../addon/native.ts';
import { isErrno, isGone, orNull } from '../errors.ts';

/** Largest attribute of sysfs: one page. */
const PAGE = 4096;

/** As the kernel's own walk (include/linux/namei.h MAXSYMLINKS). */
const MAX_LINKS = 40;

/**
 * A driver's name as sysfs shows it: a folder name, and kernel drivers do have spaces in theirs ("MTD PCI"). Anything
 * else is not put into a path or an attribute.
 */
export const DRIVER_NAME = /^(?!\.{1,2}$)[\x20-\x2e\x30-\x7e]{1,64}$/;

export class Host {
  /** Absolute path of the root that everything hangs below; `/` on a real host. */
  readonly root: string;
  readonly native: NativeBinding;
  /** What scans could not read so far: a list made of them is not whole, and says so by its exit code. */
  readonly unread: RawFailure[] = [];

  constructor(root: string, native: NativeBinding) {
    this.root = resolve(root);
    this.native = native;
  }

  /** True on the machine itself: only there are modules loaded and is "not measured" a reason to refuse. */
  get isReal(): boolean {
    return this.root === '/' && this.native.kind === 'addon';
  }

  /**
   * Absolute path of something below the root, for people; what is opened by it would follow links out of the root
   * (addon/inRoot.ts).
   */
  absolute(path: string): string {
    return this.root === '/' ? `/${path}` : `${this.root}/${path}`;
  }

  // Kernel trees, relative to the root.
  readonly devices = 'sys/bus/pci/devices';
  readonly drivers = 'sys/bus/pci/drivers';
  readonly driversProbe = 'sys/bus/pci/drivers_probe';
  readonly iommuGroups = 'sys/kernel/iommu_groups';

  readonly osrelease = 'proc/sys/kernel/osrelease';
  /** Another text at every boot (drivers/char/random.c). */
  readonly bootId = 'proc/sys/kernel/random/boot_id';
  readonly mountinfo = 'proc/self/mountinfo';
  readonly swaps = 'proc/swaps';
  readonly routes = 'proc/net/route';
  readonly routes6 = 'proc/net/ipv6_route';
  readonly addresses6 = 'proc/net/if_inet6';
  /** The local IPv4 addresses, without their interfaces. */
  readonly localAddresses = 'proc/net/fib_trie';
  /** What is mounted of btrfs, by UUID; what the kernel serves over NVMe and iSCSI. */
  readonly btrfs = 'sys/fs/btrfs';
  readonly nvmet = 'sys/kernel/config/nvmet/subsystems';
  readonly lio = 'sys/kernel/config/target/core';
  readonly iscsiConnections = 'sys/class/iscsi_connection';
  readonly nvmeControllers = 'sys/class/nvme';
  readonly iomem = 'proc/iomem';
  /**
   * Every character device by its number, each a link to its device: what a function's drivers offer to user space,
   * whatever they are.
   */
  readonly charDevices = 'sys/dev/char';
  /** The consoles that the kernel writes to: by name, and a line each. */
  readonly activeConsoles = 'sys/class/tty/console/active';
  readonly consoles = 'proc/consoles';
  /** CXL: memory devices, their endpoints, and the regions that are made of them. */
  readonly cxl = 'sys/bus/cxl/devices';
  readonly cmdline = 'proc/cmdline';
  readonly acpiTables = 'sys/firmware/acpi/tables';
  /**
   * What tells an architecture: its name (6.1), the processors, the channel subsystem of s390, OPAL of POWER, a device
   * tree.
   */
  readonly arch = 'proc/sys/kernel/arch';
  readonly cpuinfo = 'proc/cpuinfo';
  readonly channelSubsystem = 'sys/bus/css';
  readonly opal = 'sys/firmware/opal';
  readonly deviceTree = 'sys/firmware/devicetree/base';
  readonly deviceTreeCompatible = 'sys/firmware/devicetree/base/compatible';
  /**
   * For `doctor` and `group why` only: what says whether interrupts are remapped, who draws on a display, what the boot
   * locked, when a process began.
   */
  readonly interrupts = 'proc/interrupts';
  readonly procStat = 'proc/stat';
  readonly lockdown = 'sys/kernel/security/lockdown';
  /** Four bytes of attributes, then 1 when secure boot is on (UEFI 2.10, 3.3). */
  readonly secureBoot = 'sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c';

  process(pid: number, file: 'comm' | 'stat' | 'status' | 'limits' | '' = ''): string {
    return `proc/${pid}/${file}`;
  }

  /** Where libvirt looks for hooks; NixOS builds it with the second one. A host has one of them. */
  readonly hookFolders = ['etc/libvirt/hooks', 'var/lib/libvirt/hooks'];

  /** Where libvirt's daemons are: of a distribution, built by hand, and on NixOS. */
  readonly libvirtPrograms = ['usr/sbin', 'usr/bin', 'usr/local/sbin', 'run/current-system/sw/bin'].flatMap(
    (folder) => [`${folder}/libvirtd`, `${folder}/virtqemud`],
  );

  /** libvirt's state of the guests that run or start: NAME.xml and NAME.pid (src/qemu/qemu_process.c). */
  readonly guests = 'run/libvirt/qemu';
  /** libvirt's definitions of the domains that it keeps: NAME.xml, for root to read. */
  readonly definitions = 'etc/libvirt/qemu';

  /** Where libvirtd and virtqemud listen (libvirt's remote_sockets.c), for changes and, for anybody, to read. */
  /** Where programs of this machine are started from, whatever the caller's own PATH is. */
  readonly programs: string = '/usr/sbin:/usr/bin:/sbin:/bin';
  readonly libvirtSockets = ['libvirt-sock', 'virtqemud-sock'].flatMap((name) => [
    `run/libvirt/${name}`,
    `run/libvirt/${name}-ro`,
  ]);

  /** libvirt's RelaxNG schemas, which come with its library or with libvirt-common. */
  readonly libvirtSchemas = 'usr/share/libvirt/schemas';

  /** Where distributions keep pci.ids. */
  readonly pciIds = ['usr/share/misc/pci.ids', 'usr/share/hwdata/pci.ids'];

  device(address: string, attribute?: string): string {
    return attribute === undefined ? `${this.devices}/${address}` : `${this.devices}/${address}/${attribute}`;
  }

  driver(name: string, file?: string, bus = 'pci'): string {
    return `sys/bus/${bus}/drivers/${name}${file === undefined ? '' : `/${file}`}`;
  }

  group(id: number, file: string): string {
    return `${this.iommuGroups}/${id}/${file}`;
  }

  module(name: string, file?: string): string {
    return file === undefined ? `sys/module/${name}` : `sys/module/${name}/${file}`;
  }

  /** A host NUMA node's folder or file (drivers/base/node.c). */
  readonly numaNodes = 'sys/devices/system/node';

  numaNode(node: number, file: string): string {
    return `sys/devices/system/node/node${node}/${file}`;
  }

  classLink(kind: 'net' | 'block' | 'iommu' | 'drm' | 'vtconsole' | 'tty', name?: string): string {
    return name === undefined ? `sys/class/${kind}` : `sys/class/${kind}/${name}`;
  }

  /** A node of devtmpfs, e.g. "nvme0n1". */
  node(name: string): string {
    return `dev/${name}`;
  }

  /** Where the proprietary nvidia driver says which /dev/nvidia<N> a GPU is. */
  nvidiaGpu(address: string): string {
    return `proc/driver/nvidia/gpus/${address}/information`;
  }

  /**
   * `lib/modules/<release>/<file>` of the running kernel, or of /run/booted-system where a distribution keeps none
   * there (NixOS).
   */
  moduleFiles(release: string, file: string): string[] {
    return [`lib/modules/${release}/${file}`, `run/booted-system/kernel-modules/lib/modules/${release}/${file}`];
  }

  /** Our configuration: hostdev.toml and conf.d. */
  readonly config = 'etc/hostdev';
  /** The wishes that --persist and `wish add` write. */
  readonly kept = 'etc/hostdev/conf.d/90-kept.toml';

  // Our own state (contract 13), written and read by store/ alone.
  readonly state = 'run/hostdev';
  readonly bindings = 'run/hostdev/bindings';
  readonly journal = 'run/hostdev/journal';
  readonly quarantine = 'run/hostdev/quarantine';
  /** A file for each guest whose QEMU was seen to be up (hook operation `started`), by UUID. */
  readonly started = 'run/hostdev/started';
  readonly locks = 'run/hostdev/lock';
  /** Where the hook writes what nobody reads at once: a release goes on after libvirt has been answered. */
  readonly hookLog = 'run/hostdev/hook.log';

  /** The table that the initramfs has a copy of, at the same path (native/boot.cc). */
  readonly bootTable = 'var/lib/hostdev/boot.table';
  /** Where the images of kernels and initramfs are. */
  readonly bootFolder = 'boot';
  /** What of ours each maker of an initramfs calls: an admin's folder, then the package's. */
  readonly initramfsHooks = {
    'initramfs-tools': ['etc/initramfs-tools/hooks/hostdev', 'usr/share/initramfs-tools/hooks/hostdev'],
    dracut: ['usr/lib/dracut/modules.d/90hostdev/module-setup.sh', 'lib/dracut/modules.d/90hostdev/module-setup.sh'],
  };

  /** What those put into an initramfs. */
  readonly initramfsProgram = 'usr/bin/hostdev-native';

  /** What the boot made of each wish. */
  readonly bootReport = 'run/hostdev/boot.json';

  /** A line for each change and each lifted guard; it outlives the boot (docs/decisions/0017-record.md). */
  readonly record = 'var/log/hostdev/record.log';
  /** Where the log daemon listens, absolute: it is asked for on the machine itself only. */
  readonly systemLog = '/dev/log';

  /** What an absolute path is below the root; null where that is the machine's own, or the path leads elsewhere. */
  below(path: string): string | null {
    const at = resolve(path);
    return this.root !== '/' && at.startsWith(`${this.root}/`) ? at.slice(this.root.length + 1) : null;
  }

  // Reading.

  /** Text of a file, trailing newline cut; null when it is absent. Raises the errno of anything else. */
  read(path: string, max = PAGE): string | null {
    // No pattern: node interprets one the first time, and modules.alias has 20,000 lines to try it on.
    const text = this.#absentAsNull(() => this.native.readFile(this.root, path, max));
    return text?.endsWith('\n') ? text.slice(0, -1) : text;
  }

  /**
   * Bytes of a file; null when it is absent. Raises the errno of anything else, EFBIG when there are more than `max`.
   */
  readBytes(path: string, max = PAGE): Buffer | null {
    const text = this.#absentAsNull(() => this.native.readFile(this.root, path, max));
    return text === null ? null : Buffer.from(text, 'latin1');
  }

  /** The first bytes of a file; null when it is absent. */
  readStart(path: string, bytes: number): Buffer | null {
    const text = this.#absentAsNull(() => this.native.readStart(this.root, path, bytes));
    return text === null ? null : Buffer.from(text, 'latin1');
  }

  /**
   * Text of a symbolic link; null when it is absent or no link (sys/class/net/bonding_masters is a file among links).
   */
  link(path: string): string | null {
    try {
      return this.#absentAsNull(() => this.native.readLink(this.root, path));
    } catch (e) {
      if (isErrno(e, 'EINVAL')) return null;
      throw e;
    }
  }

  /** Last component of a symbolic link; null when it is absent. */
  linkName(path: string): string | null {
    const target = this.link(path);
    return target === null ? null : target.slice(target.lastIndexOf('/') + 1);
  }

  /**
   * An absolute path below the root with every link of it resolved, and without "//", "." and "..". What is absent or
   * cannot be read stays as it is written; so does the rest of a path with too many links.
   */
  resolved(path: string): string {
    const todo = path.split('/').reverse();
    let done: string[] = [];
    for (let links = 0; todo.length > 0; ) {
      const part = todo.pop() ?? '';
      if (part === '' || part === '.') continue;
      if (part === '..') {
        done.pop();
        continue;
      }
      const target = links < MAX_LINKS ? orNull(() => this.link([...done, part].join('/'))) : null;
      if (target === null) {
        done.push(part);
        continue;
      }
      links += 1;
      if (target.startsWith('/')) done = [];
      todo.push(...target.split('/').reverse());
    }
    return `/${done.join('/')}`;
  }

  /** Names in a folder, sorted; null when it is absent. */
  list(path: string): string[] | null {
    return this.#absentAsNull(() => this.native.readDir(this.root, path));
  }

  /** The inode number of a folder; null when it is absent. */
  inode(path: string): string | null {
    return this.#absentAsNull(() => this.native.inode(this.root, path));
  }

  #absentAsNull<T>(read: () => T): T | null {
    try {
      return read();
    } catch (e) {
      if (isGone(e)) return null;
      throw e;
    }
  }

  /** The boot that the kernel is in; null where that is not to be told (a static tree). */
  get boot(): string | null {
    if (this.#boot === undefined) {
      const text = this.read(this.bootId);
      this.#boot = text !== null && /^[0-9a-f-]{36}$/.test(text) ? text : null;
    }
    return this.#boot;
  }

  #boot: string | null | undefined;

  /** `proc/sys/kernel/osrelease`, null where it is not there (a static tree) or is not a plain word. */
  get release(): string | null {
    const text = this.read(this.osrelease);
    return text !== null && /^[\w.+~-]{1,128}$/.test(text) && !text.startsWith('.') ? text : null;
  }
}
