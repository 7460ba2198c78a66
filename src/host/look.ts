/**
 * Reading for somebody who must not take "could not look" for "nothing there": what cannot be read is noted, not
 * raised. Tables that concern every device (mounts, routes, the class folders) are read once for all of a plan.
 */

import { safe } from '../text/safe.ts';
import type { Host } from './host.ts';

/** proc/self/mountinfo of a host full of containers has hundreds of kilobytes. */
const MAX_TABLE = 4 * 1024 * 1024;

type Cached<T> = { value: T | null; problem: string | null; error?: unknown };

const NO_LINES: readonly string[] = [];

/** What was read of the kernel's tables, each at its first use: one moment, for one plan. */
export class Tables {
  readonly host: Host;
  readonly #texts = new Map<string, Cached<string>>();
  readonly #lines = new Map<string, Cached<readonly string[]>>();
  readonly #lists = new Map<string, Cached<string[]>>();
  readonly #made = new Map<unknown, unknown>();

  constructor(host: Host) {
    this.host = host;
  }

  /** What `make` made of these tables the first time it was asked for, for snapshots that cost something. */
  once<T>(make: (host: Host, tables: Tables) => T): T {
    if (!this.#made.has(make)) this.#made.set(make, make(this.host, this));
    return this.#made.get(make) as T;
  }

  text(path: string): Cached<string> {
    return cached(this.#texts, path, () => (this.#seenAbsent(path) ? null : this.host.read(path, MAX_TABLE)));
  }

  lines(path: string): Cached<readonly string[]> {
    let entry = this.#lines.get(path);
    if (entry === undefined) {
      const { value, problem } = this.text(path);
      entry = { value: value === null ? null : value.split('\n'), problem };
      this.#lines.set(path, entry);
    }
    return entry;
  }

  names(path: string): Cached<string[]> {
    return cached(this.#lists, path, () => (this.#seenAbsent(path) ? null : this.host.list(path)));
  }

  /** {@link names}; null when the folder is absent. Raises the errno of anything else. */
  list(path: string): string[] | null {
    const { value, error } = this.names(path);
    if (error !== undefined) throw error;
    return value;
  }

  /**
   * What a listed folder did not have at that moment needs no further look: a function has none of most things that are
   * asked for.
   */
  #seenAbsent(path: string): boolean {
    const cut = path.lastIndexOf('/');
    const names = this.#lists.get(path.slice(0, cut))?.value;
    return names != null && !names.includes(path.slice(cut + 1));
  }
}

function cached<T>(map: Map<string, Cached<T>>, path: string, read: () => T | null): Cached<T> {
  let entry = map.get(path);
  if (entry === undefined) {
    entry = { value: null, problem: null };
    try {
      entry.value = read();
    } catch (e) {
      entry.problem = (e as Error).message;
      entry.error = e;
    }
    map.set(path, entry);
  }
  return entry;
}

/** One device's look at the tables: `unmeasured` has a line for each that it needed and could not read. */
export class Look {
  readonly tables: Tables;
  readonly unmeasured: string[] = [];

  constructor(tables: Tables) {
    this.tables = tables;
  }

  get host(): Host {
    return this.tables.host;
  }

  /** The lines of a table that every kernel has: absent is not measured too. */
  mustLines(path: string): readonly string[] {
    const { value, problem } = this.tables.lines(path);
    if (value === null) this.miss(problem ?? `${path}: ENOENT`);
    return value ?? NO_LINES;
  }

  /** The lines of a table that a kernel may do without (no IPv6, no VT): absent is empty. */
  mayLines(path: string): readonly string[] {
    const { value, problem } = this.tables.lines(path);
    if (problem !== null) this.miss(problem);
    return value ?? NO_LINES;
  }

  /** Names in a folder; none when it is absent. */
  names(path: string): string[] {
    const { value, problem } = this.tables.names(path);
    if (problem !== null) this.miss(problem);
    return value ?? [];
  }

  /** An attribute; null when it is absent or cannot be read. */
  attribute(path: string): string | null {
    const { value, problem } = this.tables.text(path);
    if (problem !== null) this.miss(problem);
    return value;
  }

  miss(what: string): void {
    const line = safe(what, 200);
    if (!this.unmeasured.includes(line)) this.unmeasured.push(line);
  }
}
