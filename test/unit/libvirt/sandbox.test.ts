/**
 * The client and `guest list|show` on a real libvirtd with the qemu driver, in a sandbox of the test's own; and that
 * libvirtd restarting, killed and stopped. What a check does leaves libvirtd alone: its pid is the same after each.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { LibvirtCalls } from '../../../src/addon/libvirtCalls.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { HostdevError } from '../../../src/errors.ts';
import { Connection } from '../../../src/libvirt/connection.ts';
import { seeDomains } from '../../../src/libvirt/domains.ts';
import { isLacking } from '../../lacking.ts';
import { restarts } from '../../libvirtd/restarts.ts';
import { LibvirtSandbox, sandboxDevice, sandboxGuest, sandboxLacks, sandboxUuid } from '../../libvirtd/sandbox.ts';
import { hostdev, StaticHost } from '../../mock/tree.ts';
import { EVER } from '../../patience.ts';

const native = loadNative();
const VF = '0000:21:10.0';
const OTHER_VF = '0000:21:10.2';

describe.skipIf(isLacking(sandboxLacks()))('a libvirtd of its own', () => {
  let sandbox: LibvirtSandbox;
  let pid: string;
  let atFirst: number;
  beforeAll(async () => {
    sandbox = await LibvirtSandbox.start();
    await sandbox.define('gpu1', sandboxDevice(VF) + sandboxDevice(OTHER_VF, 'yes'));
    await sandbox.define('gpu2');
    await sandbox.virsh('start --paused gpu2');
    atFirst = sockets();
  });
  afterAll(() => sandbox?.stop());

  const openCalls = (): LibvirtCalls => native.openLibvirt?.() as LibvirtCalls;
  const open = (calls: LibvirtCalls, readOnly: boolean): Promise<Connection> =>
    Connection.open(calls, sandbox.uri, { readOnly, deadlineMs: EVER });

  describe('is left alone', () => {
    beforeEach(async () => {
      pid = await sandbox.order('pid');
    });
    afterEach(async () => {
      expect(await sandbox.order('pid')).toBe(pid);
      expect(pid).toMatch(/^\d+$/);
    });

    test('guests that run and that do not, with their devices; versions, with that of QEMU', async () => {
      const connection = await open(openCalls(), true);
      const [off, runs, ...more] = await seeDomains(connection, () => EVER);
      expect(more).toEqual([]);
      expect(off).toMatchObject({ name: 'gpu1', active: false, persistent: true, id: null, live: null, why: null });
      expect(off?.kept?.devices.devices).toMatchObject([
        { address: VF, managed: false },
        { address: OTHER_VF, managed: true },
      ]);
      expect(runs).toMatchObject({ name: 'gpu2', active: true, persistent: true, why: null });
      expect(runs?.id).toBeGreaterThan(0);
      expect(runs?.live?.devices.devices).toEqual([]);
      const { library, daemon, hypervisor } = await connection.versions(EVER);
      expect(daemon).toBe(library);
      expect(hypervisor).toBeGreaterThan(4_000_000);
      connection.close();
    });

    test('a guest that exists already, one that does not, a read-only connection: each its code', async () => {
      const calls = openCalls();
      const writes = await open(calls, false);
      const failed = (p: Promise<unknown>): Promise<unknown> => p.catch((e) => (e instanceof HostdevError ? e : null));
      const twice = sandboxGuest('gpu2').replace(sandboxUuid('gpu2'), sandboxUuid('gpu3'));
      expect(await failed(writes.call('define', twice, 1, EVER))).toMatchObject({
        code: 'HOSTDEV_LIBVIRT',
        exit: 1,
        data: { libvirt: { call: 'virDomainDefineXMLFlags', code: 9, domain: 20 } },
      });
      expect(await failed(writes.call('domain-xml', sandboxUuid('gpu3'), 0, EVER))).toMatchObject({
        code: 'HOSTDEV_GUEST_ABSENT',
        exit: 4,
      });
      const reads = await open(calls, true);
      expect(await failed(reads.call('define', sandboxGuest('gpu3'), 1, EVER))).toMatchObject({
        code: 'HOSTDEV_NOT_PERMITTED',
        exit: 6,
      });
      writes.close();
      reads.close();
    });

    test('events name the guest and the connection', async () => {
      const calls = openCalls();
      const heard: string[] = [];
      calls.listen((events) => heard.push(...events.map((e) => `${e.connection} ${e.kind} ${e.number} ${e.name}`)));
      const connection = await Connection.open(calls, sandbox.uri, { readOnly: true, events: true, deadlineMs: EVER });
      await sandbox.define('gpu5');
      await sandbox.virsh('undefine gpu5');
      const n = connection.number;
      await expect.poll(() => heard, { timeout: EVER }).toEqual([`${n} lifecycle 0 gpu5`, `${n} lifecycle 1 gpu5`]);
      connection.close();
    });

    test('connections that are closed while all threads are at calls are closed all the same', async () => {
      // Those of the tests before are given back by and by.
      const none = () => expect.poll(sockets, { timeout: EVER }).toBe(atFirst);
      await none();
      const calls = native.openLibvirt?.(2) as LibvirtCalls;
      const connections = await Promise.all(Array.from({ length: 8 }, () => open(calls, true)));
      expect(sockets()).toBeGreaterThanOrEqual(atFirst + 8);
      const asked = connections.map((c) => c.call('domains', '', 0, EVER));
      for (const c of connections) c.close();
      await Promise.allSettled(asked);
      await none();
    });

    test('guest list and show', async () => {
      const vf = { ids: '8086:10ca', driver: 'vfio-pci', numa: 1 };
      const host = new StaticHost({ devices: [{ ...vf, address: VF, group: 11 }] });
      try {
        const run = (...words: string[]) => hostdev([...words, '--root', host.root, '-j', '--connect', sandbox.uri]);
        const devices = [
          { address: VF, in: 'kept', managed: false, driver: 'vfio-pci', iommu_group: 11, numa_node: 1 },
          { address: OTHER_VF, in: 'kept', managed: true, driver: null, iommu_group: null },
        ];
        const listed = run('guest', 'list');
        expect(listed.exit).toBe(0);
        expect(listed.json).toMatchObject({
          guests: [
            { name: 'gpu1', active: false, persistent: true, devices },
            { name: 'gpu2', active: true, persistent: true, devices: [] },
          ],
        });
        const shown = run('guest', 'show', 'gpu1');
        expect(shown.json).toMatchObject({ guest: { name: 'gpu1', devices } });
        expect(run('guest', 'show', sandboxUuid('gpu2')).json).toMatchObject({ guest: { name: 'gpu2' } });
        expect(run('guest', 'show', 'gpu9').exit).toBe(4);
        // It does not run, so that it has nothing.
        expect(run('list').json).toMatchObject({ guests_asked: true, devices: [{ address: VF, guest: null }] });
      } finally {
        host.remove();
      }
    });
  });

  test('20 restarts, kills and stops during calls and changes: nothing is missed, and no call hangs', async () => {
    await sandbox.virsh('destroy gpu2');
    const result = await restarts(sandbox, openCalls, 20, () => {});
    expect(result.missed).toEqual([]);
    // Each restart and each kill ends the connection; a stop may be over before a busy machine has noticed.
    expect(result.lost).toBeGreaterThanOrEqual(10);
    expect(result.changes).toBeGreaterThan(20);
    expect(result.calls).toBeGreaterThan(100);
  });
});

/** How many sockets this process has. */
const sockets = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
    } catch {
      return false;
    }
  }).length;
