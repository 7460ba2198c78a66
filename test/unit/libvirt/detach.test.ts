/**
 * `detach` and `status --fix` with a libvirt of the test's own, for guests that let a device go late or never, and for
 * what comes between: an interrupt, a refusal, a guest that is no more, another command.
 */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { attachDevices } from '../../../src/actions/attach.ts';
import { detachDevices } from '../../../src/actions/detach.ts';
import { LibvirtCallError, type LibvirtOp } from '../../../src/addon/libvirtCalls.ts';
import { plugOf, readBinding, writeBinding } from '../../../src/binding/books.ts';
import { status } from '../../../src/cli/status.ts';
import { book, holdOf } from '../../mock/booked.ts';
import { domainXml, type SimulatedHost, simulatedHost, UUID_A } from '../../mock/hosts.ts';
import { EVER } from '../../patience.ts';

const VF = '0000:21:10.0';
const VFIO = { driver: 'vfio-pci', override: 'vfio-pci' };
const GUEST = `domain:${UUID_A}` as const;

/** What a call is answered with. */
type Fault = { code: number; domain: number };
const REFUSED: Fault = { code: 55, domain: 10 };
const NO_DOMAIN: Fault = { code: 42, domain: 10 };

let sim: SimulatedHost;
/** What the guest has, by half; null: there is no such half. */
let has: { live: string[] | null; config: string[] | null };
/** A domain is gone wholly. */
let gone: boolean;
/** Called before each change; what it returns is the answer, undefined: it is done. */
let before: (op: LibvirtOp, which: 'live' | 'config') => Fault | 'asked' | undefined;
const stop = { aborted: false };

