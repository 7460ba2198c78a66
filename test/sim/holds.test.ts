/**
 * A hold counts from prepare on and belongs to a guest that runs or starts: also on a device that was on VFIO before,
 * which nothing moves. And a prepare that nobody waits for any more binds nothing.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { nativeExecutable } from '../../src/addon/load.ts';
import { readBinding, readBook } from '../../src/binding/books.ts';
import { Deadline, takeLocks } from '../../src/store/locks.ts';
import { domainXml, UUID_A, UUID_B } from '../mock/hosts.ts';
import { CLI } from '../mock/tree.ts';
import { describeSim, type SimHost, until, useSimHosts } from './simhost.ts';
import { A, B, booked, D, journalled, PF, snapshot, V, WORLD } from './world.ts';

const sims = useSimHosts();
const VF = '0000:34:10.0';
const POOL =
  'device_spec = { "vendor_id": "8086", "product_id": "10ca", "managed": "no" }\nalias = { "name": "vf", "product_id": "10ca", "vendor_id": "8086", "device_type": "type-VF" }\n';

const guest = (name: string, uuid: string, ...devices: string[]): string =>
  domainXml(
    name,
    uuid,
    devices.map((address) => ({ address })),
  ).toString();

const hook = (sim: SimHost, operation: string, name: string, uuid: string, ...devices: string[]) =>
  sim.spawn(['hook', 'run', name, operation, 'begin', '-'], guest(name, uuid, ...devices)).ended;

/** The caller of the hook ends with it: a libvirtd that is gone. */
function fromDeadCaller(sim: SimHost, operation: string, xml: string): Promise<number | null> {
  const script = `"${process.execPath}" "${CLI}" --root "${sim.root}" hook run g ${operation} begin -`;
  const child = spawn('/bin/sh', ['-c', `${script}; exit $?`], { stdio: ['pipe', 'ignore', 'ignore'] });
  child.stdin.end(xml);
  return new Promise((resolve) => child.once('close', resolve));
}

describeSim('a guest on a VF that was on VFIO before', () => {
  const setups: Record<string, (sim: SimHost) => void> = {
    "by the operator's own hand": (sim) => {
      expect(sim.run('vf', 'create', PF, '--count', '2', '--for', 'netdev').exit).toBe(0);
      const write = (path: string, text: string): void => writeFileSync(sim.path(`sys/bus/pci/${path}`), text);
      write(`devices/${VF}/driver_override`, 'vfio-pci\n');
      write('drivers/igbvf/unbind', VF);
      write('drivers_probe', VF);
    },
    'after bind': (sim) => {
      expect(sim.run('vf', 'create', PF, '--count', '2', '--for', 'netdev').exit).toBe(0);
      expect(sim.run('bind', VF).exit).toBe(0);
    },
    'after vf create': (sim) => {
      expect(sim.run('vf', 'create', PF, '--count', '2', '--for', 'vfio').exit).toBe(0);
    },
  };
  for (const [what, setUp] of Object.entries(setups)) {
    test(`${what}: status, pool list, claim, domain plan, unbind, vf remove and a second guest all know it`, async () => {
      const sim = await sims.start(WORLD);
      setUp(sim);
      const conf = join(sim.root, 'nova.conf');
      writeFileSync(conf, `[pci]\n${POOL}`);
      const before = snapshot(sim);
      const booksBefore = booked(sim.host());
      const free = () =>
        (sim.run('pool', 'list', '-j', '--config', conf).json as unknown as { pools: { free: number }[] }).pools.reduce(
          (n, p) => n + p.free,
          0,
        );
      expect(free()).toBe(2);
      expect((await hook(sim, 'prepare', 'one', UUID_A, VF)).exit).toBe(0);
      for (const end of ['starting', 'running']) {
        if (end === 'running') {
          await hook(sim, 'started', 'one', UUID_A, VF);
          sim.ctl('hold 4711 qemu-system-x86 /dev/vfio/30', 'file run/libvirt/qemu/one.pid 4711');
        }
        expect(snapshot(sim), end).toEqual(before);
        expect(sim.run('status').out, end).toMatch(new RegExp(`${VF}.*\\bone\\b`));
        expect(free(), end).toBe(1);
        expect(sim.run('claim', 'vf:2', '-n', '--config', conf), end).toMatchObject({ exit: 3 });
        writeFileSync(sim.path('two.xml'), guest('two', UUID_B));
        const plan = sim.run('domain', 'plan', sim.path('two.xml'), '--alias', 'vf:2', '--config', conf);
        expect(plan, end).toMatchObject({ exit: 3, err: expect.stringContaining('one has it') });
        for (const args of [
          ['unbind', VF],
          ['unbind', '--to-host', VF],
          ['vf', 'remove', PF],
          ['bind', PF, '--allow=vfs'],
        ]) {
          const refused = sim.run(...args);
          expect(refused, `${end}: ${args.join(' ')}`).toMatchObject({
            exit: 5,
            err: expect.stringMatching(/\bone\b/),
          });
        }
        for (const managed of ['no', 'yes'] as const) {
          const xml = domainXml('two', UUID_B, [{ address: VF, managed }]).toString();
          const second = await sim.spawn(['hook', 'run', 'two', 'prepare', 'begin', '-'], xml).ended;
          expect(second.exit, end).toBe(5);
          expect(second.err, end).toContain('domain one');
        }
      }
      sim.ctl('drop 4711 /dev/vfio/30');
      rmSync(sim.path('run/libvirt/qemu/one.pid'));
      expect((await hook(sim, 'release', 'one', UUID_A, VF)).exit).toBe(0);
      expect(snapshot(sim)).toEqual(before);
      expect(booked(sim.host())).toEqual(booksBefore);
      expect(free()).toBe(2);
    });
  }
});

