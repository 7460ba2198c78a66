/**
 * What an admin does when something was left behind: the journal's entries finished either way, drift mended, whole
 * groups, several devices back at once.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { NOT_ASKED } from '../../../src/actions/inGuest.ts';
import { finishJournal, listJournal } from '../../../src/actions/journal.ts';
import { readStatus } from '../../../src/actions/status.ts';
import { fixStatus } from '../../../src/actions/statusFix.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import { newBinding, readBinding, readBooks, withHold, writeBinding } from '../../../src/binding/books.ts';
import type { JournalKind } from '../../../src/binding/journal.ts';
import type { DeviceState } from '../../../src/binding/state.ts';
import { holdOf } from '../../mock/booked.ts';
import { type SimulatedHost, simulatedHost } from '../../mock/hosts.ts';
import { leaveJournal } from '../../mock/leftJournal.ts';
import { EVER } from '../../patience.ts';

const VFS = ['0000:21:10.0', '0000:21:10.2', '0000:21:10.4'];
const [VF = ''] = VFS;
const ADMIN = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false };
const HOST_STATE = { driver: 'igbvf', override: null };
const VFIO_STATE = { driver: 'tb_igbvf_vfio_pci', override: 'tb_igbvf_vfio_pci' };

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
});
afterEach(() => sim.remove());

const device = (address = VF) => sim.kernel.devices.get(address) as { driver: string | null; override: string | null };
const stateOf = (address = VF) => ({ driver: device(address).driver, override: device(address).override });

const bookOf = (before: DeviceState, after: DeviceState) =>
  newBinding(sim.host, VF, 11, holdOf('admin'), before, after);

function leave(kind: JournalKind, id = 'abc'): void {
  const [from, to] = kind === 'bind' ? [HOST_STATE, VFIO_STATE] : [VFIO_STATE, HOST_STATE];
  leaveJournal(
    sim.host,
    [
      {
        address: VF,
        group: 11,
        from,
        to,
        override_bytes: `${from.override ?? '(null)'}
`,
      },
    ],
    {
      id,
      kind,
      books: [
        kind === 'bind'
          ? { address: VF, before: null, after: bookOf(from, to) }
          : { address: VF, before: bookOf(to, from), after: null },
      ],
    },
  );
  Object.assign(device(), { driver: null, override: 'tb_igbvf_vfio_pci' });
  sim.kernel.loadModule('tb_igbvf_vfio_pci');
}

test.each([
  ['bind', 'undo', HOST_STATE, 0],
  ['bind', 'resume', VFIO_STATE, 1],
  ['give-back', 'undo', VFIO_STATE, 1],
  ['give-back', 'resume', HOST_STATE, 0],
] as const)('%s half done, journal %s', async (kind, direction, state, books) => {
  leave(kind);
  expect(listJournal(sim.host).entries).toMatchObject([{ id: 'abc', kind }]);
  await expect(finishJournal(sim.host, ['xyz'], direction, ADMIN)).rejects.toMatchObject({ exit: 4 });
  const dry = await finishJournal(sim.host, [], direction, { ...ADMIN, dryRun: true });
  expect(dry).toMatchObject({ changed: false, entries: [{ id: 'abc' }] });
  expect(device().driver).toBeNull();
  expect((await finishJournal(sim.host, ['abc'], direction, ADMIN)).changed).toBe(true);
  expect(stateOf()).toEqual(state);
  expect(listJournal(sim.host).entries).toEqual([]);
  expect(readBooks(sim.host).books).toHaveLength(books);
  expect((await readStatus(sim.host, NOT_ASKED)).bindings.map((b) => b.drift)).toEqual(books ? [null] : []);
});

test('an entry that is not named is left as it is', async () => {
  leave('bind', 'one');
  leave('bind', 'two');
  await finishJournal(sim.host, ['one'], 'undo', ADMIN);
  expect(listJournal(sim.host).entries.map((e) => e.id)).toEqual(['two']);
});

test('status --fix: bound again, given back, forgotten, or left to a person', async () => {
  await bindDevices(sim.host, VFS, null, ADMIN);
  const [rebind = '', giveBack = '', person = ''] = VFS;
  Object.assign(device(rebind), HOST_STATE);
  const bound = readBinding(sim.host, giveBack);
  const other = readBinding(sim.host, person);
  if (bound === null || other === null) throw new Error('not bound');
  writeBinding(sim.host, { ...bound, holds: [], note: 'somebody held it' });
  const guest = 'domain:5d6e0a2e-0f5b-4d3c-9d53-000000000001' as const;
  writeBinding(sim.host, withHold({ ...other, holds: [] }, holdOf(guest, 'g')));
  Object.assign(device(person), HOST_STATE);

  const before = await readStatus(sim.host, NOT_ASKED);
  expect(before.bindings.map((b) => b.drift !== null && b.advice !== null)).toEqual([true, true, true]);
  const dry = await fixStatus(sim.host, { ...ADMIN, dryRun: true }, NOT_ASKED);
  expect(dry.map((m) => m.mended)).toEqual([false, false, false]);
  expect(stateOf(rebind)).toEqual(HOST_STATE);

  const mended = await fixStatus(sim.host, ADMIN, NOT_ASKED);
  expect(mended.map((m) => [m.address, m.mended])).toEqual([
    [rebind, true],
    [giveBack, true],
    [person, false],
  ]);
  expect(stateOf(rebind)).toEqual(VFIO_STATE);
  expect(stateOf(giveBack)).toEqual(HOST_STATE);
  expect(readBooks(sim.host).books.map((b) => b.address)).toEqual([rebind, person]);

  sim.kernel.devices.delete(rebind);
  expect(await fixStatus(sim.host, ADMIN, NOT_ASKED)).toContainEqual(
    expect.objectContaining({ address: rebind, mended: true }),
  );
  expect(readBooks(sim.host).books.map((b) => b.address)).toEqual([person]);
});

test('status --fix finishes what a dead process left, and answers with the device and the entry', async () => {
  leave('give-back');
  expect(await fixStatus(sim.host, ADMIN, NOT_ASKED)).toMatchObject([{ address: VF, entry: 'abc', mended: true }]);
  expect(stateOf()).toEqual(HOST_STATE);
});

test('status --fix: an entry of an earlier boot is forgotten as a whole, and no word of its line is taken for a device', async () => {
  leave('bind');
  const file = sim.host.absolute(`${sim.host.journal}/abc.json`);
  const entry = JSON.parse(readFileSync(file, 'utf8'));
  writeFileSync(file, JSON.stringify({ ...entry, boot: 'another' }));
  Object.defineProperty(sim.host, 'boot', { value: 'this' });
  expect(await fixStatus(sim.host, ADMIN, NOT_ASKED)).toMatchObject([{ address: null, entry: 'abc', mended: true }]);
});

test('status --fix: a hold of a guest that is gone is ended device by device', async () => {
  const guest = 'domain:5d6e0a2e-0f5b-4d3c-9d53-000000000001' as const;
  const [one = '', two = ''] = VFS;
  await bindDevices(sim.host, [one, two], null, ADMIN);
  for (const a of [one, two]) {
    const b = readBinding(sim.host, a);
    if (b !== null) writeBinding(sim.host, { ...b, holds: [holdOf(guest, 'g')] });
  }
  const mended = await fixStatus(sim.host, ADMIN, NOT_ASKED);
  expect(mended.map((m) => [m.address, m.entry, m.mended])).toEqual([
    [one, null, true],
    [two, null, true],
  ]);
  expect(stateOf(one)).toEqual(HOST_STATE);
});

test('--group endpoints takes the peers and no bridge', async () => {
  const bridge = { address: '0000:25:00.0', ids: '1b36:000e', class: '060400', group: 20 };
  sim.kernel.devices.set(bridge.address, { ...bridge, driver: null, override: null });
  const peers = [...sim.kernel.devices.values()].filter((d) => d.group === 20);
  const [first] = peers.filter((d) => !d.class?.startsWith('06'));
  if (first === undefined) throw new Error('no endpoint in group 30');
  const { plan } = await bindDevices(sim.host, [first.address], 'vfio-pci', { ...ADMIN, dryRun: true }, true);
  const endpoints = peers.filter((d) => !d.class?.startsWith('06') && d.driver !== 'vfio-pci').map((d) => d.address);
  expect(endpoints.length).toBeGreaterThan(1);
  expect(plan.devices.map((d) => d.address).sort()).toEqual(endpoints.sort());
});

test('several devices back: when one does not go, none has gone', async () => {
  await bindDevices(sim.host, VFS, null, ADMIN);
  sim.kernel.fault = (path, value) => (path.endsWith('unbind') && value === VFS[2] ? 'EBUSY' : null);
  await expect(unbindDevices(sim.host, VFS, false, ADMIN)).rejects.toMatchObject({ exit: 1 });
  expect(VFS.map((v) => stateOf(v))).toEqual([VFIO_STATE, VFIO_STATE, VFIO_STATE]);
  expect(readBooks(sim.host).books.map((b) => [b.holds[0]?.owner, b.note])).toEqual(VFS.map(() => ['admin', null]));
  sim.kernel.fault = () => null;
  await unbindDevices(sim.host, VFS, false, ADMIN);
  expect(VFS.map((v) => stateOf(v))).toEqual([HOST_STATE, HOST_STATE, HOST_STATE]);
  expect(readBooks(sim.host).books).toEqual([]);
});

test('what somebody else has changed since: kept, and taken along by --to-host', async () => {
  await bindDevices(sim.host, [VF], null, ADMIN);
  sim.kernel.loadModule('vfio_pci');
  Object.assign(device(), { driver: 'vfio-pci', override: 'somebody' });
  await expect(unbindDevices(sim.host, [VF], false, ADMIN)).rejects.toMatchObject({ code: 'HOSTDEV_IN_USE' });
  await unbindDevices(sim.host, [VF], true, ADMIN);
  expect(stateOf()).toEqual(HOST_STATE);
});