const call = async (op: LibvirtOp, _connection: number, text: string, flags: number): Promise<string[][]> => {
  const fault = ({ code, domain }: Fault) =>
    new LibvirtCallError({ code, domain, message: 'no', call: op }, false, true);
  const xml = (devices: string[], id: string) =>
    Buffer.from(
      domainXml(
        'g',
        UUID_A,
        devices.map((address) => ({ address })),
      ),
    )
      .toString()
      .replace('<domain ', `<domain ${id} `);
  if (op === 'open') return [['1']];
  if (op === 'networks') return [];
  if (gone) throw fault(NO_DOMAIN);
  if (op === 'domains') return [[UUID_A, 'g', has.live === null ? '0' : '1', has.config === null ? '0' : '1', '1']];
  if (op === 'domain-xml') return [[flags === 0 ? xml(has.live ?? [], "id='1'") : xml(has.config ?? [], '')]];
  const which = flags === 1 ? 'live' : 'config';
  const answer = before(op, which);
  if (answer === 'asked') return [];
  if (answer !== undefined) throw fault(answer);
  const [, ...rest] = text.split('\n');
  expect(rest.join('')).toMatch(/bus=['"]0x21['"]/);
  has[which] = op === 'attach' ? [VF] : [];
  return [];
};

beforeEach(() => {
  sim = simulatedHost();
  stop.aborted = false;
  gone = false;
  before = () => undefined;
  has = { live: [VF], config: [VF] };
  Object.assign(sim.kernel.devices.get(VF) ?? {}, VFIO);
  sim.kernel.loadModule('vfio_pci');
  book(sim.host, VF, 11, holdOf(GUEST, 'g'), { driver: 'igbvf', override: null }, VFIO);
  Object.assign(sim.kernel, { openLibvirt: () => ({ call, release: () => {} }) });
});
afterEach(() => sim.remove());

const options = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false, signal: stop };
const detach = (more: Partial<typeof options> = {}) => {
  const request = { guest: 'g', words: [VF], connect: 'test:///x', live: false, config: false };
  return detachDevices(sim.host, request, { ...options, ...more });
};
/** The guest's hold, with a plug of another process. */
const plugged = (at: number) => {
  const b = readBinding(sim.host, VF);
  if (b === null) throw new Error('no book');
  const by = { ...plugOf('attaching', '77:1', { live: false, kept: true }), at };
  writeBinding(sim.host, { ...b, holds: [{ ...holdOf(GUEST, 'g'), plug: by }] });
};
const plug = () => readBinding(sim.host, VF)?.holds[0]?.plug?.state;

test('out of both halves, and back on its host driver', async () => {
  const d = await detach();
  expect(d.devices).toEqual([{ address: VF, live: 'detached', config: 'detached', driver: 'igbvf', given_back: true }]);
  expect(readBinding(sim.host, VF)).toBeNull();
});

test('interrupted while the guest has been asked: pending, since nobody can take that back', async () => {
  before = (_op, which) => {
    if (which === 'config') return undefined;
    stop.aborted = true;
    return 'asked';
  };
  await expect(detach()).rejects.toMatchObject({ code: 'HOSTDEV_PLUG_PENDING' });
  expect(has).toEqual({ live: [VF], config: [] });
  expect(plug()).toBe('leaving');
});

test('interrupted before the guest was asked: all is as it was', async () => {
  before = () => {
    stop.aborted = true;
    return undefined;
  };
  await expect(detach()).rejects.toMatchObject({ code: 'HOSTDEV_INTERRUPTED' });
  expect(has).toEqual({ live: [VF], config: [VF] });
  expect(readBinding(sim.host, VF)?.holds).toEqual([holdOf(GUEST, 'g')]);
});

test('refused: what it is kept as goes back; where that is refused too, it says so', async () => {
  before = (op, which) => (op === 'detach' && which === 'live' ? REFUSED : undefined);
  await expect(detach()).rejects.toMatchObject({ code: 'HOSTDEV_LIBVIRT' });
  expect(has).toEqual({ live: [VF], config: [VF] });
  expect(plug()).toBeUndefined();
  before = (op, which) => (op === 'attach' || which === 'live' ? REFUSED : undefined);
  await expect(detach()).rejects.toMatchObject({ code: 'HOSTDEV_UNDO_INCOMPLETE' });
  expect(has).toEqual({ live: [VF], config: [] });
  expect(plug()).toBeUndefined();
});

test('a transient guest that has ended meanwhile has it no more', async () => {
  has.config = null;
  before = () => {
    gone = true;
    return NO_DOMAIN;
  };
  expect((await detach()).devices).toMatchObject([{ live: 'detached', given_back: true }]);
  expect(readBinding(sim.host, VF)).toBeNull();
});

test('another command is at it: refused, in a dry run too; named twice: refused', async () => {
  sim.kernel.processRuns = () => true;
  plugged(Date.now());
  for (const dryRun of [true, false])
    await expect(detach({ dryRun })).rejects.toMatchObject({ code: 'HOSTDEV_IN_USE' });
  has.config = [];
  const take = { guest: 'g', connect: 'x', live: false, config: true, add: [VF], managed: 'no' } as never;
  for (const dryRun of [true, false])
    await expect(attachDevices(sim.host, take, { ...options, dryRun })).rejects.toMatchObject({
      code: 'HOSTDEV_IN_USE',
    });
  const request = { guest: 'g', words: [VF, '21:10.0'], connect: 'x', live: false, config: false };
  await expect(detachDevices(sim.host, request, options)).rejects.toMatchObject({ code: 'HOSTDEV_USAGE' });
});

test('what a killed attach left: a dry run of status --fix says once what would be, with the exit code of the real run', async () => {
  sim.kernel.processRuns = () => false;
  plugged(0);
  has.live = null;
  const fix = (dryRun: boolean) =>
    status({ host: sim.host, own: { fix: true }, options: { ...options, dryRun }, connect: 'test:///x' } as never);
  const dry = await fix(true);
  expect(dry.json).toMatchObject({ mended: [{ address: VF, would: true }] });
  expect(dry.exit).toBe(0);
  expect((await fix(false)).exit).toBe(0);
  expect(readBinding(sim.host, VF)).toBeNull();
});

test('several out of what it is kept as alone: the hold of the guest that runs stays, and so does the driver', async () => {
  const other = '0000:21:10.2';
  Object.assign(sim.kernel.devices.get(other) ?? {}, VFIO);
  book(sim.host, other, 12, holdOf(GUEST, 'g'), { driver: 'igbvf', override: null }, VFIO);
  has = { live: [VF, other], config: [VF, other] };
  const request = { guest: 'g', words: [VF, other], connect: 'x', live: false, config: true };
  const { devices } = await detachDevices(sim.host, request, options);
  expect(devices).toMatchObject([VF, other].map((address) => ({ address, driver: 'vfio-pci', given_back: false })));
  for (const a of [VF, other]) expect(readBinding(sim.host, a)?.holds).toEqual([holdOf(GUEST, 'g')]);
});
