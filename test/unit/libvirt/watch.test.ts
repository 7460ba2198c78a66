/** The watch on an addon that the test plays, so that each order of answers and events can be had. */
import { afterEach, expect, test } from 'vitest';
import { type LibvirtAddon, LibvirtCalls, type RawLibvirtEvent } from '../../../src/addon/libvirtCalls.ts';
import { Watch } from '../../../src/libvirt/watch.ts';
import { EVER } from '../../patience.ts';

const OPS = ['open', 'close', 'versions', 'domains', 'domain', 'domain-xml'];
const LIFECYCLE = { number: 0, detail: 0, alias: '', name: '' };
/** virErrorDomain */
const FROM_RPC = 7;
const FROM_QEMU = 10;
const uuid = (n: number): string => `624392bd-9784-4e20-8b29-00000000000${n}`;
const xml = (n: number, slot: number): string => `<domain type='test'><name>g${n}</name><uuid>${uuid(n)}</uuid><devices>
<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0' bus='0x21' slot='${slot}' function='0'/>
</source></hostdev></devices></domain>`;

/** A libvirt in memory: guests that are kept, by number, with the slot of their device. */
class Played implements LibvirtAddon {
  readonly guests = new Map<number, number>();
  /** In place of a guest's XML. */
  readonly broken = new Map<number, string>();
  /** Called when an operation is asked for, before it is answered. */
  before: (op: string, connection: number) => void = () => {};
  isAway = false;
  /** Answers nothing any more. */
  isStuck = false;
  opened = 0;
  readonly released: number[] = [];
  #last = 0;
  #wake: () => void = () => {};
  #done: ReturnType<LibvirtAddon['takeLibvirt']>['done'] = [];
  #events: RawLibvirtEvent[] = [];
  #gap = false;

  openLibvirt(wake: () => void): object {
    this.#wake = wake;
    return {};
  }

