/**
 * A dry run is the real run's preview: for each verb and each state the same exit code, error, devices and drivers, and
 * nothing changed by it.
 */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { markStarted } from '../../src/binding/guests.ts';
import { domainXml, UUID_A } from '../mock/hosts.ts';
import type { HostDescription } from '../scenarios/host.ts';
import { describeSim, type SimHost, until, useSimHosts } from './simhost.ts';
import { A, B, bookText, C, D, PF, snapshot, V, WORLD } from './world.ts';

const sims = useSimHosts();
const HOST: HostDescription = { ...WORLD, aliases: 'alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e\n' };
const VF = '0000:34:10.0';

type State = { host?: HostDescription; set?: (sim: SimHost) => Promise<unknown> | unknown };

const did = (sim: SimHost, ...words: string[]): void => expect(sim.run(...words)).toMatchObject({ exit: 0 });

/** A command killed when its write to `file`, or the one after `skip` others, was done. */
const killed =
  (file: string, skip: number, ...words: string[]) =>
  async (sim: SimHost): Promise<void> => {
    sim.ctl(`fault write ${file} kill after count=1 skip=${skip}`);
    expect((await sim.spawn(words).ended).signal).toBe('SIGKILL');
    sim.ctl('clear');
    await until(() => sim.hung().length === 0, 'nothing hangs');
  };

const override = (sim: SimHost, address: string, text: string): void =>
  writeFileSync(sim.path(`sys/bus/pci/devices/${address}/driver_override`), `${text}\n`);

/** Bound, and put on another driver by somebody since. */
const stolen = (sim: SimHost): void => {
  did(sim, 'bind', C);
  override(sim, C, 'e1000e');
  writeFileSync(sim.path('sys/bus/pci/drivers/vfio-pci/unbind'), C);
  writeFileSync(sim.path('sys/bus/pci/drivers_probe'), C);
};

/** A guest was prepared and started, and has ended without a release. */
const abandoned = async (sim: SimHost): Promise<void> => {
  const xml = domainXml('g', UUID_A, [{ address: D }]).toString();
  expect((await sim.spawn(['hook', 'run', 'g', 'prepare', 'begin', '-'], xml).ended).exit).toBe(0);
  markStarted(sim.host(), UUID_A);
};

const KILLED_BIND = killed('sys/bus/pci/drivers_probe', 1, 'bind', A, D);
const held = (sim: SimHost, node: number): void => sim.ctl(`hold 4711 qemu-system-x86 /dev/vfio/${node}`);

