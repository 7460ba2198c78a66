/**
 * One guest, for as long as a command changes its devices: its two halves, a device put into or taken out of either,
 * and what has become of a call whose answer was lost.
 */
import type { LibvirtCalls } from '../addon/libvirtCalls.ts';
import { sleep } from '../clock.ts';
import { HostdevError } from '../errors.ts';
import { Connection } from './connection.ts';
import { type Half, readHalf, type SeenDomain, seeGuest } from './domains.ts';

/** Of the guest that runs, or of what it will be at its next start. */
export type Which = 'live' | 'config';

/** virDomainDeviceModifyFlags */
const AFFECT = { live: 1, config: 2 } as const;

/** `lost`: whether it was done is not known. `busy`: QEMU itself says not now. */
export type CallFault = { error: HostdevError; lost: boolean; busy: boolean };

/** VIR_ERR_INTERNAL_ERROR, VIR_ERR_OPERATION_FAILED: what QEMU's monitor refuses comes as one of them. */
const FROM_MONITOR: readonly unknown[] = [1, 9];
const REOPEN_PAUSE_MS = 250;

export class Guest {
  readonly seen: SeenDomain;
  readonly #calls: LibvirtCalls;
  readonly #left: () => number;
  readonly #readOnly: boolean;
  #connection: Connection;

  private constructor(
    seen: SeenDomain,
    calls: LibvirtCalls,
    connection: Connection,
    left: () => number,
    readOnly: boolean,
  ) {
    this.seen = seen;
    this.#calls = calls;
    this.#connection = connection;
    this.#left = left;
    this.#readOnly = readOnly;
  }

  /**
   * The guest of that name or UUID. Every call after it has what `left` gives, in ms. Raises HOSTDEV_GUEST_ABSENT, and
   * what a call raises.
   */
  static async open(
    calls: LibvirtCalls,
    uri: string,
    word: string,
    left: () => number,
    readOnly: boolean,
  ): Promise<Guest> {
    const connection = await Connection.open(calls, uri, { readOnly, deadlineMs: left() });
    try {
      const seen = await seeGuest(connection, word, left);
      return new Guest(seen, calls, connection, left, readOnly);
    } catch (e) {
      connection.close();
      throw e;
    }
  }

  /** Puts a device in; null when libvirt says that it is done. */
  attach(which: Which, xml: string): Promise<CallFault | null> {
    return this.#change('attach', which, xml);
  }

  /**
   * Takes a device out of what is kept, or asks the running guest to let it go: that is done when its XML is without
   * it.
   */
  detach(which: Which, xml: string): Promise<CallFault | null> {
    return this.#change('detach', which, xml);
  }

  /**
   * One half as it is now; null when there is none: a transient guest is no more when it has ended. Opens again what
   * was lost, until the deadline.
   */
  async half(which: Which): Promise<Half> {
    for (;;) {
      try {
        return await readHalf(this.#connection, this.seen, which === 'config', this.#left());
      } catch (e) {
        if (e instanceof HostdevError && e.code === 'HOSTDEV_GUEST_ABSENT') return null;
        if (!isGone(e) || this.#left() <= 1) throw e;
        await this.#reopen(e);
      }
    }
  }

  close(): void {
    this.#connection.close();
  }

  async #change(op: 'attach' | 'detach', which: Which, xml: string): Promise<CallFault | null> {
    try {
      await this.#connection.call(op, `${this.seen.uuid}\n${xml}`, AFFECT[which], this.#left());
      return null;
    } catch (e) {
      if (!(e instanceof HostdevError)) throw e;
      const code = (e.data.libvirt as { code?: number } | undefined)?.code;
      return { error: e, lost: isGone(e) || e.data.pending === true, busy: FROM_MONITOR.includes(code) };
    }
  }

  /** A connection that was lost never heals. */
  async #reopen(first: unknown): Promise<void> {
    this.#connection.close();
    for (;;) {
      await sleep(Math.min(REOPEN_PAUSE_MS, this.#left()));
      try {
        const options = { readOnly: this.#readOnly, deadlineMs: this.#left() };
        this.#connection = await Connection.open(this.#calls, this.#connection.uri, options);
        return;
      } catch (e) {
        if (this.#left() <= 1) throw first ?? e;
      }
    }
  }
}

const isGone = (e: unknown): boolean => e instanceof HostdevError && e.code === 'HOSTDEV_LIBVIRT_UNREACHABLE';