describeSim('a guest that is gone', () => {
  test('prepared by a libvirtd that has ended: drift by name, given back by --fix, and unbind does not speak of a running guest', async () => {
    for (const way of ['status --fix', 'unbind', 'bind', 'another guest'] as const) {
      const sim = await sims.start(WORLD);
      const host = sim.host();
      const original = snapshot(sim);
      expect(await fromDeadCaller(sim, 'prepare', guest('gone', UUID_A, D))).toBe(0);
      expect(readBinding(host, D)?.holds).toMatchObject([{ owner: `domain:${UUID_A}` }]);
      const status = sim.run('status');
      expect(status).toMatchObject({ exit: 3, out: expect.stringMatching(/domain gone .*neither runs nor starts/) });
      if (way === 'status --fix') expect(sim.run('status', '--fix').exit).toBe(0);
      if (way === 'unbind') {
        const ran = sim.run('unbind', D);
        // It is back already when unbind looks for it: the dead guest's hold was ended first.
        expect([0, 4]).toContain(ran.exit);
        expect(ran.err).not.toMatch(/when that guest stops/);
      }
      if (way === 'bind') {
        expect(sim.run('bind', D).exit).toBe(0);
        expect(readBinding(host, D)).toMatchObject({ holds: [{ owner: 'admin' }], before: { driver: 'e1000e' } });
        expect(sim.run('unbind', D).exit).toBe(0);
      }
      if (way === 'another guest') {
        expect((await hook(sim, 'prepare', 'next', UUID_B, D)).exit).toBe(0);
        expect(readBinding(host, D)?.holds).toMatchObject([{ owner: `domain:${UUID_B}` }]);
        await hook(sim, 'release', 'next', UUID_B, D);
      }
      expect(snapshot(sim)).toEqual(original);
      expect(booked(host)).toEqual([]);
      await sim.stop();
    }
  });

  test('its release could not read the XML, or write the store: it is done by name, or by the next hostdev', async () => {
    const sim = await sims.start(WORLD);
    const host = sim.host();
    const original = snapshot(sim);
    await hook(sim, 'prepare', 'g', UUID_A, D);
    expect((await sim.spawn(['hook', 'run', 'g', 'release', 'end', '-'], '<domain><na').ended).exit).toBe(0);
    expect(snapshot(sim)).toEqual(original);
    expect(booked(host)).toEqual([]);

    await hook(sim, 'prepare', 'g', UUID_A, D);
    await hook(sim, 'started', 'g', UUID_A, D);
    sim.ctl('fault change run/hostdev/* errno=EROFS');
    expect((await hook(sim, 'release', 'g', UUID_A, D)).exit).toBe(0);
    sim.ctl('clear');
    expect(sim.run('status').out).toMatch(/neither runs nor starts/);
    expect(sim.run('bind', D).exit).toBe(0);
    expect(readBinding(host, D)?.holds).toMatchObject([{ owner: 'admin' }]);
    expect(sim.run('unbind', D).exit).toBe(0);
    expect(snapshot(sim)).toEqual(original);
  });
});

