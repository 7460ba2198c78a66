/**
 * Reading through node's own fs, for a machine without the addon: slower, the same answers. It writes nothing and locks
 * nothing.
 */
import { closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync, readSync, statSync } from 'node:fs';
import { HostdevError, isErrno, isGone, isSysError } from '../errors.ts';
import { safe } from '../text/safe.ts';
import type { Holder, KernelWriter, NativeBinding, RawFailure, RawGroups, RawScan } from './native.ts';
import { processRuns } from './process.ts';

const PAGE = 4096;
const MAX_LINKS = 40;

export class FsReader implements NativeBinding {
  readonly kind = 'fs';
  readonly missing: string;

  constructor(missing = 'hostdev.node is missing') {
    this.missing = missing;
  }

  scanDevices(root: string): RawScan {
    const failures: RawFailure[] = [];
    const devices: RawScan['devices'] = [];
    for (const address of this.#names(root, 'sys/bus/pci/devices', failures)) {
      const folder = `sys/bus/pci/devices/${address}`;
      if (this.#quiet(() => this.readDir(root, folder), folder, failures) === null) continue;
      const read = (name: string): string | null =>
        this.#quiet(() => this.#attribute(root, `${folder}/${name}`), `${folder}/${name}`, failures);
      const link = (name: string): string | null =>
        this.#quiet(() => lastPart(this.readLink(root, `${folder}/${name}`)), `${folder}/${name}`, failures);
      const modalias = read('modalias');
      const physfn = link('physfn');
      devices.push({
        address,
        modalias,
        ids: modalias
          ? null
          : [read('vendor'), read('device'), read('class'), read('subsystem_vendor'), read('subsystem_device')],
        numaNode: read('numa_node'),
        driver: link('driver'),
        iommuGroup: link('iommu_group'),
        physfn,
        totalVfs: physfn === null ? read('sriov_totalvfs') : null,
      });
    }
    return { devices, failures };
  }

  scanGroups(root: string): RawGroups {
    const failures: RawFailure[] = [];
    const groups = this.#names(root, 'sys/kernel/iommu_groups', failures).map((id) => {
      const folder = `sys/kernel/iommu_groups/${id}`;
      const read = (name: string): string | null =>
        this.#quiet(() => this.#attribute(root, `${folder}/${name}`), `${folder}/${name}`, failures);
      return {
        id,
        type: read('type'),
        reservedRegions: read('reserved_regions'),
        devices: this.#names(root, `${folder}/devices`, failures),
      };
    });
    return { groups, failures };
  }

  readFile(root: string, path: string, max: number): string {
    return this.#text(root, path, max, false);
  }

  readStart(root: string, path: string, bytes: number): string {
    return this.#text(root, path, bytes, true);
  }

  readLink(root: string, path: string): string {
    return relative(path, () => readlinkSync(this.#inRoot(root, path, false), 'latin1'));
  }

  readDir(root: string, path: string): string[] {
    return relative(path, () => readdirSync(this.#inRoot(root, path, true), 'latin1').sort());
  }

  inode(root: string, path: string): string {
    return relative(path, () => String(statSync(this.#inRoot(root, path, true), { bigint: true }).ino));
  }

  holders(root: string, targets: string[]): { holders: Holder[]; unreadable: number } {
    const holders: Holder[] = [];
    let unreadable = 0;
    for (const pid of this.#names(root, 'proc', []).filter((n) => /^\d{1,9}$/.test(n))) {
      try {
        const seen = new Set<string>();
        for (const fd of this.readDir(root, `proc/${pid}/fd`)) {
          const link = this.#quiet(() => this.readLink(root, `proc/${pid}/fd/${fd}`), '', []);
          const target = link?.replace(/ \(deleted\)$/, '') ?? null;
          if (target !== null && targets.includes(target) && !seen.has(target)) {
            seen.add(target);
            holders.push({
              pid: Number(pid),
              command: this.#command(root, pid),
              path: target,
            });
          }
        }
      } catch (e) {
        if (!isGone(e) && !isErrno(e, 'ESRCH')) unreadable += 1;
      }
    }
    return { holders, unreadable };
  }

  /** A process names itself: what could move a terminal or break a line does not get through. */
  #command(root: string, pid: string): string {
    const text = this.#quiet(() => this.#text(root, `proc/${pid}/comm`, 64, true), '', []);
    return text === null ? '?' : safe(text.replace(/\n+$/, ''));
  }

  tryLock(): number | null {
    throw nativeMissing(this);
  }

  systemLog(): boolean {
    return false;
  }

  unlock(): void {
    throw nativeMissing(this);
  }

  processRuns = processRuns;

  /** Reads without the helper's deadline; nothing is written. */
  openWriter(root: string): KernelWriter {
    const refuse = async (): Promise<never> => {
      throw nativeMissing(this);
    };
    return {
      read: async (path) => this.#text(root, path, PAGE, true),
      write: refuse,
      restoreFile: refuse,
      // Opening a disk is no plain reading: it may hang, and there is no helper to hang in its place.
      claimed: refuse,
      link: refuse,
      setUp: refuse,
      close: () => {},
    };
  }

  /** An attribute is never a link on sysfs; one on anything else is refused. */
  #attribute(root: string, path: string): string {
    return this.#text(root, path, PAGE, true, constants.O_NOFOLLOW);
  }

  #text(root: string, path: string, max: number, truncate: boolean, flags = 0): string {
    return relative(path, () => {
      const at = this.#inRoot(root, path, flags !== constants.O_NOFOLLOW);
      const fd = openSync(at, constants.O_RDONLY | constants.O_NONBLOCK | flags);
      try {
        const parts: Buffer[] = [];
        for (let size = 0; ; ) {
          const chunk = Buffer.alloc(Math.min(65536, max + (truncate ? 0 : 1) - size));
          const n = chunk.length === 0 ? 0 : readSync(fd, chunk);
          if (n === 0) break;
          parts.push(chunk.subarray(0, n));
          size += n;
          if (size > max)
            throw Object.assign(new Error(`EFBIG: file too large, read '${path}'`), {
              code: 'EFBIG',
              errno: -27,
              syscall: 'read',
              path,
            });
        }
        return Buffer.concat(parts).toString('latin1');
      } finally {
        closeSync(fd);
      }
    });
  }

  /** Walks a path below the root by hand, so that links (absolute ones too) stay inside it as with RESOLVE_IN_ROOT. */
  #inRoot(root: string, path: string, followLast: boolean): string {
    const base = root === '/' ? '' : root;
    const todo = path.split('/').filter(Boolean).reverse();
    const done: string[] = [];
    for (let links = 0; todo.length > 0; ) {
      const part = todo.pop() ?? '';
      if (part === '.') continue;
      if (part === '..') {
        done.pop();
        continue;
      }
      const here = `${base}/${[...done, part].join('/')}`;
      const isLast = todo.length === 0;
      if ((isLast && !followLast) || !lstatSync(here).isSymbolicLink()) {
        done.push(part);
        continue;
      }
      links += 1;
      if (links > MAX_LINKS)
        throw Object.assign(new Error(`ELOOP: too many symbolic links, open '${path}'`), {
          code: 'ELOOP',
          errno: -40,
          syscall: 'open',
          path,
        });
      const target = readlinkSync(here);
      if (target.startsWith('/')) done.length = 0;
      todo.push(...target.split('/').filter(Boolean).reverse());
    }
    return `${base}/${done.join('/')}`;
  }

  #names(root: string, path: string, failures: RawFailure[]): string[] {
    const names = this.#quiet(() => this.readDir(root, path), path, failures) ?? [];
    return names.sort((a, b) => a.length - b.length || (a < b ? -1 : 1));
  }

  #quiet<T>(read: () => T, path: string, failures: RawFailure[]): T | null {
    try {
      return read();
    } catch (e) {
      if (!isGone(e))
        failures.push(
          isSysError(e)
            ? { code: e.code, errno: e.errno, syscall: e.syscall, path }
            : { code: 'EUNKNOWN', errno: 0, syscall: '', path },
        );
      return null;
    }
  }
}

const lastPart = (path: string): string => path.slice(path.lastIndexOf('/') + 1);

/** The error for what only the addon does. */
export const nativeMissing = ({ missing }: Pick<NativeBinding, 'missing'>): HostdevError =>
  new HostdevError('HOSTDEV_NATIVE_MISSING', `${missing}: reading works without it, changing does not`);

/** Errors name the path below the root, as the addon's do. */
function relative<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (e) {
    if (isSysError(e)) e.path = path;
    throw e;
  }
}
