/**
 * An update under running guests: the books in test/data/books-5d2ab66/ were written by hostdev of that commit, the
 * last of schema 1 (`claims` for `holds`), on this world. In guests/ `guest` has A, B and the second VF, guest `other`
 * has D with managed='yes', and the admin has C and the first VF; in pf/ the admin has PF, whose two VFs went with its
 * driver.
 */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { domainXml, UUID_A } from '../mock/hosts.ts';
import { describeSim, type SimHost, useSimHosts } from './simhost.ts';
import { A, B, booked, C, D, PF, type Snapshot, snapshot, WORLD } from './world.ts';

const BOOKS = fileURLToPath(new URL('../data/books-5d2ab66', import.meta.url));
const UUID_OTHER = '7f9a3a5e-4a57-4f4c-9d56-0d2b2b4dfb42';
const [VF0, VF1] = ['0000:34:10.0', '0000:34:10.2'];

const sims = useSimHosts();

/** The world with its VFs; then as that hostdev left it, its guests running. Returns what it was before. */
function asThatCommitLeftIt(sim: SimHost): Snapshot {
  const write = (path: string, text: string): void => writeFileSync(sim.path(`sys/bus/pci/${path}`), text);
  write(`devices/${PF}/sriov_numvfs`, '2');
  const original = snapshot(sim);
  for (const [address, driver] of [
    [A, 'e1000e'],
    [B, 'e1000e'],
    [C, null],
    [D, 'e1000e'],
    [VF0, 'igbvf'],
    [VF1, 'igbvf'],
  ] as const) {
    write(`devices/${address}/driver_override`, 'vfio-pci\n');
    if (driver !== null) write(`drivers/${driver}/unbind`, address);
    write('drivers_probe', address);
  }
  mkdirSync(sim.path('run/hostdev'), { recursive: true });
  cpSync(`${BOOKS}/guests`, sim.path('run/hostdev/bindings'), { recursive: true });
  for (const group of [20, 31]) sim.ctl(`hold 4711 qemu-system-x86 /dev/vfio/${group}`);
  sim.ctl('hold 4712 qemu-system-x86 /dev/vfio/22');
  sim.ctl('file run/libvirt/qemu/guest.pid 4711', 'file run/libvirt/qemu/other.pid 4712');
  return original;
}

/** Its QEMU ends, and libvirt gives back what it manages. */
function ends(sim: SimHost, pid: number, name: string, ...groups: number[]): void {
  sim.ctl(...groups.map((g) => `drop ${pid} /dev/vfio/${g}`));
  rmSync(sim.path(`run/libvirt/qemu/${name}.pid`));
}

const release = async (sim: SimHost, name: string, uuid: string, ...addresses: string[]): Promise<void> => {
  const managed = name === 'other' ? 'yes' : 'no';
  const xml = domainXml(
    name,
    uuid,
    addresses.map((address) => ({ address, managed })),
  ).toString();
  const ran = await sim.spawn(['hook', 'run', name, 'release', 'end', '-'], xml).ended;
  expect(ran, name).toMatchObject({ exit: 0, err: '' });
};

const file = (sim: SimHost, address: string) =>
  JSON.parse(readFileSync(sim.path(`run/hostdev/bindings/${address}.json`), 'utf8'));

describeSim('books of the hostdev before, its guests running', () => {
  test('known to all who ask, released by this hostdev, and rewritten by a change', async () => {
    const sim = await sims.start(WORLD);
    const original = asThatCommitLeftIt(sim);
    const status = sim.run('status', '-j');
    expect(status).toMatchObject({ exit: 0, json: { bad_files: [] } });
    const devices = status.json.bindings as unknown as { address: string; holds: { owner: string }[] }[];
    expect(Object.fromEntries(devices.map((d) => [d.address, d.holds.map((h) => h.owner)]))).toEqual({
      [A]: [`domain:${UUID_A}`],
      [B]: [`domain:${UUID_A}`],
      [C]: ['admin'],
      [D]: [`domain:${UUID_OTHER}`],
      [VF0]: ['admin'],
      [VF1]: [`domain:${UUID_A}`],
    });
    for (const address of [A, D, VF1])
      expect(sim.run('unbind', address)).toMatchObject({ exit: 5, err: expect.stringContaining('domain') });
    const conf = sim.path('nova.conf');
    writeFileSync(conf, '[pci]\ndevice_spec = { "vendor_id": "8086", "product_id": "10ca", "managed": "no" }\n');
    const pools = sim.run('pool', 'list', '-j', '--config', conf).json as unknown as { pools: { claimed: number }[] };
    expect(pools.pools.reduce((n, p) => n + p.claimed, 0)).toBe(1);

    // A reader leaves the file as it is; the admin's hold beside the guest's is a change.
    expect(file(sim, VF1).schema).toBe(1);
    expect(sim.run('bind', VF1).exit).toBe(0);
    expect(file(sim, VF1)).toMatchObject({ schema: 2, holds: [{ owner: `domain:${UUID_A}` }, { owner: 'admin' }] });
    expect(Object.keys(file(sim, VF1))).not.toContain('claims');

    ends(sim, 4711, 'guest', 20, 31);
    await release(sim, 'guest', UUID_A, A, B, VF1);
    const between = snapshot(sim);
    expect([between[A], between[B]]).toEqual([original[A], original[B]]);
    expect(between[PF]).toContain(`${VF1} vfio-pci vfio-pci`);
    expect(booked(sim.host()).sort()).toEqual([C, D, VF0, VF1]);

    ends(sim, 4712, 'other', 22);
    const pci = (path: string, text: string): void => writeFileSync(sim.path(`sys/bus/pci/${path}`), text);
    pci(`devices/${D}/driver_override`, '\n');
    pci('drivers/vfio-pci/unbind', D);
    pci('drivers_probe', D);
    await release(sim, 'other', UUID_OTHER, D);
    expect(sim.run('unbind', C, VF0, VF1)).toMatchObject({ exit: 0 });
    expect(snapshot(sim)).toEqual(original);
    expect(booked(sim.host())).toEqual([]);
  });

  test("a PF gets its VFs back, and the admin's among them", async () => {
    const sim = await sims.start(WORLD);
    const pci = (path: string, text: string): void => writeFileSync(sim.path(`sys/bus/pci/${path}`), text);
    pci(`devices/${PF}/driver_override`, 'vfio-pci\n');
    pci('drivers/igb/unbind', PF);
    pci('drivers_probe', PF);
    mkdirSync(sim.path('run/hostdev'), { recursive: true });
    cpSync(`${BOOKS}/pf`, sim.path('run/hostdev/bindings'), { recursive: true });
    expect(sim.run('unbind', PF)).toMatchObject({ exit: 0 });
    expect(snapshot(sim)[PF]).toBe(`igb (null), numvfs 2 autoprobe 1, ${VF0} vfio-pci vfio-pci, ${VF1} igbvf (null)`);
    expect(booked(sim.host())).toEqual([VF0]);
    expect(file(sim, VF0)).toMatchObject({ schema: 2, holds: [{ owner: 'admin' }], before: { driver: 'igbvf' } });
    expect(sim.run('unbind', VF0)).toMatchObject({ exit: 0 });
    expect(booked(sim.host())).toEqual([]);
  });
});