const STATES: [what: string, exit: number, words: string[], state?: State][] = [
  ['bind', 0, ['bind', D]],
  ['bind of a group and a driverless one', 0, ['bind', A, B, C]],
  ['bind of what is bound', 0, ['bind', D], { set: (s) => did(s, 'bind', D) }],
  ['bind with a driver that is no VFIO driver', 2, ['bind', D, '--driver', 'pci-stub']],
  ['bind with a driver that is nowhere', 1, ['bind', D, '--driver', 'no_such_vfio_pci']],
  [
    'bind where there is no vfio-pci',
    1,
    ['bind', D],
    {
      host: {
        ...HOST,
        drivers: HOST.drivers.filter((r) => !r.vfio),
        devices: HOST.devices.filter((d) => d.address !== V),
      },
    },
  ],
  ['bind of an unfinished bind', 0, ['bind', D], { set: KILLED_BIND }],
  [
    'bind of an unfinished bind that is kept back',
    5,
    ['bind', D],
    {
      set: async (s) => {
        await KILLED_BIND(s);
        held(s, 20);
      },
    },
  ],
  ['bind of a dead guest', 0, ['bind', D], { set: abandoned }],
  ['bind of an absent device', 4, ['bind', '0000:77:00.0']],
  ['unbind', 0, ['unbind', D], { set: (s) => did(s, 'bind', D) }],
  ['unbind of several', 0, ['unbind', A, B, C], { set: (s) => did(s, 'bind', A, B, C) }],
  ['unbind of what is not ours', 4, ['unbind', D]],
  ['unbind of an unfinished bind', 0, ['unbind', D], { set: KILLED_BIND }],
  [
    'unbind of an unfinished unbind',
    0,
    ['unbind', D],
    {
      set: async (s) => {
        did(s, 'bind', D);
        await killed('sys/bus/pci/drivers/vfio-pci/unbind', 0, 'unbind', D)(s);
      },
    },
  ],
  [
    'unbind of what a process holds',
    5,
    ['unbind', D],
    {
      set: (s) => {
        did(s, 'bind', D);
        held(s, 22);
      },
    },
  ],
  ['unbind of what somebody moved', 5, ['unbind', C], { set: stolen }],
  ['unbind of a dead guest', 0, ['unbind', D], { set: abandoned }],
  ['unbind --to-host of what somebody moved', 0, ['unbind', '--to-host', C], { set: stolen }],
  ['unbind --to-host of what was never ours', 0, ['unbind', '--to-host', V]],
  ['unbind --to-host of what is there', 0, ['unbind', '--to-host', D]],
  [
    'unbind --to-host of one by its book and one that has another override by now',
    0,
    ['unbind', '--to-host', D, C],
    {
      set: (s) => {
        did(s, 'bind', C, D);
        override(s, D, 'other');
      },
    },
  ],
  ['vf create', 0, ['vf', 'create', PF, '--count', '2']],
  ['vf create of too many', 3, ['vf', 'create', PF, '--count', '9']],
  ['vf create of none of a PF', 3, ['vf', 'create', D, '--count', '1']],
  [
    'vf create after an unfinished one',
    0,
    ['vf', 'create', PF, '--count', '2'],
    { set: killed(`sys/bus/pci/devices/${PF}/sriov_numvfs`, 0, 'vf', 'create', PF, '--count', '4') },
  ],
  [
    'vf create of another number',
    5,
    ['vf', 'create', PF, '--count', '3'],
    { set: (s) => did(s, 'vf', 'create', PF, '--count', '2') },
  ],
  [
    'vf create of another number, really',
    0,
    ['vf', 'create', PF, '--count', '3', '--recreate'],
    { set: (s) => did(s, 'vf', 'create', PF, '--count', '2') },
  ],
  ['vf remove', 0, ['vf', 'remove', PF], { set: (s) => did(s, 'vf', 'create', PF, '--count', '2') }],
  [
    'vf remove of one that is in use',
    5,
    ['vf', 'remove', PF],
    {
      set: (s) => {
        did(s, 'vf', 'create', PF, '--count', '2');
        held(s, 30);
      },
    },
  ],
  ['unbind of a VF', 0, ['unbind', VF], { set: (s) => did(s, 'vf', 'create', PF, '--count', '2') }],
  ['status --fix of an unfinished bind', 0, ['status', '--fix'], { set: KILLED_BIND }],
  [
    'status --fix of one that is kept back',
    5,
    ['status', '--fix'],
    {
      set: async (s) => {
        await KILLED_BIND(s);
        held(s, 20);
      },
    },
  ],
  ['status --fix of what somebody moved', 0, ['status', '--fix'], { set: stolen }],
  ['status --fix of a dead guest', 0, ['status', '--fix'], { set: abandoned }],
  [
    'status --fix of an override that was taken off',
    0,
    ['status', '--fix'],
    {
      set: (s) => {
        did(s, 'bind', D);
        writeFileSync(s.path('sys/bus/pci/drivers/vfio-pci/unbind'), D);
        override(s, D, '');
        writeFileSync(s.path('sys/bus/pci/drivers_probe'), D);
      },
    },
  ],
  [
    'status --fix beside what a killed writer left half written',
    0,
    ['status', '--fix'],
    {
      set: async (s) => {
        await KILLED_BIND(s);
        writeFileSync(s.path(`run/hostdev/journal/x.json.1:1.new`), '{');
      },
    },
  ],
  ['journal undo', 0, ['journal', 'undo'], { set: KILLED_BIND }],
  ['journal resume', 0, ['journal', 'resume'], { set: KILLED_BIND }],
];

/** What an answer names: devices with the drivers they end on, what is or would be mended, or the error. */
function named(out: string): unknown {
  const { plan, mended, error } = JSON.parse(out) as {
    plan?: { devices: { address: string; driver_from: string | null; driver_to: string | null }[] };
    mended?: { address: string; entry: string; mended: boolean; would: boolean; by: string | null }[];
    error?: { code: string; message: string };
  };
  return {
    devices: plan?.devices.map((d) => [d.address, d.driver_from, d.driver_to]),
    mended: mended?.map((m) => [m.address, m.entry, m.mended || m.would, m.by]),
    error,
  };
}

describeSim('-n, then the real run', () => {
  test.each(STATES)('%s', async (_what, exit, words, { host = HOST, set } = {}) => {
    const sim = await sims.start(host);
    await set?.(sim);
    const now = () => [
      snapshot(sim),
      bookText(sim.host()),
      sim.changes().length,
      existsSync(sim.path('run/hostdev')) ? readdirSync(sim.path('run/hostdev'), { recursive: true }) : [],
    ];
    const before = now();
    const dry = sim.run(...words, '-n', '-j');
    expect(now()).toEqual(before);
    const real = sim.run(...words, '-j');
    expect([dry.exit, real.exit], `${dry.err}\n${real.err}`).toEqual([exit, exit]);
    expect(named(dry.out)).toEqual(named(real.out));
  });
});
