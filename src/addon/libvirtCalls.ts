/**
 * Calls of libvirt as promises, each with a deadline: it comes back by then, whatever the daemon does. The addon's
 * threads do the calls (native/libvirt_client.h); here is who waits for them.
 */

/** As in native/libvirt_calls.h, in its order. */
const OPS = [
  'open',
  'close',
  'versions',
  'domains',
  'domain',
  'domain-xml',
  'networks',
  'define',
  'undefine',
  'to-native',
  'attach',
  'detach',
] as const;
/** `close` is no call: see {@link LibvirtCalls.release}. */
export type LibvirtOp = Exclude<(typeof OPS)[number], 'close'>;

/** What a call failed with. `domain` and `code` are libvirt's (virterror.h), 0 where libvirt did not get to it. */
type LibvirtFault = { domain: number; code: number; message: string; call: string };

/**
 * `lifecycle` has libvirt's event and detail (virDomainEventType), `closed` the reason of the end of the connection;
 * `added`, `removed` and `removal-failed` name a device by its alias.
 */
export type RawLibvirtEvent = {
  kind: 'lifecycle' | 'added' | 'removed' | 'removal-failed' | 'closed';
  connection: number;
  uuid: string;
  name: string;
  number: number;
  detail: number;
  alias: string;
};

/** What the addon's module table has for it. */
export type LibvirtAddon = {
  openLibvirt(wake: () => void, threads: number): object;
  askLibvirt(client: object, op: number, connection: number, text: string, flags: number): number;
  releaseLibvirt(client: object, connection: number): void;
  abandonLibvirt(client: object, id: number): 'queued' | 'running' | 'done';
  takeLibvirt(client: object): {
    done: { id: number; fault: LibvirtFault | null; rows: string[][] }[];
    events: RawLibvirtEvent[];
    gap: boolean;
  };
};

/**
 * Why a call gave nothing. `late`: no answer by the deadline; `begun` false is then that libvirt has not been asked and
 * will not be, true that it may still do it.
 */
export class LibvirtCallError extends Error {
  override readonly name = 'LibvirtCallError';
  readonly fault: LibvirtFault;
  readonly late: boolean;
  readonly begun: boolean;

  constructor(fault: LibvirtFault, late: boolean, begun: boolean) {
    super(fault.message);
    this.fault = fault;
    this.late = late;
    this.begun = begun;
  }
}

/** Who is told of events; `gap` says that some were lost before these. */
type LibvirtListener = (events: RawLibvirtEvent[], gap: boolean) => void;

type Waiting = {
  op: LibvirtOp;
  resolve: (rows: string[][]) => void;
  reject: (e: Error) => void;
  timer: NodeJS.Timeout;
};

/** Threads for one process: several connections, and a close beside a call. */
const THREADS = 4;

export class LibvirtCalls {
  readonly #addon: LibvirtAddon;
  readonly #client: object;
  readonly #waiting = new Map<number, Waiting>();
  #listener: LibvirtListener = () => {};

  constructor(addon: LibvirtAddon, threads = THREADS) {
    this.#addon = addon;
    this.#client = addon.openLibvirt(() => this.#take(), threads);
  }

  /** The one who hears of events; before the connection with events is opened. */
  listen(listener: LibvirtListener): void {
    this.#listener = listener;
  }

  /** Calls; answers in rows of text. Raises LibvirtCallError. Its timer is what keeps node alive meanwhile. */
  call(op: LibvirtOp, connection: number, text: string, flags: number, deadlineMs: number): Promise<string[][]> {
    return new Promise((resolve, reject) => {
      const id = this.#addon.askLibvirt(this.#client, OPS.indexOf(op), connection, text, flags);
      const timer = setTimeout(() => this.#late(id), deadlineMs);
      this.#waiting.set(id, { op, resolve, reject, timer });
    });
  }

  /** Closes a connection: at once for who calls, and when the daemon lets it for a thread of the addon. */
  release(connection: number): void {
    this.#addon.releaseLibvirt(this.#client, connection);
  }

  #late(id: number): void {
    // It may have come while this thread was busy.
    this.#take();
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    const begun = this.#addon.abandonLibvirt(this.#client, id) !== 'queued';
    const fault = { domain: 0, code: 0, message: 'no answer before the deadline', call: waiting.op };
    waiting.reject(new LibvirtCallError(fault, true, begun));
  }

  #take(): void {
    const { done, events, gap } = this.#addon.takeLibvirt(this.#client);
    for (const { id, fault, rows } of done) {
      const waiting = this.#waiting.get(id);
      if (waiting === undefined) continue;
      this.#waiting.delete(id);
      clearTimeout(waiting.timer);
      if (fault === null) waiting.resolve(rows);
      else waiting.reject(new LibvirtCallError(fault, false, true));
    }
    if (events.length > 0 || gap) this.#listener(events, gap);
  }
}
