/**
 * `status` and `status --fix` by what libvirt says of the guests: a device that a guest has and no hook of ours saw, a
 * hold of a guest that runs and has the device no more. Not asked, nothing of it.
 */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { holdUnheld } from '../../../src/actions/holdUnheld.ts';
import { type DeviceGuests, NOT_ASKED } from '../../../src/actions/inGuest.ts';
import { readStatus } from '../../../src/actions/status.ts';
import { fixStatus } from '../../../src/actions/statusFix.ts';
import { newBinding, readBinding, withHold, writeBinding } from '../../../src/binding/books.ts';
import { markStarted } from '../../../src/binding/guests.ts';
import { holdOf } from '../../mock/booked.ts';
import { type SimulatedHost, simulatedHost, UUID_A } from '../../mock/hosts.ts';
import { EVER } from '../../patience.ts';

const VF = '0000:21:10.0';
const ADMIN = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false };
const VFIO = { driver: 'vfio-pci', override: 'vfio-pci' };
const GUEST = `domain:${UUID_A}` as const;

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
  Object.assign(sim.kernel.devices.get(VF) ?? {}, VFIO);
});
afterEach(() => sim.remove());

/** libvirt's answer: the guest g runs, and has these devices. */
const says = (devices: string[], managed = false): DeviceGuests => ({
  asked: true,
  guests: new Map(devices.map((a) => [a, { uuid: UUID_A, name: 'g', managed }])),
  known: new Set([UUID_A]),
  networks: [],
  warnings: [],
});
const opened = (): void => {
  sim.kernel.openBy = [{ pid: 4242, command: 'qemu-system-x86', path: '/dev/vfio/11' }];
};
/** libvirt's own state of g: it runs. */
const runs = (): void => {
  sim.kernel.files.set('run/libvirt/qemu/g.xml', "<domstatus state='running'/>");
};
const owners = (): string[] => (readBinding(sim.host, VF)?.holds ?? []).map((h) => h.owner);

test("managed='no' without a hold of the guest's: shown, noted by --fix, and free again when the guest has gone", async () => {
  opened();
  expect((await readStatus(sim.host, says([VF]))).unheld).toEqual([
    { address: VF, guest: { uuid: UUID_A, name: 'g' }, managed: false, driver: 'vfio-pci', drift: true },
  ]);
  const dry = await holdUnheld(sim.host, says([VF]), { ...ADMIN, dryRun: true });
  expect(dry).toMatchObject([{ address: VF, mended: false, would: true }]);
  expect(owners()).toEqual([]);
  expect(await holdUnheld(sim.host, says([VF]), ADMIN)).toMatchObject([{ address: VF, mended: true }]);
  expect(owners()).toEqual([GUEST]);
  expect((await readStatus(sim.host, says([VF]))).unheld).toEqual([]);
  expect(await holdUnheld(sim.host, says([VF]), ADMIN)).toEqual([]);
  // Nothing of it was ours before, so that nothing is given back.
  sim.kernel.openBy = [];
  expect(await fixStatus(sim.host, ADMIN, NOT_ASKED)).toMatchObject([{ address: VF, mended: true }]);
  expect(readBinding(sim.host, VF)).toBeNull();
  expect(sim.kernel.devices.get(VF)).toMatchObject(VFIO);
});

test("beside an admin's hold it is a second one", async () => {
  opened();
  const before = { driver: 'igbvf', override: null };
  writeBinding(sim.host, newBinding(sim.host, VF, 11, holdOf('admin'), before, VFIO));
  expect(await holdUnheld(sim.host, says([VF]), ADMIN)).toMatchObject([{ mended: true }]);
  expect(owners()).toEqual(['admin', GUEST]);
  expect(readBinding(sim.host, VF)?.before).toEqual(before);
});

test.each([
  ["managed='yes' is libvirt's own", () => opened(), () => says([VF], true), []],
  ['nobody has it open', () => {}, () => says([VF]), [{ mended: false, text: expect.stringContaining('no process') }]],
  [
    'it is on its host driver',
    () => {
      opened();
      Object.assign(sim.kernel.devices.get(VF) ?? {}, { driver: 'igbvf', override: null });
    },
    () => says([VF]),
    [{ mended: false, text: expect.stringContaining('no VFIO driver') }],
  ],
  ['another host has it', () => opened(), () => says(['0000:77:00.0']), []],
  ['nobody was asked', () => opened(), () => NOT_ASKED, []],
])('not noted: %s', async (_what, set, own, mended) => {
  set();
  expect(await holdUnheld(sim.host, own(), ADMIN)).toMatchObject(mended);
  expect(readBinding(sim.host, VF)).toBeNull();
});

test('a hold of a guest that runs and has the device no more ends by --fix, where libvirt said so', async () => {
  const booked = withHold(newBinding(sim.host, VF, 11, holdOf('admin'), VFIO, VFIO), holdOf(GUEST, 'g'));
  writeBinding(sim.host, booked);
  markStarted(sim.host, UUID_A);
  runs();
  const drift = async (own: DeviceGuests) => (await readStatus(sim.host, own)).bindings[0]?.drift ?? null;
  expect(await drift(NOT_ASKED)).toBeNull();
  expect(await fixStatus(sim.host, ADMIN, NOT_ASKED)).toEqual([]);
  expect(await drift(says([VF]))).toBeNull();
  expect(await drift({ ...says([]), known: new Set() })).toBeNull();
  expect(await drift(says([]))).toContain('runs, and has it no more');
  // Who holds the device now goes before what was said a moment ago.
  opened();
  expect(await drift(says([]))).toBeNull();
  sim.kernel.openBy = [];
  expect(await fixStatus(sim.host, { ...ADMIN, dryRun: true }, says([]))).toMatchObject([{ would: true }]);
  expect(owners()).toEqual(['admin', GUEST]);
  expect(await fixStatus(sim.host, ADMIN, says([]))).toMatchObject([{ address: VF, mended: true }]);
  expect(owners()).toEqual(['admin']);
});
