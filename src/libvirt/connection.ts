/**
 * A connection to libvirt: which one is meant, and each call with a deadline and an error of ours. Never from inside a
 * hook: libvirt holds the domain's job while its hook runs, so that every call about domains waits for that hook.
 */
import { LibvirtCallError, type LibvirtCalls, type LibvirtOp } from '../addon/libvirtCalls.ts';
import type { Version } from '../domain/version.ts';
import { type ErrorCode, HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { libvirtListens } from '../host/libvirt.ts';
import { quote, safe } from '../text/safe.ts';

/** The one that has the guests with host devices: those of a session may not have any. */
const SYSTEM = 'qemu:///system';

const MAX_TEXT = 1000;

/** The URI of the libvirt to ask; or null, and as a clause why none is asked. */
type Which = { uri: string } | { uri: null; why: string };

/**
 * `connect` is what --connect says, null without it: then the machine's own, if one listens. libvirt's library itself
 * chooses between libvirtd and virtqemud, and goes by `mode=` and `socket=` of the URI (docs/uri.rst).
 */
export function whichLibvirt(host: Host, connect: string | null): Which {
  if (connect !== null) return { uri: connect };
  if (!host.isReal) return { uri: null, why: 'below another root libvirt is asked only with --connect' };
  if (libvirtListens(host)) return { uri: SYSTEM };
  return { uri: null, why: `no libvirt listens (${host.libvirtSockets.map((s) => host.absolute(s)).join(', ')})` };
}

/** Of libvirt's include/libvirt/virterror.h. */
const NO_SUPPORT = 3;
const NO_DOMAIN = 42;
/** An invalid argument; OS type, source, target, name, OS; XML, its detail; what this host has not; the schema. */
const XML_FAULTS = new Set([8, 16, 19, 20, 21, 22, 27, 35, 67, 92]);
const NOT_PERMITTED = new Set([29, 45, 79, 80, 88]);
/** virErrorDomain: what the transport says, not the driver. */
const FROM_RPC = 7;
const FROM_REMOTE = 13;

type Versions = { library: Version; daemon: Version; hypervisor: Version | null };

const OPEN_FLAGS = { readOnly: 1, events: 2 } as const;

export class Connection {
  readonly uri: string;
  readonly #calls: LibvirtCalls;
  readonly #number: number;

  private constructor(uri: string, calls: LibvirtCalls, number: number) {
    this.uri = uri;
    this.#calls = calls;
    this.#number = number;
  }

  /**
   * Opens; with `events`, who listens to `calls` hears of all that comes after. Raises HOSTDEV_LIBVIRT_UNREACHABLE,
   * HOSTDEV_LIBVIRT_LATE or HOSTDEV_NOT_PERMITTED.
   */
  static async open(
    calls: LibvirtCalls,
    uri: string,
    { readOnly, events = false, deadlineMs }: { readOnly: boolean; events?: boolean; deadlineMs: number },
  ): Promise<Connection> {
    const flags = (readOnly ? OPEN_FLAGS.readOnly : 0) | (events ? OPEN_FLAGS.events : 0);
    try {
      const rows = await calls.call('open', 0, uri, flags, deadlineMs);
      return new Connection(uri, calls, Number(rows[0]?.[0]));
    } catch (e) {
      throw asLibvirtError(uri, 'open', e);
    }
  }

  /** The number under which events name it. */
  get number(): number {
    return this.#number;
  }

  /**
   * One call. Raises HOSTDEV_LIBVIRT_UNREACHABLE, HOSTDEV_LIBVIRT_LATE, HOSTDEV_GUEST_ABSENT, HOSTDEV_NOT_PERMITTED or
   * HOSTDEV_LIBVIRT.
   */
  async call(op: Exclude<LibvirtOp, 'open'>, text: string, flags: number, deadlineMs: number): Promise<string[][]> {
    try {
      return await this.#calls.call(op, this.#number, text, flags, deadlineMs);
    } catch (e) {
      throw asLibvirtError(this.uri, op, e);
    }
  }

  /** Those of the library here, of the daemon, and of its hypervisor (null: it has none, as the test driver). */
  async versions(deadlineMs: number): Promise<Versions> {
    const [row] = await this.call('versions', '', 0, deadlineMs);
    const [library = 0, daemon = 0, hypervisor = 0] = (row ?? []).map(Number);
    return { library, daemon, hypervisor: hypervisor === 0 ? null : hypervisor };
  }

  /** Closes; a daemon that does not answer is left to a thread of the addon. */
  close(): void {
    this.#calls.release(this.#number);
  }
}

/** libvirt's own words of an error of its own. */
export const libvirtWords = (e: HostdevError): string =>
  (e.data.libvirt as { message?: string } | undefined)?.message ?? e.message;

const codeOf = (e: HostdevError): number | undefined => (e.data.libvirt as { code?: number } | undefined)?.code;

/** True for libvirt's word that a domain is not one it takes: its XML, its schema, or what it asks of this host. */
export const isXmlFault = (e: HostdevError): boolean => e.code === 'HOSTDEV_LIBVIRT' && XML_FAULTS.has(codeOf(e) ?? 0);

/** True for the error of a call that the driver behind a connection has not. */
export const isUnsupported = (e: unknown): boolean => e instanceof HostdevError && codeOf(e) === NO_SUPPORT;

/** What a fault of the library itself names as its call. */
const LOADS: ReadonlySet<string> = new Set(['dlopen', 'dlsym']);

/** Ops after which something may be otherwise, so that a lost answer is pending. */
const CHANGES: ReadonlySet<LibvirtOp> = new Set<LibvirtOp>(['define', 'undefine', 'attach', 'detach']);

/** What a call of libvirt raised, as an error of ours. */
function asLibvirtError(uri: string, op: LibvirtOp, e: unknown): unknown {
  if (!(e instanceof LibvirtCallError)) return e;
  const { domain, code, message, call } = e.fault;
  const text = safe(message.trim(), MAX_TEXT);
  if (e.late) {
    const pending = e.begun && CHANGES.has(op);
    const also = pending ? '; it may still be done' : '';
    return new HostdevError(
      'HOSTDEV_LIBVIRT_LATE',
      `libvirt ${quote(uri)}: ${op}: no answer before the deadline${also}`,
      {
        data: { pending },
      },
    );
  }
  const data = { libvirt: { call, domain, code, message: text } };
  if (LOADS.has(call))
    return new HostdevError('HOSTDEV_LIBVIRT_UNREACHABLE', `libvirt's library (${call}): ${text}`, {
      hint: 'Install libvirt (libvirt0, libvirt-libs), or see what the message says.',
      data,
    });
  // Our own client: the connection is closed, or there are no more threads.
  if (domain === 0 && code === 0)
    return new HostdevError('HOSTDEV_LIBVIRT_UNREACHABLE', `libvirt ${quote(uri)}: ${op}: ${text}`, { data });
  const what = `libvirt ${quote(uri)}: ${call}: ${text} (code ${code}, domain ${domain})`;
  // What was on its way when the connection ended is done, or is not.
  if (CHANGES.has(op) && (domain === FROM_RPC || domain === FROM_REMOTE) && !NOT_PERMITTED.has(code))
    return new HostdevError('HOSTDEV_LIBVIRT_LATE', `${what}: it may be done`, { data: { ...data, pending: true } });
  return new HostdevError(codeFor(op, domain, code, text), what, { data });
}

function codeFor(op: LibvirtOp, domain: number, code: number, text: string): ErrorCode {
  if (NOT_PERMITTED.has(code) || (op === 'open' && /Permission denied/.test(text))) return 'HOSTDEV_NOT_PERMITTED';
  if (op === 'open' || domain === FROM_RPC || domain === FROM_REMOTE) return 'HOSTDEV_LIBVIRT_UNREACHABLE';
  return code === NO_DOMAIN ? 'HOSTDEV_GUEST_ABSENT' : 'HOSTDEV_LIBVIRT';
}