  askLibvirt(_client: object, op: number, connection: number, text: string): number {
    const id = ++this.#last;
    const name = OPS[op] as string;
    this.before(name, connection);
    if (this.isStuck) return id;
    const fault = (domain: number, code: number) => ({ domain, code, message: 'played', call: name });
    const reply = this.isAway ? fault(FROM_RPC, 38) : (this.#answer(name, text) ?? fault(FROM_QEMU, 42));
    this.#done.push('code' in reply ? { id, fault: reply, rows: [] } : { id, fault: null, rows: reply });
    setImmediate(() => this.#wake());
    return id;
  }

  #answer(op: string, text: string): string[][] | null {
    const row = (n: number): string[] => [uuid(n), `g${n}`, '0', '1', ''];
    if (op === 'open') return [[`${++this.opened}`]];
    if (op === 'domains') return [...this.guests.keys()].map(row);
    const n = Number(text.at(-1));
    const slot = this.guests.get(n);
    if (slot === undefined) return null;
    return op === 'domain' ? [row(n)] : [[this.broken.get(n) ?? xml(n, slot)]];
  }

  releaseLibvirt(_client: object, connection: number): void {
    this.released.push(connection);
  }

  abandonLibvirt(): 'running' {
    return 'running';
  }

  takeLibvirt(): ReturnType<LibvirtAddon['takeLibvirt']> {
    const taken = { done: this.#done, events: this.#events, gap: this.#gap };
    this.#done = [];
    this.#events = [];
    this.#gap = false;
    return taken;
  }

  tell(...ns: number[]): void {
    for (const n of ns) this.#events.push({ ...LIFECYCLE, kind: 'lifecycle', connection: this.opened, uuid: uuid(n) });
    this.#wake();
  }

  lose(): void {
    this.#events.push({ ...LIFECYCLE, kind: 'closed', connection: this.opened, uuid: '' });
    this.#wake();
  }

  /** As when more events came than are kept. */
  overflow(): void {
    this.#gap = true;
    this.#wake();
  }
}

const watches: Watch[] = [];
afterEach(async () => {
  for (const w of watches.splice(0)) await w.stop();
});

async function watching(played: Played, { refreshMs = EVER, deadlineMs = EVER } = {}): Promise<Watch> {
  const watch = new Watch(new LibvirtCalls(played), { uri: 'x:///', readOnly: true, deadlineMs, refreshMs, wake() {} });
  watches.push(watch);
  await until(() => watch.why === null);
  return watch;
}

const until = (is: () => boolean): Promise<void> => expect.poll(is, { timeout: EVER, interval: 5 }).toBe(true);

/** `gN: slot before > slot now` of each change taken. */
const taken = (watch: Watch): string[] =>
  watch.take().map(({ uuid: u, before, after }) => {
    const slot = (d: typeof before): string =>
      d === null ? 'none' : (d.kept?.devices[0]?.address.slice(8, 10) ?? '?');
    return `g${u.at(-1)}: ${slot(before)} > ${slot(after)}`;
  });

test('the first list is a change of each guest; then an event has its guest read, and no other', async () => {
  const played = new Played();
  played.guests.set(1, 1).set(2, 1);
  const watch = await watching(played);
  expect(taken(watch)).toEqual(['g1: none > 01', 'g2: none > 01']);
  const asked: string[] = [];
  played.before = (op) => asked.push(op);
  played.guests.set(2, 5);
  played.tell(2);
  await until(() => watch.domains.get(uuid(2))?.kept?.devices[0]?.address === '0000:21:05.0');
  expect(taken(watch)).toEqual(['g2: 01 > 05']);
  expect(asked).toEqual(['domain', 'domain-xml']);
});

test('what is not taken is one change a guest: from what the reader knows to what is now', async () => {
  const played = new Played();
  played.guests.set(1, 1);
  const watch = await watching(played);
  watch.take();
  for (const slot of [2, 3, 4]) {
    played.guests.set(1, slot).set(2, slot);
    played.tell(1, 2);
    await until(() => watch.domains.get(uuid(2))?.kept?.devices[0]?.address === `0000:21:0${slot}.0`);
  }
  played.guests.delete(2);
  played.tell(2);
  await until(() => !watch.domains.has(uuid(2)));
  // g2 came and went.
  expect(taken(watch)).toEqual(['g1: 01 > 04']);
  expect(taken(watch)).toEqual([]);
  // A guest that is gone is no lost connection.
  expect(played.opened).toBe(1);
});

test('events that were lost: all guests are read again', async () => {
  const played = new Played();
  played.guests.set(1, 1).set(2, 1);
  const watch = await watching(played);
  watch.take();
  played.guests.delete(1);
  played.guests.set(2, 2).set(3, 3);
  played.overflow();
  await until(() => watch.domains.has(uuid(3)) && watch.why === null);
  expect(taken(watch)).toEqual(['g1: 01 > none', 'g2: 01 > 02', 'g3: none > 03']);
});

test('a guest that changes while it is read is read again', async () => {
  const played = new Played();
  played.guests.set(1, 1);
  const watch = await watching(played);
  watch.take();
  let times = 0;
  played.before = (op) => {
    if (op !== 'domain-xml' || ++times > 1) return;
    // Its answer is made after this, but the event is what tells: the answer could have been made before.
    played.tell(1);
  };
  played.tell(1);
  await until(() => times >= 2);
});

test('a lost connection: it says so, reconnects, and finds what happened meanwhile', async () => {
  const played = new Played();
  played.guests.set(1, 1).set(2, 1);
  const watch = await watching(played);
  watch.take();
  played.isAway = true;
  played.lose();
  await until(() => watch.why !== null);
  expect(watch.why).toMatch(/domains: played/);
  // The last that is known stays known.
  expect(watch.domains.size).toBe(2);
  played.guests.delete(1);
  played.guests.set(2, 7);
  played.isAway = false;
  await until(() => watch.why === null);
  expect(taken(watch)).toEqual(['g1: 01 > none', 'g2: 01 > 07']);
  expect(played.released).toEqual([1]);
});

test('what happens between registering and the list, and events of an earlier connection', async () => {
  const played = new Played();
  played.guests.set(1, 1);
  const watch = await watching(played);
  watch.take();
  let once = true;
  played.before = (op) => {
    if (op !== 'domains' || !once) return;
    once = false;
    // Before the list is made, so that it is in it; its event is heard before the list is there.
    played.guests.set(2, 2);
    played.tell(2);
  };
  played.isAway = true;
  played.lose();
  await until(() => watch.why !== null);
  once = true;
  played.isAway = false;
  await until(() => watch.why === null);
  expect(taken(watch)).toEqual(['g2: none > 02']);
});

test('a call that is late: the connection is given back, and another one asked', async () => {
  const played = new Played();
  played.guests.set(1, 1);
  const watch = await watching(played, { deadlineMs: 50 });
  watch.take();
  played.isStuck = true;
  played.tell(1);
  await until(() => watch.why !== null);
  expect(watch.why).toMatch(/no answer before the deadline/);
  played.guests.set(1, 9);
  played.isStuck = false;
  await until(() => watch.why === null);
  expect(taken(watch)).toEqual(['g1: 01 > 09']);
});

test('a change that no event tells is found when all are read again', async () => {
  const played = new Played();
  played.guests.set(1, 1);
  const watch = await watching(played, { refreshMs: 20 });
  watch.take();
  played.guests.set(1, 2);
  await until(() => watch.domains.get(uuid(1))?.kept?.devices[0]?.address === '0000:21:02.0');
  expect(taken(watch)).toEqual(['g1: 01 > 02']);
});

test('a guest whose XML is none keeps no other back', async () => {
  const played = new Played();
  played.guests.set(1, 1).set(2, 2);
  played.broken.set(1, '<domain');
  const watch = await watching(played);
  expect(watch.domains.get(uuid(1))).toMatchObject({ name: 'g1', live: null, kept: null });
  expect(watch.domains.get(uuid(1))?.why).toMatch(/domain g1/);
  expect(watch.domains.get(uuid(2))).toMatchObject({ why: null });
  expect(played.opened).toBe(1);
});