describeSim('a prepare that nobody waits for any more', () => {
  /** The hook executable as libvirt calls it, whose node waits for a lock that we hold. */
  async function waiting(
    sim: SimHost,
  ): Promise<{ client: ReturnType<typeof spawn>; ended: Promise<number | null>; unlock: () => void }> {
    const host = sim.host();
    const unlock = await takeLocks(host, ['group-22'], new Deadline(1000));
    const folder = sim.path('etc/libvirt/hooks');
    mkdirSync(folder, { recursive: true });
    const conf = join(folder, 'hostdev.conf');
    writeFileSync(conf, `node=${process.execPath}\ncli=${CLI}\nroot=${sim.root}\nprepare_deadline=30\n`);
    const client = spawn(nativeExecutable(), ['hook', '--conf', conf, 'g', 'prepare', 'begin', '-'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    client.stdin?.end(guest('g', UUID_A, D));
    const ended = new Promise<number | null>((resolve) => client.once('close', resolve));
    await until(() => busy(sim), 'the domain has its lock');
    // It has become node and waits for the group.
    await new Promise((r) => setTimeout(r, 700));
    return { client, ended, unlock };
  }
  const busy = (sim: SimHost): boolean => {
    const host = sim.host();
    const file = `${host.absolute(host.locks)}/domain-${UUID_A}`;
    try {
      const fd = host.native.tryLock(file, true);
      if (fd === null) return true;
      host.native.unlock(fd);
    } catch {
      // Not there yet.
    }
    return false;
  };

  test('its hook client is killed: nothing is bound, though the lock comes free', async () => {
    const sim = await sims.start(WORLD);
    const original = snapshot(sim);
    const { client, ended, unlock } = await waiting(sim);
    client.kill('SIGKILL');
    await ended;
    unlock();
    await until(() => !busy(sim), 'node has ended');
    expect(snapshot(sim)).toEqual(original);
    expect([booked(sim.host()), journalled(sim.host()).addresses]).toEqual([[], []]);
  });

  test('a release meets it: waits, and there is nothing left', async () => {
    const sim = await sims.start(WORLD);
    const original = snapshot(sim);
    const { ended, unlock } = await waiting(sim);
    const conf = sim.path('etc/libvirt/hooks/hostdev.conf');
    const release = spawn(nativeExecutable(), ['hook', '--conf', conf, 'g', 'release', 'end', '-'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    release.stdin.end(guest('g', UUID_A, D));
    unlock();
    expect(await ended).toBe(0);
    await new Promise((resolve) => release.once('close', resolve));
    await until(() => !busy(sim) && readBook(sim.host(), D) === null, 'it is given back');
    expect(snapshot(sim)).toEqual(original);
    expect(journalled(sim.host()).addresses).toEqual([]);
  });

  test('killed in the middle of its writes: what it had begun goes back by itself', async () => {
    for (const slow of ['sys/bus/pci/drivers/e1000e/unbind', 'sys/bus/pci/drivers_probe']) {
      const sim = await sims.start(WORLD);
      const original = snapshot(sim);
      const { client, ended, unlock } = await waiting(sim);
      sim.ctl(`fault write ${slow} delay=1500 count=1`);
      unlock();
      await until(() => sim.journal().some((line) => line.startsWith(slow)), 'it writes');
      client.kill('SIGKILL');
      await ended;
      await until(() => !busy(sim), 'node has ended');
      expect(snapshot(sim), slow).toEqual(original);
      expect([booked(sim.host()), journalled(sim.host()).addresses], slow).toEqual([[], []]);
      await sim.stop();
    }
  });
});

describeSim('what could not be read is not absent', () => {
  test('EIO and EAGAIN on a device: list says so and exits 1, prepare does not say that it is not there', async () => {
    const sim = await sims.start(WORLD);
    for (const errno of ['EIO', 'EAGAIN']) {
      sim.ctl(`fault lookup sys/bus/pci/devices/${D} errno=${errno}`);
      const list = sim.run('list', '-j');
      expect(list.exit, errno).toBe(1);
      expect(list.json.devices.map((d) => d.address)).not.toContain(D);
      expect(list.err).toContain(errno);
      // An EAGAIN that lasts is waited for at every access.
      if (errno === 'EAGAIN') break;
      expect(sim.run('show', D).exit).toBe(1);
      const prepared = await hook(sim, 'prepare', 'g', UUID_A, D);
      expect(prepared.exit, errno).toBe(1);
      expect(prepared.err).not.toContain('does not have');
      expect(prepared.err).toContain(errno);
      expect(sim.run('bind', D).exit, errno).toBe(1);
      // The others are had.
      expect(sim.run('bind', A, B).exit, errno).toBe(0);
      expect(sim.run('unbind', A, B).exit, errno).toBe(0);
      sim.ctl('clear');
    }
    sim.ctl('clear');
    sim.ctl(`fault readlink sys/bus/pci/devices/${D}/driver errno=EIO`);
    expect(sim.run('bind', D)).toMatchObject({ exit: 1, err: expect.stringContaining('EIO') });
    expect(sim.journal().filter((l) => l.includes(D))).toEqual([]);
    sim.ctl('clear');
    expect(sim.run('list').exit).toBe(0);
    expect(sim.run('show', V).exit).toBe(0);
  });
});

describeSim('bind of a device that a guest has', () => {
  const owners = (sim: SimHost, address: string) => readBinding(sim.host(), address)?.holds.map((h) => h.owner);

  test.each([
    ['that the hook bound', D, 'e1000e (null)'],
    ['that was on VFIO before', V, 'vfio-pci vfio-pci'],
  ])("%s adds the admin's hold, which outlives the guest", async (_what, address, before) => {
    const sim = await sims.start(WORLD);
    expect((await hook(sim, 'prepare', 'one', UUID_A, address)).exit).toBe(0);
    await hook(sim, 'started', 'one', UUID_A, address);
    sim.ctl(`hold 4711 qemu-system-x86 /dev/vfio/${address === D ? 22 : 23}`, 'file run/libvirt/qemu/one.pid 4711');
    const dry = sim.run('bind', address, '-n');
    const bound = sim.run('bind', address);
    expect([dry.exit, bound.exit, dry.out]).toEqual([0, 0, bound.out]);
    expect(bound.out).toMatch(new RegExp(`^${address}  on vfio-pci already, for domain one .*admin.*\\n$`));
    expect(owners(sim, address)).toEqual([`domain:${UUID_A}`, 'admin']);
    expect(sim.run('bind', address)).toMatchObject({ exit: 0, out: expect.stringContaining('Nothing to do') });
    sim.ctl('drop 4711 /dev/vfio/22', 'drop 4711 /dev/vfio/23');
    rmSync(sim.path('run/libvirt/qemu/one.pid'));
    expect((await hook(sim, 'release', 'one', UUID_A, address)).exit).toBe(0);
    expect(snapshot(sim)[address]).toBe('vfio-pci vfio-pci');
    expect([owners(sim, address), sim.run('status').exit]).toEqual([['admin'], 0]);
    expect(sim.run('unbind', address).exit).toBe(0);
    expect([snapshot(sim)[address], booked(sim.host())]).toEqual([before, []]);
  });

  test('that libvirt manages: it is on VFIO again when libvirt has given it back', async () => {
    const sim = await sims.start(WORLD);
    const xml = domainXml('one', UUID_A, [{ address: D, managed: 'yes' }]).toString();
    const run = (operation: string) => sim.spawn(['hook', 'run', 'one', operation, 'begin', '-'], xml).ended;
    const libvirt = (override: string, from: string): void => {
      writeFileSync(sim.path(`sys/bus/pci/devices/${D}/driver_override`), `${override}\n`);
      writeFileSync(sim.path(`sys/bus/pci/drivers/${from}/unbind`), D);
      writeFileSync(sim.path('sys/bus/pci/drivers_probe'), D);
    };
    expect((await run('prepare')).exit).toBe(0);
    libvirt('vfio-pci', 'e1000e');
    await run('started');
    sim.ctl('hold 4711 qemu-system-x86 /dev/vfio/22', 'file run/libvirt/qemu/one.pid 4711');
    expect(sim.run('bind', D).exit).toBe(0);
    sim.ctl('drop 4711 /dev/vfio/22');
    rmSync(sim.path('run/libvirt/qemu/one.pid'));
    libvirt('', 'vfio-pci');
    expect(snapshot(sim)[D]).toBe('e1000e (null)');
    expect((await run('release')).exit).toBe(0);
    expect(snapshot(sim)[D]).toBe('vfio-pci vfio-pci');
    expect([owners(sim, D), sim.run('status').exit]).toEqual([['admin'], 0]);
    expect(sim.run('unbind', D).exit).toBe(0);
    expect(snapshot(sim)[D]).toBe('e1000e (null)');
  });
});
