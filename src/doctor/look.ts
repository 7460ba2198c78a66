/** What a check is given: the host, its devices, and a place for what could not be looked at. */
import { fileFacts } from '../host/files.ts';
import type { Host } from '../host/host.ts';
import type { Inventory } from '../pci/inventory.ts';
import type { Unmeasured } from './table.ts';

/** More lines than this no file has that an admin writes. */
const MAX_TEXT = 1024 * 1024;
/** More entries than this of one folder are not looked at. */
const MAX_ENTRIES = 512;

export class Look {
  readonly host: Host;
  readonly inventory: Inventory;
  readonly unmeasured: Unmeasured[] = [];

  constructor(host: Host, inventory: Inventory) {
    this.host = host;
    this.inventory = inventory;
  }

  /** Notes once that something was not measured. */
  missed(object: string, reason: string): void {
    if (!this.unmeasured.some((u) => u.object === object && u.reason === reason))
      this.unmeasured.push({ object, reason });
  }

  /** What `read` gives; what it raises is noted as not measured, and null. */
  quiet<T>(object: string, read: () => T | null): T | null {
    try {
      return read();
    } catch (e) {
      this.missed(object, (e as Error).message);
      return null;
    }
  }

  /** The text of a file, null when it is absent (no fault) or cannot be read (noted). */
  text(path: string, max = MAX_TEXT): string | null {
    return this.quiet(`/${path}`, () => this.host.read(path, max));
  }

  /** Like {@link text}, and absence is noted too: the kernel has the file where it can be had. */
  must(path: string, max = MAX_TEXT): string | null {
    const text = this.text(path, max);
    if (text === null) this.missed(`/${path}`, 'not there');
    return text;
  }

  /** Names in a folder, so many at most; empty when it is absent. */
  names(path: string, max = MAX_ENTRIES): string[] {
    const names = this.quiet(`/${path}`, () => this.host.list(path)) ?? [];
    if (names.length > max) this.missed(`/${path}`, `it has ${names.length} entries: ${max} were looked at`);
    return names.slice(0, max);
  }

  has(path: string): boolean {
    return this.quiet(`/${path}`, () => fileFacts(this.host, path)) !== null;
  }

  /** Words of the kernel command line. */
  get cmdline(): string[] {
    return (this.text(this.host.cmdline) ?? '').split(/\s+/).filter(Boolean);
  }
}
