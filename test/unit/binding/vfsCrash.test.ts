/** PF and VF: every failure and every crash while VFs are made or taken away, alone or with their PF's driver. */
import { describe, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { finishJournal } from '../../../src/actions/journal.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import { createVfs, listVfs, removeVfs } from '../../../src/actions/vf.ts';
import { readBooks, removeBinding, writeBinding } from '../../../src/binding/books.ts';
import { type JournalEntry, readJournal, writeJournal } from '../../../src/binding/journal.ts';
import { changing } from '../../../src/binding/session.ts';
import { scanInventory } from '../../../src/pci/inventory.ts';
import {
  ADMIN,
  ALLOW,
  AT,
  all,
  create,
  driversOf,
  failed,
  PF,
  pf,
  RECREATE,
  sim,
  start,
  VARIANT,
  VFS,
} from '../../mock/pf.ts';
import { EVER } from '../../patience.ts';

/** What the next command that concerns the PF finds and puts right. */
const recover = () =>
  changing(
    sim.host,
    scanInventory(sim.host),
    { addresses: [PF] },
    { deadlineMs: EVER },
    async ({ recovered }) => recovered,
  );

/** What each command of this page does, for the two properties below. */
const KINDS: Record<
  string,
  { from: 'none' | 'four' | 'mixed'; prepare?: () => Promise<unknown>; run: () => Promise<unknown> }
> = {
  'create for VFIO': { from: 'none', run: () => create(3) },
  'create for the host': { from: 'none', run: () => create(3, 'netdev') },
  'create through 0': { from: 'mixed', run: () => create(2, 'vfio', RECREATE) },
  remove: { from: 'mixed', run: () => removeVfs(sim.host, PF, ADMIN) },
  'bind the PF': { from: 'mixed', run: () => bindDevices(sim.host, [PF], null, ALLOW) },
  'unbind the PF': {
    from: 'mixed',
    prepare: () => bindDevices(sim.host, [PF], null, ALLOW),
    run: () => unbindDevices(sim.host, [PF], false, ADMIN),
  },
};

for (const [name, { from, prepare, run }] of Object.entries(KINDS)) {
  const ready = async (): Promise<void> => {
    await start(from);
    await prepare?.();
    sim.kernel.writes.length = 0;
  };

  describe(name, () => {
    test('every write failing once, with an errno, silently, or not at all: all is as before, or the journal says what is not', async () => {
      await ready();
      await run();
      const writes = sim.kernel.writes.length;
      expect(writes).toBeGreaterThan(0);
      for (let nth = 1; nth <= writes; nth += 1) {
        for (const how of ['EBUSY', 'EIO', 'ENODEV', 'ENOENT', 'ENOMEM', 'silent'] as const) {
          await ready();
          const before = all();
          const path: string[] = [];
          sim.kernel.fault = (p, value, n) => {
            if (n !== nth) return null;
            path.push(`${p}=${value.trim()}`);
            return how;
          };
          const e = await failed(run());
          expect(e.exit, `${how} on ${path}: ${e.message}`).toBe(1);
          expect(all(), `${how} on ${path}: ${e.message}`).toBe(before);
          expect(readJournal(sim.host).entries).toEqual([]);
        }
      }
    });

    test('a crash before every write: the next hostdev undoes it or goes to its end', async () => {
      await ready();
      const before = all();
      await run();
      const writes = sim.kernel.writes.length;
      const after = all();
      for (let nth = 0; nth < writes; nth += 1) {
        await ready();
        const crashed = sim.kernel.crashAfter(nth);
        void run();
        await crashed;
        expect(readJournal(sim.host).entries).toHaveLength(1);
        const options = { deadlineMs: EVER };
        await changing(sim.host, scanInventory(sim.host), { addresses: [PF] }, options, async () => {});
        expect(all(), `crash before write ${nth + 1}`).toBe(
          name === 'remove' || name === 'unbind the PF' ? after : before,
        );
        expect(readJournal(sim.host).entries).toEqual([]);
      }
    });
  });
}

describe('a crash around the books', () => {
  // VFs for the host are in no books.
  for (const [name, { from, prepare, run }] of Object.entries(KINDS).filter(([n]) => n !== 'create for the host'))
    for (const left of ['none of the books written', 'all of the books written'])
      test(`${name}: its mark is there and ${left}: it had been done`, async () => {
        await start(from);
        await prepare?.();
        const before = readBooks(sim.host).books;
        const marked: JournalEntry[] = [];
        const folder = sim.host.bindings;
        // The books are about to be written.
        Object.defineProperty(sim.host, 'bindings', {
          configurable: true,
          get: () => {
            marked.push(...readJournal(sim.host).entries.filter((e) => e.mark === 'done'));
            return folder;
          },
        });
        await run();
        Object.defineProperty(sim.host, 'bindings', { value: folder });
        const after = all();
        const [entry] = marked;
        if (entry === undefined) throw new Error('it was never marked');
        writeJournal(sim.host, entry);
        if (left.startsWith('none')) {
          for (const b of readBooks(sim.host).books) removeBinding(sim.host, b.address);
          for (const b of before) writeBinding(sim.host, b);
        }
        expect(await recover()).toHaveLength(1);
        expect(all()).toBe(after);
        expect(readJournal(sim.host).entries).toEqual([]);
      });
});

describe('journal undo and resume, asked for by the admin', () => {
  for (const name of ['create for VFIO', 'create through 0', 'bind the PF', 'remove', 'unbind the PF'])
    for (const direction of ['undo', 'resume'] as const)
      test(`${direction} of '${name}', dead before each of its writes and before its end`, async () => {
        const kind = KINDS[name] ?? expect.fail(name);
        const ready = async (): Promise<void> => {
          await start(kind.from);
          await kind.prepare?.();
          sim.kernel.writes.length = 0;
        };
        await ready();
        const before = all();
        await kind.run();
        const writes = sim.kernel.writes.length;
        const after = all();
        for (let nth = 0; nth < writes; nth += 1) {
          await ready();
          const crashed = sim.kernel.crashAfter(nth);
          void kind.run();
          await crashed;
          const result = await finishJournal(sim.host, [], direction, ADMIN);
          expect(result.changed).toBe(true);
          expect(all(), `dead before write ${nth + 1}`).toBe(direction === 'undo' ? before : after);
          expect(readJournal(sim.host).entries).toEqual([]);
        }
      });
});

test('dead before all VFs were there: whoever finishes it waits for them', async () => {
  const crashed = sim.kernel.crashAfter(0);
  void create(4);
  await crashed;
  const [entry] = readJournal(sim.host).entries;
  await start('none');
  pf().vfsLate = true;
  const writer = sim.host.native.openWriter(sim.host.root);
  await writer.write(`${AT}/sriov_drivers_autoprobe`, '0', 1000);
  await writer.write(`${AT}/sriov_numvfs`, '4', 1000);
  writer.close();
  if (entry !== undefined) writeJournal(sim.host, entry);
  await finishJournal(sim.host, [], 'resume', ADMIN);
  expect(driversOf()).toEqual(Array(4).fill(VARIANT));
  expect(readBooks(sim.host).books.map((b) => [b.address, b.group])).toEqual(VFS.map((a, n) => [a, 11 + n]));
});

test('VFs that a guest has by now outlive the recovery of a dead create, which is named until they are free', async () => {
  const before = all();
  const crashed = sim.kernel.crashAfter(9);
  void create(4);
  await crashed;
  const halfWay = driversOf();
  sim.kernel.openBy = [{ pid: 9, command: 'qemu', path: '/dev/vfio/11' }];
  expect(await failed(create(4))).toMatchObject({ code: 'HOSTDEV_GUARD', exit: 5 });
  for (const direction of ['undo', 'resume'] as const) {
    const { changed, kept } = await finishJournal(sim.host, [], direction, ADMIN);
    if (direction === 'resume') continue;
    expect(changed).toBe(false);
    expect(kept).toMatchObject([{ address: PF, by: 'guard', reason: expect.stringContaining('process 9 (qemu)') }]);
    expect(driversOf()).toEqual(halfWay);
    expect(readJournal(sim.host).entries).toMatchObject([{ mark: null }]);
    // Another device is bound all the same.
    await bindDevices(sim.host, ['0000:22:00.0'], null, ADMIN);
    await unbindDevices(sim.host, ['0000:22:00.0'], false, ADMIN);
  }
  sim.kernel.openBy = [];
  await removeVfs(sim.host, PF, ADMIN);
  expect(all()).toBe(before);
});

test('a write of sriov_numvfs that hangs and holds the PF: exit 9, the journal says so, list answers, the next command puts it right', async () => {
  const before = all();
  sim.kernel.fault = (path) => (path.endsWith('sriov_numvfs') ? 'hang' : null);
  expect(await failed(create())).toMatchObject({ code: 'HOSTDEV_TIMEOUT', exit: 9 });
  expect(readJournal(sim.host).entries).toMatchObject([{ state: 'pending', devices: [{ address: PF }] }]);
  expect(listVfs(sim.host, PF).vfs).toEqual([]);
  expect(await failed(create())).toMatchObject({ code: 'HOSTDEV_STUCK' });
  sim.kernel.fault = () => null;
  sim.kernel.release();
  await createVfs(sim.host, PF, 2, 'vfio', ADMIN);
  await removeVfs(sim.host, PF, ADMIN);
  expect(all()).toBe(before);
  expect(readJournal(sim.host).entries).toEqual([]);
});
